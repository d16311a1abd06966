"""One process at a time in a run folder, whatever becomes of the others."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dual_bench.lock import HOLDER, LOCK, Holder, at_work, held
from dual_bench.types import UserError

HOLD = """
import sys
from pathlib import Path
from dual_bench.lock import held
with held(Path(sys.argv[1]), print):
    print("in", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def another(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that works in ``folder`` until it is written to."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "in\n"
            yield process
        finally:
            process.kill()


def nobody(other: Holder | None) -> None:
    raise AssertionError(f"waited for {other}")


def test_who_is_alone_waits_for_nobody_and_leaves_no_name(tmp_path: Path) -> None:
    for _ in range(2):
        with held(tmp_path, nobody) as died:
            assert died is None
            me = at_work(tmp_path)
            assert me is not None
            assert (me.pid, me.host) == (os.getpid(), socket.gethostname())
            assert timedelta(0) <= datetime.now(UTC) - me.since < timedelta(minutes=1)
        assert at_work(tmp_path) is None
        assert not (tmp_path / HOLDER).exists()


def test_a_second_process_waits_until_the_first_ends_and_is_told_once_for_whom(tmp_path: Path) -> None:
    waited: list[Holder | None] = []
    with another(tmp_path) as process:

        def waiting(other: Holder | None) -> None:
            waited.append(other)
            assert at_work(tmp_path) == other
            assert process.stdin is not None
            process.stdin.write("leave\n")
            process.stdin.flush()

        with held(tmp_path, waiting) as died:
            assert died is None
            assert process.wait() == 0
    assert [other.pid for other in waited if other] == [process.pid]


def test_who_does_not_want_to_wait_raises_an_error_and_the_other_goes_on(tmp_path: Path) -> None:
    def refuse(other: Holder | None) -> None:
        raise UserError(f"{tmp_path} is worked on by {other}")

    with another(tmp_path) as process:
        said = rf"is worked on by process {process.pid} on .* since 2\d{{3}}-.* UTC"
        with pytest.raises(UserError, match=said), held(tmp_path, refuse):
            raise AssertionError
        there = at_work(tmp_path)
        assert there is not None
        assert there.pid == process.pid


def test_a_killed_process_holds_nothing_and_is_named_as_dead(tmp_path: Path) -> None:
    with another(tmp_path) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert (tmp_path / LOCK).exists()
    assert at_work(tmp_path) is None
    with held(tmp_path, nobody) as died:
        assert died is not None
        assert died.pid == process.pid
        me = at_work(tmp_path)
        assert me is not None
        assert me.pid == os.getpid()
    with held(tmp_path, nobody) as died:
        assert died is None


@pytest.mark.parametrize("content", ["", '{"pid": 12', "not a name"])
def test_files_that_were_left_behind_are_no_held_lock(tmp_path: Path, content: str) -> None:
    (tmp_path / LOCK).touch()
    (tmp_path / HOLDER).write_text(content)
    assert at_work(tmp_path) is None
    with held(tmp_path, nobody) as died:
        assert died is None


def test_an_error_inside_lets_go_of_the_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), held(tmp_path, nobody):
        raise KeyboardInterrupt
    assert at_work(tmp_path) is None
    assert not (tmp_path / HOLDER).exists()


def test_of_a_folder_that_cannot_be_written_to_one_learns_who_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def refuse(path: str, flags: int, *rest: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opened(path, flags, *rest)

    with held(tmp_path, nobody):
        monkeypatch.setattr(os, "open", refuse)
        there = at_work(tmp_path)
        assert there is not None
        assert there.pid == os.getpid()
        monkeypatch.undo()


COUNT = """
import sys, time
from pathlib import Path
from dual_bench.lock import held
folder = Path(sys.argv[1])
for _ in range(10):
    with held(folder, lambda other: None):
        number = int((folder / "number").read_text())
        time.sleep(0.01)
        (folder / "number").write_text(str(number + 1))
"""


def test_what_is_done_inside_is_done_by_one_process_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "number").write_text("0")
    many = [subprocess.Popen([sys.executable, "-c", COUNT, str(tmp_path)]) for _ in range(2)]
    assert [process.wait() for process in many] == [0, 0]
    assert (tmp_path / "number").read_text() == "20"
