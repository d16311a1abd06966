"""Metrics to other people's tools: all that was trained arrives there, and nothing of theirs stops a run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from dual_bench import tracking
from dual_bench.schema import CellInfo
from dual_bench.tracking import TRACKERS, Tolerant, Tracker, outcome, settings, title, tracker_of
from dual_bench.types import UserError

HISTORY = ({"task": 1.5, "weights": 0.25, "validation": 1.75}, {"task": 0.5, "weights": 0.125, "validation": 1.25})


def cell(number: int = 0, **other: object) -> CellInfo:
    facts = {
        "digest": f"{number:08x}" * 8, "status": "done", "model": "dual", "variant": "sdm=off,width=8",
        "regime": "matched", "seed": 3, "fold": "official", "corruption": "word-drop", "rate": 0.5,
        "parameters": 1000, "best_epoch": 2, "history": HISTORY, "seconds_fit": 1.5, "seconds_predict": 0.5,
        "device": "cpu", "threads": 1, "code": "dual-bench 0", "rows": 8, "sha256": "0" * 64,
    }  # fmt: skip
    return CellInfo.model_validate(facts | other)


class Recording:
    """Remembers what it is shown; stumbles over cells with the digests of ``over``, and at the end where it is to."""

    def __init__(self, over: str = "", at_end: bool = False) -> None:
        self.over, self.at_end = over, at_end
        self.seen: list[str] = []

    def cell(self, info: CellInfo) -> None:
        if info.digest == self.over:
            raise ConnectionError("no answer\nfrom the server")
        self.seen.append(info.digest)

    def close(self) -> None:
        self.seen.append("closed")
        if self.at_end:
            raise ConnectionError("no answer\nfrom the server")


CELLS = [cell(number) for number in range(4)]
SAID = "x failed (ConnectionError: no answer from the server); the run goes on without it"


def test_a_tracker_is_shown_every_cell_and_closed() -> None:
    own, told = Recording(), list[str]()
    tracker: Tracker = Tolerant("x", lambda: own, told.append)
    for info in CELLS:
        tracker.cell(info)
    tracker.close()
    assert own.seen == [*(info.digest for info in CELLS), "closed"]
    assert told == []


@pytest.mark.parametrize("at", [0, 2])
def test_the_first_error_is_told_once_and_then_nothing_is_shown(at: int) -> None:
    own, told = Recording(CELLS[at].digest), list[str]()
    tracker = Tolerant("x", lambda: own, told.append)
    for info in CELLS:
        tracker.cell(info)
    tracker.close()
    assert own.seen == [info.digest for info in CELLS[:at]]
    assert told == [SAID]


def test_an_error_at_the_beginning_or_the_end_stops_nothing_either() -> None:
    def make() -> Tracker:
        raise ConnectionError("no answer\nfrom the server")

    told: list[str] = []
    tracker = Tolerant("x", make, told.append)
    for info in CELLS:
        tracker.cell(info)
    tracker.close()
    assert told == [SAID]
    last = Tolerant("x", lambda: Recording(at_end=True), told.append)
    last.cell(CELLS[0])
    last.close()
    assert told == [SAID] * 2


def test_nothing_is_made_where_nothing_was_trained() -> None:
    def make() -> Tracker:
        raise AssertionError

    Tolerant("x", make, lambda what: pytest.fail(what)).close()


def test_an_unknown_tracker_and_a_missing_package_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"^unknown tracker 'tensorbord'; did you mean 'tensorboard'\?$"):
        tracker_of("tensorbord", tmp_path, "plan", print)
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    for name in TRACKERS:
        said = re.escape(f"tracker '{name}' needs a package: pip install 'dual-bench[{name}]'")
        with pytest.raises(UserError, match=f"^{said}$"):
            tracker_of(name, tmp_path, "plan", print)


def test_the_title_of_a_cell_can_name_a_folder_and_is_that_of_no_other() -> None:
    assert title(cell(variant="")) == "dual-matched-word-drop-seed3-official-00000000"
    odd = title(cell(model="mine.models:Net/2", fold="é 1\\2"))
    assert odd == "mine.models_Net_2-sdm=off,width=8-matched-word-drop-seed3-é_1_2-00000000"
    assert len({title(cell(digest=f"{i:x}" * 64)) for i in range(9)}) == 9


def test_settings_and_outcome_are_what_the_record_has() -> None:
    assert outcome(cell()) == {"best_epoch": 2, "parameters": 1000, "seconds_fit": 1.5, "seconds_predict": 0.5}
    assert settings(cell())["variant"] == "sdm=off,width=8"
    assert settings(cell())["rate"] == 0.5


# ---------------------------------------------------------------------------- the real ones, where they are installed


def shown(name: str, folder: Path) -> None:
    """Two cells to a real tracker, which must not fail."""
    tracker = tracker_of(name, folder, "study", lambda what: pytest.fail(what))
    tracker.cell(cell(0))
    tracker.cell(cell(1, history=[{"task": 9.0, "validation": 9.5}], best_epoch=1))
    tracker.close()


@pytest.mark.filterwarnings("ignore")  # theirs
def test_tensorboard_has_the_curves_of_every_cell(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: the extra tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown("tensorboard", tmp_path)
    first, second = sorted((tmp_path / "tensorboard").iterdir())
    assert [first.name, second.name] == sorted(map(title, CELLS[:2]))
    read = EventAccumulator(str(first))
    read.Reload()
    for name in HISTORY[0]:
        curve = [(event.step, event.value) for event in read.Scalars(f"loss/{name}")]
        assert curve == [(1, HISTORY[0][name]), (2, HISTORY[1][name])]
    assert [event.value for event in read.Scalars("best_epoch")] == [2]
    assert [event.value for event in read.Scalars("seconds_fit")] == [1.5]
    told = read.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"sdm=off,width=8" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tensorboard"]


@pytest.mark.filterwarnings("ignore")  # theirs
def test_mlflow_has_the_curves_of_every_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed: the extra mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    shown("mlflow", tmp_path)
    assert capfd.readouterr() == ("", "")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("study").experiment_id], order_by=["start_time"])
    assert [run.info.run_name for run in runs] == [title(info) for info in CELLS[:2]]
    assert [run.info.status for run in runs] == ["FINISHED"] * 2
    first = runs[0]
    for name in HISTORY[0]:
        curve = [(point.step, point.value) for point in client.get_metric_history(first.info.run_id, f"loss/{name}")]
        assert sorted(curve) == [(1, HISTORY[0][name]), (2, HISTORY[1][name])]
    assert outcome(cell()).items() <= first.data.metrics.items()
    assert first.data.params == {name: str(value) for name, value in settings(cell()).items()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db"]


@pytest.mark.filterwarnings("ignore")  # theirs
def test_wandb_keeps_the_curves_of_every_cell_where_it_may_send_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed: the extra wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    shown("wandb", tmp_path)
    assert capfd.readouterr() == ("", "")
    kept = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert len(kept) == 2
    contents = [path.read_bytes() for path in kept]
    assert sorted(b"loss/weights" in content for content in contents) == [False, True]
    for info in CELLS[:2]:
        assert any(title(info).encode() in content for content in contents)
    assert all(b"sdm=off,width=8" in content and b"best_epoch" in content for content in contents)


def test_trackers_import_nothing_before_they_are_asked_for() -> None:
    code = "import sys, dual_bench.tracking; print([n for n in ('torch', 'mlflow', 'wandb') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
