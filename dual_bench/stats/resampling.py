"""A crossed bootstrap over training seeds, noise draws and clusters of test utterances.

Every model is trained with every seed and reads every draw of every utterance, so the three are crossed, not nested:
each is resampled on its own and the weights multiply (the pigeonhole bootstrap, Owen 2007, Annals of Applied
Statistics 1:386; for clusters Davison & Hinkley 1997, ch. 3.8).

An interval made of these replicates covers what would change with *other training seeds, other noise draws and other
clusters of test utterances*. It does not cover the choice of the training sample, which was never redrawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t

from dual_bench.types import FloatArray, IntArray

Value = Callable[[FloatArray], FloatArray]
"""``Metric.value``: sums (..., m) -> (...)."""

_CHUNK = 4_000_000
"""Numbers in the largest array that ``replicates`` makes at a time (32 MB)."""


@dataclass(frozen=True)
class Weights:
    """How often each seed (R, S), draw (R, D) and cluster (R, C) occurs in each of R resamples.

    Use one ``Weights`` for all systems and conditions of a cube: that is what pairs them.
    """

    seeds: IntArray
    draws: IntArray
    clusters: IntArray


def resample(rng: np.random.Generator, seeds: int, draws: int, clusters: int, resamples: int) -> Weights:
    """Draw with replacement, independently at each of the three levels; only the counts are kept."""

    def counts(n: int) -> IntArray:
        return rng.multinomial(n, np.full(n, 1 / n), size=resamples)

    return Weights(counts(seeds), counts(draws), counts(clusters))


def estimate(sums: FloatArray, value: Value) -> float:
    """Mean over seeds and draws of the metric over all clusters; ``sums`` is (S, D, C, m). NaN if any is undefined."""
    return float(value(sums.sum(axis=2)).mean())


def replicates(sums: FloatArray, value: Value, weights: Weights) -> FloatArray:
    """The estimate in each resample, (R,): sum_sd w_s w_d value(sum_c w_c sums_sdc) / (S D).

    A condition with a single draw is the same text in every resample of draws, so their weights are passed over.
    A resample is NaN where a metric it uses is undefined (no utterance of non-zero truth, say).
    """
    s, d, c, m = sums.shape
    draws = weights.draws if d > 1 else np.ones((len(weights.seeds), 1), np.int64)
    flat = np.moveaxis(sums, 2, 0).reshape(c, s * d * m)
    out = np.empty(len(weights.seeds))
    step = max(1, _CHUNK // (s * d * m))
    for start in range(0, len(out), step):
        part = slice(start, start + step)
        values = value((weights.clusters[part].astype(float) @ flat).reshape(-1, s, d, m))
        share = weights.seeds[part, :, None] * draws[part, None, :] / (s * d)
        # what a resample leaves out may be undefined without harm
        out[part] = np.where(share > 0, share * values, 0).sum(axis=(1, 2))
    return out


@dataclass(frozen=True)
class Interval:
    """Two ends at a confidence level; NaN with a reason where undefined."""

    low: float
    high: float
    level: float
    reason: str = ""


@dataclass(frozen=True)
class Spread:
    """How uncertain an estimate is: its standard error, and the degrees of freedom of that error.

    ``parts`` are the variances that seeds, draws and clusters add to the estimate, each by itself, and the rest, which
    they add together; ``counts`` how many seeds, draws and clusters there are. Only ``split`` finds them.
    """

    error: float
    freedom: float
    parts: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()

    def with_seeds(self, count: int) -> Spread:
        """What it would be with another number of seeds that differ as these do.

        The part of the seeds shrinks with their number, and so does the rest, which is taken for what seeds and
        clusters do together; the parts of draws and clusters stay.
        """
        if not self.parts or self.error == 0:
            return self
        (seeds, draws, clusters, rest), (before, *others) = self.parts, self.counts
        fewer = before / count
        several = (count - 1) * (others[-1] - 1) + 1
        found = _satterthwaite((seeds * fewer, draws, clusters, rest * fewer), (count, *others, several))
        return Spread(*found, (seeds * fewer, draws, clusters, rest * fewer), (count, *others))


def _satterthwaite(parts: Sequence[float], counts: Sequence[int]) -> tuple[float, float]:
    """Standard error and degrees of freedom of a sum of variances, each of ``counts`` units."""
    total = sum(parts)
    if total == 0:
        return 0.0, np.inf
    shares = sum((part / total) ** 2 / max(n - 1, 1) for part, n in zip(parts, counts, strict=True))
    return total**0.5, 1 / shares


def split(replicates: FloatArray, weights: Weights) -> Spread:
    """``spread`` with its parts, each what a linear function of the weights of seeds, draws or clusters explains."""
    width = spread(replicates, weights)
    known = ~np.isnan(replicates)
    if not width.error > 0 or known.sum() <= weights.clusters.shape[1] + 1:
        return width
    centred = replicates[known] - replicates[known].mean()
    kinds = [weights.seeds[known], weights.draws[known], weights.clusters[known]]
    found = [_explained(centred, w) if w.shape[1] > 1 else 0.0 for w in kinds]
    # of R replicates of noise, n weights explain the share n / R; seeds and draws are few enough to pass that over
    total, free = float(np.mean(centred**2)), kinds[2].shape[1] - 1
    found[2] = max(total - (total - found[2]) * (len(centred) - 1) / (len(centred) - 1 - free), 0.0)
    found = [part * w.shape[1] / max(w.shape[1] - 1, 1) for part, w in zip(found, kinds, strict=True)]
    clusters = min(found[2], max(width.error**2 - found[0] - found[1], 0.0))
    rest = max(width.error**2 - found[0] - found[1] - clusters, 0.0)
    # the means of clusters over seeds carry as much of what seeds and clusters do together as is left beside them
    shared = min(clusters, rest)
    clusters, rest = clusters - shared, rest + shared
    counts = tuple(w.shape[1] for w in kinds)
    return Spread(width.error, width.freedom, (found[0], found[1], clusters, rest), counts)


def spread(replicates: FloatArray, weights: Weights) -> Spread:
    """Standard error from R replicates, corrected for what a bootstrap of few units leaves out.

    Resampling n units shows only (n - 1)/n of the variance that they stand for, and n = 5 seeds know their own
    variance badly. So the variance of the replicates is split by least squares on the weights into the parts V_f of
    seeds and draws, the rest being the clusters'; then error^2 = sum_f V_f n_f / (n_f - 1), with
    error^4 / sum_f (V_f n_f / (n_f - 1))^2 / (n_f - 1) degrees of freedom (Satterthwaite 1946, Biometrics
    Bulletin 2:110). What two levels do only together is counted three times, and seven times what takes all three
    (Owen 2007): the error is too large rather than too small. Undefined replicates are passed over.
    """
    known = ~np.isnan(replicates)
    counts = [weights.seeds.shape[1], weights.draws.shape[1], weights.clusters.shape[1]]
    if known.sum() < 2 or undefined(counts[0], counts[2]):
        return Spread(np.nan, np.nan)
    centred = replicates[known] - replicates[known].mean()
    parts = [_explained(centred, w[known]) if w.shape[1] > 1 else 0.0 for w in (weights.seeds, weights.draws)]
    parts.append(max(float(np.mean(centred**2)) - sum(parts), 0.0))
    unbiased = [part * n / max(n - 1, 1) for part, n in zip(parts, counts, strict=True)]
    return Spread(*_satterthwaite(unbiased, counts))


def _explained(centred: FloatArray, counts: IntArray) -> float:
    """Variance of ``centred`` (R,) that a linear function of ``counts`` (R, n) explains."""
    # a unit's mean count is 1; the counts of a resample sum to n, so the last is not free
    design = (counts - 1.0)[:, :-1]
    effects = np.linalg.lstsq(design, centred)[0]
    return float(np.mean((design @ effects) ** 2))


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


def percentile(replicates: FloatArray, level: float = 0.95) -> Interval:
    """The percentile interval of R replicates (Efron & Tibshirani 1993, ch. 13).

    With few seeds it is too narrow: see ``interval``. Undefined replicates count as beyond *both* ends; where they
    reach into the interval there is none.
    """
    lost = np.isnan(replicates)
    tail = (1 - level) / 2
    # order statistics outward, not interpolated: never narrower, and infinities pass through without arithmetic
    low = float(np.quantile(np.where(lost, -np.inf, replicates), tail, method="lower"))
    high = float(np.quantile(np.where(lost, np.inf, replicates), 1 - tail, method="higher"))
    if not np.isfinite([low, high]).all():
        return Interval(np.nan, np.nan, level, f"undefined in {lost.sum()} of {len(lost)} resamples")
    return Interval(low, high, level)


def interval(estimate: float, replicates: FloatArray, weights: Weights, level: float = 0.95) -> Interval:
    """The percentile interval, stretched about the estimate until it is as wide as ``spread`` says.

    Each end moves away by the factor (t / z) error / sd, with the quantile t at the degrees of freedom of ``spread``,
    z of the normal, and sd of the replicates (after Hesterberg 2015, The American Statistician 69:371). In
    simulations of 40 clusters in which seeds made the difference, the plain percentile interval at 95 % covered 84 %
    with 5 seeds and 73 % with 3; stretched, it covered 95 % and 93 %. It needs 2 seeds and 2 clusters.
    """
    reason = undefined(weights.seeds.shape[1], weights.clusters.shape[1])
    if reason:
        return Interval(np.nan, np.nan, level, reason)
    found, width = percentile(replicates, level), spread(replicates, weights)
    if found.reason or width.error == 0:
        return found
    tail = (1 + level) / 2
    stretch = t.ppf(tail, width.freedom) / norm.ppf(tail) * width.error / np.nanstd(replicates)
    return Interval(
        float(estimate + stretch * (found.low - estimate)), float(estimate + stretch * (found.high - estimate)), level
    )
