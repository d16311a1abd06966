"""MulT, the Multimodal Transformer: each modality is enriched, step by step, by what the other two have to say.

Source: Tsai, Bai, Liang, Kolter, Morency and Salakhutdinov 2019, "Multimodal Transformer for Unaligned Multimodal
Language Sequences", ACL, section 3. Symbols (L layers, width d, modalities alpha and beta):

    1. low-level features    Z_alpha = Conv1D(X_alpha) + PE              kernel k, own weights, sinusoidal positions
    2. crossmodal layer      CM(Z, S) = Z' + FF(LN(Z')),  Z' = Z + softmax(Q K^T / sqrt(d_h)) V
                             with Q of LN(Z), K and V of LN(S), in heads of width d_h
    3. direction beta>alpha  Z^0 = Z_alpha;  Z^l = CM(Z^{l-1}, Z_beta)   at every layer the source is low-level
    4. self-attention        the last element of a transformer over [Z_{beta>alpha}; Z_{gamma>alpha}], for each alpha
    5. prediction            z = those three side by side;  logits = W3 (z + W2 relu(W1 z))

Departures:

* Voice and face come on a clock of ``steps`` bins (``time_grid``), for cost and as in the other models here; an absent
  one is zeros on every bin. Words stay token by token, aligned to nothing, as in the paper's unaligned setting.
* Steps that are not valid are zeroed before the convolution and masked in every attention, so that padding says
  nothing; "the last element" is the last valid one. A text without words is one step of zeros. (The authors pad with
  zeros, and do not mask.)
* A residual goes past the normalisation, and each transformer ends in one, as in the authors' code; the paper's
  equations add the normalised input. Every step attends to all others: the paper speaks of no causal mask, though the
  authors' code applies one.
* The feed-forward part FF has a hidden layer of twice the width and GELU (four times, ReLU), and attention weights have
  no dropout of their own. One layer each by default, for cost: the authors use several.
* Of the last layer of 4 only the last element is computed, since nothing reads the others; the answer is the same.
"""

from __future__ import annotations

from functools import partial
from itertools import permutations
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dual_bench.models.layers import (
    Attention,
    AttentionSettings,
    FeedForward,
    Tried,
    on_clock,
    positions,
    some_step,
)
from dual_bench.models.spec import ModelSpec, always
from dual_bench.types import MODALITIES, Batch, Modality, Output, Task, Widths


class MultSettings(AttentionSettings):
    """Sizes of MulT."""

    width: Annotated[int, Field(ge=4), Tried(16, 32, 64)] = 32
    """d; what an utterance comes to in the end is 6 d wide."""
    steps: Annotated[int, Field(ge=1)] = 16
    kernel: Annotated[Literal[1, 3, 5], Tried(1, 3, 5)] = 3
    """k, of all three temporal convolutions."""
    layers: Annotated[int, Field(ge=1), Tried(1, 2, 4)] = 1
    """L, of each direction."""
    self_layers: Annotated[int, Field(ge=1)] = 1
    """Of each self-attention transformer."""
    dropout: Annotated[float, Field(ge=0, lt=1), Tried(0.1, 0.3, 0.5)] = 0.1


