"""What a model that bounds its text promises: how often it is right, and sure, whatever the words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dual_bench.metrics import ACCURACY, Metric
from dual_bench.schema import CellInfo
from dual_bench.stats.curves import Estimate, of_metric, point
from dual_bench.stats.frame import Cube, Key, cube, system_name
from dual_bench.stats.resampling import Weights
from dual_bench.types import ANY_TEXT

BOUNDABLE = ("accuracy", "mae")
"""Metrics that are means over utterances, so that the worst for each utterance is the worst of all."""

WORDLESS = 1e-3
"""A radius below it is that of a model which reads no words."""


@dataclass(frozen=True)
class Certified:
    """Of one system: the primary metric under any text whatever, the share of utterances whose class no text can
    change (None of a regression), and the radius of each trained model."""

    metric: Estimate
    share: Estimate | None
    radii: tuple[float, ...]

    @property
    def reads_words(self) -> bool:
        return max(self.radii) > WORDLESS


def gather_certified(
    rows: pd.DataFrame, cells: Sequence[CellInfo], full: Cube, weights: Weights, level: float
) -> Mapping[tuple[str, str], Certified]:
    """(system, regime) -> what is certified, where models bound their text.

    None of the regime ``matched``, in which every condition is read by another model.
    """
    metric = full.metric
    rows = rows[(rows["regime"] != "matched") & rows["seed"].isin(full.seeds)]
    if rows.empty or metric.name not in BOUNDABLE:
        return {}
    worst = cube(rows, metric)
    if worst.seeds != full.seeds or worst.clusters != full.clusters:
        return {}
    sure = None
    if metric.task == "classification":
        held = rows["certified"].astype(float).to_numpy()
        # a share is an accuracy whose truth is that it holds
        sure = cube(rows.assign(truth=1.0, score_0=1 - held, score_1=held, **_blank(rows)), ACCURACY)
    found = {}
    for key in worst.sums:
        radii = [
            c.radius for c in cells
            if (system_name(c.model, c.variant), c.regime) == (key.system, key.regime) and c.radius is not None
        ]  # fmt: skip
        share = None if sure is None else _estimate(sure, ACCURACY, key, weights, level)
        found[key.system, key.regime] = Certified(_estimate(worst, metric, key, weights, level), share, tuple(radii))
    return found


def _blank(rows: pd.DataFrame) -> dict[str, float]:
    """The scores beyond the first two, out of the way."""
    return {name: -1.0 for name in rows.columns if name.startswith("score_") and name not in ("score_0", "score_1")}


def _estimate(worst: Cube, metric: Metric, key: Key, weights: Weights, level: float) -> Estimate:
    assert key.corruption == ANY_TEXT.corruption
    return of_metric(metric, point(worst, key, weights), level)


def spread_of(radii: Sequence[float]) -> str:
    """``0.41 (0.38 to 0.44)``: mean and range.

    >>> spread_of([0.25, 0.5])
    '0.38 (0.25 to 0.50)'
    """
    return f"{np.mean(radii):.2f} ({min(radii):.2f} to {max(radii):.2f})"
