"""How fast the bootstrap is, as a ratio to a plain loop over resamples, seeds and draws in the same run.

    python benchmarks/resampling.py --out reports/reference/resampling-speed.md

The size is that of MELD's test part with five seeds and five noise draws: 280 dialogues, 2,610 utterances, seven
classes; the statistic is the paired difference of two systems in weighted F1, under 20 conditions. The loops do a few
of the resamples and are scaled up; what they find is compared with what the library found for the same resamples.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.metrics import f1_score

from dual_bench.metrics import WEIGHTED_F1
from dual_bench.stats.resampling import Weights, replicates, resample
from dual_bench.store import write_text
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


def measure() -> str:
    """The page."""
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

    began = time.perf_counter()
    weights = resample(rng, SEEDS, DRAWS, CLUSTERS, RESAMPLES)
    ours = []
    for left, right in sums:
        sides = [replicates(side, WEIGHTED_F1.value, weights) for side in (left, right)]
        ours.append(sides[0] - sides[1])
    seconds = time.perf_counter() - began

    lines = [
        "# How fast is the bootstrap?",
        "",
        f"`make bench`: {RESAMPLES:,} resamples of seeds, noise draws and dialogues ({SEEDS} x {DRAWS} x {CLUSTERS}; "
        f"{UTTERANCES:,} utterances, {CLASSES} classes) of the paired difference in weighted F1 under {CONDITIONS} "
        "conditions.",
        "",
        "| how | seconds | times as long |",
        "|---|---:|---:|",
        f"| `stats.resampling.replicates` | {seconds:.1f} | 1 |",
    ]
    for title, f1 in (("loop, counting with numpy", f1_by_counting), ("loop, scikit-learn's f1_score", f1_by_sklearn)):
        began = time.perf_counter()
        found = loop(f1, truth, answers[0], rows, weights)
        slow = (time.perf_counter() - began) / IN_LOOP * RESAMPLES * CONDITIONS
        np.testing.assert_allclose(found, ours[0][:IN_LOOP], rtol=0, atol=1e-12)
        lines.append(f"| {title} | {slow:,.0f} (from {IN_LOOP} resamples of one condition) | {slow / seconds:,.0f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    write_text(parser.parse_args().out, measure())


if __name__ == "__main__":
    main()
