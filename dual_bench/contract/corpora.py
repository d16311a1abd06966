"""What every corpus promises. ``PROMISES`` names each check; its function says what is wrong, or nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dual_bench.contract.checks import Check, SkippedError
from dual_bench.types import SPLITS, Corpus, Fold, Utterance


@dataclass(frozen=True)
class Subject:
    """A corpus under examination: how to read it."""

    load: Callable[[], Corpus]

    @cached_property
    def outcome(self) -> object:
        """What reading it gave, or what it raised."""
        try:
            return self.load()
        except Exception as error:  # of a user's own, anything may come
            return error

    @property
    def corpus(self) -> Corpus:
        if not isinstance(self.outcome, Corpus):
            raise SkippedError("it cannot be read")
        return self.outcome

    def parts(self) -> Iterator[tuple[Fold, dict[str, list[Utterance]]]]:
        """The utterances of each fold that train, choose and test."""
        for fold in self.corpus.folds:
            yield fold, {split: [self.corpus.utterances[i] for i in getattr(fold, split)] for split in SPLITS}


def readable(subject: Subject) -> str | None:
    if isinstance(subject.outcome, Exception):
        raise subject.outcome
    if not isinstance(subject.outcome, Corpus):
        what = type(subject.outcome).__name__
        return f"expected load(data) to give a dual_bench.types.Corpus, found {what}; use datasets.assemble.assemble"
    return None if len(subject.corpus) else "it has no utterance"


def unique(subject: Subject) -> str | None:
    name, times = Counter(u.id for u in subject.corpus.utterances).most_common(1)[0]
    if times > 1:
        return f"utterance id '{name}' stands {times} times; give each its own, as noise and results go by it"
    return None


def divided(subject: Subject) -> str | None:
    if not subject.corpus.folds:
        return "it has no fold; use datasets.assemble.official or cross_validation"
    for fold in subject.corpus.folds:
        rows = [getattr(fold, split) for split in SPLITS]
        for split, part in zip(SPLITS, rows, strict=True):
            if not len(part):
                return f"fold '{fold.name}' has no utterance in {split}; move some there"
        every = np.concatenate(rows)
        if every.min() < 0 or every.max() >= len(subject.corpus):
            return f"fold '{fold.name}' names row {every.max()}, of {len(subject.corpus)} utterances"
        values, counts = np.unique(every, return_counts=True)
        if counts.max() > 1:
            twice = subject.corpus.utterances[int(values[counts.argmax()])].id
            return (
                f"utterance '{twice}' stands twice in fold '{fold.name}'; it may train, choose or test, not two of them"
            )
    return None


def clusters(subject: Subject) -> str | None:
    for fold, parts in subject.parts():
        seen = {split: {u.cluster for u in parts[split]} for split in SPLITS}
        both = (seen["train"] | seen["validation"]) & seen["test"] or seen["train"] & seen["validation"]
        if both:
            where = [split for split in SPLITS if min(both) in seen[split]]
            return (
                f"cluster '{min(both)}' is in {' and '.join(where)} of fold '{fold.name}' ({len(both)} such): test "
                "utterances resemble what was learnt, and scores are too high; keep a cluster in one part"
            )
    return None


def targets(subject: Subject) -> str | None:
    task = subject.corpus.task
    for u in subject.corpus.utterances:
        if task.kind == "classification" and u.target not in range(task.outputs):
            return (
                f"utterance '{u.id}' is of class {u.target:g}, outside 0..{task.outputs - 1}; number the classes from 0"
            )
        if task.kind == "regression" and not task.low <= u.target <= task.high:
            return (
                f"utterance '{u.id}' has the value {u.target:g}, outside [{task.low:g}, {task.high:g}]; widen the range"
            )
    return None


def several(subject: Subject) -> str | None:
    for fold, parts in subject.parts():
        found = {u.target for u in parts["train"]}
        if len(found) < 2:
            what = "class" if subject.corpus.task.kind == "classification" else "value"
            return (
                f"all that train in fold '{fold.name}' have one {what}: there is nothing to learn; divide it otherwise"
            )
    return None


def signals(subject: Subject) -> str | None:
    dimensions = {"waveform": 1, "frames": 3, "features": 2}
    for modality, signal in subject.corpus.signals.items():
        if len(signal.items) != len(subject.corpus):
            return f"{modality} has {len(signal.items)} items for {len(subject.corpus)} utterances; give each its own"
        widths = set()
        for u, item in zip(subject.corpus.utterances, signal.items, strict=True):
            if item.ndim != dimensions[signal.kind]:
                return (
                    f"{modality} of utterance '{u.id}': expected {signal.kind} with {dimensions[signal.kind]} "
                    f"dimensions, found shape {item.shape}"
                )
            if signal.kind != "frames" and not np.isfinite(item).all():
                return f"{modality} of utterance '{u.id}' holds NaN or infinity; leave such steps out"
            widths |= set(item.shape[1:]) if signal.kind == "features" else set()
        if len(widths) > 1:
            return f"{modality} features have the widths {sorted(widths)}; expected one"
        if not any(len(item) for item in signal.items):
            return f"no utterance has {modality}; leave that signal out"
    return None


def stable(subject: Subject) -> str | None:
    if not subject.corpus.fingerprint:
        return "its fingerprint is empty; let datasets.assemble.assemble make it"
    if subject.load().fingerprint != subject.corpus.fingerprint:
        return "read a second time it has another fingerprint, so no run could be resumed; draw with a seed, sort files"
    return None


PROMISES: Mapping[str, Check[Subject]] = {
    "can be read": readable,
    "has an id of its own for each utterance": unique,
    "divides its utterances into train, validation and test": divided,
    "has each cluster in one part of a fold": clusters,
    "has targets within its task": targets,
    "has two classes or values to learn from": several,
    "has a finite signal for each utterance": signals,
    "is the same when read again": stable,
}
