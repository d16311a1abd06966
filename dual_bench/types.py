"""The nouns of dual-bench: what an utterance, a corpus, a condition and a batch are.

Nothing here imports torch at run time, so that statistics and reports work where torch is not installed.
Shapes: N utterances, B of them in a batch, T steps of a sequence, d features a step, K outputs of a model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

FloatArray = NDArray[np.floating]
IntArray = NDArray[np.int64]

Modality = Literal["audio", "vision", "text"]
MODALITIES: tuple[Modality, ...] = ("audio", "vision", "text")
SUBSETS: tuple[tuple[Modality, ...], ...] = tuple(s for size in (1, 2, 3) for s in combinations(MODALITIES, size))
"""Every choice of modalities but none of them."""
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


Report = Callable[[str, int, int, str], None]
"""(stage, done, total, detail); total 0 where it is not known."""

DAMAGED = "damaged"
"""In place of a stage: the detail says what was found damaged, and what was done about it."""


def telling(report: Report) -> Callable[[str], None]:
    """Report in a sentence what was damaged."""
    return lambda what: report(DAMAGED, 0, 0, what)


class DualBenchError(Exception):
    """Anything dual-bench can explain in a sentence: what was expected, what was found, what to do."""


class UserError(DualBenchError):
    """The input is at fault; the command ends with exit code 2."""


# --------------------------------------------------------------------------------------------- corpus


@dataclass(frozen=True)
class Utterance:
    """One thing said. ``cluster`` (dialogue, session, video or actor) is the unit that statistics resample."""

    id: str
    split: Split
    cluster: str
    speaker: str
    text: str
    target: float
    """Index of the class, or the value where the task is regression."""
    transcripts: Mapping[str, str] = field(default_factory=dict)
    """Text of the same words by real recognisers, by the recogniser's name."""


@dataclass(frozen=True)
class Task:
    """What is predicted: one of ``classes``, or a value in [low, high]."""

    kind: Literal["classification", "regression"]
    classes: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf

    @property
    def outputs(self) -> int:
        """K, the width of a model's last layer."""
        return len(self.classes) if self.kind == "classification" else 1


@dataclass(frozen=True)
class Signal:
    """One modality of a corpus, an item for each utterance.

    ``waveform``: (samples,) float32 in [-1, 1]; ``frames``: (frames, height, width) uint8;
    ``features``: (steps, d) float32, made elsewhere. An item without steps says that the modality is absent.
    """

    kind: Literal["waveform", "frames", "features"]
    items: Sequence[NDArray[np.generic]] | Ragged
    rate: float = math.nan
    """Samples, frames or steps a second; NaN where nobody knows."""
    keys: tuple[str, ...] = ()
    """Digests that stand for the items in a fingerprint, where those lie in files that are read only when needed."""
    encoder: str = ""
    """What made features, where that is known."""


@dataclass(frozen=True)
class Fold:
    """Which utterances train, choose and test: row numbers of the corpus. Official splits are a single fold."""

    name: str
    train: IntArray
    validation: IntArray
    test: IntArray


CeilingFunction = Callable[[frozenset[Modality], str, float], float]
"""(modalities, corruption, rate) -> exact Bayes accuracy of a perfect perceiver; NaN where not known."""


@dataclass(frozen=True)
class Corpus:
    """Utterances with their sound, faces and words; ``folds`` say how they are divided."""

    name: str
    task: Task
    utterances: tuple[Utterance, ...]
    signals: Mapping[Modality, Signal]
    """``audio`` and ``vision``, where the corpus has them; words are in the utterances."""
    folds: tuple[Fold, ...]
    licence: str
    fingerprint: str
    """Digest of everything above that can change a result."""
    notes: tuple[str, ...] = ()
    """Sentences that every report on this corpus must open with (an artificial pairing, say)."""
    ceiling: CeilingFunction | None = None
    sound: Signal | None = None
    """Waveforms that a recogniser can hear, where the voice comes as features."""

    @property
    def heard(self) -> Signal | None:
        """The waveforms of the utterances, if there are any."""
        voice = self.signals.get("audio")
        return voice if voice is not None and voice.kind == "waveform" else self.sound

    @property
    def transcripts(self) -> tuple[str, ...]:
        """Names of the recognisers whose text every utterance has."""
        names = sorted(set().union(*(u.transcripts for u in self.utterances)))
        return tuple(n for n in names if all(n in u.transcripts for u in self.utterances))

    def __len__(self) -> int:
        return len(self.utterances)


