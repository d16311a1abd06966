"""What every system answered to every utterance, by number: the arrays from which the sentences are picked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dual_bench.report.evidence import MATCHED, Evidence
from dual_bench.report.noise import Place
from dual_bench.types import IntArray

Numbers = NDArray[np.int32]

SIGNS = ("negative", "neutral or positive")
"""What a value answers: whether it is below 0, as ``metrics.ACC2_HAS0`` has it."""

ABSENT = -1
"""Where a system gave no answer."""


@dataclass(frozen=True)
class Panel:
    """Every answer by number: ``answers[regime]`` is (systems, conditions, utterances, seeds)."""

    places: tuple[Place, ...]
    systems: tuple[str, ...]
    utterances: tuple[str, ...]
    clusters: tuple[str, ...]
    truth: IntArray
    """The class of each utterance."""
    classes: tuple[str, ...]
    answers: Mapping[str, Numbers]
    own: frozenset[int]
    """Conditions in which each model reads words of its own; of them the first seed alone is looked at."""

    def pair(self, condition: int, regime: str) -> tuple[Numbers, Numbers]:
        """What was answered to clean text and under a condition, each (systems, utterances, seeds)."""
        answers = self.answers[regime][..., :1] if condition in self.own else self.answers[regime]
        return answers[:, 0], answers[:, condition]


def panel(evidence: Evidence) -> Panel | None:
    """None where there is no noise, no answer that can flip, or but models that were trained on just one condition."""
    rows, asked = evidence.answers, places(evidence)
    regimes = [regime for regime in evidence.regimes if regime != MATCHED]
    if rows.empty or len(asked) == 1 or not regimes:
        return None
    utterances = tuple(sorted(map(str, rows["utterance"].unique())))
    unit = codes(rows["utterance"], utterances)
    truth = np.empty(len(utterances))
    truth[unit] = rows["truth"].to_numpy(float)
    answer, classes = rows["answer"].to_numpy(), evidence.run.info.corpus.classes
    if not classes:
        if (truth < 0).all() or (truth >= 0).all():
            return None
        truth, answer, classes = np.where(truth < 0, 0.0, 1.0), answer >= 0, SIGNS
    systems, seeds = evidence.systems, evidence.cube.seeds
    at = (codes(rows["system"], systems), conditions(rows, asked), unit, codes(rows["seed"], seeds))
    regime = np.where(np.logical_and.reduce([each >= 0 for each in at]), codes(rows["regime"], regimes), -1)
    answers = {}
    for number, name in enumerate(regimes):
        here = np.flatnonzero(regime == number)
        answers[name] = np.full((len(systems), len(asked), len(utterances), len(seeds)), ABSENT, np.int32)
        answers[name][tuple(each[here] for each in at)] = answer[here]
    clusters = np.full(len(utterances), "", object)
    clusters[codes(evidence.few["utterance"], utterances)] = evidence.few["cluster"].astype(str)
    own = _own(rows, at[1], unit, len(asked))
    return Panel(asked, systems, utterances, tuple(clusters), truth.astype(np.int64), classes, answers, own)


def places(evidence: Evidence) -> tuple[Place, ...]:
    """Clean text and the conditions that were asked, in the order of the plan, real transcripts last."""
    rows = evidence.answers
    asked = set(rows[["corruption", "rate"]].drop_duplicates().itertuples(index=False, name=None))
    noisy = [
        evidence.noise.place(corruption, rate)
        for corruption in evidence.corruptions
        for rate in evidence.cube.rates(corruption)
    ]
    heard = [place for place in evidence.places if place.corruption in evidence.transcripts]
    return (evidence.places[0], *(p for p in (*noisy, *heard) if (p.corruption, p.rate) in asked))


def codes(column: pd.Series[Any], values: Sequence[Any]) -> Numbers:
    """The place in ``values`` of each value of a column, -1 where it is none of them."""
    index = pd.Index(values)
    if isinstance(column.dtype, pd.CategoricalDtype):
        return np.asarray(index.get_indexer(column.cat.categories)[column.cat.codes], np.int32)
    return np.asarray(index.get_indexer(pd.Index(column)), np.int32)


def conditions(rows: pd.DataFrame, places: Sequence[Place]) -> Numbers:
    """The place in ``places`` of the condition of each row, -1 where it is none of them."""
    names = sorted({place.corruption for place in places})
    rates = sorted({place.rate for place in places})
    number = np.full((len(names) + 1, len(rates) + 1), -1, np.int32)  # what is unknown comes to the last, and stays -1
    for i, place in enumerate(places):
        number[names.index(place.corruption), rates.index(place.rate)] = i
    return number[codes(rows["corruption"], names), codes(rows["rate"], rates)]


def _own(rows: pd.DataFrame, condition: Numbers, unit: Numbers, conditions: int) -> frozenset[int]:
    """The conditions in which an utterance has several texts; all, where clean text is among them."""
    told = np.flatnonzero(rows["text"].notna() & (condition >= 0))
    text = pd.factorize(rows["text"].iloc[told])[0]
    seen = pd.DataFrame({"condition": condition[told], "utterance": unit[told], "text": text}).drop_duplicates()
    own = frozenset(map(int, seen.loc[seen.duplicated(["condition", "utterance"]), "condition"]))
    return frozenset(range(conditions)) if 0 in own else own


def said(answers: Numbers) -> Numbers:
    """The answer that most seeds (last axis) give, of equals the smallest; ``ABSENT`` where none gives one.

    >>> said(np.array([[2, 1, 1], [2, 0, 1], [3, 3, ABSENT]])).tolist()
    [1, 0, 3]
    """
    votes = np.stack([(answers == one[..., None]).sum(axis=-1) for one in np.moveaxis(answers, -1, 0)], axis=-1)
    votes[answers == ABSENT] = 0
    leads = (votes == votes.max(axis=-1, keepdims=True)) & (votes > 0)
    none = np.iinfo(answers.dtype).max
    least = np.where(leads, answers, none).min(axis=-1)
    found: Numbers = np.where(least == none, ABSENT, least)
    return found
