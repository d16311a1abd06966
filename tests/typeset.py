"""Running ``pdflatex`` on a report, where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest


def typeset(folder: Path, name: str = "report.tex") -> str:
    """The log of pdflatex without a shell, which must make a PDF; a test is skipped where there is no pdflatex."""
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed")
    options = ("-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape")
    result = subprocess.run(["pdflatex", *options, name], cwd=folder, capture_output=True, timeout=120)
    log = (folder / name).with_suffix(".log").read_text(encoding="latin-1")
    assert result.returncode == 0, log[-2000:]
    assert (folder / name).with_suffix(".pdf").stat().st_size
    assert not re.search("Missing character|Undefined control sequence", log)
    return log
