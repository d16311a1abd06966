"""What a run tells while it works: ``log.jsonl`` beside its results, an event a line, over all of its sittings.

A sitting is what one process does to a run from ``began`` to ``ended``; where the latter is missing, it was killed. A
line is appended by a single write, so a killed process leaves at most one that is broken, and the next event begins a
line of its own.
"""

from __future__ import annotations

import os
import traceback
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer, TypeAdapter, ValidationError

from dual_bench.limits import LOG as LOG_SIZE
from dual_bench.limits import read_bytes
from dual_bench.types import DualBenchError

LOG = "log.jsonl"
"""In a run folder."""

_Moment = Annotated[
    AwareDatetime, PlainSerializer(lambda moment: moment.astimezone(UTC).isoformat(timespec="milliseconds"))
]


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    when: _Moment


class Began(_Event):
    """A sitting begins: its plan is checked, and what is done of it is known."""

    event: Literal["began"] = "began"
    pid: int
    host: str
    engine: str
    device: str
    jobs: int
    """Trainings side by side."""
    wanted: int
    """Cells of the plan, or of the part of it that is to be done."""
    done: int
    """Cells that were there already."""
    pending: int
    """Cells that are to be trained."""
    digest: str
    """Of the plan."""
    version: str
    """Of dual-bench."""


class Stage(_Event):
    """Another stage begins: ``words``, ``models``."""

    event: Literal["stage"] = "stage"
    stage: str


class Trained(_Event):
    """A cell is trained, has answered, and is stored."""

    event: Literal["trained"] = "trained"
    digest: str
    title: str
    seconds_fit: float
    seconds_predict: float
    best_epoch: int
    where: str
    """The machine, or the process on it, that did it."""


class Failed(_Event):
    """A cell could not be made; ``cells/<digest>.failed.json`` has the whole traceback."""

    event: Literal["failed"] = "failed"
    digest: str
    title: str
    error: str
    """Its kind and what it says, in one line."""
    raised: str
    """The last line of code that its traceback names, with file and number."""


class Damaged(_Event):
    """Something that lies on the disk is not what was written there."""

    event: Literal["damaged"] = "damaged"
    what: str
    """What was found, and what was done about it."""


class Warned(_Event):
    """Something besides the results does not work, and the run goes on without it."""

    event: Literal["warned"] = "warned"
    what: str


class Ended(_Event):
    """A sitting ends."""

    event: Literal["ended"] = "ended"
    status: Literal["complete", "partial", "failed", "interrupted"]
    """``partial``: a part of the plan is done, the rest is left to others; ``failed``: some cells failed, or an error
    ended it."""
    problem: str | None = None
    seconds: float


Event = Began | Stage | Trained | Failed | Damaged | Warned | Ended
Kind = Literal["began", "stage", "trained", "failed", "damaged", "warned", "ended"]
_events: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


class Journal:
    """Writes the log of one sitting to ``path``, whose folder exists."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._torn = _ends_torn(path)

    def tell(self, event: Kind, **facts: object) -> None:
        """Add an event with its ``facts``, which are the fields of its class; what is no text is shown with ``\\``.

        A line that cannot be written, as the disk is full, is lost: a log stops no run, nor hides why it stopped.
        """
        clean = {name: _printable(value) if isinstance(value, str) else value for name, value in facts.items()}
        told = _events.validate_python({"when": datetime.now(UTC), "event": event, **clean})
        content = b"\n" * self._torn + told.model_dump_json().encode() + b"\n"
        with suppress(OSError):
            self._torn = self._file.write(content) != len(content)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


def _printable(text: str) -> str:
    """Without halves of characters, which no file can hold."""
    return text.encode("utf-8", "backslashreplace").decode()


def _ends_torn(path: Path) -> bool:
    """Whether a process was killed while it wrote the last line."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def read(path: Path) -> list[Event]:
    """Every event of a log, none where there is no log; a line that is broken or cannot be understood is left out."""
    return _parsed(read_bytes(path, LOG_SIZE, str(path))) if path.exists() else []


def read_sitting(path: Path) -> list[Event]:
    """The events of the last sitting, from ``began`` on, without parsing those before."""
    if not path.exists():
        return []
    content = read_bytes(path, LOG_SIZE, str(path))
    last = content.rfind(b'"event":"began"')  # in a text the quotes would have backslashes
    return _parsed(content[content.rfind(b"\n", 0, last) + 1 :]) if last >= 0 else _parsed(content)


def _parsed(content: bytes) -> list[Event]:
    found: list[Event] = []
    for line in content.split(b"\n"):
        with suppress(ValidationError):
            found.append(_events.validate_json(line))
    return found


@dataclass(frozen=True)
class Failure:
    """An error as records hold it."""

    error: str
    """Its kind and what it says, in one line."""
    raised: str = ""
    """The last line of code that its traceback names: ``training.py:120 in fit: loss.backward()``."""
    traceback: str = ""


def failure(error: BaseException) -> Failure:
    """What is to be stored of an error; of one that a process of a pool had, the traceback there."""
    remote = str(error.__cause__) if type(error.__cause__).__name__ == "_RemoteTraceback" else ""
    whole = remote.strip('"\n') + "\n" if remote else "".join(traceback.format_exception(error))
    told = isinstance(error, DualBenchError) and str(error)  # a sentence that was written for people
    said = " ".join((str(error) if told else f"{type(error).__name__}: {error}".removesuffix(": ")).split())
    lines = whole.splitlines()
    places = [i for i, line in enumerate(lines) if line.startswith('  File "')]
    raised = ""
    if places:
        named, number, function = lines[places[-1]].strip().split(", ", 2)
        code = lines[places[-1] + 1].strip() if places[-1] + 1 < len(lines) else ""
        file = Path(named.removeprefix('File "').removesuffix('"')).name
        raised = f"{file}:{number.removeprefix('line ')} {function}: {code}"
    return Failure(_printable(said), _printable(raised), _printable(whole))
