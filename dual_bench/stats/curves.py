"""Degradation curves: a metric against the nominal rate of a corruption, and what sums one up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy.stats import kendalltau

from dual_bench.metrics import Metric
from dual_bench.stats.frame import Cube, Key
from dual_bench.stats.intervals import Interval, by_influence, interval, no_interval, ratio_interval
from dual_bench.stats.resampling import Point, Weights, combined, quotient, shifted
from dual_bench.types import FloatArray


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, whose ``reason`` says why where either is NaN."""

    value: float
    interval: Interval


def rates(cube: Cube, corruption: str) -> list[float]:
    """The rates of a curve: 0, which is the clean condition, and those of the corruption, ascending."""
    return [0.0, *cube.rates(corruption)]


def key(system: str, regime: str, corruption: str, rate: float) -> Key:
    """Where a point of a curve lies in a cube: rate 0 of any corruption is the clean condition.

    >>> key("dual", "clean", "word-drop", 0.0).corruption
    'clean'
    """
    return Key(system, regime, corruption if rate > 0 else "clean", rate)


def point(cube: Cube, key: Key, weights: Weights) -> Point:
    """The metric under one condition."""
    return weights.once(cube.sums[key], cube.metric.value)


# ---------------------------------------------------------------------------------- one whole corruption


def trapezoid(rates: Sequence[float]) -> FloatArray:
    """The weight of each height in the area under straight lines through (rate, height), over the range of rates.

    In the metric's own units, so that a flat curve has the area of its height.

    >>> trapezoid([0.0, 0.5, 1.0])
    array([0.25, 0.5 , 0.25])
    """
    steps = np.diff(rates)
    weights: FloatArray = (np.append(steps, 0) + np.append(0, steps)) / 2 / (rates[-1] - rates[0])
    return weights


def area_point(cube: Cube, system: str, regime: str, corruption: str, weights: Weights) -> Point:
    """Mean height of the degradation curve by the trapezoid rule; a resample holds the same seeds, draws and clusters
    at every rate."""
    grid = rates(cube, corruption)
    heights = [point(cube, key(system, regime, corruption, rate), weights) for rate in grid]
    return combined(zip(trapezoid(grid).tolist(), heights, strict=True))


def overall(
    cube: Cube, system: str, regime: str, corruption: str, weights: Weights, rates: Sequence[float] = ()
) -> Point:
    """One number for a whole corruption.

    Where ``rates`` are those of its severities: the plain mean over severities, without clean text. They are even
    steps of damage on purpose and their rates are not, so that an area over the rate would weigh them by how a
    corruption happens to be parametrised. A severity that the corruption cannot reach counts with the rate that stands
    in for it. Without severities: the area under the curve over the nominal rate, clean text included.
    """
    if not rates:
        return area_point(cube, system, regime, corruption, weights)
    points = {rate: point(cube, Key(system, regime, corruption, rate), weights) for rate in set(rates)}
    return combined((1 / len(rates), points[rate]) for rate in rates)


# ---------------------------------------------------------------------------------------- what is kept


def retention(
    metric: Metric, noisy: Point, clean: Point, floor: float, level: float = 0.95
) -> tuple[Estimate, Estimate]:
    """What is left of the clean performance: (plain, floor-normalised).

    Plain: noisy / clean, for metrics where higher is better. Floor-normalised, in either direction:
    (noisy - floor) / (clean - floor), 1 where nothing is lost and 0 at the floor, the metric of the best constant
    prediction, here a fixed number. Ratios of estimates; clean must lie on the better side of 0, or of the floor.
    """
    sign = 1 if metric.higher_is_better else -1

    def ratio(origin: float, reason: str) -> Estimate:
        left, whole = (combined([(sign, shifted(side, -origin))]) for side in (noisy, clean))
        return share_of(left, whole, level, reason)

    if sign > 0:
        plain = ratio(0.0, f"clean {metric.title} is not above 0")
    else:
        plain = Estimate(np.nan, no_interval(level, f"a share of {metric.title} kept has no meaning: lower is better"))
    bottom = (
        f"the floor of {metric.title} is undefined"
        if np.isnan(floor)
        else f"clean {metric.title} is not better than the floor"
    )
    return plain, ratio(floor, bottom)


# -------------------------------------------------------------------------------- against a named model


