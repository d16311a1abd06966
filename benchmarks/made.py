"""A corpus that is made up, of the size and the lengths of CMU-MOSI (Zadeh et al. 2016, arXiv:1606.06259).

The 1,284 clips of MOSI's official training part have 12.05 words in the mean; the logarithm of the number has mean 2.31
and standard deviation 0.60, and 3 % have more than 30 words. Numbers of words are drawn like that and held at 30, and
voice, face and words of an utterance are as long, as shares of their maxima. Its features are noise: here nothing is
learned, and nothing but time is measured. ``made:load:test=400`` is a corpus for ``--dataset``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dual_bench.datasets.assemble import assemble, official
from dual_bench.types import Corpus, Ragged, Signal, Split, Task, Utterance

TRAIN, VALIDATION, TEST = 1284, 229, 686
"""The official parts of MOSI."""
WORDS = (
    "the", "a", "and", "of", "to", "in", "it", "was", "he", "she", "we", "they", "you", "that", "this", "with",
    "for", "but", "not", "on", "at", "by", "from", "so", "if", "then", "there", "about", "just", "all", "very",
    "good", "bad", "great", "old", "new", "long", "little", "first", "last", "other", "same", "right", "movie",
    "story", "time", "people", "way", "day", "life", "man", "woman", "world", "work", "part", "place", "case",
    "hand", "eye", "year", "thing", "point", "night", "water", "room", "mother", "head", "house", "friend", "power",
    "hour", "game", "line", "end", "law", "car", "city", "name", "idea", "body", "back", "face", "others", "level",
    "office", "door", "health", "person", "art", "war", "history", "party", "result", "change", "morning", "reason",
    "research", "girl", "guy", "moment", "air", "teacher", "force",
)  # fmt: skip
"""Each of them one token of MiniLM."""
MOST = 30
"""Words of an utterance."""
STEPS = {"audio": (50, 768), "vision": (30, 512)}
"""Most steps of an utterance, and features a step."""


def load(
    data: Path,
    train: int = TRAIN,
    validation: int = VALIDATION,
    test: int = TEST,
    audio: int = STEPS["audio"][1],
    vision: int = STEPS["vision"][1],
) -> Corpus:
    """Utterances in parts of these sizes, with features of these widths; ``data`` is not read."""
    rng = np.random.default_rng(0)
    parts: dict[Split, int] = {"train": train, "validation": validation, "test": test}
    split = [name for name, count in parts.items() for _ in range(count)]
    words = np.clip(np.rint(rng.lognormal(2.31, 0.60, len(split))), 1, MOST).astype(int)
    utterances = tuple(
        Utterance(f"u{i:06}", part, f"video{i // 23:05}", "", " ".join(rng.choice(WORDS, count)), target)
        for i, (part, count, target) in enumerate(zip(split, words, rng.uniform(-3, 3, len(split)), strict=True))
    )
    signals = {
        name: Signal("features", _features(rng, np.ceil(words / MOST * STEPS[name][0]).astype(np.int64), width))
        for name, width in (("audio", audio), ("vision", vision))
    }
    task = Task("regression", low=-3, high=3)
    return assemble("made", task, utterances, signals, official(utterances), "none: it is noise")


def _features(rng: np.random.Generator, lengths: np.ndarray, width: int) -> Ragged:
    values = rng.standard_normal((int(lengths.sum()), width), np.float32)
    return Ragged(values, np.cumsum(lengths) - lengths, lengths)
