"""A recogniser in the loop: noise on the sound, and a real recogniser writes down what it still hears.

The recogniser is PocketSphinx (Huggins-Daines et al. 2006) with the English model of its wheel. What it wrote is kept
in ``transcripts.sqlite`` of the cache folder, under a hash of what it heard, so nothing kept is ever stale.
"""

from __future__ import annotations

import math
import sqlite3
from contextlib import closing
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dual_bench.features.cache import content_key, default_folder
from dual_bench.types import Corruption, FloatArray, UserError

SAMPLE_RATE = 16_000
"""Hz; what the recogniser hears."""

FASTEST = 1_000_000
"""Samples a second of a sound; the filter that resamples has twenty numbers for each of them."""
_MODEL = "en-us, each utterance whole and by itself"
"""The model and how it is used; what is kept is known by it."""
_PATIENCE = 60.0
"""Seconds to wait while other processes write transcripts."""


def snr_db(rate: float) -> float:
    """The signal-to-noise ratio, in dB, of a sound in which noise is the share ``rate``, in [0, 1], of the power.

    >>> snr_db(0.5), round(snr_db(1 / 11), 9), snr_db(0), snr_db(1)
    (0.0, 10.0, inf, -inf)
    """
    if rate in (0, 1):
        return -math.inf if rate else math.inf
    return 10 * math.log10((1 - rate) / rate)


def rate_of_snr(db: float) -> float:
    """The share of noise in the power of a sound whose signal-to-noise ratio is ``db``: the inverse of ``snr_db``.

    >>> rate_of_snr(0), round(rate_of_snr(10), 6), rate_of_snr(math.inf), rate_of_snr(-math.inf)
    (0.5, 0.090909, 0.0, 1.0)
    """
    ratio: float = 10 ** (-abs(db) / 10)  # of the smaller power to the larger, which cannot overflow
    return (ratio if db > 0 else 1) / (1 + ratio)


def parsed_rate(value: object) -> object:
    """A nominal rate as people write it, ``"0.3"`` or ``"10 dB"``; what is no text stays as it is.

    >>> parsed_rate("0.3"), parsed_rate("0 dB"), parsed_rate(0.1)
    (0.3, 0.5, 0.1)
    """
    if not isinstance(value, str):
        return value
    try:
        return rate_of_snr(float(value[:-2])) if value.lower().endswith("db") else float(value)
    except ValueError:
        raise ValueError(f"expected a number in [0, 1] or a ratio such as 10dB, found '{value}'") from None


def mixed(speech: FloatArray, noise: FloatArray, rate: float) -> FloatArray:
    """``speech`` and ``noise``, both (samples,), scaled so that noise is ``rate`` of their power; within [-1, 1].

    Their power together is that of the speech at every rate. Where a peak would be clipped the whole is softer instead.
    """
    loudness = math.sqrt(np.mean(np.square(speech)) / np.mean(np.square(noise)))
    mixture = math.sqrt(1 - rate) * speech + math.sqrt(rate) * loudness * noise
    found: FloatArray = mixture / np.abs(mixture).max(initial=1.0)
    return found


