"""MELD (Poria et al. 2019), lines of the TV series Friends: ``MELD.Raw`` as its owners publish it.

``MELD.Raw.tar.gz`` holds ``train.tar.gz``, ``dev.tar.gz`` and ``test.tar.gz``, which unpack to the clip folders
``train_splits``, ``dev_splits_complete`` and ``output_repeated_splits_test``; the tables ``train_sent_emo.csv``,
``dev_sent_emo.csv`` and ``test_sent_emo.csv`` lie in the archives or come from
https://github.com/declare-lab/MELD/tree/master/data/MELD. Tables and folders are looked for in the folder itself, in
its ``MELD.Raw``, and in ``train``, ``dev`` and ``test`` of either, where unpacking tools put them. The clip of a row is
``dia{Dialogue_ID}_utt{Utterance_ID}.mp4``; numbers start anew in each split. Clips and their folders may be links, to
another disk or anywhere: no table names a path.

Known of the archives (issues of https://github.com/declare-lab/MELD):

* ``dia125_utt3.mp4`` of train does not decode (39, 52); ``dia110_utt7.mp4`` of dev is not there (22, 27);
* no row names 4 clips of dev and 5 of test, nor the 132 of test that are called ``final_videos_test…``. The owners call
  it safe to ignore them (22). Others found that the sound of ``final_videos_testdia108_utt0.mp4`` fits the row and that
  of ``dia108_utt0.mp4`` does not (https://github.com/UPC-AIDL-MER/multimodal_emotion_recognition):
  ``final=on`` reads them;
* ``dia38_utt4.mp4`` and ``dia220_utt0.mp4`` of test last minutes, ``dia309_utt0.mp4`` of train is cut wrongly (20).

The README counts 1,039 dialogues in train; the tables hold 1,038.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict

from dual_bench.catalog import did_you_mean, validated
from dual_bench.datasets.source import Layout, Source, counted, some
from dual_bench.datasets.table import check_columns, line_breaks, read_table, whole
from dual_bench.features.media import Clip
from dual_bench.limits import RECORD, read_bytes
from dual_bench.types import Split, Task, UserError, Utterance

CLASSES = {
    "emotion": ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger"),
    "sentiment": ("neutral", "positive", "negative"),
}
"""In the order of the README ("Labelling")."""
CLIPS = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
"""The folder of each split's clips."""
PUBLISHED = {"train": (9989, 1038), "dev": (1109, 114), "test": (2610, 280)}
"""Utterances and dialogues."""
EXPORT = "dual-bench-export.json"
LICENCE = "MELD: GPL-3.0 (labels); the clips are from the TV series Friends, for research only"
_BROKEN = "train_dia125_utt3"
_ABSENT = "dev_dia110_utt7"
_UNNAMED = {"dev_dia49_utt4", "dev_dia49_utt5", "dev_dia66_utt9", "dev_dia66_utt10", "test_dia108_utt2"}
_FINAL = "final_videos_test"
SPLITS: dict[str, Split] = {"train": "train", "dev": "validation", "test": "test"}
_PLAIN = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"'})


class MeldSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: Literal["emotion", "sentiment"] = "emotion"
    quotes: Literal["kept", "plain"] = "kept"
    """The tables mix typographic quotes with plain ones; ``plain`` makes all of them plain."""
    final: bool = False
    """Whether a test clip is read from its twin ``final_videos_test…`` where it has one."""
    encoding: str = "utf-8"
    """Of the tables: ``cp1252`` where a spreadsheet program saved them."""


