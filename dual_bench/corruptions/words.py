"""Noise on words: a word is a run of characters without white space."""

from __future__ import annotations

import re

import numpy as np

from dual_bench.types import Corruption

_WORD = re.compile(r"\s*\S+")


def drop_words(text: str, rate: float, rng: np.random.Generator) -> str:
    """Lose each word with probability ``rate``, independently.

    Every word draws one number whatever the rate, so that the words lost at a lower rate are lost at a higher one.
    The white space before a word goes with it, and none is left in front.

    >>> drop_words("we opened the letter after lunch", 0.5, np.random.default_rng(3))
    'the letter'
    """
    words = _WORD.findall(text)
    kept = [word for word, number in zip(words, rng.random(len(words)), strict=True) if number >= rate]
    return text if len(kept) == len(words) else "".join(kept).lstrip()


WORD_DROP = Corruption("word-drop", 1, drop_words)
