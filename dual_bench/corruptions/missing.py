"""Text that never arrives, or that belongs to something else."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dual_bench.types import Context, Corruption, FloatArray, Task


def drop_utterance(text: str, rate: float, rng: np.random.Generator) -> str:
    """Lose the whole text with probability ``rate``; one number is drawn whatever the rate.

    As where a message has voice and face alone, or a recogniser is down (the missing modality of Zhao et al. 2021,
    "Missing Modality Imagination Network", ACL).

    >>> drop_utterance("we opened the letter", 1.0, np.random.default_rng(0))
    ''
    """
    return "" if rng.random() < rate else text


def mismatch(text: str, rate: float, rng: np.random.Generator, context: Context) -> str:
    """With probability ``rate``, the words of another utterance of the training part, whatever its label.

    As where transcripts are shifted against the recording. A text always becomes a different one, if there is any.

    >>> from dual_bench.types import TrainingText
    >>> said = TrainingText(Task("classification", ("calm", "glad")), ("so be it", "what a day"), np.array([0.0, 1.0]))
    >>> mismatch("so be it", 1.0, np.random.default_rng(0), Context(said))
    'what a day'
    """
    return _other_words(text, rate, rng, context, np.ones(len(context.training.texts), bool))


def contradict(text: str, rate: float, rng: np.random.Generator, context: Context) -> str:
    """With probability ``rate``, the words of an utterance of the training part that has another label.

    For a regression: one whose value lies on the other side of the middle of the range, or, where the middle itself
    is expressed, not on it. The label of the utterance chooses the words, so they tell what it is not; that is the
    point (words against voice, as in sarcasm; after the conflicting modalities of Wang et al. 2023, "Cross-Attention
    is Not Enough"). Where the label is not known, or no other label is there, any other words.

    >>> from dual_bench.types import TrainingText
    >>> said = TrainingText(Task("classification", ("calm", "glad")), ("so be it", "what a day"), np.array([0.0, 1.0]))
    >>> contradict("it is fine", 1.0, np.random.default_rng(0), Context(said, target=1.0))
    'so be it'
    """
    training = context.training
    return _other_words(text, rate, rng, context, other_side(training.targets, context.target, training.task))


def other_side(targets: FloatArray, target: float, task: Task) -> NDArray[np.bool_]:
    """Which of ``targets`` (n,) contradict ``target``; all of them where none does.

    >>> other_side(np.array([-2.0, 0.0, 1.0]), 0.5, Task("regression", low=-3, high=3))
    array([ True, False, False])
    """
    if math.isnan(target):
        return np.ones(len(targets), bool)
    if task.kind == "classification":
        apart = targets != target
    else:
        middle = (task.low + task.high) / 2
        apart = np.sign(targets - middle) == -np.sign(target - middle) if target != middle else targets != middle
    return apart if apart.any() else np.ones(len(targets), bool)


def _other_words(text: str, rate: float, rng: np.random.Generator, context: Context, allowed: NDArray[np.bool_]) -> str:
    hit, place = rng.random(2)
    if hit >= rate:
        return text
    texts = context.training.texts
    chosen = np.flatnonzero(allowed)
    start = int(place * len(chosen))
    # from a random place on, the first that differs: a text said twice is no other
    others = (texts[chosen[(start + k) % len(chosen)]] for k in range(len(chosen)))
    return next((other for other in others if other != text), text)


UTTERANCE_DROP = Corruption("utterance-drop", 1, drop_utterance, rate_is="utterances without text")
MISMATCH = Corruption("mismatch", 1, mismatch, rate_is="utterances with the words of another", needs="training")
CONTRADICTION = Corruption(
    "contradiction",
    1,
    contradict,
    rate_is="utterances with words of another label than the true one",
    needs="training",
    tells_label=True,
)
