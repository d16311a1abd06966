"""Degradation curves that answer to a reader: one Bokeh figure, the numbers of every curve, and the library itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from bokeh.embed import json_item
from bokeh.models import ColumnDataSource, HoverTool, Range1d
from bokeh.plotting import figure
from bokeh.resources import Resources

from dual_bench.report import canvas, degradation, findings
from dual_bench.report.canvas import COLOURS
from dual_bench.report.evidence import Evidence
from dual_bench.report.numbers import level, plural

TARGET = "explorer-figure"
"""Id of the element that holds the figure."""

_MARKERS = {"o": "circle", "s": "square", "D": "diamond", "^": "triangle", "v": "inverted_triangle", "P": "cross"}
_MARKERS |= {"X": "x", "*": "star"}
"""Of matplotlib -> of Bokeh."""

_PATHS = {
    "circle": "M13.5 5a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0",
    "square": "M14 2h6v6h-6z",
    "diamond": "M17 1l4 4-4 4-4-4z",
    "triangle": "M17 1.5l4 7h-8z",
    "inverted_triangle": "M17 8.5l-4-7h8z",
    "cross": "M17 1v8M13 5h8",
    "x": "M14 2l6 6M14 8l6-6",
    "star": "M17 1l1.2 2.8 3 .3-2.2 2 .6 3-2.6-1.5-2.6 1.5.6-3-2.2-2 3-.3z",
}
"""Each marker in the middle of a line 34 wide and 10 high, as an SVG path."""

_HOVER = """<div style="margin: -5px; padding: 6px 9px; max-width: 11rem; white-space: normal; background: var(--panel);
color: var(--ink); font: 13px/1.45 system-ui, sans-serif">
<div><b>@system</b></div><div>@where</div><div>@estimate</div><div>@units</div></div>"""
"""What is said of a point; the margin covers the box that Bokeh draws, which knows no themes."""


@dataclass(frozen=True)
class Look:
    """A system's name and signs: ``colour`` is a CSS variable, ``dash`` in pixels, empty where the line is whole."""

    title: str
    colour: str
    dash: tuple[float, ...]
    marker: str
    width: float

    @property
    def mark(self) -> str:
        """The marker as an SVG path."""
        return _PATHS[self.marker]


@dataclass(frozen=True)
class Explorer:
    """``item`` is the Bokeh figure without data, ``numbers`` what ``page.js`` puts into it."""

    looks: tuple[Look, ...]
    corruptions: tuple[str, ...]
    """As people read them."""
    regimes: tuple[str, ...]
    item: dict[str, Any]
    numbers: dict[str, Any]
    library: str
    """The text of ``bokeh.min.js``, its licence on top."""


def explorer(evidence: Evidence) -> Explorer | None:
    """None where no corruption has a curve."""
    names = degradation.curved(evidence)
    if not names:
        return None
    looks = tuple(_look(evidence, system) for system in evidence.systems)
    low, high = _span(evidence, names)
    numbers = {
        "systems": [[look.title, look.colour, look.dash, look.marker, look.width] for look in looks],
        "metric": evidence.metric.title,
        "regimes": evidence.regimes,
        "floor": _short(evidence, evidence.floor()),
        "corruptions": [_corruption(evidence, name) for name in names],
    }
    labels = tuple(evidence.noise.label(name) for name in names)
    return Explorer(looks, labels, evidence.regimes, _item(evidence, low, high), numbers, _library())


def _look(evidence: Evidence, system: str) -> Look:
    shape = canvas.look(evidence, system)
    i, style = COLOURS.index(shape["color"]), shape["linestyle"]
    dash = () if style == "-" else tuple(round(shape["linewidth"] * 1.6 * part, 1) for part in style[1])
    colour = f"--series-{i}" if i else "--ink"
    return Look(evidence.title(system), colour, dash, _MARKERS[shape["marker"]], round(1.4 * shape["linewidth"], 1))


def _span(evidence: Evidence, names: tuple[str, ...]) -> tuple[float, float]:
    """The ends of the y axis: the same for every corruption and regime, so that one can be held against another."""
    curves = [points for (_, _, name), points in evidence.curves.items() if name in names]
    found = [end for points in curves for _, e in points for end in (e.value, e.interval.low, e.interval.high)]
    found += [evidence.floor(), *(value for name in names for _, value in evidence.ceiling(name))]
    known = canvas.scaled(evidence, [value for value in found if np.isfinite(value)])
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    edge = 0.04 * (high - low) or 1.0
    return low - edge, high + edge


