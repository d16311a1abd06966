"""How much each model leans on the words, on the voice and on the face: a table, bars, and what is said of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from dual_bench.report import canvas
from dual_bench.report.canvas import COLOURS, INK
from dual_bench.report.evidence import LEVEL, Evidence
from dual_bench.report.numbers import NOTHING, cell, fixed, gap, listing
from dual_bench.report.table import Table, columns, reasons
from dual_bench.stats.curves import Estimate
from dual_bench.stats.dependency import ceiling_game, shapley
from dual_bench.types import MODALITIES

_INKS = {"audio": COLOURS[1], "vision": COLOURS[3], "text": COLOURS[2]}
_NAMES = {"audio": "voice", "vision": "face", "text": "words"}


def _of(evidence: Evidence, system: str, regime: str) -> dict[tuple[str, str, str], Estimate]:
    return {
        (d.measure, d.modality, d.reading): d.estimate
        for d in evidence.dependence
        if (d.system, d.regime) == (system, regime)
    }


def table(evidence: Evidence) -> Table | None:
    """Every measure in the file; what the words are worth, by both readings, for people."""
    if not evidence.dependence:
        return None
    metric, shown = evidence.metric, []
    unit = " (points)" if metric.is_share else ""
    seen: list[Estimate] = []
    for regime, system in evidence.rows():
        found = _of(evidence, system, regime)
        if not found:
            continue
        cells = {"trained": regime, "system": evidence.title(system)}
        for reading in ("absent", "permuted"):
            for m in reversed(MODALITIES) if reading == "absent" else ("text",):
                cells[f"{_NAMES[m]}, {reading}{unit}"] = _cell(found, ("shapley", m, reading), evidence, seen)
        if any(key[0] == "excess" for key in found):
            cells[f"excess of words{unit}"] = _cell(found, ("excess", "text", "absent"), evidence, seen)
        share = found.get(("share", "text", "absent"))
        cells["share of words (%)"] = NOTHING if share is None else fixed(100 * share.value, 0)
        cells[f"perceptual score of words{unit}"] = _cell(
            found, ("perceptual score", "text", "permuted"), evidence, seen
        )
        cells[f"EMAP gap{unit}"] = _cell(found, ("emap gap", "", ""), evidence, seen)
        shown.append(cells)
    rows = [
        {
            "trained": d.regime, "system": d.system, "measure": d.measure, "modality": d.modality, "reading": d.reading,
            "metric": metric.name, **columns(d.estimate), "level": LEVEL,
        }
        for d in evidence.dependence
    ]  # fmt: skip
    game = ceiling_game(evidence.run.info.ceilings)
    oracle = (
        "Excess: minus that of the perfect perceiver, whose exact Shapley values are "
        + listing([f"{_NAMES[m]} {fixed(100 * value, 1)}" for m, value in shapley(game).items()])
        + "."
        if game and metric.name == "accuracy"
        else ""
    )
    notes = (
        "Words, voice, face: exact Shapley values on clean test text, which share out what all three are worth over "
        "none; absent: what is missing has no valid step; permuted: it comes from another utterance. The two differ "
        f"where a model has never met a missing modality. {oracle}",
        "Perceptual score (Gat et al. 2021): what exchanging the words alone costs. EMAP gap (Hessel & Lee 2020): what "
        "the model owes to words, voice and face interacting, within blocks of the test part. Conditional utilisation "
        "(Wu et al. 2022), shares and intervals of all: the file.",
        *reasons(seen),
    )
    return Table("dependency", "What each modality is worth", pd.DataFrame(rows), pd.DataFrame(shown), notes)


def _cell(
    found: dict[tuple[str, str, str], Estimate], key: tuple[str, str, str], evidence: Evidence, seen: list[Estimate]
) -> str:
    if key not in found:
        return NOTHING
    seen.append(found[key])
    return cell(found[key], evidence.metric)


def figure(evidence: Evidence) -> Figure:
    """Three bars for each system, a row of panels for each regime, a column for each reading; the line is the perfect
    perceiver."""
    regimes = [r for r in evidence.regimes if any(d.regime == r for d in evidence.dependence)]
    most = max(len(evidence.trained(r)) for r in regimes)
    drawn, panels = canvas.subplots(len(regimes), 2, 0.8 + len(regimes) * (0.6 + (0.42 if most <= 8 else 0.24) * most))
    game = ceiling_game(evidence.run.info.ceilings) if evidence.metric.name == "accuracy" else {}
    oracle = shapley(game) if game else {}
    for i, regime in enumerate(regimes):
        systems = evidence.trained(regime)
        for j, reading in enumerate(("absent", "permuted")):
            panel = panels[2 * i + j]
            for row, system in enumerate(reversed(systems)):
                found, gid = _of(evidence, system, regime), canvas.group(evidence, system)
                for k, m in enumerate(MODALITIES):  # the words on top
                    if (one := found.get(("shapley", m, reading))) is None:
                        continue
                    y = row + 0.26 * (k - 1)
                    value, low, high = canvas.scaled(evidence, [one.value, one.interval.low, one.interval.high])
                    panel.barh(y, value, height=0.24, color=_INKS[m], alpha=0.75, gid=gid)
                    if np.isfinite(low):
                        panel.hlines(y, low, high, color=INK, linewidth=0.9, gid=gid)
                    if reading == "absent" and oracle and abs(one.value) > 1e-9:  # of what the model reads
                        at = canvas.scaled(evidence, [oracle[m]])[0]
                        panel.plot(at, y, marker="|", color=INK, markersize=6, gid=gid)
            panel.axvline(0, color=INK, linewidth=0.8)
            names = ["\n".join(canvas.clipped(evidence.title(s), 24, 2)) for s in reversed(systems)]
            panel.set_yticks(range(len(systems)), names)
            panel.grid(visible=False, axis="y")
            panel.set_title(f"trained {regime}, {reading}", loc="left", fontsize=8)
            if i == len(regimes) - 1:
                panel.set_xlabel(f"Shapley value{' (points)' if evidence.metric.is_share else ''}")
    keys: list[Artist] = [Patch(color=_INKS[m], alpha=0.75, label=_NAMES[m]) for m in reversed(MODALITIES)]
    if oracle:
        keys.append(Line2D([], [], color=INK, marker="|", markersize=9, linestyle="none", label="perfect perceiver"))
    canvas.legend(drawn, keys)
    return drawn


def caption(evidence: Evidence) -> str:
    perfect = " Ticks: the perfect perceiver, exact." if ceiling_game(evidence.run.info.ceilings) else ""
    return (
        "What words, face and voice are worth to each model on clean test text: exact Shapley values of the three. "
        "Absent: a missing modality has no valid step; permuted: it is that of another utterance. "
        f"{canvas.uncertainty(evidence, 'Lines')}{perfect}"
    )


def finding(evidence: Evidence) -> str:
    """What the figure shows, for those who cannot see it."""
    told = []
    for regime, system in evidence.rows():
        found = _of(evidence, system, regime)
        values = [
            f"{_NAMES[m]} {fixed(100 * e.value if evidence.metric.is_share else e.value, 1)}"
            for m in reversed(MODALITIES)
            if (e := found.get(("shapley", m, "absent"))) is not None
        ]
        if values:
            told.append(f"{evidence.title(system)}, trained {regime}: {', '.join(values)}")
    return f"Shapley values, absent reading. {'; '.join(told)}."


def sentences(evidence: Evidence) -> Iterator[str]:
    """What the reference, or the baseline, owes to the words."""
    base, metric = evidence.reference, evidence.metric
    for regime in evidence.regimes:
        found = _of(evidence, base or "", regime)
        text, share = found.get(("shapley", "text", "absent")), found.get(("share", "text", "absent"))
        if text is None or share is None:
            continue
        part = f", {fixed(100 * share.value, 0)} % of what all three are worth" if np.isfinite(share.value) else ""
        excess = found.get(("excess", "text", "absent"))
        more = ""
        if excess is not None:
            verb = {1: "more than", -1: "less than", 0: "not shown to differ from what"}[_sign(excess)]
            by = gap(excess.value, excess.interval, metric)
            more = f"; that is {verb} they are worth to the perfect perceiver ({by}; by this interval alone)"
        yield (
            f"Trained {regime}, the words are worth {gap(text.value, text.interval, metric)} to "
            f"{evidence.title(base or '')} (Shapley value{part}){more}."
        )


def _sign(estimate: Estimate) -> int:
    ends = estimate.interval
    return 1 if ends.low > 0 else -1 if ends.high < 0 else 0
