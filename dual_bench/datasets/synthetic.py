"""``synthetic``: a generated corpus whose right answer is known.

For each utterance a true emotion y is drawn from ``PRIOR``. Given y, each modality m expresses an emotion c, drawn
independently from row y of the confusion matrix ``CONFUSION[m]``, and renders it unmistakably: in words
(``synthetic_text``), a voice (``voices``) and a face (``faces``). A perfect perceiver reads every c; how often it is
right about y, at best, can therefore be computed (``ceiling``).

The matrices place the confusions of the modalities on different pairs (voices: joy with surprise, anger with fear,
neutral with sadness; faces: surprise with fear, neutral with joy or anger; words: anger with sadness), so that each
modality settles what another leaves open. Loudness and a mean face are not enough: who cannot tell apart the emotions
that differ only in motion loses .17 of the audio-visual accuracy.

With the setting ``cues`` one kind of cue alone tells the classes apart, in a world of two classes with planted truth
(``WORLDS``). In ``motion`` a voice or a face, one of the two in each utterance, rises slowly and falls fast or the
other way round, from a random phase (``voices.WAVES``), while the other is neutral: neither an average nor the level at
a known time tells the classes apart. In ``voice-motion`` and ``face-motion`` it is always the voice, or the face. In
``static`` voices and faces keep still and differ in level.

Everything is drawn from streams named by seed and utterance or speaker: the first n utterances of any corpus are the
corpus of n utterances.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from dual_bench.catalog import validated
from dual_bench.datasets import faces, voices
from dual_bench.datasets.assemble import assemble, official
from dual_bench.datasets.synthetic_text import EMOTIONS, sentence, silence
from dual_bench.seeding import generator
from dual_bench.types import MODALITIES, Corpus, IntArray, Modality, Signal, Split, Task, Utterance

PRIOR = np.array([0.34, 0.20, 0.16, 0.13, 0.10, 0.07])

_PERCENT: Mapping[Modality, list[list[int]]] = {
    # to:  n   j   a   s  su   f
    "text": [
        [80, 4, 4, 4, 4, 4],
        [4, 70, 16, 2, 6, 2],
        [2, 2, 64, 24, 6, 2],
        [2, 2, 24, 66, 2, 4],
        [16, 4, 12, 2, 64, 2],
        [10, 2, 2, 18, 2, 66],
    ],
    "audio": [
        [50, 14, 4, 26, 4, 2],
        [10, 54, 4, 2, 28, 2],
        [12, 2, 56, 2, 2, 26],
        [30, 2, 2, 58, 2, 6],
        [4, 28, 4, 2, 58, 4],
        [2, 2, 26, 8, 4, 58],
    ],
    "vision": [
        [50, 18, 24, 4, 2, 2],
        [24, 60, 4, 8, 2, 2],
        [24, 4, 58, 4, 8, 2],
        [2, 14, 4, 54, 2, 24],
        [4, 2, 6, 2, 58, 28],
        [2, 2, 2, 12, 26, 56],
    ],
}
CONFUSION: Mapping[Modality, NDArray[np.float64]] = {m: np.array(rows) / 100 for m, rows in _PERCENT.items()}
"""P(expressed | true) by modality, (6, 6), rows are the true emotion."""


@dataclass(frozen=True)
class World:
    """What there is to tell apart: K classes with their ``prior`` (K,), the ``confusion`` (K, K) of each modality, and
    the emotion by which each modality renders each class."""

    classes: tuple[str, ...]
    prior: NDArray[np.float64]
    confusion: Mapping[Modality, NDArray[np.float64]]
    rendered: Mapping[Modality, tuple[str, ...]]
    turns: tuple[frozenset[Modality], ...] = (frozenset({"audio", "vision"}),)
    """Which of voice and face express a class; where there are several sets, each utterance draws one evenly, and what
    is not in it is neutral."""
    told_by: str = ""
    """For people: what was planted."""


def _planted(classes: tuple[str, str], audio: tuple[str, str], vision: tuple[str, str], **facts: Any) -> World:
    """Two classes of equal prior; voice and face express the true one with probability .9, words with .7."""
    right: Mapping[Modality, float] = {"text": 0.7, "audio": 0.9, "vision": 0.9}
    confusion = {m: np.array([[p, 1 - p], [1 - p, p]]) for m, p in right.items()}
    rendered: Mapping[Modality, tuple[str, ...]] = {"text": ("joy", "anger"), "audio": audio, "vision": vision}
    return World(classes, np.array([0.5, 0.5]), confusion, rendered, **facts)


def _moving(*turns: set[Modality], told_by: str) -> World:
    return _planted(
        ("slow rise", "fast rise"), voices.WAVES, faces.WAVES, turns=tuple(map(frozenset, turns)), told_by=told_by
    )


Cues = Literal["all", "motion", "voice-motion", "face-motion", "static"]
WORLDS: Mapping[Cues, World] = {
    "all": World(EMOTIONS, PRIOR, CONFUSION, dict.fromkeys(MODALITIES, EMOTIONS)),
    "motion": _moving(
        {"audio"}, {"vision"},
        told_by="in each utterance either the voice or the face rises slowly and falls fast, or the other way round, "
        "and nothing but that tells the two classes apart",
    ),
    "voice-motion": _moving(
        {"audio"},
        told_by="the voice rises slowly and falls fast, or the other way round, and nothing but that tells the two "
        "classes apart; the face is neutral",
    ),
    "face-motion": _moving(
        {"vision"},
        told_by="the face rises slowly and falls fast, or the other way round, and nothing but that tells the two "
        "classes apart; the voice is neutral",
    ),
    "static": _planted(
        ("level", "shifted"), ("neutral", "sadness"), ("neutral", "fear"),
        told_by="voices and faces of the two classes keep still and differ only in level",
    ),
}  # fmt: skip

DIALOGUE = 8
"""Utterances in a dialogue."""
_SPLIT_CODES = "tvsttsttvtst"  # train, validation, test (s): 7, 2 and 3 dialogues of every 12
_SPLIT_OF_CODE: Mapping[str, Split] = {"t": "train", "v": "validation", "s": "test"}


class Settings(BaseModel):
    """What a user may choose."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    utterances: int = Field(default=2400, ge=3 * DIALOGUE)
    """Of all splits; 24 are the fewest that leave none empty."""
    seed: int = Field(default=0, ge=0)
    cues: Cues = "all"
    """What tells the classes apart: everything that does in the six emotions, or only motion, or only static level."""

    @property
    def world(self) -> World:
        return WORLDS[self.cues]


