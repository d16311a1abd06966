"""MISA: what the modalities have in common and what is each one's own, in two subspaces.

Source: Hazarika, Zimmermann and Poria 2020, "MISA: Modality-Invariant and -Specific Representations for Multimodal
Sentiment Analysis", ACM Multimedia, section 3. Symbols (m and n are modalities, d the common size, n_b the batch):

    1. utterance       u_m (d)     last states of an LSTM, projected
    2. invariant       c_m = sigmoid(W_c u_m + b_c)          one encoder for all three
       specific        p_m = sigmoid(W_m u_m + b_m)          one for each
    3. similarity      mean over m < n of CMD_5(c_m, c_n)    CMD_K(X, Y) = sum of |M_k(X) - M_k(Y)|_2 over k = 1 … K
                                                             M_1 the mean, M_k the central moment of order k
       difference      sum over m of |C_m^T P_m|_F^2 plus sum over m < n of |P_m^T P_n|_F^2
                                                             C_m, P_m (n_b, d): less their mean, rows of length 1
       reconstruction  mean over m of |u_m - D(c_m + p_m)|_2^2 / d
    4. fusion          a transformer layer over the six vectors, all of them side by side, an MLP
    5. loss            task + alpha similarity + beta difference + gamma reconstruction

CMD is that of Zellinger, Grubinger, Lughofer, Natschläger and Saminger-Platz 2017, "Central Moment Discrepancy (CMD)
for Domain-Invariant Representation Learning", ICLR; its interval [a, b] is that of the sigmoid, [0, 1].

Departures:

* The difference is divided by d^2, a mean over the matrix, as in the authors' code: so its weight does not depend on d.
  A row that hardly differs from the mean (shorter than 0.01) has no direction to speak of: it shrinks with its length
  instead of blowing the gradient up.
* Voice and face come on a clock of ``steps`` bins (``time_grid``), for cost and as in the other models here. Each
  modality has a bidirectional LSTM of one layer, over frozen token embeddings where it reads words; the authors stack
  two, and may read words by the mean of BERT's states instead.
* A value is taught by its absolute error, as all models are here; the authors square it.
* What is absent is zeros, on every bin of the clock or as one word. Its vectors enter fusion and losses like any
  other; the paper knows no absence.
* The transformer layer is pre-norm with a GELU hidden layer of twice the width, as in the other models here; the
  authors' is post-norm with ReLU. D is one linear map for all modalities, as the paper writes it; their code has three.
"""

from __future__ import annotations

from functools import partial
from itertools import combinations
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from dual_bench.models.layers import AttentionSettings, Block, Tried, lstm_states, on_clock, some_step
from dual_bench.models.spec import ModelSpec, always
from dual_bench.types import MODALITIES, Batch, Modality, Output, Task, Widths

_MOMENTS = 5
_SHORT = 1e-2


class MisaSettings(AttentionSettings):
    """Sizes of MISA and the weights of its losses."""

    width: Annotated[int, Field(ge=4), Tried(16, 32, 64)] = 32
    """d."""
    heads: Annotated[int, Field(ge=1)] = 2
    steps: Annotated[int, Field(ge=1)] = 16
    dropout: Annotated[float, Field(ge=0, lt=1), Tried(0.1, 0.3, 0.5)] = 0.1
    alpha: Annotated[float, Field(ge=0), Tried(0.3, 0.7, 1.0)] = 0.7
    """Weight of the similarity of the invariant vectors."""
    beta: Annotated[float, Field(ge=0), Tried(0.1, 0.3, 1.0)] = 0.3
    """Weight of the difference of the subspaces."""
    gamma: Annotated[float, Field(ge=0), Tried(0.3, 0.7, 1.0)] = 0.7
    """Weight of the reconstruction; at 0 there is no decoder."""


def central_moment_discrepancy(x: Tensor, y: Tensor) -> Tensor:
    """CMD_5 of two samples (n, d) of values in [0, 1], a scalar."""
    mean_x, mean_y = x.mean(dim=0), y.mean(dim=0)
    distances = [mean_x - mean_y]
    for order in range(2, _MOMENTS + 1):
        distances.append(((x - mean_x) ** order).mean(dim=0) - ((y - mean_y) ** order).mean(dim=0))
    return torch.stack([distance.norm() for distance in distances]).sum()


def similarity_loss(invariant: Tensor) -> Tensor:
    """Mean CMD of the pairs of modalities in (B, modalities, d)."""
    pairs = combinations(invariant.float().unbind(dim=1), 2)
    return torch.stack([central_moment_discrepancy(*pair) for pair in pairs]).mean()


