"""A recogniser in the loop: the noise is what it is said to be, and the same sound always gives the same words."""

from __future__ import annotations

import csv
import math
import re
import sqlite3
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import jiwer
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.signal import lfilter

from dual_bench.catalog import CORRUPTIONS
from dual_bench.corruptions import recogniser
from dual_bench.corruptions.recogniser import ASR_LOOP, SAMPLE_RATE, mixed, rate_of_snr, snr_db, transcript
from dual_bench.types import FloatArray, UserError

Sound = NDArray[np.float32]

seeds = st.integers(0, 2**32 - 1)
rates = st.floats(0, 1)
sample_rates = st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100, 48_000])


def heard_at(rate: float, samples: FloatArray, sample_rate: float = SAMPLE_RATE, seed: int = 0) -> str:
    """What ASR_LOOP makes of a sound whose words are "the reference"."""
    found: str = ASR_LOOP.apply("the reference", rate, np.random.default_rng(seed), samples, sample_rate)
    return found


def sound(seed: int, length: int = 400) -> Sound:
    return np.random.default_rng(seed).uniform(-1, 1, length).astype(np.float32)


def pcm(samples: FloatArray) -> NDArray[np.int16]:
    return np.round(samples * 32767).astype(np.int16)


def babble(seed: int) -> Sound:
    """1.5 seconds of twelve vowels and whispers, each white noise or a train of pulses through three resonances."""
    rng = np.random.default_rng(seed)
    length = SAMPLE_RATE // 8
    parts = []
    for _ in range(12):
        part = np.zeros(length)
        part[:: int(SAMPLE_RATE / rng.uniform(90, 140))] = 1
        if rng.random() < 0.3:
            part = rng.standard_normal(length)
        radius = math.exp(-math.pi * 90 / SAMPLE_RATE)
        for low, high in ((300, 800), (900, 2200), (2300, 3000)):
            angle = 2 * math.pi * rng.uniform(low, high) / SAMPLE_RATE
            part = lfilter([1], [1, -2 * radius * math.cos(angle), radius**2], part)
        parts.append(0.5 * part / np.abs(part).max())
    return np.concatenate(parts).astype(np.float32)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of transcripts, in a folder that is not there yet."""
    monkeypatch.setenv("DUAL_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "transcripts.sqlite"


@pytest.fixture
def decoded(cache: Path, monkeypatch: pytest.MonkeyPatch) -> list[NDArray[np.int16]]:
    """A recogniser that writes how many samples it heard; gives every sound that it was asked to recognise."""
    asked: list[NDArray[np.int16]] = []

    def decode(heard: NDArray[np.int16]) -> str:
        asked.append(heard)
        return f"{len(heard)} samples"

    monkeypatch.setattr(recogniser, "_decode", decode)
    return asked


# ------------------------------------------------------------------------------------------------- noise


@given(db=st.floats(-90, 150))
def test_the_share_of_noise_and_the_signal_to_noise_ratio_are_inverses(db: float) -> None:
    assert snr_db(rate_of_snr(db)) == pytest.approx(db, abs=1e-6)


@given(rate=rates)
@example(rate=5e-324)
@example(rate=1 - 2**-53)
def test_every_share_of_noise_has_a_signal_to_noise_ratio(rate: float) -> None:
    assert rate_of_snr(snr_db(rate)) == pytest.approx(rate, rel=1e-9, abs=1e-300)


@given(db=st.floats(allow_nan=False))
def test_every_signal_to_noise_ratio_has_a_share_of_noise(db: float) -> None:
    assert 0 <= rate_of_snr(db) <= 1


@given(
    speech=st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=60).filter(lambda x: max(map(abs, x)) > 1e-3),
    rate=rates,
    seed=seeds,
)
@example(speech=[1.0, -1.0] * 30, rate=0.5, seed=0)  # as loud as can be: any noise would be clipped
@example(speech=[0.25] * 30, rate=1.0, seed=0)
def test_noise_is_the_stated_share_of_the_power_and_nothing_is_clipped(
    speech: list[float], rate: float, seed: int
) -> None:
    s, n = np.array(speech), np.random.default_rng(seed).standard_normal(len(speech))
    mixture = mixed(s, n, rate)
    assert np.abs(mixture).max() <= 1
    (a, b), *_ = np.linalg.lstsq(np.stack([s, n], axis=1), mixture)
    assert a * s + b * n == pytest.approx(mixture, abs=1e-9)
    p_speech, p_noise = np.mean((a * s) ** 2), np.mean((b * n) ** 2)
    assert p_noise / (p_speech + p_noise) == pytest.approx(rate, abs=1e-6)


@given(one=rates, other=rates)
def test_within_a_draw_the_same_noise_gets_louder(one: float, other: float) -> None:
    speech, noise = sound(1), np.random.default_rng(2).standard_normal(400)
    quiet, loud = (mixed(0.05 * speech, noise, rate) for rate in sorted((one, other)))
    softly, loudly = (np.linalg.lstsq(np.stack([speech, noise], axis=1), x)[0] for x in (quiet, loud))
    assert softly[1] <= loudly[1] + 1e-12
    assert softly[0] >= loudly[0] - 1e-12


@pytest.mark.parametrize("sample_rate", [8_000, 44_100])
def test_the_recogniser_hears_the_stated_share_of_noise_whatever_the_sample_rate(
    sample_rate: int, decoded: list[NDArray[np.int16]]
) -> None:
    seconds = np.arange(sample_rate) / sample_rate
    tone = (0.4 * np.sin(2 * np.pi * 500 * seconds)).astype(np.float32)
    heard_at(0.2, tone, sample_rate)
    power = np.abs(np.fft.rfft(decoded[0] / 32767)) ** 2  # a band is 1 Hz wide
    assert power[490:511].sum() / power.sum() == pytest.approx(0.8, abs=0.02)
    assert power[6_000:].sum() / power.sum() == pytest.approx(0.2 / 4, abs=0.01)  # white up to 8 kHz


# ---------------------------------------------------------------------------------------------- promises


def test_it_is_in_the_catalogue_as_a_corruption_of_sound() -> None:
    assert CORRUPTIONS.load("asr-loop") is ASR_LOOP
    assert (ASR_LOOP.name, ASR_LOOP.needs, ASR_LOOP.nested) == ("asr-loop", "sound", False)


@given(text=st.text(), seed=seeds, sample_rate=sample_rates)
def test_at_rate_zero_the_words_are_the_reference_to_the_byte(text: str, seed: int, sample_rate: int) -> None:
    assert ASR_LOOP.apply(text, 0.0, np.random.default_rng(seed), sound(seed), sample_rate) == text


@pytest.mark.parametrize("sample_rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("length", [0, 1, 100])
def test_the_numbers_drawn_do_not_depend_on_the_rate(
    sample_rate: int, length: int, decoded: list[NDArray[np.int16]]
) -> None:
    states = []
    for rate in (0.0, 1e-6, 0.5, 1.0):
        rng = np.random.default_rng(7)
        ASR_LOOP.apply("", rate, rng, sound(0, length), sample_rate)
        states.append(rng.bit_generator.state)
    assert states == [states[0]] * len(states)


def test_without_noise_neither_the_recogniser_nor_torch_is_needed(another_process: Callable[[str], str]) -> None:
    code = (
        "import sys\n"
        "for name in ('pocketsphinx', 'torch', 'torchaudio'): sys.modules[name] = None\n"
        "import numpy as np\n"
        "from dual_bench.corruptions.recogniser import ASR_LOOP\n"
        "print(ASR_LOOP.apply('We sang!', 0.0, np.random.default_rng(0), np.ones(9, np.float32), 16000), end='')"
    )
    assert another_process(code) == "We sang!"


def test_a_missing_recogniser_is_said_in_a_sentence_that_says_what_to_do(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(UserError, match=re.escape("pip install 'dual-bench[asr]'")):
        heard_at(0.5, sound(0))


def test_a_sound_gives_the_same_words_whatever_was_recognised_before() -> None:
    sounds = [pcm(babble(0)), pcm(babble(7))]
    first = [recogniser._decode(x) for x in sounds]
    assert all(first)
    recogniser._decode(pcm(sound(0, SAMPLE_RATE // 2)))
    assert [recogniser._decode(x) for x in sounds] == first


def test_another_process_hears_the_same_words_and_the_same_noise(
    cache: Path, tmp_path: Path, another_process: Callable[[str], str], capfd: pytest.CaptureFixture[str]
) -> None:
    samples = babble(3)
    np.save(tmp_path / "samples.npy", samples)
    here = heard_at(1e-3, samples)
    cache.unlink()
    code = (
        "import numpy as np\n"
        "from dual_bench.corruptions.recogniser import ASR_LOOP\n"
        f"samples = np.load({str(tmp_path / 'samples.npy')!r})\n"
        "print(ASR_LOOP.apply('', 1e-3, np.random.default_rng(0), samples, 16000), end='')"
    )
    assert another_process(code) == here != ""
    assert tuple(capfd.readouterr()) == ("", "")


# --------------------------------------------------------------------------------------------- odd sounds


@pytest.mark.parametrize("length", [0, 1, 2, 399, 16_000])
@pytest.mark.parametrize("rate", [1e-3, 0.5, 1.0])
def test_silence_has_no_words(rate: float, length: int, cache: Path) -> None:
    assert heard_at(rate, np.zeros(length, np.float32), 44_100) == ""


@pytest.mark.parametrize("length", [1, 2, 100, 409, 410, 411, 1_600])
def test_a_sound_too_short_for_a_word_has_none(length: int, cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert heard_at(0.5, sound(0, length)) == ""
    assert tuple(capfd.readouterr()) == ("", "")


@given(
    samples=st.lists(st.floats(-1, 1, width=32), max_size=50),
    rate=rates.filter(bool),
    sample_rate=st.one_of(sample_rates, st.integers(1, 50_000)),
)
@example(samples=[1.0, -1.0] * 25, rate=0.1, sample_rate=44_100)
@example(samples=[1e-30], rate=1.0, sample_rate=48_000)
@example(samples=[], rate=1.0, sample_rate=44_100)
def test_any_waveform_is_heard_whole_at_16_khz(samples: list[float], rate: float, sample_rate: int) -> None:
    asked: list[NDArray[np.int16]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recogniser, "transcript", lambda heard: asked.append(heard) or "")
        assert heard_at(rate, np.array(samples, np.float32), sample_rate) == ""
    assert [len(heard) for heard in asked] == [math.ceil(len(samples) * SAMPLE_RATE / sample_rate)] * bool(samples)
    assert all(heard.dtype == np.int16 for heard in asked)


@pytest.mark.parametrize(
    ("samples", "sample_rate", "wrong"),
    [
        (np.zeros((2, 80), np.float32), 16_000, "found shape (2, 80)"),
        (np.array([0, np.nan], np.float32), 16_000, "found NaN or infinity"),
        (np.zeros(80, np.float32), math.nan, "found a rate of nan"),
        (np.zeros(80, np.float32), 0.5, "found a rate of 0.5"),
    ],
)
def test_what_is_no_waveform_is_refused(samples: Sound, sample_rate: float, wrong: str) -> None:
    with pytest.raises(UserError, match=re.escape(wrong)):
        heard_at(0.5, samples, sample_rate)


def test_the_model_is_that_of_the_wheel_wherever_the_environment_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETSPHINX_PATH", "/nowhere")
    recogniser._decoder.cache_clear()
    assert recogniser._decode(pcm(sound(0, 160))) == ""


# ------------------------------------------------------------------------------------------ remembered


def test_what_was_recognised_once_is_not_recognised_again(decoded: list[NDArray[np.int16]]) -> None:
    once = [heard_at(rate, sound(1, length)) for rate in (0.1, 0.2) for length in (50, 60)]
    assert once == ["50 samples", "60 samples"] * 2
    assert len(decoded) == 4
    assert [heard_at(rate, sound(1, length)) for rate in (0.1, 0.2) for length in (50, 60)] == once
    assert len(decoded) == 4


def test_another_version_of_the_recogniser_listens_anew(
    decoded: list[NDArray[np.int16]], monkeypatch: pytest.MonkeyPatch
) -> None:
    transcript(pcm(sound(0)))
    monkeypatch.setattr(recogniser, "version", lambda name: "99.0")
    transcript(pcm(sound(0)))
    assert len(decoded) == 2


def test_a_sound_without_words_is_remembered_too(
    decoded: list[NDArray[np.int16]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def speechless(heard: NDArray[np.int16]) -> str:
        decoded.append(heard)
        return ""

    monkeypatch.setattr(recogniser, "_decode", speechless)
    assert [transcript(pcm(sound(0))) for _ in range(2)] == ["", ""]
    assert len(decoded) == 1


def test_several_processes_write_and_read_at_once(cache: Path, another_process: Callable[[str], str]) -> None:
    code = (
        "import numpy as np\n"
        "from dual_bench.corruptions import recogniser\n"
        "recogniser._decode = lambda heard: f'number {heard[0]}'\n"
        "for i in range(1, 61): assert recogniser.transcript(np.array([i], np.int16)) == f'number {i}'\n"
    )
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(another_process, [code] * 3))
    with sqlite3.connect(cache) as connection:
        kept = [words for (words,) in connection.execute("SELECT words FROM transcripts")]
    connection.close()
    assert sorted(kept) == sorted(f"number {i}" for i in range(1, 61))


@pytest.mark.parametrize("damage", ["no database", "cut short", "another table", "a folder"])
def test_a_damaged_file_is_named_with_what_to_do(damage: str, cache: Path, decoded: list[NDArray[np.int16]]) -> None:
    transcript(pcm(sound(0)))
    whole = cache.read_bytes()
    cache.unlink()
    if damage == "no database":
        cache.write_bytes(b"some text, for longer than the head of a database" * 100)
    elif damage == "cut short":
        cache.write_bytes(whole[: len(whole) // 2])
    elif damage == "another table":
        connection = sqlite3.connect(cache)
        connection.execute("CREATE TABLE transcripts (id INTEGER)")
        connection.close()
    else:
        cache.mkdir()
    with pytest.raises(UserError, match="remove that file, or name another folder with DUAL_BENCH_CACHE") as caught:
        transcript(pcm(sound(0)))
    assert str(cache) in str(caught.value)


def test_a_folder_that_cannot_be_made_is_named(
    tmp_path: Path, decoded: list[NDArray[np.int16]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DUAL_BENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="DUAL_BENCH_CACHE"):
        transcript(pcm(sound(0)))


# ------------------------------------------------------------------------------------------- real speech


def clip(path: Path) -> tuple[Sound, int]:
    with av.open(str(path)) as container:
        stream: Any = container.streams.audio[0]
        mono = av.AudioResampler("fltp", "mono", stream.rate)
        parts = [part.to_ndarray()[0] for frame in container.decode(stream) for part in mono.resample(frame)]
    return np.concatenate(parts), stream.rate


@pytest.mark.slow
def test_of_real_speech_fewer_words_are_right_the_more_noise_there_is(shared_data: Path, cache: Path) -> None:
    folder = shared_data / "grid_clips"
    with (folder / "transcripts.csv").open() as file:
        truth = {row["file"]: row["transcript"] for row in csv.DictReader(file)}
    chosen = ["brbk7n.mpg", "pwij3p.mpg", "sbwe5n.mpg"]  # the recogniser gets words of each right; all 11 take long
    references = [truth[name] for name in chosen]
    clips = [clip(folder / name) for name in chosen]

    def words(rate: float) -> list[str]:
        return [heard_at(rate, *sounded, seed=i) for i, sounded in enumerate(clips)]

    clean, noisy, drowned = words(1e-9), words(rate_of_snr(10)), words(0.9)
    assert all(set(found.split()) & set(said.split()) for found, said in zip(clean, references, strict=True))
    assert jiwer.wer(references, clean) < jiwer.wer(references, noisy) < jiwer.wer(references, drowned) == 1
    for text in clean + noisy + drowned:
        assert re.fullmatch(r"[a-z'. -]*", text), "a filler, or the mark of a variant"
