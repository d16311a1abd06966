"""What every CSV of utterances has in common: how it is read, what its columns must hold, and the task they make."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from dual_bench.catalog import did_you_mean
from dual_bench.types import SPLITS, Split, Task, UserError, Utterance

_TRANSCRIPT = "text_"


class TableSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: str = ""
    """Class names joined by ``|``, in the order of the scores; by default the sorted labels of the training split, or
    of all folds."""
    low: float | None = None
    high: float | None = None
    """Range of the value; by default that of the training split. With folds it has to be named."""
    licence: str = "not stated"


def read_table(path: Path, what: str, encoding: str = "utf-8", remedy: str = "save it as UTF-8") -> pd.DataFrame:
    """A CSV whose cells are text; UserError, which calls the file ``what``, with the line where it is in another
    encoding and the ``remedy``."""
    try:
        content = path.read_bytes()
        table = pd.read_csv(io.StringIO(content.decode(encoding)), dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise UserError(f"{what} {path} is missing") from None
    except OSError as error:
        raise UserError(f"{what} {path} cannot be read: {error.strerror}") from None
    except LookupError:
        raise UserError(f"'{encoding}' is no encoding; expected one such as utf-8, cp1252 or latin-1") from None
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(
            f"{what} {path} is not a {encoding.upper()} CSV: line {line} holds the byte 0x{content[error.start]:02x}; "
            f"{remedy}"
        ) from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeError) as error:
        raise UserError(f"{what} {path} is not a {encoding.upper()} CSV: {error}") from None
    if not isinstance(table.index, pd.RangeIndex):
        raise UserError(f"{what} {path}: rows have more fields than the header; quote a text that holds a comma")
    return table


def check_columns(table: pd.DataFrame, needed: Sequence[str], where: str) -> None:
    """UserError names the first column that is missing, and the one that may be meant."""
    for column in needed:
        if column not in table:
            raise UserError(f"{where}: column '{column}' is missing{did_you_mean(column, table.columns)}")


def check_utterances(table: pd.DataFrame, where: str) -> None:
    """UserError where a row does not say which utterance it is, what is true of it, or how it is used."""
    check_columns(table, ("id", "cluster", "speaker", "text"), where)
    for one, other in (("label", "value"), ("split", "fold")):
        if (one in table) == (other in table):
            raise UserError(f"{where}: expected either a column '{one}' or a column '{other}'")
    for column in ("id", "cluster", "label"):
        if column in table and (table[column] == "").any():
            line = list(table[column]).index("") + 2
            raise UserError(f"{where}, line {line}: '{column}' is empty")
    if "split" in table:
        for line, split in enumerate(table["split"], start=2):
            if split not in SPLITS:
                raise UserError(f"{where}, line {line}: split '{split}'{did_you_mean(split, SPLITS)}")


def task_of(table: pd.DataFrame, chosen: TableSettings, where: str, what: str) -> tuple[Task, list[float]]:
    """The task and each row's target; what the training split holds decides, where the settings of ``what`` do not."""
    seen = table[table["split"] == "train"] if "split" in table else table
    if "label" in table:
        names = chosen.classes.split("|") if chosen.classes else sorted(set(seen["label"]))
        for line, label in enumerate(table["label"], start=2):
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
        line = int(np.flatnonzero(~np.isfinite(values))[0])
        raise UserError(f"{where}, line {line + 2}: expected a number, found '{table['value'].iloc[line]}'")
    trained = values[seen.index.to_numpy()]
    if not len(trained):
        raise UserError(f"{where}: the train split is empty")
    low = chosen.low if chosen.low is not None else float(trained.min())
    high = chosen.high if chosen.high is not None else float(trained.max())
    outside = (values < low) | (values > high)
    if outside.any():
        line = int(np.flatnonzero(outside)[0])
        raise UserError(
            f"{where}, line {line + 2}: value {values[line]:g} is outside the task's [{low:g}, {high:g}]; "
            f"name another range with {what}:low=…,high=…"
        )
    return Task("regression", low=low, high=high), [float(value) for value in values]


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
