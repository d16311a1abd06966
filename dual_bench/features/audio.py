"""Waveforms to feature sequences by an encoder that needs no weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated

import numpy as np
import torch
import torchaudio
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from dual_bench.features.encoder import EncoderSpec
from dual_bench.types import UserError

SAMPLE_RATE = 16_000
"""Hz; what every waveform is resampled to."""
_WINDOW, _FFT = 400, 512
_FLOOR = 1e-6
"""Added to the power before the logarithm; a full-scale sine has a power of about 1e4."""


def resampled(item: NDArray[np.generic], rate: float, who: str) -> torch.Tensor:
    """A waveform (samples,) at ``rate`` Hz as a float32 tensor at 16 kHz of its own; UserError, which names the encoder
    ``who``, where it is none."""
    if item.ndim != 1:
        raise UserError(f"{who}: expected a waveform of shape (samples,), found {item.shape}")
    if not (np.isfinite(rate) and rate >= 1 and rate == round(rate)):
        raise UserError(f"{who}: expected a whole number of samples a second, found a rate of {rate}")
    waveform = torch.from_numpy(np.array(item, np.float32))
    found: torch.Tensor = torchaudio.functional.resample(waveform, round(rate), SAMPLE_RATE)
    return found


class LogMel(BaseModel):
    """Logarithm of the mel-band power of a waveform (Davis & Mermelstein 1980, without the cosine transform).

    Hann windows of 25 ms, ``rate`` of them a second, centred on samples 0, hop, 2 hop, …; zeros beyond the ends.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bands: Annotated[int, Field(ge=1)] = 40
    rate: Annotated[int, Field(ge=1)] = 50
    """Hz; a divisor of 16,000."""

    @field_validator("rate")
    @classmethod
    def _whole_hop(cls, value: int) -> int:
        if SAMPLE_RATE % value:
            raise ValueError(f"expected one that divides {SAMPLE_RATE}, found {value}")
        return value

    @property
    def name(self) -> str:
        """Identifies every setting; features are cached under it."""
        return f"log-mel/v1/{self.bands}x{self.rate}Hz"

    @property
    def width(self) -> int:
        return self.bands

    @property
    def batch(self) -> int:
        return 1

    def encode(self, items: Sequence[NDArray[np.generic]], rate: float) -> list[NDArray[np.float32]]:
        return [self(item, rate) for item in items]

    def __call__(self, item: NDArray[np.generic], rate: float) -> NDArray[np.float32]:
        """(samples,) at ``rate`` Hz to (1 + samples at 16 kHz // hop, bands); no samples give no frames."""
        if item.shape == (0,):
            return np.empty((0, self.bands), np.float32)
        waveform = resampled(item, rate, "log-mel")
        with torch.inference_mode():
            power = _mel(self.bands, self.rate)(waveform)
        return np.ascontiguousarray(torch.log(power + _FLOOR).numpy().T)


@lru_cache(maxsize=4)
def _mel(bands: int, rate: int) -> torchaudio.transforms.MelSpectrogram:
    return torchaudio.transforms.MelSpectrogram(
        sample_rate=SAMPLE_RATE,
        n_fft=_FFT,
        win_length=_WINDOW,
        hop_length=SAMPLE_RATE // rate,
        f_min=20.0,
        n_mels=bands,
        pad_mode="constant",  # the default, reflection, fails on waveforms shorter than half a window
    )


SPEC = EncoderSpec("log-mel", "audio", LogMel, lambda settings, device: settings)
