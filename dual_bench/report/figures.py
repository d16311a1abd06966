"""All figures of a report, in its order; those of real recognisers and of training are drawn here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dual_bench.confidence import AURC
from dual_bench.report import (
    canvas,
    confidence,
    confusion,
    degradation,
    dependency,
    findings,
    forest,
    heat,
    matrix,
    reliability,
    slope,
)
from dual_bench.report.canvas import COLOURS, GRID, MUTED, Album, Picture
from dual_bench.report.evidence import MATCHED, Evidence
from dual_bench.report.noise import Place
from dual_bench.schema import CellInfo

HEAT, OVERVIEW, DEGRADATION, RANKS = "heatmap", "overview", "degradation-", "ranks"
MATRIX, CONFUSION, RELIABILITY = "matrix-", "confusion-", "reliability-"
PREFIXES = (HEAT, OVERVIEW, DEGRADATION, RANKS, MATRIX, CONFUSION, RELIABILITY)
"""How the names of figures begin of which there may be several."""
FIXED_NAMES = ("forest", "slope", "transcripts", "training", "dependency", "coverage")
"""The names of the others."""

MANY = 4
"""With more corruptions than this their curves are shown beside each other first."""


def pictures(evidence: Evidence, album: Album) -> tuple[Picture, ...]:
    """Draw every figure the run has rows for."""
    with canvas.style():
        return (
            *_forest(evidence, album),
            *_heat_maps(evidence, album),
            *_curves(evidence, album),
            *_slope(evidence, album),
            *_matrices(evidence, album),
            *_confusion(evidence, album),
            *_reliability(evidence, album),
            *_others(evidence, album),
        )


def _forest(evidence: Evidence, album: Album) -> Iterator[Picture]:
    if evidence.effects:
        figure, caption, alt = forest.forest(evidence), forest.caption(evidence), forest.finding(evidence)
        yield album.save(figure, "forest", "Effects", caption, alt)


def _heat_maps(evidence: Evidence, album: Album) -> Iterator[Picture]:
    grid = evidence.grid
    if grid is None:
        return
    for sheet in heat.sheets(evidence, grid):
        name = f"{HEAT}-{sheet.name}" if sheet.name else HEAT
        figure, caption = heat.draw(evidence, grid, sheet), heat.caption(evidence, grid, sheet)
        yield album.save(figure, name, sheet.title, caption, findings.heat_finding(evidence, grid, sheet))


def _curves(evidence: Evidence, album: Album) -> Iterator[Picture]:
    names = degradation.curved(evidence)
    for regime in evidence.regimes if len(names) > MANY else ():
        figure, caption = degradation.overview(evidence, regime), degradation.overview_caption(evidence, regime)
        alt = findings.overview_finding(evidence, names, regime)
        name = f"{OVERVIEW}-{canvas.file_name(regime)}"
        yield album.save(figure, name, f"All degradation curves, trained {regime}", caption, alt)
    many = len(evidence.systems) > canvas.MOST_TOGETHER
    if many and evidence.study and evidence.reference:
        yield from _apart(evidence, album, names)
        return
    for corruption in names:
        figure = (degradation.crowded if many else degradation.degradation)(evidence, corruption)
        caption = degradation.caption(evidence, corruption)
        alt = findings.curve_finding(evidence, corruption, evidence.regimes)
        name, title = f"{DEGRADATION}{canvas.file_name(corruption)}", evidence.noise.label(corruption)
        yield album.save(figure, name, f"Degradation under {title}", caption, alt)


def _apart(evidence: Evidence, album: Album, names: Sequence[str]) -> Iterator[Picture]:
    """The curves of an ablation of many variants, each beside the baseline's."""
    for corruption in names:
        for regime in evidence.regimes:
            if set(evidence.trained(regime)) <= {evidence.reference}:
                continue
            figure = degradation.apart(evidence, corruption, regime)
            caption = degradation.apart_caption(evidence, corruption, regime)
            alt = findings.curve_finding(evidence, corruption, (regime,))
            name = f"{DEGRADATION}{canvas.file_name(corruption)}-{canvas.file_name(regime)}"
            title = f"Degradation under {evidence.noise.label(corruption)}, trained {regime}"
            yield album.save(figure, name, title, caption, alt)


def _slope(evidence: Evidence, album: Album) -> Iterator[Picture]:
    if evidence.heaviest:
        figure, caption, alt = slope.figure(evidence), slope.caption(evidence), slope.finding(evidence)
        yield album.save(figure, "slope", "From clean text to the heaviest noise", caption, alt)


def _matrices(evidence: Evidence, album: Album) -> Iterator[Picture]:
    for regime in matrix.compared(evidence):
        figure, caption = matrix.figure(evidence, regime), matrix.caption(evidence, regime)
        name, title = f"{MATRIX}{canvas.file_name(regime)}", f"Every pair of systems, trained {regime}"
        yield album.save(figure, name, title, caption, matrix.finding(evidence, regime))


