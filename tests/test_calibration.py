"""The simulation of coverage: its worlds against longhand, its verdicts at small size, and the committed table."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import calibration as simulation
import numpy as np
import pandas as pd
import pytest

from dual_bench.metrics import ACCURACY, WEIGHTED_F1

REFERENCE = Path(__file__).resolve().parents[1] / "reports" / "reference"


def test_the_committed_page_is_that_of_the_committed_tables() -> None:
    covered, rejected = (pd.read_csv(REFERENCE / f"{name}.csv") for name in ("coverage", "levels"))
    assert simulation.page(covered, rejected) == (REFERENCE / "coverage.md").read_text(encoding="utf-8")
    assert set(covered["design"]) == set(simulation.SIZES)
    assert set(covered["world"]) == set(simulation.WORLDS)
    assert (covered["repeats"] >= 1000).all()


def test_what_a_report_prints_covers_at_the_realistic_size_and_no_test_of_it_rejects_much_more_than_it_says() -> None:
    covered, rejected = (pd.read_csv(REFERENCE / f"{name}.csv") for name in ("coverage", "levels"))
    realistic = covered[covered["design"] == "realistic"]
    assert realistic[["report", "t"]].to_numpy().min() >= 0.92
    assert realistic[["report", "t"]].to_numpy().max() <= 0.98
    ours = rejected[rejected["test"].str.startswith(("t test", "equivalence"))]
    assert ours["rejected"].max() <= 0.065 + 2 * (0.065 * 0.935 / 1000) ** 0.5


@pytest.mark.parametrize("metric", [ACCURACY, WEIGHTED_F1])
def test_the_truth_of_a_world_is_what_endless_answers_score(metric: object) -> None:
    world = replace(simulation.WORLDS["seeds lead"], seed_utterance=0.0)
    size = simulation.Size(60, 1, 400, 4_000)
    values = []
    for number in range(3):
        rng = np.random.default_rng(number)
        (right,) = simulation.answers(rng, world, size, (simulation.SKILL,))
        sums = simulation.sums_of(rng, metric, right, size)
        values.append(metric.value(sums.sum(axis=2)).mean())
    assert np.mean(values) == pytest.approx(simulation.truth_of(metric, simulation.SKILL, world), abs=0.015)


def test_at_small_size_intervals_cover_and_plain_percentiles_of_three_seeds_do_not() -> None:
    study = partial(
        simulation.intervals_and_tests, world=simulation.WORLDS["seeds lead"], size=simulation.Size(3, 1, 30, 120)
    )
    found = simulation.shares([study(number) for number in range(80)])
    assert found["report|accuracy, difference"] >= 0.86
    assert found["percentile|accuracy, difference"] <= 0.9
    assert found["t test, accuracy"] <= 0.14


def test_tests_of_nothing_seldom_find_something() -> None:
    study = partial(
        simulation.tests_of_nothing, world=simulation.WORLDS["dialogues lead"], size=simulation.Size(3, 1, 30, 120)
    )
    found = simulation.shares([study(number) for number in range(60)])
    assert max(found.values()) <= 0.16
    simple = simulation.shares([simulation.simple_tests(number) for number in range(100)])
    assert max(simple.values()) <= 0.12
