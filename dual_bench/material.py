"""What encoders have to do for a plan: how much there is of texts, voices and faces, and what the cache has already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dual_bench.features.encoder import Encoder
from dual_bench.features.rows import FeatureStore
from dual_bench.features.text import still_to_encode
from dual_bench.pace import Encoding, signal_pace, text_pace
from dual_bench.prepare import Asked, stored_at
from dual_bench.types import IntArray, Modality, Ragged, Report
from dual_bench.words import Words

VOICE_AND_FACE: tuple[Modality, ...] = ("audio", "vision")


@dataclass(frozen=True)
class Encodings:
    """How many items an encoder reads, how many of them are distinct, how many of these are not in the cache yet, and
    the seconds that they take, the loading of weights among them."""

    items: int
    distinct: int
    missing: int
    seconds: float


@dataclass(frozen=True)
class Material:
    """What is encoded, and how much more of it the cache will hold, in bytes; encoded texts and the lengths of voices
    and faces, to time models on."""

    encodings: Mapping[Modality, Encodings]
    bytes: int
    text: Ragged
    lengths: tuple[IntArray, IntArray]


def material_of(asked: Asked, words: Words, cache: Path, report: Report) -> Material:
    """Look through the cache, and time those encoders that have something to do; that of words in any case."""
    texts, encoder = [reading.text for reading in words.readings], asked.using.text
    missing = still_to_encode(texts, encoder, cache, words.sealed)
    distinct = list(dict.fromkeys(texts))
    report("timing", 0, 0, encoder.name.partition("/")[0])
    found = text_pace(distinct, encoder)
    encodings: dict[Modality, Encodings] = {"text": _encodings(_read(words), len(distinct), len(missing), found)}
    altered = sum(reading.noise is not None for reading in words.readings) if missing else 0
    size = (len(missing) + altered) * found.steps * encoder.width
    lengths = []
    for modality in VOICE_AND_FACE:
        signal = asked.corpus.signals.get(modality)
        if signal is None:
            lengths.append(np.zeros(1, np.int64))
        elif signal.kind == "features":
            lengths.append(np.array([len(item) for item in signal.items], np.int64))
        else:
            using: Encoder = getattr(asked.using, modality)
            report("timing", 0, 0, using.name.partition("/")[0])
            where, keys = stored_at(signal, modality, using, cache)
            kept = FeatureStore(where, using.width)
            first = dict(zip(keys, kept.missing(keys).tolist(), strict=True))
            heard = signal_pace(signal, using) if any(first.values()) else Encoding(0, 0, 0, kept.find(keys))
            encodings[modality] = _encodings(len(keys), len(first), sum(first.values()), heard)
            size += sum(first.values()) * heard.steps * using.width
            lengths.append(heard.found.lengths)
    return Material(encodings, round(4 * size), found.found, (lengths[0], lengths[1]))


def _encodings(items: int, distinct: int, missing: int, found: Encoding) -> Encodings:
    return Encodings(items, distinct, missing, found.load + missing * found.item if missing else 0.0)


def _read(words: Words) -> int:
    """How many texts are read in all, by one model of each regime."""
    learnt = [table for tables in (words.training, words.validation) for folds in tables.values() for table in folds]
    return sum(int((table >= 0).sum()) for table in (*learnt, words.test))