def difference_loss(invariant: Tensor, specific: Tensor) -> Tensor:
    """Overlap of each modality's subspaces, and of the specific ones with each other; both (B, modalities, d)."""
    c, p = (_directions(x.float()) for x in (invariant, specific))
    pairs = [*zip(c, p, strict=True), *combinations(p, 2)]
    with torch.autocast(invariant.device.type, enabled=False):  # whose matrix products would round what .float() kept
        return torch.stack([(a.T @ b).square().mean() for a, b in pairs]).sum()


def _directions(x: Tensor) -> tuple[Tensor, ...]:
    """(B, modalities, d) as a matrix (B, d) for each modality, less its mean, with rows of length 1."""
    return functional.normalize(x - x.mean(dim=0), dim=2, eps=_SHORT).unbind(dim=1)


def reconstruction_loss(u: Tensor, rebuilt: Tensor) -> Tensor:
    """Mean squared error of the rebuilt vectors (B, modalities, d)."""
    return functional.mse_loss(rebuilt.float(), u.float())


class UtteranceEncoder(nn.Module):
    """Section 1: a sequence (B, T, source) to u (B, d); with a mask where not every step is valid."""

    def __init__(self, source: int, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(source, width, batch_first=True, bidirectional=True)
        self.project = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.LayerNorm(width))

    def forward(self, sequence: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None:
            last = self.lstm(sequence)[1][0].transpose(0, 1).flatten(1)
        else:
            last = lstm_states(self.lstm, sequence, mask)[1]
        return self.project(last)  # type: ignore[no-any-return]


def subspace(width: int) -> nn.Module:
    """An encoder of section 2."""
    return nn.Sequential(nn.Linear(width, width), nn.Sigmoid())


class Misa(nn.Module):
    """The whole model; vectors of the three modalities stand in the order of ``MODALITIES``."""

    text_enters_late = True

    def __init__(self, widths: Widths, task: Task, settings: MisaSettings) -> None:
        super().__init__()
        s = self.settings = settings
        self.modalities: frozenset[Modality] = frozenset(MODALITIES)
        self.time_bins = s.steps
        self.utterance = nn.ModuleDict({m: UtteranceEncoder(getattr(widths, m), s.width) for m in MODALITIES})
        self.invariant = subspace(s.width)
        self.specific = nn.ModuleDict({m: subspace(s.width) for m in MODALITIES})
        self.decoder = nn.Linear(s.width, s.width) if s.gamma else None
        self.fusion = Block(s.width, s.heads, s.dropout)
        self.head = nn.Sequential(
            nn.Linear(6 * s.width, 3 * s.width),
            nn.ReLU(),
            nn.Dropout(s.dropout),
            nn.Linear(3 * s.width, task.outputs),
        )

    def forward(self, batch: Batch) -> Output:
        u = self._with_words(self.trunk(batch), batch.text, batch.text_mask)
        invariant, specific = self._subspaces(u)
        auxiliary = self._losses(u, invariant, specific) if self.training else {}
        return Output(self._fused(invariant, specific), auxiliary)

    def trunk(self, batch: Batch) -> Tensor:
        """What no text can reach: u of voice and face, (B, 2, d)."""
        audio, vision = on_clock(batch, self.settings.steps)
        return torch.stack([self.utterance["audio"](audio), self.utterance["vision"](vision)], dim=1)

    def decode(self, state: Tensor, text: Tensor, text_mask: Tensor) -> Tensor:
        """Logits (B, K) from what ``trunk`` gives and the words."""
        return self._fused(*self._subspaces(self._with_words(state, text, text_mask)))

    def _with_words(self, state: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """u of all three, (B, 3, d)."""
        words = self.utterance["text"](*some_step(text, mask))
        return torch.cat([state, words[:, None]], dim=1)

    def _subspaces(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """c and p of all three, (B, 3, d) each."""
        specific = [self.specific[m](u[:, i]) for i, m in enumerate(MODALITIES)]
        return self.invariant(u), torch.stack(specific, dim=1)

    def _fused(self, invariant: Tensor, specific: Tensor) -> Tensor:
        six = torch.cat([invariant, specific], dim=1)
        return self.head(self.fusion(six).flatten(1))  # type: ignore[no-any-return]

    def _losses(self, u: Tensor, invariant: Tensor, specific: Tensor) -> dict[str, tuple[float, Tensor]]:
        s, losses = self.settings, {}
        if s.alpha:
            losses["similarity"] = (s.alpha, similarity_loss(invariant))
        if s.beta:
            losses["difference"] = (s.beta, difference_loss(invariant, specific))
        if self.decoder is not None:
            losses["reconstruction"] = (s.gamma, reconstruction_loss(u, self.decoder(invariant + specific)))
        return losses


SPEC = ModelSpec("misa", MisaSettings, Misa, partial(always, frozenset(MODALITIES)))
