"""What every CSV of utterances has in common: how it is read, what its columns must hold, and the task they make."""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, FiniteFloat

from dual_bench.catalog import did_you_mean
from dual_bench.datasets.source import counted, some
from dual_bench.limits import CELLS, COLUMNS, CORPUS, read_bytes
from dual_bench.types import SPLITS, Split, Task, UserError, Utterance

_TRANSCRIPT = "text_"


class TableSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: str = ""
    """Class names joined by ``|``, in the order of the scores; by default the sorted labels of the training split, or
    of all folds."""
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None
    """Range of the value; by default that of the training split. With folds it has to be named."""
    licence: str = "not stated"


def read_table(path: Path, what: str, encoding: str = "utf-8", remedy: str = "save it as UTF-8") -> pd.DataFrame:
    """A CSV whose cells are text, and whose index is the line at which each row begins; cells that a row lacks at its
    end are empty. UserError, which calls the file ``what``, with the line where it is in another encoding and the
    ``remedy``, or where a row does not fit the header."""
    if not path.name.isprintable():
        raise UserError(
            f"{what} {path}: expected a file name of printable characters, as it names the corpus; rename it"
        )
    try:
        content = read_bytes(path, CORPUS, f"{what} {path}")
        text = content.decode(encoding).removeprefix("\ufeff")
    except FileNotFoundError:
        raise UserError(f"{what} {path} is missing") from None
    except OSError as error:
        raise UserError(f"{what} {path} cannot be read: {error.strerror}") from None
    except (LookupError, DeprecationWarning):  # which those of Python's own sources give, and may be errors
        raise UserError(f"'{encoding}' is no encoding; expected one such as utf-8, cp1252 or latin-1") from None
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(
            f"{what} {path} is not a {encoding.upper()} CSV: line {line} holds the byte 0x{content[error.start]:02x}; "
            f"{remedy}"
        ) from None
    except ValueError as error:  # also of a name that no encoding can have
        raise UserError(f"{what} {path} is not a {encoding.upper()} CSV: {error}") from None
    rows: dict[int, list[str]] = {}
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line, width = 1, 0
    try:
        for row in reader:
            if len(row) > 1 or "".join(row).strip():
                rows[line] = row
                width = width or len(row)
                if width > COLUMNS or len(rows) * width > CELLS:
                    raise UserError(
                        f"{what} {path} has more than the {COLUMNS:,} columns, or {CELLS:,} cells, that are read"
                    )
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{what} {path} is not a {encoding.upper()} CSV: the row of line {line}: {error}; is a quote missing?"
        ) from None
    if not rows:
        raise UserError(f"{what} {path} is not a {encoding.upper()} CSV: it is empty")
    header = rows.pop(next(iter(rows)))
    for column, number in Counter(header).items():
        if column and number > 1:
            raise UserError(f"{what} {path}: column '{column}' stands twice; keep one, or rename the other")
    for line, row in rows.items():
        if len(row) > len(header):
            raise UserError(
                f"{what} {path}, line {line}: the row has {len(row)} fields, but the header {len(header)}; quote a "
                "text that holds a comma"
            )
        row += [""] * (len(header) - len(row))
    table = pd.DataFrame(list(rows.values()), pd.Index(list(rows), dtype=int), header, str)
    return table.loc[:, [column != "" for column in header]]  # spreadsheet programs may end every row with commas


def line_breaks(table: pd.DataFrame) -> list[str]:
    """A sentence on the cells in which a line ends: there is none in most corpora, but where a quote is missing the
    rows after it vanish into such a cell."""
    found = [
        f"line {line} ({column})"
        for line, row in zip(table.index, table.to_numpy(), strict=True)
        for column, cell in zip(table.columns, row, strict=True)
        if "\n" in cell or "\r" in cell
    ]
    return [f"{counted(len(found), 'cell')} with a line break: {some(found)}; is a quote missing?"] if found else []


def check_columns(table: pd.DataFrame, needed: Sequence[str], where: str) -> None:
    """UserError names the first column that is missing, and the one that may be meant."""
    for column in needed:
        if column not in table:
            raise UserError(f"{where}: column '{column}' is missing{did_you_mean(column, table.columns)}")


def check_spelling(table: pd.DataFrame, optional: Sequence[str], where: str) -> None:
    """UserError where an ``optional`` column is missing and another, which nothing reads, is called almost so."""
    absent = [column for column in optional if column not in table]
    for name in table.columns:
        plain = name.strip().lower()
        if name.startswith(_TRANSCRIPT):
            continue
        near = [column for column in absent if plain.startswith(column) or column in re.split("[^a-z]", plain)]
        near += difflib.get_close_matches(plain, absent, n=1, cutoff=0.75)
        if near:
            raise UserError(
                f"{where}: unknown column '{name}'; did you mean '{near[0]}'? Give it another name if it is your own"
            )


