"""Intervals from replicates and influence values: what reports print, and the textbook ones beside it."""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm, t

from dual_bench.stats.resampling import Point, Value, Weights, combined, influence
from dual_bench.stats.variance import Spread, contributions, errors, spread, spread_of
from dual_bench.types import FloatArray


@dataclass(frozen=True)
class Interval:
    """Two ends at a confidence level; NaN with a reason where undefined."""

    low: float
    high: float
    level: float
    reason: str = ""


CONSTANT = "the same in every seed, draw and cluster, which leaves nothing to judge its uncertainty by"
"""Why a number that does not vary has no interval; but where both sides say the same, their difference is surely 0."""


def no_interval(level: float, reason: str) -> Interval:
    return Interval(np.nan, np.nan, level, reason)


def undefined(seeds: int, clusters: int) -> str:
    """Why there can be no interval, or nothing.

    >>> undefined(1, 40), undefined(5, 40)
    ('needs at least 2 training seeds, found 1', '')
    """
    for count, what in ((seeds, "training seeds"), (clusters, "clusters")):
        if count < 2:
            return f"needs at least 2 {what}, found {count}"
    return ""


def caution(seeds: int, clusters: int) -> str:
    """What a reader of the intervals should know about so few seeds or clusters, or nothing.

    >>> caution(5, 40)
    ''
    """
    few = [f"{n} {what}" for n, least, what in ((seeds, 5, "training seeds"), (clusters, 10, "clusters")) if n < least]
    return f"only {' and '.join(few)}: intervals and p-values rest on rough estimates of variance" if few else ""


def _problem(point: Point) -> str:
    """Why a point has no interval, or nothing."""
    seeds, _, clusters = point.influence.shape
    if reason := undefined(seeds, clusters):
        return reason
    if np.isfinite(point.influence).all():
        return ""
    lost = int(np.isnan(point.replicates).sum())
    often = f"undefined in {lost} of {len(point.replicates)} resamples, and " if lost else "undefined "
    return f"{often}where one cluster is left out"


def interval(point: Point, level: float = 0.95) -> Interval:
    """The interval of a report: as wide as a t interval of the standard error, as lopsided as the replicates.

    With q the quantiles of the replicates about their mean, sd their standard deviation, and t and z the quantiles of
    Student's and the normal distribution, each end is estimate + q (t / z) error / sd (after Hesterberg 2015, The
    American Statistician 69:371). Error and degrees of freedom are those of ``variance.spread``. Quantiles are taken
    about the *mean* of the replicates, so that a statistic whose replicates are biased, such as the expected
    calibration error, is not counted twice as biased. Its coverage is in ``reports/reference/coverage.md``. It needs 2
    seeds and 2 clusters.
    """
    if reason := _problem(point):
        return no_interval(level, reason)
    found, width = percentile(point.replicates, level), point.spread
    if found.reason:
        return found
    deviation = float(np.nanstd(point.replicates))
    if width.error == 0 or deviation == 0:
        # means over one draw and over several differ in their last digit
        same = abs(point.estimate) < 1e-12
        return Interval(0.0, 0.0, level) if same else no_interval(level, CONSTANT)
    tail = (1 + level) / 2
    stretch = t.ppf(tail, width.freedom) / norm.ppf(tail) * width.error / deviation
    centre = float(np.nanmean(point.replicates))
    low, high = (float(point.estimate + stretch * (end - centre)) for end in (found.low, found.high))
    return Interval(low, high, level)


def ratio_interval(top: Point, bottom: Point, level: float = 0.95) -> Interval:
    """Fieller's interval of ``top / bottom`` (1954, Journal of the Royal Statistical Society B 16:175).

    All ratios r for which the t test of top - r bottom does not reject 0. It is lopsided as a ratio is, and there is
    none where the denominator itself is not shown to be above 0.
    """
    if reason := _problem(top) or _problem(bottom):
        return no_interval(level, reason)
    if t_interval(bottom.estimate, bottom.spread, level).low <= 0:
        return no_interval(level, "the denominator is not shown to be above 0")
    ratio = top.estimate / bottom.estimate
    one, other = np.broadcast_arrays(top.influence, bottom.influence)
    squares = [contributions(y)[0] for y in (one, other, one + other)]
    product = squares[2] - squares[0] - squares[1]  # twice the cross product: the parts are quadratic forms
    counts = combined([(1.0, top), (1.0, bottom)]).spread.counts

    def beyond(r: float) -> float:
        width = spread_of(squares[0] - r * product + r**2 * squares[1], counts)
        half = t.ppf((1 + level) / 2, width.freedom) * width.error if width.error else 0.0
        return float(abs(top.estimate - r * bottom.estimate) - half)

    ends = []
    for sign in (-1, 1):
        step = 0.01 * (abs(ratio) + 1)
        while beyond(ratio + sign * step) < 0:
            step *= 2
            if step > 1e6 * (abs(ratio) + 1):
                return no_interval(level, "the denominator is known too roughly")
        ends.append(float(brentq(beyond, ratio, ratio + sign * step)) if beyond(ratio) < 0 else ratio)
    if np.isclose(ends[0], ends[1], rtol=1e-6, atol=1e-9):  # of equal sides only rounding is left
        return Interval(0.0, 0.0, level) if ratio == 0 else no_interval(level, CONSTANT)
    return Interval(ends[0], ends[1], level)


