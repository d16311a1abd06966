"""LF-DNN: late fusion of deep networks, one for each modality.

Source: the family of late fusions that Cambria, Hazarika, Poria, Young & Subramanyam 2017 (CICLing, "Benchmarking
Multimodal Sentiment Analysis") compare, by the name and in the form that it has in the benchmark MMSA (Yu et al. 2020,
ACL, "CH-SIMS"; Mao et al. 2022, ACL, "M-SENA"). Each modality becomes its mean over time and passes three ReLU layers;
the results, side by side, pass two more.

Departures: MMSA reads the words by an LSTM, here their mean is read as the other means are, so that against ``concat``
the model is deeper and against ``tfn`` it does not multiply; no batch normalisation, dropout on the hidden layers of
the joint network alone. A modality that is absent has zeros in its place, as in MMSA.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from dual_bench.models.layers import ModelSettings, Tried, masked_mean
from dual_bench.models.spec import ModelSpec, always
from dual_bench.models.tfn import dense, inference
from dual_bench.types import MODALITIES, Batch, Modality, Output, Task, Widths


class LfDnnSettings(ModelSettings):
    width: Annotated[int, Field(ge=1), Tried(16, 32, 64)] = 32
    """Of each modality's network."""
    joint_width: Annotated[int, Field(ge=1), Tried(32, 64, 128)] = 64
    dropout: Annotated[float, Field(ge=0, lt=1), Tried(0.1, 0.3, 0.5)] = 0.3


class LfDnn(nn.Module):
    """The whole model; ``forward`` is exactly ``decode(trunk)``."""

    text_enters_late = True

    def __init__(self, widths: Widths, task: Task, settings: LfDnnSettings) -> None:
        super().__init__()
        s = settings
        self.modalities: frozenset[Modality] = frozenset(MODALITIES)
        self.time_bins = 1
        self.networks = nn.ModuleDict({m: dense(getattr(widths, m), s.width) for m in MODALITIES})
        self.joint = nn.Sequential(
            nn.Linear(3 * s.width, s.joint_width), inference(s.joint_width, task.outputs, s.dropout)
        )

    def forward(self, batch: Batch) -> Output:
        return Output(self.decode(self.trunk(batch), batch.text, batch.text_mask))

    def trunk(self, batch: Batch) -> Tensor:
        """Voice and face side by side, (B, 2 width)."""
        z_a = self.networks["audio"](masked_mean(batch.audio, batch.audio_mask))
        z_v = self.networks["vision"](masked_mean(batch.vision, batch.vision_mask))
        return torch.cat([z_a, z_v], dim=1)

    def decode(self, state: Tensor, text: Tensor, text_mask: Tensor) -> Tensor:
        """Logits (B, K)."""
        z_t = self.networks["text"](masked_mean(text, text_mask))
        return self.joint(torch.cat([state, z_t], dim=1))  # type: ignore[no-any-return]


SPEC = ModelSpec("lf-dnn", LfDnnSettings, LfDnn, partial(always, frozenset(MODALITIES)))
