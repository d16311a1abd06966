"""How fast the bootstrap is, as a ratio to a plain loop over resamples, seeds and draws in the same run.

    python benchmarks/resampling.py --out reports/reference/resampling-speed.md

The size is that of MELD's test part with five seeds and five noise draws: 280 dialogues, 2,610 utterances, seven
classes; the statistic is the paired difference of two systems in weighted F1, under 20 conditions. The loops do a few
of the resamples and are scaled up; what they find is compared with what the library found for the same resamples.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from showing import Section, Table, arguments, shown, tell
from sklearn.metrics import f1_score
from timing import Ratio

from dual_bench.metrics import WEIGHTED_F1
from dual_bench.stats.resampling import Weights, replicates, resample
from dual_bench.types import FloatArray, IntArray

SEEDS, DRAWS, CLUSTERS, UTTERANCES, CLASSES = 5, 5, 280, 2_610, 7
CONDITIONS, RESAMPLES, IN_LOOP = 20, 10_000, 4


def f1_by_counting(truth: IntArray, predicted: IntArray) -> float:
    """Weighted F1 from one count of the pairs: as fast as a loop has it without a change of plan."""
    table = np.bincount(truth * CLASSES + predicted, minlength=CLASSES**2).reshape(CLASSES, CLASSES)
    support, named = table.sum(axis=1), table.sum(axis=0)
    f1 = 2 * np.diag(table) / np.maximum(support + named, 1)
    return float((f1 * support).sum() / support.sum())


def f1_by_sklearn(truth: IntArray, predicted: IntArray) -> float:
    return float(f1_score(truth, predicted, average="weighted", zero_division=0.0))


def loop(
    f1: Callable[[IntArray, IntArray], float],
    truth: IntArray,
    answers: IntArray,
    rows: list[IntArray],
    weights: Weights,
) -> FloatArray:
    """The difference in the first resamples, for two systems' ``answers`` (2, S, D, N)."""
    found = np.empty(IN_LOOP)
    for r in range(IN_LOOP):
        chosen = np.concatenate([rows[c] for c in np.repeat(np.arange(CLUSTERS), weights.clusters[r])])
        values = []
        for s in np.repeat(np.arange(SEEDS), weights.seeds[r]):
            for d in np.repeat(np.arange(DRAWS), weights.draws[r]):
                left, right = (f1(truth[chosen], side[s, d, chosen]) for side in answers)
                values.append(left - right)
        found[r] = np.mean(values)
    return found


def measure(repetitions: int) -> Section:
    rng = np.random.default_rng(0)
    truth = rng.integers(CLASSES, size=UTTERANCES)
    cluster = np.sort(np.append(np.arange(CLUSTERS), rng.integers(CLUSTERS, size=UTTERANCES - CLUSTERS)))
    rows = [np.flatnonzero(cluster == c) for c in range(CLUSTERS)]
    starts = np.array([row[0] for row in rows])
    shape = (CONDITIONS, 2, SEEDS, DRAWS, UTTERANCES)
    answers = np.where(rng.random(shape) < 0.6, truth, rng.integers(CLASSES, size=shape))
    sums = np.empty((CONDITIONS, 2, SEEDS, DRAWS, CLUSTERS, 3 * CLASSES))
    for place in np.ndindex(*shape[:-1]):
        statistics = WEIGHTED_F1.statistics(truth, np.eye(CLASSES)[answers[place]])
        sums[place] = np.add.reduceat(statistics, starts)

    weights = resample(rng, SEEDS, DRAWS, CLUSTERS, RESAMPLES)
    loops = {"loop, counting with numpy": f1_by_counting, "loop, scikit-learn's f1_score": f1_by_sklearn}
    seconds: list[float] = []
    slow: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(repetitions):
        began = time.perf_counter()
        ours = []
        for left, right in sums:
            sides = [replicates(side, WEIGHTED_F1.value, weights) for side in (left, right)]
            ours.append(sides[0] - sides[1])
        seconds.append(time.perf_counter() - began)
        for name, f1 in loops.items():
            began = time.perf_counter()
            found = loop(f1, truth, answers[0], rows, weights)
            slow[name].append((time.perf_counter() - began) / IN_LOOP * RESAMPLES * CONDITIONS)
            np.testing.assert_allclose(found, ours[0][:IN_LOOP], rtol=0, atol=1e-12)
    about = (
        f"{RESAMPLES:,} resamples of seeds, noise draws and dialogues ({SEEDS} x {DRAWS} x {CLUSTERS}; {UTTERANCES:,} "
        f"utterances, {CLASSES} classes) of the paired difference in weighted F1 under {CONDITIONS} conditions; "
        f"medians of {repetitions} repetitions. The loops are scaled up from {IN_LOOP} resamples of one condition."
    )
    ratios = tuple(
        Ratio("bootstrap of weighted F1", "`stats.resampling.replicates`", name, tuple(seconds), tuple(slow[name]))
        for name in loops
    )
    lines = (("`stats.resampling.replicates`", shown(ratios[0].our_median), "1"),)
    lines += tuple((ratio.theirs, shown(ratio.their_median), f"{ratio.value:,.0f}") for ratio in ratios)
    table = Table("Seconds", ("how", "seconds", "times as long"), lines)
    return Section("How fast is the bootstrap?", about, ratios, tables=(table,))


def main() -> None:
    asked = arguments(__doc__, repetitions=5).parse_args()
    tell(measure(asked.repetitions), asked)


if __name__ == "__main__":
    main()
