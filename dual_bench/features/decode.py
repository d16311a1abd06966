"""What a worker process of an extraction does: one clip to a sound file, or to pictures; or the reason why not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dual_bench.features.media import Clip, MediaError, Picture, frames, sound
from dual_bench.features.mixing import SAMPLE_RATE
from dual_bench.types import UserError

T = TypeVar("T")
CRASHED = "makes the decoder crash"


def attempt(read: Callable[[], T]) -> T | str:
    """What ``read()`` makes of a clip, or the reason why nothing: a file that nobody has thought of costs its own clip,
    and none of the others. UserError: a package is missing."""
    try:
        return read()
    except MediaError as error:
        return str(error)
    except UserError:
        raise
    except Exception as error:
        return " ".join(f"cannot be decoded: {type(error).__name__}: {error}".split())


def write_sound(clip: Clip, path: Path) -> str:
    """Write what is heard as a mono 16-bit wav file of 16 kHz, whole or not at all; the reason where there is nothing,
    else an empty string."""
    from scipy.io import wavfile

    samples = attempt(lambda: sound(clip))
    if isinstance(samples, str):
        return samples
    if not len(samples):
        return "has no sound there"
    scale = -float(np.iinfo(np.int16).min)
    rounded = np.clip(np.rint(samples * scale), -scale, scale - 1).astype(np.int16)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        wavfile.write(temporary, SAMPLE_RATE, rounded)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return ""


def pictures(clip: Clip, rate: float, picture: Picture) -> NDArray[np.uint8] | str:
    """``rate`` pictures a second, or the reason why there are none."""
    found = attempt(lambda: frames(clip, rate, picture))
    return found if len(found) else "has no picture there"
