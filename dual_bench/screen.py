"""What the commands share: the screen, bars of progress, and how things go wrong."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from rich.progress import TaskID

    from dual_bench.types import Report

screen = Console(emoji=False)
errors = Console(stderr=True, emoji=False)


@contextmanager
def progress() -> Iterator[Report]:
    """A bar for each stage of a run, with the time left."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeRemainingColumn,
    )

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
            for other, bar in bars.items():
                if other != stage and not shown.tasks[bar].finished:
                    shown.update(bar, completed=1, total=1)
            if stage not in bars:
                bars[stage] = shown.add_task("", stage=stage, total=None)
            shown.update(bars[stage], completed=done, total=total or None, description=escape(detail))

        yield report


@contextmanager
def explained() -> Iterator[None]:
    """Turn what goes wrong into one sentence and an exit code."""
    from dual_bench.types import DualBenchError, UserError

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
    except KeyboardInterrupt:
        _stop("interrupted; what is finished is stored, and the same command goes on from there", 130)


def _stop(sentence: str, code: int) -> None:
    errors.print(f"[bold red]dual-bench:[/bold red] {escape(sentence)}", highlight=False, soft_wrap=True)
    sys.exit(code)
