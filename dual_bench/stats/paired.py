"""Two systems side by side, in the forms that other papers report: beside ``contrasts``, not instead of it.

Left and right are the same utterances, or the same seeds and draws. Undefined is NaN with a reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, chi2, norm, t

from dual_bench.stats.intervals import Interval, no_interval, percentile, undefined
from dual_bench.stats.resampling import Value, Weights, estimate, replicates
from dual_bench.types import FloatArray

EXACT_BELOW = 25
"""Discordant pairs from which McNemar's test takes the chi-squared distribution for the binomial one."""

MEANINGFUL = 0.75
"""The probability of improvement that Bouthillier et al. (2021) ask of an improvement that matters."""

Conclusion = Literal["not significant", "significant, not meaningful", "significant and meaningful", "undefined"]


@dataclass(frozen=True)
class McNemar:
    """How many utterances only one side has right, and the two-sided p of the sides being equally likely to."""

    only_left: int
    only_right: int
    p: float
    method: Literal["exact", "chi2"]
    reason: str = ""


def mcnemar(left_right: NDArray[np.bool_], right_right: NDArray[np.bool_]) -> McNemar:
    """McNemar's test (1947, Psychometrika 12:153) of answers right (True) or wrong, (n,) of each side.

    With b utterances that only left has right and c that only right has, b is binomial (b + c, 1/2) if the sides are
    equally good. Below ``EXACT_BELOW`` discordant pairs p is that binomial's; else chi-squared with 1 degree of
    freedom of (|b - c| - 1)^2 / (b + c), Edwards' continuity correction (1948, Psychometrika 13:185). Both keep their
    level: at .05 the corrected one rejects a true null in at most .04996 for any b + c from 25 to 2000, while
    uncorrected it exceeds .05. Without a discordant pair p is 1, as the binomial says of 0 trials.

    The utterances must be *independent*: one seed, one draw, and no two of one dialogue or speaker; otherwise p is too
    small. Clustered data are for the t test of ``contrasts``, which also knows that other seeds would differ.
    """
    left, right = np.asarray(left_right, bool), np.asarray(right_right, bool)
    b, c = int(np.sum(left & ~right)), int(np.sum(right & ~left))
    if not len(left):
        return McNemar(b, c, np.nan, "exact", "there are no utterances")
    if b + c == 0:
        return McNemar(b, c, 1.0, "exact")
    if b + c < EXACT_BELOW:
        return McNemar(b, c, float(binomtest(b, b + c).pvalue), "exact")
    # b = c is no difference at all, and not one of -1
    return McNemar(b, c, float(chi2.sf(max(abs(b - c) - 1, 0) ** 2 / (b + c), 1)), "chi2")


@dataclass(frozen=True)
class Improvement:
    """``share`` of the pairs of runs in which left is better, with its interval and what that says."""

    share: float
    interval: Interval
    conclusion: Conclusion
    reason: str = ""


def probability_of_improvement(
    left: FloatArray, right: FloatArray, value: Value, weights: Weights, higher_is_better: bool, level: float = 0.95
) -> Improvement:
    """P(left beats right) when both are run with the same seed and draw; ``left`` and ``right`` are sums (S, D, C, m),
    where D may be 1 on either side.

    sum_sd [left_sd beats right_sd] / (S D), by ``value`` over all clusters. The interval is the percentile one of the
    crossed bootstrap: a resample evaluates the metric on its clusters anew. Conclusions after Bouthillier et al. (2021,
    "Accounting for Variance in Machine Learning Benchmarks", MLSys 3): "not significant" where the interval reaches
    down to 1/2, else "significant, not meaningful" where it ends at or below ``MEANINGFUL``, else "significant and
    meaningful". They are about left being better; for right, swap the sides.

    Departures: a tie counts half, so that swapping the sides mirrors everything; and theirs resamples pairs that
    each have their own data split, which these, sharing one test set, do not. They ask for 29 pairs. With few seeds
    the interval is too narrow, and has no width where all agree: of two equal systems, left was called significant in
    8 % of 600 simulations of 3 seeds and in 3, 1 and 2 % of 5, 10 and 29 seeds, where 2.5 % were due.
    """
    width = left.shape[-1]
    sign = 1 if higher_is_better else -1

    def beats(sums: FloatArray) -> FloatArray:
        one, other = value(sums[..., :width]), value(sums[..., width:])
        # the same sums in other columns of a matrix product may differ in their last digits
        tied = np.isclose(one, other, rtol=1e-12, atol=1e-12)
        return np.where(tied, 0.5, 0.5 + 0.5 * np.sign(sign * (one - other)))

    both = np.concatenate(np.broadcast_arrays(left, right), axis=-1)
    share = estimate(both, beats)
    reason = undefined(left.shape[0], left.shape[2])
    if not reason and np.isnan(share):
        reason = "the metric is undefined in some run"
    halves = 2 * both.shape[0] * both.shape[1]
    # of whole points and halves; else rounding decides whether an interval at 1/2 is above it
    sample = np.round(replicates(both, beats, weights) * halves) / halves
    found = no_interval(level, reason) if reason else percentile(sample, level)
    return Improvement(share, found, _conclusion(found), found.reason)


