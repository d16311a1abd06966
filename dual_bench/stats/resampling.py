"""A paired bootstrap over training seeds, noise draws and clusters of test utterances, and what else resamples them.

Every model is trained with every seed and reads every draw of every utterance, so the three are crossed, not nested:
each is resampled on its own and the weights multiply (the pigeonhole bootstrap, Owen 2007, Annals of Applied
Statistics 1:386). Below them a cluster is drawn whole, with all its utterances: drawing utterances within it again
would count their variation twice (Davison & Hinkley 1997, Bootstrap Methods, ch. 3.8). Where utterances stand alone,
each is its own cluster, and the unit.

An interval made of these replicates covers what would change with *other training seeds, other noise draws and other
clusters of test utterances*. It does not cover the choice of the training sample, which was never redrawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from dual_bench.stats.variance import Spread, spread
from dual_bench.types import FloatArray, IntArray

Value = Callable[[FloatArray], FloatArray]
"""``Metric.value``: sums (..., m) -> (...)."""

_CHUNK = 1_000_000
"""Numbers in the largest array of statistics that is made at a time (8 MB)."""

_DRAWN = 16_000_000
"""Likewise of clusters drawn (128 MB): where there are many, fewer resamples are made at a time."""


@dataclass(frozen=True)
class Weights:
    """How often each seed (R, S), draw (R, D) and cluster (R, C) occurs in each of R resamples.

    Use one ``Weights`` for all systems and conditions of a cube: that is what pairs them.
    """

    seeds: IntArray
    draws: IntArray
    clusters: IntArray
    _known: dict[int, tuple[FloatArray, Point]] = field(default_factory=dict, repr=False, compare=False)

    def once(self, sums: FloatArray, value: Value) -> Point:
        """``point_of``, computed once for each array: curves, comparisons and tables ask for the same."""
        if id(sums) not in self._known:
            self._known[id(sums)] = (
                sums,
                point_of(sums, value, self),
            )  # the array is held, so that its id stays its own
        return self._known[id(sums)][1]

    def of(self, draws: int) -> tuple[IntArray, IntArray, IntArray]:
        """The weights for a condition with this many draws.

        One with a single draw is the same text in every resample of draws, so their weights are passed over.
        """
        one = np.ones((len(self.seeds), 1), np.int64)
        return self.seeds, self.draws if draws > 1 else one, self.clusters


def resample(rng: np.random.Generator, seeds: int, draws: int, clusters: int, resamples: int) -> Weights:
    """Draw with replacement, independently at each of the three levels; only the counts are kept."""

    def counts(n: int) -> IntArray:
        return rng.multinomial(n, np.full(n, 1 / n), size=resamples)

    return Weights(counts(seeds), counts(draws), counts(clusters))


@dataclass(frozen=True)
class Point:
    """A statistic as estimated, in each resample (R,), and by the ``influence`` (S, D, C) of seeds, draws and clusters.

    The mean of the influence values is the estimate, and their spread is its uncertainty. All that is linear in points
    (differences, areas, effects, Shapley values) is computed on all three at once.
    """

    estimate: float
    replicates: FloatArray
    influence: FloatArray

    @cached_property
    def spread(self) -> Spread:
        return spread(self.influence)

    def __sub__(self, other: Point) -> Point:
        return combined([(1.0, self), (-1.0, other)])


def combined(terms: Iterable[tuple[float, Point]]) -> Point:
    """The weighted sum of points of one cube, in one set of resamples."""
    listed = list(terms)
    return Point(
        float(_sum(w * p.estimate for w, p in listed)),
        _sum(w * p.replicates for w, p in listed),
        _sum(w * p.influence for w, p in listed),  # a condition with one draw says the same in each
    )


_ROUNDING = 16 * float(np.finfo(float).eps)


def _sum(terms: Iterable[float | FloatArray]) -> FloatArray:
    """The sum, from left to right, whatever the version of Python (since 3.12 its own adds floats otherwise); and 0
    where the terms cancel but for rounding, so that what is equal is so on every machine."""
    total, size = np.zeros(()), np.zeros(())
    for term in terms:
        total, size = total + term, size + np.abs(term)
    return np.where(np.isfinite(total) & (np.abs(total) <= _ROUNDING * size), 0.0, total)


def quotient(top: Point, bottom: Point) -> Point:
    """``top / bottom``, undefined where ``bottom`` is not above 0; the influence is that of the linearised ratio."""
    ratio = top.estimate / bottom.estimate if bottom.estimate > 0 else np.nan
    replicates = np.divide(
        top.replicates, bottom.replicates, out=np.full(top.replicates.shape, np.nan), where=bottom.replicates > 0
    )
    slope = (top.influence - ratio * bottom.influence) / (bottom.estimate if bottom.estimate > 0 else np.nan)
    return Point(float(ratio), replicates, ratio + slope)


def shifted(point: Point, by: float) -> Point:
    """The point plus a number."""
    return Point(float(_sum((point.estimate, by))), _sum((point.replicates, by)), _sum((point.influence, by)))


def point_of(sums: FloatArray, value: Value, weights: Weights) -> Point:
    """The mean over seeds and draws of a metric of additive statistics; ``sums`` is (S, D, C, m)."""
    return Point(estimate(sums, value), replicates(sums, value, weights), influence(sums, value))


def estimate(sums: FloatArray, value: Value) -> float:
    """Mean over seeds and draws of the metric over all clusters; ``sums`` is (S, D, C, m). NaN if any is undefined."""
    return float(value(sums.sum(axis=2)).mean())


def influence(sums: FloatArray, value: Value) -> FloatArray:
    """What each cluster does to the metric of each seed and draw, (S, D, C): the metric plus its jackknife deviation.

    With v the metric over all C clusters and v_-c that without cluster c: v + (C - 1)(mean of all v_-c - v_-c).
    (Tukey's pseudo-values, Efron & Tibshirani 1993, ch. 11.5, moved so that their mean is v.) Exact for a mean over
    clusters, to first order for any smooth function of sums.
    """
    total = sums.sum(axis=2, keepdims=True)
    return _moved(value(total), value(total - sums))


def _moved(whole: FloatArray, without: FloatArray) -> FloatArray:
    moved: FloatArray = whole + (without.shape[-1] - 1) * (without.mean(axis=-1, keepdims=True) - without)
    return moved


def replicates(sums: FloatArray, value: Value, weights: Weights) -> FloatArray:
    """The estimate in each resample, (R,): sum_sd w_s w_d value(sum_c w_c sums_sdc) / (S D).

    A resample is NaN where a metric it uses is undefined (no utterance of non-zero truth, say).
    """
    s, d, c, m = sums.shape
    seeds, draws, clusters = weights.of(d)
    flat = np.moveaxis(sums, 2, 3).reshape(s * d * m, c)
    # counts are summed without rounding in single precision too, which is twice as fast
    whole = bool((flat == np.rint(flat)).all()) and c * np.abs(flat).max() < 2**24
    kind: type[np.floating] = np.float32 if whole else np.float64
    rows = flat.astype(kind)
    out = np.empty(len(seeds))
    step = max(1, min(_CHUNK // (s * d * m), _DRAWN // c))
    for start in range(0, len(out), step):
        part = slice(start, start + step)
        # resamples lie last in memory: a metric adds up few statistics of many resamples, not the other way round
        drawn_sums = np.asarray(rows @ clusters[part].T.astype(kind), np.float64).reshape(s, d, m, -1)
        values = value(drawn_sums.transpose(3, 0, 1, 2))
        out[part] = _mean(values, seeds[part], draws[part])
    return out


def _mean(values: FloatArray, seeds: IntArray, draws: IntArray) -> FloatArray:
    """Mean of ``values`` (R, S, D) over the seeds and draws of each resample."""
    share = seeds[:, :, None] * draws[:, None, :] / (seeds.shape[1] * draws.shape[1])
    # what a resample leaves out may be undefined without harm
    mean: FloatArray = np.where(share > 0, share * values, 0).sum(axis=(1, 2))
    return mean


Function = Callable[[FloatArray, FloatArray], float]
"""Any statistic of ``truth (n,)`` and ``scores (n, K)``: one of scikit-learn's, say."""


def point_of_function(
    function: Function, truth: FloatArray, scores: FloatArray, clusters: IntArray, weights: Weights
) -> Point:
    """As ``point_of`` for any plain function, at the price of one call for each resample, seed and draw.

    ``truth`` (N,), ``scores`` (S, D, N, K), ``clusters`` (N,) the number 0..C-1 of each utterance's cluster. Rows of a
    cluster that a resample holds twice are given twice.
    """
    s, d = scores.shape[:2]
    rows = [np.flatnonzero(clusters == c) for c in range(weights.clusters.shape[1])]

    def values(counts: IntArray, wanted: IntArray) -> FloatArray:
        chosen = np.concatenate([np.tile(rows[c], n) for c, n in enumerate(counts)])
        found = np.full((s, d), np.nan)
        for i, j in np.argwhere(wanted):
            found[i, j] = function(truth[chosen], scores[i, j, chosen])
        return found

    every = np.ones((s, d), np.int64)
    once = np.ones(len(rows), np.int64)
    whole = values(once, every)
    without = np.stack([values(once - (np.arange(len(rows)) == c), every) for c in range(len(rows))], axis=-1)
    seeds, draws, drawn = weights.of(d)
    found = np.stack([values(drawn[r], np.outer(seeds[r], draws[r])) for r in range(len(drawn))])
    return Point(float(whole.mean()), _mean(found, seeds, draws), _moved(whole[:, :, None], without))


def permutation_p(
    left: FloatArray, right: FloatArray, value: Value, rng: np.random.Generator, resamples: int = 10_000
) -> float:
    """p of the two-sided paired permutation test: in each cluster, whole, the two sides change places or do not.

    ``left`` and ``right`` are sums (S, D, C, m). (Good 2005, Permutation, Parametric and Bootstrap Tests, ch. 3; with
    clusters as the unit, as utterances of one dialogue are not exchangeable.) p = (1 + how many permutations are at
    least as far from 0) / (1 + all), so that the observed one counts.

    It asks whether *these trained models* differ on other clusters: seeds and draws are held as they are. Whether the
    kinds of model differ, whatever their seeds, is what the t test of ``contrasts`` asks. NaN with fewer than two
    clusters, or where the metric is undefined.
    """
    if left.shape[2] < 2:
        return np.nan
    s, d, c, m = np.broadcast_shapes(left.shape, right.shape)
    sides = [np.moveaxis(np.broadcast_to(side, (s, d, c, m)), 2, 0).reshape(c, -1) for side in (left, right)]
    gap = sides[1] - sides[0]
    observed = abs(estimate(left, value) - estimate(right, value))
    if np.isnan(observed):
        return np.nan
    extreme, step = 0, max(1, min(_CHUNK // gap.shape[1], _DRAWN // c))
    for start in range(0, resamples, step):
        change = rng.integers(0, 2, (min(step, resamples - start), c)).astype(float) @ gap
        one, other = (
            value((side.sum(axis=0) + sign * change).reshape(-1, s, d, m))
            for side, sign in zip(sides, (1, -1), strict=True)
        )
        reached = np.abs((one - other).mean(axis=(1, 2)))
        extreme += int(np.sum(~(reached < observed * (1 - 1e-12))))  # what is undefined counts against the difference
    return (1 + extreme) / (1 + resamples)
