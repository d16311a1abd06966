"""Your own corpus: a CSV beside feature files.

A row is an utterance. Columns:

* ``id``, ``cluster`` (dialogue, session or video), ``speaker``, ``text``;
* ``label`` (a class name) or ``value`` (a number);
* ``split`` (train, validation, test) or ``fold`` (any name: cross-validation);
* ``text_NAME``, any number: the transcript of recogniser NAME;
* ``audio_file`` and ``audio_row``, ``vision_file`` and ``vision_row``: where the features lie. Paths are relative to
  the CSV and stay inside its folder. An empty file name says that the utterance lacks the modality; without these
  columns the corpus does.

Other columns are the user's own, and not read.

A feature file is ``.npy``: (rows, d), one step a row, or (rows, T, d); or ``.npz`` with such an array ``values`` and
``lengths`` (rows,) of the valid steps, or ``values`` (steps, d) and ``offsets`` (rows + 1,), sequences end to end.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dual_bench.catalog import validated
from dual_bench.datasets.assemble import assemble, folds_of
from dual_bench.datasets.table import (
    TableSettings,
    check_columns,
    check_spelling,
    check_utterances,
    inside,
    read_table,
    task_of,
    utterances_of,
    whole,
)
from dual_bench.limits import check_zip
from dual_bench.types import Corpus, Modality, Signal, UserError


class ManifestSettings(TableSettings):
    path: str


def load(data: Path, /, **settings: object) -> Corpus:
    """The corpus described by the CSV at ``path``; ``data`` is not needed."""
    chosen = validated(ManifestSettings, settings, "manifest")
    path = Path(chosen.path)
    where = f"manifest {path}"
    table = read_table(path, "manifest")
    check_utterances(table, where)
    check_columns(table, [f"{m}_row" for m in ("audio", "vision") if f"{m}_file" in table], where)
    check_spelling(table, [f"{m}_{what}" for m in ("audio", "vision") for what in ("file", "row")], where)
    task, targets = task_of(table, chosen, where, "manifest")
    utterances = utterances_of(table, targets)
    folds = folds_of(utterances, list(table["fold"]) if "fold" in table else None)
    modalities: tuple[Modality, ...] = ("audio", "vision")
    signals: dict[Modality, Signal] = {m: _signal(table, m, path.parent) for m in modalities if f"{m}_file" in table}
    return assemble(path.stem, task, utterances, signals, folds, chosen.licence)


def _signal(table: pd.DataFrame, modality: Modality, folder: Path) -> Signal:
    """Features of one modality, an item for each row of the manifest."""
    files: dict[str, list[NDArray[np.float32]]] = {}
    items: list[NDArray[np.float32] | None] = []
    for line, name, row in zip(table.index, table[f"{modality}_file"], table[f"{modality}_row"], strict=True):
        if not name:
            items.append(None)
            continue
        if name not in files:
            files[name] = _sequences(folder, name, line)
        number = whole(row)
        if number is None or number >= len(files[name]):
            there = f"rows 0..{len(files[name]) - 1}"
            raise UserError(f"manifest line {line}: {modality}_row '{row}' is not in {name}, which has {there}")
        items.append(files[name][number])
    width = next((item.shape[1] for item in items if item is not None), 0)
    if not width:
        raise UserError(f"the manifest names no {modality} features; leave the columns out, or fill them")
    nothing = np.empty((0, width), np.float32)
    return Signal("features", [nothing if item is None else item for item in items])


def _sequences(folder: Path, name: str, line: int) -> list[NDArray[np.float32]]:
    """The rows of a feature file, each (T, d)."""
    path, found = inside(folder, name, line)
    if not found:
        raise UserError(f"manifest line {line}: feature file {path} is missing")
    try:
        if path.suffix == ".npz":
            check_zip(path)
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            arrays: Mapping[str, NDArray[np.generic]] = {"values": loaded}
            if path.suffix == ".npz":
                arrays = {name: loaded[name] for name in ("values", "lengths", "offsets") if name in loaded}
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
    except Exception as error:  # of a damaged file, anything may come, and a lack of memory of one that lies
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"manifest line {line}: {path} is not a feature file: {reason}; expected .npy (rows, d) or (rows, T, d), "
            "or .npz with values and lengths or offsets"
        ) from None
