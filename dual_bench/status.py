"""How far a run is: read from its folder by another process, at any time, while the run goes on or long after.

A cell counts as done where its record and its rows are there, and as failed where only the record of a failure is;
whether the bytes are what was written is looked at when the run goes on, or its report is made. The folder of cells is
listed once. Of records the first lines are read, which say what was trained.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from dual_bench.journal import LOG, Began, Damaged, Event, Failed, Stage, Trained, Warned, read_sitting
from dual_bench.limits import RECORD, read_bytes
from dual_bench.lock import Holder, at_work, named
from dual_bench.schema import FailedCell, RunInfo

_HEAD = 1024
"""Bytes of a record that are read: as a rule model, variant and regime are among them."""


@dataclass(frozen=True)
class Count:
    """The cells of one system in one regime; ``wanted`` is None where the run is only a part of its plan."""

    system: str
    regime: str
    done: int
    failed: int
    wanted: int | None


@dataclass(frozen=True)
class Status:
    """What is known of a run without reading its rows."""

    folder: Path
    name: str
    digest: str
    """Of the plan."""
    recorded: str
    """What the run says of itself: ``running``, ``complete``, ``failed``."""
    problem: str | None
    """Why it stopped, where it could still say so."""
    wanted: int
    """Cells of the plan, or of the part of it that the last sitting is for."""
    done: int
    failed: int
    counts: tuple[Count, ...]
    """Of systems that have a record, by name, then of those that have none yet."""
    holder: Holder | None
    """Who works on it now."""
    died: Holder | None
    """Who worked on it, and was gone without a word."""
    last: Event | None
    """What was told last in the last sitting, at ``asked`` at the latest."""
    asked: datetime
    rate: float | None
    """Cells an hour that were trained in the last sitting; None before the first."""
    failures: tuple[FailedCell, ...]
    told: tuple[str, ...]
    """What was damaged, or did not work, in the last sitting."""

    @property
    def left(self) -> int:
        """Cells that are neither done nor failed."""
        return self.wanted - self.done - self.failed

    @property
    def seconds_left(self) -> float | None:
        """Until the last cell, if they go on as they did; None where nobody works on them, or none was trained."""
        if self.holder is None or not self.rate or self.last is None:
            return None
        return max(0.0, 3600 * self.left / self.rate - self.age)

    @property
    def age(self) -> float:
        """Seconds since something was told last; 0 where nothing was."""
        return (self.asked - self.last.when).total_seconds() if self.last else 0.0


def status(folder: Path) -> Status:
    """UserError where there is no run in ``folder``, or none that can be read.

    Where a run is still encoded, and has no record of itself yet, it is what its log says.
    """
    begun = _from_log(folder)
    if begun.wanted and not (folder / "run.json").exists():
        return begun
    info, cells = _info(folder), folder / "cells"
    names = _listed(cells)
    done = [digest for digest in info.cells if {f"{digest}.json", f"{digest}.parquet"} <= names]
    finished = set(done)
    failed = [digest for digest in info.cells if f"{digest}.failed.json" in names and digest not in finished]
    trained = Counter(_who(cells / f"{digest}.json") for digest in done)
    lost = Counter(_who(cells / f"{digest}.failed.json") for digest in failed)
    return replace(
        begun,
        name=info.name,
        digest=info.digest,
        recorded=info.status,
        problem=info.problem,
        wanted=begun.wanted or len(info.cells),
        done=len(done),
        failed=len(failed),
        counts=_counts(info, trained, lost),
        failures=tuple(record for digest in failed if (record := _failure(cells / f"{digest}.failed.json"))),
    )


def _from_log(folder: Path) -> Status:
    """What the log of the last sitting says, and the lock."""
    events, holder = read_sitting(folder / LOG), at_work(folder)
    began = next((event for event in events if isinstance(event, Began)), None)
    return Status(
        folder,
        name=folder.name,
        digest=began.digest if began else "",
        recorded="running",
        problem=None,
        wanted=began.wanted if began else 0,
        done=began.done if began else 0,
        failed=0,
        counts=(),
        holder=holder,
        died=None if holder else named(folder),
        last=events[-1] if events else None,
        asked=datetime.now(UTC),
        rate=_rate(events),
        failures=(),
        told=tuple(event.what for event in events if isinstance(event, Damaged | Warned)),
    )


def _info(folder: Path) -> RunInfo:
    try:
        return RunInfo.model_validate_json(read_bytes(folder / "run.json", RECORD, f"{folder}/run.json"))
    except (OSError, ValidationError):
        from dual_bench.store import RunFolder  # takes half a second, and says what is wrong

        return RunFolder(folder).info()


def _listed(folder: Path) -> frozenset[str]:
    """Names in a folder; none where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries)
    except FileNotFoundError:
        return frozenset()


