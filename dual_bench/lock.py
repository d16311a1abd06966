"""One process at a time works on a run folder.

The lock is the operating system's (``flock`` where there is one), so it is gone with the process that held it, however
that ended: a file that was left behind holds nothing. Beside it lies who holds it. Who finds a name there, and the lock
free, knows that the one who is named died.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

LOCK, HOLDER = ".lock", ".lock.json"
_MODE = 0o666
"""Who may read a run may ask whether somebody works on it."""
_PATIENCE = 0.5
"""Seconds: somebody who only asks is gone by then."""


class Holder(BaseModel):
    """Who works on a run folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pid: int
    host: str
    since: AwareDatetime

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since:%Y-%m-%d %H:%M:%S} UTC"


@contextmanager
def held(folder: Path, waiting: Callable[[Holder | None], None]) -> Iterator[Holder | None]:
    """The ``folder``, which is made where it is not there, for this process alone; gives who died while working on
    it, if somebody did.

    While another process works on it, this one waits. ``waiting`` is told who that is, None where nobody says so, once
    for each; it may raise an error, and then nothing is waited for.
    """
    lock = FileLock(folder / LOCK, mode=_MODE)
    told: list[Holder | None] = []
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=_PATIENCE)
            if _is_the_one(folder / LOCK):
                break
            lock.release()
        except FileNotFoundError:  # who held it has just removed the folder
            continue
        except Timeout:
            other = named(folder)
            if told[-1:] != [other]:
                told.append(other)
                waiting(other)
    try:
        died = named(folder)
        me = Holder(pid=os.getpid(), host=socket.gethostname(), since=datetime.now(UTC))
        (folder / HOLDER).write_text(me.model_dump_json() + "\n", encoding="utf-8")
        yield died
    finally:
        (folder / HOLDER).unlink(missing_ok=True)
        lock.release()


def _is_the_one(path: Path) -> bool:
    """Whether the lock that this process holds is that of the file which is there now: who held it before may have
    removed it, and somebody else made another."""
    try:
        with FileLock(path, timeout=0, mode=_MODE):
            return False
    except Timeout:
        return True


def at_work(folder: Path) -> Holder | None:
    """Who works on ``folder`` now; None where nobody does.

    Where one may not ask, since nothing can be written there, it is whoever was named last.
    """
    lock = folder / LOCK
    if not lock.exists():
        return None
    try:
        with FileLock(lock, timeout=0, mode=_MODE):
            return None
    except OSError:  # a Timeout is one
        return named(folder)


def named(folder: Path) -> Holder | None:
    """Who is named beside the lock; None where that is nobody, or not written to its end."""
    try:
        return Holder.model_validate_json((folder / HOLDER).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
