"""The tables about noise: what it did to the words, and what every severity of it costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from dual_bench.report.evidence import LEVEL, Evidence
from dual_bench.report.noise import UNREACHED, Place, in_families
from dual_bench.report.numbers import NOTHING, cell, fixed, listing, percent
from dual_bench.report.table import Table, columns, heading, reasons
from dual_bench.schema import MEASURED
from dual_bench.stats.curves import Estimate
from dual_bench.types import TRANSCRIPT_PREFIX

_MEASURES = (
    ("wer", "WER (%)", 100, 1),
    ("cer", "CER (%)", 100, 1),
    ("dropped", "words dropped (%)", 100, 1),
    ("cosine", "cosine distance", 1, 3),
)
"""(column, heading, scale, decimals)."""


def noise(evidence: Evidence) -> Table | None:
    """What the noise really did to the words."""
    told, frame = evidence.noise, evidence.noise.frame
    names = [name for name in frame["corruption"].unique() if name != "clean"]
    if not names or frame.loc[frame["corruption"] != "clean", list(MEASURED)].isna().to_numpy().all():
        return None
    order = (*in_families([n for n in names if not n.startswith(TRANSCRIPT_PREFIX)]), *evidence.transcripts)
    parts = [frame[frame["corruption"] == name] for name in order]
    frame = pd.concat(parts, ignore_index=True)
    points = [told.at(name, rate) for name, rate in zip(frame["corruption"], frame["rate"], strict=True)]
    frame.insert(2, "severities", [" ".join(str(p.severity) for p in at) for at in points])
    frame.insert(3, "training_wer", [at[0].wer if at else np.nan for at in points])
    shown = [_noise_line(evidence, row) for _, row in frame.iterrows()]
    return Table("noise", "What the noise did to the words", frame, pd.DataFrame(shown), _noise_notes(evidence, order))


def _noise_line(evidence: Evidence, row: pd.Series[Any]) -> dict[str, str]:
    name, rate = str(row["corruption"]), float(row["rate"])
    transcript = name.startswith(TRANSCRIPT_PREFIX)
    label = f"{name.removeprefix(TRANSCRIPT_PREFIX)} (recogniser)" if transcript else evidence.noise.label(name)
    line = {"corruption": label}
    if evidence.noise.severities:
        points = evidence.noise.at(name, rate)
        marked = [f"{p.severity}{'' if p.reached else UNREACHED}" for p in points]
        line["severity"] = ", ".join(marked) or NOTHING
        line["target WER"] = ", ".join(percent(p.target) for p in points) or NOTHING
        line["WER on training text"] = f"{fixed(100 * row['training_wer'], 1)} %" if points else NOTHING
    line |= {"nominal rate": NOTHING if transcript else percent(rate), "draws": str(row["draws"])}
    for column, title, scale, decimals in _MEASURES:
        spread = row[f"{column}_sd"]
        line[title] = fixed(scale * row[column], decimals)
        line[title] += "" if np.isnan(spread) else f" ± {fixed(scale * spread, decimals)}"
    return line


def _noise_notes(evidence: Evidence, order: tuple[str, ...]) -> tuple[str, ...]:
    told = evidence.noise
    if evidence.run.info.source:
        return (
            "As the file tells: plain means over the utterances that were measured, whatever the number of their "
            f"words. ±: standard deviation between draws. “{NOTHING}”: not in the file.",
        )
    notes = [
        "WER: errors over reference words in the whole test part; inserted words count, so that it can exceed 100 %. "
        "CER and words dropped: means over utterances, weighted by their words. Cosine distance: between the mean "
        "token embeddings of clean and noisy text, mean over utterances. ±: standard deviation between draws. What the "
        "nominal rate is the share of: see Methods."
    ]
    if behind := [name for name in order if name in told.behind]:
        acts = "acts" if len(behind) == 1 else "act"
        notes.append(
            f"“{NOTHING}” under WER, CER and words dropped: {listing(behind)} {acts} behind the words and "
            f"{'leaves' if len(behind) == 1 else 'leave'} them as they are, so that there is nothing to count."
        )
    if chosen := [name for name in order if name in told.chosen]:
        models = told.frame.loc[told.frame["corruption"].isin(chosen), "models"].max()
        notes.append(
            f"{listing(chosen)}: the text depends on the model, and each number is the mean over {models:,.0f} trained "
            "models (systems, regimes and seeds)."
        )
    if any(not p.reached for points in told.severities.values() for p in points):
        notes.append(f"{UNREACHED}: the target cannot be made; the rate is that which comes nearest.")
    return tuple(notes)


def severity(evidence: Evidence) -> Table | None:
    """The numbers of the heat map, with their intervals; None where a run has no severities."""
    grid = evidence.grid
    if grid is None or not grid.by_severity:
        return None
    rows, shown = [], []
    seen: list[Estimate] = []
    for regime, system in evidence.rows():
        clean = cell(evidence.at(system, regime, evidence.places[0]), evidence.metric)
        for name in grid.rows:
            line = {"trained": regime, "system": system, "corruption": evidence.noise.label(name), "clean": clean}
            for column in grid.columns:
                spot = grid.spots.get((name, column))
                if spot is None:
                    line[_column(evidence, column)] = NOTHING
                    continue
                place = Place("", name, spot.rate)
                estimate, loss = evidence.at(system, regime, place), evidence.loss(system, regime, place)
                facts = {"trained": regime, "system": system, "corruption": name, "severity": int(column)}
                facts |= {"target": spot.target, "rate": spot.rate, "training_wer": spot.training_wer}
                facts |= {"reached": spot.reached, "wer": evidence.noise.wer(name, spot.rate)}
                facts |= {"depends_on_model": name in evidence.noise.chosen, "metric": evidence.metric.name}
                rows.append({**facts, **columns(estimate), **columns(loss, "loss"), "level": LEVEL})
                line[_column(evidence, column)] = cell(estimate, evidence.metric) + ("" if spot.reached else UNREACHED)
                seen.append(estimate)
            line["mean over severities"] = cell(evidence.overall(system, regime, name), evidence.metric)
            shown.append(line)
    notes = (
        f"{heading(evidence.metric)}. Severity: in brackets the word error rate on the training text for which the "
        "rate was sought. Mean over severities: plain mean, clean text not among them.",
        *(
            [
                f"{UNREACHED}: the corruption cannot make this word error rate; the number is that of the rate that "
                "comes nearest, and the same in all severities that share it (see the table of the noise)."
            ]
            if grid.unreached()
            else []
        ),
        *reasons(seen),
    )
    return Table("severity", "Every corruption at every severity", pd.DataFrame(rows), pd.DataFrame(shown), notes)


def _column(evidence: Evidence, severity: float) -> str:
    assert evidence.grid is not None
    return f"severity {severity:g} ({percent(evidence.grid.target(severity))})"
