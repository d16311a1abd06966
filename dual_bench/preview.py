"""What each corruption makes of a sentence: a look at the battery without a corpus or a model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from dual_bench.catalog import CORRUPTIONS
from dual_bench.corruptions.measure import Change, Measured, changes, measure
from dual_bench.corruptions.noise import Spoken, corrupted, load
from dual_bench.corruptions.recogniser import parsed_rate
from dual_bench.datasets.synthetic_text import EMOTIONS, sentence
from dual_bench.seeding import generator
from dual_bench.types import Condition, Task, TrainingText, UserError, Utterance

_WHY_NOT = {
    "sound": "needs the sound of an utterance",
    "tokens": "acts on token embeddings, behind the words",
    "model": "depends on the model",
}


@dataclass(frozen=True)
class Preview:
    """What corruption ``name`` does to a text: the words of both, in order, each with what became of it; what was
    measured; or why there is nothing to see."""

    name: str
    words: tuple[tuple[str, Change], ...] = ()
    measured: Measured | None = None
    why_not: str = ""


def previews(text: str, names: Iterable[str], rate: str, seed: int) -> list[Preview]:
    """A preview of each of the corruptions ``names``, or of all where there is none.

    Words that come from elsewhere come from sentences of the embedded corpus. UserError where a corruption is unknown,
    or the rate is none.
    """
    try:
        number = float(str(parsed_rate(rate)))
    except ValueError as error:
        raise UserError(f"--rate: {error}") from None
    if not 0 <= number <= 1:
        raise UserError(f"--rate: expected a number in [0, 1] or a ratio such as 10dB, found '{rate}'")
    spoken = Spoken(Utterance("preview", "test", "", "", text, np.nan), _sentences())
    return [_preview(spoken, name, number, seed) for name in names or CORRUPTIONS.parts]


def _preview(spoken: Spoken, name: str, rate: float, seed: int) -> Preview:
    corruption = load(name)
    if corruption.needs in _WHY_NOT:
        return Preview(name, why_not=_WHY_NOT[corruption.needs])
    try:
        noisy = corrupted(spoken, Condition(name, rate), seed).text
    except UserError as error:  # a package that is not installed
        return Preview(name, why_not=str(error))
    reference = spoken.utterance.text
    return Preview(name, tuple(changes(reference, noisy)), measure(reference, noisy))


def _sentences() -> TrainingText:
    """Sentences of the embedded corpus, for each of its emotions."""
    emotions = [emotion for emotion in EMOTIONS for _ in range(20)]
    texts = tuple(sentence(e, False, generator("preview", i)) for i, e in enumerate(emotions))
    targets = np.array([EMOTIONS.index(e) for e in emotions], np.float64)
    return TrainingText(Task("classification", EMOTIONS), texts, targets)