class CrossmodalLayer(nn.Module):
    """Section 2; with a sequence as its own source it is a layer of self-attention."""

    def __init__(self, width: int, s: MultSettings) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, width, s.heads)
        self.feed_forward = FeedForward(width)
        self.dropout = nn.Dropout(s.dropout)

    def forward(self, x: Tensor, source: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.dropout(self.attention(self.norm(x), self.norm(source), mask))
        return x + self.dropout(self.feed_forward(x))  # type: ignore[no-any-return]


class Direction(nn.Module):
    """Section 3: target (B, T, d) and source (B, S, d), of which ``mask`` (B, S) is valid, to (B, T, d)."""

    def __init__(self, s: MultSettings) -> None:
        super().__init__()
        self.layers = nn.ModuleList(CrossmodalLayer(s.width, s) for _ in range(s.layers))
        self.norm = nn.LayerNorm(s.width)

    def forward(self, target: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            target = layer(target, source, mask)
        return self.norm(target)  # type: ignore[no-any-return]


class LastElement(nn.Module):
    """Section 4: the last valid element of a transformer over a sequence, (B, T, 2 d) with mask (B, T) to (B, 2 d)."""

    def __init__(self, s: MultSettings) -> None:
        super().__init__()
        self.layers = nn.ModuleList(CrossmodalLayer(2 * s.width, s) for _ in range(s.self_layers))
        self.norm = nn.LayerNorm(2 * s.width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = layer(x, x, mask)
        last = x[torch.arange(len(x), device=x.device), mask.sum(dim=1) - 1]
        return self.norm(self.layers[-1](last[:, None], x, mask)[:, 0])  # type: ignore[no-any-return]


class Mult(nn.Module):
    """The whole model; ``directions`` holds the six crossmodal transformers by the name "source>target"."""

    text_enters_late = True

    def __init__(self, widths: Widths, task: Task, settings: MultSettings) -> None:
        super().__init__()
        s = self.settings = settings
        self.modalities: frozenset[Modality] = frozenset(MODALITIES)
        self.time_bins = s.steps
        self.convolutions = nn.ModuleDict(
            {m: nn.Conv1d(getattr(widths, m), s.width, s.kernel, padding="same", bias=False) for m in MODALITIES}
        )
        self.directions = nn.ModuleDict(
            {f"{source}>{target}": Direction(s) for source, target in permutations(MODALITIES, 2)}
        )
        self.last = nn.ModuleDict({m: LastElement(s) for m in MODALITIES})
        joined = 6 * s.width
        self.refine = nn.Sequential(
            nn.Linear(joined, joined), nn.ReLU(), nn.Dropout(s.dropout), nn.Linear(joined, joined)
        )
        self.head = nn.Linear(joined, task.outputs)

    def forward(self, batch: Batch) -> Output:
        return Output(self.decode(self.trunk(batch), batch.text, batch.text_mask))

    def trunk(self, batch: Batch) -> Tensor:
        """What no text can reach, (B, 4, steps, d): the low-level features of voice and face, then voice as the face
        enriches it and face as the voice does."""
        audio, vision = on_clock(batch, self.settings.steps)
        audio, vision = self._low_level("audio", audio), self._low_level("vision", vision)
        for_audio = self.directions["vision>audio"](audio, vision)
        for_vision = self.directions["audio>vision"](vision, audio)
        return torch.stack([audio, vision, for_audio, for_vision], dim=1)

    def decode(self, state: Tensor, text: Tensor, text_mask: Tensor) -> Tensor:
        """Logits (B, K) from what ``trunk`` gives and the words."""
        audio, vision, audio_with_vision, vision_with_audio = state.unbind(dim=1)
        text, mask = some_step(text, text_mask)
        words = self._low_level("text", text)
        audio_with_text = self.directions["text>audio"](audio, words, mask)
        vision_with_text = self.directions["text>vision"](vision, words, mask)
        text_with_audio = self.directions["audio>text"](words, audio)
        text_with_vision = self.directions["vision>text"](words, vision)
        clock = mask.new_ones(len(mask), self.settings.steps)
        z = torch.cat(
            [
                self.last["audio"](torch.cat([audio_with_vision, audio_with_text], dim=2), clock),
                self.last["vision"](torch.cat([vision_with_audio, vision_with_text], dim=2), clock),
                self.last["text"](torch.cat([text_with_audio, text_with_vision], dim=2), mask),
            ],
            dim=1,
        )
        return self.head(z + self.refine(z))  # type: ignore[no-any-return]

    def _low_level(self, modality: Modality, sequence: Tensor) -> Tensor:
        """Section 1, (B, T, source) to (B, T, d); what is not valid must be zeros."""
        features: Tensor = self.convolutions[modality](sequence.transpose(1, 2)).transpose(1, 2)
        return features + positions(sequence.shape[1], self.settings.width, features.device)


SPEC = ModelSpec("mult", MultSettings, Mult, partial(always, frozenset(MODALITIES)))
