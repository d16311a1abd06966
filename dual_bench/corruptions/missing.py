"""Text that never arrives."""

from __future__ import annotations

import numpy as np

from dual_bench.types import Corruption


def drop_utterance(text: str, rate: float, rng: np.random.Generator) -> str:
    """Lose the whole text with probability ``rate``; one number is drawn whatever the rate.

    >>> drop_utterance("we opened the letter", 1.0, np.random.default_rng(0))
    ''
    """
    return "" if rng.random() < rate else text


UTTERANCE_DROP = Corruption("utterance-drop", 1, drop_utterance)
