"""How much room and time what is stored takes: a few cells with made-up predictions are written, and thrown away."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dual_bench import probe, store
from dual_bench.plan import Cell, depends_on_model
from dual_bench.prepare import Asked, identity
from dual_bench.seeding import generator
from dual_bench.shards import Training
from dual_bench.store import RunFolder
from dual_bench.types import IntArray, Modality
from dual_bench.words import Words

_ROWS = 100_000
"""Of predictions or texts, at most, that are written."""


def conditions_of(asked: Asked, cell: Cell) -> int:
    """Under how many conditions a cell has predictions."""
    return len(cell.conditions) + (len(probe.conditions(asked.plan.draws)) if cell.probed else 0)


def answered(words: Words, cell: Cell, numbers: Sequence[int], rows: IntArray) -> IntArray:
    """A number for each pair of text and utterance under each condition (conditions, n): equal where the model gives
    one answer to both."""
    texts = words.test[list(numbers)][:, rows] if "text" in cell.variant.reads else np.zeros((len(numbers), len(rows)))
    found: IntArray = texts.astype(np.int64) * words.test.shape[1] + rows
    return found


@dataclass(frozen=True)
class Line:
    """What grows with rows."""

    base: float
    each: float

    def at(self, rows: int) -> float:
        return self.base + self.each * rows


@dataclass(frozen=True)
class Stored:
    """Seconds and bytes of a cell by its rows, by what a model reads: where it reads little, its answers repeat; and of
    the table of texts."""

    seconds: Mapping[frozenset[Modality], Line]
    bytes: Mapping[frozenset[Modality], Line]
    texts_seconds: float
    texts_bytes: int


def stored(asked: Asked, words: Words, examples: Sequence[Training], epochs: float) -> Stored:
    """Write a small cell and a large one of each kind, and a part of the texts, to see."""
    seconds, size = {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = RunFolder(Path(temporary))
        alike: dict[frozenset[Modality], list[Cell]] = {}
        for cell in (cell for group in examples for cell in group):
            alike.setdefault(cell.variant.reads, []).append(cell)
        for reads, some in alike.items():
            cell = max(some, key=lambda cell: conditions_of(asked, cell))
            few = _write(asked, words, cell, folder, epochs, small=True)
            many = _write(asked, words, cell, folder, epochs, small=False)
            seconds[reads], size[reads] = (_line((few[0], few[i]), (many[0], many[i])) for i in (1, 2))
        chosen = np.linspace(0, len(words.test) - 1, max(1, _ROWS // len(words.tested))).astype(int)
        chosen = np.unique(chosen)
        began = time.perf_counter()
        _write_texts(asked, words, chosen, folder)
        share = len(words.test) / len(chosen)
        took = (time.perf_counter() - began) * share
        return Stored(seconds, size, took, round(folder.texts_file.stat().st_size * share))


def _line(one: tuple[float, float], other: tuple[float, float]) -> Line:
    """Through two points."""
    (few, low), (many, high) = one, other
    each = max(0.0, (high - low) / (many - few)) if many > few else 0.0
    return Line(low - each * few, each)


def _write(
    asked: Asked, words: Words, cell: Cell, folder: RunFolder, epochs: float, small: bool
) -> tuple[float, float, float]:
    """Store a cell such as ``cell`` with made-up scores; how many rows it has, the seconds of storing, and bytes."""
    rng = generator("room")
    numbers = list(cell.conditions[:1] if small else cell.conditions)
    conditions = [asked.conditions[number] for number in numbers]
    conditions += probe.conditions(asked.plan.draws) if cell.probed and not small else ()
    rows = asked.corpus.folds[cell.fold].test[: max(1, _ROWS // len(conditions))]
    shared = [number for number in numbers if number < len(words.test)]
    given = answered(words, cell, shared, rows)
    scores = rng.random((len(conditions), len(rows), asked.corpus.task.outputs), np.float32)
    scores[: len(shared)] = _repeated(scores[: len(shared)], given)
    if len(conditions) > len(numbers):
        probed, reads = scores[len(numbers) :], cell.variant.reads
        wanted = probe.drawn(rows, words.test[0, rows], asked.plan.draws, asked.plan.root_seed, "room")
        probed[:-1] = _repeated(probed[:-1], probe.distinct(wanted, reads))
        scores[len(numbers) :] = probe.settled(probed, scores[0], reads)
    began = time.perf_counter()
    measured = _measured(words, shared, rows).reindex(range(len(conditions) * len(rows)))
    who = identity(asked, cell)
    utterances = [asked.corpus.utterances[i] for i in rows]
    table = store.prediction_table({"cell": cell.digest, **who}, conditions, utterances, scores, measured)
    folder.write_cell(
        table,
        digest=cell.digest,
        **who,
        parameters=0,
        best_epoch=1,
        history=tuple({"task": x, "total": x, "validation": x} for x in rng.random(round(epochs)).tolist()),
        seconds_fit=0.1,
        seconds_predict=0.1,
        device=asked.device,
        threads=1,
        code="",
    )
    seconds = time.perf_counter() - began
    size = sum(file.stat().st_size for file in (folder.rows_file(cell.digest), folder.cell_file(cell.digest)))
    return len(conditions) * len(rows), seconds, float(size)


def _repeated(scores: NDArray[np.float32], given: IntArray) -> NDArray[np.float32]:
    """Scores (conditions, n, K), the same where the answers ``given`` (conditions, n) are."""
    _, first, which = np.unique(given, return_index=True, return_inverse=True)
    return scores.reshape(-1, scores.shape[-1])[first][which].reshape(scores.shape)


def _write_texts(asked: Asked, words: Words, chosen: IntArray, folder: RunFolder) -> None:
    """Store the texts of some conditions."""
    shared = [condition for condition in asked.conditions if not depends_on_model(condition)]
    ids = [asked.corpus.utterances[i].id for i in words.tested]
    texts = [words.readings[i].text for i in words.test[chosen][:, words.tested].ravel()]
    measured = _measured(words, chosen.tolist(), words.tested)
    folder.write_texts(store.text_table([shared[i] for i in chosen], ids, texts, measured))


def _measured(words: Words, numbers: Sequence[int], rows: IntArray) -> pd.DataFrame:
    """What was measured on the texts of some conditions, with distances that are made up: one for each text."""
    which = np.array(numbers, np.int64)
    places = which[:, None] * len(words.tested) + np.searchsorted(words.tested, rows)
    found = words.table.iloc[places.ravel()].reset_index(drop=True)
    distances = generator("room").random(len(words.readings))
    texts = words.test[which][:, rows]
    return found.assign(cosine=np.where(texts == words.test[0, rows], 0.0, distances[texts]).ravel())
