"""Every system against every other: a matrix for each regime, on clean text and under the heaviest noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from dual_bench.report import canvas
from dual_bench.report.canvas import COLOURS, GRID, INK, MUTED, PAPER, WIDTH
from dual_bench.report.evidence import LEVEL, Evidence
from dual_bench.report.noise import Place
from dual_bench.report.numbers import NOTHING, bracket, listing, noun, number, p_value
from dual_bench.report.table import Table
from dual_bench.stats.contrasts import ALPHA, Pair

MOST_NUMBERS = 12
"""Systems up to which each cell has its number."""
_BESIDE = 7
"""Systems up to which matrices with numbers have room beside each other."""
_ABOVE, _BELOW, _GAP = 0.5, 0.42, 0.3
"""Inches above a matrix, below the last, and between two."""
_EM = 0.6 / 72
_SIZE = 6.5
_LETTERS = 24
_MOST_ROWS = 60
_TOLD = 6
"""Systems of which the text alternative tells whom they beat."""

_BETTER, _WORSE = COLOURS[1], COLOURS[2]
_DECIDED, _UNDECIDED = 0.55, 0.12
"""How much of its colour a cell has."""
_MARKS = {"better": "+", "worse": "−", "undecided": "·", "undefined": NOTHING}


def compared(evidence: Evidence) -> tuple[str, ...]:
    """The regimes with three systems or more. None of an ablation, which said beforehand what it would compare."""
    return () if evidence.study else tuple(r for r in evidence.regimes if len(evidence.trained(r)) > 2)


def best(evidence: Evidence, regime: str, place: Place) -> str | None:
    """The system that is decided to be better than each other one trained in ``regime``, or None."""
    pairs = evidence.pairwise(regime, place)
    wins = [p.left if p.verdict == "better" else p.right for p in pairs if p.verdict in ("better", "worse")]
    others = len(evidence.trained(regime)) - 1
    return next((s for s in evidence.trained(regime) if others and wins.count(s) == others), None)


def table(evidence: Evidence) -> Table | None:
    """Every pair on clean text and under the heaviest noise; for people, where it is not too long."""
    rows: list[dict[str, Any]] = []
    shown: list[dict[str, str]] = []
    metric = evidence.metric
    for regime in compared(evidence):
        for place in evidence.poles:
            for pair in evidence.pairwise(regime, place):
                line = {"trained": regime, "condition": place.label, "left": pair.left, "right": pair.right}
                rows.append(
                    {
                        **line, "corruption": place.corruption, "rate": place.rate, "metric": metric.name,
                        "estimate": pair.estimate, "low": pair.interval.low, "high": pair.interval.high, "level": LEVEL,
                        "p": pair.p, "p_adjusted": pair.p_adjusted, "verdict": pair.verdict,
                        "reason": pair.interval.reason,
                    }
                )  # fmt: skip
                shown.append(
                    line
                    | {"left": evidence.title(pair.left), "right": evidence.title(pair.right)}
                    | {
                        f"left − right{' (points)' if metric.is_share else ''}": f"{number(pair.estimate, metric)} "
                        f"{bracket(pair.interval, metric)}",
                        "p (Holm)": p_value(pair.p_adjusted) if pair.p_adjusted == pair.p_adjusted else NOTHING,
                        "left is": pair.verdict,
                    }
                )
    if not rows:
        return None
    notes = (f"Differences in {noun(metric)}. {_family(evidence)}",)
    return Table(
        "pairwise", "Every pair", pd.DataFrame(rows), pd.DataFrame(shown) if len(shown) <= _MOST_ROWS else None, notes
    )


def _family(evidence: Evidence) -> str:
    """Which tests are corrected together."""
    other = f" The comparisons with {evidence.reference} are a family of their own." if evidence.reference else ""
    return (
        "Paired t tests, corrected by Holm's method over all pairs of one regime under one condition; decided below "
        f"{ALPHA:g}.{other}"
    )


def order(evidence: Evidence, regime: str) -> list[str]:
    """The systems trained in ``regime``, the best on clean text first."""
    sign = -1 if evidence.metric.higher_is_better else 1
    clean = {s: evidence.at(s, regime, evidence.poles[0]).value for s in evidence.trained(regime)}
    return sorted(clean, key=lambda s: (clean[s] != clean[s], sign * clean[s]))


def figure(evidence: Evidence, regime: str) -> Figure:
    """Row minus column: blue where the row is better, orange where it is worse; pale where that is not decided."""
    systems, places = order(evidence, regime), evidence.poles
    count, numbers = len(systems), len(systems) <= MOST_NUMBERS
    across = 1 if numbers and count > _BESIDE else len(places)
    names = [f"{canvas.wrapped(evidence.title(s), _LETTERS).split(chr(10))[0]}" for s in systems]
    names = [n if n == evidence.title(s) else f"{n[: _LETTERS - 1]}…" for n, s in zip(names, systems, strict=True)]
    labels = 0.3 + _EM * _SIZE * max(map(len, names))
    wide = min(
        (WIDTH - labels - 0.05 - (across - 1) * _GAP) / across / count, max(0.5, 2.2 / count) if numbers else 0.26
    )
    high = 0.2 if numbers else min(wide, 0.2)
    deep = -(-len(places) // across)
    height = deep * (_ABOVE + count * high) + _BELOW
    drawn = canvas.blank(height, layout=None)
    for i, place in enumerate(places):
        row, column = divmod(i, across)
        left, top = labels + column * (count * wide + _GAP), height - row * (_ABOVE + count * high) - _ABOVE
        box = (left / WIDTH, (top - count * high) / height, count * wide / WIDTH, count * high / height)
        panel = drawn.add_axes(box)
        panel.set_axis_off()
        panel.set_xlim(0, count)
        panel.set_ylim(count, 0)
        title = f"trained {regime}, {place.label}"
        size = min(8.0, (count * wide + _GAP / 2) / (1.1 * _EM * len(title)))
        above: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
        panel.annotate(title, (0, 1), (0, 16), **above, fontsize=size, fontweight="bold")
        for k, (system, name) in enumerate(zip(systems, names, strict=True)):
            of: dict[str, Any] = {"fontsize": _SIZE, "gid": canvas.group(evidence, system)}
            panel.text(k + 0.5, -0.15, f"{k + 1}", ha="center", va="bottom", **of)
            if column == 0:
                panel.annotate(f"{name}  {k + 1}", (0, k + 0.5), (-4, 0), textcoords="offset points", ha="right",
                               va="center", annotation_clip=False, **of)  # fmt: skip
        _cells(panel, evidence, systems, evidence.pairwise(regime, place), numbers)
    _key(drawn, evidence, height, numbers)
    return drawn


def _cells(panel: Axes, evidence: Evidence, systems: list[str], pairs: tuple[Pair, ...], numbers: bool) -> None:
    boxes, colours = [], []
    for (row, column), difference, verdict in _both(systems, pairs):
        boxes.append((column + 0.03, row + 0.03, 0.94, 0.94))
        colours.append(_colour(evidence, difference, verdict))
        decided = verdict in ("better", "worse")
        text = number(difference, evidence.metric) if numbers else _MARKS[verdict]
        panel.text(
            column + 0.5, row + 0.5, text, ha="center", va="center_baseline", fontsize=6.3 if numbers else 7,
            color=INK if decided else MUTED, fontweight="bold" if decided else "normal",
        )  # fmt: skip
    boxes += [(i + 0.03, i + 0.03, 0.94, 0.94) for i in range(len(systems))]
    canvas.tiles(panel, boxes, facecolors=colours + [to_rgba(GRID)] * len(systems))


def _both(systems: list[str], pairs: tuple[Pair, ...]) -> Iterator[tuple[tuple[int, int], float, str]]:
    """(row, column), row minus column, and what the row is, of each pair and of its mirror image."""
    place = {system: i for i, system in enumerate(systems)}
    turned = {"better": "worse", "worse": "better"}
    for pair in pairs:
        i, j = place[pair.left], place[pair.right]
        yield (i, j), pair.estimate, pair.verdict
        yield (j, i), -pair.estimate, turned.get(pair.verdict, pair.verdict)


def _colour(evidence: Evidence, difference: float, verdict: str) -> tuple[float, float, float, float]:
    if verdict == "undefined" or difference == 0:
        return to_rgba(PAPER)
    better = (difference > 0) == evidence.metric.higher_is_better
    return to_rgba(_BETTER if better else _WORSE, _UNDECIDED if verdict == "undecided" else _DECIDED)


def _key(figure: Figure, evidence: Evidence, height: float, numbers: bool) -> None:
    """What the colours and marks mean."""
    panel = figure.add_axes((0, 0, 1, _BELOW / height))
    panel.set_axis_off()
    panel.set_xlim(0, WIDTH)
    panel.set_ylim(0, _BELOW)
    x, unit = 0.1, " (points)" if evidence.metric.is_share else ""
    for text, colours, mark in (
        ("row better than column", [to_rgba(_BETTER, _DECIDED)], "+"),
        ("row worse", [to_rgba(_WORSE, _DECIDED)], "−"),
        ("not decided", [to_rgba(_BETTER, _UNDECIDED), to_rgba(_WORSE, _UNDECIDED)], "·"),
    ):
        boxes = [(x + 0.22 * i, 0.13, 0.2, 0.17) for i in range(len(colours))]
        canvas.tiles(panel, boxes, facecolors=colours)
        for left, *_ in boxes if not numbers else ():
            weight = "normal" if mark == "·" else "bold"
            panel.text(left + 0.1, 0.215, mark, ha="center", va="center_baseline", fontsize=7, fontweight=weight)
        x += 0.22 * len(colours) + 0.05
        panel.text(x, 0.215, text, va="center_baseline", fontsize=_SIZE)
        x += _EM * _SIZE * len(text) + 0.16
    if numbers:
        panel.text(x, 0.215, f"numbers: row − column{unit}; bold: decided", va="center_baseline", fontsize=_SIZE)


def caption(evidence: Evidence, regime: str) -> str:
    """What the matrix shows, and which family its tests are."""
    count = len(evidence.trained(regime))
    metric = evidence.metric
    direction = "" if metric.higher_is_better else " (lower is better)"
    numbers = "" if count <= MOST_NUMBERS else " Numbers: tables/pairwise.csv."
    return (
        f"Differences in {noun(metric)}{direction} between every two systems trained {regime}, row minus column: "
        f"{canvas.points(evidence)}. Blue: the row is better; orange: it is worse; pale: not decided, which does not "
        f"mean equal. The best on clean text comes first. {_family(evidence)} Here that is {count * (count - 1) // 2} "
        f"pairs in each matrix.{numbers}"
    )


def finding(evidence: Evidence, regime: str) -> str:
    """How many pairs are decided, and which systems are better than most."""
    return " ".join([f"Every pair of systems trained {regime}.", *_told(evidence, regime)])


def _told(evidence: Evidence, regime: str) -> Iterator[str]:
    for place in evidence.poles:
        pairs = evidence.pairwise(regime, place)
        beaten: dict[str, list[str]] = {s: [] for s in order(evidence, regime)}
        for pair in pairs:
            if pair.verdict in ("better", "worse"):
                better, worse = (pair.left, pair.right) if pair.verdict == "better" else (pair.right, pair.left)
                beaten[better].append(evidence.title(worse))
        decided = sum(map(len, beaten.values()))
        most = sorted((s for s in beaten if beaten[s]), key=lambda s: -len(beaten[s]))[:_TOLD]
        said = [
            f"{evidence.title(s)} is better than "
            f"{listing(beaten[s]) if len(beaten[s]) <= 3 else f'{len(beaten[s])} others'}"
            for s in most
        ]
        yield f"{place.label[:1].upper()}{place.label[1:]}: {decided} of {len(pairs)} pairs are decided" + (
            f"; {'; '.join(said)}." if said else "."
        )
