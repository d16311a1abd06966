"""The figures: drawn with an Agg canvas of their own, no global state, the same bytes for the same numbers.

Each system has one colour, dash and marker in every figure (colours after Okabe & Ito 2008, darkened where white
paper asks for it), so that a figure survives greyscale and colour blindness. Widths are those of a two-column paper.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dual_bench.report import sentences as say
from dual_bench.report.evidence import LEVEL, Evidence
from dual_bench.stats.curves import Estimate
from dual_bench.store import CellInfo, replacing, write_text

WIDTH = 7.0
"""Inches: two columns of a paper."""

DEGRADATION, FIXED_NAMES = "degradation-", ("transcripts", "training")
"""Names of the figures: one for each corruption with a curve, and the others."""

INK, MUTED, GRID, PAPER = "#1a1a1a", "#6b6b6b", "#dddddd", "#ffffff"
COLOURS = (INK, "#0072b2", "#d55e00", "#009e73", "#b5578f", "#b07d00", "#3d9bd1")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1, 1)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)))
_MARKERS = "osD^vPX*"
_DOTTED, _DASHED = (0, (1, 2.5)), (0, (6, 3))

_STYLE = Path(__file__).parent / "templates" / "paper.mplstyle"


@dataclass(frozen=True)
class Picture:
    """A figure as SVG text, with its caption and a text alternative that states what it shows."""

    name: str
    title: str
    caption: str
    alt: str
    svg: str


def style() -> AbstractContextManager[None]:
    """The one style of all figures, for the length of a ``with`` block."""
    return mpl.rc_context(fname=_STYLE)


def pictures(evidence: Evidence, folder: Path) -> tuple[Picture, ...]:
    """Draw every figure the run has rows for, and write each as SVG and PNG into ``folder``."""
    drawn = []
    with style():
        for corruption in evidence.corruptions:
            if len(evidence.cube.rates(corruption)) > 1:
                name = f"{DEGRADATION}{file_name(corruption)}"
                caption = _degradation_caption(evidence, corruption)
                figure = degradation(evidence, corruption)
                alt = say.curve_finding(evidence, corruption)
                drawn.append(save(figure, folder, name, f"Degradation under {corruption}", caption, alt))
        if evidence.transcripts:
            drawn.append(
                save(
                    recognisers(evidence), folder, "transcripts", "Real recognisers", _recogniser_caption(evidence),
                    say.transcript_finding(evidence),
                )
            )  # fmt: skip
        caption = "Validation loss by epoch, a thin line for each trained model; a dot marks the epoch that was kept."
        drawn.append(save(learning(evidence), folder, "training", "Training", caption, say.training_finding(evidence)))
    return tuple(drawn)


def file_name(text: str) -> str:
    """The text with only letters, digits and dashes, for the name of a file."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in text)


