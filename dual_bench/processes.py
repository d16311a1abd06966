"""Worker processes: how many, started fresh, and none left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import connection
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def executor_of(jobs: int, count: int) -> Iterator[Executor | None]:
    """A pool of ``jobs`` fresh processes; None, and the work happens here, where one is enough."""
    if min(jobs, count) <= 1:
        yield None
        return
    context = multiprocessing.get_context("spawn")
    before = set(multiprocessing.active_children())
    with _Pool(min(jobs, count), context, initializer=_die_with_parent) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in set(multiprocessing.active_children()) - before:
                worker.terminate()
            raise


def spread(work: Callable[..., T], tasks: Sequence[tuple[Any, ...]], jobs: int) -> Iterator[T | None]:
    """``work(*task)`` for each task, in their order, by ``jobs`` processes; None where a task kills its process.

    Few tasks are under way at a time, so results may be large.
    """
    done = 0
    while done < len(tasks):
        suspects: deque[Future[T]] = deque()
        try:
            with executor_of(jobs, len(tasks) - done) as pool:
                if pool is None:
                    for task in tasks[done:]:
                        yield work(*task)
                    return
                coming = iter(tasks[done:])
                suspects.extend(pool.submit(work, *task) for task in islice(coming, 2 * jobs))
                while suspects:
                    result = suspects[0].result()
                    suspects.popleft()
                    suspects.extend(pool.submit(work, *task) for task in islice(coming, 1))
                    done += 1
                    yield result
        except BrokenProcessPool:  # nobody knows whose fault it was, so each gets a process of its own
            for task in tasks[done : done + max(1, len(suspects))]:
                done += 1
                yield _alone(work, task)


def _alone(work: Callable[..., T], task: tuple[Any, ...]) -> T | None:
    with _Pool(1, multiprocessing.get_context("spawn"), initializer=_die_with_parent) as pool:
        try:
            return pool.submit(work, *task).result()
        except BrokenProcessPool:
            return None


class _Pool(ProcessPoolExecutor):
    """Processes are started as work comes in, and an interrupt waits until they are known: one that nobody knows of
    goes on with its work, and the program waits for it in the end."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        with _uninterrupted():
            return super().submit(fn, *args, **kwargs)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """An interrupt in here is raised at the end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: caught.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if caught:
        raise KeyboardInterrupt


def _die_with_parent() -> None:
    """Leave at once when the parent is gone, however it went; an interrupt is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
