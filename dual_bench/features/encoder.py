"""What every encoder of sound, pictures or words is: a name, a width, and items to feature sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dual_bench.features.media import Picture


class Encoder(Protocol):
    """Waveforms (samples,) float32, or frames (frames, height, width[, 3]) uint8, to sequences (steps, ``width``).

    An item's features depend on nothing but the item: not on what else is in a batch, beyond the last bits.
    """

    @property
    def name(self) -> str:
        """Identifies every setting, and the weights by their digest; features are cached under it."""

    @property
    def width(self) -> int:
        """Features a step."""

    @property
    def rate(self) -> float:
        """Steps a second; of pictures, also how many are to be given."""

    @property
    def batch(self) -> int:
        """How many items, at most, are well given at once: 1 where a batch is no faster."""

    def encode(self, items: Sequence[NDArray[np.generic]], rate: float) -> list[NDArray[np.float32]]:
        """Items at ``rate`` samples or frames a second, each to (steps, width); an empty item gives no steps."""


class PictureEncoder(Encoder, Protocol):
    """One that reads pictures."""

    @property
    def picture(self) -> Picture:
        """How it wants to be given them."""
