"""Where the largest face of a picture is, by dlib's histograms of oriented gradients (King 2009, dlib.net)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dual_bench.types import UserError

WIDTH = 640
"""Columns of the pictures to search: the detector sees faces of 80 pixels and more, an eighth of the width."""
_MARGIN = 1.3
"""The detector's box ends at brows and chin."""


@dataclass(frozen=True)
class Square:
    """Where a face is, in pixels."""

    x: float
    """Of its middle."""
    y: float
    side: float

    def box(self, width: int, height: int, scale: float) -> tuple[int, int, int, int]:
        """(left, top, width, height) in a picture ``scale`` times as large: whole pixels, moved inside the picture."""
        side = max(1, min(round(self.side * scale), width, height))
        left, top = (round(middle * scale - side / 2) for middle in (self.x, self.y))
        return max(0, min(left, width - side)), max(0, min(top, height - side)), side, side


def largest(grey: NDArray[np.uint8]) -> Square | None:
    """The largest face of a picture (height, width), with some margin; None where none is found."""
    found = max(_detector()(grey), key=lambda box: box.area(), default=None)
    if found is None:
        return None
    middle = found.dcenter()
    return Square(middle.x, middle.y, _MARGIN * max(found.width(), found.height()))


def nearest(squares: Sequence[Square | None]) -> list[Square]:
    """For each picture its own square, else that of the nearest that has one; none at all where no picture has."""
    there = [i for i, square in enumerate(squares) if square is not None]
    filled = (squares[min(there, key=lambda j: abs(j - i))] for i in range(len(squares))) if there else ()
    return [square for square in filled if square is not None]


@lru_cache(maxsize=1)
def _detector() -> Any:
    try:
        import dlib
    except ImportError:
        raise UserError("finding faces needs dlib; install it with: pip install 'dual-bench[faces]'") from None
    return dlib.get_frontal_face_detector()
