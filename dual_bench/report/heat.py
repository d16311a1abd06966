"""The heat map: what every corruption costs every system at every severity, the number in each cell.

Colours are quantised losses, the same in all panels: nine steps of one ramp that grows darker evenly, which greyscale
and colour blindness leave in order. On a page the steps follow the theme; the colour of a number is that which
contrasts with its step in either theme, at least 5 : 1 (WCAG).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from dual_bench.report import canvas
from dual_bench.report.canvas import INK, MUTED, PAPER, WIDTH
from dual_bench.report.evidence import MATCHED, Evidence
from dual_bench.report.grid import Grid, Spot
from dual_bench.report.noise import DEPENDS, UNREACHED, Place, family
from dual_bench.report.numbers import NOTHING, listing, noun, number, percent
from dual_bench.stats.curves import Estimate

STEPS = ("#f5f3ef", "#ebd8ba", "#e3b883", "#d79452", "#c3722f", "#a74c17", "#8e371b", "#71291f", "#551c1d")
"""From no loss to the largest."""
ON_LOW, ON_HIGH = "#121212", "#fefefe"
"""Numbers on the first ``SWITCH`` steps, and on the others."""
SWITCH = 5

_ROW, _FAMILY, _TITLE, _FOOT, _SCALE = 0.2, 0.17, 0.42, 0.42, 0.62
"""Inches: a row, the name of a family above it, a title, the labels below, the scale."""
_TALLEST = 9.4
_TEXT, _LABEL = 6.3, 6.8
_EM = 0.56 / 72
"""Inches that a character takes for each point of its size."""


_CLEAN = Place("clean text", "clean", 0.0)


@dataclass(frozen=True)
class Sheet:
    """The panels of one figure, (regime, system) each, in rows."""

    name: str
    title: str
    panels: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Layout:
    """Inches: of the row labels, a cell, and the space between panels; and how many panels stand side by side."""

    labels: float
    cell: float
    gap: float
    across: int


def sheets(evidence: Evidence, grid: Grid) -> Iterator[Sheet]:
    """One figure for each regime, as many as it takes; a single one where there are one or two systems."""
    what = f"Corruptions by {'severity' if grid.by_severity else 'rate'}"
    if len(evidence.systems) <= 2:
        yield Sheet("", what, tuple(evidence.rows()))
        return
    across = _layout(evidence, grid, len(evidence.systems)).across
    rows = max(1, int((_TALLEST - _SCALE - _FOOT) // (_height(evidence, grid) + _TITLE)))
    for regime in evidence.regimes:
        systems = evidence.trained(regime)
        pages = [systems[i : i + across * rows] for i in range(0, len(systems), across * rows)]
        for number_, page in enumerate(pages, 1):
            more = f", {number_} of {len(pages)}" if len(pages) > 1 else ""
            name = f"{canvas.file_name(regime)}{f'-{number_}' if more else ''}"
            yield Sheet(name, f"{what}, trained {regime}{more}", tuple((regime, system) for system in page))


def draw(evidence: Evidence, grid: Grid, sheet: Sheet) -> Figure:
    """The panels of ``sheet``, and the scale below them."""
    layout = _layout(evidence, grid, len(sheet.panels))
    deep = -(-len(sheet.panels) // layout.across)
    each = _height(evidence, grid) + _TITLE
    height = deep * each + _FOOT + _SCALE
    figure = canvas.blank(height, layout=None)
    step = scale_step(evidence, grid)
    width = layout.cell * (len(grid.columns) + 1)
    for place, (regime, system) in enumerate(sheet.panels):
        row, column = divmod(place, layout.across)
        left = layout.labels + column * (width + layout.gap)
        bottom = height - (row + 1) * each
        panel = figure.add_axes((left / WIDTH, bottom / height, width / WIDTH, _height(evidence, grid) / height))
        lowest = place + layout.across >= len(sheet.panels)
        _panel(panel, evidence, grid, (regime, system), step, column == 0, lowest)
    _scale(figure, evidence, grid, step, height)
    return figure


def _layout(evidence: Evidence, grid: Grid, panels: int) -> _Layout:
    lines = [line for name in grid.rows for line in _row_label(evidence, name).split("\n")]
    lines += [name for name, _ in _families(grid)]
    labels = max(0.9, _LABEL * _EM * max(map(len, lines)) + 0.1)
    longest = max(len(_number(evidence, e, s)) for s, e, _ in _cells(evidence, grid))
    gap, count = 0.14, len(grid.columns) + 1
    width = max(count * max(_TEXT * _EM * longest + 0.03, 0.27), _TEXT * _EM * len(_axis_name(grid)) + 0.05)
    room = WIDTH - labels - 0.06
    most = max(1, int((room + gap) // (width + gap)))
    across = -(-panels // -(-panels // most))  # rows as even as can be
    cell = min((room - (across - 1) * gap) / across / count, 0.62)
    return _Layout(labels, cell, gap, across)


def _height(evidence: Evidence, grid: Grid) -> float:
    return sum(_row_height(evidence, name) for name in grid.rows) + _FAMILY * len(_families(grid))


def _row_height(evidence: Evidence, corruption: str) -> float:
    return _ROW + 0.07 * _row_label(evidence, corruption).count("\n")


def _families(grid: Grid) -> list[tuple[str, list[str]]]:
    return [(name, list(members)) for name, members in groupby(grid.rows, key=family)]


def _row_label(evidence: Evidence, corruption: str) -> str:
    depends = f"\n{DEPENDS}" if corruption in evidence.noise.chosen else ""
    return canvas.clipped(corruption, 36)[0] + depends


def _cells(evidence: Evidence, grid: Grid) -> Iterator[tuple[Spot, Estimate, float]]:
    """(spot, estimate, loss) of every cell but those of clean text."""
    for regime, system in evidence.rows():
        for (corruption, _), spot in grid.spots.items():
            place = Place("", corruption, spot.rate)
            yield spot, evidence.at(system, regime, place), loss_of(evidence, system, regime, place)


def loss_of(evidence: Evidence, system: str, regime: str, place: Place) -> float:
    """The loss against clean text; its interval, which takes long to compute, is not drawn."""
    clean, here = (evidence.at(system, regime, at).value for at in (_CLEAN, place))
    return clean - here if evidence.metric.higher_is_better else here - clean


def _number(evidence: Evidence, estimate: Estimate, spot: Spot | None) -> str:
    return number(estimate.value, evidence.metric) + ("" if spot is None or spot.reached else UNREACHED)


def scale_step(evidence: Evidence, grid: Grid) -> float:
    """The loss that one step of colour stands for: a round number, so that the largest loss has the last step."""
    worst = max((loss for *_, loss in _cells(evidence, grid) if np.isfinite(loss)), default=0.0)
    least = max(worst / (len(STEPS) - 1), 0.005 if evidence.metric.is_share else 1e-9)
    power = 10.0 ** np.floor(np.log10(least))
    return float(next(power * m for m in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if power * m >= least * (1 - 1e-9)))


def step_of(loss: float, step: float) -> int:
    """The step of colour of a loss; a gain has that of no loss.

    >>> step_of(0.12, 0.05), step_of(-0.3, 0.05)
    (2, 0)
    """
    return int(np.clip(round(loss / step), 0, len(STEPS) - 1))


def _panel(
    panel: Axes, evidence: Evidence, grid: Grid, who: tuple[str, str], step: float, labels: bool, lowest: bool
) -> None:
    regime, system = who
    panel.set_axis_off()
    columns, height = len(grid.columns) + 1, _height(evidence, grid)
    panel.set_xlim(0, columns)
    panel.set_ylim(height, 0)
    group = canvas.group(evidence, system)
    cells: list[_Cell] = []
    y = 0.0
    for name, members in _families(grid):
        if labels:
            _beside(panel, name, (0, y + _FAMILY), (-6, 1.5), ha="right", fontsize=6.3, color=MUTED, fontstyle="italic")
        y += _FAMILY
        for corruption in members:
            high = _row_height(evidence, corruption)
            if labels:
                look: dict[str, Any] = {"ha": "right", "va": "center", "fontsize": _LABEL, "linespacing": 0.95}
                _beside(panel, _row_label(evidence, corruption), (0, y + high / 2), (-6, 0), **look)
            cells += _row(evidence, grid, who, corruption, y, step)
            y += high
    _draw(panel, cells, group)
    (name,) = canvas.clipped(system, 48)
    size = min(8.0, panel.get_position().width * WIDTH / (_EM * (len(name) + 1)))
    _beside(panel, name, (0, 0), (0, 12), fontsize=size, fontweight="bold", gid=group)
    _beside(panel, f"trained {regime}", (0, 0), (0, 3), fontsize=6.8, color=MUTED, gid=group)
    if lowest:
        _column_labels(panel, grid, height)


def _row(
    evidence: Evidence, grid: Grid, who: tuple[str, str], corruption: str, y: float, step: float
) -> Iterator[_Cell]:
    """One corruption of one system: clean text, then each severity."""
    regime, system = who
    high = _row_height(evidence, corruption)

    def box(x: int) -> tuple[float, float, float, float]:
        return x + 0.02, y + 0.006, 0.96, high - 0.012

    yield _Cell(box(0), 0, _number(evidence, evidence.at(system, regime, _CLEAN), None), False)
    for x, column in enumerate(grid.columns, 1):
        spot = grid.spots.get((corruption, column))
        if spot is None:
            continue
        place = Place("", corruption, spot.rate)
        estimate, loss = evidence.at(system, regime, place), loss_of(evidence, system, regime, place)
        known = np.isfinite(loss)
        text = _number(evidence, estimate, spot) if known else NOTHING
        yield _Cell(box(x), step_of(loss, step) if known else None, text, not spot.reached)


@dataclass(frozen=True)
class _Cell:
    """A number on its colour, on none where it is undefined; ``box`` is left, top, width and height."""

    box: tuple[float, float, float, float]
    step: int | None
    text: str
    hatched: bool

    @property
    def ink(self) -> str:
        return INK if self.step is None else ON_LOW if self.step < SWITCH else ON_HIGH


def _draw(panel: Axes, cells: Sequence[_Cell], gid: str) -> None:
    """All cells of a panel."""
    colours = [PAPER if cell.step is None else STEPS[cell.step] for cell in cells]
    canvas.tiles(panel, [cell.box for cell in cells], facecolors=colours, gid=gid)
    for cell in cells:
        x, y, width, height = cell.box
        if cell.hatched:
            look: dict[str, Any] = {"fill": False, "edgecolor": cell.ink, "hatch": "////", "alpha": 0.5, "gid": gid}
            panel.add_patch(Rectangle((x, y), width, height, linewidth=0, **look))
        middle = (x + width / 2, y + height / 2)
        panel.text(*middle, cell.text, ha="center", va="center_baseline", fontsize=_TEXT, color=cell.ink, gid=gid)


def _beside(panel: Axes, text: str, at: tuple[float, float], points: tuple[float, float], **look: Any) -> None:
    """Text next to the cells, some points away."""
    panel.annotate(text, at, points, textcoords="offset points", annotation_clip=False, **look)


def _column_labels(panel: Axes, grid: Grid, height: float) -> None:
    below: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": _TEXT}
    _beside(panel, "clean", (0.5, height), (0, -3), **below)
    for x, column in enumerate(grid.columns, 1):
        text = f"{column:g}\n{percent(grid.target(column))}" if grid.by_severity else f"{100 * column:.3g}"
        _beside(panel, text, (x + 0.5, height), (0, -3), linespacing=1.1, **below)
    lines = 2 if grid.by_severity else 1
    _beside(panel, _axis_name(grid), ((1 + len(grid.columns)) / 2, height), (0, -4 - 8 * lines), color=MUTED, **below)


def _axis_name(grid: Grid) -> str:
    return "severity, target word error rate" if grid.by_severity else "nominal rate (%)"


def _scale(figure: Figure, evidence: Evidence, grid: Grid, step: float, height: float) -> None:
    """What the colours and the hatching mean."""
    panel = figure.add_axes((0.0, 0.0, 1.0, _SCALE / height))
    panel.set_axis_off()
    panel.set_xlim(0, WIDTH)
    panel.set_ylim(0, _SCALE)
    metric = evidence.metric
    unit = " (points)" if metric.is_share else ""
    panel.text(0.08, 0.34, f"loss in {noun(metric)}{unit}\nagainst clean text", fontsize=_LABEL, va="center")
    left, wide = 1.55, 0.4
    for i, colour in enumerate(STEPS):
        value = i * step * (100 if metric.is_share else 1)
        text = "0, gain" if i == 0 else f"{value:.4g}"
        panel.add_patch(Rectangle((left + i * wide, 0.24), wide, 0.2, facecolor=colour, linewidth=0))
        panel.text(left + (i + 0.5) * wide, 0.19, text, ha="center", va="top", fontsize=_TEXT)
    if grid.unreached():
        x = left + len(STEPS) * wide + 0.25
        panel.add_patch(Rectangle((x, 0.24), wide, 0.2, facecolor=STEPS[0], linewidth=0))
        panel.add_patch(
            Rectangle((x, 0.24), wide, 0.2, fill=False, edgecolor=ON_LOW, hatch="////", linewidth=0, alpha=0.5)
        )
        panel.text(x + wide / 2, 0.34, UNREACHED, ha="center", va="center_baseline", fontsize=_TEXT, color=ON_LOW)
        panel.text(x + wide + 0.08, 0.34, "target not reached", va="center_baseline", fontsize=_LABEL)


# ----------------------------------------------------------------------------------------------- caption


def caption(evidence: Evidence, grid: Grid, sheet: Sheet) -> str:
    """What the map shows, and what its signs mean."""
    metric = evidence.metric
    unit = " in %" if metric.is_share else ""
    direction = "" if metric.higher_is_better else ", lower is better"
    regimes = tuple(dict.fromkeys(regime for regime, _ in sheet.panels))
    where = (
        "A severity is a word error rate on the training text, for which the nominal rate of each corruption was "
        "sought."
        if grid.by_severity
        else "Columns are nominal rates, each the share of something else (see Methods)."
    )
    trained = f" Trained {MATCHED}, every cell is another model." if MATCHED in regimes else ""
    table = "severity" if grid.by_severity else "curves"
    return (
        f"{metric.title}{unit}{direction}, systems trained {listing(regimes)}: {canvas.points(evidence)}. Colour: "
        "loss against the clean text of the same system, on one scale in all panels. "
        f"{where}{trained}{marks(evidence, grid)} Intervals: tables/{table}.csv."
    )


def marks(evidence: Evidence, grid: Grid) -> str:
    """What the dagger stands for in each row, which rows are not there, and which depend on the model."""
    said = ""
    if found := grid.unreached():
        nearest = [
            f"{evidence.noise.label(name)} {percent(round(wer, 3))} in place of severity {listing(list(map(str, at)))}"
            for name, at, wer in found
        ]
        said += (
            f" {UNREACHED}: the corruption cannot make the target word error rate; the cell is the nearest that it "
            f"can, and severities that share a rate share the number: {'; '.join(nearest)}."
        )
    if grid.left_out:
        names = listing([evidence.noise.label(name) for name in grid.left_out])
        said += f" Without severity, and not in the map: {names}."
    chosen = [name for name in grid.rows if name in evidence.noise.chosen]
    if chosen:
        said += f" The text of {listing(chosen)} is chosen for each model: the worst that was found for it."
    return said
