"""The forest plot of an ablation: every effect with its interval, beside the margin below which nothing matters."""

from __future__ import annotations

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from dual_bench.report import canvas
from dual_bench.report.canvas import COLOURS, GRID, INK, MUTED, PAPER
from dual_bench.report.evidence import LEVEL, Evidence
from dual_bench.report.numbers import noun, number
from dual_bench.schema import ComparisonInfo
from dual_bench.stats.effects import Effect, by_size

_LOOKS = {
    "supported": (COLOURS[2], "o", COLOURS[2]),
    "contradicted": (COLOURS[1], "D", COLOURS[1]),
    "equivalent": (COLOURS[3], "s", COLOURS[3]),
    "undecided": (MUTED, "o", PAPER),
    "undefined": (MUTED, "x", MUTED),
}
"""Verdict -> colour, marker, and the colour of its inside: told apart without colour too."""


def rows(evidence: Evidence) -> list[ComparisonInfo]:
    """The comparisons from top to bottom, the worst loss first."""
    return by_size(evidence.effects)


def label(comparison: ComparisonInfo, evidence: Evidence) -> str:
    """What is compared, and in what it was trained where that alone tells it from another."""
    others = evidence.study.comparisons if evidence.study else ()
    several = sum(other.name == comparison.name for other in others) > 1
    return f"{comparison.name} ({comparison.regime})" if several else comparison.name


def forest(evidence: Evidence) -> Figure:
    """A row for each comparison, a panel for each primary quantity; to the left of zero is worse."""
    study = evidence.study
    assert study is not None
    order = rows(evidence)
    place = {comparison: len(order) - 1 - i for i, comparison in enumerate(order)}
    figure, panels = canvas.subplots(1, len(study.primary), 1.15 + 0.24 * len(order))
    for panel, quantity in zip(panels, study.primary, strict=True):
        half = float(canvas.scaled(evidence, [study.margin])[0])
        panel.axvspan(-half, half, color=GRID, alpha=0.55, linewidth=0, zorder=0)
        panel.axvline(0, color=INK, linewidth=0.8, zorder=1)
        for effect in evidence.effects:
            if effect.quantity == quantity:
                _mark(panel, evidence, effect, place[effect.comparison])
        panel.set_title(evidence.noise.quantity(quantity), loc="left", fontsize=8)
        panel.grid(visible=False, axis="y")
        panel.set_ylim(-0.7, len(order) - 0.3)
        panel.xaxis.set_inverted(not evidence.metric.higher_is_better)
    panels[0].set_yticks(list(place.values()), [canvas.clipped(label(c, evidence), 48)[0] for c in place])
    unit = " (points)" if evidence.metric.is_share else ""
    added = any(c.kind == "interaction" for c in study.comparisons)  # which is neither better nor worse
    for panel in panels:
        what = f"{noun(evidence.metric)}{unit}"
        panel.set_xlabel(f"difference in {what}" if added else f"worse ← {what} → better", fontsize=7)
    canvas.legend(figure, _keys(evidence))
    return figure


def _mark(panel: Axes, evidence: Evidence, effect: Effect, y: float) -> None:
    colour, marker, inside = _LOOKS[effect.verdict]
    x, low, high = canvas.scaled(evidence, [effect.estimate, effect.interval.low, effect.interval.high])
    if np.isfinite(low):
        panel.hlines(y, low, high, color=colour, linewidth=1.4)
    panel.plot(x, y, marker=marker, markersize=4.6, color=colour, markerfacecolor=inside, linestyle="none")


def _keys(evidence: Evidence) -> list[Artist]:
    there = {effect.verdict for effect in evidence.effects if effect.primary}
    found: list[Artist] = [
        Line2D(
            [], [], color=colour, marker=marker, markersize=4.6, markerfacecolor=inside, linewidth=1.4, label=verdict
        )
        for verdict, (colour, marker, inside) in _LOOKS.items()
        if verdict in there
    ]
    return [*found, Patch(color=GRID, alpha=0.55, label="within the margin")]


def caption(evidence: Evidence) -> str:
    """What the forest plot shows, and what its signs mean."""
    study = evidence.study
    assert study is not None
    unit = " points" if evidence.metric.is_share else ""
    against = (
        "Main effects: the mean of all cells with the part off minus that of all cells with it on. Interactions: half "
        "the difference between what switching one part off does where the other is off and where it is on; 0 where "
        "the parts add up. "
        if any(c.kind != "variant" for c in study.comparisons)
        else f"Each variant minus {study.baseline}, on the same seeds, utterances and noise. "
    )
    return (
        f"{against}Points: {canvas.points(evidence)}; lines: {100 * LEVEL:g} % intervals, not corrected for their "
        f"number; the verdict is. Grey: differences below the margin of {number(study.margin, evidence.metric)}{unit}; "
        "two one-sided tests exclude larger ones already where the 90 % interval lies within it. In the order of the "
        "largest loss."
    )


def finding(evidence: Evidence) -> str:
    """What the figure shows, for those who cannot see it."""
    told = []
    for effect in evidence.effects:
        if effect.primary:
            low, high = (number(end, evidence.metric) for end in (effect.interval.low, effect.interval.high))
            value = number(effect.estimate, evidence.metric)
            where = evidence.noise.quantity(effect.quantity)
            told.append(f"{label(effect.comparison, evidence)}, {where}: {value} ({low} to {high}), {effect.verdict}")
    return f"Effects with intervals. {'; '.join(told)}."