def check_utterances(table: pd.DataFrame, where: str) -> None:
    """UserError where a row does not say which utterance it is, what is true of it, or how it is used."""
    check_columns(table, ("id", "cluster", "speaker", "text"), where)
    for one, other in (("label", "value"), ("split", "fold")):
        if (one in table) == (other in table):
            raise UserError(f"{where}: expected either a column '{one}' or a column '{other}'")
    for column in ("id", "cluster", "label"):
        if column in table and (table[column] == "").any():
            line = table.index[list(table[column]).index("")]
            raise UserError(f"{where}, line {line}: '{column}' is empty")
    first: dict[str, int] = {}
    for line, key in zip(table.index, table["id"], strict=True):
        if first.setdefault(key, line) != line:
            raise UserError(
                f"{where}, line {line}: utterance id '{key}' stands twice, first in line {first[key]}; expected unique "
                "ids"
            )
    if "split" in table:
        for line, split in table["split"].items():
            if split not in SPLITS:
                raise UserError(f"{where}, line {line}: split '{split}'{did_you_mean(split, SPLITS)}")


def task_of(table: pd.DataFrame, chosen: TableSettings, where: str, what: str) -> tuple[Task, list[float]]:
    """The task and each row's target; what the training split holds decides, where the settings of ``what`` do not."""
    seen = table[table["split"] == "train"] if "split" in table else table
    if "label" in table:
        names = chosen.classes.split("|") if chosen.classes else sorted(set(seen["label"]))
        for line, label in table["label"].items():
            if label not in names:
                raise UserError(
                    f"{where}, line {line}: label '{label}' is outside the task{did_you_mean(label, names)}"
                )
        return Task("classification", tuple(names)), [float(names.index(label)) for label in table["label"]]
    if "fold" in table and (chosen.low is None or chosen.high is None):
        raise UserError(
            f"{where}: in a cross-validation every value tests once, so the range cannot be read off them; "
            f"name it with {what}:low=…,high=…"
        )
    values = pd.to_numeric(table["value"], errors="coerce").to_numpy(float)
    if not np.isfinite(values).all():
        line = table.index[np.flatnonzero(~np.isfinite(values))[0]]
        raise UserError(f"{where}, line {line}: expected a number, found '{table['value'][line]}'")
    trained = values[table.index.isin(seen.index)]
    if not len(trained):
        raise UserError(f"{where}: the train split is empty")
    low = chosen.low if chosen.low is not None else float(trained.min())
    high = chosen.high if chosen.high is not None else float(trained.max())
    outside = (values < low) | (values > high)
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        raise UserError(
            f"{where}, line {table.index[first]}: value {values[first]:g} is outside the task's [{low:g}, {high:g}]; "
            f"name another range with {what}:low=…,high=…"
        )
    return Task("regression", low=low, high=high), [float(value) for value in values]


def whole(text: str) -> int | None:
    """A whole number from 0 on; None where it is none, or has more than 18 digits.

    >>> whole("12"), whole("-1"), whole("1" * 19)
    (12, None, None)
    """
    return int(text) if text.isdecimal() and len(text) <= 18 else None


def utterances_of(table: pd.DataFrame, targets: Sequence[float]) -> list[Utterance]:
    """The rows as utterances; without a column ``split`` all of them are in ``test``."""
    names = [str(column) for column in table.columns if str(column).startswith(_TRANSCRIPT)]
    rows = cast(list[dict[str, str]], table.to_dict("records"))
    return [
        Utterance(
            row["id"],
            cast(Split, row.get("split", "test")),
            row["cluster"],
            row["speaker"],
            row["text"],
            target,
            {name.removeprefix(_TRANSCRIPT): row[name] for name in names},
        )
        for row, target in zip(rows, targets, strict=True)
    ]


def inside(folder: Path, name: str, line: int) -> tuple[Path, bool]:
    """``folder / name``, and whether a file is there; UserError where it leads out of the folder."""
    try:
        path = folder / name
        found, there = path.is_file(), path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError) as error:
        raise UserError(f"manifest line {line}: '{name[:40]}' is not a file name: {error}") from None
    if not there:
        raise UserError(f"manifest line {line}: {name} is outside the manifest's folder")
    return path, found
