"""Paired comparisons of one system with every other, corrected for their number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.stats import t

from dual_bench.catalog import CORRUPTIONS, did_you_mean
from dual_bench.stats.curves import area_point, point
from dual_bench.stats.frame import Cube, Key
from dual_bench.stats.resampling import Interval, Spread, Weights, interval, spread
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


Severities = Mapping[str, Sequence[float]]
"""The rate of each severity of a corruption; one rate may stand for several severities."""


def compare(
    cube: Cube, reference: str, weights: Weights, level: float = 0.95, severities: Severities | None = None
) -> list[Contrast]:
    """``reference`` (left) against every other system, in every regime that has both.

    Quantities: clean; for each corruption with several rates its ``overall`` and its largest rate; for each with one
    rate (a transcript) that condition. A largest rate that repeats another's predictions is compared once. Both sides
    share the resamples, so the differences are paired.

    Interval and p: those of the two-sided t test of the difference by its bootstrap standard error
    (``resampling.spread``), and not the share of replicates beyond 0, for two reasons. Where seeds make the
    difference, that share rejected a true null in 15 % of simulated runs of 5 seeds at nominal 5 %, centred or not;
    this test in 5 %. And its smallest value, 2 / (R + 1), times a family of 60 is above .05 at R = 2000, however clear
    the difference. Corrected by Holm (1979,
    Scandinavian Journal of Statistics 6:65) over all contrasts returned; undefined ones do not count.
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


def overall(
    cube: Cube, system: str, regime: str, corruption: str, weights: Weights, rates: Sequence[float] = ()
) -> tuple[float, FloatArray]:
    """One number for a whole corruption, estimate and replicates (R,).

    Where ``rates`` are those of its severities: the plain mean over severities, without clean text. They are even
    steps of damage on purpose and their rates are not, so that an area over the rate would weigh them by how a
    corruption happens to be parametrised. A severity that the corruption cannot reach counts with the rate that stands
    in for it. Without severities: the area under the curve over the nominal rate, clean text included.
    """
    if not rates:
        return area_point(cube, system, regime, corruption, weights)
    points = {rate: point(cube, Key(system, regime, corruption, rate), weights) for rate in set(rates)}
    value = np.mean([points[rate][0] for rate in rates])
    return float(value), np.mean([points[rate][1] for rate in rates], axis=0)


@dataclass(frozen=True)
class _Quantity:
    """Estimate and replicates (R,) of one side."""

    estimate: float
    sample: FloatArray
    draws: int


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
        return _Quantity(*point(cube, key, weights), cube.sums[key].shape[1])

    found = {"clean": at(Key(system, regime, "clean", 0.0))}
    for corruption in cube.corruptions():
        *lower, largest = cube.rates(corruption)
        worst = at(Key(system, regime, corruption, largest))
        if lower:
            rates = severities.get(corruption, ())
            whole = overall(cube, system, regime, corruption, weights, rates)
            found[f"{corruption} {'mean' if rates else 'area'}"] = _Quantity(*whole, worst.draws)
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
) -> Contrast:
    difference, sample = left.estimate - right.estimate, left.sample - right.sample
    ends = interval(difference, sample, weights, level)
    width = spread(sample, weights)
    known = not ends.reason
    if known:  # the interval and p are of one test, so that they cannot contradict each other
        ends = t_interval(difference, width, level)
    return Contrast(
        *names,
        quantity=quantity,
        metric=cube.metric.name,
        estimate=difference,
        interval=ends,
        p=p_value(difference, width) if known else np.nan,
        p_adjusted=np.nan,
        family="",
        seeds=len(cube.seeds),
        draws=left.draws,
        clusters=len(cube.clusters),
        utterances=cube.utterances,
        detectable=detectable(width) if known else np.nan,
        verdict="undefined",
    )


def t_interval(difference: float, width: Spread, level: float) -> Interval:
    """The interval of the t test of ``difference``."""
    half = float(t.ppf((1 + level) / 2, width.freedom) * width.error) if width.error else 0.0
    return Interval(difference - half, difference + half, level)


def detectable(width: Spread) -> float:
    """(t_.975 + t_.8) x standard error: the true difference that is seen with power 0.8 at two-sided 0.05."""
    return float((t.ppf(0.975, width.freedom) + t.ppf(0.8, width.freedom)) * width.error)


def p_value(difference: float, width: Spread, margin: float = 0.0) -> float:
    """p of the t test of ``difference`` against 0, two-sided; with a margin, against all that is no larger."""
    size = abs(difference)
    if width.error == 0:
        return 1.0 if size <= margin else 0.0
    return float(sum(t.sf((size + end) / width.error, width.freedom) for end in (-margin, margin)))


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


def _judged(contrasts: list[Contrast], cube: Cube, reference: str) -> list[Contrast]:
    """Adjusted p and verdict of every contrast."""
    adjusted = holm([contrast.p for contrast in contrasts])
    family = f"Holm over {int(np.sum(~np.isnan(adjusted)))} contrasts of {cube.metric.name} with {reference}"
    return [
        replace(c, p_adjusted=float(a), family=family, verdict=_verdict(c, a, cube.metric.higher_is_better))
        for c, a in zip(contrasts, adjusted, strict=True)
    ]


def _verdict(contrast: Contrast, adjusted: float, higher_is_better: bool) -> Verdict:
    if np.isnan(adjusted):
        return "undefined"
    if adjusted >= ALPHA or contrast.estimate == 0:
        return "undecided"
    return "better" if (contrast.estimate > 0) == higher_is_better else "worse"
