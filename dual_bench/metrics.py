"""Metrics, each a record with a direction and a definition.

A metric here is a function of *additive* statistics: ``statistics`` gives each utterance a row of m numbers, and
``value`` turns sums of such rows into the metric. That makes every metric resample at the price of a matrix product:
sum once per cluster, then weight the clusters (Efron & Tibshirani 1993, ch. 6, on resampling by counts).

Scores are (n, K): class scores, of which the largest wins (the first of equals), or (n, 1), the predicted value.
Undefined is NaN: no utterance, no variance, no class.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dual_bench.types import FloatArray


@dataclass(frozen=True)
class Metric:
    """``statistics(truth (n,), scores (n, K)) -> (n, m)``; ``value(sums (..., m)) -> (...)``."""

    name: str
    title: str
    task: Literal["classification", "regression"]
    higher_is_better: bool
    definition: str
    statistics: Callable[[FloatArray, FloatArray], FloatArray]
    value: Callable[[FloatArray], FloatArray]
    low: float = 0.0
    high: float = 1.0
    """The range of the metric."""
    about: Literal["prediction", "confidence"] = "prediction"
    """What is judged: what the model answers, or how sure it is (``confidence``)."""

    @property
    def is_share(self) -> bool:
        """Whether people read it in percent and percentage points."""
        return (self.low, self.high) == (0.0, 1.0)

    def __call__(self, truth: FloatArray, scores: FloatArray) -> float:
        """The metric over all utterances given."""
        return float(self.value(self.statistics(np.asarray(truth), np.asarray(scores)).sum(axis=0)))


def ratio(top: FloatArray, bottom: FloatArray) -> FloatArray:
    """``top / bottom``, NaN where ``bottom`` is 0."""
    top, bottom = np.broadcast_arrays(np.asarray(top, float), np.asarray(bottom, float))
    found: FloatArray = np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom != 0)
    return found


# ---------------------------------------------------------------------------------------- classification


def _hits(truth: FloatArray, scores: FloatArray) -> FloatArray:
    return np.stack([scores.argmax(axis=1) == truth, np.ones(len(truth))], axis=1).astype(float)


def _share(sums: FloatArray) -> FloatArray:
    return ratio(sums[..., 0], sums[..., 1])


def _counts(truth: FloatArray, scores: FloatArray) -> FloatArray:
    """For each class: whether it is true and predicted, true, predicted; (n, 3 K)."""
    each = np.eye(scores.shape[1])
    true, predicted = each[truth.astype(int)], each[scores.argmax(axis=1)]
    return np.concatenate([true * predicted, true, predicted], axis=1)


def _by_class(sums: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    hits, true, predicted = np.split(np.asarray(sums), 3, axis=-1)
    return hits, true, predicted


def _recall_mean(sums: FloatArray) -> FloatArray:
    hits, true, _ = _by_class(sums)
    return ratio(np.where(true > 0, ratio(hits, true), 0).sum(axis=-1), (true > 0).sum(axis=-1))


def _f1(sums: FloatArray) -> FloatArray:
    """F1 of each class, 2 TP / (true + predicted); NaN for a class that neither side holds."""
    hits, true, predicted = _by_class(sums)
    return ratio(2 * hits, true + predicted)


def _weighted_f1(sums: FloatArray) -> FloatArray:
    _, support, _ = _by_class(sums)
    return ratio((np.nan_to_num(_f1(sums)) * support).sum(axis=-1), support.sum(axis=-1))


def _macro_f1(sums: FloatArray) -> FloatArray:
    f1 = _f1(sums)
    return ratio(np.nan_to_num(f1).sum(axis=-1), (~np.isnan(f1)).sum(axis=-1))


ACCURACY = Metric(
    "accuracy",
    "Accuracy",
    "classification",
    True,
    "share of utterances whose highest score is the true class",
    _hits,
    _share,
)
UAR = Metric(
    "uar", "UAR", "classification", True, "mean recall over the classes present in the truth (balanced accuracy)",
    _counts, _recall_mean,
)  # fmt: skip
WEIGHTED_F1 = Metric(
    "weighted-f1", "Weighted F1", "classification", True, "mean of each class's F1, weighted by its true count",
    _counts, _weighted_f1,
)  # fmt: skip
MACRO_F1 = Metric(
    "macro-f1", "Macro F1", "classification", True, "mean of each class's F1, over classes in truth or prediction",
    _counts, _macro_f1,
)  # fmt: skip


# -------------------------------------------------------------------------------------------- regression


def _absolute_error(truth: FloatArray, scores: FloatArray) -> FloatArray:
    return np.stack([np.abs(scores[:, 0] - truth), np.ones(len(truth))], axis=1)


def _moments(truth: FloatArray, scores: FloatArray) -> FloatArray:
    x, y = np.asarray(truth, float), np.asarray(scores[:, 0], float)
    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)


def _pearson(sums: FloatArray) -> FloatArray:
    n, x, y, xx, yy, xy = np.moveaxis(np.asarray(sums, float), -1, 0)
    varx, vary = n * xx - x * x, n * yy - y * y
    # sums of a constant leave a rounding residue; a variance below it is none
    flat = (varx <= 1e-12 * n * xx) | (vary <= 1e-12 * n * yy)
    return ratio(n * xy - x * y, np.where(flat, 0, np.sqrt(np.maximum(varx * vary, 0))))


def _sign_has0(truth: FloatArray, scores: FloatArray) -> FloatArray:
    return np.stack([(scores[:, 0] >= 0) == (truth >= 0), np.ones(len(truth))], axis=1).astype(float)


def _sign_non0(truth: FloatArray, scores: FloatArray) -> FloatArray:
    counted = truth != 0
    return np.stack([counted & ((scores[:, 0] > 0) == (truth > 0)), counted], axis=1).astype(float)


def _seven(truth: FloatArray, scores: FloatArray) -> FloatArray:
    same = np.round(np.clip(scores[:, 0], -3, 3)) == np.round(np.clip(truth, -3, 3))
    return np.stack([same, np.ones(len(truth))], axis=1).astype(float)


MAE = Metric(
    "mae",
    "MAE",
    "regression",
    False,
    "mean absolute error, in units of the label",
    _absolute_error,
    _share,
    high=math.inf,
)
PEARSON_R = Metric(
    "pearson-r",
    "Pearson r",
    "regression",
    True,
    "Pearson correlation of prediction and truth",
    _moments,
    _pearson,
    low=-1.0,
)
ACC2_HAS0 = Metric(
    "acc2-has0", "Acc-2 (has 0)", "regression", True,
    "negative (< 0) against non-negative (>= 0), all utterances; the convention of Zadeh et al. 2016",
    _sign_has0, _share,
)  # fmt: skip
ACC2_NON0 = Metric(
    "acc2-non0", "Acc-2 (non 0)", "regression", True,
    "negative against positive, utterances of truth 0 left out; the convention of Tsai et al. 2019", _sign_non0, _share,
)  # fmt: skip
ACC7 = Metric(
    "acc7", "Acc-7", "regression", True,
    "prediction and truth, clipped to [-3, 3] and rounded half to even, are the same whole number", _seven, _share,
)  # fmt: skip
