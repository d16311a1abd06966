"""Worker processes: how many, started fresh, and none left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import connection
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
Task = TypeVar("Task", bound=tuple[Any, ...])


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def executor_of(jobs: int, count: int, apart: bool = False) -> Iterator[Executor | None]:
    """A pool of ``jobs`` fresh processes; None, and the work happens here, where one is enough and need not be kept
    ``apart`` from what this process knows."""
    if min(jobs, count) <= 1 and not apart:
        yield None
        return
    with _pool(max(1, min(jobs, count))) as pool:
        yield pool


@contextmanager
def _pool(size: int) -> Iterator[_Pool]:
    """So many fresh processes at most; where something goes wrong they do not end their work."""
    context = multiprocessing.get_context("spawn")
    before = set(multiprocessing.active_children())
    with _away_from_here(), _Pool(size, context, initializer=_die_with_parent) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in set(multiprocessing.active_children()) - before:
                worker.terminate()
            raise


@contextmanager
def _away_from_here() -> Iterator[None]:
    """Python that is started in here looks for none of its modules in the present folder: a ``pickle.py`` there would
    run in every worker process, before it is told where this one looks
    (https://docs.python.org/3/using/cmdline.html#envvar-PYTHONSAFEPATH)."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("PYTHONSAFEPATH", None)
        else:
            os.environ["PYTHONSAFEPATH"] = before


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


def as_they_end(
    work: Callable[..., T], count: int, task_of: Callable[[int], Task], jobs: int, apart: bool = False
) -> Iterator[tuple[int, Task, T | None]]:
    """Each number below ``count``, its task, and ``work(*task)``, in the order in which they end; None where a task
    kills its process twice, the second time with nothing beside it.

    Two tasks a process are made at a time, and no result waits for another. ``apart`` is that of ``executor_of``.
    """
    left = deque(range(count))
    while left:
        running: dict[Future[T], tuple[int, Task]] = {}
        try:
            with executor_of(jobs, max(2, count), apart) as pool:  # a single one may be deadly too
                if pool is None:
                    while left:
                        number = left.popleft()
                        task = task_of(number)
                        yield number, task, work(*task)
                    return
                while left or running:
                    while left and len(running) < 2 * jobs:
                        with uninterrupted():
                            task = task_of(left[0])
                            future = pool.submit(work, *task)
                            running[future] = (left.popleft(), task)
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        result = future.result()
                        yield *running.pop(future), result
        except BrokenProcessPool:
            whole = [future for future in running if future.done() and future.exception() is None]
            for future in whole:
                yield *running.pop(future), future.result()
            # nobody knows whose fault it was, so each that was under way gets a process of its own
            under_way = list(running.values())[:jobs]
            left.extendleft(number for number, _ in reversed(list(running.values())[jobs:]))
            for number, task in under_way:
                yield number, task, _alone(work, task)


def _alone(work: Callable[..., T], task: tuple[Any, ...]) -> T | None:
    with _pool(1) as pool:
        try:
            return pool.submit(work, *task).result()
        except BrokenProcessPool:
            return None


class _Pool(ProcessPoolExecutor):
    """Processes are started as work comes in, and an interrupt waits until they are known: one that nobody knows of
    goes on with its work, and the program waits for it in the end."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        with uninterrupted():
            return super().submit(fn, *args, **kwargs)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """An interrupt in here is raised at the end, and so is the wish that the program end. Some libraries, asked from C
    for what is written in Python, take it for an error of their own, or for none at all."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[tuple[int, Any]] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    heeded = {number: handler for number, handler in before.items() if callable(handler)}

    def heed() -> None:
        for number, handler in heeded.items():
            signal.signal(number, handler)

    try:
        for number in heeded:
            signal.signal(number, lambda number, frame: caught.append((number, frame)))
        yield
    finally:  # also where what it waited for failed, as it may have for the same reason
        try:
            heed()
        finally:
            heed()  # the first that is heeded again may raise at once, and leave the other
        if caught:
            heeded[signal.Signals(caught[0][0])](*caught[0])


def alive(pid: str) -> bool:
    """Whether a process of this number lives on this machine."""
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is another user's
        return True
    return True


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
