"""What all figures share: an Agg canvas of their own, no global state, one style, the same bytes for the same numbers.

Each system has one colour, dash and marker in every figure (colours after Okabe & Ito 2008, darkened where white
paper asks for it), so that a figure survives greyscale and colour blindness. Widths are those of a two-column paper.
"""

from __future__ import annotations

import hashlib
import io
import re
import textwrap
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.text import Text

from dual_bench.report.evidence import LEVEL, Evidence
from dual_bench.report.numbers import plural
from dual_bench.shown import legible, shortened
from dual_bench.stats.curves import Estimate
from dual_bench.store import replacing, write_text

MOST_TOGETHER = 7
"""Systems whose curves one panel has room for."""

WIDTH = 7.0
"""Inches: two columns of a paper."""
_DPI, _TALL = 200, 6.0
"""Of PNG files, and from how many inches of height on fewer will do."""

INK, MUTED, GRID, PAPER = "#1a1a1a", "#6b6b6b", "#dddddd", "#ffffff"
COLOURS = (INK, "#0072b2", "#d55e00", "#009e73", "#b5578f", "#b07d00", "#3d9bd1")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1, 1)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)))
_MARKERS = "osD^vPX*"
_DOTTED, _DASHED = (0, (1, 2.5)), (0, (6, 3))
PROMISE: Any = (0, (1, 1))
"""The dash of what is certified whatever the text."""

_LONGEST = 72
"""Characters of a line in a figure."""

_STYLE = Path(__file__).parent / "templates" / "paper.mplstyle"


@dataclass(frozen=True)
class Picture:
    """A figure as SVG text, empty where the album takes none, with its caption and a text alternative that states what
    it shows."""

    name: str
    title: str
    caption: str
    alt: str
    svg: str


@contextmanager
def style() -> Iterator[None]:
    """The one style of all figures, for the length of a ``with`` block."""
    with mpl.rc_context(fname=_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # a letter that the font lacks is drawn as a box
        yield


def file_name(text: str) -> str:
    """The text with only letters, digits and dashes, for the name of a file; where that is another text, or too long,
    it ends in a digest."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in text)
    return safe if safe == text and len(safe) <= 80 else f"{safe[:60]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def wrapped(text: str, width: int) -> str:
    """The text in at most 4 lines of at most ``width`` characters, as far as spaces and commas allow.

    >>> wrapped("dual:sdm=off,vdm=off", 14)
    'dual:sdm=off,\\nvdm=off'
    """
    return "\n".join(textwrap.wrap(re.sub(r",\b", ", ", legible(text)), width, max_lines=4, placeholder="…"))


@dataclass(frozen=True)
class Album:
    """Where figures go: each is written to ``folder`` as every one of ``kinds``, of svg, png and pdf."""

    folder: Path
    kinds: Collection[str]

    def save(self, figure: Figure, name: str, title: str, caption: str, alt: str) -> Picture:
        """Write the figure without date or version, so that the same numbers give the same bytes."""
        title, caption, alt = map(legible, (title, caption, alt))
        _tame(figure)
        settle(figure)
        text = io.StringIO()
        if "svg" in self.kinds:
            said = {"Date": None, "Creator": None, "Title": title, "Description": alt}
            figure.savefig(text, format="svg", metadata=said)
            write_text(self.folder / f"{name}.svg", text.getvalue())
        if "png" in self.kinds:
            tall = figure.get_figheight() > _TALL
            with replacing(self.folder / f"{name}.png") as temporary:
                figure.savefig(
                    temporary, format="png", dpi=_DPI * (2 / 3 if tall else 1), pil_kwargs={"compress_level": 4},
                    metadata={"Software": None, "Description": alt},
                )  # fmt: skip
        if "pdf" in self.kinds:
            unsaid = {"Creator": None, "Producer": None, "CreationDate": None}
            with replacing(self.folder / f"{name}.pdf") as temporary:
                figure.savefig(temporary, format="pdf", metadata={**unsaid, "Title": title, "Subject": alt})
        return Picture(name, title, caption, alt, text.getvalue())


def _tame(figure: Figure) -> None:
    """Make all text of a figure legible, and no line of it endless."""

    def tamed(text: str) -> str:
        return "\n".join(shortened(line, _LONGEST) for line in legible(text).split("\n"))

    for written in figure.findobj(Text):
        written.set_text(tamed(written.get_text()))
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        labels = [label.get_text() for label in axis.get_ticklabels()]
        if any(tamed(label) != label for label in labels):  # they are written anew whenever the figure is drawn
            axis.set_ticks(axis.get_ticklocs(), [tamed(label) for label in labels])


def settle(figure: Figure) -> None:
    """Lay the figure out once, which takes as long as drawing it, and the same for all kinds of file."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")


