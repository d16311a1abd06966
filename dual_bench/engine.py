"""Who does the work of a run: processes of this machine, or a cluster (``cluster``). Both are given jobs and give back
what came of each, in the order in which they end.

A job that goes wrong is an outcome too: it takes no other with it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from dual_bench.job import Job, Outcome, attacked, work
from dual_bench.journal import Failure, failure
from dual_bench.processes import as_they_end
from dual_bench.provenance import processor
from dual_bench.worst import Attack


@dataclass(frozen=True)
class Done:
    """What came of a job: an outcome for each of its seeds, or why there is none; and the ``host`` that worked on
    it, with its ``processor``."""

    result: list[Outcome] | Failure
    host: str
    processor: str = ""


class Engine(Protocol):
    """``name`` is what provenance tells of it, ``side_by_side`` how many jobs it works on at a time."""

    @property
    def name(self) -> str: ...

    @property
    def side_by_side(self) -> int: ...

    def each(self, count: int, job_of: Callable[[int], Job]) -> Generator[tuple[int, Job, Done], None, None]:
        """What came of each of ``count`` jobs, in the order in which they end. A job is made when its turn comes."""
        ...


@dataclass(frozen=True)
class Local:
    """``jobs`` processes of this machine; one alone is this process, unless models are to be kept ``apart`` from what
    it knows."""

    jobs: int
    apart: bool = False

    @property
    def name(self) -> str:
        return "local"

    @property
    def side_by_side(self) -> int:
        return self.jobs

    def each(self, count: int, job_of: Callable[[int], Job]) -> Generator[tuple[int, Job, Done], None, None]:
        each = as_they_end(attempt, count, lambda number: (job_of(number),), self.jobs, self.apart)
        for number, (job,), done in each:
            yield number, job, done or Done(KILLED, socket.gethostname())


KILLED = Failure(
    "its process was killed, twice: most likely there is too little memory; fewer processes (--jobs) need less"
)


def attempt(job: Job) -> Done:
    """Do the job, and take note of what goes wrong with it."""
    return _done(lambda: work(job))


def attempt_attack(job: Job, outcomes: Sequence[Outcome], wanted: Attack) -> Done:
    """The same of an attack that comes after the job (``job.attacked``)."""
    return _done(lambda: attacked(job, outcomes, wanted))


def _done(make: Callable[[], list[Outcome]]) -> Done:
    try:
        return Done(make(), socket.gethostname(), processor())
    except Exception as error:
        return Done(failure(error), socket.gethostname())