@dataclass(frozen=True)
class Latent:
    """What a corpus is rendered from: the true class and the expressed ones, (N,) indices into ``World.classes``; -1
    where a modality is neutral because it is not its turn."""

    truth: IntArray
    expressed: Mapping[Modality, IntArray]


def draw(settings: Settings) -> Latent:
    """The true and expressed classes of every utterance; a corpus contains the true ones alone."""
    world = settings.world
    uniform = np.array(
        [generator("synthetic", settings.seed, _name(i), "emotion").random(4) for i in range(settings.utterances)]
    )
    truth = _inverse(np.tile(world.prior, (len(uniform), 1)), uniform[:, 0])
    expressed = {m: _inverse(world.confusion[m][truth], uniform[:, 1 + k]) for k, m in enumerate(MODALITIES)}
    if len(world.turns) > 1:
        drawn = [generator("synthetic", settings.seed, _name(i), "turn").random() for i in range(settings.utterances)]
        turn = (np.array(drawn) * len(world.turns)).astype(np.int64)
    else:
        turn = np.zeros(settings.utterances, np.int64)
    for modality in ("audio", "vision"):
        speaks = np.array([modality in speaking for speaking in world.turns])[turn]
        expressed |= {modality: np.where(speaks, expressed[modality], -1)}
    return Latent(truth, expressed)


def _inverse(probabilities: NDArray[np.float64], uniform: NDArray[np.float64]) -> IntArray:
    """Row i's outcome at quantile uniform[i]; the last outcome takes what rounding leaves."""
    passed = np.cumsum(probabilities, axis=1)[:, :-1] <= uniform[:, None]
    outcome: IntArray = passed.sum(axis=1, dtype=np.int64)
    return outcome


def ceiling(modalities: frozenset[Modality], corruption: str, rate: float, cues: Cues = "all") -> float:
    """Accuracy of the Bayes classifier that perceives every class expressed in ``modalities`` without error.

    Let pi_y be the prior and T_m[y, c] the confusion of modality m. A perceiver of the modalities M observes c_m for
    each, and the best guess is right with probability

        A(M) = sum over (c_m) of max_y pi_y prod_{m in M} T_m[y, c_m].

    Corruption of the text erases c_text with probability q_c. What is left of the text then tells only that it was
    erased, so the text is a channel with one more output, e:

        W[y, c] = T_text[y, c] (1 - q_c),        W[y, e] = sum_c T_text[y, c] q_c,

    which takes the place of T_text above. Rate r enters by q:

    - ``clean``: q_c = 0;
    - ``utterance-drop``: q_c = r, which gives (1 - r) A(M) + r A(M without text);
    - ``word-drop``, each word lost independently with probability r: q_c = E[r^k], k being the number of cue words in
      a test sentence that expresses c (``synthetic_text.silence``). A neutral sentence has no cue, so q = 1: it looks
      like any other whose cues are lost.

    Where voice and face take turns, the perceiver sees whose turn it is, and A(M) is the mean over turns of A of those
    of M that express a class.

    The perceiver knows r and every cue phrase, the novel ones too. This is the expectation over all utterances: on a
    finite test split a classifier can score above it by chance. Without modalities it is the largest prior; for any
    other corruption, or a rate outside [0, 1], NaN.
    """
    if corruption not in ("clean", "word-drop", "utterance-drop") or not 0 <= rate <= 1:
        return math.nan
    world = WORLDS[cues]
    heard = [modalities & (turn | {"text"}) for turn in world.turns]
    return float(np.mean([_independent(world, some, corruption, rate) for some in heard]))


