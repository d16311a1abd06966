"""What a target of fuzzing is: inputs of one kind, and a check that no input may fail."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from dual_bench.types import DualBenchError, UserError


@dataclass(frozen=True)
class Target:
    """``check`` takes any of the ``inputs``; what it raises is a finding.

    ``hypothesis`` and ``atheris`` are how many of a million inputs each engine tries. Where there are ``seeds``,
    atheris changes their bytes, of which ``read`` makes an input; else it makes the choices of the strategy.
    """

    name: str
    inputs: st.SearchStrategy[Any]
    check: Callable[[Any], object]
    hypothesis: int
    atheris: int
    seeds: tuple[bytes, ...] = ()
    read: Callable[[bytes], Any] = bytes


MEMORY = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())
"""A disk in memory, where the machine has one."""


@cache
def place() -> Path:
    """A folder of this process, removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix=f"dual-bench-fuzz-{os.getpid()}-", dir=MEMORY))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextmanager
def refusing(kind: type[DualBenchError] = UserError) -> Iterator[None]:
    """What is documented may be raised, if it says something."""
    try:
        yield
    except kind as error:
        if not str(error).strip():
            raise AssertionError("an error without a sentence") from error


# --------------------------------------------------------------------------------------------- strategies

HOSTILE = (
    *(
        "",
        " ",
        "\t",
        "\n",
        "\r\n",
        "\x00",
        "\x1b[31m",
        "\x7f",
        "\x85",
        "\u2028",
        "\u200b",
        "\u202e",
        "\ufeff",
        "\ufffe",
    ),
    *("=1+1", "'", '"', "`", "<script>", "</script>", "<!--", "]]>", "&amp;", "{{7*7}}", "((7*7))", "(* if x *)", "%s"),
    *(
        "\\input{x}",
        "\\",
        "$",
        "|",
        "../../etc/passwd",
        "/etc/passwd",
        "C:\\x",
        "~",
        "os:system",
        "a.b:c",
        "nan",
        "inf",
    ),
    *("-inf", "1e400", "-1", "0", "1", "9" * 5000, "1_0", "0x10", "٣", "²", "½", "True", "null", "[" * 3000, "e\u0301"),
    *("👩‍👩‍👧‍👦", "שלום", "\U0010ffff", "x" * 300, "--", "- [ ] ", "# ", "1. ", "[a](javascript:b)"),
)
"""Pieces of text that mean something somewhere."""


@st.composite
def _text(draw: st.DrawFn) -> str:
    if draw(st.booleans()):
        return draw(st.text(max_size=30))
    return "".join(draw(st.lists(st.sampled_from(HOSTILE) | st.text(max_size=6), max_size=6)))


text = _text()
"""Any text: ordinary, of any script, and made of pieces that mean something somewhere."""

surrogates = st.text(st.characters(), max_size=30) | st.text(st.characters(categories=["Cs"]), max_size=4)
"""Also halves of characters, which Python holds and no file does."""


def text_of(content: bytes) -> str:
    """Any text, halves of characters included; the first byte says how it is written."""
    if content[:1] < b"\x80":
        return content[1:].decode("utf-8", "replace")
    return content[1 : 1 + (len(content) - 1) // 2 * 2].decode("utf-16-le", "surrogatepass")


def damaged(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """A sound file in which a few stretches are lost, changed, or said again."""

    @st.composite
    def damaged_file(draw: st.DrawFn) -> bytes:
        content = bytearray(seeds[draw(st.integers(0, len(seeds) - 1))])
        for _ in range(draw(st.integers(0, 4))):
            at = draw(st.integers(0, len(content)))
            end = min(len(content), at + draw(st.sampled_from((0, 1, 2, 4, 8, 64, 1024))))
            kind = draw(st.integers(0, 3))
            by = (
                draw(st.binary(max_size=8))
                if kind > 2
                else (b"\x00" * 8, b"\xff" * 8, bytes(content[at:end]) * 2)[kind]
            )
            content[at:end] = by
        return bytes(content)

    return damaged_file()
