"""How much noise a text really took: word and character error rate after jiwer's definitions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jiwer


@dataclass(frozen=True)
class Measured:
    """Noise of one text against its reference; rates are NaN where the reference has nothing to be wrong about."""

    wer: float
    """(substituted + deleted + inserted words) / words of the reference."""
    cer: float
    """The same over characters."""
    dropped: float
    """Deleted words / words of the reference."""
    words: int
    errors: int


def measure(reference: str, text: str) -> Measured:
    """Align ``text`` with ``reference`` (Levenshtein) and count.

    >>> measure("we opened the letter", "we opened letter")
    Measured(wer=0.25, cer=0.2, dropped=0.25, words=4, errors=1)
    """
    words = len(reference.split())
    if not words:
        return Measured(math.nan, math.nan, math.nan, 0, len(text.split()))
    if reference == text:
        return Measured(0.0, 0.0, 0.0, words, 0)
    aligned = jiwer.process_words(" ".join(reference.split()), " ".join(text.split()))
    errors = aligned.substitutions + aligned.deletions + aligned.insertions
    cer = jiwer.process_characters(reference, text).cer
    return Measured(errors / words, float(cer), aligned.deletions / words, words, errors)
