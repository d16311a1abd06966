"""What the comparisons of an ablation show: an effect, its interval, a test of difference, a test of equivalence, and a
verdict on what was expected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from scipy.stats import t

from dual_bench.schema import ComparisonInfo, Expected, StudyInfo
from dual_bench.stats.contrasts import ALPHA, Severities, detectable, holm, needed, p_value
from dual_bench.stats.curves import key, overall, point
from dual_bench.stats.frame import Cube
from dual_bench.stats.intervals import Interval, interval_of_test, no_interval
from dual_bench.stats.resampling import Point, Weights, combined
from dual_bench.stats.variance import UNKNOWN, Spread

Verdict = Literal["supported", "contradicted", "equivalent", "undecided", "undefined"]


@dataclass(frozen=True)
class Effect:
    """One comparison under one quantity. ``estimate`` is in the metric's own units, the changed side minus the
    baseline; ``gain`` is the same, positive where the change is for the better."""

    comparison: ComparisonInfo
    quantity: str
    """``clean``, ``word-drop area`` or ``word-drop mean``, ``word-drop 1.0``, ``transcript:NAME``."""
    primary: bool
    """Whether the study's expectation is about this quantity."""
    estimate: float
    gain: float
    interval: Interval
    p: float
    """Of the two-sided t test against no difference; where none that matters is expected, against one no larger than
    the margin: a smaller one is no contradiction."""
    p_adjusted: float
    p_equivalence: float
    """Of the two one-sided t tests against a difference as large as the margin (Schuirmann 1987, Journal of
    Pharmacokinetics and Biopharmaceutics 15:657)."""
    p_equivalence_adjusted: float
    family: str
    detectable: float
    """Smallest true difference that the design would see with power 0.8 at two-sided 0.05, before correction."""
    identical: bool
    """Whether the two sides have the same metric in every cluster, seed and draw."""
    verdict: Verdict
    seeds_needed: int | None
    """Where undecided: how many seeds would decide it, if the estimate stayed as it is; None where none would."""
    clusters_needed: int | None
    """Likewise, how many clusters."""


def effects(
    cube: Cube, study: StudyInfo, weights: Weights, level: float = 0.95, severities: Severities | None = None
) -> tuple[Effect, ...]:
    """Every comparison of the study under every quantity.

    All sides of a comparison share the resamples. Interval and both tests rest on one standard error
    (``variance.spread``). Each of two families, the hypotheses (the primary quantities) and all other quantities, is
    corrected by Holm's method for its tests of difference, and likewise for its tests of equivalence.
    """
    points = _Points(cube, weights, severities or {})
    found, widths = [], []
    for comparison in study.comparisons:
        for quantity in points.quantities:
            effect, width = _effect(points, comparison, quantity, study, level)
            found.append(effect)
            widths.append(width)
    return _judged(found, widths, study, cube.metric.title)


def _effect(
    points: _Points, comparison: ComparisonInfo, quantity: str, study: StudyInfo, level: float
) -> tuple[Effect, Spread]:
    """One comparison under one quantity, not yet corrected or judged."""
    absent = [term.system for term in comparison.terms if not points.has(term.system, term.regime)]
    if absent:
        estimate, identical, width = np.nan, False, UNKNOWN
        ends = no_interval(level, f"'{absent[0]}' has no finished cell")
    else:
        sides = [(term.weight, points.at(term.system, term.regime, quantity)) for term in comparison.terms]
        effect = combined(sides)
        estimate, width, ends = effect.estimate, effect.spread, interval_of_test(effect, level)
        identical = estimate == 0 and not effect.influence.any()
    known = not ends.reason
    found = Effect(
        comparison,
        quantity,
        quantity in study.primary,
        estimate,
        estimate if points.higher_is_better else -estimate,
        ends,
        p=p_value(estimate, width, _excused(comparison, study)) if known else np.nan,
        p_adjusted=np.nan,
        p_equivalence=p_equivalence(estimate, width, study.margin) if known else np.nan,
        p_equivalence_adjusted=np.nan,
        family="",
        detectable=detectable(width) if known else np.nan,
        identical=known and identical,
        verdict="undefined",
        seeds_needed=None,
        clusters_needed=None,
    )
    return found, width


def _excused(comparison: ComparisonInfo, study: StudyInfo) -> float:
    """How large a difference may be without contradicting the expectation that none matters."""
    return study.margin if comparison.expected == "none" else 0.0