def t_interval(difference: float, width: Spread, level: float) -> Interval:
    """The interval of the t test of ``difference``."""
    half = float(t.ppf((1 + level) / 2, width.freedom) * width.error) if width.error else 0.0
    return Interval(difference - half, difference + half, level)


def interval_of_test(point: Point, level: float = 0.95) -> Interval:
    """The interval of the t test of a difference, so that it and p cannot contradict each other; there is none, for the
    same reason, where ``interval`` gives none."""
    found = interval(point, level)
    return found if found.reason else t_interval(point.estimate, point.spread, level)


def by_influence(sums: FloatArray, value: Value, level: float = 0.95) -> tuple[float, Interval]:
    """Estimate and t interval of a metric by sums (S, D, C, m), without resamples.

    For metrics of many statistics, and those whose resamples are biased.
    """
    y = influence(sums, value)
    seeds, _, clusters = y.shape
    found = float(y.mean())
    if reason := undefined(seeds, clusters) or ("" if np.isfinite(y).all() else "undefined"):
        return found, no_interval(level, reason)
    width = spread(y)
    if width.error == 0 and found != 0:
        return found, no_interval(level, CONSTANT)
    return found, t_interval(found, width, level)


def percentile(replicates: FloatArray, level: float = 0.95) -> Interval:
    """The percentile interval of R replicates (Efron & Tibshirani 1993, ch. 13).

    With few seeds it is too narrow: see ``interval``. Undefined replicates count as beyond *both* ends; where they
    reach into the interval there is none.
    """
    tail = (1 - level) / 2
    return _quantiles(replicates, tail, 1 - tail, level)


def _quantiles(replicates: FloatArray, low: float, high: float, level: float) -> Interval:
    lost = np.isnan(replicates)
    # order statistics outward, not interpolated: never narrower, and infinities pass through without arithmetic
    ends = (
        float(np.quantile(np.where(lost, -np.inf, replicates), low, method="lower")),
        float(np.quantile(np.where(lost, np.inf, replicates), high, method="higher")),
    )
    if not np.isfinite(ends).all():
        return no_interval(level, f"undefined in {lost.sum()} of {len(lost)} resamples")
    return Interval(*ends, level)


def bca(point: Point, level: float = 0.95) -> Interval:
    """The bias-corrected and accelerated percentile interval (Efron 1987, Journal of the American Statistical
    Association 82:171; for several samples Davison & Hinkley 1997, ch. 5.3).

    The percentiles are moved to Phi(z0 + (z0 + z) / (1 - a (z0 + z))). z0 is the normal quantile of the share of
    replicates below the estimate, those that equal it by half; a = sum_k sum_i u_ki^3 / n_k^3 / 6 / (sum_k sum_i
    u_ki^2 / n_k^2)^1.5 with u_ki the influence of unit i of level k, here the n_k seeds, draws and clusters.
    Like the percentile interval it is too narrow with few seeds.
    """
    if reason := _problem(point):
        return no_interval(level, reason)
    replicates = point.replicates[~np.isnan(point.replicates)]
    below = np.mean(replicates < point.estimate) + np.mean(replicates == point.estimate) / 2
    if not 0 < below < 1:
        return no_interval(level, "all resamples lie on one side of the estimate")
    influence = point.influence - point.influence.mean()
    units = [influence.mean(axis=tuple({0, 1, 2} - {k})) for k in range(3) if influence.shape[k] > 1]
    cubes, squares = (fsum(float((u**p).sum()) / len(u) ** p for u in units) for p in (3, 2))
    acceleration = cubes / 6 / squares**1.5 if squares > 0 else 0.0
    bias = norm.ppf(below)
    tail = norm.ppf((1 + level) / 2)
    low, high = (float(norm.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))) for z in (-tail, tail))
    return _quantiles(point.replicates, low, high, level)


def studentised(point: Point, weights: Weights, level: float = 0.95) -> Interval:
    """The bootstrap-t interval (Efron & Tibshirani 1993, ch. 12.5): estimate - q* x error.

    q* are quantiles of (replicate - estimate) / error of the replicate, both of the linearised statistic: its error in
    a resample is that of the analysis of variance of the resampled influence values. With few seeds some resamples
    hold one seed alone, and the interval is very wide, or there is none.
    """
    if reason := _problem(point):
        return no_interval(level, reason)
    y = point.influence
    counts = weights.of(y.shape[1])
    means = np.einsum("rs,rd,rc,sdc->r", *counts, y, optimize=True) / y.size
    width, moved = errors(y, counts), means - y.mean()
    ratios = np.divide(moved, width, out=np.copysign(np.inf, moved), where=width > 0)
    tail = (1 - level) / 2
    found = _quantiles(ratios, tail, 1 - tail, level)
    if found.reason:
        return no_interval(level, "too many resamples hold one seed alone")
    return Interval(
        point.estimate - found.high * point.spread.error, point.estimate - found.low * point.spread.error, level
    )


def all_intervals(point: Point, weights: Weights, level: float = 0.95) -> dict[str, Interval]:
    """Every kind by name, for comparison."""
    return {
        "report": interval(point, level),
        "t": t_interval(point.estimate, point.spread, level),
        "percentile": percentile(point.replicates, level),
        "bca": bca(point, level),
        "studentised": studentised(point, weights, level),
    }
