"""The grid of a heat map: corruptions by severity, or by nominal rate where a run has no severities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dual_bench.report.noise import Noise, in_families
from dual_bench.report.numbers import percent

FEWEST_WITHOUT_SEVERITIES, MOST_COLUMNS = 3, 20


@dataclass(frozen=True)
class Spot:
    """Where a cell of the grid lies; a target not ``reached`` shares its rate, and its number, with others."""

    rate: float
    target: float
    """Word error rate asked for; NaN in a grid of rates."""
    training_wer: float
    reached: bool


@dataclass(frozen=True)
class Grid:
    """``columns`` are severities, or nominal rates; clean text comes before them. A spot may be missing."""

    rows: tuple[str, ...]
    columns: tuple[float, ...]
    by_severity: bool
    spots: Mapping[tuple[str, float], Spot]
    left_out: tuple[str, ...]
    """Corruptions of the run that have no severity."""

    @property
    def last(self) -> float:
        return self.columns[-1]

    def heading(self, column: float) -> str:
        """``severity 3`` or ``35 %``."""
        return f"severity {column:g}" if self.by_severity else percent(column)

    def target(self, column: float) -> float:
        """The word error rate that a severity stands for."""
        return next((spot.target for (_, at), spot in self.spots.items() if at == column), np.nan)

    def unreached(self) -> list[tuple[str, list[int], float]]:
        """(corruption, severities, word error rate on the training text instead), for each rate that stands in."""
        found: dict[tuple[str, float], list[int]] = {}
        for (corruption, column), spot in self.spots.items():
            if not spot.reached:
                found.setdefault((corruption, spot.training_wer), []).append(int(column))
        return [(corruption, severities, wer) for (corruption, wer), severities in found.items()]


def make(corruptions: Sequence[str], noise: Noise, rates: Mapping[str, Sequence[float]]) -> Grid | None:
    """The grid of ``corruptions``, whose tested rates are ``rates``; None where it would not help."""
    rows = in_families(corruptions)
    if noise.severities:
        points = [p for name in rows for p in noise.severities.get(name, ()) if p.rate in rates[name]]
        spots = {(p.corruption, float(p.severity)): Spot(p.rate, p.target, p.wer, p.reached) for p in points}
    elif len(rows) >= FEWEST_WITHOUT_SEVERITIES:
        spots = {(name, rate): Spot(rate, np.nan, np.nan, True) for name in rows for rate in rates[name]}
    else:
        return None
    columns = tuple(sorted({column for _, column in spots}))
    if not spots or len(columns) > MOST_COLUMNS:
        return None
    placed = tuple(name for name in rows if any(name == row for row, _ in spots))
    left_out = tuple(name for name in rows if name not in placed)
    return Grid(placed, columns, bool(noise.severities), spots, left_out)
