"""A small corpus of one's own on disk: 4 cues, 96 utterances, features that tell half of the class."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from dual_bench import training
from dual_bench.seeding import generator

CLASSES = ("calm", "glad", "grim", "sore")
WORDS = ("quiet", "happy", "angry", "hurt")


def write_corpus(folder: Path, poison: bool = False, regression: bool = False) -> Path:
    """Write ``corpus.csv`` and its features; ``poison`` turns the test labels, and nothing else, around."""
    rng = generator("tiny corpus")
    labels = rng.integers(4, size=96)
    audio = rng.normal(size=(96, 6, 5)) + (labels % 2)[:, None, None]
    vision = rng.normal(size=(96, 3)) + (labels // 2)[:, None]
    np.savez(folder / "audio.npz", values=audio.astype(np.float32), lengths=rng.integers(2, 7, 96))
    np.save(folder / "vision.npy", vision.astype(np.float32))
    split = np.repeat(["train", "validation", "test"], [48, 16, 32])
    shown = np.where((split == "test") & poison, 3 - labels, labels)
    table = pd.DataFrame(
        {
            "id": [f"u{i:02d}" for i in range(96)],
            "split": split,
            "cluster": [f"talk{i // 4:02d}" for i in range(96)],
            "speaker": [f"voice{i // 8}" for i in range(96)],
            "text": [f"they were {WORDS[label]} at noon" for label in labels],
            "text_engine": [f"they were {WORDS[label]} noon" for label in labels],
            "audio_file": "audio.npz",
            "audio_row": range(96),
            "vision_file": "vision.npy",
            "vision_row": range(96),
        }
    )
    if regression:
        table["value"] = shown - 1.5
    else:
        table["label"] = [CLASSES[label] for label in shown]
    table.to_csv(folder / "corpus.csv", index=False)
    return folder / "corpus.csv"


@contextmanager
def kept_weights() -> Iterator[list[dict[str, torch.Tensor]]]:
    """The weights of every model that is trained inside the block, in the order of training."""
    kept: list[dict[str, torch.Tensor]] = []
    fit = training.fit

    def spy(module: Any, *rest: Any, **more: Any) -> Any:
        fitted = fit(module, *rest, **more)
        kept.append(module.state_dict())
        return fitted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "fit", spy)
        yield kept
