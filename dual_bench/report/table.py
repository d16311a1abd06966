"""A table of the report: its numbers for a file, and the same in rounded strings for people."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dual_bench.metrics import Metric
from dual_bench.report.numbers import NOTHING
from dual_bench.spreadsheet import neutral
from dual_bench.stats.curves import Estimate

LONG = 40
"""Rows that still are easy to pass by."""

DIGITS = 12
"""Significant digits of a number in a file."""

TINY = 1e-15
"""What is smaller is the dust of sums that come to 0."""

_NUMBER = re.compile(r"[\d−<–]")
BEST = (
    "Bold: better than every other system of its regime under that condition, after Holm's correction over the pairs "
    "of that regime and condition, the comparisons with the reference agreeing; no bold: no such system."
)


@dataclass(frozen=True)
class Table:
    """``frame`` is written as CSV; ``shown`` holds the same in rounded strings, None where it is not shown."""

    name: str
    title: str
    frame: pd.DataFrame
    shown: pd.DataFrame | None
    notes: tuple[str, ...] = ()
    bold: frozenset[tuple[int, str]] = frozenset()
    """Cells of ``shown`` that stand out, as (number of the row, column): what is shown to be best (``BEST``)."""
    brackets: str = "95 % intervals"
    """What stands in the brackets of ``shown``, where there are some."""

    @property
    def is_long(self) -> bool:
        """Whether a page had better fold it up."""
        return self.shown is not None and len(self.shown) > LONG

    def csv(self) -> str:
        """Numbers with 12 significant digits, undefined ones as NaN, and no cell that a spreadsheet would run.

        What lies beyond those digits depends on the processor, as the order of its sums does; so does all below 1e-15,
        which is written as 0.
        """
        safe = self.frame.map(_filed).rename(columns=neutral)
        return safe.to_csv(index=False, lineterminator="\n", na_rep="NaN")


def _filed(value: object) -> object:
    """A value as it goes into a file."""
    if isinstance(value, str):
        return neutral(value)
    if isinstance(value, float | np.floating):
        return 0.0 if abs(float(value)) < TINY else float(f"{value:.{DIGITS}g}")
    return value


def is_numeric(column: pd.Series[str]) -> bool:
    """Whether every cell of a shown column is a number, or stands for one."""
    return all(map(_NUMBER.match, column))  # over text, faster than pandas' own


def columns(estimate: Estimate, prefix: str = "") -> dict[str, float | str]:
    """An estimate as CSV columns."""
    ends = estimate.interval
    return {
        prefix or "value": estimate.value,
        f"{prefix}_low" if prefix else "low": ends.low,
        f"{prefix}_high" if prefix else "high": ends.high,
        f"{prefix}_reason" if prefix else "reason": ends.reason,
    }


def none_as_nan(count: int | None) -> float:
    return np.nan if count is None else count


def reasons(estimates: Iterable[Estimate]) -> tuple[str, ...]:
    """Why numbers or intervals are absent, each reason once."""
    found: dict[str, None] = {}
    for estimate in estimates:
        if estimate.interval.reason:
            what = f"“{NOTHING}” is undefined" if np.isnan(estimate.value) else "No interval"
            found[f"{what}: {estimate.interval.reason}."] = None
    return tuple(found)


def heading(metric: Metric) -> str:
    unit = " (%)" if metric.is_share else ""
    return f"{metric.title}{unit}{'' if metric.higher_is_better else ', lower is better'}"
