"""Calls of the command line, for tests."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner, Result

from dual_bench.cli import app


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments: str | Path) -> str:
    """The one sentence on stderr of a call that is the user's mistake."""
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("dual-bench: ")
    assert result.stderr.count("\n") == 1
    return result.stderr
