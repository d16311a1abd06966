"""How far a run is, told from its folder alone."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from made_run import Made, digest, write

from dual_bench.journal import LOG, Journal
from dual_bench.lock import HOLDER, LOCK, held
from dual_bench.schema import FailedCell
from dual_bench.status import HEADINGS, Count, rows, sentences, status
from dual_bench.types import UserError

MADE = Made(models=("dual", "dual:sdm=off", "text-only"), regimes=("clean", "matched"), transcripts=(), seeds=2)
"""36 cells: of each system two that are clean, and ten that are matched to five conditions."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    write(folder, MADE)
    return folder


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def undo(run: Path, *numbers: int) -> None:
    for number in numbers:
        for end in ("json", "parquet"):
            (run / "cells" / f"{digest(number)}.{end}").unlink()


def fail(run: Path, number: int) -> None:
    record = json.loads((run / "cells" / f"{digest(number)}.json").read_bytes())
    kept = {name: record[name] for name in FailedCell.model_fields if name in record}
    facts = {"error": "ValueError: the loss is NaN", "traceback": "…", "when": "2024-01-01T00:00:00", "host": "node7"}
    failed = FailedCell(**kept, **facts)
    (run / "cells" / f"{digest(number)}.failed.json").write_text(failed.model_dump_json(indent=1))


def told(run: Path, began: int, *trained: int, **more: str) -> None:
    """A sitting that began so many seconds ago, and trained cells after so many seconds each."""
    start = datetime.now(UTC) - timedelta(seconds=began)
    with Journal(run / LOG) as journal:
        journal.tell(
            "began", pid=1, host="h", engine="local", device="cpu", jobs=1, wanted=36, done=0, pending=36, digest="d",
            version="0",
        )  # fmt: skip
        journal.tell("stage", stage="models")
        for _ in trained:
            journal.tell(
                "trained", digest="d", title="dual clean seed 0", seconds_fit=1, seconds_predict=1, best_epoch=1,
                where="node7",
            )  # fmt: skip
        for kind, what in more.items():
            journal.tell(kind, what=what)  # type: ignore[arg-type]
    after = iter([0, 0, *trained, *[max(trained, default=0)] * len(more)])
    lines = [json.loads(line) for line in (run / LOG).read_text().splitlines()]
    last = max(i for i, line in enumerate(lines) if line["event"] == "began")
    for line in lines[last:]:
        line["when"] = (start + timedelta(seconds=next(after))).isoformat()
    (run / LOG).write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))


def test_cells_are_counted_by_system_and_regime(run: Path) -> None:
    undo(run, 0, 11, 12)  # dual clean, dual matched, dual:sdm=off clean
    (run / "cells" / f"{digest(11)}.json").touch()
    fail(run, 2)  # done all the same
    for number in (3, 4):
        fail(run, number)
        undo(run, number)
    (run / "cells" / f"{digest(14)}.parquet").unlink()  # a record without rows
    (run / "cells" / ".x.123.tmp").touch()
    (run / "cells" / f"{'f' * 64}.json").touch()  # of no cell of this plan
    found = status(run)
    assert (found.name, found.digest, found.wanted) == ("made", f"{13:d<64x}", 36)
    assert (found.done, found.failed, found.left) == (30, 2, 4)
    assert found.counts == (
        Count("dual", "clean", 1, 0, 2),
        Count("dual", "matched", 7, 2, 10),
        Count("dual:sdm=off", "clean", 1, 0, 2),
        Count("dual:sdm=off", "matched", 9, 0, 10),
        Count("text-only", "clean", 2, 0, 2),
        Count("text-only", "matched", 10, 0, 10),
    )
    assert {len(row) for row in rows(found)} == {len(HEADINGS)}
    assert rows(found)[1] == ("dual", "matched", "7", "2", "1")
    assert rows(found)[-1] == ("all", "", "30", "2", "4")
    assert [cell.digest for cell in found.failures] == [digest(3), digest(4)]
    assert any(
        said == "failed: dual matched clean 0 seed 1, fold official, on node7: ValueError: the loss is NaN"
        for said in sentences(found)
    )


def test_a_system_that_has_no_cell_yet_has_a_row_too(run: Path) -> None:
    undo(run, *range(24, 36))
    assert status(run).counts[-2:] == (Count("text-only", "clean", 0, 0, 2), Count("text-only", "matched", 0, 0, 10))
    shutil.rmtree(run / "cells")
    assert [(c.done, c.wanted) for c in status(run).counts] == [(0, 2), (0, 10)] * 3


