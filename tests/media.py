"""Media files made by tests: pictures that carry their own number, tones, and tracks of any kind."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

BITS = 8
HEIGHT, WIDTH = 64, 128


def numbered(count: int, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    """(count, height, width) grey: picture i shows i in binary, two rows of four blocks, black or white."""
    bits = np.arange(count)[:, None] >> np.arange(BITS) & 1
    blocks = np.where(bits, 235, 20).astype(np.uint8).reshape(count, 2, BITS // 2)
    return blocks.repeat(height // 2, axis=1).repeat(width // (BITS // 2), axis=2)


def numbers(pictures: NDArray[np.uint8]) -> list[int]:
    """What ``numbered`` pictures show, whatever codec and scaling have done to them."""
    grey = pictures if pictures.ndim == 3 else pictures.mean(axis=3)
    count, height, width = grey.shape
    rows, columns = height // 2, width // (BITS // 2)
    blocks = grey[:, : 2 * rows, : BITS // 2 * columns].reshape(count, 2, rows, BITS // 2, columns)
    middles = blocks[:, :, rows // 4 : -(rows // 4), :, columns // 4 : -(columns // 4)].mean(axis=(2, 4))
    return [int(bits @ (1 << np.arange(BITS))) for bits in middles.reshape(count, BITS) > 128]


def tone(hertz: float, seconds: float = 1.0, rate: int = 48_000, channels: int = 1) -> NDArray[np.float32]:
    """(channels, samples): the same sine in all channels, half of full scale."""
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)
    return np.tile(wave.astype(np.float32), (channels, 1))


def write(
    path: Path,
    pictures: NDArray[np.uint8] | None = None,
    sound: NDArray[np.float32] | None = None,
    *,
    fps: Fraction | float = 25,
    times: Sequence[float] | None = None,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    coding: dict[str, str] | None = None,
    rate: int = 48_000,
    layout: str | None = None,
    sound_codec: str = "aac",
    sound_times: Sequence[float] = (0.0,),
    container: dict[str, str] | None = None,
    format: str | None = None,
    turned: int = 0,
) -> Path:
    """Write ``pictures`` (n, height, width[, 3]) and ``sound`` (channels, samples), either or both; gives the path.

    Pictures are shown at ``fps``, or at ``times`` in seconds. Sound is cut into as many equal pieces as there are
    ``sound_times``, each of which starts then. ``coding`` are options of the video codec, ``container`` of the file,
    ``turned`` the degrees against the clock by which a player is told to turn the pictures.
    """
    with av.open(str(path), "w", format=format, options=container or {}) as file:
        if pictures is not None:
            stream = file.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=coding or {})
            stream.height, stream.width = pictures.shape[1:3]
            stream.pix_fmt = pixels
            stream.codec_context.time_base = Fraction(1, 24_000) if times else 1 / Fraction(fps).limit_denominator(1001)
            if turned:
                stream.set_display_rotation(turned)
        if sound is not None:
            named = layout or {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[len(sound)]
            voice = file.add_stream(sound_codec, rate=rate, layout=named)
            voice.codec_context.time_base = Fraction(1, rate)
        if pictures is not None:
            for i, picture in enumerate(pictures):
                frame = av.VideoFrame.from_ndarray(picture, "gray" if picture.ndim == 2 else "rgb24")
                full = pixels.startswith(("gray", "yuvj", "rgb", "bgr"))
                frame = frame.reformat(format=pixels, dst_color_range="JPEG" if full else "MPEG")
                frame.time_base = stream.codec_context.time_base
                frame.pts = round(times[i] * 24_000) if times else i
                file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
        if sound is not None:
            for piece, at in zip(np.array_split(sound, len(sound_times), axis=1), sound_times, strict=True):
                _sing(file, voice, piece, round(at * rate), rate, named)
            file.mux(voice.encode(None))
    return path


def _sing(
    file: av.container.OutputContainer,
    stream: av.AudioStream,
    values: NDArray[np.float32],
    first: int,
    rate: int,
    layout: str,
) -> None:
    size = 1024
    for start in range(0, values.shape[1], size):
        chunk = np.ascontiguousarray(values[:, start : start + size].T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(chunk, "flt", layout)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), first + start
        file.mux(stream.encode(frame))
