"""Does a model know that the words are broken? Its confidence beside its answers, on clean text and under noise."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dual_bench.confidence import AURC, selective_accuracy
from dual_bench.report import canvas
from dual_bench.report.evidence import LEVEL, Evidence, metrics
from dual_bench.report.noise import Place
from dual_bench.report.numbers import cell, number
from dual_bench.report.table import Table, columns, heading, reasons
from dual_bench.stats.curves import key
from dual_bench.types import FloatArray

COVERAGES = np.arange(1, 51) / 50


def table(evidence: Evidence) -> Table | None:
    """Every metric of confidence, beside the primary one."""
    asked = [m for m in metrics(evidence) if m.about == "confidence"]
    if not asked:
        return None
    rows, shown, seen = [], [], []
    for regime, system in evidence.rows():
        for place in evidence.places:
            line = {"trained": regime, "system": system, "condition": place.label}
            cells = {}
            for metric in dict.fromkeys((evidence.metric, *asked)):
                estimate = evidence.at(system, regime, place, metric)
                where = {"corruption": place.corruption, "rate": place.rate, "metric": metric.name}
                rows.append({**line, **where, **columns(estimate), "level": LEVEL})
                cells[heading(metric)] = cell(estimate, metric)
                seen.append(estimate)
            shown.append(line | {"system": evidence.title(system)} | cells)
    notes = (
        *(f"{m.title}: {m.definition}." for m in asked),
        "A model that knows its words are broken keeps ECE and AURC low where accuracy falls. ECE is biased upward, by "
        "some points for a few hundred utterances, and has no interval where it is not clearly above what chance makes "
        "of none; intervals of these metrics are t intervals about the estimate.",
        *reasons(seen),
    )
    return Table("confidence", "Confidence", pd.DataFrame(rows), pd.DataFrame(shown), notes)


def figure(evidence: Evidence) -> Figure:
    """Accuracy among the most confident share: a row for each regime; on clean text, and under the heaviest noise."""
    drawn, panels = canvas.subplots(len(evidence.regimes), len(evidence.poles), 0.9 + 2.3 * len(evidence.regimes))
    for i, regime in enumerate(evidence.regimes):
        for j, place in enumerate(evidence.poles):
            panel = panels[i * len(evidence.poles) + j]
            for system in evidence.trained(regime):
                shape = canvas.look(evidence, system)
                panel.plot(
                    100 * COVERAGES, 100 * _selected(evidence, system, regime, place), **shape | {"marker": None}
                )
            panel.set_title(f"trained {regime}, {place.label}", loc="left", fontsize=8)
            if i == len(evidence.regimes) - 1:
                panel.set_xlabel("most confident (% of utterances)")
            if j == 0:
                panel.set_ylabel("Accuracy (%)")
    looks = {s: canvas.look(evidence, s) | {"marker": None} for s in evidence.systems}
    canvas.legend(drawn, [Line2D([], [], label=evidence.title(s), **look) for s, look in looks.items()])
    return drawn


def _selected(evidence: Evidence, system: str, regime: str, place: Place) -> FloatArray:
    """Accuracy at each of ``COVERAGES``, mean over seeds and draws."""
    sums = evidence.ends[AURC.name].sums[key(system, regime, place.corruption, place.rate)].sum(axis=2)
    return np.asarray(selective_accuracy(sums, COVERAGES).mean(axis=(0, 1)))


def caption(evidence: Evidence) -> str:
    return (
        "Accuracy among the utterances of which a model is most confident (accuracy-coverage curve); at 100 % it is "
        f"the accuracy. Each line: {canvas.points(evidence)}. The more a line falls from left to right, the better the "
        "model knows where it is right; a flat one knows nothing."
    )


def finding(evidence: Evidence) -> str:
    """What the figure shows, for those who cannot see it."""
    return f"Accuracy at half and at full coverage. {' '.join(_told(evidence))}"


def _told(evidence: Evidence) -> Iterator[str]:
    for regime, system in evidence.rows():
        told = []
        for place in evidence.poles:
            curve = _selected(evidence, system, regime, place)
            half, full = (number(float(curve[i]), AURC) for i in (len(curve) // 2 - 1, -1))
            told.append(f"{place.label} {half} and {full}")
        yield f"{evidence.title(system)}, trained {regime}: {'; '.join(told)}."
