"""Paired comparisons of one system with every other, corrected for their number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Literal

import numpy as np
from scipy.stats import t

from dual_bench.catalog import CORRUPTIONS, did_you_mean
from dual_bench.stats.curves import overall, point
from dual_bench.stats.frame import Cube, Key
from dual_bench.stats.intervals import Interval, interval_of_test
from dual_bench.stats.paired import Improvement, probability_of_improvement
from dual_bench.stats.resampling import Point, Weights
from dual_bench.stats.variance import Spread
from dual_bench.types import TRANSCRIPT_PREFIX, FloatArray, UserError

Verdict = Literal["better", "worse", "undecided", "undefined"]

ALPHA = 0.05
"""Adjusted p below it decides."""


@dataclass(frozen=True)
class Contrast:
    """``estimate`` is left - right, in the metric's own units; the verdict is left's, in the metric's direction."""

    left: str
    right: str
    regime: str
    quantity: str
    """``clean``, ``word-drop area`` or ``word-drop mean``, ``word-drop 1.0``, ``transcript:NAME``."""
    metric: str
    estimate: float
    interval: Interval
    p: float
    p_adjusted: float
    family: str
    seeds: int
    draws: int
    clusters: int
    utterances: int
    detectable: float
    """Smallest true difference that this design would see with power 0.8 at two-sided 0.05, before correction."""
    verdict: Verdict
    improvement: Improvement | None = None
    """In how many pairs of runs left is better; of single conditions, not of whole corruptions."""
    seeds_needed: int | None = None
    clusters_needed: int | None = None
    """Where undecided: how many seeds, or how many clusters, would decide it if the estimate and what makes it
    uncertain stayed as they are; None where ``MOST`` would not."""


MOST = {"seeds": 1_000, "clusters": 100_000}
"""More than anybody has: what they would not decide, seeds or clusters alone do not decide."""

Severities = Mapping[str, Sequence[float]]
"""The rate of each severity of a corruption; one rate may stand for several severities."""


def compare(
    cube: Cube, reference: str, weights: Weights, level: float = 0.95, severities: Severities | None = None
) -> list[Contrast]:
    """``reference`` (left) against every other system, in every regime that has both.

    Quantities: clean; for each corruption with several rates its ``overall`` and its largest rate; for each with one
    rate (a transcript) that condition. A largest rate that repeats another's predictions is compared once. Both sides
    share the resamples, so the differences are paired.

    Interval and p: those of the two-sided t test of the difference by its standard error (``variance.spread``), and not
    the share of replicates beyond 0, for two reasons. Where seeds make the difference, that share rejects a true null
    in 15 % of simulated runs of 5 seeds at nominal 5 %, centred or not. And its smallest value, 2 / (R + 1), times a
    family of 60 is above .05 at R = 2000, however clear the difference. Corrected by Holm (1979, Scandinavian Journal
    of Statistics 6:65) over all contrasts returned; undefined ones do not count.
    """
    if reference not in cube.systems():
        raise UserError(f"no predictions of '{reference}' to compare with{did_you_mean(reference, cube.systems())}")
    pairs = {(key.system, key.regime) for key in cube.sums}
    repeated = _repeated(cube)
    found = []
    for regime in cube.regimes():
        if (reference, regime) not in pairs:
            continue
        left = _quantities(cube, reference, regime, weights, severities or {})
        for corruption in repeated:
            left.pop(f"{corruption} {cube.rates(corruption)[-1]}")
        for right in cube.systems():
            if right != reference and (right, regime) in pairs:
                other = _quantities(cube, right, regime, weights, severities or {})
                names = (reference, right, regime)
                found += [_contrast(cube, names, q, left[q], other[q], weights, level) for q in left]
    return _judged(found, cube, reference)


@dataclass(frozen=True)
class _Quantity:
    """One side."""

    point: Point
    draws: int
    where: Key | None = None
    """Of a single condition."""


def _repeated(cube: Cube) -> list[str]:
    """Corruptions whose largest rate is, prediction by prediction, that of one before it in the catalogue: at rate 1
    both leave no word."""
    pairs = sorted({(key.system, key.regime) for key in cube.sums})
    order = {name: place for place, name in enumerate(CORRUPTIONS.entries)}
    names = sorted(cube.corruptions(), key=lambda name: (order.get(name, len(order)), name))
    several = [name for name in names if len(cube.rates(name)) > 1]

    def same(one: str, other: str) -> bool:
        ends = (cube.rates(one)[-1], cube.rates(other)[-1])
        return all(
            np.array_equal(cube.sums[Key(*pair, one, ends[0])], cube.sums[Key(*pair, other, ends[1])]) for pair in pairs
        )

    return [name for i, name in enumerate(several) if any(same(earlier, name) for earlier in several[:i])]


def _quantities(cube: Cube, system: str, regime: str, weights: Weights, severities: Severities) -> dict[str, _Quantity]:
    def at(key: Key) -> _Quantity:
        return _Quantity(point(cube, key, weights), cube.sums[key].shape[1], key)

    found = {"clean": at(Key(system, regime, "clean", 0.0))}
    for corruption in cube.corruptions():
        *lower, largest = cube.rates(corruption)
        worst = at(Key(system, regime, corruption, largest))
        if lower:
            rates = severities.get(corruption, ())
            whole = overall(cube, system, regime, corruption, weights, rates)
            found[f"{corruption} {'mean' if rates else 'area'}"] = _Quantity(whole, worst.draws)
        transcript = corruption.startswith(TRANSCRIPT_PREFIX)
        found[corruption if transcript else f"{corruption} {largest}"] = worst
    return found


