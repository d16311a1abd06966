"""Tensor Fusion Network (Zadeh, Chen, Poria, Cambria & Morency 2017, EMNLP).

Each modality is embedded by a subnetwork of its own, a constant 1 is put behind each embedding, and the three are
multiplied out, so that every product of one feature of each is a feature of its own:

    Z = [z_a; 1] x [z_v; 1] x [z_t; 1]         (d_a + 1, d_v + 1, d_t + 1)

Where two of the factors are the constant Z holds an embedding itself (unimodal), where one is, the products of two
embeddings (bimodal), elsewhere those of all three (trimodal). A network of two hidden layers reads all of Z.

z_a and z_v come from three ReLU layers on the mean over time, z_t from an LSTM over the words and a ReLU layer.

Departures: the published embeddings have 32 (voice, face) and 128 (words) features, and the network that reads Z is
128 wide, here 16, 32 and 64 (settings); the last state of the LSTM stands for its words; the output is linear in place
of a sigmoid stretched over the range of the corpus; dropout is on the hidden layers of the reading network alone. The
paper has no missing modality: one that is absent has zeros in its place.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from dual_bench.models.layers import ModelSettings, Tried, lstm_states, masked_mean, some_step
from dual_bench.models.spec import ModelSpec, always
from dual_bench.types import MODALITIES, Batch, Modality, Output, Task, Widths

Size = Annotated[int, Field(ge=1)]


class TfnSettings(ModelSettings):
    """Sizes of the embeddings, and of the network that reads their products."""

    audio_width: Annotated[Size, Tried(8, 16, 32)] = 16
    """d_a."""
    vision_width: Annotated[Size, Tried(8, 16, 32)] = 16
    """d_v."""
    text_width: Annotated[Size, Tried(16, 32, 64)] = 32
    """d_t."""
    width: Annotated[Size, Tried(32, 64, 128)] = 64
    dropout: Annotated[float, Field(ge=0, lt=1), Tried(0.1, 0.3, 0.5)] = 0.3


def dense(source: int, width: int) -> nn.Sequential:
    """Three ReLU layers, (B, source) to (B, width)."""
    layers = [(nn.Linear(inward, width), nn.ReLU()) for inward in (source, width, width)]
    return nn.Sequential(*(part for layer in layers for part in layer))


def with_one(z: Tensor) -> Tensor:
    """[z; 1]: (B, d) to (B, d + 1)."""
    return torch.cat([z, torch.ones_like(z[:, :1])], dim=1)


class Embeddings(nn.Module):
    """The three subnetworks, each with the constant behind it."""

    def __init__(self, widths: Widths, settings: TfnSettings) -> None:
        super().__init__()
        self.audio = dense(widths.audio, settings.audio_width)
        self.vision = dense(widths.vision, settings.vision_width)
        self.lstm = nn.LSTM(widths.text, settings.text_width, batch_first=True)
        self.text = nn.Sequential(nn.Linear(settings.text_width, settings.text_width), nn.ReLU())

    def signals(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """[z_a; 1] (B, d_a + 1) and [z_v; 1] (B, d_v + 1)."""
        z_a = self.audio(masked_mean(batch.audio, batch.audio_mask))
        z_v = self.vision(masked_mean(batch.vision, batch.vision_mask))
        return with_one(z_a), with_one(z_v)

    def words(self, text: Tensor, mask: Tensor) -> Tensor:
        """[z_t; 1] (B, d_t + 1)."""
        return with_one(self.text(lstm_states(self.lstm, *some_step(text, mask))[1]))


def inference(width: int, outputs: int, dropout: float) -> nn.Sequential:
    """The reading network behind its first linear map: (B, width) to logits (B, K)."""
    hidden = nn.Linear(width, width)
    return nn.Sequential(
        nn.ReLU(), nn.Dropout(dropout), hidden, nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, outputs)
    )


class Tfn(nn.Module):
    """The whole model; ``forward`` is exactly ``decode(trunk)``."""

    text_enters_late = True

    def __init__(self, widths: Widths, task: Task, settings: TfnSettings) -> None:
        super().__init__()
        s = settings
        self.modalities: frozenset[Modality] = frozenset(MODALITIES)
        self.time_bins = 1
        self.embed = Embeddings(widths, s)
        products = (s.audio_width + 1) * (s.vision_width + 1) * (s.text_width + 1)
        self.read = nn.Linear(products, s.width)
        self.infer = inference(s.width, task.outputs, s.dropout)

    def forward(self, batch: Batch) -> Output:
        return Output(self.decode(self.trunk(batch), batch.text, batch.text_mask))

    def trunk(self, batch: Batch) -> Tensor:
        """The products of voice and face, (B, d_a + 1, d_v + 1)."""
        z_a, z_v = self.embed.signals(batch)
        return z_a[:, :, None] * z_v[:, None]

    def fuse(self, state: Tensor, text: Tensor, text_mask: Tensor) -> Tensor:
        """Z, (B, d_a + 1, d_v + 1, d_t + 1)."""
        return state[..., None] * self.embed.words(text, text_mask)[:, None, None]

    def decode(self, state: Tensor, text: Tensor, text_mask: Tensor) -> Tensor:
        """Logits (B, K)."""
        return self.infer(self.read(self.fuse(state, text, text_mask).flatten(1)))  # type: ignore[no-any-return]


SPEC = ModelSpec("tfn", TfnSettings, Tfn, partial(always, frozenset(MODALITIES)))
