"""The field in one table: what each system scores, keeps and leans on, and what it costs."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dual_bench.report.evidence import LEVEL, Evidence
from dual_bench.report.numbers import NOTHING, cell, listing, noun, plural, ratio_cell
from dual_bench.report.table import Table, columns, reasons
from dual_bench.stats.curves import Estimate

MOST_AREAS = 3
"""Columns for whole corruptions that the table has room for, those of the first in the plan; the file has all."""


def table(evidence: Evidence) -> Table | None:
    """A row for each trained system of a comparison of models; None of an ablation, or where nothing was trained."""
    if evidence.effects or not evidence.run.cells:
        return None
    metric, rows, shown = evidence.metric, [], []
    seen: list[Estimate] = []
    where = {f"{one.device}, {plural(one.threads, 'thread')}" for one in evidence.run.cells}
    unit = " (%)" if metric.is_share else ""
    for regime, system in evidence.rows():
        cells = evidence.cells(system, regime)
        found = _numbers(evidence, system, regime)
        size = [one.parameters for one in cells]
        line: dict[str, object] = {"trained": regime, "system": system, "metric": metric.name}
        for name, estimate in found.items():
            line |= columns(estimate, name.replace(" ", "_").replace("-", "_"))
        rows.append({**line, "level": LEVEL, "parameters": float(np.median(size))})
        told = {"trained": regime, "system": evidence.title(system)}
        for name, estimate in found.items():
            if name.partition(" ")[2] in evidence.corruptions[MOST_AREAS:]:
                continue
            if name in ("retention above floor", "share of words"):
                told[f"{name} (%)"] = ratio_cell(estimate, 0, 100)
            else:
                told[f"{name}{unit}"] = cell(estimate, metric)
            seen.append(estimate)
        told["parameters"] = _sizes(size)
        told["fit, s each"] = f"{np.mean([one.seconds_fit for one in cells]):.1f}"
        shown.append(told)
    lost = evidence.heaviest.label if evidence.heaviest else "noise"
    notes = (
        "Area: mean height of a degradation curve over its nominal rates; mean: plain mean over severities. Retention: "
        f"what {lost} leaves of the clean score, both above the floor of the best constant answer. Share of words: "
        "their Shapley value over what words, voice and face are worth together, modalities absent. Parameters: the "
        "median over trained models, with the range where settings differ between folds. Fit: seconds of training, on "
        f"{listing(sorted(where))}.",
        *reasons(seen),
    )
    frame = pd.DataFrame(shown).fillna(NOTHING)
    return Table("field", f"The field: {noun(metric)}", pd.DataFrame(rows), frame, notes)


def _numbers(evidence: Evidence, system: str, regime: str) -> dict[str, Estimate]:
    """Clean score, area under each curve, retention, and the share that the words have in the model's worth."""
    clean, place = evidence.places[0], evidence.heaviest
    found = {"clean text": evidence.at(system, regime, clean)}
    for corruption in evidence.corruptions:
        found[f"{evidence.sums_up(corruption)} {corruption}"] = evidence.overall(system, regime, corruption)
    if place is not None:
        found["retention above floor"] = evidence.retained(system, regime, place)[1]
    asked = (system, regime, "share", "text", "absent")
    for one in evidence.dependence:
        if (one.system, one.regime, one.measure, one.modality, one.reading) == asked:
            found["share of words"] = one.estimate
    return found


def _sizes(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{int(np.median(counts)):,} ({low:,} to {high:,})"
