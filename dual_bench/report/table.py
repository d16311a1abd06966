"""A table of the report: its numbers for a file, and the same in rounded strings for people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dual_bench.metrics import Metric
from dual_bench.report.numbers import NOTHING
from dual_bench.stats.curves import Estimate

LONG = 60
"""Rows that still are easy to pass by."""


@dataclass(frozen=True)
class Table:
    """``frame`` is written as CSV; ``shown`` holds the same in rounded strings, None where it is not shown."""

    name: str
    title: str
    frame: pd.DataFrame
    shown: pd.DataFrame | None
    notes: tuple[str, ...] = ()

    @property
    def is_long(self) -> bool:
        """Whether a page had better fold it up."""
        return self.shown is not None and len(self.shown) > LONG

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
