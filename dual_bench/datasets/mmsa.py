"""Feature files of MMSA (https://github.com/thuiar/MMSA): CMU-MOSI, CMU-MOSEI and CH-SIMS as ``aligned_50.pkl``,
``unaligned_50.pkl`` or ``unaligned_39.pkl``.

A file holds a dictionary for each of ``train``, ``valid`` and ``test``: ``id`` (``video$_$clip``), ``raw_text``,
``regression_labels``, ``annotations`` (Negative, Neutral, Positive), and sequences ``audio`` and ``vision`` (n, T, d),
padded with zeros (README, "Datasets"). How many steps are valid say ``audio_lengths`` and ``vision_lengths``, or, where
features are aligned to words and the file has no lengths, the second row of ``text_bert`` (n, 3, T), BERT's mask: so
read them MMSA's own models (src/MMSA/models/multiTask/SELF_MM.py). Where something other than zero stands behind them,
or nothing says the length, zeros are taken off at both ends instead.

MMSA makes audio of -inf 0 (src/MMSA/data_loader.py); here every number that is not finite becomes 0, and is counted.

A file does not say what its values range over. The three corpora are told by how many utterances their splits have;
for any other file ``low`` and ``high`` have to be named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, FiniteFloat

from dual_bench.catalog import did_you_mean, validated
from dual_bench.datasets import safe_pickle
from dual_bench.datasets.source import Layout, Source, counted, some
from dual_bench.types import Modality, Signal, Split, Task, UserError, Utterance

ANNOTATIONS = ("Negative", "Neutral", "Positive")
SEPARATOR = "$_$"
_SPLITS: dict[str, Split] = {"train": "train", "valid": "validation", "test": "test"}
_MODALITIES: tuple[Modality, ...] = ("audio", "vision")
_COLUMNS = frozenset(
    ["raw_text", "regression_labels", "annotations", "text_bert", *_MODALITIES, *(f"{m}_lengths" for m in _MODALITIES)]
)
"""What is read, an item for each id."""


@dataclass(frozen=True)
class _Known:
    """A corpus that MMSA publishes: its utterances in train, valid and test, and the range of its values."""

    name: str
    counts: tuple[int, int, int]
    low: float
    high: float
    licence: str


CORPORA = (
    _Known("mosi", (1284, 229, 686), -3.0, 3.0, "CMU-MOSI: academic, non-commercial research; features: MMSA (MIT)"),
    _Known("mosei", (16326, 1871, 4659), -3.0, 3.0, "CMU-MOSEI: academic research; features: MMSA (MIT)"),
    _Known(
        "sims", (1368, 456, 457), -1.0, 1.0, "CH-SIMS: terms at https://github.com/thuiar/MMSA; features: MMSA (MIT)"
    ),
)


class MmsaSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: Literal["value", "annotation"] = "value"
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None
    """Range of the values."""


def read(path: Path, /, **settings: object) -> Source:
    """Utterances and their features; UserError where the file is not such a one, or wants to run something."""
    chosen = validated(MmsaSettings, settings, "mmsa")
    splits = _splits(safe_pickle.load(path), path)
    counts = tuple(len(split["id"]) for split in splits.values())
    known = next((corpus for corpus in CORPORA if corpus.counts == counts), None)
    task = _task(chosen, known, path)
    utterances = [u for name, split in splits.items() for u in _utterances(name, split, task, path)]
    twice = sorted(key for key, number in Counter(u.id for u in utterances).items() if number > 1)
    if twice:
        raise UserError(f"{path}: ids that stand twice: {some(twice)}; expected unique ids")
    media: dict[Modality, Signal] = {}
    deviations = []
    if known is None:
        published = ", ".join(f"{c.name} {'/'.join(f'{n:,}' for n in c.counts)}" for c in CORPORA)
        listed = "/".join(f"{n:,}" for n in counts)
        deviations.append(f"{listed} utterances in train/valid/test are those of no corpus of MMSA ({published})")
    for modality in _MODALITIES:
        if all(modality in split for split in splits.values()):
            parts = [_sequences(name, split, modality, path) for name, split in splits.items()]
            media[modality] = Signal("features", [item for part in parts for item in part.items])
            unfinished, beyond = sum(part.unfinished for part in parts), sum(part.beyond for part in parts)
            if unfinished:
                deviations.append(f"{modality}: {counted(unfinished, 'value')} made 0 from NaN or infinity")
            if beyond:
                deviations.append(f"{modality}: {counted(beyond, 'sequence')} kept whole, longer than said")
    if not media:
        raise UserError(f"{path} holds neither 'audio' nor 'vision' in every split")
    name, licence = (known.name, known.licence) if known else (path.stem, "not stated")
    return Source(name, task, tuple(utterances), None, media, licence, (), tuple(deviations))


def _splits(content: object, path: Path) -> dict[str, Mapping[str, Any]]:
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}; expected a dictionary of train, valid and test")
    for name in _SPLITS:
        split = content.get(name)
        if not isinstance(split, dict):
            found = some(sorted(_names(content)))
            raise UserError(f"{path} has no split '{name}'; expected train, valid and test, found {found or 'nothing'}")
        for key in ("id", "raw_text"):
            if key not in split:
                raise UserError(f"{path}: {name} has no '{key}'{did_you_mean(key, _names(split))}")
        count = _count(split["id"])
        if count is None:
            raise UserError(f"{path}: 'id' of {name} is no list; expected an id for each utterance")
        for key, value in split.items():
            if key in _COLUMNS and _count(value) != count:
                raise UserError(f"{path}: {name} has {count} ids, but '{key}' is of another length")
    return {name: content[name] for name in _SPLITS}


def _count(value: object) -> int | None:
    """How many items a list or an array has; None where it is neither."""
    if isinstance(value, np.ndarray) and not value.ndim:  # it is Sized, and has no length
        return None
    return len(value) if isinstance(value, Sized) else None


def _names(content: Mapping[Any, Any]) -> list[str]:
    return [key for key in content if isinstance(key, str)]


def _task(chosen: MmsaSettings, known: _Known | None, path: Path) -> Task:
    if chosen.labels == "annotation":
        return Task("classification", ANNOTATIONS)
    low = chosen.low if chosen.low is not None else known.low if known else None
    high = chosen.high if chosen.high is not None else known.high if known else None
    if low is None or high is None:
        raise UserError(
            f"{path} has the counts of no corpus of MMSA, so nobody knows the range of its values; name it with "
            "mmsa:low=-3,high=3 (MOSI, MOSEI) or mmsa:low=-1,high=1 (SIMS)"
        )
    return Task("regression", low=low, high=high)


def _utterances(name: str, split: Mapping[str, Any], task: Task, path: Path) -> list[Utterance]:
    column = "annotations" if task.kind == "classification" else "regression_labels"
    if column not in split:
        raise UserError(f"{path}: {name} has no '{column}'{did_you_mean(column, _names(split))}")
    made = []
    for i, (key, text, label) in enumerate(zip(split["id"], split["raw_text"], split[column], strict=True)):
        plain = {"id": key, "raw_text": text} | ({column: label} if task.kind == "classification" else {})
        for what, value in plain.items():
            if not isinstance(value, str | int | np.generic):
                raise UserError(
                    f"{path}: {what} {i} of {name} is a {type(value).__name__}; expected a text or a number"
                )
        video, separator, _ = str(key).rpartition(SEPARATOR)
        if not separator:
            raise UserError(f"{path}: id '{key}' of {name}; expected video{SEPARATOR}clip")
        if task.kind == "classification":
            if str(label) not in task.classes:
                raise UserError(f"{path}: annotation '{label}' of '{key}'{did_you_mean(str(label), task.classes)}")
            target = float(task.classes.index(str(label)))
        else:
            target = _number(label)
            if not task.low <= target <= task.high:
                raise UserError(
                    f"{path}: value {target:g} of '{key}' is outside [{task.low:g}, {task.high:g}]; name another range "
                    "with mmsa:low=…,high=…"
                )
        made.append(Utterance(str(key), _SPLITS[name], video, "", str(text), target))
    return made


def _number(value: Any) -> float:
    """NaN where it is none."""
    try:
        return float(np.asarray(value, float).reshape(()))
    except (TypeError, ValueError, OverflowError):
        return float("nan")


@dataclass(frozen=True)
class _Part:
    """Sequences (T_i, d) of a split; how many numbers were not finite, and how many sequences their lengths cut."""

    items: list[NDArray[np.float32]]
    unfinished: int
    beyond: int


def _sequences(name: str, split: Mapping[str, Any], modality: Modality, path: Path) -> _Part:
    lengths = _lengths(name, split, modality, path)
    items: list[NDArray[np.float32]] = []
    unfinished = beyond = 0
    for i, values in enumerate(split[modality]):
        try:
            with np.errstate(over="ignore"):
                item = np.array(values, np.float32)
        except (TypeError, ValueError, OverflowError):
            item = np.empty(0, np.float32)
        if item.ndim != 2:
            raise UserError(f"{path}: {modality} {i} of {name} is no sequence of numbers (steps, width)")
        finite = np.isfinite(item)
        unfinished += int((~finite).sum())
        item[~finite] = 0
        length = None if lengths is None else lengths[i]
        if length is None or item[length:].any():
            beyond += length is not None
            steps = np.flatnonzero(item.any(axis=1))
            item = item[steps[0] : steps[-1] + 1] if len(steps) else item[:0]
        else:
            item = item[:length]
        items.append(item)
    return _Part(items, unfinished, beyond)


def _lengths(name: str, split: Mapping[str, Any], modality: Modality, path: Path) -> Sequence[int] | None:
    key = f"{modality}_lengths" if f"{modality}_lengths" in split else "text_bert"
    if key not in split:
        return None
    try:
        found = np.asarray(split[key], float)
        found = found[:, 1].sum(axis=1) if key == "text_bert" else found.reshape(len(split["id"]))
        lengths = [int(length) for length in found]
    except (TypeError, ValueError, IndexError, OverflowError) as error:
        raise UserError(f"{path}: '{key}' of {name} tells no lengths: {error}") from None
    if any(length < 0 for length in lengths):
        raise UserError(f"{path}: '{key}' of {name} holds a negative length")
    return lengths


def _recognises(path: Path) -> bool:
    return path.suffix == ".pkl" and path.is_file()


LAYOUT = Layout("mmsa", _recognises, read)
