"""The two engines: hypothesis, which knows what inputs look like, and atheris, which follows the code they reach.

Either tries a number of inputs on a target and writes down what it found; a finding does not stop it.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fuzz.base import Target, place
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis.errors import StopTest, UnsatisfiedAssumption

MOST_MEMORY = 2**31
"""Bytes that a target may ask for beyond what is loaded before it begins."""
MOST_SECONDS = 20
"""Of computing, for one input: on a machine that does other work too, it may take longer."""
_BATCH = 2_000
"""Examples after which hypothesis begins anew: it remembers all that it has tried."""
_KEPT = 20
"""Findings that are told."""


class TooSlowError(Exception):
    """An input took more than ``MOST_SECONDS`` to compute."""


@dataclass
class Tally:
    """What an engine did with a target; ``findings`` by where in the code they arose."""

    inputs: int = 0
    seconds: float = 0.0
    peak: int = 0
    """Bytes in memory at most."""
    loaded: int = 0
    """Bytes in memory before."""
    findings: dict[str, str] = field(default_factory=dict)

    def save(self, path: Path, begun: float) -> None:
        self.seconds, self.peak = time.monotonic() - begun, _resident()
        path.write_text(json.dumps(asdict(self)))


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _late(signum: int, frame: object) -> None:
    raise TooSlowError


def _place_of(error: BaseException) -> str:
    """The kind of an error, and the last place in dual-bench, or else in the check, that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/dual_bench/" in f.filename] or [f for f in frames if "/fuzz/" in f.filename] or frames
    return f"{type(error).__name__} at {Path(own[-1].filename).name}:{own[-1].lineno}"


def _counting(target: Target, tally: Tally) -> Callable[[Any], None]:
    """The target's check, with its inputs counted and its findings noted."""

    def checked(value: Any) -> None:
        tally.inputs += 1
        signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
        try:
            target.check(value)
        except (StopTest, UnsatisfiedAssumption):
            raise
        except Exception as error:
            where = _place_of(error)
            if where not in tally.findings and len(tally.findings) < _KEPT:
                told = "".join(traceback.format_exception(error))[-3000:]
                tally.findings[where] = f"{repr(value)[:3000]}\n{told}"
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)

    return checked


@contextlib.contextmanager
def bounded(memory: int = MOST_MEMORY) -> Iterator[None]:
    """Memory beyond so much is an error, and so is an input that takes too long."""
    here = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (here + memory, before[1]))
    handler = signal.signal(signal.SIGPROF, _late)
    try:
        yield
    finally:
        signal.signal(signal.SIGPROF, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def _prepared(target: Target) -> None:
    """What is made once is made, and not counted."""
    for value in [target.read(content) for content in target.seeds] or [_first(target)]:
        with contextlib.suppress(Exception):
            target.check(value)


def _first(target: Target) -> Any:
    found: list[Any] = []

    @settings(max_examples=1, database=None, deadline=None, phases=[Phase.generate])
    @given(target.inputs)
    def one(value: Any) -> None:
        found.append(value)

    one()
    return found[0]


_SETTINGS = settings(
    database=None, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate], derandomize=False
)


def by_hypothesis(target: Target, count: int, seed: int, out: Path) -> None:
    """Try at least ``count`` examples of the target's strategy."""
    _prepared(target)
    tally = Tally(loaded=_resident())
    checked, begun, batch = _counting(target, tally), time.monotonic(), 0
    with bounded():
        while tally.inputs < count:
            most = min(_BATCH, count - tally.inputs)

            @seeded(f"{seed} {batch}")
            @settings(_SETTINGS, max_examples=most)
            @given(target.inputs)
            def run(value: Any) -> None:
                checked(value)

            before = tally.inputs
            run()
            batch += 1
            tally.save(out, begun)
            if tally.inputs == before:
                break
    tally.save(out, begun)


def by_atheris(target: Target, count: int, seed: int, out: Path) -> None:
    """Try ``count`` inputs that follow new paths through dual-bench, as it was imported for that; ends the process."""
    import atheris

    _prepared(target)
    tally = Tally(loaded=_resident())
    checked, begun = _counting(target, tally), time.monotonic()
    last = (place() / "last").open("wb", buffering=0)
    offered = 0
    if target.seeds:

        def one(content: bytes) -> None:
            checked(target.read(content))

    else:

        @_SETTINGS
        @given(target.inputs)
        def run(value: Any) -> None:
            checked(value)

        one = run.hypothesis.fuzz_one_input

    def try_one(content: bytes) -> None:
        nonlocal offered
        offered += 1
        last.seek(0)
        last.truncate()
        last.write(content)
        one(content)
        if tally.inputs % 1000 == 0:
            tally.save(out, begun)
        if tally.inputs >= count or offered >= 20 * count:
            tally.save(out, begun)
            os._exit(0)

    corpus = place() / "seeds"
    corpus.mkdir(exist_ok=True)
    for number, content in enumerate(target.seeds):
        (corpus / str(number)).write_bytes(content)
    limits = [
        "-max_len=2048",
        f"-seed={seed}",
        "-verbosity=0",
        "-rss_limit_mb=0",
        "-timeout=600",
        "-handle_abrt=0",
    ]
    with bounded():
        atheris.Setup(["fuzz", *limits, "-runs=-1", *([str(corpus)] if target.seeds else [])], try_one)
        atheris.Fuzz()


ENGINES = {"hypothesis": by_hypothesis, "atheris": by_atheris}