class Export(BaseModel):
    """What ``dual-bench-export.json`` beside the tables says of a corpus that is not MELD, but arranged like it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    corpus: str
    licence: str
    notes: tuple[str, ...]
    classes: tuple[str, ...]
    """Of the column Emotion."""


def read(path: Path, /, **settings: object) -> Source:
    """All utterances with their clips, and what is otherwise than published; UserError where a table is at fault."""
    chosen = validated(MeldSettings, settings, "meld")
    export = _export(path)
    classes = export.classes if export and chosen.labels == "emotion" else CLASSES[chosen.labels]
    utterances: list[Utterance] = []
    clips: list[Clip] = []
    deviations: list[str] = []
    unused: list[Path] = []
    for split, inner in CLIPS.items():
        table = _table(path, split, chosen)
        made = _utterances(table, split, chosen, classes)
        folder = _find(path, split, inner) or path / inner
        there = {p.name: p for p in folder.glob("*.mp4") if not p.name.startswith("._")}
        names = {u.id: f"{u.id.removeprefix(f'{split}_')}.mp4" for u in made}
        twins = {name: _FINAL + name for name in names.values() if chosen.final and split == "test"}
        twins = {name: twin for name, twin in twins.items() if twin in there}
        read_from = {key: twins.get(name, name) for key, name in names.items()}
        utterances += made
        clips += [Clip(folder / read_from[u.id]) for u in made]
        left = sorted(set(there) - {*names.values(), *twins.values()})
        unused += [there[name] for name in left]
        deviations += [f"{split}: {sentence}" for sentence in line_breaks(table)]
        if not export:
            deviations += _counts(split, made)
        if twins:
            deviations.append(f"{split}: {counted(len(twins), 'clip')} read from {_FINAL}…, as asked for")
        if not export and names.get(_BROKEN) in there:
            deviations.append(f"known: {names[_BROKEN]} of {split}, as published, cannot be decoded")
        gone = {key: name for key, name in read_from.items() if name not in there}
        deviations += _missing(path, split, folder, gone, () if export else (_ABSENT, _BROKEN))
        deviations += _left(split, left, () if export else _UNNAMED, chosen.final)
    return Source(
        export.corpus if export else "meld",
        Task("classification", classes),
        tuple(utterances),
        None,
        {"audio": clips, "vision": clips},
        export.licence if export else LICENCE,
        export.notes if export else (),
        tuple(deviations),
        tuple(unused),
    )


def _find(path: Path, split: str, name: str) -> Path | None:
    """Where in the folder a table or clip folder of a split is."""
    places = (place / inner for place in (path, path / "MELD.Raw") for inner in ("", split))
    return next((place / name for place in places if (place / name).exists()), None)


def _export(path: Path) -> Export | None:
    file = path / EXPORT
    if not file.is_file():
        return None
    try:
        told = json.loads(read_bytes(file, RECORD, str(file)))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not JSON: {error}") from None
    return validated(Export, told, str(file))


def _table(path: Path, split: str, chosen: MeldSettings) -> pd.DataFrame:
    name = f"{split}_sent_emo.csv"
    file = _find(path, split, name)
    if file is None:
        raise UserError(
            f"{path / name} is missing; expected it there, in MELD.Raw or in {split}; the tables are at "
            "https://github.com/declare-lab/MELD/tree/master/data/MELD"
        )
    remedy = (
        "take the original file, or name the encoding with meld:encoding=cp1252 (a spreadsheet program's) or "
        "meld:encoding=latin-1"
    )
    return read_table(file, "table", chosen.encoding, remedy).rename_axis(str(file))


def _utterances(table: pd.DataFrame, split: str, chosen: MeldSettings, classes: tuple[str, ...]) -> list[Utterance]:
    where = f"table {table.index.name}"
    label = chosen.labels.capitalize()
    columns = ("Utterance", "Speaker", label, "Dialogue_ID", "Utterance_ID")
    check_columns(table, columns, where)
    made: dict[str, Utterance] = {}
    rows = zip(table.index, *(table[column] for column in columns), strict=True)
    for line, text, speaker, emotion, dialogue, number in rows:
        numbers = whole(dialogue), whole(number)
        if None in numbers:
            raise UserError(
                f"{where}, line {line}: expected whole numbers as Dialogue_ID and Utterance_ID, found "
                f"'{dialogue}' and '{number}'"
            )
        if emotion not in classes:
            raise UserError(f"{where}, line {line}: {label} '{emotion}'{did_you_mean(emotion, classes)}")
        cluster = f"{split}_dia{numbers[0]}"
        key = f"{cluster}_utt{numbers[1]}"
        if key in made:
            raise UserError(f"{where}, line {line}: dialogue {dialogue} has an utterance {number} already")
        if chosen.quotes == "plain":
            text = text.translate(_PLAIN)
        made[key] = Utterance(key, SPLITS[split], cluster, speaker, text, float(classes.index(emotion)))
    return list(made.values())


def _counts(split: str, made: list[Utterance]) -> list[str]:
    found = (len(made), len({u.cluster for u in made}))
    if found == PUBLISHED[split]:
        return []
    return [
        f"{split}: {counted(found[0], 'utterance')} in {counted(found[1], 'dialogue')}; published are "
        f"{PUBLISHED[split][0]:,} in {PUBLISHED[split][1]:,}"
    ]


def _missing(path: Path, split: str, folder: Path, gone: Mapping[str, str], known: Collection[str]) -> list[str]:
    """Sentences on the clips that rows name and nobody finds, by utterance."""
    if not folder.is_dir():
        packed = _find(path, split, f"{split}.tar.gz")
        remedy = f"; unpack {packed.relative_to(path)}" if packed else ""
        return [f"{split}: the clip folder {CLIPS[split]} is missing{remedy}: no utterance has sound or pictures"]
    said = [f"known: {name} of {split} is missing" for key, name in gone.items() if key in known]
    names = [name for key, name in gone.items() if key not in known]
    if names:
        said.append(f"{split}: {counted(len(names), 'clip')} missing from {folder.name}: {some(names)}")
    return said


def _left(split: str, left: list[str], known: Collection[str], final: bool) -> list[str]:
    """Sentences on the clips of a split that no row names."""
    said = []
    finals = [name for name in left if name.startswith(_FINAL) and not final]
    expected = [name for name in left if f"{split}_{name.removesuffix('.mp4')}" in known]
    rest = [name for name in left if name not in {*finals, *expected}]
    if finals:
        said.append(
            f"known: {counted(len(finals), 'clip')} of {split} called {_FINAL}… not read; by users' reports some "
            "fit their rows better than the clips that are: meld:final=on reads them instead"
        )
    if expected:
        said.append(f"known: {counted(len(expected), 'clip')} of {split} that no row names: {some(expected)}")
    if rest:
        said.append(f"{split}: {counted(len(rest), 'clip')} that no row names: {some(rest)}")
    return said


def _recognises(path: Path) -> bool:
    return path.is_dir() and any(_find(path, split, f"{split}_sent_emo.csv") for split in CLIPS)


LAYOUT = Layout("meld", _recognises, read)
