"""The tables: full precision for CSV, rounded text for people.

Nothing here depends on when, where or in how many sittings a run was made: the same rows give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dual_bench.metrics import Metric
from dual_bench.report import sentences as say
from dual_bench.report.evidence import EVERYTHING, LEVEL, Evidence, Place, metrics
from dual_bench.stats.curves import Estimate, area, key, retention
from dual_bench.types import TRANSCRIPT_PREFIX

NAMES = ("scores", "retention", "comparisons", "noise", "training", "ceilings", "curves")
"""Every table that a report may have."""


@dataclass(frozen=True)
class Table:
    """``frame`` is written as CSV; ``shown`` holds the same in rounded strings, None where it is not shown."""

    name: str
    title: str
    frame: pd.DataFrame
    shown: pd.DataFrame | None
    notes: tuple[str, ...] = ()

    def csv(self) -> str:
        """Full precision, undefined as NaN, and no cell that a spreadsheet would run as a formula."""
        safe = self.frame.map(lambda value: neutral(value) if isinstance(value, str) else value)
        return safe.to_csv(index=False, lineterminator="\n", na_rep="NaN")


def neutral(text: str) -> str:
    """The text, with an apostrophe before what a spreadsheet would take for a formula.

    >>> neutral("=cmd|' /C calc'!A0"), neutral("dual")
    ("'=cmd|' /C calc'!A0", 'dual')
    """
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text


def tables(evidence: Evidence) -> tuple[Table, ...]:
    """All tables of a report, in its order."""
    made = (scores, retained, comparisons, noise, training, ceilings, curves)
    return tuple(table for make in made if (table := make(evidence)) is not None)


def summary(evidence: Evidence) -> pd.DataFrame:
    """The table for the screen: a row for each trained system, in rounded strings."""
    clean, *others = evidence.places
    rows = []
    for regime, system in evidence.rows():
        row = {"trained": regime, "system": system}
        headings = {f"{_heading(evidence.metric)}, {clean.label}": clean} | {place.label: place for place in others}
        for heading, place in headings.items():
            row[heading] = say.cell(evidence.at(system, regime, place), evidence.metric)
        if evidence.heaviest:
            row["lost"] = say.cell(evidence.loss(system, regime, evidence.heaviest), evidence.metric)
        rows.append(row)
    return pd.DataFrame(rows)


def _columns(estimate: Estimate, prefix: str = "") -> dict[str, float | str]:
    """An estimate as CSV columns."""
    ends = estimate.interval
    return {
        prefix or "value": estimate.value,
        f"{prefix}_low" if prefix else "low": ends.low,
        f"{prefix}_high" if prefix else "high": ends.high,
        f"{prefix}_reason" if prefix else "reason": ends.reason,
    }


def _notes(estimates: Iterable[Estimate]) -> tuple[str, ...]:
    """Why numbers or intervals are absent, each reason once."""
    found: dict[str, None] = {}
    for estimate in estimates:
        if estimate.interval.reason:
            what = f"“{say.NOTHING}” is undefined" if np.isnan(estimate.value) else "No interval"
            found[f"{what}: {estimate.interval.reason}."] = None
    return tuple(found)


def _heading(metric: Metric) -> str:
    unit = " (%)" if metric.is_share else ""
    return f"{metric.title}{unit}{'' if metric.higher_is_better else ', lower is better'}"


# --------------------------------------------------------------------------------------- scores, curves


def scores(evidence: Evidence) -> Table:
    """Every metric of the task on clean text, with the text gone, and on real transcripts."""
    cube, rows, shown, primary = evidence.cube, [], [], []
    size = {"seeds": len(cube.seeds), "clusters": len(cube.clusters), "utterances": cube.utterances}
    for regime, system in evidence.rows():
        for place in evidence.places:
            line = {"trained": regime, "system": system, "condition": place.label}
            cells = {}
            for metric in metrics(evidence):
                estimate = evidence.at(system, regime, place, metric)
                where = {"corruption": place.corruption, "rate": place.rate, "metric": metric.name}
                rows.append({**line, **where, **_columns(estimate), "level": LEVEL, **size})
                first = metric is evidence.metric
                cells[_heading(metric)] = say.cell(estimate, metric) if first else say.number(estimate.value, metric)
                primary += [estimate] if first or np.isnan(estimate.value) else []
            shown.append(line | cells)
    return Table("scores", "Scores", pd.DataFrame(rows), pd.DataFrame(shown), _notes(primary))


def curves(evidence: Evidence) -> Table | None:
    """Every point of every degradation curve: the numbers behind the figures."""
    rows, floor = [], evidence.floor()
    for (system, regime, corruption), points in evidence.curves.items():
        ceiling = dict(evidence.ceiling(corruption))
        for rate, estimate in points:
            line = {"corruption": corruption, "trained": regime, "system": system, "rate": rate}
            bounds = {"level": LEVEL, "floor": floor, "ceiling": ceiling.get(rate, np.nan)}
            rows.append({**line, "metric": evidence.metric.name, **_columns(estimate), **bounds})
    return Table("curves", "Degradation curves", pd.DataFrame(rows), None) if rows else None


# ------------------------------------------------------------------------------------------- retention


def retained(evidence: Evidence) -> Table | None:
    """What each system keeps when the text goes: ends, areas under the curves, retention."""
    place, metric = evidence.heaviest, evidence.metric
    if place is None:
        return None
    rows, shown = [], []
    seen: list[Estimate] = []
    for regime, system in evidence.rows():
        found = _kept(evidence, system, regime, place)
        line = {"trained": regime, "system": system}
        columns: dict[str, float | str] = {}
        for name, estimate in found.items():
            columns |= _columns(estimate, name.replace(" ", "_").replace("-", "_"))
        rows.append({**line, "metric": metric.name, "noise": place.corruption, "rate": place.rate, **columns})
        shown.append(line | {_kept_heading(name, metric): _kept_cell(name, e, metric) for name, e in found.items()})
        seen += found.values()
    notes = (
        f"Lost: {say.noun(metric)} on clean text against {place.label}, paired; positive is a loss.",
        "Area: mean height of the degradation curve over its range of rates.",
        f"Retention: {place.label} over clean text. Above floor: the same after subtracting the floor, "
        "the score of the best constant answer; 100 % loses nothing, 0 % is at the floor.",
        *_notes(seen),
    )
    return Table("retention", "What is retained", pd.DataFrame(rows), pd.DataFrame(shown), notes)


def _kept(evidence: Evidence, system: str, regime: str, place: Place) -> dict[str, Estimate]:
    cube, weights = evidence.cube, evidence.weights
    condition = key(system, regime, place.corruption, place.rate)
    plain, normalised = retention(cube, system, regime, condition, evidence.floor(), weights, LEVEL)
    return {
        "clean text": evidence.at(system, regime, evidence.places[0]),
        place.label if place.rate == 1 else "heaviest noise": evidence.at(system, regime, place),
        "lost": evidence.loss(system, regime, place),
        **{f"area {c}": area(cube, system, regime, c, weights, LEVEL) for c in evidence.corruptions},
        "retention": plain,
        "retention above floor": normalised,
    }


def _kept_heading(name: str, metric: Metric) -> str:
    unit = " (%)" if name.startswith("retention") or (metric.is_share and name != "lost") else ""
    points = " (points)" if name == "lost" and metric.is_share else ""
    return f"{name[:1].upper()}{name[1:]}{unit}{points}"


def _kept_cell(name: str, estimate: Estimate, metric: Metric) -> str:
    if not name.startswith("retention"):
        return say.cell(estimate, metric)
    ends, text = estimate.interval, say.fixed(100 * estimate.value, 1)
    return text if np.isnan(ends.low) else f"{text} ({say.fixed(100 * ends.low, 1)} to {say.fixed(100 * ends.high, 1)})"


# ----------------------------------------------------------------------------------------- comparisons


def comparisons(evidence: Evidence) -> Table | None:
    """Every system against the reference, paired and corrected."""
    contrasts, metric = evidence.contrasts, evidence.metric
    if not contrasts:
        return None
    rows, shown = [], []
    for c in contrasts:
        ends = {"low": c.interval.low, "high": c.interval.high, "level": c.interval.level, "reason": c.interval.reason}
        size = {"seeds": c.seeds, "draws": c.draws, "clusters": c.clusters, "utterances": c.utterances}
        what = {"trained": c.regime, "quantity": c.quantity, "left": c.left, "right": c.right}
        tests = {"p": c.p, "p_adjusted": c.p_adjusted, "family": c.family, "detectable": c.detectable}
        rows.append({**what, "metric": c.metric, "estimate": c.estimate, **ends, **tests, **size, "verdict": c.verdict})
        shown.append(
            {
                "trained": c.regime,
                "quantity": quantity(c.quantity),
                "comparison": f"{c.left} − {c.right}",
                f"difference{' (points)' if metric.is_share else ''}": say.cell(
                    Estimate(c.estimate, c.interval), metric
                ),
                "p": say.p_value(c.p),
                "adjusted p": say.p_value(c.p_adjusted),
                "detectable": say.number(c.detectable, metric),
                "seeds × draws × clusters": f"{c.seeds} × {c.draws} × {c.clusters}",
                "verdict": c.verdict if c.verdict.startswith("un") else f"{c.left} {c.verdict}",
            }
        )
    families = dict.fromkeys(c.family for c in contrasts if c.family)
    notes = (
        *(f"Adjusted p: {family}." for family in families),
        f"Every comparison rests on {contrasts[0].utterances:,} test utterances. Detectable: the smallest true "
        "difference that the design would see with power 0.8 at two-sided 0.05, before correction.",
        *_notes(Estimate(c.estimate, c.interval) for c in contrasts),
    )
    title = f"Paired comparisons with {evidence.reference}"
    return Table("comparisons", title, pd.DataFrame(rows), pd.DataFrame(shown), notes)


def quantity(name: str) -> str:
    """What a contrast compares, for people.

    >>> quantity("clean"), quantity("word-drop 1.0"), quantity("word-drop area"), quantity("transcript:iflytek")
    ('clean text', 'word-drop at 100 %', 'word-drop, area', 'iflytek text')
    """
    if name == "clean":
        return "clean text"
    if name.startswith(TRANSCRIPT_PREFIX):
        return f"{name.removeprefix(TRANSCRIPT_PREFIX)} text"
    corruption, _, last = name.rpartition(" ")
    return f"{corruption}, area" if last == "area" else f"{corruption} at {say.percent(float(last))}"


# --------------------------------------------------------------------------- noise, training, ceilings


def noise(evidence: Evidence) -> Table | None:
    """What the noise really did to the words."""
    frame = evidence.noise[evidence.noise["corruption"] != "clean"].reset_index(drop=True)
    if frame.empty:
        return None
    shown = []
    for row in frame.to_dict("records"):
        name = str(row["corruption"])
        transcript = name.startswith(TRANSCRIPT_PREFIX)
        line = {
            "corruption": f"{name.removeprefix(TRANSCRIPT_PREFIX)} (recogniser)" if transcript else name,
            "nominal rate": say.NOTHING if transcript else say.percent(row["rate"]),
            "draws": str(row["draws"]),
        }
        for column, title in (("wer", "WER (%)"), ("cer", "CER (%)"), ("dropped", "words dropped (%)")):
            spread = row[f"{column}_sd"]
            line[title] = say.fixed(100 * row[column], 1)
            line[title] += "" if np.isnan(spread) else f" ± {say.fixed(100 * spread, 1)}"
        shown.append(line)
    notes = (
        "WER: errors over reference words in the whole test part. CER and words dropped: means over utterances, "
        "weighted by their words. ±: standard deviation between draws.",
    )
    return Table("noise", "What the noise did to the words", frame, pd.DataFrame(shown), notes)


def training(evidence: Evidence) -> Table:
    """Size of each model and the epochs that validation chose; the time is for people only."""
    rows, shown = [], []
    for regime, system in evidence.rows():
        cells = evidence.cells(system, regime)
        epochs = [cell.best_epoch for cell in cells]
        line = {"trained": regime, "system": system}
        numbers = {"cells": len(cells), "parameters": cells[0].parameters, "epoch_mean": float(np.mean(epochs))}
        rows.append({**line, **numbers, "epoch_min": min(epochs), "epoch_max": max(epochs)})
        shown.append(
            {
                **line,
                "parameters": f"{cells[0].parameters:,}",
                "trained models": str(len(cells)),
                "chosen epoch": f"{np.mean(epochs):.1f} ({min(epochs)} to {max(epochs)})",
                "fit, s each": f"{np.mean([cell.seconds_fit for cell in cells]):.1f}",
                "predict, s each": f"{np.mean([cell.seconds_predict for cell in cells]):.1f}",
            }
        )
    notes = ("Chosen epoch: mean and range over seeds and folds, chosen by the validation loss.",)
    return Table("training", "Training", pd.DataFrame(rows), pd.DataFrame(shown), notes)


def ceilings(evidence: Evidence) -> Table | None:
    """Exact accuracy of a perfect perceiver, by what it may perceive."""
    points = evidence.run.info.ceilings
    if not points:
        return None
    names = ("modalities", "corruption", "rate", "accuracy")
    frame = pd.DataFrame([[getattr(p, name) for name in names] for p in points], columns=list(names))
    largest = frame.groupby("corruption", sort=False)["rate"].transform("max")
    ends = frame[frame["rate"] == largest]
    shown = []
    for modalities in dict.fromkeys(sorted(frame["modalities"], key=lambda m: (m.count("+"), m != EVERYTHING, m))):
        line = {"modalities": modalities.replace("+", " + ") or "none"}
        for point in ends[ends["modalities"] == modalities].to_dict("records"):
            clean = point["corruption"] == "clean"
            heading = "clean text" if clean else f"{point['corruption']} {say.percent(point['rate'])}"
            line[heading] = say.fixed(100 * point["accuracy"], 1)
        shown.append(line)
    notes = ("Accuracy of a perceiver that knows exactly how the corpus was made; no model can beat it but by chance.",)
    return Table("ceilings", "Exact ceiling (accuracy, %)", frame, pd.DataFrame(shown).fillna(say.NOTHING), notes)