def group(evidence: Evidence, system: str) -> str:
    """The id, in SVG, of what belongs to one system in any figure, so that a page can hide it everywhere."""
    return f"system-{evidence.systems.index(system)}"


def look(evidence: Evidence, system: str) -> dict[str, Any]:
    """Colour, dash, marker and group of a system; the reference is drawn in ink, and heavier.

    Six systems in a row have six colours, and the next six the same ones with other dashes.
    """
    i = evidence.systems.index(system)
    more, colour = divmod(i - 1, len(COLOURS) - 1)
    return {
        "color": COLOURS[1 + colour] if i else INK,
        "linestyle": DASHES[(1 + colour + more) % len(DASHES)] if i else DASHES[0],
        "marker": _MARKERS[i % len(_MARKERS)],
        "linewidth": 1.2 if i else 1.9,
        "gid": group(evidence, system),
    }


def blank(height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    figure = Figure(figsize=(WIDTH, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def subplots(rows: int, columns: int, height: float, sharey: bool = True) -> tuple[Figure, list[Axes]]:
    figure = blank(height)
    return figure, list(figure.subplots(rows, columns, sharex=True, sharey=sharey, squeeze=False).flat)


_LEFT, _RIGHT, _SIDE, _TITLE, _TICKS, _ROW = 0.52, 0.12, 0.2, 0.3, 0.44, 0.18
"""Inches around small panels: left and right of all, between them, a title, tick and axis labels, a legend's row."""
HEADING = 0.22
"""Inches of what stands above all panels."""


def small_panels(
    count: int, tall: float, labels: tuple[str, str], handles: Sequence[Artist], heading: str = "", most: int = 5
) -> tuple[Figure, list[Axes]]:
    """``count`` panels of this height with the same axes, at most ``most`` side by side, and a legend of ``handles``.

    Laid out by hand, with room for titles of two lines: of many panels, constrained layout takes longer than drawing.
    """
    rows = -(-count // most)
    columns = -(-count // rows)
    below = _TICKS + _ROW * _legend_rows(handles)[0] + 0.08
    above = HEADING if heading else 0.0
    height = above + rows * (tall + _TITLE) + below
    figure = blank(height, layout=None)
    head(figure, heading)
    wide = min((WIDTH - _LEFT - _RIGHT + _SIDE) / columns - _SIDE, 2.2)
    panels: list[Axes] = []
    for i in range(count):
        row, column = divmod(i, columns)
        left, bottom = _LEFT + column * (wide + _SIDE), height - above - (row + 1) * (tall + _TITLE)
        first = panels[0] if panels else None
        box = (left / WIDTH, bottom / height, wide / WIDTH, tall / height)
        panel = figure.add_axes(box, sharex=first, sharey=first)
        lowest = i + columns >= count
        panel.tick_params(labelsize=6.5, labelleft=column == 0, labelbottom=lowest)
        panel.set_xlabel(labels[0] if lowest else "", fontsize=7)
        panel.set_ylabel(labels[1] if column == 0 else "", fontsize=7)
        panels.append(panel)
    legend(figure, handles)
    return figure, panels


def head(figure: Figure, text: str) -> None:
    """What all panels have in common, in the upper left corner."""
    figure.text(0.08 / WIDTH, 1 - 0.19 / figure.get_figheight(), text, fontsize=8.5, fontweight="bold")


@dataclass(frozen=True)
class Seat:
    """A panel of a crowd: the training regime, and the few systems that it shows."""

    panel: Axes
    regime: str
    systems: tuple[str, ...]
    top: bool


def crowd(evidence: Evidence, tall: float, above: float, labels: tuple[str, str]) -> tuple[Figure, list[Seat]]:
    """Room for more systems than one panel has: a row of panels for a few of them, each beside the first of all.

    There is a column for each regime, and the systems of a row are named to the right of it.
    """
    first, *others = evidence.systems
    rows = -(-len(others) // (MOST_TOGETHER - 1))
    size = -(-len(others) // rows)
    left, right, below, regimes = 0.55, 1.75, 0.65, evidence.regimes
    wide = min((WIDTH - left - right - _SIDE * (len(regimes) - 1)) / len(regimes), 3.2)
    height = above + rows * (tall + _SIDE) + below
    figure, seats, shared = blank(height, layout=None), [], None
    for row, column in np.ndindex(rows, len(regimes)):
        corner = (left + column * (wide + _SIDE), height - above - row * (tall + _SIDE) - tall)
        box = (corner[0] / WIDTH, corner[1] / height, wide / WIDTH, tall / height)
        panel = figure.add_axes(box, sharex=shared, sharey=shared)
        shared = shared or panel
        together = (first, *others[row * size : (row + 1) * size])
        there = evidence.trained(regimes[column])
        seats.append(Seat(panel, regimes[column], tuple(s for s in together if s in there), row == 0))
        panel.tick_params(labelsize=7, labelbottom=row == rows - 1, labelleft=column == 0)
        panel.set_xlabel(labels[0] if row == rows - 1 else "", fontsize=7)
        panel.set_ylabel(labels[1] if column == 0 else "", fontsize=7)
        if column == len(regimes) - 1:
            _beside(panel, [system_key(evidence, system) for system in together])
    return figure, seats


def small_title(panel: Axes, text: str, **look: Any) -> None:
    """A title in at most two lines, no wider than its panel."""
    size = 7.0
    letters = int(panel.get_position().width * WIDTH * 72 / (0.6 * size))
    panel.set_title("\n".join(clipped(text, letters, 2)), loc="left", fontsize=size, linespacing=0.95, pad=3, **look)


def clipped(text: str, width: int, lines: int = 1) -> list[str]:
    """The text in at most so many lines of at most ``width`` characters; an ellipsis stands for what is cut off.

    >>> clipped("dual:sdm=off,vdm=off,width=64", 13, 2)
    ['dual:sdm=off,', 'vdm=off, wid…']
    """
    whole = wrapped(text, width).split("\n")
    kept, rest = whole[: lines - 1], " ".join(whole[lines - 1 :])
    return [*kept, rest if len(rest) <= width else f"{rest[: width - 1]}…"] if rest else kept


def scaled(evidence: Evidence, values: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.asarray(values, float) * (100 if evidence.metric.is_share else 1)


def axis_label(evidence: Evidence) -> str:
    metric = evidence.metric
    direction = "" if metric.higher_is_better else "\nlower is better"
    return f"{metric.title}{' (%)' if metric.is_share else ''}{direction}"


def legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """Below the panels, in even rows as wide as the longest label allows."""
    rows, columns = _legend_rows(handles)
    if figure.get_layout_engine():
        figure.set_figheight(figure.get_figheight() + _ROW * max(rows - 2, 0))
    place: Any = "outside lower center" if figure.get_layout_engine() else "lower center"
    drawn = figure.legend(
        handles=list(handles), loc=place, ncols=columns, columnspacing=1.6, borderaxespad=0.3, borderpad=0.2
    )
    _grouped(drawn, handles)


def _beside(panel: Axes, handles: Sequence[Artist]) -> None:
    """A legend to the right of a panel, in one column."""
    for handle in handles:
        handle.set_label("\n".join(clipped(str(handle.get_label()), 20, 2)))
    drawn = panel.legend(
        handles=list(handles), loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=7, handlelength=2.6,
        borderaxespad=0.2, labelspacing=0.35,
    )  # fmt: skip
    _grouped(drawn, handles)


def _grouped(drawn: Legend, handles: Sequence[Artist]) -> None:
    """What a legend explains is in the group of what it explains."""
    for handle, key, text in zip(handles, drawn.legend_handles, drawn.get_texts(), strict=True):
        for artist in (key, text):
            if artist is not None:
                artist.set_gid(handle.get_gid())


def _legend_rows(handles: Sequence[Artist]) -> tuple[int, int]:
    """Rows and columns of a legend, whose labels are shortened if need be."""
    for handle in handles:
        handle.set_label(clipped(str(handle.get_label()), 40)[0])
    longest = max(len(str(handle.get_label())) for handle in handles)
    most = int(np.clip(WIDTH * 72 // (45 + 4.6 * longest), 1, 4))
    rows = -(-len(handles) // most)
    return rows, -(-len(handles) // rows)


def keys(evidence: Evidence, floor: bool, ceiling: bool, line: bool = True) -> list[Artist]:
    """What the legend explains: each system, floor and ceiling."""
    return [*(system_key(evidence, s, line) for s in evidence.systems), *bound_keys(floor, ceiling)]


def system_key(evidence: Evidence, system: str, line: bool = True) -> Line2D:
    shape = look(evidence, system)
    return Line2D([], [], label=evidence.title(system), **(shape if line else shape | {"linestyle": "none"}))


def bound_keys(floor: bool, ceiling: bool) -> list[Artist]:
    found: list[Artist] = []
    if ceiling:
        found.append(Line2D([], [], color=MUTED, linestyle=_DASHED, linewidth=1.3, label="ceiling (exact)"))
    if floor:
        found.append(Line2D([], [], color=MUTED, linestyle=_DOTTED, linewidth=1.3, label="floor"))
    return found


def points(evidence: Evidence) -> str:
    """What a point of a figure is the mean over."""
    cube = evidence.cube
    return f"mean over {plural(len(cube.seeds), 'training seed')} and {plural(cube.draws, 'noise draw')}"


def ends(estimates: Sequence[Estimate]) -> tuple[list[float], list[float], list[float]]:
    return (
        [e.value for e in estimates],
        [e.interval.low for e in estimates],
        [e.interval.high for e in estimates],
    )


VARIANT: dict[str, Any] = {"color": COLOURS[2], "linestyle": DASHES[1], "marker": "s", "linewidth": 1.2}
"""The look of whatever stands beside the baseline, where each has a panel of its own."""


def line(
    panel: Axes,
    evidence: Evidence,
    system: str,
    x: Sequence[float],
    estimates: Sequence[Estimate],
    band: bool = True,
    shape: dict[str, Any] | None = None,
) -> None:
    """One system: its line against ``x`` (shares) and, where there is an interval, its band."""
    shape, percent = shape or look(evidence, system), 100 * np.asarray(x)
    y, low, high = (scaled(evidence, values) for values in ends(estimates))
    panel.plot(percent, y, **shape)
    if band and np.isfinite(low).any():
        panel.fill_between(percent, low, high, color=shape["color"], alpha=0.13, linewidth=0, gid=shape.get("gid"))


def bounds(panel: Axes, evidence: Evidence, floor: float, ceiling: Sequence[tuple[float, float]]) -> None:
    """The floor, and the ceiling as (share on the x axis, value)."""
    if np.isfinite(floor):
        panel.axhline(scaled(evidence, [floor])[0], color=MUTED, linestyle=_DOTTED, linewidth=1.3)
    if ceiling:
        x, values = zip(*ceiling, strict=True)
        panel.plot(100 * np.array(x), scaled(evidence, values), color=MUTED, linestyle=_DASHED, linewidth=1.3)


def promise(panel: Axes, evidence: Evidence, system: str, regime: str, shape: dict[str, Any] | None = None) -> bool:
    """The line under which no text brings the system, where it has one; whether it has."""
    bound = evidence.certified.get((system, regime))
    if bound is None or not bound.reads_words:
        return False
    shape, height = shape or look(evidence, system), scaled(evidence, [bound.metric.value])[0]
    panel.axhline(height, color=shape["color"], linestyle=PROMISE, linewidth=1.1, gid=shape.get("gid"))
    return True


def promise_key() -> Line2D:
    return Line2D([], [], color=MUTED, linestyle=PROMISE, linewidth=1.1, label="certified, any text")


def uncertainty(evidence: Evidence, what: str) -> str:
    reason = evidence.no_interval()
    return (
        f"No {what.lower()}: {reason}." if reason else f"{what}: {100 * LEVEL:g} % intervals, pointwise (see Methods)."
    )


def tiles(panel: Axes, boxes: Sequence[tuple[float, float, float, float]], **look: Any) -> None:
    """Rectangles (left, bottom, width, height), all at once: ``facecolors`` may be one or as many as there are."""
    corners = [[(x, y), (x + w, y), (x + w, y + h), (x, y + h)] for x, y, w, h in boxes]
    panel.add_collection(PolyCollection(corners, **{"linewidths": 0, **look}), autolim=False)