def _independent(world: World, modalities: frozenset[Modality], corruption: str, rate: float) -> float:
    """A(M) of modalities that all express a class, independently given the true one."""
    erased = {
        "clean": np.zeros(len(world.classes)),
        "utterance-drop": np.full(len(world.classes), rate),
        "word-drop": np.array([silence(emotion, rate) for emotion in world.rendered["text"]]),
    }[corruption]
    joint = world.prior[:, None]
    for modality in (m for m in MODALITIES if m in modalities):  # in one order, for the same last bit
        channel = world.confusion[modality]
        if modality == "text":
            channel = np.column_stack([channel * (1 - erased), channel @ erased])
        joint = (joint[:, :, None] * channel[:, None, :]).reshape(len(world.classes), -1)
    return float(joint.max(axis=0).sum())


def load(data: Path, /, **settings: object) -> Corpus:
    """Generate the corpus; ``data`` is not needed. UserError where a setting is unknown or out of range."""
    chosen = validated(Settings, settings, "synthetic")
    world, latent = chosen.world, draw(chosen)
    utterances = tuple(
        _utterance(i, int(latent.truth[i]), world.rendered["text"][latent.expressed["text"][i]], chosen.seed)
        for i in range(chosen.utterances)
    )
    planted = f" Planted here: {world.told_by}." if world.told_by else ""
    return assemble(
        "synthetic" if chosen.cues == "all" else f"synthetic ({chosen.cues})",
        Task("classification", world.classes),
        utterances,
        _signals(utterances, latent, chosen.seed, world),
        official(utterances),
        licence="MIT (generated)",
        notes=(
            "The corpus 'synthetic' is artificial: its sentences, voices and faces are generated from known "
            f"distributions, and scores on it say nothing about human emotion.{planted}",
        ),
        ceiling=ceiling if chosen.cues == "all" else partial(ceiling, cues=chosen.cues),
    )


def _utterance(index: int, truth: int, expressed: str, seed: int) -> Utterance:
    dialogue, turn = divmod(index, DIALOGUE)
    cluster = f"dialogue-{dialogue:04d}"
    split = _SPLIT_OF_CODE[_SPLIT_CODES[dialogue % len(_SPLIT_CODES)]]
    return Utterance(
        id=_name(index),
        split=split,
        cluster=cluster,
        speaker=f"{cluster}-{'ab'[turn % 2]}",
        text=sentence(expressed, split == "test", generator("synthetic", seed, _name(index), "text")),
        target=float(truth),
    )


def _name(index: int) -> str:
    dialogue, turn = divmod(index, DIALOGUE)
    return f"dialogue-{dialogue:04d}-{turn}"


def _signals(utterances: tuple[Utterance, ...], latent: Latent, seed: int, world: World) -> dict[Modality, Signal]:
    """1 to 3 seconds of voice and of face for each utterance."""
    speakers = {u.speaker for u in utterances}
    voice = {s: voices.Voice.draw(generator("synthetic", seed, s, "voice")) for s in speakers}
    face = {s: faces.Face.draw(generator("synthetic", seed, s, "face")) for s in speakers}
    waveforms, runs = [], []
    for i, u in enumerate(utterances):
        # whole tenths of a second, so that analysis windows fall on the same samples when a voice plays backwards
        frames = int(generator("synthetic", seed, u.id, "duration").integers(10, 31, size=2).min())
        samples = frames * voices.SAMPLE_RATE // faces.FRAME_RATE
        spoken, shown = (
            world.rendered[m][latent.expressed[m][i]] if latent.expressed[m][i] >= 0 else "neutral"
            for m in ("audio", "vision")
        )
        waveforms.append(voices.speak(spoken, voice[u.speaker], samples, generator("synthetic", seed, u.id, "audio")))
        runs.append(faces.show(shown, face[u.speaker], frames, generator("synthetic", seed, u.id, "vision")))
    return {
        "audio": Signal("waveform", waveforms, voices.SAMPLE_RATE),
        "vision": Signal("frames", runs, faces.FRAME_RATE),
    }
