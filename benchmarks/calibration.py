"""Do intervals cover, and do tests keep their level? Simulated studies whose truth is known.

    python benchmarks/calibration.py --out reports/reference --repeats 1000

Two systems answer utterances of a test set: a score that is normal, with effects of what is hard for both, of each
system, its training seed, the noise draw, the dialogue, the utterance, and of these together; an answer is right where
the score is positive, and else one of the other classes. Worlds differ in which effect leads. The truth of accuracy
and of weighted F1 is computed from the distribution, not from a sample.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm

from dual_bench.metrics import ACCURACY, WEIGHTED_F1, Metric
from dual_bench.processes import cores
from dual_bench.report.numbers import fixed
from dual_bench.stats.contrasts import p_value
from dual_bench.stats.effects import p_equivalence
from dual_bench.stats.intervals import all_intervals
from dual_bench.stats.paired import dependent_correlations, mcnemar, probability_of_improvement
from dual_bench.stats.ranks import friedman, nemenyi, wilcoxon
from dual_bench.stats.resampling import permutation_p, point_of, quotient, resample
from dual_bench.store import write_text
from dual_bench.types import FloatArray, IntArray

RESAMPLES = 1_000
PRIOR = np.array([0.47, 0.17, 0.13, 0.11, 0.08, 0.03, 0.01])  # seven classes as uneven as MELD's test part
SKILL = 0.6


@dataclass(frozen=True)
class World:
    """Standard deviations of the effects on the score of one answer; its own noise has 1."""

    dialogue: float = 0.4
    utterance: float = 0.6
    """What is hard for both systems."""
    own_dialogue: float = 0.1
    own_utterance: float = 0.2
    """What is hard for one."""
    seed: float = 0.05
    draw: float = 0.02
    seed_dialogue: float = 0.05
    seed_utterance: float = 0.3
    draw_utterance: float = 0.2
    rest: float = 0.2

    @property
    def spread(self) -> float:
        """Of the score of a random answer, given the seed and the draw."""
        parts = (
            self.dialogue, self.utterance, self.own_dialogue, self.own_utterance, self.seed_dialogue,
            self.seed_utterance, self.draw_utterance, self.rest,
        )  # fmt: skip
        return float(np.sqrt(sum(part**2 for part in parts)))


WORLDS = {
    "all levels": World(),
    "seeds lead": World(seed=0.4),
    "draws lead": World(draw=0.3),
    "dialogues lead": World(own_dialogue=0.6, seed=0.01),
    "no level leads": World(own_dialogue=0.0, own_utterance=0.0, seed=0.0, draw=0.0, seed_utterance=0.6),
}
"""In the last, systems differ by nothing but the luck of each seed with each utterance."""


@dataclass(frozen=True)
class Size:
    seeds: int
    draws: int
    dialogues: int
    utterances: int

    def __str__(self) -> str:
        return f"{self.seeds} seeds, {self.draws} draws, {self.dialogues} clusters, {self.utterances:,} utterances"


SIZES = {"realistic": Size(5, 5, 280, 2_610), "small": Size(3, 3, 30, 280)}
"""The first is MELD's test part."""


def answers(rng: np.random.Generator, world: World, size: Size, skills: Sequence[float]) -> Iterator[FloatArray]:
    """For each system whether it is right, (S, D, N); ``dialogues_of`` says where each utterance belongs."""
    of, n = dialogues_of(size), size.utterances

    def effect(deviation: float, *shape: int) -> FloatArray:
        return deviation * rng.normal(size=shape)

    shared = effect(world.dialogue, size.dialogues)[of] + effect(world.utterance, n)
    for skill in skills:
        score = skill + shared + effect(world.own_dialogue, size.dialogues)[of] + effect(world.own_utterance, n)
        score = score + effect(world.seed, size.seeds, 1, 1) + effect(world.draw, 1, size.draws, 1)
        score = score + effect(world.seed_dialogue, size.seeds, 1, size.dialogues)[:, :, of]
        score = score + effect(world.seed_utterance, size.seeds, 1, n) + effect(world.draw_utterance, 1, size.draws, n)
        score = score + effect(world.rest, size.seeds, size.draws, n)
        yield rng.random(score.shape) < norm.cdf(score)


def dialogues_of(size: Size) -> IntArray:
    """Dialogues of uneven length, the same in every simulation: they are what is resampled, not their lengths."""
    rng = np.random.default_rng(0)
    extra = rng.multinomial(size.utterances - size.dialogues, rng.dirichlet(np.full(size.dialogues, 2.0)))
    return np.repeat(np.arange(size.dialogues), 1 + extra)