def _who(record: Path) -> tuple[str, str] | None:
    """System and regime of a cell, which come before its seed in every record; None where it cannot be read."""
    mark = b'\n "seed"'  # no text has a bare line break
    try:
        with record.open("rb") as file:
            head = file.read(_HEAD)
            if mark not in head:
                head += file.read(RECORD)
        facts = json.loads(head[: head.index(mark)].rstrip().removesuffix(b",") + b"}")
        return f"{facts['model']}:{facts['variant']}".removesuffix(":"), facts["regime"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _failure(record: Path) -> FailedCell | None:
    try:
        return FailedCell.model_validate_json(read_bytes(record, RECORD, str(record)))
    except (OSError, ValidationError):
        return None


Who = tuple[str, str] | None


def _counts(info: RunInfo, done: Counter[Who], failed: Counter[Who]) -> tuple[Count, ...]:
    """Cells by system and regime. A plan asks for the same of every system: in each regime a cell for each seed and
    fold, and in ``matched`` one for each condition too."""
    regimes, models = info.plan["regimes"], info.plan["models"]
    share, rest = divmod(len(info.cells), len(models))
    each = info.plan["seeds"] * info.corpus.folds
    matched = share - each * (len(regimes) - 1) if "matched" in regimes else each
    whole = rest == 0 and matched > 0 and matched % each == 0 and share == matched + each * (len(regimes) - 1)
    wanted = {regime: (matched if regime == "matched" else each) if whole else None for regime in regimes}
    known = sorted({who[0] for who in done.keys() | failed.keys() if who})
    others = [model for model in models if model not in known]
    # a plan may write settings otherwise than records do; then nobody can say which of its models is which record's
    systems = [*known, *others] if len(known) + len(others) == len(models) else known
    asked = [(system, regime) for system in systems for regime in regimes]
    return tuple(Count(*who, done[who], failed[who], wanted[who[1]]) for who in asked)


def _rate(events: Sequence[Event]) -> float | None:
    """Cells an hour from the beginning of training up to the last that is trained."""
    trained = [event for event in events if isinstance(event, Trained)]
    if not trained:
        return None
    before = [event for event in events if isinstance(event, Began | Stage) and event.when <= trained[0].when]
    began = before[-1] if before else trained[0]
    seconds = (trained[-1].when - began.when).total_seconds()
    return 3600 * len(trained) / seconds if seconds > 0 else None


# --------------------------------------------------------------------------------------------- for people


HEADINGS = ("system", "regime", "done", "failed", "left")


def rows(found: Status) -> list[tuple[str, ...]]:
    """A row of a table for each system and regime, under ``HEADINGS``, and their sum."""
    table = [
        (c.system, c.regime, str(c.done), str(c.failed), "?" if c.wanted is None else str(c.wanted - c.done - c.failed))
        for c in found.counts
    ]
    return [*table, ("all", "", str(found.done), str(found.failed), str(found.left))]


def sentences(found: Status) -> list[str]:
    """Everything else, a line each: who is at work, how long it takes, what failed and what was damaged."""
    said = [f"{found.name} ({found.digest[:12]}) in {found.folder}: {_state(found)}"]
    if found.rate:
        left = f", {_time(found.seconds_left)} left" if found.seconds_left is not None else ""
        said.append(f"{found.rate:.3g} cells an hour in the last sitting{left}")
    if found.last is not None:
        said.append(f"last told {_time(found.age)} ago: {_short(found.last)}")
    said += [f"{what}" for what in found.told]
    for cell in found.failures:
        regimen = f"{cell.regime} {cell.corruption} {cell.rate:g}" if cell.corruption else cell.regime
        system = f"{cell.model}:{cell.variant}".removesuffix(":")
        said.append(f"failed: {system} {regimen} seed {cell.seed}, fold {cell.fold}, on {cell.host}: {cell.error}")
    return said


def _state(found: Status) -> str:
    if found.holder is not None:
        return f"{found.holder} works on it"
    if found.died is not None:
        return f"{found.died} died while working on it; the same command goes on"
    if found.recorded == "complete":
        return "complete"
    if found.recorded == "partial":
        return "its part of the plan is complete"
    why = f" ({found.problem})" if found.problem else ""
    return f"nobody works on it{why}; the same command goes on"


def _time(seconds: float | None) -> str:
    return str(timedelta(seconds=round(seconds or 0)))


def _short(event: Event) -> str:
    """What an event says, for people."""
    match event:
        case Stage():
            return f"stage {event.stage}"
        case Trained():
            return f"{event.title} trained on {event.where}"
        case Failed():
            return f"{event.title} failed: {event.error}"
        case Damaged() | Warned():
            return event.what
        case Began():
            return f"began with {event.pending} cells to train"
    return f"{event.status}{f': {event.problem}' if event.problem else ''}"
