"""The noisy words of a study: seeded by (root seed, corruption, draw, utterance id), never by model and never by rate.

So all models read the same words, and within one draw heavier noise contains lighter noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from dual_bench.catalog import CORRUPTIONS
from dual_bench.corruptions.measure import measure
from dual_bench.seeding import generator
from dual_bench.types import CLEAN, TRANSCRIPT_PREFIX, Condition, Corruption, Utterance


def corrupted(utterance: Utterance, condition: Condition, root_seed: int) -> str:
    """The text of ``utterance`` under ``condition``."""
    if condition == CLEAN:
        return utterance.text
    if condition.corruption.startswith(TRANSCRIPT_PREFIX):
        return utterance.transcripts[condition.corruption.removeprefix(TRANSCRIPT_PREFIX)]
    corruption: Corruption = CORRUPTIONS.load(condition.corruption)
    rng = generator("noise", root_seed, corruption.name, corruption.version, condition.draw, utterance.id)
    return corruption.apply(utterance.text, condition.rate, rng)


def mixed(utterance: Utterance, corruptions: Sequence[str], number: int, root_seed: int) -> str:
    """One of the texts that the regime ``mixed`` trains on: a corruption drawn evenly, at a rate even in [0, 1).

    ``number`` tells the texts of one utterance apart. The stream is never that of a test condition.
    """
    rng = generator("mixed", root_seed, *corruptions, number, utterance.id)
    corruption: Corruption = CORRUPTIONS.load(corruptions[int(rng.integers(len(corruptions)))])
    return corruption.apply(utterance.text, float(rng.random()), rng)


def measured(references: Sequence[str], texts: Sequence[str]) -> pd.DataFrame:
    """A row of ``measure.Measured`` for each text; equal pairs are aligned once."""
    pairs = list(zip(references, texts, strict=True))
    known = {pair: measure(*pair) for pair in set(pairs)}
    return pd.DataFrame([vars(known[pair]) for pair in pairs])
