"""In what stored tables, records and files of a report differ from those that were made again, in a sentence."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from itertools import takewhile, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from dual_bench import tolerance
from dual_bench.limits import RECORD, parquet, read_bytes
from dual_bench.schema import MEASURED
from dual_bench.shown import shortened
from dual_bench.types import CLEAN, UserError

_PICTURES = (".svg", ".png", ".pdf")
DRAWN = (*_PICTURES, ".html")
"""How files end that matplotlib or Bokeh wrote, or a part of them."""
_NAMED = 5
_SHOWN = 40


class DiffersError(Exception):
    """What was found, and what was expected."""


def check_none(differences: Sequence[str]) -> None:
    """DiffersError that names the first of them, if there are any."""
    if differences:
        more = len(differences) - _NAMED
        raise DiffersError("\n".join([*differences[:_NAMED], *([f"and {more} more"] if more > 0 else [])]))


def short(value: object) -> str:
    """A value for a sentence."""
    return shortened("nothing" if value is None else str(value), _SHOWN)


# ---------------------------------------------------------------------------------------------- records


def in_fields(said: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Each leaf of two nested records that is not the same, by the way to it.

    >>> in_fields({"plan": {"seeds": 3}}, {"plan": {"seeds": 5}})
    ['plan.seeds is 3, expected 5']
    """
    old, new = _leaves(said), _leaves(expected)
    return [
        f"{what} is {short(old.get(what))}, expected {short(new.get(what))}"
        for what in dict.fromkeys([*old, *new])
        if not _alike(old.get(what), new.get(what))
    ]


def _alike(one: object, other: object) -> bool:
    """Whether they are the same, numbers to the ninth digit: what lies beyond depends on the processor."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9)
    return one == other


def _leaves(fields: Any, name: str = "") -> dict[str, Any]:
    if isinstance(fields, dict):
        parts = [(str(key), value) for key, value in fields.items()]
    elif isinstance(fields, list):
        parts = [(str(number), value) for number, value in enumerate(fields)]
    else:
        return {name: fields}
    found: dict[str, Any] = {}
    for key, value in parts:
        found |= _leaves(value, f"{name}.{key}" if name else key)
    return found


# ----------------------------------------------------------------------------------------------- tables


def read_rows(file: Path) -> pa.Table:
    """DiffersError where the file is no Parquet."""
    try:
        return parquet(file, file.name)
    except (UserError, OSError, pa.ArrowException) as error:
        raise DiffersError(f"{file.name} cannot be read: {short(' '.join(str(error).split()))}") from None


def column(table: pa.Table, name: str) -> NDArray[Any]:
    """DiffersError where there is none."""
    if name not in table.column_names:
        raise DiffersError(f"column '{name}' is missing")
    found: NDArray[Any] = table.column(name).to_pandas().to_numpy()
    return found


def check_rows(file: Path, stored: pa.Table, made: pa.Table, scores: float) -> int:
    """The number of rows ``stored`` in ``file``, which are those that were ``made``; scores may differ by ``scores``,
    and if that is not 0, what was measured on texts as far as a class probability may. DiffersError names the first
    that is another."""
    if stored.num_rows != made.num_rows:
        raise DiffersError(f"{file.name} has {stored.num_rows} rows, expected {made.num_rows}")
    for name in dict.fromkeys([*stored.column_names, *made.column_names]):
        if name not in made.column_names:
            raise DiffersError(f"{file.name} has a column '{name}', expected none of that name")
        there, again = column(stored, name), column(made, name)
        allowed = scores if name.startswith("score_") else tolerance.SCORES if scores and name in MEASURED else 0.0
        if (at := first_unlike(there, again, allowed)) is not None:
            values = f"{name} is {short(there[at])}, expected {short(again[at])}"
            raise DiffersError(f"{file.name}: {place(made, at)}: {values}")
    return int(made.num_rows)


def first_unlike(there: NDArray[Any], again: NDArray[Any], allowed: float) -> int | None:
    """Where they differ first by more than is ``allowed``, None where they do not; undefined is like undefined.

    >>> first_unlike(np.array([0.1, np.nan, 0.3]), np.array([0.1, np.nan, 0.4]), 0.0)
    2
    """
    if there.dtype.kind == again.dtype.kind == "f":
        unlike = ~np.isclose(there, again, rtol=0, atol=allowed, equal_nan=True)
    else:
        unlike = (there != again) & ~(pd.isna(there) & pd.isna(again))
    return int(np.argmax(unlike)) if unlike.any() else None


def place(table: pa.Table, at: int) -> str:
    """A row of texts or predictions, for people."""
    utterance, corruption, rate, draw = (column(table, key)[at] for key in ("utterance", "corruption", "rate", "draw"))
    noise = "" if corruption == CLEAN.corruption else f" {rate:g} draw {draw}"
    return f"utterance {utterance}, {corruption}{noise}"


# ------------------------------------------------------------------------------------------ report files


def in_report_file(name: str, there: Path, made: Path) -> str:
    """In what a file of a report differs from the one that the rows come to; empty: in nothing."""
    if not there.is_file():
        return f"{name} is missing"
    said, expected = read_bytes(there, RECORD, name), made.read_bytes()
    if said == expected:
        return ""
    if made.suffix in _PICTURES:
        return f"{name} is not the figure that the rows come to"
    if made.suffix == ".csv":
        difference = _in_cells(said.decode(errors="replace"), expected.decode())
        return f"{name}, {difference}" if difference else ""
    return f"{name}, {_in_lines(said.decode(errors='replace'), expected.decode())}"


def _in_lines(old: str, new: str) -> str:
    for number, (said, expected) in enumerate(zip_longest(old.splitlines(), new.splitlines(), fillvalue=""), 1):
        if said != expected:
            alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(said, expected, strict=False)))
            around = slice(max(0, alike - _SHOWN), alike + _SHOWN)
            return f"line {number}: says '{said[around]}', the rows come to '{expected[around]}'"
    return "line by line the same, has other ends of lines"


def _in_cells(old: str, new: str) -> str:
    tables = [list(csv.reader(io.StringIO(text))) for text in (old, new)]
    headings = tables[1][0]
    for number, (said, expected) in enumerate(zip_longest(*tables, fillvalue=[]), 1):
        for heading, a, b in zip_longest(headings, said, expected, fillvalue=""):
            if a != b and not _alike(_number(a), _number(b)):
                return f"line {number}, {heading}: says '{short(a)}', the rows come to '{short(b)}'"
    return ""


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
