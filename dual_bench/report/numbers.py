"""Numbers into text. Rounding happens here and nowhere before: a share in percent with one decimal, else three."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dual_bench.metrics import Metric
from dual_bench.stats.contrasts import MOST
from dual_bench.stats.curves import Estimate
from dual_bench.stats.intervals import Interval

NOTHING = "–"
"""What stands where a number is undefined."""


def fixed(value: float, decimals: int) -> str:
    """A rounded number with a true minus sign and no negative zero.

    >>> fixed(-0.04, 1), fixed(-1.25, 2), fixed(float("nan"), 1)
    ('0.0', '−1.25', '–')
    """
    if not np.isfinite(value):
        return NOTHING
    text = f"{value:.{decimals}f}"
    return text.replace("-", "" if float(text) == 0 else "−")


def noun(metric: Metric) -> str:
    """The metric inside a sentence: accuracy, but MAE and Pearson r."""
    return (
        metric.title.lower() if metric.title == metric.title.capitalize() and metric.title.isalpha() else metric.title
    )


def number(value: float, metric: Metric) -> str:
    """A value of the metric, or a difference of two, without its unit."""
    return fixed(100 * value, 1) if metric.is_share else fixed(value, 3)


def span(low: float, high: float, metric: Metric) -> str:
    return f"{number(low, metric)} to {number(high, metric)}"


def bracket(interval: Interval, metric: Metric) -> str:
    """The interval in brackets, or that there is none."""
    return "(no interval)" if np.isnan(interval.low) else f"({span(interval.low, interval.high, metric)})"


def level(estimate: Estimate, metric: Metric) -> str:
    """``85.2 % (83.1 to 87.0)``."""
    return f"{number(estimate.value, metric)}{' %' if metric.is_share else ''} {bracket(estimate.interval, metric)}"


def gap(value: float, interval: Interval, metric: Metric) -> str:
    """A difference: ``12.3 points (10.0 to 14.5)``."""
    return f"{number(value, metric)}{' points' if metric.is_share else ''} {bracket(interval, metric)}"


def cell(estimate: Estimate, metric: Metric) -> str:
    """An estimate in a table: its interval beside it where there is one."""
    text = number(estimate.value, metric)
    return text if np.isnan(estimate.interval.low) else f"{text} {bracket(estimate.interval, metric)}"


def ratio_cell(estimate: Estimate, decimals: int, scale: int = 1) -> str:
    """A ratio in a table, in percent where ``scale`` is 100, and its interval where there is one."""
    ends = estimate.interval
    text, low, high = (fixed(scale * value, decimals) for value in (estimate.value, ends.low, ends.high))
    return text if np.isnan(ends.low) else f"{text} ({low} to {high})"


def percent(rate: float) -> str:
    """``37.5 %``."""
    return f"{100 * rate:.4g} %" if np.isfinite(rate) else NOTHING


def p_value(p: float) -> str:
    """
    >>> p_value(0.0004), p_value(0.0312), p_value(1.0)
    ('< 0.001', '0.031', '1.000')
    """
    return "< 0.001" if p < 0.001 else fixed(p, 3)


def listing(names: Sequence[str]) -> str:
    """
    >>> listing(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def plural(count: int, noun: str) -> str:
    """
    >>> plural(1, "seed"), plural(1200, "seed")
    ('1 seed', '1,200 seeds')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


WOULD_DECIDE = (
    "Would decide: about how many seeds, or else how many clusters of test utterances, would just decide it if the "
    "estimate and what makes it uncertain stayed as they are (an even chance, as the estimate will not stay; plan for "
    f"more); {NOTHING} where {MOST['seeds']:,} seeds, or {MOST['clusters']:,} clusters, would not."
)


def counts_needed(*counts: int | None) -> str:
    """
    >>> counts_needed(12, None)
    '12 / –'
    """
    return " / ".join(NOTHING if count is None else f"{count:,}" for count in counts)
