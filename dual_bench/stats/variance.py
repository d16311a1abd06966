"""Where the variance of an estimate comes from: seeds, noise draws, clusters, and what they do together.

Every model is trained with every seed and reads every draw of every cluster, so the three are crossed random effects.
An estimate is a mean over an array y (S, D, C), exactly for accuracy and to first order for any smooth statistic
(``resampling.influence``), and the analysis of variance of that array (Searle, Casella & McCulloch 1992, Variance
Components, ch. 4) says how much each effect adds to the variance of the mean.

Why not the variance of bootstrap replicates? A crossed bootstrap counts what seeds and clusters do *together* three
times (Owen 2007, Annals of Applied Statistics 1:386), and in a paired comparison of two trained models that is as a
rule the largest part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from math import fsum, prod

import numpy as np
from scipy.stats import chi2

from dual_bench.types import FloatArray, IntArray

LEVELS = ("seed", "draw", "cluster")
Effect = tuple[int, ...]
"""Places in ``LEVELS``: one for a main effect, more for an interaction."""

EFFECTS: tuple[Effect, ...] = tuple(e for size in (1, 2, 3) for e in combinations(range(3), size))


def name_of(effect: Effect) -> str:
    """
    >>> name_of((0,)), name_of((0, 2))
    ('seed', 'seed × cluster')
    """
    return " × ".join(LEVELS[level] for level in effect)


@dataclass(frozen=True)
class Spread:
    """How uncertain a mean over seeds, draws and clusters is.

    ``parts`` are the variances that each effect adds to the mean: the variance component over the number of units of
    the effect. ``counts`` are how many seeds, draws and clusters there are.
    """

    parts: Mapping[Effect, float]
    counts: tuple[int, int, int]

    @cached_property
    def error(self) -> float:
        """The standard error."""
        return float(fsum(self.parts.values()) ** 0.5)

    @cached_property
    def freedom(self) -> float:
        """Degrees of freedom of the standard error (Satterthwaite 1946, Biometrics Bulletin 2:110), at least 1.

        The variance is an alternating sum of mean squares, each with the degrees of freedom of its effect. Only those
        of effects that add anything are counted: with all of them, intervals were too wide where seeds make no
        difference of their own; with the components in place of the mean squares, too narrow with three seeds or
        draws.
        """
        total = self.error**2
        if not total > 0:
            return np.nan if np.isnan(total) else np.inf
        squares = {e: fsum(part for j, part in self.parts.items() if set(e) <= set(j)) for e in self.parts}
        shares = [(squares[e] / total) ** 2 / self._free(e) for e, part in self.parts.items() if part > 0]
        return max(1 / fsum(shares), 1.0)

    def _free(self, effect: Effect) -> int:
        return max(prod(self.counts[level] - 1 for level in effect), 1)

    def with_counts(self, seeds: int | None = None, draws: int | None = None, clusters: int | None = None) -> Spread:
        """What it would be with other numbers of seeds, draws or clusters that differ as these do."""
        seed, draw, cluster = self.counts
        then = (seeds or seed, draws or draw, clusters or cluster)
        shrunk = {
            e: part * prod(self.counts[level] / then[level] for level in e) if part else part
            for e, part in self.parts.items()
        }
        return Spread(shrunk, then)


UNKNOWN = Spread({(0,): np.nan}, (1, 1, 1))
"""The spread of what is undefined."""


def spread(y: FloatArray) -> Spread:
    """The spread of the mean of ``y`` (S, D, C).

    Its variance is the unbiased sum of the parts, but never less than what the interactions alone add; components
    estimated below 0 are 0, and what they took from the sum is taken from the others in proportion. (With all of them
    cut off at 0 and the rest left as it is, intervals were too wide where no level makes a difference of its own.) A
    level with one unit adds nothing: its variance cannot be known.
    """
    seeds, draws, clusters = y.shape
    return spread_of(contributions(y)[0], (seeds, draws, clusters))


def spread_of(parts: FloatArray, counts: tuple[int, int, int]) -> Spread:
    """The same from ``contributions`` (7,)."""
    return Spread(dict(zip(EFFECTS, _settled(parts[None])[0].tolist(), strict=True)), counts)


def _settled(parts: FloatArray) -> FloatArray:
    """Parts (R, 7) without those below 0, whose sum is the variance of the mean."""
    cut = np.maximum(parts, 0.0)
    together = cut[:, [len(e) > 1 for e in EFFECTS]].sum(axis=1)
    whole = np.maximum(parts.sum(axis=1), together)
    share = np.divide(whole, cut.sum(axis=1), out=np.zeros(len(parts)), where=whole > 0)
    found: FloatArray = cut * share[:, None]
    return found


def errors(y: FloatArray, counts: Counts) -> FloatArray:
    """The standard error of the mean of ``y`` in each of R resamples, (R,)."""
    found: FloatArray = _settled(contributions(y, counts)).sum(axis=1) ** 0.5
    return found


Counts = Sequence[IntArray]
"""How often each seed (R, S), draw (R, D) and cluster (R, C) occurs in each of R resamples."""


def contributions(y: FloatArray, counts: Counts | None = None) -> FloatArray:
    """What each of ``EFFECTS`` adds to the variance of the mean of ``y`` (S, D, C), without bias: (R, 7).

    By default each unit occurs once. With q_e the mean square of effect e over the number of values S D C, the part of
    e is the alternating sum of q_j over all effects j that contain e: q_seed - q_seed-draw - q_seed-cluster + q_all for
    a seed.
    """
    squares = _mean_squares(y, counts)
    parts = np.zeros_like(squares)
    for i, e in enumerate(EFFECTS):
        for j, wider in enumerate(EFFECTS):
            if set(e) <= set(wider):
                parts[:, i] += (-1) ** (len(wider) - len(e)) * squares[:, j]
    return parts


def _mean_squares(y: FloatArray, counts: Counts | None = None) -> FloatArray:
    """Mean square of each of ``EFFECTS`` over the number of values, (R, 7); 0 for a level with one unit."""
    found = np.zeros((1 if counts is None else len(counts[0]), len(EFFECTS)))
    if np.ptp(y) <= 1e-12 * np.abs(y).max():  # rounding, or nothing
        return found
    centred = y - y.mean()
    if counts is None:
        moments = {e: _plain_moment(centred, e) for e in ((), *EFFECTS)}
    else:
        shares = [w / n for w, n in zip(counts, y.shape, strict=True)]
        moments = {e: _moment(centred, shares, e) for e in ((), *EFFECTS)}
    for i, e in enumerate(EFFECTS):
        free = prod(y.shape[level] - 1 for level in e)
        if free:
            inside = [j for j in moments if set(j) <= set(e)]
            found[:, i] = sum((-1) ** (len(e) - len(j)) * moments[j] for j in inside) / free
    return np.maximum(found, 0.0)  # but for rounding, they are


def _plain_moment(y: FloatArray, effect: Effect) -> FloatArray:
    """``_moment`` of ``y`` as it is, (1,)."""
    means = y.mean(axis=tuple(level for level in range(3) if level not in effect))
    return np.atleast_1d(np.mean(means**2))


def _moment(y: FloatArray, shares: Sequence[FloatArray], effect: Effect) -> FloatArray:
    """Mean, over the units of ``effect``, of the squared mean over all else, in each resample: (R,)."""
    kept = "".join("sdc"[level] for level in effect)
    gone = [level for level in range(3) if level not in effect]
    means = np.einsum(
        ",".join([*(f"r{'sdc'[level]}" for level in gone), "sdc"]) + f"->{'r' if gone else ''}{kept}",
        *(shares[level] for level in gone), y, optimize=True,
    )  # fmt: skip
    parts = [f"r{letter}" for letter in kept] + [f"{'r' if gone else ''}{kept}"]
    found: FloatArray = np.einsum(
        ",".join(parts) + "->r", *(shares[level] for level in effect), means**2, optimize=True
    )
    return found


@dataclass(frozen=True)
class Component:
    """The variance of one effect, per unit, with its interval, and its share of the variance of the mean."""

    name: str
    units: int
    """How many units of the effect there are: seeds, or seeds times clusters."""
    variance: float
    low: float
    high: float
    share: float


def components(y: FloatArray, level: float = 0.95) -> tuple[Component, ...]:
    """The variance component of each effect of ``y`` (S, D, C) that has at least two units of every level.

    The interval is the modified large-sample one of Graybill & Wang (1980, Journal of the American Statistical
    Association 75:869) and Ting et al. (1990, Journal of Statistical Computation and Simulation 35:135), without their
    terms for pairs of mean squares, which makes it a little too wide; ends below 0 are 0. The estimate itself may be
    below 0, where the effect is too small to be told from none.
    """
    squares, parts, width = _mean_squares(y)[0], contributions(y)[0], spread(y)
    tail = (1 - level) / 2
    found = []
    for i, e in enumerate(EFFECTS):
        units = prod(y.shape[part] for part in e)
        if min(y.shape[part] for part in e) < 2:
            continue
        below = above = 0.0
        for j, wider in enumerate(EFFECTS):
            free = prod(y.shape[part] - 1 for part in wider)
            if set(e) <= set(wider) and free:
                shrink = (1 - free / chi2.ppf(1 - tail, free)) * squares[j]
                stretch = (free / chi2.ppf(tail, free) - 1) * squares[j]
                added = (len(wider) - len(e)) % 2 == 0
                below += (shrink if added else stretch) ** 2
                above += (stretch if added else shrink) ** 2
        low, high = (max(units * end, 0.0) for end in (parts[i] - below**0.5, parts[i] + above**0.5))
        share = width.parts[e] / width.error**2 if width.error else np.nan
        found.append(Component(name_of(e), units, float(units * parts[i]), low, high, share))
    return tuple(found)
