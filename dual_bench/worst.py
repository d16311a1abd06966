"""The worst case: for one trained model, the words whose loss hurts it most (``corruptions.worst``), and its answers.

It comes after training, on frozen weights, and is the only thing but the store that a test label is shown to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dual_bench.corruptions.noise import Reading, load, measured
from dual_bench.features.encoder import TextEncoder
from dual_bench.features.text import embed, sentence_distances
from dual_bench.inputs import Resident
from dual_bench.seeding import generator
from dual_bench.training import Queries, predict
from dual_bench.types import Condition, FloatArray, IntArray, Task

_TEXTS = 8_192
"""Encoded at a time: some 100 MB of embeddings."""


@dataclass(frozen=True)
class Attack:
    """Test utterances ``rows`` (n,) of the corpus with their ``ids``, ``texts`` and ``targets`` (n,), and the
    conditions whose words are to be chosen."""

    conditions: tuple[Condition, ...]
    rows: IntArray
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    targets: FloatArray
    root_seed: int


@dataclass(frozen=True)
class Found:
    """``scores`` (conditions, n, K), and condition after condition what was read and measured, (conditions x n,)."""

    scores: NDArray[np.float32]
    texts: tuple[str, ...]
    measured: pd.DataFrame


def attack(module: Any, resident: Resident, task: Task, wanted: Attack, encoder: TextEncoder) -> Found:
    """Find the worst texts for ``module``, and what it makes of them."""

    def answers(which: Sequence[int], texts: Sequence[str]) -> NDArray[np.float32]:
        rows = wanted.rows[np.asarray(which, np.int64)]
        if "text" not in resident.reads:
            return predict(module, resident, task, Queries(rows, np.zeros_like(rows)))
        parts = []
        for start in range(0, len(rows), _TEXTS):
            part = slice(start, start + _TEXTS)
            read = resident.reading(embed(texts[part], encoder))
            parts.append(predict(module, read, task, Queries(rows[part], np.arange(len(rows[part])))))
        return np.concatenate(parts)

    def harm(which: Sequence[int], texts: Sequence[str]) -> FloatArray:
        if "text" not in resident.reads:
            return np.zeros(len(texts))
        return losses(task, answers(which, texts), wanted.targets[np.asarray(which, np.int64)])

    found: list[list[str]] = []
    for name, conditions in groupby(wanted.conditions, key=lambda condition: condition.corruption):
        corruption = load(name)
        stream = ("noise", wanted.root_seed, corruption.name, corruption.version, 0)
        rngs = [generator(*stream, one) for one in wanted.ids]
        found += corruption.apply(wanted.texts, [c.rate for c in conditions], harm, rngs)
    everyone = list(range(len(wanted.rows)))
    scores = np.stack([answers(everyone, texts) for texts in found])
    flat = tuple(text for texts in found for text in texts)
    table = measured(list(wanted.texts) * len(found), [Reading(text) for text in flat])
    ragged = embed([*wanted.texts, *flat], encoder)
    n = len(wanted.rows)
    distance = sentence_distances(ragged, np.tile(np.arange(n), len(found)), n + np.arange(len(flat)))
    return Found(scores, flat, table.assign(cosine=distance))


def losses(task: Task, scores: NDArray[np.float32], targets: FloatArray) -> FloatArray:
    """How wrong ``scores`` (n, K) are about ``targets`` (n,): -log probability of the class, or absolute error."""
    if task.kind == "regression":
        return np.abs(scores[:, 0].astype(np.float64) - targets)
    right = scores[np.arange(len(scores)), targets.astype(np.int64)].astype(np.float64)
    return -np.log(np.maximum(right, np.finfo(np.float64).tiny))