def _conclusion(found: Interval) -> Conclusion:
    if found.reason:
        return "undefined"
    if found.low <= 0.5:
        return "not significant"
    return "significant, not meaningful" if found.high <= MEANINGFUL else "significant and meaningful"


@dataclass(frozen=True)
class Order:
    """``violation``: 0 where left dominates right, 1 where right dominates left; ``bound``: its upper bound."""

    violation: float
    bound: float
    level: float
    reason: str = ""


def almost_stochastic_order(
    left: FloatArray, right: FloatArray, rng: np.random.Generator, resamples: int = 1000, level: float = 0.95
) -> Order:
    """How far ``left`` (n,) is from being stochastically larger than ``right`` (m,): *small means left dominates*.

    For scores where more is better; give errors with their signs changed. With quantile functions F and G of left and
    right, the violation ratio is the integral of (F - G)^2 over where F < G, divided by that over all of (0, 1); 1/2
    is no order (del Barrio, Cuesta-Albertos & Matrán 2018, in: The Mathematics of the Uncertain, Springer, p. 33).
    ``bound`` is the eps_min of Dror, Shlomov & Reichart (2019, "Deep Dominance", ACL, p. 2773): ratio + z_level sd,
    sd of the ratio over ``resamples`` in which each side is redrawn from itself. Left is said to be better where the
    bound is below 1/2, or below 0.2, which Ulmer, Hardmeier & Frellsen (2022, arXiv:2204.06815) found to err less. So
    it does: of two samples of the same normal distribution, left was called better by 1/2 in 20 % of 1000 simulations,
    with 5, 10 and 30 scores alike, and by 0.2 in 5, 4 and 3 %. Never read 1/2 as a test at .05.

    Departures: the integrals are exact sums over the steps of both functions, theirs a grid; sides of different size
    are redrawn at their own sizes; the bound ends at 1. Resamples without any difference are passed over. The sides
    are not paired. Where the two samples are the same distribution the ratio is undefined.
    """
    one, other = np.sort(left), np.sort(right)
    least = min(len(one), len(other))
    if least < 2:
        return Order(np.nan, np.nan, level, f"needs at least 2 scores of each side, found {least}")
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        return Order(np.nan, np.nan, level, "some scores are not finite")
    ratio = float(_violation(one, other))
    if np.isnan(ratio):
        return Order(np.nan, np.nan, level, "the two samples have the same distribution")
    drawn = [side[rng.integers(len(side), size=(resamples, len(side)))] for side in (one, other)]
    sample = _violation(*drawn)
    sample = sample[~np.isnan(sample)]
    if len(sample) < 2:
        return Order(ratio, np.nan, level, f"undefined in {resamples - len(sample)} of {resamples} resamples")
    return Order(ratio, min(ratio + float(norm.ppf(level) * sample.std()), 1.0), level)