def save(figure: Figure, folder: Path, name: str, title: str, caption: str, alt: str) -> Picture:
    """Write the figure as SVG and PNG, without date or version, so that the same numbers give the same bytes."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Title": title, "Description": alt})
    write_text(folder / f"{name}.svg", text.getvalue())
    with replacing(folder / f"{name}.png") as temporary:
        figure.savefig(temporary, format="png", dpi=200, metadata={"Software": None, "Description": alt})
    return Picture(name, title, caption, alt, text.getvalue())


# ---------------------------------------------------------------------------------------------- the look


def look(evidence: Evidence, system: str) -> dict[str, Any]:
    """Colour, dash and marker of a system; the reference is drawn in ink, and heavier."""
    i = evidence.systems.index(system)
    return {
        "color": COLOURS[i % len(COLOURS)],
        "linestyle": _DASHES[i % len(_DASHES)],
        "marker": _MARKERS[i % len(_MARKERS)],
        "linewidth": 1.9 if i == 0 else 1.2,
    }


def _canvas(rows: int, columns: int, height: float, sharey: bool = True) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, sharex=True, sharey=sharey, squeeze=False).flat)


def _scaled(evidence: Evidence, values: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.asarray(values, float) * (100 if evidence.metric.is_share else 1)


def _axis_label(evidence: Evidence) -> str:
    metric = evidence.metric
    direction = "" if metric.higher_is_better else "\nlower is better"
    return f"{metric.title}{' (%)' if metric.is_share else ''}{direction}"


def _legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """Below the panels, in even rows as wide as the longest label allows."""
    longest = max(len(str(handle.get_label())) for handle in handles)
    most = int(np.clip(WIDTH * 72 // (45 + 4.6 * longest), 1, 4))
    rows = -(-len(handles) // most)
    columns = -(-len(handles) // rows)
    figure.legend(handles=list(handles), loc="outside lower center", ncols=columns, columnspacing=1.6)


def _keys(evidence: Evidence, floor: bool, ceiling: bool, line: bool = True) -> list[Artist]:
    """What the legend explains: each system, floor and ceiling."""
    keys: list[Artist] = []
    for system in evidence.systems:
        shape = look(evidence, system)
        keys.append(Line2D([], [], label=system, **(shape if line else shape | {"linestyle": "none"})))
    if ceiling:
        keys.append(Line2D([], [], color=MUTED, linestyle=_DASHED, linewidth=1.3, label="ceiling (exact)"))
    if floor:
        keys.append(Line2D([], [], color=MUTED, linestyle=_DOTTED, linewidth=1.3, label="floor"))
    return keys


# ----------------------------------------------------------------------------------- degradation curves


def degradation(evidence: Evidence, corruption: str) -> Figure:
    """The primary metric against the nominal rate, a panel for each training regime."""
    regimes = evidence.regimes
    figure, panels = _canvas(1, len(regimes), 3.3)
    floor, ceiling = evidence.floor(), evidence.ceiling(corruption)
    for panel, regime in zip(panels, regimes, strict=True):
        for system in reversed(evidence.trained(regime)):
            _curve(panel, evidence, system, evidence.curves[system, regime, corruption])
        _bounds(panel, evidence, floor, ceiling)
        panel.set_title(f"trained {regime}", loc="left", fontweight="bold")
        panel.set_xlabel(f"{_lost(corruption)} (nominal rate, %)")
    panels[0].set_ylabel(_axis_label(evidence))
    _legend(figure, _keys(evidence, bool(np.isfinite(floor)), bool(ceiling)))
    return figure


def _lost(corruption: str) -> str:
    return {"word-drop": "words lost", "utterance-drop": "utterances without text"}.get(corruption, corruption)


def _curve(panel: Axes, evidence: Evidence, system: str, points: Sequence[tuple[float, Estimate]]) -> None:
    """One system: its line and, where there is an interval, its band."""
    shape = look(evidence, system)
    x = 100 * np.array([rate for rate, _ in points])
    y, low, high = (_scaled(evidence, ends) for ends in _ends([e for _, e in points]))
    panel.plot(x, y, **shape)
    if np.isfinite(low).any():
        panel.fill_between(x, low, high, color=shape["color"], alpha=0.13, linewidth=0)


def _ends(estimates: Sequence[Estimate]) -> tuple[list[float], list[float], list[float]]:
    return (
        [e.value for e in estimates],
        [e.interval.low for e in estimates],
        [e.interval.high for e in estimates],
    )


def _bounds(panel: Axes, evidence: Evidence, floor: float, ceiling: Sequence[tuple[float, float]]) -> None:
    if np.isfinite(floor):
        panel.axhline(_scaled(evidence, [floor])[0], color=MUTED, linestyle=_DOTTED, linewidth=1.3)
    if ceiling:
        rates, values = zip(*ceiling, strict=True)
        panel.plot(100 * np.array(rates), _scaled(evidence, values), color=MUTED, linestyle=_DASHED, linewidth=1.3)


def _uncertainty(evidence: Evidence, what: str) -> str:
    reason = evidence.no_interval()
    return (
        f"No {what.lower()}: {reason}." if reason else f"{what}: {100 * LEVEL:g} % intervals, pointwise (see Methods)."
    )


def _degradation_caption(evidence: Evidence, corruption: str) -> str:
    cube = evidence.cube
    means = f"mean over {say.plural(len(cube.seeds), 'training seed')} and {say.plural(cube.draws, 'noise draw')}"
    bounds = (
        " Dashed grey: exact ceiling, what a perfect perceiver expects of any such corpus; on one sample a "
        "model may lie above it by chance."
        if evidence.ceiling(corruption)
        else ""
    )
    bounds += " Dotted grey: floor, the best constant answer." if np.isfinite(evidence.floor()) else ""
    return (
        f"{evidence.metric.title} when the test text suffers {corruption}. Lines: {means}. "
        f"{_uncertainty(evidence, 'Bands')}{bounds}"
    )


# -------------------------------------------------------------------------------------- real recognisers


def recognisers(evidence: Evidence) -> Figure:
    """The primary metric against the measured word error rate of real transcripts, and of word-drop beside it."""
    regimes, floor = evidence.regimes, evidence.floor()
    wer = evidence.noise.set_index(["corruption", "rate"])["wer"]
    heard = [p for p in evidence.places if p.rate == 0 or p.corruption in evidence.transcripts]
    x = np.array([0.0 if p.rate == 0 else 100 * float(wer.loc[p.corruption].iloc[0]) for p in heard])
    edge = 1.25 * max(float(np.nanmax(x)), 1.0)
    figure, panels = _canvas(1, len(regimes), 3.3)
    for panel, regime in zip(panels, regimes, strict=True):
        systems = evidence.trained(regime)
        for i, system in enumerate(systems):
            shape = look(evidence, system)
            if "word-drop" in evidence.corruptions:
                _thin(panel, evidence, system, regime, edge)
            estimates = [evidence.at(system, regime, place) for place in heard]
            y, low, high = (_scaled(evidence, ends) for ends in _ends(estimates))
            # side by side, so that equal estimates do not hide one another
            aside = edge * 0.011 * (i - (len(systems) - 1) / 2)
            panel.plot(x + aside, y, color=shape["color"], marker=shape["marker"], linestyle="none", markersize=4.2)
            panel.vlines(x + aside, low, high, color=shape["color"], linewidth=0.9)
        _bounds(panel, evidence, floor, [])
        panel.set_xlim(-0.06 * edge, edge)
        panel.set_title(f"trained {regime}", loc="left", fontweight="bold", pad=8 + 9 * len(heard))
        panel.set_xlabel("measured word error rate (%)")
        _names(panel, [p.label.removesuffix(" text") for p in heard], x)
    panels[0].set_ylabel(_axis_label(evidence))
    _legend(figure, _keys(evidence, bool(np.isfinite(floor)), False, line=False))
    return figure


def _thin(panel: Axes, evidence: Evidence, system: str, regime: str, edge: float) -> None:
    """The degradation curve of word-drop on the word error rate that it really made."""
    wer = evidence.noise.set_index(["corruption", "rate"])["wer"]
    points = evidence.curves[system, regime, "word-drop"]
    x = [0.0 if rate == 0 else 100 * float(wer.loc[("word-drop", rate)]) for rate, _ in points]
    y = _scaled(evidence, [e.value for _, e in points])
    shape = look(evidence, system)
    panel.plot(x, y, color=shape["color"], linestyle=shape["linestyle"], linewidth=0.7, alpha=0.6)


def _names(panel: Axes, names: Sequence[str], x: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    """Whose text it is, above each column of points, a row for each so that near ones do not collide."""
    for row, i in enumerate(np.argsort(x)):
        panel.axvline(x[i], color=GRID, linewidth=1.2, zorder=0)
        panel.annotate(
            names[i], (x[i], 1), (0, 3 + 9 * (len(x) - 1 - row)), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha="center", fontsize=7, color=MUTED,
        )  # fmt: skip


def _recogniser_caption(evidence: Evidence) -> str:
    thin = " Thin lines: word-drop on the word error rate that it made." if "word-drop" in evidence.corruptions else ""
    return (
        f"{evidence.metric.title} on text by real recognisers, against their measured word error rate on the "
        f"test part; clean text has none. {_uncertainty(evidence, 'Bars')}{thin}"
    )


# ----------------------------------------------------------------------------------------------- training


def learning(evidence: Evidence) -> Figure:
    """Validation loss by epoch: a small panel for each system, a thin line for each trained model."""
    systems = evidence.systems
    columns = min(3, len(systems))
    rows = -(-len(systems) // columns)
    figure, panels = _canvas(rows, columns, 0.7 + 1.35 * rows)
    shapes = {r: {"color": COLOURS[1 + i], "linestyle": _DASHES[i]} for i, r in enumerate(evidence.regimes)}
    for i, (panel, system) in enumerate(zip(panels, systems, strict=False)):
        for regime, shape in shapes.items():
            for record in evidence.cells(system, regime):
                _losses(panel, record, shape)
        panel.set_title(system, loc="left")
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if i + columns >= len(systems):
            panel.set_xlabel("epoch")
            panel.tick_params(labelbottom=True)
        if i % columns == 0:
            panel.set_ylabel("validation loss")
    for panel in panels[len(systems) :]:
        panel.set_visible(False)
    _legend(figure, [Line2D([], [], marker="o", label=f"trained {regime}", **shapes[regime]) for regime in shapes])
    return figure


def _losses(panel: Axes, record: CellInfo, shape: dict[str, Any]) -> None:
    """The validation losses of one trained model, and a dot at the epoch that was kept."""
    losses = [epoch["validation"] for epoch in record.history if "validation" in epoch]
    panel.plot(range(1, len(losses) + 1), losses, linewidth=0.7, alpha=0.8, **shape)
    kept = record.best_epoch
    if 1 <= kept <= len(losses):
        panel.plot(kept, losses[kept - 1], marker="o", markersize=3, color=shape["color"])
