"""The faces of the synthetic corpus: brows, eyes and a mouth on a grey head, 32 x 32 pixels, 10 frames a second.

Emotions in one of ``MOTION_PAIRS`` share a mean face and differ only in how they move: the frames of the second are,
in distribution, those of the first in reverse order. No average of frames can tell them apart; differences can. The
pairs are others than those of the voices.

A face spans [-1, 1] in both directions, x to the right and y downwards; lengths are in these units (16 pixels).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dual_bench.datasets.voices import course

SIZE = 32
"""Pixels along either side."""
FRAME_RATE = 10
"""Frames a second."""
MOTION_PAIRS = (("anger", "sadness"), ("joy", "surprise"))

_SENSOR_NOISE = 2.0
"""Standard deviation of a pixel, in grey levels of 255."""


@dataclass(frozen=True)
class Pose:
    """Displacement from a face at rest."""

    brow: float = 0.0
    """How far the brows are raised."""
    slant: float = 0.0
    """How far the inner end of a brow is above its outer end."""
    eyes: float = 0.0
    """How far the eyes are opened beyond rest."""
    curve: float = 0.0
    """How far the corners of the mouth are above its middle."""
    gape: float = 0.0
    """How far the lips are apart."""

    def array(self) -> NDArray[np.float64]:
        """(5, 1), in the order of the fields."""
        return np.array([[self.brow], [self.slant], [self.eyes], [self.curve], [self.gape]])


@dataclass(frozen=True)
class Style:
    """How an emotion looks: the pose it has on average, and how far the face goes to either side from start to end."""

    mean: Pose = Pose()
    move: Pose = Pose()
    waves: float = 0.0
    """How often the face goes slowly to one side and fast back; 0: it goes once, from start to end."""
    backwards: bool = False


_ANGER = Style(
    Pose(brow=-0.04, slant=0.0, eyes=-0.03, curve=-0.14), Pose(brow=-0.06, slant=-0.14, eyes=0.03, curve=0.08)
)
_JOY = Style(Pose(brow=0.06, eyes=0.02, curve=0.12, gape=0.08), Pose(brow=-0.06, eyes=-0.04, curve=0.14, gape=-0.07))
STYLES = {
    "neutral": Style(),
    "fear": Style(Pose(brow=0.14, slant=0.14, eyes=0.09, curve=-0.10, gape=0.05)),
    "anger": _ANGER,
    "sadness": replace(_ANGER, backwards=True),
    "joy": _JOY,
    "surprise": replace(_JOY, backwards=True),
    "slow rise": replace(_ANGER, waves=2.0),
    "fast rise": replace(_ANGER, waves=2.0, backwards=True),
}
WAVES = ("slow rise", "fast rise")
"""Not emotions, but a harder test, as in ``voices``."""


@dataclass(frozen=True)
class Face:
    """What a speaker brings along: grey levels in [0, 1], and where the features lie."""

    background: float
    skin: float
    contrast: float
    spacing: float
    """From the middle of the face to either eye."""
    brow: float
    eye: float
    mouth: float
    """Heights (y) of brows, eyes and mouth at rest."""
    breadth: float
    """From the middle of the mouth to either corner."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Face:
        means = np.array([0.15, 0.75, 0.55, 0.36, -0.40, -0.16, 0.42, 0.34])
        spreads = np.array([0.05, 0.05, 0.04, 0.015, 0.015, 0.015, 0.02, 0.02])
        return cls(*(means + spreads * rng.uniform(-1, 1, len(means))).tolist())


def show(emotion: str, face: Face, frames: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """(frames, 32, 32) grey levels."""
    style = STYLES[emotion]
    move = course(style.waves, frames, rng)
    poses = style.mean.array() + style.move.array() * move + rng.normal(0, 0.008, (5, frames))
    sway = 0.02 * np.sin(
        2 * np.pi * (rng.uniform(0.3, 1, (2, 1)) * np.arange(frames) / FRAME_RATE + rng.random((2, 1)))
    )
    pixels = 255 * _render(face, poses, sway) + rng.normal(0, _SENSOR_NOISE, (frames, SIZE, SIZE))
    grey = np.rint(np.clip(pixels, 0, 255)).astype(np.uint8)
    return np.ascontiguousarray(grey[::-1]) if style.backwards else grey


def _render(face: Face, poses: NDArray[np.float64], sway: NDArray[np.float64]) -> NDArray[np.float64]:
    """Poses (5, F) and displacements of the head (2, F) to grey levels (F, 32, 32) in [0, 1], all edges soft."""
    brow, slant, eyes, curve, gape = poses[:, :, None, None]
    grid = (np.arange(SIZE) + 0.5) * 2 / SIZE - 1
    x = grid[None, None, :] - sway[0][:, None, None]
    y = grid[None, :, None] - sway[1][:, None, None]
    side = (np.abs(x) - face.spacing) / 0.2  # left and right at once: -1 at the inner end of a brow, 1 at the outer
    head = 1 / (1 + np.exp(((x / 0.85) ** 2 + (y / 0.95) ** 2 - 1) / 0.08))
    brows = np.exp(-(((y - face.brow + brow - slant * side / 2) / 0.07) ** 2) - side**4)
    pupils = np.exp(-((side / 0.75) ** 4) - ((y - face.eye) / np.maximum(0.08 + eyes, 0.02)) ** 2)
    along = x / face.breadth
    lips = face.mouth - curve * (along**2 - 0.5)
    mouth = np.exp(-(((y - lips) / np.maximum(0.07 + gape, 0.03)) ** 2) - along**4)
    dark = 1 - face.contrast * np.maximum(np.maximum(brows, pupils), mouth)
    rendered: NDArray[np.float64] = face.background + head * (face.skin * dark - face.background)
    return rendered
