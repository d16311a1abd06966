"""TFR-Net: trained on sequences with holes, and to say what was in them.

Source: Yuan, Li, Xu, Yu 2021, ACM MM, "Transformer-based Feature Reconstruction Network for Robust Multimodal
Sentiment Analysis". Symbols (m, n of audio, vision, text; T_m steps):

    1. holes            U'_m: the sequence U_m (T_m, d_m) with zeros at the steps g_m that go missing, in training
    2. extraction       x_m = LN(W U'_m + positions);  H_m from attention(x_m, x_n) for every n, m itself among them
    3. reconstruction   H'_m = transformer(H_m);  U^_m = W H'_m;  loss: SmoothL1(U^_m, U_m) at the steps g_m alone
    4. gated fusion     gate = sigmoid(conv(H'_m)) (T_m, 1);  h_m = max over time of tanh(W [H'_m; gate H'_m])
    5. answer           an MLP on [h_a; h_v; h_t];  loss: task + lambda_r sum_m reconstruction of m

The answer reads H'_m and never U^_m, so that what comes with holes in the test is read as it is. A hole has the place
of its step: the others keep their positions.

Departures.

* The paper trains a model for each rate of missing steps, which is also the rate of its test. Here one model is for
  all rates: the rate is drawn for each modality of each utterance evenly from [0, ``missing``], anew in each batch.
* A hole among the words is a zero vector as in the other modalities, not the token [UNK], which the frozen encoder
  before this model would have to read.
* Holes are made on a clock of ``steps`` bins onto which voice and face are averaged (``time_grid``; zeros where
  absent). There is no alignment by words. Where a corpus has one step of voice or face all bins are alike, and what
  is behind a hole can be read off the next bin.
* In 1 a linear map takes the place of a convolution. In 2 there is one layer, and one feed-forward network after the
  three attentions in the place of one in each. In 4 the gate reads H'_m: the paper's GRU before it is left out, for
  cost. One weight lambda_r serves all three modalities. The paper's widths and depths are larger.
* The reconstruction counts from the first epoch on; the published code lets it in with the second.
* A text without words reads as one step of zeros; the paper says nothing of one.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from dual_bench.models.layers import (
    Attention,
    AttentionSettings,
    Block,
    FeedForward,
    Tried,
    drawn_holes,
    on_clock,
    positions,
    some_step,
)
from dual_bench.models.losses import restoration_loss
from dual_bench.models.spec import ModelSpec, always
from dual_bench.types import MODALITIES, Batch, Modality, Output, Task, Widths


class TfrNetSettings(AttentionSettings):
    width: Annotated[int, Field(ge=4), Tried(16, 32, 64)] = 32
    steps: Annotated[int, Field(ge=1)] = 16
    layers: Annotated[int, Field(ge=1), Tried(1, 2)] = 1
    """Of the transformers that reconstruct."""
    dropout: Annotated[float, Field(ge=0, lt=1), Tried(0.1, 0.3, 0.5)] = 0.1
    missing: Annotated[float, Field(ge=0, le=1), Tried(0.3, 0.5, 1.0)] = 0.5
    """The largest share of steps that goes missing in training."""
    lambda_r: Annotated[float, Field(ge=0), Tried(0.1, 0.3, 1.0)] = 1.0


class Stream(nn.Module):
    """All that one modality has for itself; x (B, T, width), mask (B, T)."""

    def __init__(self, source: int, settings: TfrNetSettings) -> None:
        super().__init__()
        s, width = settings, settings.width
        self.project, self.norm = nn.Linear(source, width), nn.LayerNorm(width)
        self.attention = nn.ModuleDict({n: Attention(width, width, s.heads) for n in MODALITIES})
        self.join, self.feed_forward = nn.Linear(len(MODALITIES) * width, width), FeedForward(width)
        self.dropout = nn.Dropout(s.dropout)
        self.transformer = nn.ModuleList(Block(width, s.heads, s.dropout) for _ in range(s.layers))
        self.reconstruct = nn.Linear(width, source) if s.missing and s.lambda_r else None
        self.gate = nn.Conv1d(width, 1, kernel_size=3, padding=1)
        self.gated = nn.Linear(2 * width, width)

    def embed(self, sequence: Tensor) -> Tensor:
        """x_m of a sequence (B, T, d_m)."""
        x = self.project(sequence)
        return self.norm(x + positions(x.shape[1], x.shape[2], x.device))  # type: ignore[no-any-return]

    def attend(self, x: Tensor, n: Modality, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """What x reads in modality n, of which ``source`` is the x and ``mask`` the valid steps (None: all)."""
        return self.attention[n](x, source, mask)  # type: ignore[no-any-return]

    def mix(self, x: Tensor, attended: list[Tensor], mask: Tensor | None = None) -> Tensor:
        """H'_m from x_m and what it reads in each modality."""
        x = x + self.dropout(self.join(torch.cat(attended, dim=2)))
        x = x + self.dropout(self.feed_forward(x))
        for block in self.transformer:
            x = block(x, mask)
        return x

    def pool(self, h: Tensor, mask: Tensor) -> Tensor:
        """h_m (B, width) of H'_m, of which each row has a valid step."""
        beyond = ~mask[:, :, None]
        h = h.masked_fill(beyond, 0.0)  # with which the convolution pads
        gate = self.gate(h.transpose(1, 2)).transpose(1, 2).sigmoid()
        seen: Tensor = self.gated(torch.cat([h, gate * h], dim=2)).tanh()
        return seen.masked_fill(beyond, -1.0).amax(dim=1)