def recognise(text: str, rate: float, rng: np.random.Generator, samples: FloatArray, sample_rate: float) -> str:
    """What is recognised of ``samples`` (n,), in [-1, 1] at ``sample_rate`` Hz, through white Gaussian noise.

    ``rate`` is the share of noise in the power of what the recogniser hears (see ``snr_db``); at 1 there is noise
    alone. At 0 there is no recogniser, and ``text`` is returned. Words are lower case without punctuation; where
    nothing is heard there are none. UserError where the recogniser is not installed, or ``samples`` are no waveform.
    """
    if samples.ndim != 1 or not np.isfinite(samples).all():
        raise UserError(f"asr-loop: expected a waveform (samples,) of finite numbers, found {_seen(samples)}")
    if not (1 <= sample_rate <= FASTEST and sample_rate == round(sample_rate)):
        raise UserError(
            f"asr-loop: expected a whole number of samples a second, at most {FASTEST:,}, found a rate of {sample_rate}"
        )
    noise = rng.standard_normal(-(-len(samples) * SAMPLE_RATE // round(sample_rate)))
    if rate == 0:
        return text
    if not len(samples):
        return ""
    # resampled first: the same rate is then the same noise to the recogniser, whatever rate the sound was stored at
    heard = mixed(_resampled(samples, round(sample_rate)), noise, rate)
    return transcript(np.round(heard * np.iinfo(np.int16).max).astype(np.int16))


ASR_LOOP = Corruption(
    "asr-loop",
    1,
    recognise,
    rate_is="noise power in the sound",
    needs="sound",
    packages=("pocketsphinx",),
    nested=False,
)


def _seen(samples: FloatArray) -> str:
    return "NaN or infinity" if samples.ndim == 1 else f"shape {samples.shape}"


def _resampled(samples: FloatArray, sample_rate: int) -> NDArray[np.float64]:
    """(n,) at ``sample_rate`` Hz to (ceil(n * 16000 / sample_rate),) at 16 kHz."""
    # torchaudio rounds that length in float32, so that it is one less now and then, and would have to import torch
    from scipy.signal import resample_poly  # slow to import, and not needed at rate 0

    common = math.gcd(SAMPLE_RATE, sample_rate)
    found: NDArray[np.float64] = resample_poly(samples.astype(np.float64), SAMPLE_RATE // common, sample_rate // common)
    return found


# ------------------------------------------------------------------------------------------- transcripts


def transcript(heard: NDArray[np.int16]) -> str:
    """What the recogniser writes of ``heard`` (samples,) at 16 kHz; each sound is recognised once, then remembered.

    UserError where the recogniser is not installed, or the file of transcripts cannot be used.
    """
    if not heard.any():  # PocketSphinx writes "in" for a second of zeros, and fails where there is no sample
        return ""
    package = _package()
    key = content_key(package.__name__, version(package.__name__), _MODEL, heard)
    known = _query("SELECT words FROM transcripts WHERE key = ?", key)
    if known:
        return known[0][0]
    words = _decode(heard)
    _query("INSERT OR IGNORE INTO transcripts VALUES (?, ?)", key, words)
    return words


def _query(statement: str, *values: str) -> list[tuple[str]]:
    """Run one statement, by itself atomic, on the transcripts on disk."""
    path = default_folder() / "transcripts.sqlite"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS transcripts (key TEXT PRIMARY KEY, words TEXT NOT NULL)")
            return connection.execute(statement, values).fetchall()
    except (OSError, sqlite3.Error) as error:
        raise UserError(
            f"the transcripts in {path} cannot be read or written ({error}); remove that file, "
            "or name another folder with DUAL_BENCH_CACHE"
        ) from error


def _package() -> ModuleType:
    try:
        import pocketsphinx
    except ImportError:
        raise UserError("asr-loop: the recogniser is not installed; pip install 'dual-bench[asr]'") from None
    package: ModuleType = pocketsphinx
    return package


@lru_cache(maxsize=1)
def _decoder() -> Any:
    """The only recogniser of this process: it takes half a second to make."""
    package = _package()
    model = Path(str(package.__file__)).parent / "model" / "en-us"  # the default is wherever POCKETSPHINX_PATH says
    files = {"hmm": "en-us", "lm": "en-us.lm.bin", "dict": "cmudict-en-us.dict"}
    return package.Decoder(**{name: str(model / file) for name, file in files.items()}, loglevel="FATAL")


def _decode(heard: NDArray[np.int16]) -> str:
    """The words in ``heard`` (samples >= 1,), without fillers and without marks of variant pronunciation."""
    decoder = _decoder()
    # it would carry its estimates of noise and of the cepstral mean over to the next utterance, and hear it otherwise
    decoder.reinit_feat()
    decoder.start_utt()
    decoder.process_raw(heard.tobytes(), full_utt=True)
    decoder.end_utt()
    found = decoder.hyp()
    return str(found.hypstr) if found else ""
