"""The slope chart: from clean text to the heaviest noise, a line for each system, named at its end."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from dual_bench.report import canvas
from dual_bench.report.canvas import GRID, MUTED, WIDTH
from dual_bench.report.evidence import Evidence
from dual_bench.report.numbers import level, number
from dual_bench.stats.curves import Estimate
from dual_bench.types import FloatArray

_LINE, _SIZE = 0.115, 6.5
"""Inches that a line of a label takes, and its size in points."""
_LETTERS = 21
"""Of a name, in one of at most two lines."""
_EM = 0.64 / 72
"""Inches that a letter takes for each point of its size."""
_LEFT, _ABOVE, _BELOW, _LEADER, _NUMBER = 0.54, 0.52, 0.3, 0.24, 0.31
"""Inches to the left of a panel, above and below it; of the lines to labels, and of the numbers in them."""
_LOWEST = 2.5
"""Inches of height of a panel with few systems."""
_SPAN = 1.24
"""The width of a panel, where 1 is from one end of the lines to the other."""


def figure(evidence: Evidence) -> Figure:
    """A panel for each training regime: clean text on the left, the heaviest noise on the right."""
    regimes = evidence.regimes
    across = min(2, len(regimes))
    deep = -(-len(regimes) // across)
    names = {s: _name(evidence.title(s)) for s in evidence.systems}
    tall = max(_LOWEST, _LINE * sum(1.2 + name.count("\n") for name in names.values()))
    each = tall + _ABOVE + _BELOW
    right = _LEADER + _NUMBER + _EM * _SIZE * max(len(line) for name in names.values() for line in name.split("\n"))
    width = min(WIDTH / across - _LEFT - right - 0.1, 3.0)
    drawn = canvas.blank(deep * each, layout=None)
    shared: list[Axes] = []
    for i, regime in enumerate(regimes):
        row, column = divmod(i, across)
        left, bottom = _LEFT + column * WIDTH / across, (deep - 1 - row) * each + _BELOW
        box = (left / WIDTH, bottom / (deep * each), width / WIDTH, tall / (deep * each))
        panel = drawn.add_axes(box, sharey=shared[0] if shared else None)
        shared.append(panel)
        _panel(panel, evidence, regime)
    low, high = shared[0].get_ylim()
    shared[0].set_ylim(low, high)  # labels must not move it
    for panel, regime in zip(shared, regimes, strict=True):
        _label(panel, evidence, regime, names, ((high - low) / tall, _SPAN / width))
    return drawn


def _name(title: str) -> str:
    """The title in at most two lines."""
    lines = canvas.wrapped(title, _LETTERS).split("\n")
    return "\n".join(lines[:1] + ([lines[1][: _LETTERS - 1] + "…"] if len(lines) > 2 else lines[1:]))


def _ends(evidence: Evidence, regime: str, system: str) -> list[Estimate]:
    return [evidence.at(system, regime, place) for place in evidence.poles]


def _panel(panel: Axes, evidence: Evidence, regime: str) -> None:
    systems = evidence.trained(regime)
    for end in (0, 1):
        panel.axvline(end, color=GRID, linewidth=1.2, zorder=0)
    for i, system in reversed(list(enumerate(systems))):
        shape = canvas.look(evidence, system)
        y, low, high = (canvas.scaled(evidence, v) for v in canvas.ends(_ends(evidence, regime, system)))
        x = np.array([0, 1]) + _aside(i, len(systems))
        panel.plot(x, y, **shape)
        panel.vlines(x, low, high, color=shape["color"], linewidth=0.9, gid=shape["gid"])
    if np.isfinite(floor := evidence.floor()):
        canvas.bounds(panel, evidence, floor, [])
        at = (0.5, float(canvas.scaled(evidence, [floor])[0]))
        panel.annotate("floor", at, (0, 2), textcoords="offset points", ha="center", fontsize=6, color=MUTED)
    panel.set_xlim(0.5 - _SPAN / 2, 0.5 + _SPAN / 2)
    panel.set_xticks([0, 1], [place.label for place in evidence.poles])
    panel.tick_params(left=False, labelleft=False, bottom=False)
    panel.spines[:].set_visible(False)
    panel.grid(visible=False)
    panel.set_title(f"trained {regime}", loc="left", fontweight="bold", pad=17)
    what = canvas.axis_label(evidence).replace("\n", ", ")
    panel.annotate(what, (0, 1), (0, 7), xycoords="axes fraction", textcoords="offset points", color=MUTED, fontsize=7)


def _aside(i: int, count: int) -> float:
    """Side by side, so that equal estimates do not hide one another."""
    return float(min(0.022, 0.16 / count) * (i - (count - 1) / 2))


def _label(panel: Axes, evidence: Evidence, regime: str, names: dict[str, str], inches: tuple[float, float]) -> None:
    """What each line is called, and what it starts and ends at; ``inches`` are as many units of y and of x."""
    systems, (low, high), (up, along) = evidence.trained(regime), panel.get_ylim(), inches
    for side, out in enumerate((-1, 1)):
        values = [_ends(evidence, regime, s)[side].value for s in systems]
        there = [i for i, value in enumerate(values) if np.isfinite(value)]
        y = canvas.scaled(evidence, [values[i] for i in there])
        lines = np.array([1 + side * names[systems[i]].count("\n") for i in there])
        at_x = [side + out * (0.12 + along * far) for far in (0.06, 0.16, _LEADER, _LEADER + _NUMBER)]
        for i, own, at in zip(there, y, apart(y, 1.04 * _LINE * up * lines, low, high), strict=True):
            shape, start = canvas.look(evidence, systems[i]), side + _aside(i, len(systems))
            leader = {"color": shape["color"], "linewidth": 0.5, "clip_on": False, "gid": shape["gid"]}
            panel.plot([start + out * 0.03, *at_x[:2]], [own, at, at], **leader, alpha=0.7)
            panel.plot(at_x[1], at, **leader, marker=shape["marker"], markersize=3)
            text: dict[str, Any] = {"fontsize": _SIZE, "va": "center", "linespacing": 0.95, "gid": shape["gid"]}
            panel.text(at_x[2], at, number(values[i], evidence.metric), ha="left" if side else "right", **text)
            if side:
                panel.text(at_x[3], at, names[systems[i]], ha="left", **text)


def apart(wanted: FloatArray, heights: FloatArray, low: float, high: float) -> FloatArray:
    """Where labels of these ``heights`` (n,) go that would best lie at ``wanted`` (n,): moved by the least squares so
    that none overlap, in the same order and, if there is room, between ``low`` and ``high``.

    >>> apart(np.array([3.0, 3.0, 9.0]), np.array([1.0, 1.0, 1.0]), 0.0, 10.0)
    array([2.5, 3.5, 9. ])
    """
    if not len(wanted):
        return wanted
    order = np.argsort(wanted, kind="stable")
    tall = heights[order]
    # the labels stacked without a gap: what is left after taking it away must only not decrease
    stack = np.cumsum(tall) - tall / 2
    rest = isotonic_regression(wanted[order] - stack).x
    room = max(high - low - tall.sum(), 0.0)
    placed = np.empty(len(wanted))
    placed[order] = np.clip(rest, low, low + room) + stack
    return placed


def caption(evidence: Evidence) -> str:
    """What the slope chart shows."""
    clean, heaviest = (place.label for place in evidence.poles)
    floor = " Dotted grey: floor, the best constant answer." if np.isfinite(evidence.floor()) else ""
    better = evidence.metric.higher_is_better
    return (
        f"{evidence.metric.title}{'' if better else ', lower is better,'} of every system on {clean} and under the "
        f"heaviest noise, {heaviest}: {canvas.points(evidence)}. The more steeply a line "
        f"{'falls' if better else 'rises'}, the more its system loses. {canvas.uncertainty(evidence, 'Bars')}{floor}"
    )


def finding(evidence: Evidence) -> str:
    """Who is first and last at either end, and who loses most and least."""
    return f"{evidence.metric.title} at both ends. {' '.join(_told(evidence, regime) for regime in evidence.regimes)}"


def _told(evidence: Evidence, regime: str) -> str:
    metric, systems = evidence.metric, evidence.trained(regime)
    sign = 1 if metric.higher_is_better else -1
    found = {s: _ends(evidence, regime, s) for s in systems}
    ends = {s: both for s, both in found.items() if np.isfinite([e.value for e in both]).all()}
    if not ends:
        return f"Trained {regime}, it is undefined."
    said = []
    for side, place in enumerate(evidence.poles):
        best, *rest = sorted(ends, key=lambda s: -sign * ends[s][side].value)
        last = f", last {_at(evidence, rest[-1], ends[rest[-1]][side])}" if rest else ""
        said.append(f"{place.label}: {'first ' if rest else ''}{_at(evidence, best, ends[best][side])}{last}")
    loss = {s: sign * (clean.value - noisy.value) for s, (clean, noisy) in ends.items()}
    least, most = min(loss, key=loss.__getitem__), max(loss, key=loss.__getitem__)
    fall = f"largest measured loss {number(loss[most], metric)} ({evidence.title(most)})"
    if least != most:
        fall += f", smallest {number(loss[least], metric)} ({evidence.title(least)})"
    return f"Trained {regime}, {'; '.join(said)}; {fall}."


def _at(evidence: Evidence, system: str, estimate: Estimate) -> str:
    return f"{evidence.title(system)} {level(estimate, evidence.metric)}"
