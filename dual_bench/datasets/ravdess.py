"""RAVDESS (Livingstone & Russo 2018): acted speech, 8 emotions, two sentences that tell nothing of the emotion.

Vision: 35 OpenFace action units of a clip. Audio: 259 steps of one number (mean MFCC of a frame). Clusters are
actors. The official actors split is 1-12, 13-15, 16-18; three actors are too few for an interval, so ``folds=6``
cross-validates over all 18.

Reads ``ravdess_au_mfcc/ravdess_au_mfcc.npz``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from dual_bench.catalog import validated
from dual_bench.datasets.assemble import assemble, cross_validation, data_file, official
from dual_bench.types import Corpus, Fold, Modality, Signal, Split, Task, Utterance

LICENCE = "RAVDESS: CC BY-NC-SA 4.0"


class RavdessSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    folds: Annotated[int, Field(ge=0, le=18)] = 0
    """Actor-disjoint cross-validation; 0 for the official split."""


def load(data: Path, /, **settings: object) -> Corpus:
    """Eight classes; audio (259, 1), vision (1, 35)."""
    chosen = validated(RavdessSettings, settings, "ravdess")
    classes, utterances, signals = read(data)
    folds = official(utterances) if not chosen.folds else actor_folds(utterances, chosen.folds)
    return assemble("ravdess", Task("classification", classes), utterances, signals, folds, LICENCE)


def read(data: Path) -> tuple[tuple[str, ...], list[Utterance], dict[Modality, Signal]]:
    """The class names, the 1,080 utterances, and their features."""
    with np.load(data_file(data, "ravdess_au_mfcc/ravdess_au_mfcc.npz"), allow_pickle=False) as arrays:
        table = {key: arrays[key] for key in arrays.files}
    renamed = {"valid": "validation"}
    utterances = [
        Utterance(
            str(table["id"][i]),
            cast(Split, renamed.get(str(split), str(split))),
            f"actor{int(table['actor'][i]):02d}",
            f"actor{int(table['actor'][i]):02d}",
            str(table["text"][i]),
            float(table["emotion"][i]),
        )
        for i, split in enumerate(table["split"])
    ]
    signals: dict[Modality, Signal] = {
        "audio": Signal("features", [row[:, None] for row in table["audio"].astype(np.float32)]),
        "vision": Signal("features", [row[None] for row in table["visual"].astype(np.float32)]),
    }
    return tuple(str(name) for name in table["emotion_names"]), utterances, signals


def actor_folds(utterances: list[Utterance], count: int) -> tuple[Fold, ...]:
    """``count`` folds of neighbouring actors, so that men (odd numbers) and women are in each."""
    actors = sorted({u.cluster for u in utterances})
    fold_of = {actor: f"fold{i * count // len(actors)}" for i, actor in enumerate(actors)}
    return cross_validation(utterances, [fold_of[u.cluster] for u in utterances])
