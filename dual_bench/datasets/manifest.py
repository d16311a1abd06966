"""Your own corpus: a CSV beside feature files.

A row is an utterance. Columns:

* ``id``, ``cluster`` (dialogue, session or video), ``speaker``, ``text``;
* ``label`` (a class name) or ``value`` (a number);
* ``split`` (train, validation, test) or ``fold`` (any name: cross-validation);
* ``text_NAME``, any number: the transcript of recogniser NAME;
* ``audio_file`` and ``audio_row``, ``vision_file`` and ``vision_row``: where the features lie. Paths are relative to
  the CSV and stay inside its folder. An empty file name says that the utterance lacks the modality; without these
  columns the corpus does.

A feature file is ``.npy``: (rows, d), one step a row, or (rows, T, d); or ``.npz`` with such an array ``values`` and
``lengths`` (rows,) of the valid steps, or ``values`` (steps, d) and ``offsets`` (rows + 1,), sequences end to end.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from dual_bench.catalog import did_you_mean, validated
from dual_bench.datasets.assemble import assemble, cross_validation, official
from dual_bench.types import SPLITS, Corpus, Modality, Signal, Split, Task, UserError, Utterance

_TRANSCRIPT = "text_"


class ManifestSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    classes: str = ""
    """Class names joined by ``|``, in the order of the scores; by default the sorted labels of the training split, or
    of all folds."""
    low: float | None = None
    high: float | None = None
    """Range of the value; by default that of the training split. With folds it has to be named."""
    licence: str = "not stated"


def load(data: Path, /, **settings: object) -> Corpus:
    """The corpus described by the CSV at ``path``; ``data`` is not needed."""
    chosen = validated(ManifestSettings, settings, "manifest")
    path = Path(chosen.path)
    table = _read(path)
    task, targets = _task(table, chosen, path)
    names = [str(column) for column in table.columns if str(column).startswith(_TRANSCRIPT)]
    rows = cast(list[dict[str, str]], table.to_dict("records"))
    utterances = [
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
    folds = cross_validation(utterances, [row["fold"] for row in rows]) if "fold" in table else official(utterances)
    modalities: tuple[Modality, ...] = ("audio", "vision")
    signals: dict[Modality, Signal] = {m: _signal(table, m, path.parent) for m in modalities if f"{m}_file" in table}
    return assemble(path.stem, task, utterances, signals, folds, chosen.licence)


def _read(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"manifest {path} is missing") from None
    except OSError as error:
        raise UserError(f"manifest {path} cannot be read: {error.strerror}") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"manifest {path} is not a UTF-8 CSV: {error}") from None
    if not isinstance(table.index, pd.RangeIndex):
        raise UserError(f"manifest {path}: rows have more fields than the header; quote a text that holds a comma")
    needed = ["id", "cluster", "speaker", "text"]
    needed += [f"{m}_row" for m in ("audio", "vision") if f"{m}_file" in table]
    for column in needed:
        if column not in table:
            raise UserError(f"manifest {path}: column '{column}' is missing{did_you_mean(column, table.columns)}")
    for one, other in (("label", "value"), ("split", "fold")):
        if (one in table) == (other in table):
            raise UserError(f"manifest {path}: expected either a column '{one}' or a column '{other}'")
    for column in ("id", "cluster", "label"):
        if column in table and (table[column] == "").any():
            line = list(table[column]).index("") + 2
            raise UserError(f"manifest {path}, line {line}: '{column}' is empty")
    if "split" in table:
        for line, split in enumerate(table["split"], start=2):
            if split not in SPLITS:
                raise UserError(f"manifest {path}, line {line}: split '{split}'{did_you_mean(split, SPLITS)}")
    return table


def _task(table: pd.DataFrame, chosen: ManifestSettings, path: Path) -> tuple[Task, list[float]]:
    """The task and each row's target; what the training split holds decides, where the settings do not."""
    seen = table[table["split"] == "train"] if "split" in table else table
    if "label" in table:
        names = chosen.classes.split("|") if chosen.classes else sorted(set(seen["label"]))
        for line, label in enumerate(table["label"], start=2):
            if label not in names:
                raise UserError(
                    f"manifest {path}, line {line}: label '{label}' is outside the task{did_you_mean(label, names)}"
                )
        return Task("classification", tuple(names)), [float(names.index(label)) for label in table["label"]]
    if "fold" in table and (chosen.low is None or chosen.high is None):
        raise UserError(
            f"manifest {path}: in a cross-validation every value tests once, so the range cannot be read off them; "
            "name it with manifest:low=…,high=…"
        )
    values = pd.to_numeric(table["value"], errors="coerce").to_numpy(float)
    if not np.isfinite(values).all():
        line = int(np.flatnonzero(~np.isfinite(values))[0])
        raise UserError(f"manifest {path}, line {line + 2}: expected a number, found '{table['value'].iloc[line]}'")
    trained = values[seen.index.to_numpy()]
    if not len(trained):
        raise UserError(f"manifest {path}: the train split is empty")
    low = chosen.low if chosen.low is not None else float(trained.min())
    high = chosen.high if chosen.high is not None else float(trained.max())
    outside = (values < low) | (values > high)
    if outside.any():
        line = int(np.flatnonzero(outside)[0])
        raise UserError(
            f"manifest {path}, line {line + 2}: value {values[line]:g} is outside the task's [{low:g}, {high:g}]; "
            "name another range with manifest:low=…,high=…"
        )
    return Task("regression", low=low, high=high), [float(value) for value in values]


