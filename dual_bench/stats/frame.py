"""Prediction rows, summed once per cluster.

Metrics are functions of additive statistics (``metrics``), so all that resampling ever needs of a condition is their
sum in each cluster, for each training seed and noise draw: an array (S, D, C, m). Folds of one seed are pooled
(out-of-fold predictions), as if one model had predicted every utterance.
"""

from __future__ import annotations

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
    sums = Summing(metric)
    sums.add(summed(predictions, metric))
    return sums.cube()


class Unit(NamedTuple):
    """What is resampled whole, and one utterance of it."""

    cluster: str
    utterance: str


class Trained(NamedTuple):
    """One training of one system."""

    model: str
    variant: str
    regime: str
    seed: int


_Conditions = tuple[tuple[str, float, int], ...]


@dataclass(frozen=True)
class _Block:
    """One training: how many ``rows`` it has, and where they are whole the sums (conditions, clusters, m)."""

    rows: int
    conditions: _Conditions
    units: tuple[Unit, ...]
    sums: FloatArray | None


@dataclass(frozen=True)
class Part:
    """The sums of some trainings, and what their rows say of the utterances."""

    truth: Mapping[str, tuple[str, float]]
    """Utterance -> cluster, truth."""
    blocks: Mapping[Trained, _Block]


def summed(rows: pd.DataFrame, metric: Metric) -> Part:
    """Sum ``metric`` over the rows of some trainings; UserError where they contradict themselves."""
    if rows.empty:
        return Part({}, {})
    training, trainings = numbered(rows, Trained._fields)
    condition, conditions = numbered(rows, ["corruption", "rate", "draw"], ordered=True)
    unit, pairs = numbered(rows, ["cluster", "utterance"], ordered=True)
    units = tuple(Unit(*map(str, pair)) for pair in pairs)
    truth = _agreed(rows, unit, units)
    scores = _scores(rows)
    order = np.argsort(training, kind="stable")
    ends = np.searchsorted(training[order], np.arange(len(trainings) + 1))
    blocks = {}
    for t, found in enumerate(trainings):
        mine = order[ends[t] : ends[t + 1]]
        where = _placed(rows, mine, condition, unit, (len(conditions), len(units)))
        read, seen = np.flatnonzero((where >= 0).any(axis=1)), np.flatnonzero((where >= 0).any(axis=0))
        where = where[np.ix_(read, seen)]
        # one that lacks rows is left out in the end, and needs no sums
        sums = _sum(metric, truth[seen], scores, where, _starts(units, seen)) if (where >= 0).all() else None
        there = tuple(conditions[k] for k in read), tuple(units[u] for u in seen)
        blocks[Trained(*found)] = _Block(len(mine), *there, sums)
    told = {u.utterance: (u.cluster, value) for u, value in zip(units, truth.tolist(), strict=True)}
    return Part(told, blocks)


