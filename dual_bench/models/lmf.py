"""Low-rank Multimodal Fusion (Liu, Shen, Lakshminarasimhan, Liang, Zadeh & Morency 2018, ACL).

The Tensor Fusion Network (``tfn``) with a first linear map of low rank: its weights over Z = z_a x z_v x z_t, each z
with a constant 1 behind it, are a sum of r outer products of factors w, one for each modality, so that neither they nor
Z need ever be written out:

    h = W Z + b,  W = sum_i w_a^i x w_v^i x w_t^i   =>   h = sum_i (z_a w_a^i) * (z_v w_v^i) * (z_t w_t^i) + b

with * feature by feature, z_m (d_m + 1), w_m^i (d_m + 1, d_h), h and b (d_h). All else is ``tfn``'s, so that what tells
the two apart is the rank.

Departures: those of ``tfn``, and h is read by the rest of the network there, where the authors' code takes h for the
output. The sum over i is plain, as in the paper; the authors' code learns its weights, which the factors can hold.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from dual_bench.models.layers import Tried
from dual_bench.models.spec import ModelSpec, always
from dual_bench.models.tfn import Embeddings, TfnSettings, inference
from dual_bench.types import MODALITIES, Batch, Modality, Output, Task, Widths


class LmfSettings(TfnSettings):
    """Sizes of the embeddings and of the network behind them, and the rank."""

    rank: Annotated[int, Field(ge=1), Tried(2, 4, 8)] = 4
    """r."""


class Lmf(nn.Module):
    """The whole model; ``forward`` is exactly ``decode(trunk)``."""

    text_enters_late = True

    def __init__(self, widths: Widths, task: Task, settings: LmfSettings) -> None:
        super().__init__()
        s = settings
        self.modalities: frozenset[Modality] = frozenset(MODALITIES)
        self.time_bins = 1
        self.embed = Embeddings(widths, s)
        sizes = {"audio": s.audio_width + 1, "vision": s.vision_width + 1, "text": s.text_width + 1}
        # of variance 1 / (d_m + 1), so that z w keeps the size of z
        self.factors = nn.ParameterDict({m: torch.randn(s.rank, n, s.width) / n**0.5 for m, n in sizes.items()})
        self.bias = nn.Parameter(torch.zeros(s.width))
        self.infer = inference(s.width, task.outputs, s.dropout)

    def forward(self, batch: Batch) -> Output:
        return Output(self.decode(self.trunk(batch), batch.text, batch.text_mask))

    def trunk(self, batch: Batch) -> Tensor:
        """What voice and face make of each rank, (B, r, d_h)."""
        z_a, z_v = self.embed.signals(batch)
        return self._projected("audio", z_a) * self._projected("vision", z_v)

    def fuse(self, state: Tensor, text: Tensor, text_mask: Tensor) -> Tensor:
        """h, (B, d_h)."""
        z_t = self.embed.words(text, text_mask)
        return (state * self._projected("text", z_t)).sum(dim=1) + self.bias

    def decode(self, state: Tensor, text: Tensor, text_mask: Tensor) -> Tensor:
        """Logits (B, K)."""
        return self.infer(self.fuse(state, text, text_mask))  # type: ignore[no-any-return]

    def _projected(self, modality: Modality, z: Tensor) -> Tensor:
        """z w^i for every i: (B, d_m + 1) to (B, r, d_h)."""
        return torch.einsum("bn,rnh->brh", z, self.factors[modality])


SPEC = ModelSpec("lmf", LmfSettings, Lmf, partial(always, frozenset(MODALITIES)))