def _violation(left: FloatArray, right: FloatArray) -> FloatArray:
    """The violation ratio of ``left`` (..., n) and ``right`` (..., m), (...)."""
    n, m = left.shape[-1], right.shape[-1]
    # in units of 1 / (n m), the steps of both quantile functions lie at whole numbers
    edges = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)
    gaps = np.sort(left)[..., edges[:-1] // m] - np.sort(right)[..., edges[:-1] // n]
    squares = gaps**2 * np.diff(edges)
    whole, lost = squares.sum(axis=-1), np.where(gaps < 0, squares, 0).sum(axis=-1)
    ratio: FloatArray = np.divide(lost, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return ratio


@dataclass(frozen=True)
class CorrelationDifference:
    """r(truth, left), r(truth, right), their difference left - right with interval, Williams' t and two-sided p."""

    left: float
    right: float
    difference: float
    interval: Interval
    statistic: float
    p: float
    reason: str = ""


def dependent_correlations(
    truth: FloatArray, left: FloatArray, right: FloatArray, level: float = 0.95
) -> CorrelationDifference:
    """Whether ``left`` (n,) or ``right`` (n,) correlates more with the ``truth`` (n,) that they share (Pearson).

    Williams' t (1959, Journal of the Royal Statistical Society B 21:396; the T2 that Steiger 1980, Psychological
    Bulletin 87:245 recommends), n - 3 degrees of freedom: with a = r(truth, left), b = r(truth, right),
    c = r(left, right) and D = 1 - a^2 - b^2 - c^2 + 2abc,

        t = (a - b) sqrt((n - 1)(1 + c) / (2 D (n - 1) / (n - 3) + (a + b)^2 / 4 (1 - c)^3)).

    Interval: Zou (2007, Psychological Methods 12:399), Fisher's intervals of a and b joined by the correlation of
    their errors. It is another method than the test, and rarely disagrees with it at the edge. Both are for
    independent utterances and normal data; see ``contrasts`` for clusters and seeds. Undefined for n <= 3, a constant,
    and three variables of which two make the third (D = 0), such as left = right.
    """
    rows, n = np.stack([truth, left, right]).astype(float), len(truth)
    constant = [name for name, row in zip(("truth", "left", "right"), rows, strict=True) if n and np.ptp(row) == 0]
    reason = ""
    if n <= 3:
        reason = f"needs at least 4 utterances, found {n}"
    elif not np.isfinite(rows).all():
        reason = "some values are not finite"
    elif constant:
        reason = f"{' and '.join(constant)} constant"
    if reason:
        return CorrelationDifference(np.nan, np.nan, np.nan, no_interval(level, reason), np.nan, np.nan, reason)
    r = np.corrcoef(rows)
    a, b, c = float(r[0, 1]), float(r[0, 2]), float(r[1, 2])
    volume = 1 - a**2 - b**2 - c**2 + 2 * a * b * c
    if volume < 1e-12:
        reason = "two of truth, left and right determine the third"
        return CorrelationDifference(a, b, a - b, no_interval(level, reason), np.nan, np.nan, reason)
    spread = 2 * volume * (n - 1) / (n - 3) + (a + b) ** 2 / 4 * (1 - c) ** 3
    statistic = (a - b) * float(np.sqrt((n - 1) * (1 + c) / spread))
    together = ((c - a * b / 2) * (1 - a**2 - b**2 - c**2) + c**3) / ((1 - a**2) * (1 - b**2))
    (a_low, a_high), (b_low, b_high) = _fisher(a, n, level), _fisher(b, n, level)
    ends = Interval(
        a - b - _joined(a - a_low, b_high - b, together), a - b + _joined(a_high - a, b - b_low, together), level
    )
    return CorrelationDifference(a, b, a - b, ends, statistic, float(2 * t.sf(abs(statistic), n - 3)))


def _fisher(r: float, n: int, level: float) -> tuple[float, float]:
    """Fisher's interval of one correlation."""
    half = norm.ppf((1 + level) / 2) / np.sqrt(n - 3)
    return float(np.tanh(np.arctanh(r) - half)), float(np.tanh(np.arctanh(r) + half))


def _joined(one: float, other: float, correlation: float) -> float:
    """Half-width of a difference, from those of its two sides."""
    # rounding may leave less than nothing
    return float(np.sqrt(max(one**2 + other**2 - 2 * correlation * one * other, 0.0)))
