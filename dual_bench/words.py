"""The words of a study: everything that is read in training and in testing, made once, for all models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from dual_bench.catalog import CORRUPTIONS
from dual_bench.corruptions.noise import Reading, Sound, Spoken, corrupted, load, matched, measured, mixed
from dual_bench.corruptions.severity import find
from dual_bench.features.cache import content_key
from dual_bench.features.encoder import TextEncoder
from dual_bench.features.rows import Told, unheard
from dual_bench.features.text import Alter, alter_tokens, encode_texts
from dual_bench.plan import FORMAT_VERSION, Plan, Regimen, installed, largest_rates
from dual_bench.schema import SeverityPoint
from dual_bench.store import write_text
from dual_bench.types import Condition, Corpus, Fold, IntArray, Ragged, Signal, TrainingText

PerFold = tuple[IntArray, ...]
"""For each fold (V, N): row numbers of V readings of each utterance of the corpus, -1 where it is never read so."""


@dataclass(frozen=True)
class Words:
    """Every reading of a study, and who reads which, as row numbers of ``readings``.

    The first ``sealed`` readings are those of training and validation, clean and noisy; the rest is read in tests
    alone. ``test`` (conditions, N) is -1 where an utterance is not tested. ``table`` has what was measured on the test
    texts, condition after condition, for the utterances ``tested`` (M,).
    """

    readings: tuple[Reading, ...]
    sealed: int
    training: Mapping[Regimen, PerFold]
    validation: Mapping[Regimen, PerFold]
    test: IntArray
    tested: IntArray
    table: pd.DataFrame

    @property
    def test_texts(self) -> list[str]:
        """The text of each row of ``table``."""
        return [self.readings[i].text for i in self.test[:, self.tested].ravel()]


def training_text(corpus: Corpus, fold: Fold) -> TrainingText:
    """The words of the training part of a fold, and their labels."""
    chosen = [corpus.utterances[i] for i in fold.train]
    return TrainingText(corpus.task, tuple(u.text for u in chosen), np.array([u.target for u in chosen], np.float64))


def _spoken(corpus: Corpus, training: TrainingText) -> Callable[[int], Spoken]:
    """Utterance by number, with what its corruptions may need."""
    sound = corpus.heard

    def of(i: int) -> Spoken:
        if sound is None:
            return Spoken(corpus.utterances[i], training)
        return Spoken(corpus.utterances[i], training, partial(_sound, sound, i))

    return of


def _sound(signal: Signal, i: int) -> Sound:
    return np.asarray(signal.items[i], np.float32), signal.rate


_Points = TypeAdapter(list[SeverityPoint])


def scale_of(plan: Plan, corpus: Corpus, cache: Path, progress: Callable[[str], None]) -> tuple[SeverityPoint, ...]:
    """What the severities of the plan mean on this corpus, found on its training text; none where it names rates.

    There is one scale for all folds of a cross-validation: it is found on the text of every utterance that trains in
    some fold, as a rule the whole corpus, with the words of the first fold's training part where words come from
    elsewhere. It knows labels where the corruption does. Its noise is never tested. What is found is kept in ``cache``.
    """
    if not plan.severities:
        return ()
    trained = np.unique(np.concatenate([fold.train for fold in corpus.folds]))
    spoken = [_spoken(corpus, training_text(corpus, corpus.folds[0]))(i) for i in trained]
    points: list[SeverityPoint] = []
    for name in plan.corruptions:
        progress(name)
        corruption = load(name)
        source = filter(None, [CORRUPTIONS.source(name)])
        facts = (name, corruption.version, sorted(installed(corruption.packages).items()), FORMAT_VERSION, *source)
        key = content_key(corpus.fingerprint, repr((*facts, plan.severities, plan.root_seed)))
        kept = cache / "scale" / f"{key}.json"
        try:
            points += _Points.validate_json(kept.read_bytes())
        except (OSError, ValueError):  # not found yet, or damaged
            found = find(name, spoken, plan.severities, plan.root_seed)
            now = [SeverityPoint(corruption=name, reached=f.reached, **vars(f)) for f in found]
            write_text(kept, _Points.dump_json(now).decode())
            points += now
    return tuple(points)


def words_of(
    plan: Plan,
    corpus: Corpus,
    conditions: Sequence[Condition],
    regimens: Iterable[Regimen],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Words:
    """Make every text of the plan under ``conditions``, none of which depends on a model.

    ``progress`` is told how many conditions are made of how many.
    """
    progress(0, len(conditions))
    number: dict[Reading, int] = {}

    def rows(readings: Iterable[Reading]) -> list[int]:
        return [number.setdefault(reading, len(number)) for reading in readings]

    folds = [(fold, _spoken(corpus, training_text(corpus, fold))) for fold in corpus.folds]
    clean = np.full((1, len(corpus)), -1, np.int64)

    def read_clean(which: IntArray) -> None:
        clean[0, which] = rows(Reading(corpus.utterances[i].text) for i in which)

    learnt = np.unique(np.concatenate([part for fold in corpus.folds for part in (fold.train, fold.validation)]))
    read_clean(learnt)
    training: dict[Regimen, PerFold] = {}
    validation: dict[Regimen, PerFold] = {}
    count, more = plan.training.noisy_texts, plan.training.noisy_validation_texts
    for regimen in regimens:
        make = _maker(regimen, largest_rates(conditions), plan.root_seed)
        if make is None:
            training[regimen] = validation[regimen] = (clean,) * len(folds)
            continue

        def table(read: IntArray, spoken: Callable[[int], Spoken], versions: range, make: Maker = make) -> IntArray:
            found = np.full((len(versions), len(corpus)), -1, np.int64)
            for place, version in enumerate(versions):
                found[place, read] = rows(make(spoken(i), version) for i in read)
            return found

        later = range(count, count + more)
        training[regimen] = tuple(table(fold.train, spoken, range(count)) for fold, spoken in folds)
        validation[regimen] = tuple(table(fold.validation, spoken, later) for fold, spoken in folds)
    sealed = len(number)
    read_clean(np.setdiff1d(np.arange(len(corpus)), learnt))

    tested = np.unique(np.concatenate([fold.test for fold in corpus.folds]))
    home = {int(i): spoken for fold, spoken in folds for i in fold.test}
    test = np.full((len(conditions), len(corpus)), -1, np.int64)
    readings: list[Reading] = []
    for place, condition in enumerate(conditions):
        progress(place, len(conditions))
        readings += [corrupted(home[int(i)](int(i)), condition, plan.root_seed) for i in tested]
        test[place, tested] = rows(readings[-len(tested) :])
    references = [corpus.utterances[i].text for i in tested] * len(conditions)
    return Words(tuple(number), sealed, training, validation, test, tested, measured(references, readings))


Maker = Callable[[Spoken, int], Reading]
"""(utterance, which of its noisy readings) -> the reading."""


def _maker(regimen: Regimen, largest: Mapping[str, float], root_seed: int) -> Maker | None:
    """How a regimen makes the readings it trains on; None where they are the clean ones."""
    if regimen.regime == "mixed":
        return lambda spoken, version: mixed(spoken, largest, version, root_seed)
    if regimen.regime == "matched":
        condition = Condition(regimen.corruption, regimen.rate)
        return lambda spoken, version: matched(spoken, condition, version, root_seed)
    return None


def encode(
    words: Words,
    encoder: TextEncoder,
    cache: Path,
    progress: Callable[[int, int], None],
    told: Told = unheard,
) -> tuple[Ragged, int]:
    """Token embeddings of every reading, and how many were encoded now; ``told`` hears what was found damaged. No bit
    of what training reads depends on what is read in tests alone."""
    clean, encoded = encode_texts([r.text for r in words.readings], encoder, cache, progress, words.sealed, told)
    if all(reading.noise is None for reading in words.readings):
        return clean, encoded
    unknown = np.asarray(encode_texts([encoder.unknown], encoder, cache, told=told)[0][0])[-1]
    changes: list[tuple[str, Alter] | None] = [
        None if r.noise is None else (repr(r.noise), partial(r.noise, unknown=unknown)) for r in words.readings
    ]
    altered, made = alter_tokens(clean, changes, told)
    return altered, encoded + made
