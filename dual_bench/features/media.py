"""Media files to what encoders read: mono sound at 16 kHz, and pictures at the times asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dual_bench.types import UserError

Half = Literal["whole", "left", "right"]


class MediaError(UserError):
    """Why a clip gives no sound or no pictures, in a few words without its path: "has no audio track"."""


@dataclass(frozen=True)
class Clip:
    """A stretch of a media file, in seconds of its own clock, and the part of the picture that shows the speaker."""

    path: Path
    start: float = 0.0
    end: float = math.inf
    half: Half = "whole"


@dataclass(frozen=True)
class Picture:
    """How an encoder wants to be given pictures."""

    height: int
    width: int
    colour: bool
    """RGB, else grey."""
    crop: bool = False
    """Whether the middle of the picture is cut out in this aspect ratio; else all of it is squeezed into it."""
    face: bool = False
    """Whether only the largest face is wanted, found by ``features.faces``."""
