"""Waveforms to eGeMAPS (Eyben et al. 2016), the acoustic parameters of voice research, by openSMILE.

openSMILE may be used for research, and not for products: https://github.com/audeering/opensmile/blob/master/LICENSE
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from dual_bench.features.audio import SAMPLE_RATE, resampled
from dual_bench.features.encoder import EncoderSpec
from dual_bench.types import UserError

_WHO = "audio encoder 'egemaps'"
_SHORTEST = SAMPLE_RATE * 60 // 1000
"""Samples that one step sees: the window of its pitch."""


class EGeMAPS(BaseModel):
    """eGeMAPSv02 of a waveform at 16 kHz. ``level``:

    * ``low``: 25 low-level descriptors, 100 times a second. As openSMILE pads no window, n samples have
      n // 160 - 4 steps;
    * ``functionals``: 88 statistics of the whole waveform, one step.

    A waveform of less than 60 ms has zeros after its end. The features have their own units, from semitones to dB.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: Literal["low", "functionals"] = "low"

    @property
    def name(self) -> str:
        """Identifies every setting; features are cached under it."""
        return f"egemaps-v02/v1/{self.level}"

    @property
    def width(self) -> int:
        return 25 if self.level == "low" else 88

    @property
    def rate(self) -> float:
        return 100.0 if self.level == "low" else math.nan

    @property
    def batch(self) -> int:
        return 1

    def encode(self, items: Sequence[NDArray[np.generic]], rate: float) -> list[NDArray[np.float32]]:
        """Waveforms (samples,) at ``rate`` Hz, each to (steps, width)."""
        return [self._one(item, rate) for item in items]

    def _one(self, item: NDArray[np.generic], rate: float) -> NDArray[np.float32]:
        if item.shape == (0,):
            return np.empty((0, self.width), np.float32)
        waveform = resampled(item, rate, _WHO).numpy()
        waveform = np.pad(waveform, (0, max(0, _SHORTEST - len(waveform))))
        found = _smile(self.level).process_signal(waveform, SAMPLE_RATE).to_numpy(np.float32)
        return np.ascontiguousarray(found)


@lru_cache
def _smile(level: str) -> Any:
    opensmile = _package()
    chosen = opensmile.FeatureLevel.LowLevelDescriptors if level == "low" else opensmile.FeatureLevel.Functionals
    return opensmile.Smile(feature_set=opensmile.FeatureSet.eGeMAPSv02, feature_level=chosen)


def _package() -> Any:
    try:
        import opensmile
    except ImportError:
        need = "openSMILE, which is not installed; pip install 'dual-bench[opensmile]'"
        raise UserError(f"{_WHO} needs {need}") from None
    return opensmile


def _built(settings: EGeMAPS, device: str) -> EGeMAPS:
    _package()
    return settings


SPEC = EncoderSpec("egemaps", "audio", EGeMAPS, _built)