def _signal(table: pd.DataFrame, modality: Modality, folder: Path) -> Signal:
    """Features of one modality, an item for each row of the manifest."""
    files: dict[str, list[NDArray[np.float32]]] = {}
    items: list[NDArray[np.float32] | None] = []
    for line, (name, row) in enumerate(zip(table[f"{modality}_file"], table[f"{modality}_row"], strict=True), start=2):
        if not name:
            items.append(None)
            continue
        if name not in files:
            files[name] = _sequences(_inside(folder, name, line), line)
        if not row.isdecimal() or int(row) >= len(files[name]):
            there = f"rows 0..{len(files[name]) - 1}"
            raise UserError(f"manifest line {line}: {modality}_row '{row}' is not in {name}, which has {there}")
        items.append(files[name][int(row)])
    width = next((item.shape[1] for item in items if item is not None), 0)
    if not width:
        raise UserError(f"the manifest names no {modality} features; leave the columns out, or fill them")
    nothing = np.empty((0, width), np.float32)
    return Signal("features", [nothing if item is None else item for item in items])


def _inside(folder: Path, name: str, line: int) -> Path:
    try:
        path = (folder / name).resolve()
        found = path.is_file()
    except (OSError, ValueError) as error:
        raise UserError(f"manifest line {line}: '{name[:40]}' is not a file name: {error}") from None
    if not path.is_relative_to(folder.resolve()):
        raise UserError(f"manifest line {line}: {name} is outside the manifest's folder")
    if not found:
        raise UserError(f"manifest line {line}: feature file {path} is missing")
    return path


def _sequences(path: Path, line: int) -> list[NDArray[np.float32]]:
    """The rows of a feature file, each (T, d)."""
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            arrays: Mapping[str, NDArray[np.generic]] = dict(loaded) if path.suffix == ".npz" else {"values": loaded}
        values = np.asarray(arrays["values"], np.float32)
        if "offsets" in arrays:
            bounds = np.asarray(arrays["offsets"], np.int64)
            if values.ndim != 2 or bounds[0] != 0 or bounds[-1] != len(values) or (np.diff(bounds) < 0).any():
                raise ValueError(f"offsets do not divide values of shape {values.shape}")
            return [values[start:end] for start, end in pairwise(bounds)]
        if values.ndim == 2:
            return [row[None] for row in values]
        if values.ndim != 3:
            raise ValueError(f"values have shape {values.shape}")
        lengths = np.asarray(arrays.get("lengths", np.full(len(values), values.shape[1])), np.int64)
        if lengths.shape != (len(values),) or not ((lengths >= 0) & (lengths <= values.shape[1])).all():
            raise ValueError(f"lengths do not fit values of shape {values.shape}")
        return [row[:length] for row, length in zip(values, lengths, strict=True)]
    except (OSError, EOFError, ValueError, KeyError, IndexError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(
            f"manifest line {line}: {path} is not a feature file: {error}; expected .npy (rows, d) or (rows, T, d), "
            "or .npz with values and lengths or offsets"
        ) from None
