"""One scale for all corruptions: severity 1 to 5 is a word error rate, whatever the nominal rate that makes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from dual_bench.corruptions.measure import word_errors
from dual_bench.corruptions.noise import Spoken, corrupted, load
from dual_bench.seeding import generator
from dual_bench.types import Condition, FloatArray, UserError

TARGETS = {1: 0.10, 2: 0.20, 3: 0.35, 4: 0.50, 5: 0.70}
"""Word error rates."""

TOLERANCE = 0.01
"""A rate whose word error rate on the training text is that near to the target has reached it."""

_PRECISION = 0.006
"""Standard error wanted of a word error rate; noise that hits whole utterances asks for more of them."""
_FEWEST, _MOST = 2_000, 40_000
"""Texts that are made to measure one rate, and sounds that are heard for it."""
_SOUNDS = 40
_LOWEST = 1e-3


@dataclass(frozen=True)
class Found:
    """The nominal rate that severity stands for, and the word error rate ``wer`` that it makes of training text."""

    severity: int
    target: float
    rate: float
    wer: float

    @property
    def reached(self) -> bool:
        return abs(self.wer - self.target) <= TOLERANCE


def find(name: str, spoken: Sequence[Spoken], severities: Sequence[int], root_seed: int) -> list[Found]:
    """The rate of corruption ``name`` for each of ``severities``, on (a sample of) the training utterances ``spoken``.

    The noise is none that is tested. UserError where the corruption has no word error rate, because it acts behind
    the words. The worst case needs no search: the share of the words it drops is its word error rate.
    """
    corruption = load(name)
    if corruption.needs == "tokens":
        raise UserError(f"severity is a word error rate, and '{name}' acts behind the words; give it --rates")
    if corruption.needs == "model":
        return [Found(s, TARGETS[s], TARGETS[s], TARGETS[s]) for s in severities]
    said = [one for one in spoken if one.utterance.text.strip()]
    if not said:
        raise UserError("severity is found on the words of the training part, and there is none; give --rates")
    order = generator("severity sample", root_seed).permutation(len(said))

    def errors(rate: float, count: int) -> FloatArray:
        """Errors and words (count, 2): all utterances in turn, each time with other noise."""
        found = np.empty((count, 2))
        for i in range(count):
            one = said[order[i % len(said)]]
            text = corrupted(one, Condition(name, rate, -1 - i // len(said)), root_seed).text
            reference = one.utterance.text.split()
            found[i] = word_errors(reference, text.split()).total, len(reference)
        return found

    if corruption.needs == "sound":
        count = min(_SOUNDS, len(said))
    else:
        wrong, words = errors(0.5, _FEWEST).T
        rest = wrong - words * wrong.sum() / words.sum()  # what is left beside the rate that all have
        count = int(np.clip((rest.std() / words.mean() / _PRECISION) ** 2, _FEWEST, _MOST))

    def wer(rate: float) -> float:
        made = errors(rate, count).sum(axis=0)
        return float(made[0] / made[1])

    return search(wer, severities)


def search(wer: Callable[[float], float], severities: Sequence[int]) -> list[Found]:
    """The rate in (0, 1] at which ``wer``, which grows with the rate, is the target of each severity, to 0.0001;
    where it cannot be, the rate that comes nearest.

    >>> [(f.rate, f.reached) for f in search(lambda rate: rate / 2, (1, 4, 5))]
    [(0.2, True), (1.0, True), (1.0, False)]
    """
    known: dict[float, float] = {}

    def cached(rate: float) -> float:
        rate = round(float(rate), 4)
        if rate not in known:
            known[rate] = wer(rate)
        return known[rate]

    def rate_of(target: float) -> float:
        if cached(1.0) <= target:
            return 1.0
        if cached(_LOWEST) >= target:
            return _LOWEST
        return round(float(brentq(lambda rate: cached(rate) - target, _LOWEST, 1.0, xtol=5e-4)), 4)

    rates = {severity: rate_of(TARGETS[severity]) for severity in severities}
    return [Found(severity, TARGETS[severity], rate, cached(rate)) for severity, rate in rates.items()]