class Summing:
    """Prediction rows on their way into a ``Cube``, part by part, so that they need not fit into memory at once.

    Each training must come whole in one part; the order of parts, and of rows, changes no number.
    """

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self._blocks: dict[Trained, _Block] = {}
        self._told: dict[str, tuple[str, float]] = {}

    def add(self, part: Part) -> None:
        """Take up a part; UserError where it contradicts one from before."""
        for name, (cluster, value) in part.truth.items():
            before, known = self._told.setdefault(name, (cluster, value))
            if before != cluster:
                raise UserError(_two_clusters(name, before, cluster))
            if known != value:
                raise UserError(_two_truths(name, value, known))
        for training, block in part.blocks.items():
            if training in self._blocks:
                raise UserError(
                    f"expected the rows of one training together, found more of {_titled(training[:3])}, seed "
                    f"{training.seed}"
                )
            self._blocks[training] = block

    @property
    def trainings(self) -> tuple[Trained, ...]:
        """What was added."""
        return tuple(self._blocks)

    def cube(self, among: Cube | None = None, partial: bool = False) -> Cube:
        """What was added, or of it the seeds and systems of the cube ``among``.

        UserError where no seed has the rows of every system; if a ``partial`` cube will do, then systems that have the
        fewest whole seeds are left out, one after another, until the others share two, which an interval needs; or one,
        if that took more than half of the systems.
        """
        if not self._blocks:
            raise UserError("expected prediction rows, found none")
        conditions = sorted({c for block in self._blocks.values() for c in block.conditions})
        units = {unit for block in self._blocks.values() for unit in block.units}
        expected = len(conditions) * len(units)
        groups, seeds = self._asked(among)
        counts = {
            seed: [b.rows if (b := self._blocks.get(Trained(*group, seed))) else 0 for group in groups]
            for seed in seeds
        }
        has = {g: {seed for seed in seeds if counts[seed][g] == expected} for g in range(len(groups))}
        kept = _sharing(has) if partial else list(has)
        whole = sorted(set.intersection(*(has[g] for g in kept))) if kept else []
        skipped = tuple(_skipped(s, groups, counts[s], expected) for s in seeds if s not in whole)
        if not whole:
            first = skipped[0] if skipped else "no seed is asked for"
            raise UserError(f"no training seed has the predictions of every model: {first}; let `dual-bench run` go on")
        skipped += tuple(
            f"{_titled(groups[g])} is left out: it is whole in {len(has[g])} of {len(seeds)} seeds"
            for g in has
            if g not in kept
        )
        draws = _draws(conditions)
        sums: dict[Key, FloatArray] = {}
        for model, variant, regime in (groups[g] for g in kept):
            parts = [self._blocks[Trained(model, variant, regime, seed)].sums for seed in whole]
            stacked = np.stack([part for part in parts if part is not None])
            for (corruption, rate), ks in draws.items():
                sums[Key(system_name(model, variant), regime, corruption, rate)] = stacked[:, ks]
        clusters = tuple(sorted({unit.cluster for unit in units}))
        return Cube(self.metric, sums, tuple(map(int, whole)), clusters, len(units), skipped)

    def _asked(self, among: Cube | None) -> tuple[list[tuple[str, str, str]], list[int]]:
        """The systems, in the order of the rows, and the seeds."""
        groups = list(dict.fromkeys((t.model, t.variant, t.regime) for t in self._blocks))
        seeds = sorted({t.seed for t in self._blocks})
        if among is not None:
            there = {(key.system, key.regime) for key in among.sums}
            groups = [g for g in groups if (system_name(g[0], g[1]), g[2]) in there]
            seeds = [seed for seed in seeds if seed in among.seeds]
        return groups, seeds


def _sharing(has: Mapping[int, set[int]]) -> list[int]:
    """Which systems to keep, from the whole seeds of each: as many as share two seeds, or else one."""
    for wanted in (2, 1):
        kept = list(has)
        while kept and len(set.intersection(*(has[g] for g in kept))) < wanted:
            kept.remove(min(reversed(kept), key=lambda g: len(has[g])))
        if 2 * len(kept) >= (len(has) if wanted == 2 else 1):
            return kept
    return []


def _agreed(rows: pd.DataFrame, unit: IntArray, units: Sequence[Unit]) -> FloatArray:
    """The truth of each unit, which every row of it must agree on; likewise its cluster."""
    clusters: dict[str, str] = {}
    for cluster, name in units:
        if clusters.setdefault(name, cluster) != cluster:
            raise UserError(_two_clusters(name, clusters[name], cluster))
    given = rows["truth"].to_numpy(float)
    truth = np.empty(len(units))
    truth[unit] = given
    if (wrong := truth[unit] != given).any():
        row = int(wrong.argmax())
        raise UserError(_two_truths(units[unit[row]].utterance, given[row], truth[unit[row]]))
    return truth


def _two_clusters(name: str, one: str, other: str) -> str:
    return f"expected one cluster for each utterance, found '{one}' and '{other}' for '{name}'"


def _two_truths(name: str, one: float, other: float) -> str:
    return f"expected one truth for utterance '{name}', found {one:g} and {other:g}"


