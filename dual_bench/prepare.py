"""Before the first training: a plan with its corpus, checked, and everything encoded that a model may read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel

from dual_bench import schema, training
from dual_bench.catalog import did_you_mean
from dual_bench.features.cache import cached, content_key
from dual_bench.features.encoder import DEFAULTS, Encoder, Encoders, encode_in_batches, encoders_of
from dual_bench.features.text import sentence_distances
from dual_bench.inputs import Inputs, Scale, binned, feature_scale
from dual_bench.job import THREADS, Job
from dual_bench.models.spec import ModelSpec
from dual_bench.packing import settled
from dual_bench.plan import Cell, Plan, cells, check, depends_on_model, load_corpus, plan_digest, quantities
from dual_bench.preset import Preset, read_preset
from dual_bench.training import Examples
from dual_bench.types import (
    Condition,
    Corpus,
    IntArray,
    Modality,
    Ragged,
    Report,
    Signal,
    Task,
    UserError,
    Widths,
    telling,
)
from dual_bench.words import Words, encode, scale_of, words_of


def in_silence(stage: str, done: int, total: int, detail: str) -> None:
    """A report to nobody."""


@dataclass(frozen=True)
class Asked:
    """A plan with its corpus, and all that is asked for: nothing is encoded yet."""

    plan: Plan
    study: schema.StudyInfo | None
    corpus: Corpus
    device: str
    using: Encoders
    encoders: dict[str, str]
    """The names of those that are used."""
    preset: Preset | None
    wanted: tuple[Cell, ...]
    digest: str
    scale: tuple[schema.SeverityPoint, ...]
    conditions: tuple[Condition, ...]
    packing: str
    """What was measured to choose how many seeds are trained stacked."""


@dataclass(frozen=True)
class Encoded(Asked):
    """The same with everything encoded; ``encoded`` items were encoded only now.

    The first of ``conditions`` have their texts in ``words``; those of the rest depend on the model. ``measured`` has
    a row for each condition and tested utterance of ``words``.
    """

    words: Words
    measured: pd.DataFrame
    inputs: Mapping[int, Inputs]
    """By the bins that voice and face are averaged onto; 0 where they are as they came."""
    scales: tuple[Mapping[Modality, Scale], ...]
    """Of each fold."""
    encoded: int

    @property
    def shared(self) -> tuple[Condition, ...]:
        """The conditions under which every model reads the same words."""
        return self.conditions[: len(self.words.test)]


def ask(
    plan: Plan,
    study: schema.StudyInfo | None,
    data: Path,
    cache: Path,
    device: str,
    report: Report = in_silence,
    corpus: Corpus | None = None,
) -> Asked:
    """Load the corpus, unless it is given, and check; UserError where plan, study, corpus and presets do not go
    together."""
    report("corpus", 0, 0, plan.dataset)
    corpus = load_corpus(plan.dataset, data) if corpus is None else corpus
    plan = check(plan, corpus)
    preset = read_preset(plan.presets, corpus) if plan.presets else None
    raw = [m for m, signal in corpus.signals.items() if signal.kind != "features"]
    using = encoders_of(plan.encoders, device)
    if plan.encoders:  # their names need their weights, which may have to be downloaded first
        report("weights", 0, 0, ", ".join(plan.encoders.values()))
    names = {str(m): getattr(using, m).name for m in raw} | {"text": using.text.name}
    names |= {str(m): signal.encoder for m, signal in corpus.signals.items() if signal.encoder}
    scale = scale_of(plan, corpus, cache, lambda name: report("scale", 0, 0, f"severities of {name}"))
    conditions = plan.conditions(corpus, scale)
    packing = ""
    if plan.training.pack == "auto":
        widths = widths_of(corpus, using)
        about = (len(corpus.folds), widths, corpus.task, device, cache, lambda what: report("packs", 0, 0, what))
        plan, packing = settled(plan, *about)
    wanted = cells(plan, corpus, conditions, names, device, preset)
    for name in study.primary if study else ():
        if name not in (known := quantities(plan, conditions)):
            raise UserError(f"nothing is measured that is called '{name}'{did_you_mean(name, known)}")
    digest = plan_digest(plan, wanted, study, preset)
    return Asked(plan, study, corpus, device, using, names, preset, wanted, digest, scale, conditions, packing)


def widths_of(corpus: Corpus, using: Encoders) -> Widths:
    """Features a step, before any is made."""

    def width(modality: Modality) -> int:
        signal = corpus.signals.get(modality)
        if signal is None or signal.kind != "features":
            return 1 if signal is None else int(getattr(using, modality).width)
        return signal.items.width if isinstance(signal.items, Ragged) else int(signal.items[0].shape[1])

    return Widths(width("audio"), width("vision"), using.text.width)


def identity(asked: Asked, cell: Cell) -> dict[str, Any]:
    """What tells a cell from others of the plan, as its records and rows have it."""
    return {
        "model": cell.variant.model,
        "variant": cell.variant.changed,
        "regime": cell.regimen.regime,
        "seed": cell.seed,
        "fold": asked.corpus.folds[cell.fold].name,
        "corruption": cell.regimen.corruption,
        "rate": cell.regimen.rate,
    }


def encode_all(asked: Asked, cache: Path, report: Report = in_silence) -> Encoded:
    """Make every text and encode everything; nothing is written but the feature cache. UserError where a model cannot
    be built for it.

    What was damaged there, and is made again, is reported (``types.DAMAGED``).
    """
    plan, corpus, using = asked.plan, asked.corpus, asked.using
    audio = _encoded(corpus, "audio", using.audio, cache, report)
    vision = _encoded(corpus, "vision", using.vision, cache, report)
    shared = [condition for condition in asked.conditions if not depends_on_model(condition)]
    regimens = dict.fromkeys(cell.reads for cell in asked.wanted)
    words = words_of(plan, corpus, shared, regimens, lambda done, total: report("noise", done, total, "noisy texts"))
    detail = f"{len(words.readings)} distinct texts to {using.text.name.partition('/')[0]}"
    told = telling(report)
    text, texts = encode(words, using.text, cache, lambda done, total: report("words", done, total, detail), told)
    clean = np.tile(words.test[0, words.tested], len(shared))
    cosine = sentence_distances(text, clean, words.test[:, words.tested].ravel())
    whole = Inputs(audio[0], vision[0], text)
    distinct = {(cell.variant.model, id(cell.settings)): cell for cell in asked.wanted}  # most cells share theirs
    built = {(cell.variant.model, repr(cell.settings)): cell for cell in distinct.values()}
    read: dict[int, frozenset[Modality]] = {0: frozenset()}
    for cell in built.values():  # settings that cannot be built are found before anything is written
        count = _bins(cell.variant.spec, cell.settings, whole.widths, corpus.task)
        read[count] = read.get(count, frozenset()) | cell.variant.reads
    with training.exact_repeats("cpu", THREADS):
        inputs = {count: _averaged(asked, whole, count, read[count], cache, report) for count in sorted(read)}
    return Encoded(
        **vars(asked),
        words=words,
        measured=words.table.assign(cosine=cosine),
        inputs=inputs,
        scales=tuple(_scales(whole, fold.train, frozenset().union(*read.values())) for fold in corpus.folds),
        encoded=audio[1] + vision[1] + texts,
    )


@cache
def _bins(spec: ModelSpec, settings: BaseModel, widths: Widths, task: Task) -> int:
    """How many bins a model averages voice and face onto; 0 where it does not say so."""
    return int(getattr(training.build(spec, settings, widths, task, "bins"), "time_bins", 0))


def _averaged(asked: Asked, whole: Inputs, bins: int, read: frozenset[Modality], cache: Path, report: Report) -> Inputs:
    """Voice and face on ``bins`` (``inputs.binned``), where they are read so."""
    if not bins:
        return whole

    def progress(done: int, total: int) -> None:
        report("bins", done, total, f"voice and face onto {bins} bins")

    def onto(modality: Modality) -> Ragged:
        ragged: Ragged = getattr(whole, modality)
        if modality not in read:
            return ragged
        return binned(ragged, bins, sequences_of(asked, modality), cache, progress, telling(report))

    return replace(whole, audio=onto("audio"), vision=onto("vision"))


def sequences_of(asked: Asked, modality: Modality) -> str:
    """Names the voices or faces of the corpus as they were encoded."""
    return f"{modality} {asked.corpus.fingerprint} {asked.encoders.get(modality, '')}"


def _scales(whole: Inputs, train: IntArray, read: frozenset[Modality]) -> dict[Modality, Scale]:
    return {modality: feature_scale(getattr(whole, modality), train) for modality in sorted(read - {"text"})}


def _encoded(corpus: Corpus, modality: Modality, encoder: Encoder, cache: Path, report: Report) -> tuple[Ragged, int]:
    """Features of one modality of every utterance, and how many were encoded now; without steps where absent."""
    signal = corpus.signals.get(modality)
    if signal is None:
        zeros = np.zeros(len(corpus), np.int64)
        return Ragged(np.empty((0, 1), np.float32), zeros, zeros), 0
    if signal.kind == "features":
        if isinstance(signal.items, Ragged):
            return signal.items, 0
        return Ragged.pack([np.asarray(item, np.float32) for item in signal.items]), 0
    folder, keys = stored_at(signal, modality, encoder, cache)

    def read(positions: list[int]) -> Iterator[tuple[int, NDArray[np.generic]]]:
        for count, position in enumerate(positions):
            if count % 50 == 0:
                report(modality, count, len(positions), encoder.name)
            yield position, signal.items[position]

    def encode(positions: list[int]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        return encode_in_batches(encoder, read(positions), signal.rate)

    return cached(folder, encoder.width, keys, encode, telling(report))


def stored_at(signal: Signal, modality: Modality, encoder: Encoder, cache: Path) -> tuple[Path, list[str]]:
    """The folder of the features of a signal, and under which key each item's are stored there."""
    keys = [content_key(encoder.name, repr(signal.rate), item) for item in signal.items]
    return cache / modality / content_key(encoder.name)[:16], keys


def training_job(ready: Encoded, cell: Cell, streams: Sequence[tuple[str | int, ...]]) -> Job:
    """What the cell sees in training, once for each stream, and nothing of the test part."""
    corpus, words, fold, whole = ready.corpus, ready.words, ready.corpus.folds[cell.fold], ready.inputs[0]
    bins = _bins(cell.variant.spec, cell.settings, whole.widths, corpus.task)
    return Job(
        cell.variant.spec,
        cell.settings,
        tuple(streams),
        corpus.task,
        ready.plan.training,
        replace(ready.inputs.get(bins, whole), scales=ready.scales[cell.fold]),
        _examples(corpus, fold.train, words.training[cell.reads][cell.fold]),
        _examples(corpus, fold.validation, words.validation[cell.reads][cell.fold]),
        ready.plan.training.modality_dropout if cell.reads.regime == "modality-dropout" else 0.0,
        ready.device,
        encoder=ready.plan.encoders.get("text", DEFAULTS["text"]),
    )


def _examples(corpus: Corpus, rows: IntArray, texts: IntArray) -> Examples:
    return Examples(rows, texts[:, rows], np.array([corpus.utterances[i].target for i in rows], np.float64))