@dataclass(frozen=True)
class Ragged:
    """N sequences of different length in one array.

    Sequence i is ``values[starts[i] : starts[i] + lengths[i]]``, shape (T_i, d). Sequences may share rows, and a
    selection of them shares the array. Where ``source`` is set, ``values`` is a memory map of that raw float32
    file, and pickling passes the path instead of the numbers.
    """

    values: NDArray[np.float32]
    starts: IntArray
    lengths: IntArray
    source: Path | None = None

    @classmethod
    def pack(cls, items: Sequence[NDArray[np.float32]]) -> Ragged:
        """Lay the sequences end to end; every item has shape (T_i, d) with one d."""
        lengths = np.array([len(item) for item in items], dtype=np.int64)
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
        return cls(np.concatenate(items).astype(np.float32, copy=False), starts, lengths)

    @classmethod
    def map(cls, source: Path, width: int, starts: IntArray, lengths: IntArray) -> Ragged:
        """Open rows of ``width`` float32 numbers in ``source`` without reading them."""
        if not len(lengths) or not lengths.max():
            return cls(np.empty((0, width), np.float32), starts, lengths)
        rows = int((starts + lengths).max())
        # read-only: of a map that may be written to, copy-on-write too, the kernel wants to have all of it in memory
        values = np.memmap(source, np.float32, mode="r", shape=(rows, width))
        return cls(values, starts, lengths, source)

    @property
    def width(self) -> int:
        return int(self.values.shape[1])

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        return self.values[self.starts[index] : self.starts[index] + self.lengths[index]]

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return (self[i] for i in range(len(self)))

    def select(self, rows: IntArray) -> Ragged:
        return Ragged(self.values, self.starts[rows], self.lengths[rows], self.source)

    def compact(self) -> Ragged:
        """The same sequences end to end in an array of their own, in memory."""
        ends = np.cumsum(self.lengths)
        starts = ends - self.lengths
        rows = np.repeat(self.starts - starts, self.lengths) + np.arange(int(self.lengths.sum()))
        return Ragged(np.asarray(self.values)[rows], starts, self.lengths)

    def __reduce__(self) -> tuple[object, ...]:
        if self.source is None:
            return Ragged, (self.values, self.starts, self.lengths)
        return Ragged.map, (self.source, self.width, self.starts, self.lengths)


@dataclass(frozen=True)
class Widths:
    """Features a step in each modality."""

    audio: int
    vision: int
    text: int


# ------------------------------------------------------------------------------------------ conditions


@dataclass(frozen=True, order=True)
class Condition:
    """What happens to the test text: a corruption at a nominal rate in [0, 1], and which noise draw.

    ``severity`` 1..5 where the rate was chosen for its word error rate (``corruptions.severity``), else 0.
    """

    corruption: str
    rate: float
    draw: int = 0
    severity: int = 0

    @property
    def made(self) -> bool:
        """Whether a corruption makes the words; the corpus brings clean text and transcripts."""
        return self.corruption != CLEAN.corruption and not self.corruption.startswith(TRANSCRIPT_PREFIX)


CLEAN = Condition("clean", 0.0, 0)
"""The identity, exactly; the point at rate 0 of every degradation curve."""

ANY_TEXT = Condition("any-text", 1.0, 0)
"""Whatever the text: the worst that it could do to a model which bounds that (``certificate``). Not a condition that a
plan may ask for."""

ABSENT_PREFIX = "absent:"
"""``absent:audio+text`` is the condition in which an utterance comes without voice and words (``probe``)."""

PERMUTED_PREFIX = "permuted:"
"""``permuted:audio+text`` is the condition in which voice and words are, together, those of one other utterance of the
test part (``probe``)."""

ADDITIVE = "additive"
"""The condition in which a model may add what words say to what voice and face say, but not let them interact
(``probe``). A plan may ask neither for this nor for ``absent:`` and ``permuted:``."""


def is_probe(corruption: str) -> bool:
    """Whether a condition of this name asks what a model says with modalities taken away or exchanged.

    >>> [is_probe(name) for name in ("absent:text", "permuted:audio+vision", "additive", "clean", "any-text")]
    [True, True, True, False, False]
    """
    return corruption == ADDITIVE or corruption.startswith((ABSENT_PREFIX, PERMUTED_PREFIX))


TRANSCRIPT_PREFIX = "transcript:"
"""``transcript:NAME`` is the condition in which the test text is what recogniser NAME wrote."""


