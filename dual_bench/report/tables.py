"""The tables: numbers for CSV, rounded text for people.

Nothing here depends on when, where or in how many sittings a run was made: the same rows give the same bytes.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from dual_bench.metrics import Metric
from dual_bench.report import (
    ablation_tables,
    classical,
    confidence,
    confusion,
    dependency,
    field,
    matrix,
    robustness,
    tuning,
)
from dual_bench.report.ablation_tables import certified, hypotheses, others
from dual_bench.report.evidence import EVERYTHING, LEVEL, MATCHED, Evidence, metrics
from dual_bench.report.noise import ALL_GONE, Place
from dual_bench.report.noise_tables import noise, severity
from dual_bench.report.numbers import (
    NOTHING,
    WOULD_DECIDE,
    cell,
    counts_needed,
    fixed,
    noun,
    number,
    p_value,
    ratio_cell,
)
from dual_bench.report.table import BEST, Table, columns, heading, none_as_nan, reasons
from dual_bench.stats.curves import Estimate

NAMES = (
    *("hypotheses", "conditions", "certified", "severity", "field", "scores", "retention", "robustness"),
    *("ranks", "friedman", "pairs", "blocks"),
    *("comparisons", "pairwise", "classical", "variance", "dependency", "confidence", "confusion", "noise", "training"),
    "tuning",
    *("ceilings", "curves", "sentences"),
)
"""Every table that a report may have."""

MOST_WHOLE = 4
"""Columns for whole corruptions that the table of what is retained has room for."""


def tables(evidence: Evidence) -> tuple[Table, ...]:
    """All tables of a report, in its order."""
    made = (
        *(hypotheses, others, certified, severity, field.table, scores, retained, robustness.table, comparisons),
        *(matrix.table, classical.table),
        *(robustness.variance, dependency.table, confidence.table, confusion.table, noise, training),
        *(tuning.table, ceilings, curves),
    )
    return tuple(table for make in made if (table := make(evidence)) is not None)


def summary(evidence: Evidence) -> pd.DataFrame:
    """The table for the screen: a row for each trained system, or hypothesis of an ablation, in rounded strings."""
    if evidence.effects:
        return ablation_tables.summary(evidence)
    clean, *others = evidence.places
    rows = []
    for regime, system in evidence.rows():
        row = {"trained": regime, "system": system}
        titles = {f"{heading(evidence.metric)}, {clean.label}": clean} | {place.label: place for place in others}
        for title, place in titles.items():
            row[title] = cell(evidence.at(system, regime, place), evidence.metric)
        if evidence.heaviest:
            row["lost"] = cell(evidence.loss(system, regime, evidence.heaviest), evidence.metric)
        rows.append(row)
    return pd.DataFrame(rows)


# --------------------------------------------------------------------------------------- scores, curves


def scores(evidence: Evidence) -> Table:
    """Every metric of the task on clean text, with the text gone, and on real transcripts."""
    cube, rows, primary = evidence.cube, [], []
    shown: list[dict[str, str]] = []
    best, bold = _winners(evidence), set()
    size = {"seeds": len(cube.seeds), "clusters": len(cube.clusters), "utterances": cube.utterances}
    for regime, system in evidence.rows():
        for place in evidence.places:
            line = {"trained": regime, "system": system, "condition": place.label}
            cells = {}
            for metric in metrics(evidence):
                if metric.about == "confidence" and metric is not evidence.metric:
                    continue
                estimate = evidence.at(system, regime, place, metric)
                where = {"corruption": place.corruption, "rate": place.rate, "metric": metric.name}
                rows.append({**line, **where, **columns(estimate), "level": LEVEL, **size})
                first = metric is evidence.metric
                cells[heading(metric)] = cell(estimate, metric) if first else number(estimate.value, metric)
                primary += [estimate] if first or np.isnan(estimate.value) else []
            if best.get((regime, place)) == system:
                bold.add((len(shown), heading(evidence.metric)))
            shown.append(line | {"system": evidence.title(system)} | cells)
    notes = (*_explained(evidence), *reasons(primary))
    return Table("scores", "Scores", pd.DataFrame(rows), pd.DataFrame(shown), notes, frozenset(bold))


def _winners(evidence: Evidence) -> dict[tuple[str, Place], str | None]:
    """(regime, place) -> the system that is shown to be better than each other, where every pair is compared and the
    comparisons with the reference, which are another family of tests, agree."""
    found = {}
    for regime in matrix.compared(evidence):
        for place in evidence.poles:
            best = matrix.best(evidence, regime, place)
            found[regime, place] = best if best and _agreed(evidence, best, regime, place) else None
    return found


def _agreed(evidence: Evidence, best: str, regime: str, place: Place) -> bool:
    others = [s for s in evidence.trained(regime) if s != evidence.reference]
    found = [evidence.contrast(s, regime, place) for s in (others if best == evidence.reference else [best])]
    wanted = "better" if best == evidence.reference else "worse"
    return all(contrast is None or contrast.verdict == wanted for contrast in found)


def _explained(evidence: Evidence) -> tuple[str, ...]:
    """What bold means, where systems could be compared."""
    return (BEST,) if matrix.compared(evidence) else ()


def curves(evidence: Evidence) -> Table | None:
    """Every point of every degradation curve: the numbers behind the figures."""
    rows, floor = [], evidence.floor()
    for (system, regime, corruption), points in evidence.curves.items():
        ceiling = dict(evidence.ceiling(corruption))
        for rate, estimate in points:
            line = {"corruption": corruption, "trained": regime, "system": system, "rate": rate}
            line |= {"wer": evidence.noise.wer(corruption, rate)}
            bounds = {"level": LEVEL, "floor": floor, "ceiling": ceiling.get(rate, np.nan)}
            rows.append({**line, "metric": evidence.metric.name, **columns(estimate), **bounds})
    return Table("curves", "Degradation curves", pd.DataFrame(rows), None) if rows else None


# ------------------------------------------------------------------------------------------- retention


def retained(evidence: Evidence) -> Table | None:
    """What each system keeps when the text goes: ends, areas under the curves, retention."""
    place, metric = evidence.heaviest, evidence.metric
    if place is None:
        return None
    rows, whole = [], _whole(evidence)
    shown: list[dict[str, str]] = []
    best, bold = _winners(evidence), set()
    seen: list[Estimate] = []
    for regime, system in evidence.rows():
        found = _kept(evidence, system, regime, place)
        line = {"trained": regime, "system": system}
        named: dict[str, float | str] = {}
        for name, estimate in found.items():
            named |= columns(estimate, name.replace(" ", "_").replace("-", "_"))
        rows.append({**line, "metric": metric.name, "noise": place.corruption, "rate": place.rate, **named})
        kept = {n: e for n, e in found.items() if len(whole) <= MOST_WHOLE or n not in whole}
        titles = {n: whole.get(n, n) for n in kept}
        line["system"] = evidence.title(system)
        for name, pole in zip(found, evidence.poles, strict=False):  # clean text and heaviest noise come first
            if best.get((regime, pole)) == system:
                bold.add((len(shown), _kept_heading(name, metric)))
        shown.append(line | {_kept_heading(titles[n], metric): _kept_cell(n, e, metric) for n, e in kept.items()})
        seen += kept.values()
    elsewhere = "" if len(whole) <= MOST_WHOLE else " One for each corruption: tables/retention.csv."
    notes = (
        f"Lost: {noun(metric)} on clean text against {place.label}, paired; positive is a loss.",
        "Area: mean height of the degradation curve over its range of nominal rates, clean text included."
        if any(name.startswith("area") for name in whole)
        else "Mean over severities: plain mean over the severities of one corruption, without clean text.",
        f"Retention: {place.label} over clean text. Above floor: the same after subtracting the floor, "
        "the score of the best constant answer; 100 % loses nothing, 0 % is at the floor.",
        *_explained(evidence),
        *reasons(seen),
    )
    notes = tuple(f"{note}{elsewhere}" if note.startswith(("Area", "Mean")) else note for note in notes)
    return Table("retention", "What is retained", pd.DataFrame(rows), pd.DataFrame(shown), notes, frozenset(bold))


def _whole(evidence: Evidence) -> dict[str, str]:
    """What sums up each corruption, by its name in the file -> its heading."""
    found = {}
    for name in evidence.corruptions:
        kind = evidence.sums_up(name)
        title = f"{'mean over severities' if kind == 'mean' else kind}, {evidence.noise.label(name)}"
        found[f"{kind} {name}"] = title
    return found


def _kept(evidence: Evidence, system: str, regime: str, place: Place) -> dict[str, Estimate]:
    plain, normalised = evidence.retained(system, regime, place)
    return {
        "clean text": evidence.at(system, regime, evidence.places[0]),
        ALL_GONE if place.label == ALL_GONE else "heaviest noise": evidence.at(system, regime, place),
        "lost": evidence.loss(system, regime, place),
        **{name: evidence.overall(system, regime, name.partition(" ")[2]) for name in _whole(evidence)},
        "retention": plain,
        "retention above floor": normalised,
    }


def _kept_heading(name: str, metric: Metric) -> str:
    unit = " (%)" if name.startswith("retention") or (metric.is_share and name != "lost") else ""
    points = " (points)" if name == "lost" and metric.is_share else ""
    return f"{name[:1].upper()}{name[1:]}{unit}{points}"


def _kept_cell(name: str, estimate: Estimate, metric: Metric) -> str:
    return ratio_cell(estimate, 1, 100) if name.startswith("retention") else cell(estimate, metric)


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
        if c.improvement is not None:
            tests |= {"improvement": c.improvement.share, "improvement_low": c.improvement.interval.low}
            tests |= {"improvement_high": c.improvement.interval.high, "conclusion": c.improvement.conclusion}
        tests |= {"seeds_needed": none_as_nan(c.seeds_needed), "clusters_needed": none_as_nan(c.clusters_needed)}
        rows.append({**what, "metric": c.metric, "estimate": c.estimate, **ends, **tests, **size, "verdict": c.verdict})
        shown.append(
            {
                "trained": c.regime,
                "quantity": evidence.noise.quantity(c.quantity),
                "comparison": f"{c.left} − {c.right}",
                f"difference{' (points)' if metric.is_share else ''}": cell(Estimate(c.estimate, c.interval), metric),
                "p": p_value(c.p),
                "adjusted p": p_value(c.p_adjusted),
                "P(better) (%)": NOTHING if c.improvement is None else fixed(100 * c.improvement.share, 0),
                "detectable": number(c.detectable, metric),
                "would decide: seeds / clusters": (
                    counts_needed(c.seeds_needed, c.clusters_needed) if c.verdict == "undecided" else ""
                ),
                "seeds × draws × clusters": f"{c.seeds} × {c.draws} × {c.clusters}",
                "verdict": c.verdict if c.verdict.startswith("un") else f"{c.left} {c.verdict}",
            }
        )
    families = dict.fromkeys(c.family for c in contrasts if c.family)
    notes = (
        *(f"Adjusted p: {family}." for family in families),
        f"Every comparison rests on {contrasts[0].utterances:,} test utterances. Detectable: the smallest true "
        "difference that the design would see with power 0.8 at two-sided 0.05, before correction. "
        f"{WOULD_DECIDE}",
        "P(better): in how many pairs of runs, of equal seed and draw, the left system is better, ties half; its "
        "interval and what it says by the rule of Bouthillier et al. (2021) are in the file.",
        *reasons(Estimate(c.estimate, c.interval) for c in contrasts),
    )
    title = f"Paired comparisons with {evidence.reference}"
    return Table("comparisons", title, pd.DataFrame(rows), pd.DataFrame(shown), notes)


# ---------------------------------------------------------------------------------- training, ceilings


def training(evidence: Evidence) -> Table | None:
    """Size of each model and the epochs that validation chose; the time is for people only."""
    if not evidence.run.cells:
        return None
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
                "system": evidence.title(system),
                "parameters": f"{cells[0].parameters:,}",
                "trained models": str(len(cells)),
                "chosen epoch": f"{np.mean(epochs):.1f} ({min(epochs)} to {max(epochs)})",
                "fit, s each": f"{np.mean([cell.seconds_fit for cell in cells]):.1f}",
                "predict, s each": f"{np.mean([cell.seconds_predict for cell in cells]):.1f}",
            }
        )
    notes: tuple[str, ...] = ("Chosen epoch: mean and range over trained models, chosen by the validation loss.",)
    if MATCHED in evidence.regimes:
        notes += (
            f"Trained {MATCHED} there is one model for clean text and one for each corruption at each rate, in every "
            "seed and fold. A model that reads no words is trained once for all of them, and counted in each.",
        )
    return Table("training", "Training", pd.DataFrame(rows), pd.DataFrame(shown), notes, brackets="ranges")


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
            title = "clean text" if clean else evidence.noise.place(point["corruption"], point["rate"]).label
            line[title] = fixed(100 * point["accuracy"], 1)
        shown.append(line)
    notes = ("Accuracy of a perceiver that knows exactly how the corpus was made; no model can beat it but by chance.",)
    return Table("ceilings", "Exact ceiling (accuracy, %)", frame, pd.DataFrame(shown).fillna(NOTHING), notes)
