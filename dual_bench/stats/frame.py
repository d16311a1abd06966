"""Prediction rows, summed once per cluster.

Metrics are functions of additive statistics (``metrics``), so all that resampling ever needs of a condition is their
sum in each cluster, for each training seed and noise draw: an array (S, D, C, m). Folds of one seed are pooled
(out-of-fold predictions), as if one model had predicted every utterance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dual_bench.metrics import Metric
from dual_bench.types import FloatArray, IntArray, UserError


class Key(NamedTuple):
    """One system, trained in one regime, under one condition; its noise draws lie in the array."""

    system: str
    regime: str
    corruption: str
    rate: float


def system_name(model: str, variant: str) -> str:
    """What a model and its settings are called together.

    >>> system_name("dual", ""), system_name("dual", "sdm=off")
    ('dual', 'dual:sdm=off')
    """
    return f"{model}:{variant}" if variant else model


@dataclass(frozen=True)
class Cube:
    """``sums[key]`` is (S, D, C, m): seeds, noise draws (1 where a condition has one), clusters, statistics.

    S, C and the draws mean the same thing under every key, so that resampling them is paired.
    """

    metric: Metric
    sums: Mapping[Key, FloatArray]
    seeds: tuple[int, ...]
    clusters: tuple[str, ...]
    utterances: int
    skipped: tuple[str, ...]
    """A sentence for each training seed that is left out because it is incomplete."""

    @property
    def draws(self) -> int:
        """D of the noisy conditions; 1 where there is none."""
        return max(int(array.shape[1]) for array in self.sums.values())

    def systems(self) -> tuple[str, ...]:
        """In the order of the rows."""
        return tuple(dict.fromkeys(key.system for key in self.sums))

    def regimes(self) -> tuple[str, ...]:
        """In the order of the rows."""
        return tuple(dict.fromkeys(key.regime for key in self.sums))

    def corruptions(self) -> tuple[str, ...]:
        """By name, without ``clean``."""
        return tuple(sorted({key.corruption for key in self.sums if key.rate > 0}))

    def rates(self, corruption: str) -> tuple[float, ...]:
        """Nominal rates, ascending; rate 0 is the clean condition and not repeated here."""
        return tuple(sorted({key.rate for key in self.sums if key.corruption == corruption and key.rate > 0}))


def cube(predictions: pd.DataFrame, metric: Metric) -> Cube:
    """Sum the statistics of ``metric`` in each cluster; ``predictions`` has ``schema.PREDICTION_COLUMNS``.

    A training seed counts where every (system, regime) of the frame has every utterance under every condition and
    draw; the others are named in ``skipped``. The numbers do not depend on the order of the rows, to the bit.
    """
    if predictions.empty:
        raise UserError("expected prediction rows, found none")
    group, groups = _codes(predictions, ["model", "variant", "regime"])
    seed, seeds = _codes(predictions, ["seed"], ordered=True)
    condition, conditions = _codes(predictions, ["corruption", "rate", "draw"], ordered=True)
    unit, units = _codes(predictions, ["cluster", "utterance"], ordered=True)
    names = [utterance for _, utterance in units]
    truth = _truth(predictions, unit, names)
    scores = _scores(predictions)

    # where[g, s, k, u] is the row of one prediction, -1 where there is none
    shape = (len(groups), len(seeds), len(conditions), len(units))
    place = np.ravel_multi_index((group, seed, condition, unit), shape)
    rows = np.arange(len(predictions))
    where = np.full(shape, -1)
    where.flat[place] = rows
    if (twice := where.flat[place] != rows).any():
        row = predictions.iloc[int(twice.argmax())]
        raise UserError(
            f"expected one prediction of an utterance by each model under each condition, found two of "
            f"'{row['utterance']}' by {row['model']} (seed {row['seed']}, {row['corruption']} {row['rate']:g})"
        )
    counts = (where >= 0).sum(axis=(2, 3))
    expected = shape[2] * shape[3]
    complete = (counts == expected).all(axis=0)
    skipped = tuple(_skipped(seeds[s][0], groups, counts[:, s], expected) for s in np.flatnonzero(~complete))
    if not complete.any():
        raise UserError(
            f"no training seed has the predictions of every model: {skipped[0]}; let `dual-bench run` go on"
        )

    clusters = sorted({cluster for cluster, _ in units})
    starts = np.searchsorted([cluster for cluster, _ in units], clusters)
    draws = _draws(conditions)
    sums: dict[Key, FloatArray] = {}
    for g, (model, variant, regime) in enumerate(groups):
        parts = [_sum(metric, truth, scores, where[g, s], starts) for s in np.flatnonzero(complete)]
        stacked = np.stack(parts)
        for (corruption, rate), ks in draws.items():
            sums[Key(system_name(model, variant), regime, corruption, rate)] = stacked[:, ks]
    kept = tuple(int(seeds[s][0]) for s in np.flatnonzero(complete))
    return Cube(metric, sums, kept, tuple(clusters), len(units), skipped)


def _sum(metric: Metric, truth: FloatArray, scores: FloatArray, where: IntArray, starts: IntArray) -> FloatArray:
    """Sums of the statistics of one trained model, (conditions, C, m); ``where`` (conditions, N) are its rows."""
    # one condition at a time: some metrics have hundreds of statistics
    return np.stack([np.add.reduceat(metric.statistics(truth, scores[rows]), starts) for rows in where])


def _codes(
    frame: pd.DataFrame, columns: Sequence[str], ordered: bool = False
) -> tuple[IntArray, list[tuple[Any, ...]]]:
    """Number the distinct values of ``columns``: in their own order, or in the order of first appearance."""
    groups = frame.groupby(list(columns), sort=False, observed=True, dropna=False)
    codes: IntArray = groups.ngroup().to_numpy().astype(np.int64)
    example = np.empty(codes.max() + 1, np.int64)
    example[codes] = np.arange(len(codes))
    values = list(frame[list(columns)].iloc[example].itertuples(index=False, name=None))
    if not ordered:
        return codes, values
    # sorted here, not by pandas: categories come in the order of the file, which must not matter
    order = sorted(range(len(values)), key=values.__getitem__)
    return np.argsort(order).astype(np.int64)[codes], [values[i] for i in order]


def _truth(frame: pd.DataFrame, unit: IntArray, names: Sequence[str]) -> FloatArray:
    """The truth of each utterance, which every row of it must agree on; likewise its cluster."""
    name, clusters = Counter(names).most_common(1)[0]
    if clusters > 1:
        raise UserError(f"expected one cluster for each utterance, found {clusters} for '{name}'")
    given = frame["truth"].to_numpy(float)
    truth = np.empty(len(names))
    truth[unit] = given
    if (wrong := truth[unit] != given).any():
        row = int(wrong.argmax())
        raise UserError(
            f"expected one truth for utterance '{names[unit[row]]}', found {given[row]:g} and {truth[unit[row]]:g}"
        )
    return truth


def _scores(frame: pd.DataFrame) -> FloatArray:
    """(rows, K), all finite."""
    k = sum(str(column).startswith("score_") for column in frame.columns)
    scores = frame[[f"score_{i}" for i in range(k)]].to_numpy()
    if not (finite := np.isfinite(scores).all(axis=1)).all():
        row = frame.iloc[int(finite.argmin())]
        raise UserError(
            f"expected finite scores, found NaN or infinity by {row['model']} (seed {row['seed']}) "
            f"for utterance '{row['utterance']}' under {row['corruption']} {row['rate']:g}; that training went wrong"
        )
    return scores


def _skipped(seed: int, groups: Sequence[tuple[Any, ...]], counts: IntArray, expected: int) -> str:
    short = [g for g in range(len(groups)) if counts[g] < expected]
    model, variant, regime = groups[short[0]]
    first = f" (the first of {len(short)} such models)" if len(short) > 1 else ""
    return (
        f"training seed {seed} is left out: {system_name(model, variant)} ({regime}) "
        f"has {counts[short[0]]} of {expected} predictions{first}"
    )


def _draws(conditions: Sequence[tuple[str, float, int]]) -> dict[tuple[str, float], list[int]]:
    """The places of the draws of each (corruption, rate); noisy conditions must have the same draws."""
    places: dict[tuple[str, float], list[int]] = {}
    for k, (corruption, rate, _) in enumerate(conditions):
        places.setdefault((corruption, rate), []).append(k)
    sets = {tuple(conditions[k][2] for k in ks): name for name, ks in places.items() if len(ks) > 1}
    if len(sets) > 1:
        found = ", ".join(f"{len(draws)} of {corruption} {rate:g}" for draws, (corruption, rate) in sets.items())
        raise UserError(f"expected the same noise draws under every condition that has several, found {found}")
    return places
