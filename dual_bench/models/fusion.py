"""Fusion baselines."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from dual_bench.models.layers import ModelSettings, Tried, masked_mean
from dual_bench.models.spec import ModelSpec, always
from dual_bench.types import MODALITIES, Batch, Modality, Output, Task, Widths


class ConcatSettings(ModelSettings):
    width: Annotated[int, Field(ge=1), Tried(32, 64, 128)] = 128
    dropout: Annotated[float, Field(ge=0, lt=1), Tried(0.1, 0.3, 0.5)] = 0.3


class Concat(nn.Module):
    """The mean over time of each modality, side by side, and an MLP with one hidden layer; blind to motion."""

    def __init__(self, widths: Widths, task: Task, settings: ConcatSettings) -> None:
        super().__init__()
        self.modalities: frozenset[Modality] = frozenset(MODALITIES)
        self.time_bins = 1
        self.mlp = nn.Sequential(
            nn.Linear(widths.audio + widths.vision + widths.text, settings.width),
            nn.GELU(),
            nn.Dropout(settings.dropout),
            nn.Linear(settings.width, task.outputs),
        )

    def forward(self, batch: Batch) -> Output:
        means = [masked_mean(getattr(batch, m), getattr(batch, f"{m}_mask")) for m in MODALITIES]
        return Output(self.mlp(torch.cat(means, dim=-1)))


CONCAT = ModelSpec("concat", ConcatSettings, Concat, partial(always, frozenset(MODALITIES)), stackable=True)