class TfrNet(nn.Module):
    """The whole model. What voice and face read in themselves and in each other is ready before any word comes."""

    text_enters_late = True

    def __init__(self, widths: Widths, task: Task, settings: TfrNetSettings) -> None:
        super().__init__()
        s = self.settings = settings
        self.modalities = frozenset(MODALITIES)
        self.time_bins = s.steps
        self.audio, self.vision, self.text = (Stream(getattr(widths, m), s) for m in MODALITIES)
        self.head = nn.Sequential(
            nn.Linear(3 * s.width, s.width), nn.GELU(), nn.Dropout(s.dropout), nn.Linear(s.width, task.outputs)
        )

    def forward(self, batch: Batch) -> Output:
        if not self.training:
            return Output(self.decode(self.trunk(batch), batch.text, batch.text_mask))
        complete = (*on_clock(batch, self.settings.steps), batch.text)
        rates = self.settings.missing * torch.rand(len(MODALITIES), len(batch.text), device=batch.text.device)
        missing = drawn_holes(batch, self.settings.steps, rates)
        audio, vision, text = (u.masked_fill(g[:, :, None], 0.0) for u, g in zip(complete, missing, strict=True))
        text, mask = some_step(text, batch.text_mask)
        states = self._states(self._meet(audio, vision), text, mask)
        losses = [
            restoration_loss(stream.reconstruct(h), u, g)
            for stream, h, u, g in zip(self._streams, states, complete, missing, strict=True)
            if stream.reconstruct is not None
        ]
        weighted = {"reconstruction": (self.settings.lambda_r, torch.stack(losses).sum())} if losses else {}
        return Output(self._answer(states, mask), weighted)

    def trunk(self, batch: Batch) -> Tensor:
        """What no word can reach: of voice and of face x and what it reads in both, (B, 6, steps, width)."""
        return self._meet(*on_clock(batch, self.settings.steps))

    def decode(self, state: Tensor, text: Tensor, text_mask: Tensor) -> Tensor:
        """Logits (B, K) from what ``trunk`` gives and the words."""
        text, mask = some_step(text, text_mask)
        return self._answer(self._states(state, text, mask), mask)

    @property
    def _streams(self) -> tuple[Stream, ...]:
        return self.audio, self.vision, self.text

    def _meet(self, audio: Tensor, vision: Tensor) -> Tensor:
        a, v = self.audio.embed(audio), self.vision.embed(vision)
        heard = [a, self.audio.attend(a, "audio", a), self.audio.attend(a, "vision", v)]
        seen = [v, self.vision.attend(v, "audio", a), self.vision.attend(v, "vision", v)]
        return torch.stack([*heard, *seen], dim=1)

    def _states(self, state: Tensor, text: Tensor, mask: Tensor) -> list[Tensor]:
        """H'_m of voice, face and words (B, T, d_t), of which each row has a valid one."""
        a, aa, av, v, va, vv = state.unbind(dim=1)
        t = self.text.embed(text)
        at, vt, tt = (stream.attend(x, "text", t, mask) for stream, x in zip(self._streams, (a, v, t), strict=True))
        ta, tv = self.text.attend(t, "audio", a), self.text.attend(t, "vision", v)
        return [
            self.audio.mix(a, [aa, av, at]),
            self.vision.mix(v, [va, vv, vt]),
            self.text.mix(t, [ta, tv, tt], mask),
        ]

    def _answer(self, states: list[Tensor], mask: Tensor) -> Tensor:
        a, v, t = states
        always = mask.new_ones(a.shape[:2])
        pooled = [self.audio.pool(a, always), self.vision.pool(v, always), self.text.pool(t, mask)]
        return self.head(torch.cat(pooled, dim=1))  # type: ignore[no-any-return]


SPEC = ModelSpec("tfr-net", TfrNetSettings, TfrNet, partial(always, frozenset(MODALITIES)))