class _Points:
    """Every side under every quantity, each computed once."""

    def __init__(self, cube: Cube, weights: Weights, severities: Severities) -> None:
        self._cube, self.weights, self._severities = cube, weights, severities
        self.higher_is_better = cube.metric.higher_is_better
        self._there = {(key.system, key.regime) for key in cube.sums}
        self._known: dict[tuple[str, str, str], Point] = {}
        self._where: dict[str, tuple[str, float | None]] = {"clean": ("clean", 0.0)}
        for name in cube.corruptions():
            rates = cube.rates(name)
            if len(rates) > 1:
                self._where[f"{name} {'mean' if name in self._severities else 'area'}"] = (name, None)
            heard = name.startswith("transcript:")
            self._where |= {name if heard else f"{name} {rate}": (name, rate) for rate in rates}

    @property
    def quantities(self) -> tuple[str, ...]:
        return tuple(self._where)

    def has(self, system: str, regime: str) -> bool:
        return (system, regime) in self._there

    def at(self, system: str, regime: str, quantity: str) -> Point:
        place = (system, regime, quantity)
        if place not in self._known:
            name, rate = self._where[quantity]
            self._known[place] = (
                overall(self._cube, system, regime, name, self.weights, self._severities.get(name, ()))
                if rate is None
                else point(self._cube, key(system, regime, name, rate), self.weights)
            )
        return self._known[place]


def p_equivalence(difference: float, width: Spread, margin: float) -> float:
    """p of the larger of two one-sided t tests: that ``difference`` is above -margin, and that it is below +margin."""
    if width.error == 0:
        return 0.0 if abs(difference) < margin else 1.0
    return float(t.sf((margin - abs(difference)) / width.error, width.freedom))


def _judged(found: Sequence[Effect], widths: Sequence[Spread], study: StudyInfo, metric: str) -> tuple[Effect, ...]:
    """Adjusted p, verdict, and the seeds that are missing."""
    judged: dict[int, Effect] = {}
    for primary, what in ((True, "hypotheses"), (False, "other quantities")):
        rows = [i for i, e in enumerate(found) if e.primary == primary]
        different, equivalent = (holm([getattr(found[i], p) for i in rows]) for p in ("p", "p_equivalence"))
        tests = int(np.sum(~np.isnan(different)))
        family = f"Holm over {tests} {what} of {metric}"
        for i, p, q in zip(rows, different.tolist(), equivalent.tolist(), strict=True):
            effect = found[i]
            verdict = verdict_on(effect.comparison.expected, effect.gain, p, q)
            effect = replace(effect, p_adjusted=p, p_equivalence_adjusted=q, family=family, verdict=verdict)
            if verdict == "undecided":
                excused = _excused(effect.comparison, study)
                seeds, clusters = needed(partial(_decides, effect.estimate, study.margin, tests, excused), widths[i])
                effect = replace(effect, seeds_needed=seeds, clusters_needed=clusters)
            judged[i] = effect
    return tuple(judged[i] for i in range(len(found)))


def verdict_on(expected: Expected, gain: float, p: float, p_equivalence: float) -> Verdict:
    """What adjusted p say of an expectation; ``gain`` is positive for the better.

    A difference that is shown to be smaller than the margin does not matter, whether or not it is shown to be there:
    equivalence is asked first. Where no difference was expected, equivalence is what supports that.

    >>> verdict_on("loss", -0.05, 0.01, 0.9), verdict_on("loss", 0.05, 0.01, 0.9), verdict_on("loss", -0.05, 0.2, 0.9)
    ('supported', 'contradicted', 'undecided')
    >>> verdict_on("loss", -0.001, 0.01, 0.01), verdict_on("none", -0.001, 0.2, 0.01)
    ('equivalent', 'supported')
    """
    if np.isnan(p):
        return "undefined"
    if p_equivalence < ALPHA:
        return "supported" if expected == "none" else "equivalent"
    if p >= ALPHA or gain == 0:
        return "undecided"
    return "supported" if expected == ("gain" if gain > 0 else "loss") else "contradicted"


def _decides(estimate: float, margin: float, tests: int, excused: float, width: Spread) -> bool:
    """Whether a spread would show difference or equivalence, by Holm's strictest bound."""
    return min(p_value(estimate, width, excused), p_equivalence(estimate, width, margin)) * tests < ALPHA


def by_size(found: Sequence[Effect]) -> list[ComparisonInfo]:
    """The comparisons in the order of their largest effect under a primary quantity, the worst loss first."""
    worst: dict[ComparisonInfo, float] = {effect.comparison: np.inf for effect in found}
    for effect in found:
        if effect.primary and np.isfinite(effect.gain):
            worst[effect.comparison] = min(worst[effect.comparison], effect.gain)
    return sorted(worst, key=worst.__getitem__)
