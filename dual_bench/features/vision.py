"""Runs of frames to feature sequences by encoders that need no weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from dual_bench.types import UserError


@dataclass(frozen=True)
class FrameDCT:
    """The lowest 2-D DCT coefficients of each grey frame, an eigenface without training (Hafed & Levine 2001).

    A frame is brought to ``size`` x ``size`` by area averaging, scaled to [0, 1], and transformed by the orthonormal
    DCT-II; the ``keep`` x ``keep`` lowest frequencies stay, row by row. All of it is linear in the pixels, so the mean
    of the features over time is the feature of the mean frame: no motion hides in a static average.
    """

    size: int = 32
    keep: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.keep <= self.size:
            raise UserError(f"frame DCT: expected 1 <= keep <= size, found {self}")

    @property
    def name(self) -> str:
        """Identifies every setting; features are cached under it."""
        return f"frame-dct/v1/{self.size}x{self.size}-{self.keep}x{self.keep}"

    @property
    def width(self) -> int:
        return self.keep**2

    def __call__(self, item: NDArray[np.generic], rate: float) -> NDArray[np.float32]:
        """(frames, height, width) uint8 to (frames, keep**2), one step a frame whatever the ``rate``."""
        if item.ndim != 3:
            raise UserError(f"frame DCT: expected frames of shape (frames, height, width), found {item.shape}")
        if not item.size:
            return np.empty((0, self.width), np.float32)
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
