"""The words of a study: every text that is read in training and in testing, made once, for all models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dual_bench.corruptions.noise import corrupted, measured, mixed
from dual_bench.plan import Plan
from dual_bench.types import Condition, Corpus, IntArray


@dataclass(frozen=True)
class Words:
    """Every text of a study as row numbers of ``rows``: what is read in training, and in testing.

    ``training[regime]`` (V, N) and ``validation[regime]`` (V', N) for all N utterances of the corpus;
    ``test`` (conditions, N), -1 where an utterance never tests; ``table`` has what was measured on the test texts,
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
    clean = np.array([rows(u.text for u in utterances)], np.int64)
    training_rows, validation_rows = {"clean": clean}, {"clean": clean}
    if "mixed" in plan.regimes:
        count, chosen = plan.training.noisy_texts, plan.training.noisy_validation_texts
        pool = [rows(mixed(u, plan.corruptions, k, plan.root_seed) for u in utterances) for k in range(count + chosen)]
        training_rows["mixed"], validation_rows["mixed"] = np.array(pool[:count]), np.array(pool[count:])
    tested = np.unique(np.concatenate([fold.test for fold in corpus.folds]))
    references = [utterances[i].text for i in tested]
    noisy = [[corrupted(utterances[i], condition, plan.root_seed) for i in tested] for condition in conditions]
    test = np.full((len(conditions), len(utterances)), -1, np.int64)
    for i, texts in enumerate(noisy):
        test[i, tested] = rows(texts)
    flat = tuple(text for texts in noisy for text in texts)
    table = measured(references * len(conditions), flat)
    return Words(tuple(number), training_rows, validation_rows, test, tested, flat, table)
