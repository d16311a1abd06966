"""Layers that DUAL and its rivals share.

B utterances, T steps, d features. A mask (B, T) is true where a step is valid; invalid steps may hold anything finite.
What models trained stacked are made of (``stacked``) takes any dimensions before these.
"""

from __future__ import annotations

import math
from typing import Annotated, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from dual_bench.types import Batch


class Tried:
    """The values of a setting that ``dual-bench tune`` tries, smallest first; stands in the setting's annotation.

    The default is tried in any case.
    """

    def __init__(self, *values: bool | int | float | str) -> None:
        self.values = values


class ModelSettings(BaseModel):
    """Base of every model's settings: unknown keys are refused, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: Annotated[float | None, Field(gt=0), Tried(3e-4, 1e-3, 3e-3)] = None
    """Of this model alone; None: that of the plan."""
    weight_decay: Annotated[float | None, Field(ge=0), Tried(1e-3, 1e-2, 1e-1)] = None
    """Likewise."""


class AttentionSettings(ModelSettings):
    """Settings of a model with attention: a width that its heads can share."""

    width: Annotated[int, Field(ge=4)]
    heads: Annotated[int, Field(ge=1)] = 4

    @model_validator(mode="after")
    def _shared(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")
        return self


def time_grid(sequence: Tensor, mask: Tensor, steps: int) -> Tensor:
    """Average the valid steps (B, T, d) onto ``steps`` equal bins of each utterance's own duration: (B, steps, d).

    Bin i covers [iL/steps, (i+1)L/steps) of the L valid steps; a step counts with the share of the bin it covers, so
    the mean over time is kept, and two modalities of one utterance are on the same clock whatever their rates.
    An utterance without valid steps becomes zeros. A batch that lies on the bins already is given back as it is.
    """
    if mask.shape[-1] == steps and bool(mask.all()):
        return sequence
    length = mask.sum(dim=-1, keepdim=True)[..., None]  # (B, 1, 1)
    position = (mask.cumsum(dim=-1) - 1)[..., None, :]  # (B, 1, T): number of a step among the valid ones
    edges = torch.arange(steps + 1, device=mask.device, dtype=sequence.dtype)[:, None] * (length / steps)
    ends, starts = edges[..., 1:, :], edges[..., :-1, :]
    overlap = torch.minimum(ends, position + 1.0) - torch.maximum(starts, position.to(sequence.dtype))
    weights = overlap.clamp_min(0) * mask[..., None, :] / (length / steps).clamp_min(1e-6)
    return weights.to(sequence.dtype) @ sequence.masked_fill(~mask[..., None], 0.0)


def on_clock(batch: Batch, steps: int) -> tuple[Tensor, Tensor]:
    """Voice (B, steps, da) and face (B, steps, dv) on a common clock (``time_grid``)."""
    return time_grid(batch.audio, batch.audio_mask, steps), time_grid(batch.vision, batch.vision_mask, steps)


def masked_mean(sequence: Tensor, mask: Tensor) -> Tensor:
    """Mean over the valid steps, (B, T, d) -> (B, d); zeros where there is none."""
    total = sequence.masked_fill(~mask[..., None], 0.0).sum(dim=-2)
    return total / mask.sum(dim=-1, keepdim=True).clamp_min(1)


def some_step(sequence: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The sequence (B, T, d) with zeros in the place of invalid steps, and its mask (B, T) with the first step valid
    where none was: what is absent reads as one step of zeros, as in benchmarks that null what is missing."""
    first = torch.zeros_like(mask)
    first[:, 0] = ~mask.any(dim=1)
    return sequence.masked_fill(~mask[:, :, None], 0.0), mask | first


def drawn_holes(batch: Batch, steps: int, rates: Tensor) -> list[Tensor]:
    """Which steps go missing, for models that train on sequences with holes: bins of the clock (B, steps) for voice and
    for face, and words (B, T); none of a modality that is absent. Each goes with the probability ``rates`` (3, B) of
    its modality and utterance, drawn from torch's own generator."""
    clocks = [mask.any(dim=1, keepdim=True).expand(-1, steps) for mask in (batch.audio_mask, batch.vision_mask)]
    return [
        mask & (torch.rand(mask.shape, device=mask.device) < rate[:, None])
        for mask, rate in zip((*clocks, batch.text_mask), rates, strict=True)
    ]


def lstm_states(lstm: nn.LSTM, sequence: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """States of a batch-first LSTM over the valid steps, which come first: at every step (B, T, directions h), zeros
    where none is valid, and the last of each direction side by side (B, directions h). Each row needs a valid step."""
    lengths = mask.sum(dim=1).cpu()
    packed = nn.utils.rnn.pack_padded_sequence(sequence, lengths, batch_first=True, enforce_sorted=False)
    states, (last, _) = lstm(packed)
    unpacked, _ = nn.utils.rnn.pad_packed_sequence(states, batch_first=True, total_length=sequence.shape[1])
    directions = 2 if lstm.bidirectional else 1
    return unpacked, last[-directions:].transpose(0, 1).flatten(1)


def positions(steps: int, width: int, device: torch.device | None = None) -> Tensor:
    """Sinusoidal positions (steps, width) of Vaswani et al. 2017, section 3.5."""
    frequency = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10_000.0) / width))
    angle = torch.arange(steps, device=device)[:, None] * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=2).reshape(steps, -1)[:, :width]


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017), queries of width ``width``, keys and values of width ``source``.

    Written as plain products: at these head sizes the fused kernel is slower on a CPU.
    """

    def __init__(self, width: int, source: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(source, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, T, width), source (B, S, source), mask (B, S) -> (B, T, width); each row needs a valid step."""
        query = self.query(x).unflatten(-1, (self.heads, -1)).transpose(-3, -2)
        key, value = self.key_value(source).unflatten(-1, (2, self.heads, -1)).transpose(-4, -2).unbind(dim=-3)
        scores = query @ key.transpose(-2, -1) / math.sqrt(x.shape[-1] // self.heads)
        if mask is not None:
            scores = scores.masked_fill(~mask[..., None, None, :], -math.inf)
        mixed: Tensor = scores.softmax(dim=-1) @ value
        return self.out(mixed.transpose(-3, -2).flatten(-2))  # type: ignore[no-any-return]


class FeedForward(nn.Sequential):
    """Pre-norm position-wise network of twice the width."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))


class Block(nn.Module):
    """Pre-norm transformer block over time; ``mixing=False`` leaves the attention out, so that no step sees another."""

    def __init__(self, width: int, heads: int, dropout: float, mixing: bool = True) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width) if mixing else None
        self.attention = Attention(width, width, heads) if mixing else None
        self.feed_forward = FeedForward(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.norm is not None and self.attention is not None:
            normed = self.norm(x)
            x = x + self.dropout(self.attention(normed, normed, mask))
        refined: Tensor = x + self.dropout(self.feed_forward(x))
        return refined


class WithNull(nn.Module):
    """Project token embeddings to ``width`` and put one learned, always valid token before them.

    So a text without words is well defined, and a model can learn to look away from the words.
    """

    def __init__(self, text_width: int, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(text_width, width)
        self.null = nn.Parameter(torch.randn(width) / math.sqrt(width))

    def forward(self, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """text (B, T, dt), mask (B, T) -> tokens (B, 1 + T, width), mask (B, 1 + T)."""
        tokens = self.project(text)
        null = self.null.to(tokens.dtype)[..., None, None, :].expand(*tokens.shape[:-2], 1, -1)
        return torch.cat([null, tokens], dim=-2), torch.cat([torch.ones_like(mask[..., :1]), mask], dim=-1)
