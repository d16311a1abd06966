"""Worker processes: none is left behind, and none takes another with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from multiprocessing.context import SpawnProcess

import pytest
from killing import squared

from dual_bench.processes import executor_of, spread, uninterrupted


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("fails", [False, True])
def test_an_interrupt_waits_for_what_is_not_to_be_interrupted_and_is_not_lost_where_that_fails(
    number: signal.Signals, fails: bool
) -> None:
    done: list[str] = []

    def told(number: int, frame: object) -> None:
        raise KeyboardInterrupt(number)

    def both() -> None:
        with uninterrupted(), uninterrupted():
            os.kill(os.getpid(), number)
            done.append("went on")
            if fails:
                raise RuntimeError("as the workers were told to end too")

    before = {each: signal.signal(each, told) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(KeyboardInterrupt) as raised:
            both()
        assert [signal.getsignal(each) for each in before] == [told, told]
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert (done, raised.value.args) == (["went on"], (number,))


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_results_come_in_the_order_of_their_tasks(jobs: int) -> None:
    assert list(spread(squared, [(n,) for n in range(9)], jobs)) == [n * n for n in range(9)]


def test_a_task_that_kills_its_process_costs_nothing_but_its_own_result() -> None:
    deadly = frozenset({2, 7})
    found = list(spread(squared, [(n, deadly) for n in range(9)], 2))
    assert found == [None if n in deadly else n * n for n in range(9)]


def test_without_tasks_there_is_no_result() -> None:
    assert list(spread(squared, [], 2)) == []
