"""How much noise a text really took, and where: word and character error rate after jiwer's definitions.

The alignment is rapidfuzz's, as jiwer's is; without jiwer's transformations it is some ten times faster, which counts
where every text of a study is measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from rapidfuzz.distance import Levenshtein

Change = Literal["same", "changed", "added", "lost"]
"""What became of a word."""


@dataclass(frozen=True)
class Measured:
    """Noise of one text against its reference; rates are NaN where the reference has nothing to be wrong about."""

    wer: float
    """(substituted + deleted + inserted words) / words of the reference."""
    cer: float
    """The same over characters, but for white space around a text."""
    dropped: float
    """Deleted words / words of the reference."""
    words: int
    errors: int


UNKNOWN = Measured(math.nan, math.nan, math.nan, 0, 0)
"""Of a text whose noise is not in its words."""


@dataclass(frozen=True)
class WordErrors:
    """Counts of one alignment; their sum is the smallest number of edits."""

    substituted: int
    deleted: int
    inserted: int

    @property
    def total(self) -> int:
        return self.substituted + self.deleted + self.inserted


def word_errors(reference: list[str], words: list[str]) -> WordErrors:
    """Align two lists of words.

    >>> word_errors("we opened the letter".split(), "we open letter now".split())
    WordErrors(substituted=3, deleted=0, inserted=0)
    """
    kinds = [edit.tag for edit in Levenshtein.editops(reference, words)]
    return WordErrors(kinds.count("replace"), kinds.count("delete"), kinds.count("insert"))


def measure(reference: str, text: str) -> Measured:
    """Align ``text`` with ``reference`` (Levenshtein) and count.

    >>> measure("we opened the letter", "we opened letter")
    Measured(wer=0.25, cer=0.2, dropped=0.25, words=4, errors=1)
    """
    expected, found = reference.split(), text.split()
    words = len(expected)
    if not words:
        return Measured(math.nan, math.nan, math.nan, 0, len(found))
    if reference == text:
        return Measured(0.0, 0.0, 0.0, words, 0)
    errors = word_errors(expected, found)
    characters = reference.strip()
    cer = Levenshtein.distance(characters, text.strip()) / len(characters)
    return Measured(errors.total / words, cer, errors.deleted / words, words, errors.total)


def changes(reference: str, noisy: str) -> list[tuple[str, Change]]:
    """The words of both texts in one list, each with what became of it; a changed word stands in its new form.

    >>> changes("so we read the letter", "we read teh letter now")
    [('so', 'lost'), ('we', 'same'), ('read', 'same'), ('teh', 'changed'), ('letter', 'same'), ('now', 'added')]
    """
    old, new = reference.split(), noisy.split()
    found: list[tuple[str, Change]] = []
    for step in Levenshtein.opcodes(old, new):
        before, after = old[step.src_start : step.src_end], new[step.dest_start : step.dest_end]
        kind: Change = {"equal": "same", "replace": "changed", "insert": "added", "delete": "lost"}[step.tag]  # type: ignore[assignment]
        found += [(word, kind) for word in (before if kind == "lost" else after)]
    return found