def sums_of(rng: np.random.Generator, metric: Metric, right: FloatArray, size: Size) -> FloatArray:
    """Sums of the statistics of ``metric``, (S, D, C, m); classes are drawn here, the same for every answer."""
    of, k = dialogues_of(size), len(PRIOR)
    truth = rng.choice(k, size=size.utterances, p=PRIOR)
    other = (truth + rng.integers(1, k, size=right.shape)) % k
    scores = np.eye(k)[np.where(right, truth, other)]
    flat = metric.statistics(np.tile(truth, right[..., 0].size).astype(float), scores.reshape(-1, k))
    starts = np.searchsorted(of, np.arange(size.dialogues))
    return np.add.reduceat(flat.reshape(*right.shape, -1), starts, axis=2)


def truth_of(metric: Metric, skill: float, world: World) -> float:
    """The expected metric of a system on endlessly many utterances, over seeds and draws."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    luck = np.hypot(world.seed, world.draw) * nodes
    accuracy = norm.cdf((skill + luck) / np.sqrt(1 + world.spread**2))
    k = len(PRIOR)
    hits = accuracy[:, None] * PRIOR
    predicted = hits + (1 - accuracy)[:, None] * (1 - PRIOR) / (k - 1)
    sums = hits if metric is ACCURACY else np.concatenate([hits, np.tile(PRIOR, (40, 1)), predicted], axis=1)
    values = accuracy if metric is ACCURACY else metric.value(sums)
    return float(np.average(values, weights=weights))


QUANTITIES = ("accuracy", "accuracy, difference", "weighted F1, difference", "accuracy, ratio")


def intervals_and_tests(number: int, world: World, size: Size) -> dict[str, bool]:
    """One simulated study of two unequal systems: whether each interval covers, by ``kind|quantity``, and whether a
    test rejects that the difference is what it truly is, or that it is as large as the margin that it truly is."""
    rng = np.random.default_rng([number, size.utterances])
    skills = (SKILL, SKILL - 0.1)
    right = list(answers(rng, world, size, skills))
    weights = resample(rng, size.seeds, size.draws, size.dialogues, RESAMPLES)
    classes = int(rng.integers(2**32))
    points, truths = {}, {}
    for metric in (ACCURACY, WEIGHTED_F1):
        sides = [sums_of(np.random.default_rng(classes), metric, one, size) for one in right]
        points[metric.name] = [point_of(side, metric.value, weights) for side in sides]
        truths[metric.name] = [truth_of(metric, skill, world) for skill in skills]
    (left, right_), (a, b) = points["accuracy"], truths["accuracy"]
    differences = {name: (one - other, truths[name][0] - truths[name][1]) for name, (one, other) in points.items()}
    wanted = {
        "accuracy": (left, a),
        "accuracy, difference": differences["accuracy"],
        "weighted F1, difference": differences["weighted-f1"],
        "accuracy, ratio": (quotient(right_, left), b / a),
    }
    found = {
        f"{kind}|{quantity}": bool(ends.low <= true <= ends.high)
        for quantity, (point, true) in wanted.items()
        for kind, ends in all_intervals(point, weights).items()
    }
    for name, (point, true) in differences.items():
        found[f"t test, {name}"] = p_value(point.estimate - true, point.spread) < 0.05
        found[f"equivalence at the margin, {name}"] = p_equivalence(point.estimate, point.spread, true) < 0.05
    return found


def tests_of_nothing(number: int, world: World, size: Size) -> dict[str, bool]:
    """One simulated study of two systems that are equal but for their luck: whether a test rejects."""
    rng = np.random.default_rng([number, size.utterances, 1])
    classes = int(rng.integers(2**32))
    right = answers(rng, world, size, (SKILL, SKILL))
    sides = [sums_of(np.random.default_rng(classes), ACCURACY, one, size) for one in right]
    weights = resample(rng, size.seeds, size.draws, size.dialogues, RESAMPLES)
    better = probability_of_improvement(*sides, ACCURACY.value, weights, higher_is_better=True)
    return {
        "permutation": permutation_p(*sides, ACCURACY.value, rng, 499) < 0.05,
        "probability of improvement": better.conclusion.startswith("significant"),
    }


def simple_tests(number: int) -> dict[str, bool]:
    """What rejects a true null of independent utterances, or of independent studies."""
    rng = np.random.default_rng([number, 7])
    shared = rng.normal(size=600)
    one, other = (rng.random(600) < norm.cdf(SKILL + shared) for _ in range(2))
    truth = rng.normal(size=300)
    left, right = (truth + shared[:300] + rng.normal(size=300) for _ in range(2))
    # four corpora, five seeds, five systems
    scores = rng.normal(size=(20, 1)) + rng.normal(size=(20, 5))
    ranks = friedman(scores, higher_is_better=True)
    return {
        "McNemar, 600 utterances": mcnemar(one, other).p < 0.05,
        "McNemar, 60 utterances": mcnemar(one[:60], other[:60]).p < 0.05,
        "dependent correlations, 300": dependent_correlations(truth, left, right).p < 0.05,
        "Wilcoxon, 20 differences": wilcoxon(scores[:, 0] - scores[:, 1]).p < 0.05,
        "Friedman (chi-squared), 20 x 5": ranks.p_chi2 < 0.05,
        "Friedman (Iman-Davenport F), 20 x 5": ranks.p < 0.05,
        "Nemenyi, any of 10 pairs": bool(np.nanmin(nemenyi(ranks).p) < 0.05),
    }


def shares(studies: Sequence[dict[str, bool]]) -> dict[str, float]:
    return {name: float(np.mean([study[name] for study in studies])) for name in studies[0]}


def simulate(repeats: int, jobs: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Coverage of every kind of interval, and how often each test rejects a true null."""
    covered, rejected = [], []
    with ProcessPoolExecutor(jobs) as pool:

        def run(study: Callable[[int], dict[str, bool]]) -> dict[str, float]:
            return shares(list(pool.map(study, range(repeats), chunksize=10)))

        for size_name, size in SIZES.items():
            for world_name, world in WORLDS.items():
                where = {"design": size_name, "world": world_name, "repeats": repeats}
                found = run(partial(intervals_and_tests, world=world, size=size))
                for quantity in QUANTITIES:
                    kinds = {k.split("|")[0]: v for k, v in found.items() if k.endswith(f"|{quantity}")}
                    covered.append({**where, "quantity": quantity, **kinds})
                tests = {k: v for k, v in found.items() if "|" not in k}
                tests |= run(partial(tests_of_nothing, world=world, size=size))
                rejected += [{**where, "test": test, "rejected": share} for test, share in tests.items()]
        plain = {"design": "independent", "world": "-", "repeats": repeats * 4}
        found = shares(list(pool.map(simple_tests, range(repeats * 4), chunksize=50)))
        rejected += [{**plain, "test": test, "rejected": share} for test, share in found.items()]
    return pd.DataFrame(covered), pd.DataFrame(rejected)


