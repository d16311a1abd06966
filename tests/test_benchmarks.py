"""The benchmarks: their arithmetic, and that the usual way they are measured against does the very same work."""

from __future__ import annotations

import doctest
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import all as everything
import engines
import grid
import numpy as np
import peers
import planning
import pytest
import scaling
import showing
import timing
import torch
import training as contest
from showing import Section
from timing import Limit, Ratio

from dual_bench import training
from dual_bench.job import Job, trained
from dual_bench.prepare import Encoded
from dual_bench.types import Condition

CORPUS = "made:load:train=24,validation=8,test=12,audio=6,vision=5"
PROGRAMS = Path(everything.__file__).parent


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Encoded:
    settings = {"epochs": 2, "patience": 2, "batch_size": 64}
    cache = tmp_path_factory.mktemp("features")
    return contest.ready(CORPUS, ["dual:width=8,layers=1,dropout=0.0"], cache, settings, seeds=2)


@pytest.fixture(scope="module")
def jobs(study: Encoded) -> Sequence[Job]:
    return contest.jobs_of(study)


def test_a_ratio_is_that_of_the_medians_and_its_spread_that_of_single_repetitions() -> None:
    ratio = Ratio("", "", "", (1.0, 4.0, 2.0), (10.0, 8.0, 12.0))
    assert ratio.value == 10 / 2
    assert ratio.spread == (2.0, 10.0)


def test_contestants_take_turns_and_each_is_timed_in_every_repetition() -> None:
    called: list[str] = []
    found = timing.in_turns({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, 3)
    assert called == ["a", "b", "b", "a", "a", "b"]
    assert {name: len(seconds) for name, seconds in found.items()} == {"a": 3, "b": 3}


@pytest.mark.parametrize("module", [contest, scaling, showing])
def test_examples_in_the_benchmarks_hold(module: Any) -> None:
    failed, tried = doctest.testmod(module)
    assert tried
    assert not failed


def test_the_plain_way_and_ours_predict_the_same_for_the_same_weights(study: Encoded, jobs: Sequence[Job]) -> None:
    models = [(modules[0], resident) for modules, resident, _ in map(trained, jobs)]
    names = ("word-drop", "typo", "utterance-drop", "word-replace")
    conditions = [Condition(name, rate) for name in names for rate in (0.3, 1.0)]
    test = study.corpus.folds[0].test
    ours, peer = grid.ours(study, models, conditions, test, study.using.text), grid.Peer(study, models)
    for seed in range(len(models)):
        for number, condition in enumerate(conditions):
            found = ours.of(seed, number, test)
            np.testing.assert_allclose(peer.cell(seed, condition), found, rtol=0, atol=1e-5)
            assert np.ptp(found) > 1e-3  # answers that differ between utterances, so that something is compared


def test_the_plain_loop_trains_the_same_model(study: Encoded, jobs: Sequence[Job]) -> None:
    job = jobs[0]  # without dropout and with the training part in one batch nothing is drawn
    (ours,), _, (fitted,) = trained(job)
    plain = contest.as_they_came(study, job)
    parts = contest.parts_of(plain)
    theirs = training.build(job.spec, job.settings, job.inputs.widths, job.task, *job.streams[0])
    start = {name: weights.clone() for name, weights in theirs.state_dict().items()}
    assert peers.train(theirs, *parts, job.task, job.training, seed=0) == job.training.epochs
    loss = peers.validation_loss(theirs, parts[1], job.task, 4)
    assert loss == pytest.approx(min(epoch["validation"] for epoch in fitted.history), abs=1e-5)
    for name, weights in ours.state_dict().items():
        torch.testing.assert_close(theirs.state_dict()[name], weights, rtol=0, atol=1e-4)
    assert any((start[name] - weights).abs().max() > 1e-3 for name, weights in ours.state_dict().items())


def test_an_utterance_with_several_texts_is_read_with_one_of_them() -> None:
    texts = [[np.full((1, 2), version, np.float32)] for version in range(3)]
    one = torch.zeros(1)
    data = peers.Utterances([one], [one], [[torch.from_numpy(text[0])] for text in texts], one)
    assert {float(data[0][2][0, 0]) for _ in range(60)} == {0.0, 1.0, 2.0}


@pytest.mark.slow
def test_a_plan_is_planned_stage_by_stage_up_to_the_estimate(tmp_path: Path) -> None:
    found = planning.planned(3, tmp_path)
    assert list(found) == ["import", "cells and digests", "estimate", "GiB"]
    assert all(number >= 0 for number in found.values())
    assert found["GiB"] > 0.05  # torch alone has more


def made(name: str) -> Section:
    ratio, limit = Ratio(f"{name}, a ratio", "ours", "theirs", (1.0,), (3.0,), asked=2.0), Limit(name, 2.0, 1.0, "s")
    return Section(f"On {name}", "What was measured.", (ratio,), (limit,))


@pytest.mark.skipif("ENGINES" not in os.environ, reason="a minute of two engines, as in `make bench`: set ENGINES")
def test_a_study_by_both_engines_is_measured_at_small_size(tmp_path: Path) -> None:
    found = engines.measure(
        1, {"dataset": "synthetic:utterances=80", "models": ["linear"], "seeds": 1, "metric": "", "draws": 1}
    )
    (limit,) = found.limits
    assert limit.value > 0
    assert "1 seeds in each regime" in found.about


def test_the_page_has_a_row_for_every_benchmark_and_says_what_is_met_and_what_is_missing() -> None:
    names = list(everything.BENCHMARKS)
    found = {name: made(name) for name in names[:-1]} | {names[-1]: "not measured: it failed"}
    page = everything.page(found, "a machine")
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    for name in names[:-1]:
        assert f"| {name}, a ratio | ours | theirs | 1 | 3 | 3.00 | 3.00 to 3.00 | 1 | 2: met |" in rows
        assert f"| {name} | 2 s | 1 s: not met |" in rows
    assert f"## {names[-1]}\n\nnot measured: it failed." in page


def test_make_bench_runs_every_program_but_those_of_other_commands() -> None:
    programs = {path.stem for path in PROGRAMS.glob("*.py") if "def main(" in path.read_text("utf-8")}
    assert programs - {"all", "calibration", "mutants", "realised"} == set(everything.BENCHMARKS)


def test_what_a_benchmark_found_is_kept_whole(tmp_path: Path) -> None:
    section = replace(made("one"), tables=(showing.Table("T", ("a", "b"), (("1", "2"),)),))
    asked = showing.arguments("").parse_args(
        ["--keep", str(tmp_path / "kept.json"), "--out", str(tmp_path / "page.md")]
    )
    showing.tell(section, asked)
    assert showing.SECTION.validate_json((tmp_path / "kept.json").read_bytes()) == section
    assert "| a | b |\n| --- | --- |\n| 1 | 2 |" in (tmp_path / "page.md").read_text("utf-8")
