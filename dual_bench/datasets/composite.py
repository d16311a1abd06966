"""RAVDESS voices and faces with MELD lines of the same emotion: real media, real words, an artificial pairing.

RAVDESS's sentences tell nothing, so on it no model can lean on words. Here each clip gets a line of MELD (Poria et
al. 2019) with the same label, from the same part: split by split (``folds=0``), or, for cross-validation over actors
(``folds=6``, the default: three test actors are too few for an interval), from a block of MELD dialogues that no
other fold uses. A line is used once, unless its part has no other of that emotion left (with ``folds=0`` two clips of
the validation part). RAVDESS's "calm" has no counterpart in MELD and is left out.

Reads ``ravdess_au_mfcc/`` and ``meld_text/{train,dev,test}_sent_emo.csv``.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from dual_bench.catalog import validated
from dual_bench.datasets import ravdess
from dual_bench.datasets.assemble import assemble, data_file, official
from dual_bench.seeding import generator
from dual_bench.types import Corpus, Signal, Task, UserError, Utterance

CLASSES = ("neutral", "joy", "sadness", "anger", "fear", "disgust", "surprise")
FROM_RAVDESS = {
    "neutral": "neutral",
    "happy": "joy",
    "sad": "sadness",
    "angry": "anger",
    "fearful": "fear",
    "disgust": "disgust",
    "surprised": "surprise",
}
_FILES = {"train": "train", "validation": "dev", "test": "test"}
NOTE = (
    "Artificial pairing: the voices and faces are RAVDESS's, the words are MELD's, matched by emotion; "
    "nobody said these words in this voice."
)


class CompositeSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    folds: Annotated[int, Field(ge=0, le=9)] = 6
    """Actor-disjoint cross-validation; 0 for the official splits of both corpora."""
    seed: int = 0
    """Of the pairing."""


def load(data: Path, /, **settings: object) -> Corpus:
    """Seven classes; audio (259, 1), vision (1, 35); clusters are actors."""
    chosen = validated(CompositeSettings, settings, "composite")
    names, clips, signals = ravdess.read(data)
    emotions = [FROM_RAVDESS.get(names[int(clip.target)]) for clip in clips]
    kept = [i for i, emotion in enumerate(emotions) if emotion is not None]
    clips = [replace(clips[i], target=float(CLASSES.index(str(emotions[i])))) for i in kept]
    if chosen.folds:
        folds = ravdess.actor_folds(clips, chosen.folds)
        part_of = {int(i): number for number, fold in enumerate(folds) for i in fold.test}
        parts = [part_of[i] for i in range(len(clips))]
        lines = _lines_by_block(data, chosen.folds, chosen.seed)
    else:
        folds = official(clips)
        parts = [list(_FILES).index(clip.split) for clip in clips]
        lines = [_lines(_read_meld(data, file)) for file in _FILES.values()]
    return assemble(
        "composite",
        Task("classification", CLASSES),
        _pair(clips, parts, lines, chosen.seed),
        {m: Signal(s.kind, [s.items[i] for i in kept], s.rate) for m, s in signals.items()},
        folds,
        licence=f"{ravdess.LICENCE}; MELD: GPL-3.0, research use",
        notes=(NOTE,),
    )


def _pair(clips: list[Utterance], parts: list[int], lines: list[dict[str, list[str]]], seed: int) -> list[Utterance]:
    """Give each clip the next unused line of its part and emotion, in an order drawn by ``seed``."""
    queues = {}
    for number, by_emotion in enumerate(lines):
        for emotion, found in sorted(by_emotion.items()):
            generator("pairing", seed, number, emotion).shuffle(found)
            queues[number, emotion] = cycle(found)
    paired = []
    for clip, part in zip(clips, parts, strict=True):
        emotion = CLASSES[int(clip.target)]
        if (part, emotion) not in queues:
            raise UserError(f"MELD has no line of '{emotion}' in part {part}; use fewer folds")
        paired.append(replace(clip, text=next(queues[part, emotion])))
    return paired


def _read_meld(data: Path, split: str) -> pd.DataFrame:
    path = data_file(data, f"meld_text/{split}_sent_emo.csv")
    table = pd.read_csv(path, usecols=["Utterance", "Emotion", "Dialogue_ID"], encoding="utf-8", keep_default_na=False)
    return table.assign(dialogue=split + table["Dialogue_ID"].astype(str))


def _lines(table: pd.DataFrame) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for text, emotion in zip(table["Utterance"], table["Emotion"], strict=True):
        found[str(emotion)].append(str(text))
    return found


def _lines_by_block(data: Path, blocks: int, seed: int) -> list[dict[str, list[str]]]:
    """All of MELD, its dialogues dealt into ``blocks`` parts."""
    table = pd.concat([_read_meld(data, file) for file in _FILES.values()], ignore_index=True)
    dialogues = np.array(sorted(set(table["dialogue"])))
    generator("dialogues", seed).shuffle(dialogues)
    block_of = {dialogue: i % blocks for i, dialogue in enumerate(dialogues)}
    block = table["dialogue"].map(block_of)
    return [_lines(table[block == number]) for number in range(blocks)]
