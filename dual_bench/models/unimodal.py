"""Baselines that read one modality, or two: one transformer block for each, averaged, joined by an MLP.

Voice and face are put on the same clock as DUAL's (``time_grid``) with the same positions, so that what they lack
against DUAL is the other modalities and DUAL's own parts, not the sense of time. Words come as [null; W F^t].
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from dual_bench.models.layers import AttentionSettings, Block, Tried, WithNull, masked_mean, positions, time_grid
from dual_bench.models.spec import ModelSpec, always
from dual_bench.types import Batch, Modality, Output, Task, Widths


class SequenceSettings(AttentionSettings):
    width: Annotated[int, Field(ge=4), Tried(16, 32, 64)] = 64
    steps: Annotated[int, Field(ge=1)] = 16
    dropout: Annotated[float, Field(ge=0, lt=1), Tried(0.1, 0.3, 0.5)] = 0.1


class SignalEncoder(nn.Module):
    """Voice or face (B, T, source) to (B, width)."""

    def __init__(self, source: int, s: SequenceSettings) -> None:
        super().__init__()
        self.steps = s.steps
        self.project = nn.Sequential(nn.Linear(source, s.width), nn.GELU(), nn.Linear(s.width, s.width))
        self.block = Block(s.width, s.heads, s.dropout)
        self.register_buffer("clock", positions(s.steps, s.width), persistent=False)

    def forward(self, sequence: Tensor, mask: Tensor) -> Tensor:
        x = self.project(time_grid(sequence, mask, self.steps)) + self.clock
        return self.block(x).mean(dim=-2)  # type: ignore[no-any-return]


class WordEncoder(nn.Module):
    """Token embeddings (B, T, source) to (B, width)."""

    def __init__(self, source: int, s: SequenceSettings) -> None:
        super().__init__()
        self.words = WithNull(source, s.width)
        self.block = Block(s.width, s.heads, s.dropout)

    def forward(self, text: Tensor, mask: Tensor) -> Tensor:
        tokens, mask = self.words(text, mask)
        return masked_mean(self.block(tokens, mask), mask)


class SequenceModel(nn.Module):
    """An encoder for each modality read, their averages side by side, an MLP."""

    def __init__(self, reads: tuple[Modality, ...], widths: Widths, task: Task, settings: SequenceSettings) -> None:
        super().__init__()
        self.modalities = frozenset(reads)
        self.time_bins = settings.steps
        self.encoders = nn.ModuleDict(
            {m: (WordEncoder if m == "text" else SignalEncoder)(getattr(widths, m), settings) for m in reads}
        )
        joined = settings.width * len(reads)
        self.head = nn.Sequential(
            nn.LayerNorm(joined),
            nn.Linear(joined, settings.width),
            nn.GELU(),
            nn.Dropout(settings.dropout),
            nn.Linear(settings.width, task.outputs),
        )

    def forward(self, batch: Batch) -> Output:
        read = [encoder(getattr(batch, m), getattr(batch, f"{m}_mask")) for m, encoder in self.encoders.items()]
        return Output(self.head(torch.cat(read, dim=-1)))


def _spec(name: str, *reads: Modality) -> ModelSpec:
    # dropout among words is drawn for as many as the longest text of a batch has, and a stack's is another
    stackable = "text" not in reads
    build = partial(SequenceModel, reads)
    return ModelSpec(name, SequenceSettings, build, partial(always, frozenset(reads)), stackable)


TEXT_ONLY = _spec("text-only", "text")
AUDIO_ONLY = _spec("audio-only", "audio")
VISION_ONLY = _spec("vision-only", "vision")
AUDIO_VISION = _spec("audio-vision", "audio", "vision")
AUDIO_TEXT = _spec("audio-text", "audio", "text")
VISION_TEXT = _spec("vision-text", "vision", "text")
