"""EF-LSTM: early fusion, an LSTM that reads all three modalities side by side at every step.

The baseline of that name in Zadeh et al. 2017 (EMNLP, "Tensor Fusion Network") and 2018 (AAAI, "Memory Fusion
Network"), and in Tsai et al. 2019 (ACL, "Multimodal Transformer"):

    x_i = [audio_i; vision_i; text_i],  h_i = LSTM(x_i, h_{i-1}),  logits = MLP(h_T)

Departures: there a step is a word, with the voice and the face during it. Here words are not aligned to the sound, so
all three, words too, are averaged onto a common clock of T equal bins (``time_grid``): a bin holds the words that come
at that share of the text, not those that were heard. The published sizes are larger. A modality that is absent has
zeros at every step.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from dual_bench.models.layers import ModelSettings, Tried, time_grid
from dual_bench.models.spec import ModelSpec, always
from dual_bench.types import MODALITIES, Batch, Modality, Output, Task, Widths


class EfLstmSettings(ModelSettings):
    width: Annotated[int, Field(ge=1), Tried(32, 64, 128)] = 64
    layers: Annotated[int, Field(ge=1), Tried(1, 2)] = 1
    """Of the LSTM, one above the other."""
    steps: Annotated[int, Field(ge=1), Tried(8, 16, 32)] = 16
    """T."""
    dropout: Annotated[float, Field(ge=0, lt=1), Tried(0.1, 0.3, 0.5)] = 0.3


class EfLstm(nn.Module):
    """The whole model. It has no trunk: words are there from the first step on."""

    def __init__(self, widths: Widths, task: Task, settings: EfLstmSettings) -> None:
        super().__init__()
        s = settings
        self.modalities: frozenset[Modality] = frozenset(MODALITIES)
        self.time_bins = s.steps
        self.steps = s.steps
        self.lstm = nn.LSTM(widths.audio + widths.vision + widths.text, s.width, s.layers, batch_first=True)
        self.head = nn.Sequential(
            nn.Dropout(s.dropout),
            nn.Linear(s.width, s.width),
            nn.ReLU(),
            nn.Dropout(s.dropout),
            nn.Linear(s.width, task.outputs),
        )

    def forward(self, batch: Batch) -> Output:
        last: Tensor = self.lstm(self.joined(batch))[1][0][-1]
        return Output(self.head(last))

    def joined(self, batch: Batch) -> Tensor:
        """x, (B, T, audio + vision + text)."""
        grids = [time_grid(getattr(batch, m), getattr(batch, f"{m}_mask"), self.steps) for m in MODALITIES]
        return torch.cat(grids, dim=2)


SPEC = ModelSpec("ef-lstm", EfLstmSettings, EfLstm, partial(always, frozenset(MODALITIES)))
