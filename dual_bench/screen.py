"""What the commands share: the screen, bars of progress, how things go wrong, and where the time went."""

from __future__ import annotations

import errno
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from rich.progress import TaskID

    from dual_bench.runner import RunResult
    from dual_bench.types import Report

screen = Console(emoji=False)
errors = Console(stderr=True, emoji=False)


@contextmanager
def progress() -> Iterator[Report]:
    """A bar for each stage of a run, with the time left; above them, what was found damaged."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    from dual_bench.types import DAMAGED

    columns = (
        SpinnerColumn(),
        TextColumn("{task.fields[stage]:<7}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=screen) as shown:
        bars: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int, detail: str) -> None:
            if stage == DAMAGED:
                shown.console.print(f"[yellow]{escape(detail)}[/yellow]", highlight=False, soft_wrap=True)
                return
            for other, bar in bars.items():
                if other != stage and not shown.tasks[bar].finished:
                    shown.update(bar, completed=1, total=1)
            if stage not in bars:
                bars[stage] = shown.add_task("", stage=stage, total=None)
            shown.update(bars[stage], completed=done, total=total or None, description=escape(detail))

        yield report


class _ToldToEnd(KeyboardInterrupt):
    """SIGTERM: a scheduler, or another person, wants the program to end."""


def _end(number: int, frame: object) -> None:
    raise _ToldToEnd


@contextmanager
def explained() -> Iterator[None]:
    """Turn what goes wrong into one sentence and an exit code."""
    from dual_bench.types import DualBenchError, UserError

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _end)
    try:
        yield
    except UserError as error:
        _stop(f"{error}", 2)
    except DualBenchError as error:
        _stop(f"{error}", 1)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            _stop("the disk is full; free some space and run the same command: what is finished is stored", 1)
        _stop(f"{error.filename or 'a file'} cannot be used: {error.strerror or error}", 1)
    except _ToldToEnd:
        _stop("told to end; what is finished is stored, and the same command goes on from there", 143)
    except KeyboardInterrupt:
        _stop("interrupted; what is finished is stored, and the same command goes on from there", 130)


def _stop(sentence: str, code: int) -> None:
    # what a file says of itself may be in a sentence, and nothing of it commands the terminal or begins another line
    shown = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in " ".join(sentence.split()))
    errors.print(f"[bold red]dual-bench:[/bold red] {escape(shown)}", highlight=False, soft_wrap=True)
    sys.exit(code)


def tell_time(stages: dict[str, float], result: RunResult) -> None:
    """Where the time of a run went; what its models took is kept where some were trained."""
    from dual_bench.profile import profile
    from dual_bench.store import RunFolder, write_text

    folder = RunFolder(result.folder)
    trained = [cell for digest in result.cells if (cell := folder.finished(digest))]
    found = profile(stages, folder.info(), trained)
    whole = sum(stages.values())
    table = _numbers("Where the time went", "stage", "seconds", "share")
    for stage, seconds in stages.items():
        table.add_row(stage, f"{seconds:.1f}", f"{seconds / whole:.0%}")
    screen.print(table)
    if not trained:
        screen.print("no model was trained now, so profile.json is not written")
        return
    table = _numbers("Seconds of processes", "model", "trainings", "fit", "predict", "utterances/s", "answers/s")
    for m in found.models:
        rates = (m.utterances / m.seconds_fit, m.answers / m.seconds_predict)
        numbers = (f"{m.seconds_fit:.1f}", f"{m.seconds_predict:.1f}", *(f"{rate:,.0f}" for rate in rates))
        table.add_row(escape(m.system), str(m.trainings), *numbers)
    screen.print(table)
    write_text(folder.profile_file, found.model_dump_json(indent=1) + "\n")
    screen.print(f"profile: {folder.profile_file}", soft_wrap=True, highlight=False)


def _numbers(title: str, first: str, *others: str) -> Table:
    """A table of which all columns but the first are numbers."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(first)
    for heading in others:
        table.add_column(heading, justify="right")
    return table