@dataclass(frozen=True)
class TrainingText:
    """The texts of a training part with their targets (n,): where corruptions take words from that are not there."""

    task: Task
    texts: tuple[str, ...]
    targets: FloatArray

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Every running word, so that one drawn evenly comes as often as it is said."""
        return tuple(word for text in self.texts for word in text.split())


@dataclass(frozen=True)
class Context:
    """What some corruptions know besides a text: the training part, and the target of the utterance that it is of
    (NaN where nobody knows)."""

    training: TrainingText
    target: float = math.nan


Needs = Literal["nothing", "training", "sound", "tokens", "model"]


@dataclass(frozen=True)
class Corruption:
    """A way for words to get lost or go wrong. ``needs`` says what ``apply`` is given:

    * ``nothing``: ``apply(text, rate, rng) -> text``;
    * ``training``: ``apply(text, rate, rng, context) -> text``, with a ``Context``;
    * ``sound``: ``apply(text, rate, rng, samples, sample_rate) -> text``, with the waveform of the utterance;
    * ``tokens``: ``apply(tokens, rate, rng, unknown) -> tokens``, token embeddings (T, d) behind the words, with the
      embedding (d,) of the unknown token;
    * ``model``: ``apply(texts, rates, harm, rngs)`` -> the texts at each rate; it depends on the model, whose losses
      on texts are ``harm`` (``corruptions.worst.Harm``), and has a generator for each text.

    ``apply`` draws the same numbers from ``rng`` whatever the rate; at rate 0 it returns its argument, to the byte.
    """

    name: str
    version: int
    apply: Callable[..., Any]
    rate_is: str
    """What the nominal rate is the share of: "words lost"."""
    needs: Needs = "nothing"
    packages: tuple[str, ...] = ()
    """Installed packages that the words made depend on; their versions are part of every digest."""
    nested: bool = True
    """Whether, within one draw, heavier noise contains lighter noise: what is hit at a rate is hit, and in the same
    way, at every higher one."""
    tells_label: bool = False
    """Whether the true label chooses the words, so that a model trained on them can read it back."""

    def __post_init__(self) -> None:
        if self.needs not in get_args(Needs):
            raise UserError(f"corruption '{self.name}' needs one of {', '.join(get_args(Needs))}; found '{self.needs}'")


# ---------------------------------------------------------------------------------------------- models


@dataclass(frozen=True)
class Lesson:
    """What training alone knows of a batch: the ``targets`` (B,) of its rows; the targets of all n training utterances,
    ``everyone`` (n,), and which of them each row is, ``places`` (B,); the ``epoch``, from 1; and the ``class_weights``
    (K,) of the task's loss, where training has some."""

    targets: torch.Tensor
    everyone: torch.Tensor
    places: torch.Tensor
    epoch: int
    class_weights: torch.Tensor | None = None

    def of(self, places: torch.Tensor) -> Lesson:
        """The lesson of some of its training utterances (B,)."""
        places = places.to(self.everyone.device)
        return replace(self, targets=self.everyone[places], places=places)


@dataclass(frozen=True)
class Batch:
    """Padded sequences: ``audio`` (B, Ta, da), ``vision`` (B, Tv, dv), ``text`` (B, Tt, dt).

    Each mask (B, T) is true where a step is valid; valid steps come first. A sequence may have no valid step; every T
    is at least 1. ``lesson`` is there in training, and never in validation or test.
    """

    audio: torch.Tensor
    audio_mask: torch.Tensor
    vision: torch.Tensor
    vision_mask: torch.Tensor
    text: torch.Tensor
    text_mask: torch.Tensor
    lesson: Lesson | None = None


@dataclass(frozen=True)
class Output:
    """``logits`` (B, K), class logits or one value; ``auxiliary`` losses by name, as (weight, value)."""

    logits: torch.Tensor
    auxiliary: Mapping[str, tuple[float, torch.Tensor]] = field(default_factory=dict)


class Model(Protocol):
    """What training and prediction ask of a module.

    ``modalities`` are those it reads; all three, where it does not say. In place of an ``Output``, ``forward`` may give
    bare logits (B, K). One that looks at voice and face through ``models.layers.time_grid`` alone may say onto how many
    ``time_bins`` (1: through their means): they are then averaged once, and not in every batch. A model whose text
    enters late may say ``text_enters_late = True`` and offer
    ``trunk(batch) -> state`` (a tensor with B rows) and ``decode(state, text, text_mask) -> logits``, with ``forward``
    exactly ``decode(trunk)``; a grid of text conditions then pays for the trunk once. It may further offer
    ``certify(state) -> (logits, radius)``, the logits (B, K) without text and how far any text can move each of them,
    or None where nothing bounds it.
    """

    modalities: frozenset[Modality]

    def __call__(self, batch: Batch) -> Output: ...
