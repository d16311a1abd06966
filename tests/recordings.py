"""A small corpus of recordings of one's own, some of which have something wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from dual_bench.datasets.export import render
from dual_bench.seeding import generator

SPLITS = ("train", "train", "validation", "test")
LABELS = ("calm", "loud")
FAULTS = ("truncated", "empty", "no-audio", "no-video", "text", "missing")
"""What may be wrong with a clip; ``silent`` and ``one-frame`` are odd, but not wrong."""


def clip(path: Path, number: int, seconds: float = 1.0, sound: bool = True, picture: bool = True) -> Path:
    """A tone and a moving square, which tell the label of utterance ``number``."""
    rng = generator("recordings", number)
    time = np.arange(round(16_000 * seconds)) / 16_000
    wave = 0.2 * (1 + number % 2) * np.sin(2 * np.pi * (200 + 10 * number) * time) + 0.01 * rng.normal(size=len(time))
    frames = rng.integers(0, 20, (max(1, round(10 * seconds)), 32, 48), dtype=np.uint8)
    for k, frame in enumerate(frames):
        frame[8:24, k : k + 16] = 100 + 100 * (number % 2)
    nothing = np.empty(0)
    render(path, frames if picture else nothing, 10, wave.astype(np.float32) if sound else nothing, 16_000)
    return path


def spoil(path: Path, number: int, fault: str) -> None:
    """Write a clip with a ``fault`` of FAULTS, or one that is ``silent`` or has ``one-frame``."""
    if fault == "missing":
        path.unlink(missing_ok=True)
    elif fault == "empty":
        path.write_bytes(b"")
    elif fault == "text":
        path.write_text("no film, but words\n" * 50, encoding="utf-8")
    elif fault == "silent":
        frames = np.full((10, 32, 48), 99, np.uint8)
        render(path, frames, 10, np.zeros(16_000, np.float32), 16_000)
    elif fault == "one-frame":
        clip(path, number, seconds=0.1)
    else:
        clip(path, number, sound=fault != "no-audio", picture=fault != "no-video")
        if fault == "truncated":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_recordings(folder: Path, faults: dict[int, str] | None = None, count: int = 24) -> Path:
    """Write ``own.csv`` and a clip for each of its rows; ``faults`` by utterance number."""
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    for i in range(count):
        path = folder / "clips" / f"u{i:02d}.mp4"
        if i in (faults or {}):
            spoil(path, i, (faults or {})[i])
        else:
            clip(path, i)
    table = pd.DataFrame(
        {
            "id": [f"u{i:02d}" for i in range(count)],
            "split": [SPLITS[i // 2 % 4] for i in range(count)],
            "cluster": [f"talk{i // 2}" for i in range(count)],
            "speaker": [f"voice{i % 3}" for i in range(count)],
            "label": [LABELS[i % 2] for i in range(count)],
            "text": [f"words that say {LABELS[i % 2]} number {i}" for i in range(count)],
            "file": [f"clips/u{i:02d}.mp4" for i in range(count)],
        }
    )
    table.to_csv(folder / "own.csv", index=False)
    return folder / "own.csv"
