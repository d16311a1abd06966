"""The log of a run: what was told is read back, whatever happened to the process that told it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dual_bench.journal import Damaged, Ended, Journal, Stage, Trained, failure, read, read_sitting

BEGAN = {
    "pid": 7, "host": "here", "engine": "local", "device": "cpu", "jobs": 2, "wanted": 8, "done": 3, "pending": 5,
    "digest": "ab", "version": "0.1.0",
}  # fmt: skip
TRAINED = {
    "digest": "cd", "title": "dual mixed seed 0", "seconds_fit": 1.5, "seconds_predict": 0.5, "best_epoch": 3,
    "where": "here",
}  # fmt: skip


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.jsonl"


def test_every_event_is_a_line_of_json_with_its_time_in_utc_to_the_millisecond(log: Path) -> None:
    with Journal(log) as journal:
        journal.tell("began", **BEGAN)
        journal.tell("stage", stage="words")
        journal.tell("trained", **TRAINED)
        journal.tell("failed", digest="ef", title="t", error="ValueError: no", raised="x.py:1 in f: g()")
        journal.tell("damaged", what="a file was damaged, and made again")
        journal.tell("warned", what="tensorboard does not answer")
        journal.tell("ended", status="partial", seconds=2.5)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [list(line)[:2] for line in lines] == [["when", "event"]] * 7
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line["when"])
        assert abs(datetime.now(UTC) - datetime.fromisoformat(line["when"])) < timedelta(minutes=1)
    assert {name: lines[0][name] for name in BEGAN} == BEGAN
    found = read(log)
    assert [event.event for event in found] == [
        "began", "stage", "trained", "failed", "damaged", "warned", "ended"
    ]  # fmt: skip
    assert isinstance(found[2], Trained)
    assert found[2].seconds_fit == 1.5
    assert isinstance(found[6], Ended)
    assert (found[6].status, found[6].problem) == ("partial", None)


def test_an_event_with_other_facts_than_its_own_is_refused(log: Path) -> None:
    with Journal(log) as journal:
        with pytest.raises(ValidationError):
            journal.tell("stage", stage="words", detail="more")
        with pytest.raises(ValidationError):
            journal.tell("trained", digest="cd")
    assert read(log) == []


def test_the_log_goes_on_over_sittings_and_the_last_can_be_read_alone(log: Path) -> None:
    for stage in ("words", "models"):
        with Journal(log) as journal:
            journal.tell("began", **BEGAN)
            journal.tell("stage", stage=stage)
            journal.tell("warned", what='they wrote "event":"began" into a text')
    assert [event.event for event in read(log)] == ["began", "stage", "warned"] * 2
    began, stage, _ = read_sitting(log)
    assert began.event == "began"
    assert isinstance(stage, Stage)
    assert stage.stage == "models"


def test_no_log_has_no_events_and_one_without_a_beginning_all_it_has(log: Path) -> None:
    assert read(log) == read_sitting(log) == []
    with Journal(log) as journal:
        journal.tell("stage", stage="words")
    assert len(read_sitting(log)) == 1


@pytest.mark.parametrize("cut", [1, 2, 30])
def test_a_broken_last_line_is_left_out_and_the_next_event_has_a_line_of_its_own(log: Path, cut: int) -> None:
    with Journal(log) as journal:
        journal.tell("stage", stage="words")
        journal.tell("damaged", what="something")
    log.write_bytes(log.read_bytes()[:-cut])
    whole = 2 if cut == 1 else 1  # without its end of line an event is whole all the same
    assert len(read(log)) == whole
    with Journal(log) as journal:
        journal.tell("stage", stage="models")
        journal.tell("ended", status="complete", seconds=1)
    assert [event.event for event in read(log)][whole:] == ["stage", "ended"]


TELL = """
import os, sys
from pathlib import Path
from dual_bench.journal import Journal
journal = Journal(Path(sys.argv[1]))
print("go", flush=True)
number = 0
while True:
    journal.tell("stage", stage=f"{number:09d}" * 50)
    number += 1
"""


def test_a_process_that_is_killed_while_it_tells_breaks_no_line_but_the_last(log: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", TELL, str(log)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        while not log.exists() or log.stat().st_size < 100_000:
            assert process.poll() is None
        process.kill()
    lines = log.read_bytes().split(b"\n")
    found = [event for event in read(log) if isinstance(event, Stage)]
    assert len(lines) - 1 <= len(found) <= len(lines)
    assert [event.stage[:9] for event in found] == [f"{number:09d}" for number in range(len(found))]


def test_a_full_disk_costs_lines_and_nothing_else(small_disk: Callable[[float], Path]) -> None:
    disk = small_disk(0.0625)
    (disk / "ballast").write_bytes(bytes(1 << 14))
    log = disk / "log.jsonl"
    with Journal(log) as journal:
        for _ in range(200):
            journal.tell("damaged", what="x" * 1000)
        before = read(log)
        assert 20 < len(before) < 60
        assert not log.read_bytes().endswith(b"\n")
        (disk / "ballast").unlink()
        journal.tell("ended", status="failed", problem="the disk is full", seconds=1)
    assert [event.event for event in read(log)] == ["damaged"] * len(before) + ["ended"]


@given(st.text(st.characters(codec=None)))
def test_any_text_can_be_told(what: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.jsonl"
        with Journal(log) as journal:
            journal.tell("damaged", what=what)
        (event,) = read(log)
        assert isinstance(event, Damaged)
        assert event.what == what.encode("utf-8", "backslashreplace").decode()


def stumble(what: str) -> None:
    raise ValueError(f"the {what}\n  is of no use")


def test_an_error_is_told_in_a_line_with_the_line_of_code_that_raised_it() -> None:
    def caught() -> BaseException:
        try:
            stumble("loss")
        except ValueError as error:
            return error
        raise AssertionError

    found = failure(caught())
    assert found.error == "ValueError: the loss is of no use"
    number = stumble.__code__.co_firstlineno + 1
    assert found.raised == f'test_journal.py:{number} in stumble: raise ValueError(f"the {{what}}\\n  is of no use")'
    assert found.traceback.startswith("Traceback (most recent call last):\n")
    assert found.traceback.endswith("is of no use\n")
    assert failure(KeyboardInterrupt()).error == "KeyboardInterrupt"
    assert failure(KeyboardInterrupt()).raised == ""


def test_of_an_error_in_another_process_the_line_there_is_told() -> None:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        error = pool.submit(int, "no number").exception()
        from_there = pool.submit(json.loads, "{").exception()
    assert error is not None
    assert from_there is not None
    assert failure(error).error == "ValueError: invalid literal for int() with base 10: 'no number'"
    assert re.match(r"process\.py:\d+ in _process_worker: ", failure(error).raised)
    assert re.match(r"decoder\.py:\d+ in raw_decode: obj, end = ", failure(from_there).raised)
    assert failure(from_there).traceback.count("Traceback") == 1
