"""A run: equal repeats, nothing done twice."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import write_corpus

from dual_bench import engine, runner, schema
from dual_bench.journal import LOG, Trained, read
from dual_bench.plan import Plan, read_plan
from dual_bench.provenance import processor
from dual_bench.runner import RunResult
from dual_bench.store import RunFolder, read_run
from dual_bench.training import TrainingSettings
from dual_bench.types import DualBenchError, UserError


def plan_for(manifest: Path, **fields: Any) -> Plan:
    given = {
        "dataset": str(manifest),
        "models": ["dual:width=8", "audio-vision:width=8"],
        "rates": [0.0, 0.5, 1.0],
        "draws": 2,
        "seeds": 2,
        "metric": "",
        "training": {"epochs": 2, "noisy_texts": 2, "noisy_validation_texts": 1},
    }
    return read_plan("default", {**given, **fields})


def go(plan: Plan, cache: Path, out: Path, jobs: int = 1) -> RunResult:
    return runner.run(plan, Path(), cache, out.parent, out, "cpu", jobs)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Plan, Path]:
    """A plan and the folder of its unbroken run."""
    folder = tmp_path_factory.mktemp("corpus")
    plan = plan_for(write_corpus(folder))
    go(plan, cache, folder / "run")
    return plan, folder / "run"


def rows(folder: Path) -> dict[str, bytes]:
    found = {p.name: p.read_bytes() for p in sorted((folder / "cells").glob("*.parquet"))}
    return found | {"texts": (folder / "texts.parquet").read_bytes()}


def test_a_run_leaves_every_cell_of_the_plan_and_nothing_half_written(finished: tuple[Plan, Path]) -> None:
    run = read_run(finished[1])
    assert run.info.status == "complete"
    assert not run.missing
    assert len(run.cells) == 2 * 2 * 2  # models, regimes, seeds
    conditions = 1 + 2 * 2 * 2 + 1  # clean; corruptions, rates, draws; the transcript
    assert len(run.predictions) == len(run.cells) * conditions * 32
    assert [p for p in finished[1].rglob("*") if p.name.endswith(".tmp")] == []


def test_the_same_plan_does_nothing_twice_and_encodes_nothing_again(finished: tuple[Plan, Path], cache: Path) -> None:
    before = rows(finished[1])
    again = go(finished[0], cache, finished[1])
    assert (again.trained, again.skipped, again.encoded) == (0, 8, 0)
    assert rows(finished[1]) == before


def test_processes_side_by_side_give_the_same_bytes_as_one(
    finished: tuple[Plan, Path], cache: Path, tmp_path: Path
) -> None:
    go(finished[0], cache, tmp_path / "run", jobs=2)
    assert rows(tmp_path / "run") == rows(finished[1])


def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(
    finished: tuple[Plan, Path], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked = []

    def dies(job: runner.Job) -> runner.Outcome:
        if len(worked) == 2:
            raise KeyboardInterrupt
        worked.append(job)
        return work(job)

    work = engine.work
    monkeypatch.setattr(engine, "work", dies)
    with pytest.raises(KeyboardInterrupt):
        go(finished[0], cache, tmp_path / "run")
    assert RunFolder(tmp_path / "run").info().status == "failed"
    monkeypatch.setattr(engine, "work", work)
    resumed = go(finished[0], cache, tmp_path / "run")
    assert resumed.skipped >= 2
    assert resumed.trained + resumed.skipped == 8
    assert rows(tmp_path / "run") == rows(finished[1])


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupt_waits_until_what_is_being_stored_is_whole(
    jobs: int, finished: tuple[Plan, Path], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined = runner.rows_of

    def interrupted(*what: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return joined(*what)

    monkeypatch.setattr(runner, "rows_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        go(finished[0], cache, tmp_path / "run", jobs=jobs)
    (cell,) = read_run(tmp_path / "run").cells
    log = read(tmp_path / "run" / LOG)
    assert [event.digest for event in log if isinstance(event, Trained)] == [cell.digest]
    name = f"{cell.digest}.parquet"
    assert rows(tmp_path / "run")[name] == rows(finished[1])[name]


def test_a_damaged_cell_is_computed_again(finished: tuple[Plan, Path], cache: Path, tmp_path: Path) -> None:
    go(finished[0], cache, tmp_path / "run")
    victim = sorted((tmp_path / "run" / "cells").glob("*.parquet"))[0]
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    assert go(finished[0], cache, tmp_path / "run").trained == 1
    assert rows(tmp_path / "run") == rows(finished[1])


def test_damaged_texts_of_a_complete_run_are_written_again(
    finished: tuple[Plan, Path], cache: Path, tmp_path: Path
) -> None:
    go(finished[0], cache, tmp_path / "run")
    (tmp_path / "run" / "texts.parquet").write_bytes(b"damaged")
    assert read_run(tmp_path / "run").faults
    assert go(finished[0], cache, tmp_path / "run").trained == 0
    assert not read_run(tmp_path / "run").faults
    assert rows(tmp_path / "run") == rows(finished[1])


def test_what_reaches_training_holds_no_test_label(
    finished: tuple[Plan, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[runner.Job] = []
    monkeypatch.setattr(engine, "work", lambda job: jobs.append(job) or 1 / 0)
    folder = finished[1].parent / "elsewhere"
    with pytest.raises(DualBenchError, match="ZeroDivisionError"):
        runner.run(finished[0], Path(), folder, folder, folder / "run", "cpu", 1, how=runner.Manner(fail_fast=True))
    tested = set(jobs[0].queries.rows)
    assert tested.isdisjoint(jobs[0].train.rows)
    assert tested.isdisjoint(jobs[0].validation.rows)
    assert not hasattr(jobs[0].queries, "targets")


def test_models_read_the_same_noisy_words(finished: tuple[Plan, Path]) -> None:
    predictions = read_run(finished[1]).predictions
    keys = ["corruption", "rate", "draw", "utterance"]
    noise = predictions.groupby(keys, observed=True)[["wer", "cer", "dropped"]].nunique(dropna=False)
    assert (noise == 1).all(axis=None)


def test_a_model_that_reads_no_text_predicts_the_same_under_every_condition(finished: tuple[Plan, Path]) -> None:
    predictions = read_run(finished[1]).predictions
    av = predictions[predictions["model"] == "audio-vision"]
    assert (av.groupby(["seed", "utterance"], observed=True)["score_0"].nunique() == 1).all()
    dual = predictions[predictions["model"] == "dual"]
    assert (dual.groupby(["seed", "regime", "utterance"], observed=True)["score_0"].nunique() > 1).any()


def test_regression_runs_and_keeps_values_in_range(cache: Path, tmp_path: Path) -> None:
    plan = plan_for(write_corpus(tmp_path, regression=True), seeds=1)
    go(plan, cache, tmp_path / "run")
    run = read_run(tmp_path / "run")
    assert run.info.plan["metric"] == "mae"
    assert run.predictions["score_0"].between(-1.5, 1.5).all()
    assert run.info.floors["pearson-r"] is None


def test_a_folder_of_another_plan_is_left_as_it_is(finished: tuple[Plan, Path], cache: Path) -> None:
    before = rows(finished[1])
    with pytest.raises(UserError, match="belongs to another plan"):
        go(finished[0].model_copy(update={"draws": 3}), cache, finished[1])
    assert rows(finished[1]) == before


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seeds", 3),
        ("root_seed", 1),
        ("dependency", False),
        ("rates", (0.0, 0.25, 1.0)),
        ("models", ("dual:width=12",)),
        ("training", TrainingSettings(epochs=3)),
    ],
)
def test_the_digest_names_everything_a_result_depends_on(finished: tuple[Plan, Path], field: str, value: Any) -> None:
    from dual_bench.plan import cells, load_corpus, plan_digest

    plan, corpus = finished[0], load_corpus(finished[0].dataset, Path())
    other = plan.model_copy(update={field: value})
    digests = [plan_digest(p, cells(p, corpus, p.conditions(corpus), {}, "cpu")) for p in (plan, other)]
    assert digests[0] != digests[1]
    conditions = plan.conditions(corpus)
    assert digests[0] != plan_digest(plan, cells(plan, corpus, conditions, {}, "cuda"))
    assert digests[0] != plan_digest(plan, cells(plan, corpus, conditions, {"text": "another"}, "cpu"))


def test_provenance_stands_beside_the_result(finished: tuple[Plan, Path]) -> None:
    written = json.loads((finished[1] / "run.json").read_text())
    assert written["schema_version"] == schema.SCHEMA_VERSION
    assert written["provenance"]["device"] == "cpu"
    assert written["provenance"]["packages"]["torch"] == torch.__version__.split("+")[0]
    assert written["provenance"]["ended"] is not None
    assert written["corpus"]["fingerprint"]
    cell = json.loads(next((finished[1] / "cells").glob("*.json")).read_text())
    assert cell["processor"] == written["provenance"]["processor"] == processor()
