"""Every pair of systems compared under one condition."""

from __future__ import annotations

from itertools import combinations

from dual_bench.report.evidence import LEVEL, Evidence
from dual_bench.report.noise import Place
from dual_bench.stats.contrasts import ALPHA, holm, p_value
from dual_bench.stats.curves import key
from dual_bench.stats.intervals import interval_of_test


def best(evidence: Evidence, regime: str, place: Place) -> str | None:
    """The system that is shown to be better there than each other of its regime; Holm over all pairs of the regime."""
    points = {s: evidence.point(key(s, regime, place.corruption, place.rate)) for s in evidence.trained(regime)}
    pairs = {(one, other): points[one] - points[other] for one, other in combinations(points, 2)}
    unknown = float("nan")
    p = [unknown if interval_of_test(d, LEVEL).reason else p_value(d.estimate, d.spread) for d in pairs.values()]
    beaten_by: dict[str, set[str]] = {s: set() for s in points}
    for (one, other), adjusted in zip(pairs, holm(p).tolist(), strict=True):
        if adjusted < ALPHA:
            first = (pairs[one, other].estimate > 0) == evidence.metric.higher_is_better
            beaten_by[other if first else one].add(one if first else other)
    wins = {s: sum(s in by for by in beaten_by.values()) for s in points}
    return next((s for s in points if wins[s] == len(points) - 1 > 0), None)
