"""Runs of frames to feature sequences by an encoder that needs no weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dual_bench.features.encoder import EncoderSpec
from dual_bench.features.media import Picture
from dual_bench.types import UserError

FrameRate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""Frames a second that are read."""


def thinned(item: NDArray[np.generic], given: float, wanted: float) -> NDArray[np.generic]:
    """Frames at ``given`` a second, as many of them as ``wanted`` a second: those shown at 0, 1 / wanted, …

    None is invented: frames that come more slowly, or at a rate that nobody knows, stay as they are.
    """
    if not given > wanted:
        return item
    shown = np.floor(np.arange(len(item)) * (given / wanted) + 1e-9).astype(np.int64)
    kept: NDArray[np.generic] = item[shown[shown < len(item)]]
    return kept


class FrameDCT(BaseModel):
    """The lowest 2-D DCT coefficients of each grey frame, an eigenface without training (Hafed & Levine 2001).

    A frame is brought to ``size`` x ``size`` by area averaging, scaled to [0, 1], and transformed by the orthonormal
    DCT-II; the ``keep`` x ``keep`` lowest frequencies stay, row by row. All of it is linear in the pixels, so the mean
    of the features over time is the feature of the mean frame: no motion hides in a static average.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: Annotated[int, Field(ge=1)] = 32
    keep: Annotated[int, Field(ge=1)] = 8
    rate: FrameRate = 10.0

    @model_validator(mode="after")
    def _keep_fits(self) -> FrameDCT:
        if self.keep > self.size:
            raise ValueError(f"expected keep <= size, found keep {self.keep} and size {self.size}")
        return self

    @property
    def name(self) -> str:
        """Identifies every setting; features are cached under it."""
        rate = "" if self.rate == FrameDCT.model_fields["rate"].default else f"/{self.rate:g}Hz"
        return f"frame-dct/v1/{self.size}x{self.size}-{self.keep}x{self.keep}{rate}"

    @property
    def width(self) -> int:
        return self.keep**2

    @property
    def batch(self) -> int:
        return 1

    @property
    def picture(self) -> Picture:
        return Picture(self.size, self.size, colour=False)

    def encode(self, items: Sequence[NDArray[np.generic]], rate: float) -> list[NDArray[np.float32]]:
        return [self(item, rate) for item in items]

    def __call__(self, item: NDArray[np.generic], rate: float) -> NDArray[np.float32]:
        """(frames, height, width) uint8 at ``rate`` frames a second to (steps, keep**2), a step for each frame that
        ``thinned`` leaves."""
        if item.ndim != 3:
            raise UserError(f"frame-dct: expected frames of shape (frames, height, width), found {item.shape}")
        if not item.size:
            return np.empty((0, self.width), np.float32)
        item = thinned(item, rate, self.rate)
        rows, columns = (_basis(pixels, self.size, self.keep) for pixels in item.shape[1:])
        coefficients = rows @ (item.astype(np.float32) / 255) @ columns.T
        return np.ascontiguousarray(coefficients.reshape(len(item), -1), np.float32)


@lru_cache(maxsize=16)
def _basis(pixels: int, size: int, keep: int) -> NDArray[np.float32]:
    """(keep, pixels): area averaging from ``pixels`` to ``size``, then the lowest ``keep`` rows of the DCT-II."""
    edges = np.arange(size + 1) * pixels / size
    left, right = edges[:-1, None], edges[1:, None]
    pixel = np.arange(pixels)
    overlap = np.clip(np.minimum(right, pixel + 1) - np.maximum(left, pixel), 0, None)
    averaging = overlap * size / pixels
    lowest: NDArray[np.float32] = scipy.fft.dct(averaging, axis=0, norm="ortho")[:keep].astype(np.float32)
    return lowest


SPEC = EncoderSpec("frame-dct", "vision", FrameDCT, lambda settings, device: settings)
