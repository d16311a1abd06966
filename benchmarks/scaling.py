"""How the cost of a study grows with utterances, conditions and seeds.

    python benchmarks/scaling.py --out scaling.md

A study of DUAL on a corpus that is made up (``made``) is run in three sizes of each, the others as in the smallest, by
``dual_bench.runner.run`` with a fresh cache: texts, training, predictions and rows, everything but the report. The
sizes take turns. The exponent is the slope of log seconds over log size: 1 is linear growth, less is cheaper by the
dozen.
What a study costs however small it is (processes that start, the encoder's weights) makes it lower.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from showing import Section, Table, arguments, shown, tell
from timing import Limit, in_turns

from dual_bench import runner
from dual_bench.plan import Plan, read_plan

CORRUPTIONS = ("word-drop", "typo", "ocr", "stutter")
RATES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
SMALLEST = {"utterances": 400, "conditions": 20, "seeds": 2}
TIMES = (1, 2, 4)
MOST = {"utterances": 1.1, "conditions": 1.1, "seeds": 1.0}
"""The largest exponent that is asked for: linear growth, give or take what repetitions differ by, and less."""


def plan_of(utterances: int, conditions: int, seeds: int) -> Plan:
    """Of ten utterances eight train, one chooses and one is tested; each draw of the noise makes 20 conditions."""
    tenth, draws = utterances // 10, conditions // (len(CORRUPTIONS) * (len(RATES) - 1))
    parts = f"train={8 * tenth},validation={tenth},test={tenth}"
    fields = {
        "dataset": f"made:load:{parts},audio=64,vision=64", "models": ["dual"], "regimes": ["clean"], "metric": "",
        "corruptions": CORRUPTIONS, "rates": RATES, "draws": draws, "seeds": seeds, "dependency": False,
        "training": {"epochs": 3, "patience": 3},
    }  # fmt: skip
    return read_plan("default", fields)


def run(plan: Plan) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        runner.run(plan, Path(), folder / "cache", folder / "reports", folder / "run", "cpu")


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The slope of log seconds over log size.

    >>> round(exponent([1, 2, 4], [3, 12, 48]), 6)
    2.0
    """
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def measure(repetitions: int, smallest: Mapping[str, int] = SMALLEST) -> Section:
    sizes = {unit: [smallest[unit] * times for times in TIMES] for unit in smallest}
    studies = {
        (unit, size): partial(run, plan_of(**{**smallest, unit: size})) for unit in sizes for size in sizes[unit][1:]
    }
    first = partial(run, plan_of(**smallest))
    first()  # whatever is done once and for all
    found = in_turns(
        {"smallest": first} | {f"{unit} {size}": work for (unit, size), work in studies.items()}, repetitions
    )
    rows, limits = [], []
    for unit, counts in sizes.items():
        series = [found["smallest"], *(found[f"{unit} {size}"] for size in counts[1:])]
        medians = [statistics.median(seconds) for seconds in series]
        slopes = [exponent(counts, seconds) for seconds in zip(*series, strict=True)]
        for size, seconds, median in zip(counts, series, medians, strict=True):
            spread = f"{shown(min(seconds))} to {shown(max(seconds))}"
            rows.append((unit, f"{size:,}", shown(median), spread, shown(median / size)))
        more = (medians[-1] - medians[0]) / (counts[-1] - counts[0])
        rows.append((f"{unit}, one more", "", "", "", shown(more)))
        limits.append(
            Limit(
                f"exponent of the cost in {unit} ({min(slopes):.2f} to {max(slopes):.2f})",
                exponent(counts, medians),
                MOST[unit],
                "",
            )
        )
    about = (
        f"DUAL in its default size on `made`, features of width 64, trained for three epochs; {repetitions} "
        "repetitions in turns. Where one number grows the others are "
        + ", ".join(f"{count:,} {unit}" for unit, count in smallest.items())
        + ". Seconds by the clock of a whole run with a fresh cache, without the report."
    )
    head = ("what grows", "how many", "s, median", "lowest to highest", "s for one")
    return Section("Scaling", about, limits=tuple(limits), tables=(Table("Seconds by size", head, tuple(rows)),))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--repetitions", type=int, default=3, help="runs of each size (default: 3)")
    asked = parser.parse_args()
    tell(measure(asked.repetitions), asked)


if __name__ == "__main__":
    main()
