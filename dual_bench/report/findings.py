"""What the figures show, in words: their text alternatives."""

from __future__ import annotations

import numpy as np

from dual_bench.report.evidence import Evidence
from dual_bench.report.grid import Grid
from dual_bench.report.heat import Sheet
from dual_bench.report.numbers import level, number


def heat_finding(evidence: Evidence, grid: Grid, sheet: Sheet) -> str:
    """Which corruption costs each system most and least in the last column."""
    metric, parts = evidence.metric, []
    for regime, system in sheet.panels:
        ranked = [(evidence.noise.label(n), number(e.value, metric)) for n, e in evidence.ranking(system, regime)]
        if not ranked:
            continue
        clean = number(evidence.at(system, regime, evidence.places[0]).value, metric)
        (most, high), (least, low) = ranked[0], ranked[-1]
        told = f"{evidence.title(system)}, trained {regime}, {clean} on clean text: "
        same = f"a loss of {high} under {'each' if len(ranked) > 1 else most}."
        parts.append(
            told + (same if high == low else f"largest loss {high} under {most}, smallest {low} under {least}.")
        )
    what = "severity" if grid.by_severity else "rate"
    return (
        f"{metric.title} of every system under {len(grid.rows)} corruptions by {what}; at {grid.heading(grid.last)}: "
        f"{' '.join(parts)}"
    )


def curve_finding(evidence: Evidence, corruption: str, regimes: tuple[str, ...]) -> str:
    """What a degradation figure shows: where the reference starts and ends, who loses least and most."""
    parts = []
    for regime in regimes:
        ends = {}
        for system in evidence.trained(regime):
            points = evidence.curves[system, regime, corruption]
            ends[system] = (points[0][1], points[-1][1], points[-1][0])
        told = next(iter(ends))
        first, last, rate = ends[told]
        sign = 1 if evidence.metric.higher_is_better else -1
        moved = [s for s in ends if not np.isclose(ends[s][0].value, ends[s][1].value, equal_nan=True)] or list(ends)
        order = sorted(moved, key=lambda system: sign * (ends[system][0].value - ends[system][1].value))
        shown = {s: number(sign * (ends[s][0].value - ends[s][1].value), evidence.metric) for s in order}
        parts.append(
            f"Trained {regime}: {evidence.title(told)} goes from {level(first, evidence.metric)} on clean text to "
            f"{level(last, evidence.metric)} at {evidence.noise.where(corruption, rate)}; of the systems that "
            f"change at all, {evidence.title(order[0])} has the smallest measured loss ({shown[order[0]]}), "
            f"{evidence.title(order[-1])} the largest "
            f"({shown[order[-1]]})."
        )
    return f"{evidence.metric.title} under heavier and heavier {evidence.noise.label(corruption)}. {' '.join(parts)}"


def overview_finding(evidence: Evidence, names: tuple[str, ...], regime: str) -> str:
    """Where the reference ends under each corruption."""
    told, metric = evidence.trained(regime)[0], evidence.metric
    ends = []
    for name in names:
        rate, last = evidence.curves[told, regime, name][-1]
        label = evidence.noise.label(name)
        ends.append(f"{label} {number(last.value, metric)} ({evidence.noise.where(name, rate)})")
    first = evidence.at(told, regime, evidence.places[0])
    return (
        f"{metric.title} under heavier and heavier noise, a panel for each corruption. {evidence.title(told)}, trained "
        f"{regime}, starts from {number(first.value, metric)} on clean text and ends at: {', '.join(ends)}."
    )


def transcript_finding(evidence: Evidence) -> str:
    """What the figure of real recognisers shows."""
    parts = []
    for regime in evidence.regimes:
        told = evidence.trained(regime)[0]
        heard = [f"{p.label}: {level(evidence.at(told, regime, p), evidence.metric)}" for p in evidence.places
                 if p.rate == 0 or p.corruption in evidence.transcripts]  # fmt: skip
        parts.append(f"{evidence.title(told)}, trained {regime}: {'; '.join(heard)}.")
    return f"{evidence.metric.title} on what real recognisers heard. {' '.join(parts)}"


def training_finding(evidence: Evidence) -> str:
    """What the training curves show."""
    parts = []
    for regime, system in evidence.rows():
        epochs = [c.best_epoch for c in evidence.cells(system, regime)]
        parts.append(f"{evidence.title(system)} trained {regime}, epoch {np.mean(epochs):.1f}")
    return f"Validation loss by epoch. Mean chosen epoch: {'; '.join(parts)}."
