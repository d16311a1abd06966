"""CMU-MOSI (Zadeh et al. 2016), the 752 clips on which features made elsewhere saw no label.

The audio and vision features (openSMILE functionals; a 3-D CNN) are those of declare-lab/multimodal-deep-learning,
whose networks were trained with the labels of the other 1,447 clips. Only these 752 test clips can be scored honestly
with all modalities; they are cross-validated in five video-disjoint folds. Two real ASR transcripts (albertwy/SWRM,
Findings of ACL 2022) stand beside the gold text.

Reads ``mosi_utterance/mosi_utterance.npz`` and ``mosi_utterance/mosi_text.csv``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from dual_bench.catalog import validated
from dual_bench.datasets.assemble import assemble, cross_validation, data_file
from dual_bench.types import Corpus, Signal, Task, Utterance

RECOGNISERS = ("speechbrain", "iflytek")


class MosiSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def load(data: Path, /, **settings: object) -> Corpus:
    """Sentiment in [-3, 3]; audio (1, 73) and vision (1, 100) features of a clip; clusters are videos."""
    validated(MosiSettings, settings, "mosi-752")
    with np.load(data_file(data, "mosi_utterance/mosi_utterance.npz"), allow_pickle=False) as arrays:
        rows = np.flatnonzero(arrays["fold5"] >= 0)
        audio, vision = arrays["audio"][rows], arrays["visual"][rows]
        ids, videos, folds = arrays["id"][rows], arrays["video"][rows], arrays["fold5"][rows]
        values = arrays["label_reg"][rows]
    texts = pd.read_csv(data_file(data, "mosi_utterance/mosi_text.csv"), keep_default_na=False).set_index("id").loc[ids]
    utterances = [
        Utterance(
            str(ids[i]),
            "test",
            str(videos[i]),
            str(videos[i]),
            str(texts["text_gold"].iloc[i]),
            float(values[i]),
            {name: str(texts[f"text_asr_{name}"].iloc[i]) for name in RECOGNISERS},
        )
        for i in range(len(rows))
    ]
    return assemble(
        "mosi-752",
        Task("regression", low=-3.0, high=3.0),
        utterances,
        {
            "audio": Signal("features", [row[None] for row in audio.astype(np.float32)]),
            "vision": Signal("features", [row[None] for row in vision.astype(np.float32)]),
        },
        cross_validation(utterances, [f"fold{fold}" for fold in folds]),
        licence="CMU-MOSI: academic, non-commercial research; features: MIT",
    )