def _corruption(evidence: Evidence, name: str) -> dict[str, Any]:
    """All that the figure shows of one corruption; a curve is [system, estimates, lows, highs, texts]."""
    rates = [rate for rate, _ in next(p for (_, _, c), p in evidence.curves.items() if c == name)]
    x = [100 * value for value in degradation._heaviness(evidence, name, rates)]
    ceiling = degradation._ceiling(evidence, name)
    return {
        "label": " ".join(degradation._x_label(evidence, name).split()),
        "caption": degradation.caption(evidence, name),
        "x": [_rounded(value) for value in x],
        "where": [_where(evidence, name, rate) for rate in rates],
        "units": [_units(evidence, name, rate) for rate in rates],
        "ceiling": [[_rounded(100 * at), _short(evidence, value)] for at, value in ceiling],
        "curves": [list(_curves(evidence, name, regime)) for regime in evidence.regimes],
        "findings": [findings.curve_finding(evidence, name, (regime,)) for regime in evidence.regimes],
    }


def _curves(evidence: Evidence, name: str, regime: str) -> Iterator[list[Any]]:
    for system in evidence.trained(regime):
        estimates = [estimate for _, estimate in evidence.curves[system, regime, name]]
        ends = [[_short(evidence, value) for value in values] for values in canvas.ends(estimates)]
        yield [evidence.systems.index(system), *ends, [level(one, evidence.metric) for one in estimates]]


def _where(evidence: Evidence, name: str, rate: float) -> str:
    """``word-drop 50 %``, and the word error rate that it made."""
    if rate == 0:
        return "clean text"
    wer = evidence.noise.wer(name, rate)
    measured = f", measured WER {100 * wer:.1f} %" if np.isfinite(wer) else ""
    return f"{evidence.noise.place(name, rate).label}{measured}"


def _units(evidence: Evidence, name: str, rate: float) -> str:
    """What a point is the mean over."""
    seeds = f"mean over {plural(len(evidence.cube.seeds), 'training seed')}"
    if rate == 0:
        return seeds
    return f"{seeds}, {plural(1 if name in evidence.noise.chosen else evidence.cube.draws, 'noise draw')}"


def _rounded(value: float) -> float | None:
    """Five digits, for drawing; None where undefined, which JSON has no other word for."""
    return float(f"{value:.5g}") if np.isfinite(value) else None


def _short(evidence: Evidence, value: float) -> float | None:
    return _rounded(float(canvas.scaled(evidence, [value])[0]))


# ------------------------------------------------------------------------------------------ the figure


def _item(evidence: Evidence, low: float, high: float) -> dict[str, Any]:
    """The figure as Bokeh's JSON, without data or colours; ``page.js`` finds its parts by their names."""
    drawn = figure(
        name="figure", height=420, sizing_mode="stretch_width", toolbar_location=None, tools="",
        x_range=Range1d(start=0, end=100), y_range=Range1d(start=low, end=high), background_fill_color=None,
        border_fill_color=None, outline_line_color=None, min_border_right=12,
    )  # fmt: skip
    drawn.yaxis.axis_label = canvas.axis_label(evidence).replace("\n", ", ")
    for axis, name in ((drawn.xaxis, "x axis"), (drawn.yaxis, "y axis")):
        axis.name = name
        axis.axis_label_text_font = axis.major_label_text_font = "system-ui, sans-serif"
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = axis.major_label_text_font_size = "13px"
        axis.minor_tick_line_color = None
    drawn.xgrid.name, drawn.ygrid.name = "x grid", "y grid"
    bands, curves, limits, points = (
        ColumnDataSource({column: [] for column in columns.split()}, name=name)
        for name, columns in (
            ("bands", "xs ys colour"),
            ("curves", "xs ys colour dash width"),
            ("limits", "xs ys colour dash"),
            ("points", "x y colour marker system where estimate units"),
        )
    )
    drawn.patches("xs", "ys", source=bands, fill_color="colour", fill_alpha=0.13, line_color=None)
    drawn.multi_line("xs", "ys", source=limits, line_color="colour", line_dash="dash", line_width=1.6)
    drawn.multi_line("xs", "ys", source=curves, line_color="colour", line_dash="dash", line_width="width")
    dots = drawn.scatter("x", "y", source=points, size=8, marker="marker", color="colour")
    drawn.add_tools(HoverTool(renderers=[dots], tooltips=_HOVER, attachment="horizontal"))
    item: dict[str, Any] = dict(json_item(drawn, TARGET))  # type: ignore[arg-type]
    return _renamed(item)


def _renamed(item: dict[str, Any]) -> dict[str, Any]:
    """The same with ids counted from 1, where Bokeh counts all that the process ever made."""
    names: dict[str, str] = {}

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: fresh(v) if k in ("id", "root_id") else walk(v) for k, v in value.items()}
        return [walk(one) for one in value] if isinstance(value, list) else value

    def fresh(old: str) -> str:
        return names.setdefault(old, f"bokeh-{len(names) + 1}")

    renamed: dict[str, Any] = walk(item)
    return renamed


def _library() -> str:
    """BokehJS, without the part that makes widgets."""
    text: str = Resources(mode="inline", components=["bokeh"]).js_raw[0]
    return text.replace("</script", r"<\/script")