def _placed(
    rows: pd.DataFrame, mine: IntArray, condition: IntArray, unit: IntArray, shape: tuple[int, int]
) -> IntArray:
    """(conditions, units) the row of each prediction, -1 where there is none."""
    where = np.full(shape, -1)
    place = np.ravel_multi_index((condition[mine], unit[mine]), shape)
    where.flat[place] = mine
    if (twice := where.flat[place] != mine).any():
        row = rows.iloc[int(mine[int(twice.argmax())])]
        raise UserError(
            f"expected one prediction of an utterance by each model under each condition, found two of "
            f"'{row['utterance']}' by {row['model']} (seed {row['seed']}, {row['corruption']} {row['rate']:g})"
        )
    return where


def _starts(units: Sequence[Unit], seen: IntArray) -> IntArray:
    """Where each cluster begins among the units seen, which are in order."""
    clusters = np.array([units[u].cluster for u in seen])
    return np.flatnonzero(np.append(True, clusters[1:] != clusters[:-1]))


def _sum(metric: Metric, truth: FloatArray, scores: FloatArray, where: IntArray, starts: IntArray) -> FloatArray:
    """Sums of the statistics of one trained model, (conditions, C, m); ``where`` (conditions, N) are its rows."""
    # one condition at a time: some metrics have hundreds of statistics
    return np.stack([np.add.reduceat(metric.statistics(truth, scores[rows]), starts) for rows in where])


def numbered(
    frame: pd.DataFrame, columns: Sequence[str], ordered: bool = False
) -> tuple[IntArray, list[tuple[Any, ...]]]:
    """Number the distinct values of ``columns``: in their own order, or in the order of first appearance."""
    codes, size = np.zeros(len(frame), np.int64), 1
    for name in columns:
        each, count = _column_codes(frame[name])
        if size * count > _SMALL:
            codes = pd.factorize(codes)[0].astype(np.int64)
            size = int(codes.max()) + 1
        codes, size = codes * count + each, size * count
    if size > _SMALL:
        codes = pd.factorize(codes)[0].astype(np.int64)
        size = int(codes.max()) + 1
    first = np.full(size, len(codes))
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    there = np.flatnonzero(first < len(codes))
    there = there[np.argsort(first[there])]
    values = list(frame[list(columns)].iloc[first[there]].itertuples(index=False, name=None))
    if ordered:
        # sorted here, not by pandas: categories come in the order of the file, which must not matter
        order = sorted(range(len(values)), key=values.__getitem__)
        there, values = there[order], [values[i] for i in order]
    numbers = np.empty(size, np.int64)
    numbers[there] = np.arange(len(there))
    return numbers[codes], values


_SMALL = 2**22
"""Combinations of values for which a table of all of them is quicker than a look-up."""


def _column_codes(column: pd.Series[Any]) -> tuple[IntArray, int]:
    """A number for each distinct value of a column, and how many numbers there may be."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return np.asarray(column.cat.codes, np.int64) + 1, len(column.cat.categories) + 1
    if column.dtype.kind == "i":  # seeds and draws are few and near each other, and need no look-up
        values: IntArray = column.to_numpy(np.int64)
        low, high = int(values.min()), int(values.max())
        if high - low < 2**20:
            return values - low, high - low + 1
    codes: IntArray = pd.factorize(column)[0].astype(np.int64)
    codes += 1
    return codes, int(codes.max()) + 1


def _scores(frame: pd.DataFrame) -> FloatArray:
    """(rows, K), all finite."""
    k = sum(str(column).startswith("score_") for column in frame.columns)
    scores = frame[[f"score_{i}" for i in range(k)]].to_numpy()
    if not np.isfinite(scores).all():
        row = frame.iloc[int(np.isfinite(scores).all(axis=1).argmin())]
        raise UserError(
            f"expected finite scores, found NaN or infinity by {row['model']} (seed {row['seed']}) "
            f"for utterance '{row['utterance']}' under {row['corruption']} {row['rate']:g}; that training went wrong"
        )
    return scores


def _titled(group: tuple[Any, ...]) -> str:
    model, variant, regime = group
    return f"{system_name(model, variant)} ({regime})"


def _skipped(seed: int, groups: Sequence[tuple[Any, ...]], counts: Sequence[int], expected: int) -> str:
    short = [g for g in range(len(groups)) if counts[g] < expected]
    first = f" (the first of {len(short)} such models)" if len(short) > 1 else ""
    return (
        f"training seed {seed} is left out: {_titled(groups[short[0]])} "
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
