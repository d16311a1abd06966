"""Degradation curves: a metric against the nominal rate of a corruption, and what sums one up."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dual_bench.metrics import Metric
from dual_bench.stats.frame import Cube, Key
from dual_bench.stats.resampling import Interval, Weights, estimate, interval, replicates
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


def point(cube: Cube, key: Key, weights: Weights) -> tuple[float, FloatArray]:
    """Estimate and replicates (R,) under one condition."""
    sums, value = cube.sums[key], cube.metric.value
    return estimate(sums, value), replicates(sums, value, weights)


def trapezoid(rates: list[float], values: FloatArray) -> FloatArray:
    """Area under straight lines through (rate, value), divided by the range of rates: (rates, ...) -> (...).

    In the metric's own units, so that a flat curve has the area of its height.
    """
    steps = np.diff(rates).reshape(-1, *[1] * (values.ndim - 1))
    return np.asarray((steps * (values[1:] + values[:-1]) / 2).sum(axis=0) / (rates[-1] - rates[0]))


def area_point(cube: Cube, system: str, regime: str, corruption: str, weights: Weights) -> tuple[float, FloatArray]:
    """Estimate and replicates (R,) of the area; a resample holds the same seeds, draws and clusters at every rate."""
    grid = rates(cube, corruption)
    points = [point(cube, key(system, regime, corruption, rate), weights) for rate in grid]
    values = np.array([value for value, _ in points])
    return float(trapezoid(grid, values)), trapezoid(grid, np.stack([sample for _, sample in points]))


def curve(
    cube: Cube, system: str, regime: str, corruption: str, weights: Weights, level: float = 0.95
) -> list[tuple[float, Estimate]]:
    """(rate, estimate) at every rate from 0 on; intervals are pointwise."""
    found = []
    for rate in rates(cube, corruption):
        value, sample = point(cube, key(system, regime, corruption, rate), weights)
        found.append((rate, of_metric(cube.metric, value, sample, weights, level)))
    return found


def area(cube: Cube, system: str, regime: str, corruption: str, weights: Weights, level: float = 0.95) -> Estimate:
    """Mean height of the degradation curve by the trapezoid rule, in the metric's own units."""
    value, sample = area_point(cube, system, regime, corruption, weights)
    return of_metric(cube.metric, value, sample, weights, level)


def retention(
    cube: Cube, system: str, regime: str, condition: Key, floor: float, weights: Weights, level: float = 0.95
) -> tuple[Estimate, Estimate]:
    """What is left of the clean performance under ``condition``: (plain, floor-normalised).

    Plain: noisy / clean, for metrics where higher is better. Floor-normalised, in either direction:
    (noisy - floor) / (clean - floor), 1 where nothing is lost and 0 at the floor, the metric of the best constant
    prediction, here a fixed number. Ratios of estimates; clean must lie on the better side of 0, or of the floor.
    """
    noisy, noisy_sample = point(cube, Key(system, regime, condition.corruption, condition.rate), weights)
    clean, clean_sample = point(cube, key(system, regime, "clean", 0.0), weights)
    sign = 1 if cube.metric.higher_is_better else -1

    def ratio(origin: float, reason: str) -> Estimate:
        gaps = sign * (np.append(clean_sample, clean) - origin)
        left = sign * (np.append(noisy_sample, noisy) - origin)
        share = np.divide(left, gaps, out=np.full(len(gaps), np.nan), where=gaps > 0)
        return _estimate(float(share[-1]), share[:-1], weights, level, reason)

    title = cube.metric.title
    if sign > 0:
        plain = ratio(0.0, f"clean {title} is not above 0")
    else:
        plain = Estimate(
            np.nan, Interval(np.nan, np.nan, level, f"a share of {title} kept has no meaning: lower is better")
        )
    bottom = f"the floor of {title} is undefined" if np.isnan(floor) else f"clean {title} is not better than the floor"
    return plain, ratio(floor, bottom)


def of_metric(metric: Metric, value: float, sample: FloatArray, weights: Weights, level: float = 0.95) -> Estimate:
    """Value and interval of the metric itself, whose interval ends where the metric does."""
    found = _estimate(value, sample, weights, level)
    low, high = np.clip([found.interval.low, found.interval.high], metric.low, metric.high)
    return Estimate(value, replace(found.interval, low=float(low), high=float(high)))


def _estimate(value: float, sample: FloatArray, weights: Weights, level: float, reason: str = "undefined") -> Estimate:
    if np.isnan(value):
        return Estimate(value, Interval(np.nan, np.nan, level, reason))
    return Estimate(value, interval(value, sample, weights, level))