def _contrast(
    cube: Cube,
    names: tuple[str, str, str],
    quantity: str,
    left: _Quantity,
    right: _Quantity,
    weights: Weights,
    level: float,
) -> tuple[Contrast, Spread]:
    difference = left.point - right.point
    ends, width = interval_of_test(difference, level), difference.spread
    known = not ends.reason
    improvement = None
    if left.where is not None and right.where is not None:
        sides, better = (cube.sums[left.where], cube.sums[right.where]), cube.metric.higher_is_better
        improvement = probability_of_improvement(*sides, cube.metric.value, weights, better, level)
    contrast = Contrast(
        *names,
        quantity=quantity,
        metric=cube.metric.name,
        estimate=difference.estimate,
        interval=ends,
        p=p_value(difference.estimate, width) if known else np.nan,
        p_adjusted=np.nan,
        family="",
        seeds=len(cube.seeds),
        draws=left.draws,
        clusters=len(cube.clusters),
        utterances=cube.utterances,
        detectable=detectable(width) if known else np.nan,
        verdict="undefined",
        improvement=improvement,
    )
    return contrast, width


def detectable(width: Spread) -> float:
    """(t_.975 + t_.8) x standard error: the true difference that is seen with power 0.8 at two-sided 0.05."""
    return float((t.ppf(0.975, width.freedom) + t.ppf(0.8, width.freedom)) * width.error)


def p_value(difference: float, width: Spread, margin: float = 0.0) -> float:
    """p of the t test of ``difference`` against 0, two-sided; with a margin, against all that is no larger."""
    size = abs(difference)
    if width.error == 0:
        return 1.0 if size <= margin else 0.0
    return float(np.sum(t.sf((size + np.array([-margin, margin])) / width.error, width.freedom)))


def holm(p: Sequence[float]) -> FloatArray:
    """p (n,) adjusted for their number by Holm's method (1979, Scandinavian Journal of Statistics 6:65).

    The i-th smallest of m is multiplied by m - i + 1, and is never below the one before it. NaN stays NaN and counts
    for nothing.

    >>> holm([0.01, float("nan"), 0.04])
    array([0.02,  nan, 0.04])
    """
    values = np.array(p, float)
    order = np.argsort(values)[: int(np.sum(~np.isnan(values)))]
    scaled = values[order] * np.arange(len(order), 0, -1)
    values[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return values


def needed(decides: Callable[[Spread], bool], width: Spread) -> tuple[int | None, int | None]:
    """The fewest seeds, and the fewest clusters, with which the spread ``decides``; None where ``MOST`` do not.

    More than there are, that is: ``Spread.with_counts`` says what more of them would do.
    """
    return _fewest(decides, width, "seeds"), _fewest(decides, width, "clusters")


def _fewest(decides: Callable[[Spread], bool], width: Spread, level: Literal["seeds", "clusters"]) -> int | None:
    def enough(count: int) -> bool:
        return decides(width.with_counts(**{level: count}))

    low, high = width.counts[0 if level == "seeds" else 2], MOST[level]
    if low >= high or not enough(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


@dataclass(frozen=True)
class Pair:
    """``estimate`` is left - right under one condition, in the metric's own units; the verdict is left's."""

    left: str
    right: str
    estimate: float
    interval: Interval
    p: float
    p_adjusted: float
    verdict: Verdict


def every_pair(points: Mapping[str, Point], higher_is_better: bool, level: float = 0.95) -> tuple[Pair, ...]:
    """Each of n systems against each one after it, under one condition: n (n - 1) / 2 pairs.

    ``points`` are the metric of each system, in one set of resamples. Interval and p are those of ``compare``, here
    corrected by Holm over all these pairs.
    """
    found = []
    for left, right in combinations(points, 2):
        difference = points[left] - points[right]
        ends = interval_of_test(difference, level)
        p = np.nan if ends.reason else p_value(difference.estimate, difference.spread)
        found.append((left, right, difference.estimate, ends, p))
    adjusted = holm([p for *_, p in found]).tolist()
    return tuple(
        Pair(*pair, p_adjusted=p, verdict=_verdict(pair[2], p, higher_is_better))
        for pair, p in zip(found, adjusted, strict=True)
    )


def _judged(found: Sequence[tuple[Contrast, Spread]], cube: Cube, reference: str) -> list[Contrast]:
    """Adjusted p, verdict, and what is missing for one."""
    adjusted = holm([contrast.p for contrast, _ in found])
    tests = int(np.sum(~np.isnan(adjusted)))
    family = f"Holm over {tests} contrasts of {cube.metric.name} with {reference}"
    judged = []
    for (contrast, width), p in zip(found, adjusted.tolist(), strict=True):
        verdict = _verdict(contrast.estimate, p, cube.metric.higher_is_better)
        contrast = replace(contrast, p_adjusted=p, family=family, verdict=verdict)
        if verdict == "undecided":
            seeds, clusters = needed(partial(_decides, contrast.estimate, tests), width)
            contrast = replace(contrast, seeds_needed=seeds, clusters_needed=clusters)
        judged.append(contrast)
    return judged


def _decides(difference: float, tests: int, width: Spread) -> bool:
    """Whether a spread would decide by Holm's strictest bound."""
    return p_value(difference, width) * tests < ALPHA


def _verdict(difference: float, adjusted: float, higher_is_better: bool) -> Verdict:
    if np.isnan(adjusted):
        return "undefined"
    if adjusted >= ALPHA or difference == 0:
        return "undecided"
    return "better" if (difference > 0) == higher_is_better else "worse"
