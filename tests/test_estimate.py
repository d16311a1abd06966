"""What a run would take, told before it runs: counts are those of the run itself, times and sizes are put together."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import write_corpus

from dual_bench import estimate as estimates
from dual_bench import runner
from dual_bench.estimate import Estimate, estimate, makespan, rows
from dual_bench.material import material_of
from dual_bench.pace import Pace, Trial, attacked_of, pace
from dual_bench.plan import read_plan
from dual_bench.prepare import Asked, ask, encode_all, in_silence, widths_of
from dual_bench.shards import Shard
from dual_bench.store import RunFolder, read_run
from dual_bench.training import build
from dual_bench.types import Condition, Ragged

PACE = Pace(build=1.0, step=0.5, validate=0.25, answer=0.125, probe=2.0, attack=4.0, bins=0)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    folder = tmp_path_factory.mktemp("corpus")
    fields = {
        "dataset": str(write_corpus(folder)),
        "models": ["dual:width=8", "audio-vision:width=8"],
        "rates": [0.0, 0.5, 1.0],
        "draws": 2,
        "seeds": 2,
        "metric": "",
        "training": {"epochs": 3, "patience": 1, "noisy_texts": 2, "noisy_validation_texts": 1},
    }
    return ask(read_plan("default", fields), None, Path(), folder / "nothing", "cpu")


@pytest.fixture
def told(asked: Asked, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """The estimate, with every model of the same known pace."""
    paces = {estimates._model(cell): (PACE, cell.variant.reads) for cell in asked.wanted}
    timed = estimates._Timed(paces, 8.0, 100, 300)
    monkeypatch.setattr(estimates, "_timed", lambda *_: timed)
    monkeypatch.setattr(estimates, "held", lambda: 10**9)  # of earlier tests it changes

    def of(folder: Path = tmp_path / "run", cache: Path = tmp_path / "cache", **more: Any) -> Estimate:
        return estimate(asked, RunFolder(folder), cache, **{"jobs": 1, **more})

    return of


@pytest.fixture(scope="module")
def done(asked: Asked, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of a whole run, and its cache."""
    folder = tmp_path_factory.mktemp("done")
    runner.run(asked.plan, Path(), folder / "cache", folder / "reports", folder / "run", "cpu", 1)
    return folder / "run", folder / "cache"


def test_as_many_texts_are_told_as_a_run_encodes(asked: Asked, told: Any, tmp_path: Path) -> None:
    before = told()
    assert before.encodings["text"].missing == before.encodings["text"].distinct
    assert encode_all(asked, tmp_path / "cache").encoded == before.encodings["text"].missing
    after = told()
    assert (after.encodings["text"].missing, after.encodings["text"].seconds) == (0, 0.0)
    assert after.encodings["text"].distinct == before.encodings["text"].distinct
    rows = sum(path.stat().st_size for path in (tmp_path / "cache" / "text").rglob("*.f32"))
    assert before.cache == pytest.approx(rows, rel=0.1)  # a corpus of nearly one sentence; the bins are those of PACE
    assert after.cache == 0


def test_voices_and_faces_that_are_not_features_are_counted_too(tmp_path: Path) -> None:
    fields = {"dataset": "synthetic:utterances=24", "models": ["audio-vision"], "regimes": ["clean"], "seeds": 1}
    raw = ask(read_plan("default", {**fields, "rates": [1.0], "draws": 1}), None, Path(), tmp_path / "cache", "cpu")
    words = estimates._words(raw, in_silence)
    before = material_of(raw, words, tmp_path / "cache", in_silence)
    assert {name: found.missing for name, found in before.encodings.items() if name != "text"} == {
        "audio": 24,
        "vision": 24,
    }
    assert encode_all(raw, tmp_path / "cache").encoded == sum(found.missing for found in before.encodings.values())
    after = material_of(raw, words, tmp_path / "cache", in_silence)
    assert [found.missing for found in after.encodings.values()] == [0, 0, 0]
    written = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.f32") if "bins" not in path.parts)
    assert before.bytes == pytest.approx(written, rel=0.3)
    assert after.bytes == 0


def test_trainings_are_told_apart_from_cells_and_nothing_is_written(told: Any, tmp_path: Path) -> None:
    found = told()
    # two models, two regimes, two seeds; audio-vision reads no words and is trained once for both regimes
    assert (found.cells, found.trainings, found.cells_done, found.trainings_left) == (8, 6, 0, 6)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "cache").exists()


