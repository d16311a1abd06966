"""The critical-difference diagram: mean ranks on an axis, and bars over systems that are not shown to differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dual_bench.report import canvas
from dual_bench.report.canvas import COLOURS, INK, MUTED, WIDTH
from dual_bench.report.numbers import fixed, listing
from dual_bench.stats.ranks import cliques
from dual_bench.types import FloatArray

_ROW, _BAR, _ABOVE = 0.24, 0.11, 0.62
"""Inches: a line of a name, from one bar to the next, and what is above the axis."""
_LETTER = 0.068
"""Inches that a letter takes at most, on average, at size 8."""
_LONGEST = 30
"""Letters of a name in one line."""


@dataclass(frozen=True)
class Diagram:
    """k ``systems`` with their ``mean_ranks`` (k,), as in Demšar (2006, Journal of Machine Learning Research 7:1)."""

    systems: tuple[str, ...]
    mean_ranks: FloatArray
    critical_difference: float
    differ: bool = True
    """Whether any are shown to differ at all."""

    @property
    def cliques(self) -> list[tuple[int, ...]]:
        """The systems that a bar joins."""
        return cliques(self.mean_ranks, self.critical_difference if self.differ else np.inf)

    @property
    def order(self) -> list[int]:
        """The systems, best first."""
        return [int(i) for i in np.argsort(self.mean_ranks, kind="stable")]

    def draw(self) -> Figure:
        """The better half is named on the left, the others on the right, each at the end of a line from its rank."""
        names = {i: "\n".join(canvas.clipped(self.systems[i], _LONGEST, 3)) for i in self.order}
        half = -(-len(self.order) // 2)
        left, right = self.order[:half], self.order[half:][::-1]
        bars = self.cliques
        below = 0.16 + _BAR * len(bars) + 0.1
        rows = max(sum(1 + 0.6 * names[i].count("\n") for i in side) for side in (left, right))
        height = _ABOVE + below + _ROW * rows + 0.1
        inset, outset = (
            0.25 + _LETTER * max((len(line) for i in side for line in names[i].split("\n")), default=0)
            for side in (left, right)
        )
        figure = canvas.blank(height, layout=None)
        panel = figure.add_axes((0, 0, 1, 1))
        panel.set_axis_off()
        panel.set_xlim(0, WIDTH)
        panel.set_ylim(0, height)
        top, k = height - _ABOVE, len(self.order)

        def x(rank: float) -> float:
            return float(inset + 0.35 + (rank - 1) / (k - 1) * (WIDTH - inset - outset - 0.7))

        self._axis(panel, x, top)
        for row, members in enumerate(bars):
            y = top - 0.16 - _BAR * row
            ends = self.mean_ranks[[members[0], members[-1]]]
            panel.plot([x(ends[0]) - 0.04, x(ends[1]) + 0.04], [y, y], color=INK, linewidth=3.2)
        for side, edge, align in ((left, inset, "right"), (right, WIDTH - outset, "left")):
            y = top - below
            for i in side:
                lines = names[i].count("\n")
                y -= _ROW * (0.5 + 0.3 * lines)
                rank = x(float(self.mean_ranks[i]))
                panel.plot([edge, rank, rank], [y, y, top], color=MUTED, linewidth=0.9)
                panel.plot(rank, top, marker="o", markersize=3.6, color=COLOURS[1])
                away = -0.06 if align == "right" else 0.06
                panel.text(edge + away, y, names[i], ha=align, va="center", linespacing=0.95)
                shown = fixed(float(self.mean_ranks[i]), 2)
                inside = {"right": "left", "left": "right"}[align]
                panel.text(edge - away, y + 0.03, shown, ha=inside, va="bottom", fontsize=6.5, color=MUTED)
                y -= _ROW * (0.5 + 0.3 * lines)
        return figure

    def _axis(self, panel: Axes, x: Callable[[float], float], top: float) -> None:
        """Whole ranks, and the critical difference as a bar above them."""
        k = len(self.order)
        panel.plot([x(1), x(k)], [top, top], color=INK, linewidth=1.0)
        for rank in range(1, k + 1):
            panel.plot([x(rank), x(rank)], [top, top + 0.07], color=INK, linewidth=1.0)
            panel.text(x(rank), top + 0.1, f"{rank}", ha="center", va="bottom", fontsize=7)
        panel.text(x(1) - 0.16, top + 0.1, "better", ha="right", va="bottom", fontsize=6.5, color=MUTED)
        panel.text(x(k) + 0.16, top + 0.1, "worse", ha="left", va="bottom", fontsize=6.5, color=MUTED)
        end = min(x(1 + self.critical_difference), WIDTH)
        y = top + 0.34
        panel.plot([x(1), end], [y, y], color=COLOURS[2], linewidth=1.6)
        for at in (x(1), x(1 + self.critical_difference)):  # wider than the page, it has no end
            panel.plot([at, at], [y - 0.04, y + 0.04], color=COLOURS[2], linewidth=1.6)
        text = f"critical difference {fixed(self.critical_difference, 2)}"
        panel.text(x(1), y + 0.07, text, ha="left", va="bottom", fontsize=7, color=INK)

    def finding(self) -> str:
        """What the figure shows, for those who cannot see it."""
        ranks = [f"{self.systems[i]} {fixed(float(self.mean_ranks[i]), 2)}" for i in self.order]
        joined = [listing([self.systems[i] for i in c]) for c in self.cliques]
        told = f"Not shown to differ: {'; '.join(joined)}." if joined else "All systems are shown to differ."
        return (
            f"Mean ranks, best first: {', '.join(ranks)}. Critical difference {fixed(self.critical_difference, 2)}. "
            f"{told}"
        )
