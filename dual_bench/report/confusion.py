"""Confusion matrices: which class is taken for which, on clean text and under the heaviest noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dual_bench.report import canvas
from dual_bench.report.canvas import MUTED, WIDTH
from dual_bench.report.evidence import Evidence
from dual_bench.report.heat import ON_HIGH, ON_LOW, STEPS, SWITCH
from dual_bench.report.matrix import order
from dual_bench.report.noise import Place
from dual_bench.report.numbers import fixed, listing
from dual_bench.report.table import Table
from dual_bench.stats.frame import numbered, system_name
from dual_bench.types import FloatArray, IntArray

MOST_SHOWN = 8
"""Systems in one figure; the table has all."""
_ABOVE, _GAP, _SIZE = 0.36, 0.08, 6.0
"""Inches above each matrix and between two, and points of text."""
_EM = 0.6 / 72
_LETTERS = 14
"""Of the name of a class."""

Counts = Mapping[tuple[str, str, Place], IntArray]
"""(regime, system, place) -> how often (true, predicted) in all seeds and draws, (K, K)."""


def counted(evidence: Evidence) -> Counts:
    """The answers on clean text and under the heaviest noise, of the training seeds that count; none of regression."""
    if evidence.metric.task != "classification":
        return {}
    rows = evidence.few
    scores = rows.filter(like="score_")
    classes = scores.shape[1]
    answer = scores.to_numpy().argmax(axis=1)
    cell = rows["truth"].to_numpy().astype(int) * classes + answer
    code, names = numbered(rows, ["model", "variant", "regime"])
    found = {}
    for place in evidence.poles:
        there = (rows["corruption"] == place.corruption).to_numpy() & (rows["rate"] == place.rate).to_numpy()
        every = np.bincount(code[there] * classes**2 + cell[there], minlength=len(names) * classes**2)
        for (model, variant, regime), counts in zip(names, every.reshape(-1, classes, classes), strict=True):
            found[regime, system_name(model, variant), place] = counts
    return found


def shares(counts: IntArray) -> FloatArray:
    """Of each true class (row), the share that is taken for each (column); NaN for a class without utterances."""
    totals = counts.sum(axis=1, keepdims=True)
    found: FloatArray = np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    return found


def table(evidence: Evidence) -> Table | None:
    """Every cell of every matrix; ``n`` is how many test utterances are of the true class."""
    counts = counted(evidence)
    classes = _classes(evidence, counts)
    rows: list[dict[str, Any]] = []
    for regime, system in evidence.rows() if counts else ():
        for place in evidence.poles:
            share, sizes = shares(counts[regime, system, place]), _sizes(evidence, counts[regime, system, place])
            for i, j in np.ndindex(*share.shape):
                rows.append(
                    {
                        "trained": regime, "system": system, "condition": place.label, "corruption": place.corruption,
                        "rate": place.rate, "true": classes[i], "predicted": classes[j], "share": share[i, j],
                        "n": sizes[i],
                    }
                )  # fmt: skip
    return Table("confusion", "Confusion matrices", pd.DataFrame(rows), None) if rows else None


def _sizes(evidence: Evidence, counts: IntArray) -> list[int]:
    """How many test utterances each true class has."""
    return [round(n) for n in counts.sum(axis=1) * evidence.cube.utterances / counts.sum()]


def _classes(evidence: Evidence, counts: Counts) -> tuple[str, ...]:
    """The names of the classes, or their numbers where a file did not tell."""
    count = len(next(iter(counts.values()))) if counts else 0
    named = evidence.run.info.corpus.classes
    return named if len(named) == count else tuple(map(str, range(count)))


def drawn(evidence: Evidence, regime: str) -> list[str]:
    """The systems that have room: the reference, and those that are best on clean text."""
    ranked = order(evidence, regime)
    reference = [s for s in ranked if s == evidence.reference]
    return (reference + [s for s in ranked if s not in reference])[:MOST_SHOWN]


def figure(evidence: Evidence, counts: Counts, regime: str) -> Figure:
    """A pair of matrices for each system: rows are true classes, columns what was answered."""
    classes = [name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…" for name in _classes(evidence, counts)]
    systems, places, k = drawn(evidence, regime), evidence.poles, len(classes)
    labels = 0.12 + _EM * _SIZE * max(map(len, classes))
    room = WIDTH - labels - 0.3
    across = int(np.clip(room // (len(places) * (k * 0.2 + _GAP) + 0.1), 1, min(3, len(systems))))
    stride = (room - 0.1 * (across - 1)) / across
    cell = min((stride / len(places) - _GAP) / k, 0.42)
    stride = min(stride, max(len(places) * (k * cell + _GAP), 1.6))
    high = min(cell, 0.19)
    deep = -(-len(systems) // across)
    below = labels + 0.25
    each = _ABOVE + k * high
    height = canvas.HEADING + deep * each + below
    figure_ = canvas.blank(height, layout=None)
    canvas.head(figure_, f"trained {regime}")
    for i, system in enumerate(systems):
        row, column = divmod(i, across)
        for j, place in enumerate(places):
            left = 0.24 + labels + column * (stride + 0.1) + j * (k * cell + _GAP)
            bottom = height - canvas.HEADING - (row + 1) * each
            panel = figure_.add_axes((left / WIDTH, bottom / height, k * cell / WIDTH, k * high / height))
            panel.set_gid(canvas.group(evidence, system))
            _matrix(panel, shares(counts[regime, system, place]))
            _above(panel, place.label, 3, k * cell, MUTED)
            if j == 0:
                _above(panel, evidence.title(system), 11, len(places) * (k * cell + _GAP), "", fontweight="bold")
            if column == 0 and j == 0:
                panel.set_yticks(np.arange(k) + 0.5, classes, fontsize=_SIZE)
                panel.set_ylabel("true", fontsize=_SIZE + 0.5, color=MUTED, labelpad=2)
            if i + across >= len(systems):
                panel.set_xticks(np.arange(k) + 0.5, classes, fontsize=_SIZE, rotation=90)
                panel.set_xlabel("answered", fontsize=_SIZE + 0.5, color=MUTED, labelpad=2)
    return figure_


def _above(panel: Axes, text: str, away: float, width: float, color: str, **look: Any) -> None:
    """Text above a panel, as large as its width allows."""
    size = min(7.5, width / (1.08 * _EM * max(len(text), 1)))
    look |= {"color": color} if color else {}
    panel.annotate(text, (0, 1), (0, away), xycoords="axes fraction", textcoords="offset points", fontsize=size, **look)


def _matrix(panel: Axes, share: FloatArray) -> None:
    k = len(share)
    panel.set_xlim(0, k)
    panel.set_ylim(k, 0)
    panel.set_xticks([])
    panel.set_yticks([])
    panel.tick_params(length=0, pad=2)
    panel.spines[:].set_visible(False)
    panel.grid(visible=False)
    known = [(i, j) for i, j in np.ndindex(k, k) if np.isfinite(share[i, j])]
    steps = {at: round(float(share[at]) * (len(STEPS) - 1)) for at in known}
    boxes = [(j + 0.02, i + 0.02, 0.96, 0.96) for i, j in known]
    canvas.tiles(panel, boxes, facecolors=[STEPS[steps[at]] for at in known])
    for i, j in known:
        ink = ON_LOW if steps[i, j] < SWITCH else ON_HIGH
        text = fixed(100 * float(share[i, j]), 0)
        panel.text(j + 0.5, i + 0.5, text, ha="center", va="center_baseline", fontsize=_SIZE - 0.3, color=ink)


def caption(evidence: Evidence, counts: Counts, regime: str) -> str:
    """What the matrices show."""
    systems, trained = drawn(evidence, regime), evidence.trained(regime)
    first = f"{evidence.title(systems[0])} and the best others" if evidence.reference in systems else "the best"
    some = (
        f" {len(systems)} of {len(trained)} systems are shown: {first} on clean text; tables/confusion.csv has all."
        if len(systems) < len(trained)
        else ""
    )
    sizes = _sizes(evidence, counts[regime, systems[0], evidence.poles[0]])
    each = listing([f"{name} {n:,}" for name, n in zip(_classes(evidence, counts), sizes, strict=True)])
    return (
        f"Which class is taken for which, systems trained {regime}: of the utterances of each true class (row), the "
        f"share in % that was given each answer (column); {canvas.points(evidence)}. The diagonal is the recall. "
        f"Test utterances: {each}.{some} No intervals."
    )


def finding(evidence: Evidence, counts: Counts, regime: str) -> str:
    """The recall of each class, before and after, of the reference or the first; and what answers turn into."""
    system, classes = drawn(evidence, regime)[0], _classes(evidence, counts)
    said = []
    for place in evidence.poles:
        share = shares(counts[regime, system, place])
        recall = [f"{name} {fixed(100 * share[i, i], 0)} %" for i, name in enumerate(classes) if share[i, i] >= 0]
        said.append(f"{place.label}: {', '.join(recall)}{_mistake(share, classes)}")
    answers = [_favourite(evidence, counts, regime, s, classes) for s in drawn(evidence, regime)]
    return (
        f"Recall of each class by {evidence.title(system)}, trained {regime}. {'; '.join(said)}. The most frequent "
        f"answer under {evidence.poles[-1].label}: {'; '.join(answers)}."
    )


def _mistake(share: FloatArray, classes: Sequence[str]) -> str:
    """The most frequent mistake, if there is one."""
    wrong = np.where(np.eye(len(share), dtype=bool) | np.isnan(share), -1.0, share)
    i, j = divmod(int(wrong.argmax()), len(wrong))
    if wrong.max() <= 0:
        return ""
    return f"; most often {classes[i]} is taken for {classes[j]} ({fixed(100 * wrong[i, j], 0)} %)"


def _favourite(evidence: Evidence, counts: Counts, regime: str, system: str, classes: Sequence[str]) -> str:
    """The answer that a system gives most often at the far end."""
    answers = counts[regime, system, evidence.poles[-1]].sum(axis=0)
    share = fixed(100 * answers.max() / answers.sum(), 0)
    return f"{evidence.title(system)} {classes[int(answers.argmax())]} ({share} %)"
