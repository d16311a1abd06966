"""What sums up robustness beside what is retained: corruption errors, where curves break, where variance comes from."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from dual_bench.report.evidence import LEVEL, Evidence
from dual_bench.report.numbers import NOTHING, fixed, noun, percent, ratio_cell
from dual_bench.report.table import Table, columns, reasons
from dual_bench.stats.curves import (
    Estimate,
    added_error,
    breaking_rate,
    corruption_error,
    estimate_of,
    key,
    mean_point,
    rank_stability,
    relative_corruption_error,
)
from dual_bench.stats.intervals import no_interval
from dual_bench.stats.resampling import Point
from dual_bench.stats.variance import EFFECTS, components, name_of

AUDIO_VISUAL = "audio-vision"
"""The model that reads no words, where a run has it: what reads words should not fall below it."""


CLEAR = 5
"""Standard errors by which the harm to the reference has to differ from 0 before it is divided by: the interval of a
mean of ratios is that of its linear approximation, which is too narrow with a rough denominator."""


def table(evidence: Evidence) -> Table | None:
    """Mean corruption errors against the reference, and the rates at which each system breaks."""
    if not evidence.corruptions:
        return None
    rows, shown, seen = [], [], []
    for regime, system in evidence.rows():
        line: dict[str, object] = {"trained": regime, "system": system}
        cells: dict[str, str] = {"trained": regime, "system": evidence.title(system)}
        record = dict(line) | {"metric": evidence.metric.name, "reference": evidence.reference or ""}
        for title, estimate in _errors(evidence, system, regime).items():
            record |= columns(estimate, title.lower().replace(" ", "_"))
            cells[title] = ratio_cell(estimate, 2)
            seen.append(estimate)
        for corruption in evidence.corruptions:
            for what, (rate, reason) in _breaking(evidence, system, regime, corruption).items():
                record |= {f"breaks_{what}_{corruption}": rate, f"breaks_{what}_{corruption}_reason": reason}
                if len(evidence.corruptions) <= 3:
                    heading = f"{evidence.noise.label(corruption)} breaks: {what}"
                    cells[heading] = percent(rate) if np.isfinite(rate) else ("never" if "every" in reason else NOTHING)
        rows.append(record)
        shown.append(cells)
    stability, why = _stability(evidence)
    notes = (
        f"mCE: error under noise over that of {evidence.title(evidence.reference or '')} trained the same, mean over "
        "corruptions, each over its severities, or over the area under its curve (Hendrycks & Dietterich 2019); below "
        "1 is better than the reference. Relative mCE: the same of what noise adds to the clean error; "
        f"{NOTHING} where noise does not harm the reference.",
        f"Breaks: the first tested rate at which the system is no longer shown to be better than the floor, or than "
        f"{AUDIO_VISUAL} trained the same, by the worse end of its pointwise interval; never: better at every rate.",
        "Do noise draws agree on the order of systems? "
        + (f"Unknown: {why}." if why else f"Mean Kendall tau-b of two draws, under the heaviest noise: {stability}."),
        *reasons(e for e in seen if np.isfinite(e.value)),
    )
    shown_frame = pd.DataFrame(shown).fillna(NOTHING)
    return Table("robustness", "Robustness against the reference", pd.DataFrame(rows), shown_frame, notes)


def _errors(evidence: Evidence, system: str, regime: str) -> dict[str, Estimate]:
    base, metric = evidence.reference, evidence.metric
    if base is None or base not in evidence.trained(regime):
        return {}
    plain, relative, harms = [], [], []
    clean, base_clean = (evidence.point(key(s, regime, "clean", 0.0)) for s in (system, base))
    for corruption in evidence.corruptions:
        noisy, base_noisy = (evidence.whole(s, regime, corruption) for s in (system, base))
        plain.append(corruption_error(metric, noisy, base_noisy))
        harms.append(added_error(metric, base_noisy, base_clean))
        relative.append(relative_corruption_error(metric, noisy, clean, base_noisy, base_clean))
    mean = mean_point(relative)
    known = all(harm.estimate > CLEAR * harm.spread.error for harm in harms)
    rough = no_interval(LEVEL, "what noise adds to the error of the reference is known too roughly to divide by")
    return {
        "mCE": estimate_of(mean_point(plain), LEVEL, "the reference makes no error"),
        "Relative mCE": (
            estimate_of(mean, LEVEL, "noise does not harm the reference") if known else Estimate(mean.estimate, rough)
        ),
    }


def _breaking(evidence: Evidence, system: str, regime: str, corruption: str) -> dict[str, tuple[float, str]]:
    better = evidence.metric.higher_is_better
    floor, found = evidence.floor(), {}
    if np.isfinite(floor):
        found["floor"] = breaking_rate(evidence.curves[system, regime, corruption], floor, better)
    if AUDIO_VISUAL in evidence.trained(regime) and system != AUDIO_VISUAL:
        gaps = []
        for rate, _ in evidence.curves[system, regime, corruption]:
            one, other = (evidence.point(key(s, regime, corruption, rate)) for s in (system, AUDIO_VISUAL))
            gaps.append((rate, estimate_of(one - other, LEVEL)))
        found[AUDIO_VISUAL] = breaking_rate(gaps, 0.0, better)
    return found


def _stability(evidence: Evidence) -> tuple[str, str]:
    place, found = evidence.heaviest, []
    if place is None:
        return "", "there is no noise"
    for regime in evidence.regimes:
        value, why = rank_stability(
            [evidence.point(key(s, regime, place.corruption, place.rate)) for s in evidence.trained(regime)]
        )
        if why:
            return "", why
        found.append(f"{fixed(value, 2)} trained {regime}")
    return ", ".join(found), ""


# ------------------------------------------------------------------------------- where variance comes from


def variance(evidence: Evidence) -> Table | None:
    """The variance components of the reference and of its differences from every other system."""
    if evidence.reference is None or evidence.no_interval():
        return None
    rows, shown = [], []
    for line, point in _compared(evidence):
        cells = line | {"standard error": _error(point.spread.error, evidence)}
        for found in components(point.influence, LEVEL):
            facts = {"units": found.units, "variance": found.variance, "low": found.low, "high": found.high}
            rows.append({**line, "metric": evidence.metric.name, "source": found.name, **facts, "share": found.share})
            cells[f"{found.name} (%)"] = fixed(100 * found.share, 0)
        seeds, draws, clusters = point.spread.counts
        for title, more in (
            ("seeds", point.spread.with_counts(seeds=2 * seeds)),
            ("draws", point.spread.with_counts(draws=2 * draws) if draws > 1 else None),
            ("clusters", point.spread.with_counts(clusters=2 * clusters)),
        ):
            cells[f"2 × {title}"] = NOTHING if more is None else _error(more.error, evidence)
        shown.append(cells)
    notes = (
        f"Where the uncertainty of {noun(evidence.metric)} comes from: the share of its variance that seeds, noise "
        "draws and clusters of utterances add, alone and together (analysis of variance of the influence values; "
        "components below 0 count as 0). On the right, the standard error with twice as many: buy what lowers it most. "
        "A condition with one draw says nothing about draws. Variances by unit, with intervals: the file.",
    )
    if not rows:
        return None
    frame = pd.DataFrame(shown).fillna(NOTHING)
    parts = [f"{name_of(e)} (%)" for e in EFFECTS]
    first, last = list(shown[0])[:4], list(shown[0])[-3:]
    frame = frame[[*first, *(name for name in parts if name in frame), *last]]
    return Table("variance", "Where the variance comes from", pd.DataFrame(rows), frame, notes)


def _compared(evidence: Evidence) -> Iterator[tuple[dict[str, str], Point]]:
    """The reference, and its difference from each other system, on clean text and under the heaviest noise."""
    base = evidence.reference
    for place in evidence.poles:
        for regime in evidence.regimes:
            trained = evidence.trained(regime)
            if base is None or base not in trained:
                continue
            points = {s: evidence.point(key(s, regime, place.corruption, place.rate)) for s in trained}
            asked = {evidence.title(base): points[base]} | {
                f"{evidence.title(s)} − {evidence.title(base)}": one - points[base]
                for s, one in points.items()
                if s != base
            }
            for name, one in asked.items():
                if np.isfinite(one.influence).all():
                    yield {"condition": place.label, "trained": regime, "of": name}, one


def _error(value: float, evidence: Evidence) -> str:
    return fixed(100 * value, 2) if evidence.metric.is_share else fixed(value, 4)
