"""What lies below and above every curve: the best constant answer, and the exact ceiling where it is known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dual_bench.plan import metrics_of
from dual_bench.schema import CeilingPoint
from dual_bench.types import SUBSETS, Condition, Corpus, Task


def floors(corpus: Corpus) -> dict[str, float | None]:
    """Each metric of the constant prediction that is best by this metric on each fold's training part.

    Undefined where it is so for a constant, as a correlation is; and for metrics of confidence, whose best constant is
    no single answer.
    """
    targets = np.array([u.target for u in corpus.utterances])
    found: dict[str, float | None] = {}
    for metric in metrics_of(corpus.task):
        if metric.about == "confidence":
            found[metric.name] = None
            continue
        scores = np.empty((len(targets), corpus.task.outputs))
        best_of = max if metric.higher_is_better else min
        for fold in corpus.folds:
            train = targets[fold.train]
            tried = {c: metric(train, np.tile(c, (len(train), 1))) for c in _constants(corpus.task, train)}
            scores[fold.test] = (
                np.nan if np.isnan(list(tried.values())).any() else best_of(tried, key=tried.__getitem__)
            )
        tested = np.concatenate([fold.test for fold in corpus.folds])
        undefined = np.isnan(scores[tested]).any()
        found[metric.name] = None if undefined else metric(targets[tested], scores[tested])
    return found


def _constants(task: Task, train: NDArray[np.float64]) -> list[tuple[float, ...]]:
    """Rows of scores that say the same of every utterance: each class, the most frequent first; or the median, and
    every whole number in the range."""
    if task.kind == "classification":
        order = np.argsort(-np.bincount(train.astype(int), minlength=task.outputs), kind="stable")
        return [tuple(np.eye(task.outputs)[label]) for label in order]
    return [(float(np.median(train)),), *((float(n),) for n in range(math.ceil(task.low), math.floor(task.high) + 1))]


def ceilings(corpus: Corpus, conditions: Sequence[Condition]) -> tuple[CeilingPoint, ...]:
    """Exact Bayes accuracy of every subset of modalities at every condition, where the corpus knows it."""
    if corpus.ceiling is None:
        return ()
    points = []
    for subset in ((), *SUBSETS):
        name = "+".join(subset) or "none"
        for corruption, rate in sorted({(c.corruption, c.rate) for c in conditions}):
            accuracy = corpus.ceiling(frozenset(subset), corruption, rate)
            if not np.isnan(accuracy):
                points.append(CeilingPoint(modalities=name, corruption=corruption, rate=rate, accuracy=accuracy))
    return tuple(points)
