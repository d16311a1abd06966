"""Calls of the command line, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dual_bench.cli import app

PLAIN = (
    "from dual_bench.report import render; render.pictures = lambda evidence, album: ();"
    "from dual_bench.cli import app; app()"
)
"""The command line without figures, for Python in another process."""


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments: str | Path) -> str:
    """The one sentence on stderr of a call that is the user's mistake."""
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("dual-bench: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@contextmanager
def without_figures() -> Iterator[None]:
    """Reports have their pages and tables, but no figures: to draw them is most of the work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dual_bench.report.render.pictures", lambda evidence, album: ())
        yield