def test_seconds_are_those_of_the_pace_and_of_what_is_to_be_done(told: Any) -> None:
    found = told()
    assert (found.epochs, found.finished) == (3, 0)
    assert found.expected_epochs == 3  # it is assumed to be more
    epoch = 1 * PACE.step + 16 * PACE.validate  # 48 utterances are a batch; 16 are validated with a text each
    every = PACE.build + 32 * (PACE.probe + PACE.attack) + 3 * epoch
    fewest = 6 * every + 2 * 32 * PACE.answer  # audio-vision gives one answer to each utterance
    of_dual = (found.busy - fewest) / 4 / PACE.answer
    # answers to distinct texts of 32 utterances: clean, and the transcript at least; at most one for each condition
    assert 64 <= of_dual <= 32 * (1 + 2 * 2 * 2 + 1) + 1
    assert found.expected.here == pytest.approx(found.busy)
    assert found.most == found.expected
    assert found.expected.both < 0.67 * found.expected.here


def test_processes_share_the_trainings_and_have_to_start(told: Any) -> None:
    one, two = told(jobs=1), told(jobs=2)
    assert two.expected.here == pytest.approx(one.expected.both, rel=0.01)
    assert two.expected.alone - one.expected.alone > 8.0 - 5.0  # that of the pace, and what the rest took this time
    assert two.memory - one.memory > 300


def test_of_a_finished_run_nothing_is_left_and_its_folder_stays_as_it_is(
    told: Any, asked: Asked, done: tuple[Path, Path]
) -> None:
    folder, cache = done
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    found = told(folder, cache)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert (found.cells_done, found.trainings_left) == (8, 0)
    assert found.expected.here == found.expected.both == found.busy == 0
    assert found.encodings["text"].missing == 0


def test_epochs_are_those_of_the_trainings_that_are_finished(
    told: Any, done: tuple[Path, Path], tmp_path: Path
) -> None:
    cells = read_run(done[0]).cells
    found = told(done[0])
    assert found.finished == 6
    kept = {(c.model, c.seed, c.regime if c.model == "dual" else ""): len(c.history) for c in cells}
    assert found.expected_epochs == pytest.approx(np.mean(list(kept.values())))


def test_the_room_told_is_about_that_which_the_results_take(told: Any, done: tuple[Path, Path]) -> None:
    taken = sum(path.stat().st_size for path in done[0].rglob("*") if path.is_file() and path.name != "run.json")
    assert told().results == pytest.approx(taken, rel=0.25)


def test_the_shards_of_a_plan_have_all_its_cells(told: Any) -> None:
    parts = [told(shard=Shard(number, 3)) for number in (1, 2, 3)]
    assert [part.trainings for part in parts] == [2, 2, 2]
    assert sum(part.cells for part in parts) == 8


def test_the_table_names_what_is_assumed_and_what_was_found(told: Any, done: tuple[Path, Path]) -> None:
    assert "assumed" in dict(rows(told()))["epochs of a training"]
    after = dict(rows(told(done[0])))
    assert "the mean of 6 finished here" in after["epochs of a training"]
    assert after["cells"] == "8, of which 8 are done"


@given(st.lists(st.floats(0, 100), max_size=30), st.integers(1, 8))
def test_work_in_a_list_takes_no_longer_than_its_bound(seconds: list[float], workers: int) -> None:
    found = makespan(seconds, workers)
    longest, mean = max(seconds, default=0.0), sum(seconds) / workers
    assert max(longest, mean) - 1e-9 <= found
    # Graham 1969, SIAM J. Appl. Math. 17:416: a list takes at most 2 - 1/m times as long as the best order
    assert found <= mean + (1 - 1 / workers) * longest + 1e-9


@pytest.mark.parametrize(("model", "seeds"), [("dual:width=8", 1), ("dual:width=8", 2), ("audio-vision:width=8", 1)])
def test_a_model_is_timed_in_all_that_it_is_asked(asked: Asked, model: str, seeds: int) -> None:
    cell = next(cell for cell in asked.wanted if cell.variant.system == model)
    words = Ragged.pack([np.ones((steps, 384), np.float32) for steps in (3, 5)])
    trial = Trial(
        cell.variant.spec, cell.settings, seeds, asked.corpus.task, asked.plan.training,
        widths_of(asked.corpus, asked.using), (np.array([2, 6]), np.array([1, 1])), words, 2, 1,
        attacked_of([Condition("worst-case", 1.0)], ["so they were", "oh"], [0.0, 1.0]), "", "cpu",
    )  # fmt: skip
    found = pace(trial)
    seconds = [found.build, found.step, found.answer, found.probe, found.attack]
    assert all(isfinite(each) and each > 0 for each in seconds)
    assert found.validate >= 0
    module = build(cell.variant.spec, cell.settings, trial.widths, trial.task, 0)
    assert found.bins == module.time_bins
