"""The tables of an ablation: its effects, and what is certified of models that bound their text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from dual_bench.report.certified import spread_of
from dual_bench.report.evidence import LEVEL, Evidence
from dual_bench.report.forest import label, rows
from dual_bench.report.numbers import NOTHING, WOULD_DECIDE, cell, counts_needed, fixed, p_value
from dual_bench.report.table import Table, columns, heading, none_as_nan, reasons
from dual_bench.schema import ComparisonInfo
from dual_bench.stats.curves import Estimate
from dual_bench.stats.effects import Effect
from dual_bench.stats.frame import system_name


def hypotheses(evidence: Evidence) -> Table | None:
    """Every comparison under every primary quantity, in the order of effect."""
    return _table(evidence, True, "hypotheses", "Hypotheses and verdicts")


def others(evidence: Evidence) -> Table | None:
    """The same under every other condition and whole corruption."""
    return _table(evidence, False, "conditions", "The same comparisons under every other condition")


def _table(evidence: Evidence, primary: bool, name: str, title: str) -> Table | None:
    study = evidence.study
    found = in_order(evidence, primary)
    if study is None or not found:
        return None
    notes = (
        *(f"Adjusted p: {family}; those of equivalence likewise." for family in dict.fromkeys(e.family for e in found)),
        "Verdict: equivalent where a difference as large as the margin is excluded (two one-sided tests), else "
        "supported or contradicted where there is a difference, else undecided. Where none that matters was expected, "
        "equivalence is what supports that, and p is of a difference beyond the margin, which contradicts it. "
        f"{WOULD_DECIDE} "
        "Parameters and seconds of training, as measured when they were trained: changed side / baseline side, means "
        "over the models of each.",
        *reasons(Estimate(effect.estimate, effect.interval) for effect in found),
    )
    frame = pd.DataFrame([_row(evidence, effect, study.margin) for effect in found])
    return Table(name, title, frame, pd.DataFrame([_shown(evidence, effect) for effect in found]), notes)


def in_order(evidence: Evidence, primary: bool) -> list[Effect]:
    """The effects under primary, or under all other quantities, in the order of effect."""
    order = {comparison: i for i, comparison in enumerate(rows(evidence))}
    found = (effect for effect in evidence.effects if effect.primary == primary)
    return sorted(found, key=lambda effect: order[effect.comparison])


def _row(evidence: Evidence, effect: Effect, margin: float) -> dict[str, object]:
    """Full precision; without seconds, which are never the same twice."""
    size = {"seeds": len(evidence.cube.seeds), "draws": evidence.cube.draws, "clusters": len(evidence.cube.clusters)}
    changed, base = sides(evidence, effect.comparison)
    return {
        "comparison": effect.comparison.name,
        "kind": effect.comparison.kind,
        "trained": effect.comparison.regime,
        "terms": " ".join(f"{t.weight:+g}*{t.system}({t.regime})" for t in effect.comparison.terms),
        "quantity": effect.quantity,
        "metric": evidence.metric.name,
        **columns(Estimate(effect.estimate, effect.interval), "estimate"),
        "level": LEVEL,
        "p": effect.p,
        "p_adjusted": effect.p_adjusted,
        "margin": margin,
        "p_equivalence": effect.p_equivalence,
        "p_equivalence_adjusted": effect.p_equivalence_adjusted,
        "family": effect.family,
        "detectable": effect.detectable,
        "expected": effect.comparison.expected,
        "verdict": effect.verdict,
        "seeds_needed": none_as_nan(effect.seeds_needed),
        "clusters_needed": none_as_nan(effect.clusters_needed),
        "parameters": _mean(evidence, changed, "parameters"),
        "parameters_baseline": _mean(evidence, base, "parameters"),
        **size,
    }


def _shown(evidence: Evidence, effect: Effect) -> dict[str, str]:
    metric = evidence.metric
    changed, base = sides(evidence, effect.comparison)
    size = [_mean(evidence, side, "parameters") for side in (changed, base)]
    time = [_mean(evidence, side, "seconds_fit") for side in (changed, base)]
    return {
        "comparison": label(effect.comparison, evidence),
        "quantity": evidence.noise.quantity(effect.quantity),
        f"difference{' (points)' if metric.is_share else ''}": cell(Estimate(effect.estimate, effect.interval), metric),
        "p": p_value(effect.p),
        "adjusted p": p_value(effect.p_adjusted),
        "equivalence p": p_value(effect.p_equivalence_adjusted),
        "expected": effect.comparison.expected,
        "verdict": f"{effect.verdict} (identical)" if effect.identical else effect.verdict,
        "would decide: seeds / clusters": _missing(effect),
        "parameters": f"{fixed_thousands(size[0])} / {fixed_thousands(size[1])}",
        "fit, s": f"{fixed(time[0], 1)} / {fixed(time[1], 1)}",
    }


def _missing(effect: Effect) -> str:
    return counts_needed(effect.seeds_needed, effect.clusters_needed) if effect.verdict == "undecided" else ""


def fixed_thousands(value: float) -> str:
    """
    >>> fixed_thousands(224630.0)
    '224,630'
    """
    return f"{value:,.0f}" if np.isfinite(value) else NOTHING


def sides(
    evidence: Evidence, comparison: ComparisonInfo
) -> tuple[Sequence[tuple[str, str]], Sequence[tuple[str, str]]]:
    """The (system, regime) that count positively, and those that count negatively."""
    return (
        [(term.system, term.regime) for term in comparison.terms if term.weight > 0],
        [(term.system, term.regime) for term in comparison.terms if term.weight < 0],
    )


def _mean(evidence: Evidence, side: Sequence[tuple[str, str]], what: str) -> float:
    """Mean of a field of the finished cells over the systems of a side."""
    wanted = set(side)
    found = [
        getattr(c, what) for c in evidence.run.cells if (system_name(c.model, c.variant), c.regime) in wanted
    ]  # fmt: skip
    return float(np.mean(found)) if found else np.nan


def summary(evidence: Evidence) -> pd.DataFrame:
    """The hypotheses for the screen."""
    table = hypotheses(evidence)
    assert table is not None
    assert table.shown is not None
    kept = [name for name in table.shown if str(name).startswith(("comparison", "quantity", "difference", "verdict"))]
    return table.shown[kept]


def certified(evidence: Evidence) -> Table | None:
    """What holds whatever the text, beside what was measured."""
    if not any(bound.reads_words for bound in evidence.certified.values()):
        return None
    metric, lines, shown = evidence.metric, [], []
    moved = "a logit" if metric.task == "classification" else "the value"
    for (system, regime), bound in evidence.certified.items():
        clean = evidence.at(system, regime, evidence.places[0])
        worst, where = worst_measured(evidence, system, regime)
        line: dict[str, object] = {"trained": regime, "system": system, "metric": metric.name}
        line |= {**columns(clean, "clean"), "worst_measured": worst.value, "worst_measured_at": where}
        line |= columns(bound.metric, "any_text")
        line |= columns(bound.share, "certified_share") if bound.share else {}
        line |= {"radius": float(np.mean(bound.radii)), "level": LEVEL}
        lines.append(line)
        unit = heading(metric)
        shown.append(
            {
                "trained": regime,
                "system": evidence.title(system),
                f"text moves {moved} by at most": spread_of(bound.radii) if bound.reads_words else "0 (reads no words)",
                f"{unit}, clean text": cell(clean, metric),
                "worst measured": f"{cell(worst, metric)}, {where}",
                "certified, any text": cell(bound.metric, metric),
                **({"class certified (%)": cell(bound.share, metric)} if bound.share and metric.is_share else {}),
            }
        )
    notes: tuple[str, ...] = (
        "Certified: what the model scores if the words of each utterance are the worst there could be. It is computed "
        "from voice and face and from the bound on what text can do, not from any text; no measured score can lie on "
        "its other side.",
    )
    if metric.task == "classification":
        notes += ("Class certified: test utterances whose predicted class no text can change, right or wrong.",)
    spans = "95 % intervals, and ranges over trained models"
    frames = pd.DataFrame(lines), pd.DataFrame(shown)
    return Table("certified", "What holds under any text", *frames, notes, brackets=spans)


def worst_measured(evidence: Evidence, system: str, regime: str) -> tuple[Estimate, str]:
    """The worst of all measured conditions, and which it is."""
    sign = 1 if evidence.metric.higher_is_better else -1
    places = [evidence.noise.place(c, r) for c in evidence.corruptions for r in evidence.cube.rates(c)]
    heard = [p for p in evidence.places if p.corruption in evidence.transcripts]
    tried = [(evidence.at(system, regime, p), p.label) for p in (evidence.places[0], *places, *heard)]
    return min(tried, key=lambda pair: round(sign * pair[0].value, 9))  # of equal ones the first
