"""Your own corpus: a CSV beside media files.

A row is an utterance. Columns are those of a ``manifest`` (``id``, ``cluster``, ``speaker``, ``text``, ``label`` or
``value``, ``split`` or ``fold``, any ``text_NAME``), and

* ``file``, of media with sound and pictures, or ``audio`` and ``video``, or one of these. Paths are relative to the CSV
  and stay inside its folder. An empty cell says that the utterance lacks the modality; without the column the corpus
  does;
* ``start`` and ``end``, in seconds of the file, where it holds more than the utterance; an empty cell is its beginning
  or end;
* ``half`` (left, right, whole): where the speaker is, in a picture that shows two.

Other columns are the user's own, and not read.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import cast, get_args

import pandas as pd

from dual_bench.catalog import did_you_mean, validated
from dual_bench.datasets.extracted import RECORD, TABLE
from dual_bench.datasets.source import Layout, Source, counted, some
from dual_bench.datasets.table import (
    TableSettings,
    check_spelling,
    check_utterances,
    inside,
    line_breaks,
    read_table,
    task_of,
    utterances_of,
)
from dual_bench.features.media import Clip, Half
from dual_bench.limits import HEADER
from dual_bench.types import Modality, UserError

SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("aac", "aif", "aiff", "flac", "m4a", "mp3", "oga", "ogg", "opus", "wav", "wma"),
        *("avi", "flv", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "ogv", "webm", "wmv"),
    )
)
"""Of what is taken for media when files that no row names are looked for."""
_COLUMNS: dict[Modality, str] = {"audio": "audio", "vision": "video"}
_HALVES: tuple[Half, ...] = get_args(Half)


class FolderSettings(TableSettings):
    encoding: str = "utf-8"
    """Of the CSV."""


def read(path: Path, /, **settings: object) -> Source:
    """The corpus of a CSV, or of a folder that holds exactly one such CSV; UserError with the line at fault."""
    chosen = validated(FolderSettings, settings, "folder")
    file = _manifest(path)
    where = f"manifest {file}"
    remedy = "save it as UTF-8, or name its encoding with folder:encoding=cp1252 or folder:encoding=latin-1"
    table = read_table(file, "manifest", chosen.encoding, remedy)
    check_utterances(table, where)
    task, targets = task_of(table, chosen, where, "folder")
    utterances = utterances_of(table, targets)
    columns = _columns(table, where)
    clips = {column: _clips(table, column, file.parent) for column in dict.fromkeys(columns.values())}
    media = {modality: clips[column] for modality, column in columns.items()}
    deviations = line_breaks(table) + _same(table, clips)
    named = {clip.path for found in clips.values() for clip in found if clip}
    gone = sorted(str(p.relative_to(file.parent)) for p in named if not p.is_file())
    if gone:
        deviations.append(f"{counted(len(gone), 'media file')} missing: {some(gone)}")
    unused = _unused(file.parent, named)
    if unused:
        left = [str(p.relative_to(file.parent)) for p in unused]
        deviations.append(f"{counted(len(left), 'media file')} that no row names: {some(left)}")
    return Source(
        file.stem,
        task,
        tuple(utterances),
        tuple(table["fold"]) if "fold" in table else None,
        media,
        chosen.licence,
        (),
        tuple(deviations),
        unused,
    )


def _manifests(path: Path) -> list[Path]:
    """The CSVs, at or in a path, whose header names media."""
    files = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    return [file for file in files if file.suffix == ".csv" and file.is_file() and _names_media(file)]


def _names_media(file: Path) -> bool:
    try:
        with file.open(encoding="latin-1", newline="") as lines:  # any byte is read: it is ASCII names that matter
            header = {name.strip().removeprefix("ï»¿") for name in next(csv.reader([lines.readline(HEADER)]), [])}
    except (OSError, csv.Error):
        return False
    return "id" in header and not header.isdisjoint({"file", "audio", "video"})


def _manifest(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = _manifests(path)
    if len(found) != 1:
        names = f" ({some([file.name for file in found])}); name one of them" if found else ""
        raise UserError(f"{path} holds {len(found)} CSVs with columns id and file, audio or video; expected one{names}")
    return found[0]


def _columns(table: pd.DataFrame, where: str) -> dict[Modality, str]:
    """The column that names the media of each modality."""
    own = {modality: column for modality, column in _COLUMNS.items() if column in table}
    media = () if "file" in table else _COLUMNS.values() if own else ("file", *_COLUMNS.values())
    check_spelling(table, ("start", "end", "half", *media), where)
    if ("file" in table) == bool(own):
        raise UserError(f"{where}: expected either a column 'file' or columns 'audio' and 'video', or one of these")
    columns = own or dict.fromkeys(_COLUMNS, "file")
    for column in set(columns.values()):
        if not (table[column] != "").any():
            raise UserError(f"{where}: the column '{column}' names no file; leave it out, or fill it")
    return columns


def _clips(table: pd.DataFrame, column: str, folder: Path) -> list[Clip | None]:
    rows = cast(Sequence[Mapping[str, str]], table.to_dict("records"))
    return [_clip(row, row[column], folder, line) for line, row in zip(table.index, rows, strict=True)]


def _same(table: pd.DataFrame, clips: Mapping[str, Sequence[Clip | None]]) -> list[str]:
    """A sentence on the stretches of files that more than one row names."""
    lines: dict[Clip, set[int]] = {}
    for column in clips.values():
        for line, clip in zip(table.index, column, strict=True):
            if clip:
                lines.setdefault(clip, set()).add(line)
    several = {clip: sorted(rows) for clip, rows in lines.items() if len(rows) > 1}
    found = [f"{clip.path.name} (lines {some([str(line) for line in rows])})" for clip, rows in several.items()]
    what = counted(len(found), "stretch of a file", "stretches of files")
    return [f"{what} that several rows name: {some(found)}"] if found else []


def _clip(row: Mapping[str, str], name: str, folder: Path, line: int) -> Clip | None:
    if not name:
        return None
    if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
        raise UserError(f"manifest line {line}: {name} leaves the manifest's folder; expected a path inside it")
    path, _ = inside(folder, name, line)
    start, end = _seconds(row, "start", 0.0, line), _seconds(row, "end", math.inf, line)
    if start >= end:
        raise UserError(f"manifest line {line}: the clip starts at {start:g} s and ends at {end:g} s")
    half = row.get("half") or "whole"
    if half not in _HALVES:
        raise UserError(f"manifest line {line}: half '{half}'{did_you_mean(half, _HALVES)}")
    return Clip(path, start, end, half)


def _seconds(row: Mapping[str, str], column: str, default: float, line: int) -> float:
    text = row.get(column, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise UserError(f"manifest line {line}: expected seconds in '{column}', found '{text}'")
    return value


def _unused(folder: Path, named: set[Path]) -> tuple[Path, ...]:
    """Media files that no row names, but for the sound of corpora that were extracted into the folder."""
    extracted = {record.parent / "sound" for record in folder.rglob(RECORD) if (record.parent / TABLE).is_file()}
    found = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("._"))
    return tuple(sorted(p for p in found if p not in named and p.is_file() and extracted.isdisjoint(p.parents)))


def _recognises(path: Path) -> bool:
    return bool(_manifests(path))


LAYOUT = Layout("folder", _recognises, read)
