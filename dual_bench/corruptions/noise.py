"""The noisy words of a study: seeded by (root seed, corruption, draw, utterance id), never by model and never by rate.

So all models read the same words, and within one draw heavier noise contains lighter noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dual_bench.catalog import CORRUPTIONS
from dual_bench.corruptions.measure import UNKNOWN, measure
from dual_bench.seeding import generator
from dual_bench.types import (
    CLEAN,
    TRANSCRIPT_PREFIX,
    Condition,
    Context,
    Corruption,
    DualBenchError,
    FloatArray,
    TrainingText,
    UserError,
    Utterance,
)

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class TokenNoise:
    """What happens to the token embeddings of a text: a corruption, its nominal rate, and the stream it draws from."""

    corruption: str
    rate: float
    stream: tuple[str | int, ...]

    def __call__(self, tokens: NDArray[np.float32], unknown: FloatArray) -> NDArray[np.float32]:
        """Tokens (T, d) to tokens (T, d)."""
        found: NDArray[np.float32] = load(self.corruption).apply(tokens, self.rate, generator(*self.stream), unknown)
        return found


class Reading(NamedTuple):
    """What a model reads: a text, and what happened to its embeddings behind the words."""

    text: str
    noise: TokenNoise | None = None


Sound = tuple[NDArray[np.float32], float]
"""A waveform, samples in [-1, 1], and how many there are a second."""


@dataclass(frozen=True)
class Spoken:
    """An utterance with what its corruptions may need: the training part, and how to get its sound, if it has any."""

    utterance: Utterance
    training: TrainingText
    sound: Callable[[], Sound] | None = None


def load(name: str) -> Corruption:
    """The corruption called ``name``; UserError where there is none, or it is something else."""
    found = CORRUPTIONS.load(name)
    if not isinstance(found, Corruption):
        raise UserError(
            f"'{name}' is no corruption: expected a dual_bench.types.Corruption, found {type(found).__name__}"
        )
    return found


def corrupted(spoken: Spoken, condition: Condition, root_seed: int) -> Reading:
    """What is read of an utterance under ``condition``, whose corruption does not depend on a model."""
    if condition.corruption == CLEAN.corruption:
        return Reading(spoken.utterance.text)
    if condition.corruption.startswith(TRANSCRIPT_PREFIX):
        return Reading(spoken.utterance.transcripts[condition.corruption.removeprefix(TRANSCRIPT_PREFIX)])
    return _applied(spoken, condition.corruption, condition.rate, ("noise", root_seed, condition.draw))


def mixed(spoken: Spoken, largest: Mapping[str, float], number: int, root_seed: int) -> Reading:
    """One of the readings that the regime ``mixed`` trains on: one of the corruptions that ``largest`` names, drawn
    evenly, at a rate even between 0 and the largest at which it is tested.

    ``number`` tells the readings of one utterance apart. The stream is never that of a test condition.
    """
    rng = generator("mixed", root_seed, *largest, number, spoken.utterance.id)
    name = list(largest)[int(rng.integers(len(largest)))]
    rate = float(rng.random()) * largest[name]
    return _applied(spoken, name, rate, ("mixed noise", root_seed, number))


def matched(spoken: Spoken, condition: Condition, number: int, root_seed: int) -> Reading:
    """One of the readings that the regime ``matched`` trains on: the corruption and rate of the test, other noise."""
    if not condition.made:
        return corrupted(spoken, condition, root_seed)
    return _applied(spoken, condition.corruption, condition.rate, ("matched", root_seed, number))


def _applied(spoken: Spoken, name: str, rate: float, use: tuple[str, int, int]) -> Reading:
    """What corruption ``name`` makes of an utterance; ``use`` is what for, the root seed, and which draw."""
    text, corruption = spoken.utterance.text, load(name)
    purpose, root_seed, number = use
    stream = (purpose, root_seed, corruption.name, corruption.version, number, spoken.utterance.id)
    if corruption.needs == "tokens":
        return Reading(text, TokenNoise(name, rate, stream) if rate > 0 else None)
    given: tuple[object, ...] = ()
    if corruption.needs == "training":
        given = (Context(spoken.training, spoken.utterance.target),)
    elif corruption.needs == "sound":
        if spoken.sound is None:
            raise UserError(f"corruption '{name}' needs the sound of the utterances; this corpus has none")
        given = spoken.sound()
    try:
        found = corruption.apply(text, rate, generator(*stream), *given)
    except DualBenchError:
        raise
    except Exception as error:  # of a user's own, anything may come
        raise DualBenchError(f"corruption '{name}' failed on '{text[:60]}': {type(error).__name__}: {error}") from error
    if not isinstance(found, str):
        raise DualBenchError(f"corruption '{name}' gave {type(found).__name__} for '{text[:60]}'; expected a text")
    return Reading(found)


def measured(references: Sequence[str], readings: Sequence[Reading]) -> pd.DataFrame:
    """A row of ``measure.Measured`` for each reading; equal pairs are aligned once. Undefined behind the words."""
    import pandas as pd  # for the texts of a study alone, not for a look at one

    pairs = [
        (text, reading.text) if reading.noise is None else None
        for text, reading in zip(references, readings, strict=True)
    ]
    known = {pair: measure(*pair) if pair else UNKNOWN for pair in set(pairs)}
    return pd.DataFrame([vars(known[pair]) for pair in pairs])
