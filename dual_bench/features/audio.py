"""Waveforms to feature sequences by encoders that need no weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torchaudio
from numpy.typing import NDArray

from dual_bench.types import UserError

SAMPLE_RATE = 16_000
"""Hz; what every waveform is resampled to."""
_WINDOW, _FFT = 400, 512
_FLOOR = 1e-6
"""Added to the power before the logarithm; a full-scale sine has a power of about 1e4."""


@dataclass(frozen=True)
class LogMel:
    """Logarithm of the mel-band power of a waveform (Davis & Mermelstein 1980, without the cosine transform).

    Hann windows of 25 ms, ``frame_rate`` of them a second, centred on samples 0, hop, 2 hop, …; zeros beyond the ends.
    """

    bands: int = 40
    frame_rate: int = 50
    """Hz; a divisor of 16,000."""

    def __post_init__(self) -> None:
        if self.bands < 1 or self.frame_rate < 1 or SAMPLE_RATE % self.frame_rate:
            raise UserError(f"log-mel: expected bands >= 1 and a frame rate that divides {SAMPLE_RATE}, found {self}")

    @property
    def name(self) -> str:
        """Identifies every setting; features are cached under it."""
        return f"log-mel/v1/{self.bands}x{self.frame_rate}Hz"

    @property
    def width(self) -> int:
        return self.bands

    def __call__(self, item: NDArray[np.generic], rate: float) -> NDArray[np.float32]:
        """(samples,) at ``rate`` Hz to (1 + samples at 16 kHz // hop, bands); no samples give no frames."""
        if item.ndim != 1:
            raise UserError(f"log-mel: expected a waveform of shape (samples,), found {item.shape}")
        if not len(item):
            return np.empty((0, self.bands), np.float32)
        if not (np.isfinite(rate) and rate >= 1 and rate == round(rate)):
            raise UserError(f"log-mel: expected a whole number of samples a second, found a rate of {rate}")
        waveform = torch.from_numpy(np.array(item, np.float32))
        waveform = torchaudio.functional.resample(waveform, round(rate), SAMPLE_RATE)
        with torch.inference_mode():
            power = _mel(self.bands, self.frame_rate)(waveform)
        return np.ascontiguousarray(torch.log(power + _FLOOR).numpy().T)


@lru_cache(maxsize=4)
def _mel(bands: int, frame_rate: int) -> torchaudio.transforms.MelSpectrogram:
    return torchaudio.transforms.MelSpectrogram(
        sample_rate=SAMPLE_RATE,
        n_fft=_FFT,
        win_length=_WINDOW,
        hop_length=SAMPLE_RATE // frame_rate,
        f_min=20.0,
        n_mels=bands,
        pad_mode="constant",  # the default, reflection, fails on waveforms shorter than half a window
    )
