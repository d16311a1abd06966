"""How the cost of a study grows with utterances, conditions and seeds.

    python benchmarks/scaling.py --out scaling.md

A study of DUAL on a corpus that is made up (``made``) is run in three sizes of each, the others as in the smallest, by
``dual_bench.runner.run`` with a fresh cache: texts, training, predictions and rows, everything but the report. The
sizes take turns. What a study costs however small it is (processes that start, the encoder's weights) would hide how
the rest grows, so it is marginal costs that are judged: what one more costs between the second size and the third.
Of utterances and conditions it is compared with that between the first and the second, and 1 is linear growth; of
seeds with a whole study of one seed, and less than 1 is cheaper by the dozen.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

from showing import Section, Table, arguments, shown, tell
from timing import Limit, in_turns

from dual_bench import runner
from dual_bench.plan import Plan, read_plan

CORRUPTIONS = ("word-drop", "typo", "ocr", "stutter")
RATES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
SMALLEST = {"utterances": 400, "conditions": 20, "seeds": 1}
TIMES = (1, 2, 4)
MOST = {"utterances": 1.25, "conditions": 1.25, "seeds": 1.0}
"""The largest ratio that is asked for: linear growth, give or take what repetitions differ by, and less than it."""


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


def marginal(sizes: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """What one more costs between the first and the second of three sizes, and between the second and the third.

    >>> marginal([1, 2, 4], [13, 16, 28])
    (3.0, 6.0)
    """
    (a, b, c), (first, second, third) = sizes, seconds
    return (second - first) / (b - a), (third - second) / (c - b)


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
    rows, limits, fixed = [], [], []
    for unit, counts in sizes.items():
        series = [found["smallest"], *(found[f"{unit} {size}"] for size in counts[1:])]
        medians = [statistics.median(seconds) for seconds in series]
        few, many = marginal(counts, medians)
        for size, seconds, median in zip(counts, series, medians, strict=True):
            spread = f"{shown(min(seconds))} to {shown(max(seconds))}"
            rows.append((unit, f"{size:,}", shown(median), spread, shown(median / size)))
        for cost, (low, high) in zip((few, many), pairwise(counts), strict=True):
            rows.append((f"{unit}, one more", f"{low:,} to {high:,}", "", "", shown(cost)))
        if unit == "seeds":
            limits.append(Limit("cost of one more seed, of that of a study of one", many / medians[0], MOST[unit], ""))
        else:
            limits.append(Limit(f"cost of one more of {unit}, many to few", many / few, MOST[unit], ""))
        fixed.append(f"{shown(max(0.0, medians[0] - few * counts[0]))} s by {unit}")
    about = (
        f"DUAL in its default size on `made`, features of width 64, trained for three epochs; {repetitions} "
        "repetitions in turns. Where one number grows the others are "
        + ", ".join(f"{count:,} {unit}" for unit, count in smallest.items())
        + ". Seconds by the clock of a whole run with a fresh cache, without the report. Judged is what one more costs "
        "(median seconds between the second size and the third): against that between the first and the second; for "
        "seeds against a whole study of one seed, which has all fixed costs. What is left when the smallest size is "
        "taken away at the cost between the first and the second: "
        + ", ".join(fixed)
        + "; this is what does not grow with the one number, and what does with the others is in it."
    )
    head = ("what grows", "how many", "s, median", "lowest to highest", "s for one")
    return Section("Scaling", about, limits=tuple(limits), tables=(Table("Seconds by size", head, tuple(rows)),))


def main() -> None:
    asked = arguments(__doc__, repetitions=3).parse_args()
    tell(measure(asked.repetitions), asked)


if __name__ == "__main__":
    main()
