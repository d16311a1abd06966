"""What every reader ends with: folds, checks and the fingerprint that make utterances and features a ``Corpus``."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dual_bench.features.cache import content_key, key_of
from dual_bench.seeding import generator
from dual_bench.types import SPLITS, CeilingFunction, Corpus, Fold, Modality, Signal, Split, Task, UserError, Utterance

VALIDATION_SHARE = 0.2
"""Share of the training clusters of a cross-validation fold that chooses instead of trains."""


def official(utterances: Sequence[Utterance]) -> tuple[Fold, ...]:
    """The one fold given by each utterance's own split; UserError where a split is empty."""
    rows = {split: np.array([i for i, u in enumerate(utterances) if u.split == split], np.int64) for split in SPLITS}
    for split, found in rows.items():
        if not len(found):
            raise UserError(f"the {split} split is empty; expected utterances with split '{split}'")
    return (Fold("official", rows["train"], rows["validation"], rows["test"]),)


def cross_validation(utterances: Sequence[Utterance], fold_of: Sequence[str], seed: int = 0) -> tuple[Fold, ...]:
    """One fold for each name in ``fold_of``: it tests, and a fifth of the other clusters chooses, the rest train.

    Which clusters choose is drawn by ``seed`` and the fold's name, from the training part alone. UserError where a
    cluster lies in two folds, or there are too few folds or clusters.
    """
    names = sorted(set(fold_of))
    home: dict[str, str] = {}
    for utterance, name in zip(utterances, fold_of, strict=True):
        if home.setdefault(utterance.cluster, name) != name:
            raise UserError(
                f"cluster '{utterance.cluster}' lies in folds '{home[utterance.cluster]}' and '{name}'; "
                "expected folds that share no cluster"
            )
    if len(names) < 2:
        raise UserError(f"cross-validation needs at least 2 folds, found {len(names)}")
    folds = []
    for name in names:
        others = sorted(cluster for cluster, where in home.items() if where != name)
        if len(others) < 2:
            raise UserError(f"fold '{name}' leaves {len(others)} cluster to train and choose on; expected at least 2")
        generator("validation", seed, name).shuffle(others)
        choosing = set(others[: max(1, round(VALIDATION_SHARE * len(others)))])
        parts: dict[Split, list[int]] = {"train": [], "validation": [], "test": []}
        for i, utterance in enumerate(utterances):
            if home[utterance.cluster] == name:
                parts["test"].append(i)
            else:
                parts["validation" if utterance.cluster in choosing else "train"].append(i)
        folds.append(Fold(name, *(np.array(parts[split], np.int64) for split in SPLITS)))
    return tuple(folds)


def folds_of(utterances: Sequence[Utterance], fold_of: Sequence[str] | None) -> tuple[Fold, ...]:
    """A cross-validation where ``fold_of`` names folds, else the official splits."""
    return official(utterances) if fold_of is None else cross_validation(utterances, fold_of)


def check_utterances(task: Task, utterances: Sequence[Utterance]) -> None:
    """UserError where an id stands twice, or a target is outside the task."""
    twice = [key for key, count in Counter(u.id for u in utterances).items() if count > 1]
    if twice:
        raise UserError(f"utterance id '{twice[0]}' stands twice; expected unique ids")
    for utterance in utterances:
        _check_target(task, utterance)


def assemble(
    name: str,
    task: Task,
    utterances: Sequence[Utterance],
    signals: Mapping[Modality, Signal],
    folds: tuple[Fold, ...],
    licence: str,
    notes: tuple[str, ...] = (),
    ceiling: CeilingFunction | None = None,
    sound: Signal | None = None,
) -> Corpus:
    """Check everything a reader can get wrong, and fingerprint the result. UserError names the utterance at fault."""
    check_utterances(task, utterances)
    ids = [u.id for u in utterances]
    notes = (*notes, *_shared(utterances, folds))
    words = json.dumps([name, asdict(task), [asdict(u) for u in utterances]], sort_keys=True)
    parts = [part for fold in folds for part in (fold.name, fold.train, fold.validation, fold.test)]
    signal_keys = [_key(modality, signal, ids) for modality, signal in sorted(signals.items())]
    if sound:
        signal_keys.append(key_of(("sound", sound.kind, repr(sound.rate), *(sound.keys or sound.items))))
    fingerprint = content_key(words, *parts, *signal_keys)
    return Corpus(name, task, tuple(utterances), dict(signals), folds, licence, fingerprint, notes, ceiling, sound)


def _shared(utterances: Sequence[Utterance], folds: tuple[Fold, ...]) -> list[str]:
    """Notes for the report, where a fold tests on clusters or speakers that it has trained or chosen on."""
    notes = []
    for what in ("cluster", "speaker"):
        names = [getattr(utterance, what) for utterance in utterances]
        both: set[str] = set()
        for fold in folds:
            seen = {names[i] for i in np.concatenate([fold.train, fold.validation])}
            both |= seen & {names[i] for i in fold.test} - {""}
        if both:
            example = f"{what.capitalize()}s of the test part ({len(both)}, such as '{min(both)}')"
            notes.append(f"{example} are in training or validation too: scores may be too high for new {what}s.")
    return notes


def _check_target(task: Task, utterance: Utterance) -> None:
    target = utterance.target
    if task.kind == "classification":
        if target not in range(len(task.classes)):
            raise UserError(f"utterance '{utterance.id}': class {target} is outside 0..{len(task.classes) - 1}")
    elif not task.low <= target <= task.high:
        raise UserError(f"utterance '{utterance.id}': value {target} is outside [{task.low:g}, {task.high:g}]")


def _key(modality: Modality, signal: Signal, ids: Sequence[str]) -> str:
    """The digest of a modality. Its items are read one after another, and once: all of them may be more than memory."""
    if len(signal.items) != len(ids):
        raise UserError(f"{modality}: expected {len(ids)} items, one for each utterance, found {len(signal.items)}")
    head = (modality, signal.kind, repr(signal.rate))
    items = iter(signal.items) if signal.kind == "frames" else _looked_at(modality, signal, ids)
    if signal.keys:
        deque(items, maxlen=0)
        return key_of((*head, *signal.keys))
    return key_of(chain(head, items))


def _looked_at(modality: Modality, signal: Signal, ids: Sequence[str]) -> Iterator[NDArray[np.generic]]:
    """The items; UserError at the first that is not sound."""
    widths: set[int] = set()
    for utterance, item in zip(ids, signal.items, strict=True):
        if not np.isfinite(item).all():
            raise UserError(f"{modality} of utterance '{utterance}' holds NaN or infinity; expected finite numbers")
        if signal.kind == "features":
            widths.add(item.shape[1])
        yield item
    if len(widths) > 1:
        raise UserError(f"{modality} features have different widths {sorted(widths)}; expected one")


def data_file(data: Path, name: str) -> Path:
    """``data / name``; UserError says where it was looked for."""
    path = data / name
    if not path.is_file():
        raise UserError(f"{path} is missing; name the folder that holds {name} with --data or DUAL_BENCH_DATA")
    return path