def test_of_a_part_of_a_plan_nobody_says_what_is_left_of_a_system(run: Path) -> None:
    record = json.loads((run / "run.json").read_bytes())
    (run / "run.json").write_text(json.dumps(record | {"cells": record["cells"][:20]}))
    found = status(run)
    assert (found.wanted, found.done) == (20, 20)
    assert {count.wanted for count in found.counts} == {None}
    assert {row[-1] for row in rows(found)} == {"?", "0"}


def test_a_long_name_and_a_damaged_record_do_no_harm(run: Path) -> None:
    path = run / "cells" / f"{digest(0)}.json"
    record = json.loads(path.read_bytes())
    path.write_text(json.dumps(record | {"variant": 'a="\n "seed"' * 300}, indent=1))
    (run / "cells" / f"{digest(1)}.json").write_bytes(b"\xff{")
    found = status(run)
    assert found.done == 36
    assert found.counts[0].system == "dual"
    assert (found.counts[0].done, found.counts[2].system[:8]) == (0, 'dual:a="')


def test_rate_and_time_left_are_those_of_the_sitting(run: Path) -> None:
    told(run, 9999, 1, 2, 3)
    undo(run, *range(5))
    told(run, 130, 60, 120)
    found = status(run)
    assert found.rate == pytest.approx(60, rel=1e-3)
    assert found.seconds_left is None  # nobody is at work
    with held(run, lambda other: None):
        found = status(run)
    assert found.seconds_left == pytest.approx(5 * 60 - 10, abs=30)
    assert found.age == pytest.approx(10, abs=30)
    assert found.holder is not None
    first, rate, last = sentences(found)
    assert first.endswith(f": {found.holder} works on it")
    assert rate.startswith("60 cells an hour in the last sitting, 0:04:")
    assert re.fullmatch(r"last told 0:00:\d\d ago: dual clean seed 0 trained on node7", last)


def test_what_was_damaged_in_the_last_sitting_is_told(run: Path) -> None:
    told(run, 99, 1, damaged="old damage")
    told(run, 9, 1, damaged="a file was damaged", warned="no tensorboard")
    found = status(run)
    assert found.told == ("a file was damaged", "no tensorboard")
    assert sentences(found)[-2:] == ["a file was damaged", "no tensorboard"]


@pytest.mark.parametrize("name", ["complete", "failed", "died"])
def test_who_stopped_and_why_is_told(run: Path, name: str) -> None:
    record = json.loads((run / "run.json").read_bytes())
    (run / "run.json").write_text(json.dumps(record | {"status": name if name != "died" else "running"}))
    (run / LOCK).touch()
    said = "complete"
    if name == "failed":
        (run / "run.json").write_text(json.dumps(record | {"status": name, "problem": "OSError: the disk is full"}))
        said = "nobody works on it (OSError: the disk is full); the same command goes on"
    if name == "died":
        (run / HOLDER).write_text('{"pid":12,"host":"node7","since":"2024-01-01T10:00:00Z"}')
        said = "process 12 on node7 since 2024-01-01 10:00:00 UTC died while working on it; the same command goes on"
    (first,) = sentences(status(run))
    assert first == f"made ({f'{13:d<64x}'[:12]}) in {run}: {said}"


def test_before_a_run_has_a_record_its_log_says_what_it_does(run: Path) -> None:
    told(run, 5)
    (run / "run.json").unlink()
    shutil.rmtree(run / "cells")
    with held(run, lambda other: None):
        found = status(run)
    assert (found.name, found.digest, found.wanted, found.left, found.counts) == ("run", "d", 36, 36, ())
    assert re.fullmatch(r"last told 0:00:\d\d ago: stage models", sentences(found)[-1])


def test_a_folder_without_a_run_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run\.json is missing; expected a folder that `dual-bench run` wrote"):
        status(tmp_path)


def test_torch_and_tables_are_not_imported(run: Path, another_process: Callable[[str], str]) -> None:
    code = (
        "import sys; from pathlib import Path; from dual_bench.status import sentences, status\n"
        f"sentences(status(Path({str(run)!r})))\n"
        "print([name for name in ('torch', 'pandas', 'pyarrow') if name in sys.modules])"
    )
    assert another_process(code) == "[]\n"
