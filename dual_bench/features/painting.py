"""Decoded frames to arrays: the part of the picture that is wanted, upright and scaled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dual_bench.features import faces

if TYPE_CHECKING:
    from av import VideoFrame
    from av.filter import Graph

    from dual_bench.features.media import Half, Picture

Box = tuple[int, int, int, int]
"""Left, top, width, height."""

_NARROW = 8
"""Times as long as wide, in whichever direction: no face is searched for in a strip."""
_FLAGS = "area+accurate_rnd+bitexact+full_chroma_int"
"""Of swscale: the same pixels on every machine."""
_UPRIGHT: dict[int, list[tuple[str, str | None]]] = {
    90: [("transpose", "cclock")],
    180: [("hflip", None), ("vflip", None)],
    270: [("transpose", "clock")],
}
"""How a frame is turned that was filmed on its side, by degrees against the clock."""


class _Scaler:
    """Frames to arrays, by crop and scale in ffmpeg's filters; a graph of them serves until its input changes."""

    _key: object = None

    def __call__(self, frame: VideoFrame, box: Box, size: tuple[int, int], colour: bool) -> NDArray[np.uint8]:
        """(height, width[, 3]): the box of the upright frame, scaled to ``size`` (width, height)."""
        kind = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range, frame.rotation)
        if self._key != (kind, box, size, colour):
            self._key, self._graph = (kind, box, size, colour), _graph(frame, box, size, colour)
        self._graph.push(frame)
        return np.asarray(self._graph.vpull().to_ndarray(), np.uint8)


class Painter:
    """Frames to one ``picture`` of their ``half``; ``pixel`` is how much wider than high the frames' pixels are."""

    def __init__(self, picture: Picture, half: Half, pixel: float) -> None:
        self.picture, self.half, self.pixel = picture, half, pixel
        self._scaled = _Scaler()

    def __call__(self, frame: VideoFrame, face: faces.Square | None) -> NDArray[np.uint8]:
        """(height, width[, 3]); ``face`` is where ``Finder`` has found it."""
        left, top, width, height = _part(frame, self.half)
        wanted = self.picture
        if wanted.face and face:
            x, y, width, height = face.box(width, height, width / faces.WIDTH)
            left, top = left + x, top + y
        elif wanted.crop:
            aspect = wanted.width / wanted.height / self.pixel
            kept = max(1, min(width, round(height * aspect))), max(1, min(height, round(width / aspect)))
            left, top = left + (width - kept[0]) // 2, top + (height - kept[1]) // 2
            width, height = kept
        return self._scaled(frame, (left, top, width, height), (wanted.width, wanted.height), wanted.colour)


class Finder:
    """Frames to the largest face in their ``half``, in pixels of a picture that is ``faces.WIDTH`` wide."""

    def __init__(self, half: Half) -> None:
        self.half = half
        self._scaled = _Scaler()

    def __call__(self, frame: VideoFrame) -> faces.Square | None:
        box = _part(frame, self.half)
        if not 1 / _NARROW < box[2] / box[3] < _NARROW:
            return None
        return faces.largest(self._scaled(frame, box, (faces.WIDTH, round(box[3] * faces.WIDTH / box[2])), False))


def _part(frame: VideoFrame, half: Half) -> Box:
    """Of the upright frame."""
    width, height = (frame.height, frame.width) if frame.rotation % 180 else (frame.width, frame.height)
    if half == "whole":
        return 0, 0, width, height
    part = max(1, width // 2)
    return (0 if half == "left" else width - part), 0, part, height


def _graph(frame: VideoFrame, box: Box, size: tuple[int, int], colour: bool) -> Graph:
    """Filters for frames like this one: turned upright, the box cut out, scaled, grey in full range or RGB."""
    from av.filter import Graph

    left, top, width, height = box
    source = f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base=1/1000"
    chain: list[tuple[str, str | None]] = [
        ("buffer", f"{source}:colorspace={frame.colorspace}:range={frame.color_range}"),
        *_UPRIGHT.get(frame.rotation % 360, ()),
        ("crop", f"{width}:{height}:{left}:{top}:exact=1"),
        ("scale", f"{size[0]}:{size[1]}:flags={_FLAGS}:out_range=full"),
        ("format", "rgb24" if colour else "gray"),
        ("buffersink", None),
    ]
    graph = Graph()
    graph.threads = 1
    graph.link_nodes(*(graph.add(name, arguments) for name, arguments in chain)).configure()
    return graph
