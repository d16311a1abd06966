"""Linear probe: what can be read off the features by weighting them, and nothing more.

The mean over time of each modality that it reads, side by side, and one linear layer (a linear classifier probe in the
sense of Alain & Bengio 2017, ICLR workshop, here on the features themselves). It is additive: what words add to its
logits does not depend on voice and face. A modality that is absent has zeros in its place.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import nn

from dual_bench.models.layers import ModelSettings, masked_mean
from dual_bench.models.spec import ModelSpec
from dual_bench.types import Batch, Modality, Output, Task, Widths

Reads = Literal["audio", "vision", "text", "audio+vision", "audio+text", "vision+text", "audio+vision+text"]


class LinearSettings(ModelSettings):
    reads: Reads = "audio+vision+text"
    """The modalities whose means are weighted."""


class Linear(nn.Module):
    """One layer over the means of what it reads."""

    def __init__(self, widths: Widths, task: Task, settings: LinearSettings) -> None:
        super().__init__()
        self.order = _named(settings)
        self.modalities = frozenset(self.order)
        self.time_bins = 1
        self.layer = nn.Linear(sum(getattr(widths, m) for m in self.order), task.outputs)

    def forward(self, batch: Batch) -> Output:
        means = [masked_mean(getattr(batch, m), getattr(batch, f"{m}_mask")) for m in self.order]
        return Output(self.layer(torch.cat(means, dim=-1)))


def _named(settings: LinearSettings) -> tuple[Modality, ...]:
    return cast("tuple[Modality, ...]", tuple(settings.reads.split("+")))


def modalities(settings: LinearSettings) -> frozenset[Modality]:
    """Those of the setting ``reads``."""
    return frozenset(_named(settings))


SPEC = ModelSpec("linear", LinearSettings, Linear, modalities, stackable=True)