def _confusion(evidence: Evidence, album: Album) -> Iterator[Picture]:
    counts = confusion.counted(evidence)
    for regime in evidence.regimes if counts else ():
        figure, caption = confusion.figure(evidence, counts, regime), confusion.caption(evidence, counts, regime)
        name, title = f"{CONFUSION}{canvas.file_name(regime)}", f"Confusion matrices, trained {regime}"
        yield album.save(figure, name, title, caption, confusion.finding(evidence, counts, regime))


def _reliability(evidence: Evidence, album: Album) -> Iterator[Picture]:
    bins = reliability.binned(evidence)
    for regime in evidence.regimes if bins else ():
        figure, caption = reliability.figure(evidence, bins, regime), reliability.caption(evidence, bins, regime)
        name, title = f"{RELIABILITY}{canvas.file_name(regime)}", f"Calibration, trained {regime}"
        yield album.save(figure, name, title, caption, reliability.finding(evidence, bins, regime))


def _others(evidence: Evidence, album: Album) -> Iterator[Picture]:
    if evidence.transcripts and np.isfinite([evidence.noise.wer(name, 1.0) for name in evidence.transcripts]).all():
        figure, caption = recognisers(evidence), _recogniser_caption(evidence)
        alt = findings.transcript_finding(evidence)
        yield album.save(figure, "transcripts", "Real recognisers", caption, alt)
    if evidence.dependence:
        figure, caption = dependency.figure(evidence), dependency.caption(evidence)
        title = "What each modality is worth"
        yield album.save(figure, "dependency", title, caption, dependency.finding(evidence))
    if AURC.name in evidence.ends and len(evidence.systems) <= canvas.MOST_TOGETHER:
        figure, caption = confidence.figure(evidence), confidence.caption(evidence)
        yield album.save(figure, "coverage", "Accuracy and coverage", caption, confidence.finding(evidence))
    if evidence.run.cells:
        caption, alt = _learning_caption(evidence), findings.training_finding(evidence)
        yield album.save(learning(evidence), "training", "Training", caption, alt)


# -------------------------------------------------------------------------------------- real recognisers


def recognisers(evidence: Evidence) -> Figure:
    """The primary metric against the measured word error rate of real transcripts, and of made noise beside it."""
    heard = [p for p in evidence.places if p.rate == 0 or p.corruption in evidence.transcripts]
    x = np.array([100 * evidence.noise.wer(p.corruption, p.rate) for p in heard])
    edge, pad = 1.25 * max(float(np.nanmax(x)), 1.0), 8 + 9 * len(heard)
    labels, known = ("measured word error rate (%)", canvas.axis_label(evidence)), bool(np.isfinite(evidence.floor()))
    if len(evidence.systems) > canvas.MOST_TOGETHER:
        figure, seats = canvas.crowd(evidence, 1.6, 0.2 + pad / 72, labels)
        keys = canvas.bound_keys(known, False)
    else:
        figure, panels = canvas.subplots(1, len(evidence.regimes), 3.3)
        seats = [canvas.Seat(p, r, evidence.trained(r), True) for p, r in zip(panels, evidence.regimes, strict=True)]
        keys = canvas.keys(evidence, known, False, line=False)
        panels[0].set_ylabel(labels[1])
    for seat in seats:
        for i, system in enumerate(seat.systems):
            if made := _beside(evidence):
                _thin(seat.panel, evidence, system, seat.regime, made)
            # side by side, so that equal estimates do not hide one another
            aside = edge * 0.011 * (i - (len(seat.systems) - 1) / 2)
            _heard(seat.panel, evidence, (system, seat.regime), heard, x + aside)
        canvas.bounds(seat.panel, evidence, evidence.floor(), [])
        seat.panel.set_xlim(-0.06 * edge, edge)
        if len(evidence.systems) <= canvas.MOST_TOGETHER:
            seat.panel.set_xlabel(labels[0])
        if seat.top:
            seat.panel.set_title(f"trained {seat.regime}", loc="left", fontweight="bold", pad=pad)
        _names(seat.panel, [p.label.removesuffix(" text") for p in heard] if seat.top else [""] * len(heard), x)
    if keys:
        canvas.legend(figure, keys)
    return figure


def _heard(
    panel: Axes, evidence: Evidence, who: tuple[str, str], heard: Sequence[Place], x: np.ndarray[Any, np.dtype[Any]]
) -> None:
    """What one system makes of each text."""
    shape = canvas.look(evidence, who[0])
    estimates = [evidence.at(*who, place) for place in heard]
    y, low, high = (canvas.scaled(evidence, values) for values in canvas.ends(estimates))
    panel.plot(x, y, **shape | {"linestyle": "none", "markersize": 4.2})
    panel.vlines(x, low, high, color=shape["color"], linewidth=0.9, gid=shape["gid"])


