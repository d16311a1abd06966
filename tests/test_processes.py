"""Worker processes: none is left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from multiprocessing.context import SpawnProcess

import pytest

from dual_bench.processes import executor_of


def sleep_apart() -> None:
    with executor_of(2, 2) as pool:
        assert pool is not None
        pool.submit(time.sleep, 600)


def test_an_interrupt_while_a_worker_starts_leaves_none_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    start = SpawnProcess.start

    def interrupted(self: SpawnProcess) -> None:
        start(self)
        os.kill(os.getpid(), signal.SIGINT)  # before the pool has taken note of the process

    monkeypatch.setattr(SpawnProcess, "start", interrupted)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        sleep_apart()
    assert time.monotonic() - began < 60
    deadline = time.monotonic() + 30
    while multiprocessing.active_children():
        assert time.monotonic() < deadline, "a worker process goes on"
        time.sleep(0.05)
