"""Many systems over many data sets by their ranks, as in Demšar (2006, Journal of Machine Learning Research 7:1).

These ask whether an order of systems would come back on *other data sets*; ``contrasts`` asks it of other seeds and
utterances of one. Undefined is NaN with a reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

from dual_bench.stats.contrasts import holm
from dual_bench.types import FloatArray


@dataclass(frozen=True)
class Wilcoxon:
    """``statistic``: the smaller of the rank sums of positive and negative differences; two-sided p."""

    statistic: float
    p: float
    reason: str = ""


def wilcoxon(differences: FloatArray) -> Wilcoxon:
    """Wilcoxon's signed-rank test (1945, Biometrics Bulletin 1:80) that ``differences`` (n,) are symmetric about 0.

    One difference, left - right, for each data set (and seed). Seeds of one data set share its texts: where data sets
    make the difference, give the mean over seeds, or p is too small.

    Zeros: Pratt's way (1959, Journal of the American Statistical Association 54:655). They are ranked and then left
    out, so that p is that of the signs which could have been otherwise; Demšar splits them between the sides, which
    counts them in the variance as well and hides differences. Up to 50 differences without ties, and 13 with, p is
    exact; else normal, corrected for ties and continuity. If all are 0, statistic 0 and p 1: no signs could differ.
    """
    values = np.asarray(differences, float)
    if not len(values):
        return Wilcoxon(np.nan, np.nan, "there are no differences")
    if np.isnan(values).any():
        return Wilcoxon(np.nan, np.nan, f"{np.isnan(values).sum()} of {len(values)} differences are undefined")
    if not values.any():
        return Wilcoxon(0.0, 1.0)
    found = stats.wilcoxon(values, zero_method="pratt", correction=True)
    return Wilcoxon(float(found.statistic), float(found.pvalue))


@dataclass(frozen=True)
class Friedman:
    """Mean rank of each system (k,), 1 the best; Friedman's chi-squared and Iman and Davenport's F, each with p."""

    mean_ranks: FloatArray
    chi2: float
    p_chi2: float
    f: float
    p: float
    blocks: int
    reason: str = ""


def friedman(scores: FloatArray, higher_is_better: bool) -> Friedman:
    """Whether k systems differ over N blocks, data sets or data sets x seeds; ``scores`` (N, k).

    With ranks r_ij in block i, equal scores sharing the mean of theirs, and d_ij = r_ij - (k + 1) / 2:

        chi2 = N (k - 1) sum_j (sum_i d_ij)^2 / (N sum_ij d_ij^2), k - 1 degrees of freedom
        F = (N - 1) chi2 / (N (k - 1) - chi2), k - 1 and (k - 1)(N - 1) degrees of freedom.

    Without ties that is Friedman's (1937, Journal of the American Statistical Association 32:675); with ties, Conover's
    (1999, Practical Nonparametric Statistics, ch. 5.8), which Demšar leaves out. ``p`` is of F (Iman & Davenport 1980,
    Communications in Statistics A 9:571), which he prefers: chi-squared rejects too seldom. With few blocks F rejects
    too often: 4 systems alike, at .05, in 7.7 % of 20 000 simulations of 3 blocks, 6.6 % of 5 and 5.3 % of 10, against
    1.8, 3.4 and 4.6 % for chi-squared. Blocks that agree wholly have F infinite and p 0. Undefined for fewer than 2
    blocks or systems, an undefined score, and blocks that are all wholly tied.
    """
    values = np.asarray(scores, float)
    n, k = values.shape
    reason = ""
    if n < 2 or k < 2:
        reason = f"needs at least 2 blocks and 2 systems, found {n} and {k}"
    elif np.isnan(values).any():
        reason = f"{np.isnan(values).sum()} of {values.size} scores are undefined"
    if reason:
        return Friedman(np.full(k, np.nan), np.nan, np.nan, np.nan, np.nan, n, reason)
    ranks = stats.rankdata(-values if higher_is_better else values, axis=1)
    away = ranks - (k + 1) / 2
    if not away.any():
        return Friedman(ranks.mean(axis=0), np.nan, np.nan, np.nan, np.nan, n, "all systems are tied in every block")
    most = n * (k - 1)
    agreement = float((away.sum(axis=0) ** 2).sum() / (n * (away**2).sum()))
    chi2 = most * agreement
    f = (n - 1) * agreement / (1 - agreement) if agreement < 1 else np.inf
    return Friedman(
        ranks.mean(axis=0),
        chi2,
        float(stats.chi2.sf(chi2, k - 1)),
        f,
        float(stats.f.sf(f, k - 1, (k - 1) * (n - 1))),
        n,
    )


@dataclass(frozen=True)
class Nemenyi:
    """The smallest difference of mean ranks that is significant, and p of every pair (k, k), 1 on the diagonal."""

    critical_difference: float
    p: FloatArray
    reason: str = ""


def nemenyi(found: Friedman, alpha: float = 0.05) -> Nemenyi:
    """Which of k systems differ, after Friedman's test (Nemenyi 1963; Demšar 2006, section 3.2.2).

    The critical difference is q sqrt(k (k + 1) / (6 N)) with q the upper ``alpha`` point of the studentized range of k
    normal variables over sqrt(2); p of a pair is where its difference lies on that range. It holds the family's error
    at ``alpha`` by itself: do not correct p again. A pair's result depends on which other systems are in the ranking
    (Benavoli, Corani & Mangili 2016, Journal of Machine Learning Research 17(5):1): ``pairwise_wilcoxon`` does not.
    """
    k = len(found.mean_ranks)
    if found.reason:
        return Nemenyi(np.nan, np.full((k, k), np.nan), found.reason)
    error = np.sqrt(k * (k + 1) / (12 * found.blocks))  # of one mean rank, if the order of a block is chance
    range_ = stats.studentized_range(k, np.inf)
    gaps = np.abs(found.mean_ranks[:, None] - found.mean_ranks)
    return Nemenyi(float(range_.isf(alpha) * error), np.asarray(range_.sf(gaps / error)))


@dataclass(frozen=True)
class Pairwise:
    """p of every pair (k, k), as it is and adjusted for their number; symmetric, 1 on the diagonal."""

    p: FloatArray
    p_adjusted: FloatArray
    reason: str = ""


def pairwise_wilcoxon(scores: FloatArray) -> Pairwise:
    """``wilcoxon`` of each pair of systems over the blocks of ``scores`` (N, k), the k (k - 1) / 2 p adjusted by Holm.

    A pair with an undefined score is NaN and counts for nothing; ``reason`` then is that of the first such pair. No
    direction: which side is better is in the scores.
    """
    values = np.asarray(scores, float)
    k = values.shape[1]
    pairs = list(combinations(range(k), 2))
    found = [wilcoxon(values[:, i] - values[:, j]) for i, j in pairs]
    plain = [one.p for one in found]
    reason = next((one.reason for one in found if one.reason), "")
    return Pairwise(_square(plain, k), _square(holm(plain).tolist(), k), reason)


def _square(values: Sequence[float], k: int) -> FloatArray:
    """The pairs of k, in the order of ``combinations``, as a symmetric matrix with 1 on its diagonal."""
    table = np.eye(k)
    rows, columns = np.triu_indices(k, 1)
    table[rows, columns] = table[columns, rows] = values
    return table


def cliques(mean_ranks: FloatArray, critical_difference: float) -> list[tuple[int, ...]]:
    """The maximal groups of systems that are not shown to differ: the bars of a critical-difference diagram.

    Each is two or more places in ``mean_ranks`` (k,), best rank first, whose extremes differ by less than
    ``critical_difference``; no group lies within another. Systems in no group differ from all others. Where the
    difference is NaN there is no group, and nothing to draw.

    >>> cliques(np.array([3.0, 1.0, 1.5, 2.4]), 1.0)
    [(1, 2), (2, 3), (3, 0)]
    """
    order = np.argsort(mean_ranks, kind="stable")
    ranks = np.asarray(mean_ranks)[order]
    found: list[tuple[int, ...]] = []
    reached = 0
    for start in range(len(ranks)):
        end = start + int(np.sum(ranks[start:] - ranks[start] < critical_difference))
        if end - start > 1 and end > reached:
            found.append(tuple(order[start:end].tolist()))
            reached = end
    return found