def page(covered: pd.DataFrame, rejected: pd.DataFrame) -> str:
    """Both tables in words."""
    repeats = int(covered["repeats"].iloc[0])
    error = 100 * (0.95 * 0.05 / repeats) ** 0.5
    kinds = list(covered.columns[4:])
    lines = [
        "# Do intervals cover, and do tests keep their level?",
        "",
        f"`make calibration`; {repeats:,} simulated studies a row, {RESAMPLES:,} resamples each, so that a share has "
        f"a standard error of about {error:.1f} points. Answers are artificial: `benchmarks/calibration.py` says how "
        "they are made. Designs: " + "; ".join(f"{name}: {size}" for name, size in SIZES.items()) + ".",
        "",
        "## Coverage of intervals at 95 %, in percent",
        "",
        "`report` is what reports print of an estimate, `t` what they print of a difference; the others are there for "
        "comparison. Marked with `*`: outside 92 to 98.",
        "",
        f"| design | world | quantity | {' | '.join(kinds)} |",
        "|---|---|---|" + "---:|" * len(kinds),
    ]
    for row in covered.to_dict("records"):
        cells = [f"{fixed(100 * row[k], 1)}{'' if 0.92 <= row[k] <= 0.98 else '*'}" for k in kinds]
        lines.append(f"| {row['design']} | {row['world']} | {row['quantity']} | {' | '.join(cells)} |")
    lines += [
        "",
        "## How often a true null is rejected at .05, in percent",
        "",
        "Marked with `*`: above 6.5. `equivalence at the margin`: how often a difference as large as the margin is "
        "called smaller. `permutation` asks about these trained models, so that luck of the seeds and draws counts as "
        "a difference: where they make one, it is no test of the kinds of model, and rejects more. `probability of "
        "improvement` is one-sided (left better), nominal 2.5.",
        "",
        "| design | world | test | rejected |",
        "|---|---|---|---:|",
    ]
    for row in rejected.to_dict("records"):
        mark = "" if row["rejected"] <= 0.065 else "*"
        lines.append(f"| {row['design']} | {row['world']} | {row['test']} | {fixed(100 * row['rejected'], 1)}{mark} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=1_000)
    parser.add_argument("--jobs", type=int, default=cores())
    given = parser.parse_args()
    covered, rejected = simulate(given.repeats, given.jobs)
    write_text(given.out / "coverage.csv", covered.to_csv(index=False, lineterminator="\n"))
    write_text(given.out / "levels.csv", rejected.to_csv(index=False, lineterminator="\n"))
    write_text(given.out / "coverage.md", page(covered, rejected))


if __name__ == "__main__":
    main()
