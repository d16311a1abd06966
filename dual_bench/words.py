"""The words of a study: every text that is read in training and in testing, made once, for all models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dual_bench.corruptions.noise import corrupted, measured, mixed
from dual_bench.plan import Plan
from dual_bench.types import SPLITS, Condition, Corpus, IntArray


@dataclass(frozen=True)
class Words:
    """Every text of a study as row numbers of ``texts``: what is read in training, and in testing.

    ``training[regime]`` (V, N) and ``validation[regime]`` (V', N) for all N utterances of the corpus, and ``test``
    (conditions, N), each -1 where an utterance is never read so; ``table`` has what was measured on the test texts,
    condition after condition, for the utterances ``tested`` (M,).
    """

    texts: tuple[str, ...]
    training: dict[str, IntArray]
    validation: dict[str, IntArray]
    test: IntArray
    tested: IntArray
    test_texts: tuple[str, ...]
    table: pd.DataFrame


def words_of(plan: Plan, corpus: Corpus, conditions: Sequence[Condition]) -> Words:
    """Make every noisy text of the plan; models have no part in it."""
    number: dict[str, int] = {}

    def rows(texts: Iterable[str]) -> list[int]:
        return [number.setdefault(text, len(number)) for text in texts]

    utterances = corpus.utterances
    trained, chosen_on, tested = (
        np.unique(np.concatenate([getattr(fold, part) for fold in corpus.folds])) for part in SPLITS
    )

    def noisy_texts(read: IntArray, versions: range) -> IntArray:
        found = np.full((len(versions), len(utterances)), -1, np.int64)
        for place, version in enumerate(versions):
            found[place, read] = rows(mixed(utterances[i], plan.corruptions, version, plan.root_seed) for i in read)
        return found

    clean = np.array([rows(u.text for u in utterances)], np.int64)
    training_rows, validation_rows = {"clean": clean}, {"clean": clean}
    if "mixed" in plan.regimes:
        count = plan.training.noisy_texts
        training_rows["mixed"] = noisy_texts(trained, range(count))
        validation_rows["mixed"] = noisy_texts(chosen_on, range(count, count + plan.training.noisy_validation_texts))
    references = [utterances[i].text for i in tested]
    noisy = [[corrupted(utterances[i], condition, plan.root_seed) for i in tested] for condition in conditions]
    test = np.full((len(conditions), len(utterances)), -1, np.int64)
    for i, texts in enumerate(noisy):
        test[i, tested] = rows(texts)
    flat = tuple(text for texts in noisy for text in texts)
    table = measured(references * len(conditions), flat)
    return Words(tuple(number), training_rows, validation_rows, test, tested, flat, table)
