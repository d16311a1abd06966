"""How long things take, side by side: contestants take turns in one run, and a ratio is one of medians."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ratio:
    """Seconds that ours and a named alternative need for the same work, a number for each repetition; ``asked`` is the
    ratio that is asked for, if one is."""

    what: str
    ours: str
    theirs: str
    seconds: tuple[float, ...]
    their_seconds: tuple[float, ...]
    asked: float | None = None

    @property
    def our_median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def their_median(self) -> float:
        return statistics.median(self.their_seconds)

    @property
    def value(self) -> float:
        """How many times as long the alternative takes: the ratio of the medians."""
        return self.their_median / self.our_median

    @property
    def spread(self) -> tuple[float, float]:
        """The lowest and the highest ratio of a repetition."""
        each = [theirs / ours for ours, theirs in zip(self.seconds, self.their_seconds, strict=True)]
        return min(each), max(each)


@dataclass(frozen=True)
class Limit:
    """What was measured in ``unit``, and how much it may be at most."""

    what: str
    value: float
    most: float
    unit: str


def seconds_of(work: Callable[[], object]) -> float:
    """By the clock."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_turns(contestants: Mapping[str, Callable[[], object]], repetitions: int) -> dict[str, tuple[float, ...]]:
    """Seconds of each contestant in each repetition; in every other one they take their turns backwards, so that a
    machine that slows down slows all of them."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for repetition in range(repetitions):
        order: Sequence[str] = list(contestants)[:: -1 if repetition % 2 else 1]
        for name in order:
            found[name].append(seconds_of(contestants[name]))
    return {name: tuple(seconds) for name, seconds in found.items()}


def matmul_rate(threads: int, size: int = 1024, repetitions: int = 25) -> float:
    """Median fp32 GFLOP/s of torch's product of two square matrices."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        a, b = torch.ones(2, size, size)
        for _ in range(3):
            a @ b
        seconds = statistics.median(seconds_of(lambda: a @ b) for _ in range(repetitions))
    finally:
        torch.set_num_threads(before)
    return 2 * size**3 / seconds / 1e9


def machine() -> str:
    """The machine in a sentence."""
    import torch

    from dual_bench.processes import cores

    count = cores()
    rates = [f"{matmul_rate(n):.0f} GFLOP/s in {n} thread{'s' if n > 1 else ''}" for n in sorted({1, count})]
    return (
        f"{_processor()}, {count} cores; Python {platform.python_version()}, torch {torch.__version__}; fp32 product "
        f"of 1024x1024 matrices {' and '.join(rates)}; load average {os.getloadavg()[0]:.1f} at the start"
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