def _beside(evidence: Evidence) -> str:
    """The corruption that is drawn beside real recognisers: the model of one, or words lost; or nothing."""
    return next((name for name in ("asr-model", "word-drop") if name in evidence.corruptions), "")


def _thin(panel: Axes, evidence: Evidence, system: str, regime: str, corruption: str) -> None:
    """The degradation curve of a corruption on the word error rate that it really made."""
    points = evidence.curves[system, regime, corruption]
    x = [100 * evidence.noise.wer(corruption, rate) for rate, _ in points]
    y = canvas.scaled(evidence, [e.value for _, e in points])
    panel.plot(x, y, **canvas.look(evidence, system) | {"marker": None, "linewidth": 0.7, "alpha": 0.6})


def _names(panel: Axes, names: Sequence[str], x: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    """Whose text it is, above each column of points, a row for each so that near ones do not collide."""
    for row, i in enumerate(np.argsort(x)):
        panel.axvline(x[i], color=GRID, linewidth=1.2, zorder=0)
        panel.annotate(
            names[i], (x[i], 1), (0, 3 + 9 * (len(x) - 1 - row)), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha="center", fontsize=7, color=MUTED,
        )  # fmt: skip


def _recogniser_caption(evidence: Evidence) -> str:
    made = _beside(evidence)
    thin = f" Thin lines: {made} on the word error rate that it made." if made else ""
    return (
        f"{evidence.metric.title} on text by real recognisers, against their measured word error rate on the "
        f"test part; clean text has none. {canvas.uncertainty(evidence, 'Bars')}{thin}"
    )


# ----------------------------------------------------------------------------------------------- training


def learning(evidence: Evidence) -> Figure:
    """Validation loss by epoch: a small panel for each system, a thin line for each trained model; of the regime
    matched, which trains one for each condition, the median and the range."""
    systems = evidence.systems
    shapes = {r: {"color": COLOURS[1 + i], "linestyle": canvas.DASHES[i]} for i, r in enumerate(evidence.regimes)}
    keys = [Line2D([], [], marker=None if r == MATCHED else "o", label=f"trained {r}", **shapes[r]) for r in shapes]
    drawn, panels = canvas.small_panels(len(systems), 1.0, ("epoch", "validation loss"), keys, most=4)
    for panel, system in zip(panels, systems, strict=True):
        panel.set_gid(canvas.group(evidence, system))
        for regime, shape in shapes.items():
            if regime == MATCHED:
                _range(panel, evidence.cells(system, regime), shape)
                continue
            _losses(panel, evidence.cells(system, regime), shape)
        canvas.small_title(panel, evidence.title(system))
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return drawn


def _validation(record: CellInfo) -> list[float]:
    return [epoch["validation"] for epoch in record.history if "validation" in epoch]


def _range(panel: Axes, records: Sequence[CellInfo], shape: dict[str, Any]) -> None:
    """Median and range, in each epoch, of the models that came so far."""
    histories = [losses for losses in map(_validation, records) if losses]
    if not histories:
        return
    epochs = range(max(map(len, histories)))
    there = [[losses[epoch] for losses in histories if epoch < len(losses)] for epoch in epochs]
    x = [epoch + 1 for epoch in epochs]
    panel.fill_between(x, list(map(min, there)), list(map(max, there)), color=shape["color"], alpha=0.18, linewidth=0)
    panel.plot(x, [float(np.median(losses)) for losses in there], linewidth=1.0, **shape)


def _losses(panel: Axes, records: Sequence[CellInfo], shape: dict[str, Any]) -> None:
    """The validation losses of each trained model, and a dot at the epoch that was kept."""
    x, y, kept = [], [], []
    for record in records:
        losses = _validation(record)
        x += [*range(1, len(losses) + 1), np.nan]  # one line with gaps is drawn faster than many
        y += [*losses, np.nan]
        if 1 <= record.best_epoch <= len(losses):
            kept.append((record.best_epoch, losses[record.best_epoch - 1]))
    panel.plot(x, y, linewidth=0.7, alpha=0.8, **shape)
    if kept:
        panel.plot(*zip(*kept, strict=True), marker="o", markersize=3, color=shape["color"], linestyle="none")


def _learning_caption(evidence: Evidence) -> str:
    matched = (
        f" Trained {MATCHED} there is a model for each condition and seed: the line is their median, the band their "
        "range, in each epoch over those that trained so long."
        if MATCHED in evidence.regimes
        else ""
    )
    lines = "a thin line for each trained model; a dot marks the epoch that was kept"
    only = evidence.regimes == (MATCHED,)
    return f"Validation loss by epoch{'' if only else f', {lines}'}.{matched}"