def error(metric: Metric, point: Point) -> Point:
    """How far from perfect: the best value of the metric minus the metric, or the metric where lower is better."""
    return shifted(combined([(-1.0, point)]), metric.high) if metric.higher_is_better else point


def added_error(metric: Metric, noisy: Point, clean: Point) -> Point:
    """How much further from perfect than on clean text."""
    return clean - noisy if metric.higher_is_better else noisy - clean  # what both are far from need not cancel


def corruption_error(metric: Metric, noisy: Point, reference: Point) -> Point:
    """Error under a corruption over that of a named reference model (Hendrycks & Dietterich 2019, ICLR).

    Over severities both are plain means, as there. Departure: over rates both are areas under the curve, which counts
    clean text and weighs rates by their distance. 1 is the reference itself, lower is better.
    """
    return quotient(error(metric, noisy), error(metric, reference))


def relative_corruption_error(
    metric: Metric, noisy: Point, clean: Point, reference: Point, reference_clean: Point
) -> Point:
    """What a corruption adds to the clean error, over what it adds to that of the reference (ibid.); lower is better.

    Undefined where the corruption does not harm the reference.
    """
    return quotient(added_error(metric, noisy, clean), added_error(metric, reference, reference_clean))


def mean_point(points: Iterable[Point]) -> Point:
    """The plain mean, of corruption errors over corruptions for one: the mean corruption error."""
    listed = list(points)
    return combined((1 / len(listed), one) for one in listed)


# ------------------------------------------------------------------------------------ where a curve breaks


def breaking_rate(curve: Sequence[tuple[float, Estimate]], line: float, higher_is_better: bool) -> tuple[float, str]:
    """The first tested rate at which a system is no longer shown to be better than ``line``, and why there is none.

    That is, at which the worse end of its interval is not on the better side. ``line`` is the floor; or 0, of a curve
    of differences from another model.
    """
    for rate, found in curve:
        ends = found.interval
        if np.isnan([ends.low, ends.high, line]).any():
            return np.nan, ends.reason or "there is no line to compare with"
        if (ends.low <= line) if higher_is_better else (ends.high >= line):
            return rate, ""
    return np.nan, "better at every rate tested"


def rank_stability(points: Sequence[Point]) -> tuple[float, str]:
    """Mean Kendall tau-b, over pairs of noise draws, of how two draws order the systems, and why there is none.

    ``points`` are the systems under one condition; each draw orders them by their mean over seeds. 1: every draw gives
    the same order; 0: as good as none.
    """
    values = np.array([p.influence.mean(axis=(0, 2)) for p in points])
    if len(values) < 3 or values.shape[1] < 2:
        return np.nan, "needs three systems and two noise draws"
    found = [float(kendalltau(values[:, i], values[:, j])[0]) for i, j in combinations(range(values.shape[1]), 2)]
    if np.isnan(found).any():
        return np.nan, "a draw does not order the systems"
    return float(np.mean(found)), ""


# ----------------------------------------------------------------------------------------- with intervals


def of_metric(metric: Metric, point: Point, level: float = 0.95) -> Estimate:
    """Value and interval of the metric itself, whose interval ends where the metric does."""
    return _held(metric, estimate_of(point, level))


def of_sums(metric: Metric, sums: FloatArray, level: float = 0.95) -> Estimate:
    """The same from sums (S, D, C, m) without resamples: a t interval."""
    return _held(metric, Estimate(*by_influence(sums, metric.value, level)))


def _held(metric: Metric, found: Estimate) -> Estimate:
    low, high = np.clip([found.interval.low, found.interval.high], metric.low, metric.high)
    return Estimate(found.value, replace(found.interval, low=float(low), high=float(high)))


def share_of(top: Point, bottom: Point, level: float = 0.95, reason: str = "undefined") -> Estimate:
    """The ratio of two points with Fieller's interval; NaN for this ``reason`` where ``bottom`` is not above 0."""
    if not bottom.estimate > 0:
        return Estimate(np.nan, no_interval(level, reason))
    return Estimate(top.estimate / bottom.estimate, ratio_interval(top, bottom, level))


def estimate_of(point: Point, level: float = 0.95, reason: str = "undefined") -> Estimate:
    """The estimate with its interval; ``reason`` is why the estimate itself would be undefined."""
    if np.isnan(point.estimate):
        return Estimate(np.nan, no_interval(level, reason))
    return Estimate(point.estimate, interval(point, level))
