"""Degradation curves: a figure for each corruption, and small ones beside each other for an overview."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dual_bench.report import canvas
from dual_bench.report.canvas import MOST_TOGETHER, MUTED
from dual_bench.report.evidence import MATCHED, Evidence
from dual_bench.report.noise import in_families, rate_is


def curved(evidence: Evidence) -> tuple[str, ...]:
    """The corruptions that have a curve."""
    return tuple(c for c in evidence.corruptions if len(evidence.cube.rates(c)) > 1)


def degradation(evidence: Evidence, corruption: str) -> Figure:
    """The primary metric against how heavy one corruption is, a panel for each training regime."""
    regimes = evidence.regimes
    figure, panels = canvas.subplots(1, len(regimes), 3.3)
    floor, ceiling, promised = evidence.floor(), _ceiling(evidence, corruption), False
    for panel, regime in zip(panels, regimes, strict=True):
        for system in reversed(evidence.trained(regime)):
            promised |= canvas.promise(panel, evidence, system, regime)
            _curve(panel, evidence, system, regime, corruption)
        canvas.bounds(panel, evidence, floor, ceiling)
        panel.set_title(f"trained {regime}", loc="left", fontweight="bold")
        panel.set_xlabel(_x_label(evidence, corruption))
    panels[0].set_ylabel(canvas.axis_label(evidence))
    keys = canvas.keys(evidence, bool(np.isfinite(floor)), bool(ceiling))
    canvas.legend(figure, [*keys, *([canvas.promise_key()] if promised else [])])
    return figure


def _curve(
    panel: Axes,
    evidence: Evidence,
    system: str,
    regime: str,
    corruption: str,
    shape: dict[str, Any] | None = None,
) -> None:
    points = evidence.curves[system, regime, corruption]
    x = _heaviness(evidence, corruption, [rate for rate, _ in points])
    canvas.line(panel, evidence, system, x, [estimate for _, estimate in points], shape=shape)


def apart(evidence: Evidence, corruption: str, regime: str) -> Figure:
    """The degradation curve of every variant of an ablation beside that of the baseline, a small panel for each."""
    base = evidence.reference
    others = [system for system in evidence.trained(regime) if system != base]
    floor, ceiling = evidence.floor(), _ceiling(evidence, corruption)
    promised = any(
        bound.reads_words and trained == regime for (_, trained), bound in evidence.certified.items()
    )  # every variant has a panel, and needs no key
    keys = [canvas.system_key(evidence, str(base)), *canvas.bound_keys(bool(np.isfinite(floor)), bool(ceiling))]
    labels = ("measured WER (%)" if _by_wer(evidence, corruption) else "nominal rate (%)", canvas.axis_label(evidence))
    figure, panels = canvas.small_panels(
        len(others), 1.0, labels, [*keys, *([canvas.promise_key()] if promised else [])], f"trained {regime}", most=4
    )
    for panel, system in zip(panels, others, strict=True):
        panel.set_gid(canvas.group(evidence, system))
        for one, shape in ((base, canvas.look(evidence, str(base))), (system, canvas.VARIANT)):
            if one in evidence.trained(regime):
                canvas.promise(panel, evidence, str(one), regime, shape)
                _curve(panel, evidence, str(one), regime, corruption, shape)
        canvas.bounds(panel, evidence, floor, ceiling)
        canvas.small_title(panel, evidence.title(system))
    return figure


def crowded(evidence: Evidence, corruption: str) -> Figure:
    """The same as ``degradation`` for many systems."""
    labels = (_x_label(evidence, corruption), canvas.axis_label(evidence))
    figure, seats = canvas.crowd(evidence, 1.45, 0.3, labels)
    floor, ceiling, promised = evidence.floor(), _ceiling(evidence, corruption), False
    for seat in seats:
        for system in reversed(seat.systems):
            promised |= canvas.promise(seat.panel, evidence, system, seat.regime)
            _curve(seat.panel, evidence, system, seat.regime, corruption)
        canvas.bounds(seat.panel, evidence, floor, ceiling)
        seat.panel.set_title(f"trained {seat.regime}" if seat.top else "", loc="left", fontweight="bold")
    keys = canvas.bound_keys(bool(np.isfinite(floor)), bool(ceiling))
    if keys or promised:
        canvas.legend(figure, [*keys, *([canvas.promise_key()] if promised else [])])
    return figure


def apart_caption(evidence: Evidence, corruption: str, regime: str) -> str:
    """What the small panels show."""
    base = evidence.title(str(evidence.reference))
    return (
        f"{evidence.metric.title} when the test text suffers {evidence.noise.label(corruption)}, trained {regime}: in "
        f"each panel a variant in colour, and {base} in ink. Lines: {canvas.points(evidence)}. "
        f"{_axis_note(evidence, [corruption], (regime,))}{_signs(evidence, bool(evidence.ceiling(corruption)))}"
        f"{_promised(evidence, [regime])}"
    )


def _promised(evidence: Evidence, regimes: Sequence[str]) -> str:
    there = any(bound.reads_words and regime in regimes for (_, regime), bound in evidence.certified.items())
    return " Finely dashed, in the colour of its system: certified whatever the text." if there else ""


def overview(evidence: Evidence, regime: str) -> Figure:
    """A small panel for each corruption, in families; all systems trained in one regime."""
    names = in_families(curved(evidence))
    floor, ceilings = evidence.floor(), [_ceiling(evidence, name) for name in names]
    systems, many = evidence.trained(regime), len(evidence.systems) > MOST_TOGETHER
    keys = canvas.keys(evidence, bool(np.isfinite(floor)), any(ceilings))
    if many:
        told = [canvas.system_key(evidence, s) for s in systems if s == evidence.systems[0]]
        others = Line2D([], [], color=MUTED, label="each other system")
        keys = [*told, others, *canvas.bound_keys(bool(np.isfinite(floor)), any(ceilings))]
    labels = ("", canvas.axis_label(evidence))
    figure, panels = canvas.small_panels(len(names), 1.05, labels, keys, f"trained {regime}", most=4)
    for place, (panel, name, ceiling) in enumerate(zip(panels, names, ceilings, strict=True)):
        for system in reversed(systems):
            points, shape = evidence.curves[system, regime, name], canvas.look(evidence, system)
            if many and system != evidence.systems[0]:
                shape |= {"color": MUTED, "linestyle": "-", "marker": None, "linewidth": 0.6, "alpha": 0.7}
            x = _heaviness(evidence, name, [rate for rate, _ in points])
            canvas.line(panel, evidence, system, x, [estimate for _, estimate in points], band=False, shape=shape)
        canvas.bounds(panel, evidence, floor, ceiling)
        canvas.small_title(panel, evidence.noise.label(name))
        if place + 4 >= len(names):
            panel.set_xlabel(f"{'word error' if _by_wer(evidence, name) else 'nominal'} rate (%)", fontsize=7)
    return figure


def _by_wer(evidence: Evidence, corruption: str) -> bool:
    return bool(evidence.noise.severities.get(corruption)) and corruption not in evidence.noise.behind


def _heaviness(evidence: Evidence, corruption: str, rates: Sequence[float]) -> list[float]:
    """Where the rates lie on the x axis: at the word error rate of the test text, where severities chose the rates."""
    measured = _by_wer(evidence, corruption)
    return [evidence.noise.wer(corruption, rate) if measured else rate for rate in rates]


def _x_label(evidence: Evidence, corruption: str) -> str:
    if _by_wer(evidence, corruption):
        return "measured word error rate (%)"
    # names of a foreign file say nothing for sure
    share = "" if evidence.run.info.source else rate_is(corruption, evidence.run.info)
    return f"{share}\n(nominal rate, %)" if share else f"nominal rate of {corruption} (%)"


def _ceiling(evidence: Evidence, corruption: str) -> list[tuple[float, float]]:
    points = evidence.ceiling(corruption)
    return list(zip(_heaviness(evidence, corruption, [r for r, _ in points]), [v for _, v in points], strict=True))


# --------------------------------------------------------------------------------------------- captions


def caption(evidence: Evidence, corruption: str) -> str:
    """What the figure of one corruption shows, and what its signs mean."""
    label = evidence.noise.label(corruption)
    return (
        f"{evidence.metric.title} when the test text suffers {label}. Lines: {canvas.points(evidence)}. "
        f"{_axis_note(evidence, [corruption])}{_signs(evidence, bool(evidence.ceiling(corruption)))}"
        f"{_promised(evidence, evidence.regimes)}"
    )


def overview_caption(evidence: Evidence, regime: str) -> str:
    """What the overview of one regime shows."""
    names = curved(evidence)
    return (
        f"{evidence.metric.title} of all systems, trained {regime}, a panel for each corruption of the test text. "
        f"{_unnamed(evidence)}Lines: {canvas.points(evidence)}. {_axis_note(evidence, names, (regime,))}"
        f"Intervals: in the figure of each corruption.{_lines(evidence, any(evidence.ceiling(name) for name in names))}"
    )


def _unnamed(evidence: Evidence) -> str:
    """Where lines are told apart that an overview has no room to name."""
    if len(evidence.systems) <= MOST_TOGETHER:
        return ""
    first = evidence.title(evidence.systems[0])
    return f"Ink: {first}; which grey line is which system is in the figure of each corruption. "


def _axis_note(evidence: Evidence, names: Sequence[str], regimes: Sequence[str] = ()) -> str:
    said = ""
    if any(_by_wer(evidence, name) for name in names):
        said += (
            "Rates were chosen by severity; the x axis is the word error rate that they really make of the test text. "
        )
        if any(name in evidence.noise.chosen for name in names):
            said += "Where the words are chosen for each model, it is the mean over models. "
    if MATCHED in (regimes or evidence.regimes):
        said += f"Trained {MATCHED}, every point is another model, trained on just that noise. "
    return said


def _signs(evidence: Evidence, ceiling: bool) -> str:
    return f"{canvas.uncertainty(evidence, 'Bands')}{_lines(evidence, ceiling)}"


def _lines(evidence: Evidence, ceiling: bool) -> str:
    above = (
        " Dashed grey: exact ceiling, what a perfect perceiver expects of any such corpus; on one sample a "
        "model may lie above it by chance."
    )
    floor = " Dotted grey: floor, the best constant answer." if np.isfinite(evidence.floor()) else ""
    return f"{above if ceiling else ''}{floor}"
