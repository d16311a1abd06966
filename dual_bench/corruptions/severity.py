"""One scale for all corruptions: severity 1 to 5 is a word error rate, whatever the nominal rate that makes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scipy.optimize import brentq

from dual_bench.corruptions.measure import word_errors
from dual_bench.corruptions.noise import Spoken, corrupted, load
from dual_bench.seeding import generator
from dual_bench.types import Condition, UserError

TARGETS = {1: 0.10, 2: 0.20, 3: 0.35, 4: 0.50, 5: 0.70}
"""Word error rates."""

TOLERANCE = 0.01
"""A rate whose word error rate on the training text is that near to the target has reached it."""

_TEXTS = 4_000
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
    most = _SOUNDS if corruption.needs == "sound" else _TEXTS
    order = generator("severity sample", root_seed).permutation(len(spoken))[:most]
    sample = [spoken[i] for i in order if spoken[i].utterance.text.strip()]
    if not sample:
        raise UserError("severity is found on the words of the training part, and there is none; give --rates")
    repeats = 1 if corruption.needs == "sound" else -(-most // len(sample))

    def wer(rate: float) -> float:
        errors = words = 0
        for draw in range(repeats):
            for one in sample:
                text = corrupted(one, Condition(name, rate, -1 - draw), root_seed).text
                reference = one.utterance.text.split()
                errors, words = errors + word_errors(reference, text.split()).total, words + len(reference)
        return errors / words

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
