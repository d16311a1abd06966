"""The usual way to do the same work, written plainly: what our speeds are compared with.

It is how the training code that comes with papers on multimodal emotion recognition goes about it: a ``Dataset`` of
utterances, a ``DataLoader`` that pads each batch, one training run after another, and for every condition the noisy
sentences encoded and the whole model run. Nothing is made slow on purpose:

* the models are the very modules of dual-bench, recurrences by the library's LSTM; the loss is the same;
* features are held in memory, standardised once for all seeds, and voice and face are never encoded again;
* torch has its default number of threads; ``num_workers`` is 0, because processes that collate take the cores from
  those that compute (``benchmarks/training.py`` measures what two of them cost);
* texts of a condition are encoded in one call of ``SentenceTransformer.encode``, which sorts them by length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from dual_bench.models.losses import task_loss
from dual_bench.training import TrainingSettings, answer, scores_of
from dual_bench.types import Batch, IntArray, Ragged, Task

Item = tuple[Tensor, Tensor, Tensor, Tensor]
"""Voice (Ta, da), face (Tv, dv), words (Tt, dt), and the target."""


@dataclass(frozen=True)
class Utterances(Dataset[Item]):
    """``texts`` has several versions where training is to meet noise: each look at an utterance draws one of them."""

    audio: Sequence[Tensor]
    vision: Sequence[Tensor]
    texts: Sequence[Sequence[Tensor]]
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> Item:
        version = int(torch.randint(len(self.texts), ())) if len(self.texts) > 1 else 0
        return self.audio[i], self.vision[i], self.texts[version][i], self.targets[i]


def standardised(ragged: Ragged, train: IntArray) -> list[Tensor]:
    """All sequences, (T, d) each, standardised by the steps of those of the utterances ``train``."""
    steps = np.concatenate([ragged[i] for i in train])
    mean, spread = steps.mean(axis=0, dtype=np.float64), steps.std(axis=0, dtype=np.float64)
    scale = np.where(spread > 1e-6, spread, 1.0)
    return [torch.from_numpy(((ragged[i] - mean) / scale).astype(np.float32)) for i in range(len(ragged))]


def encoded(encoder: Any, texts: Sequence[str]) -> list[Tensor]:
    """Token embeddings (T, d) of each text by a ``SentenceTransformer``, without those of [CLS] and [SEP]."""
    found = encoder.encode(list(texts), output_value="token_embeddings", show_progress_bar=False)
    return [tokens[1:-1].float() for tokens in found]


def collate(items: Sequence[Item]) -> tuple[Batch, Tensor]:
    """Pad and mask."""
    *columns, targets = zip(*items, strict=True)
    padded = [_padded(column) for column in columns]
    (audio, audio_mask), (vision, vision_mask), (text, text_mask) = padded
    return Batch(audio, audio_mask, vision, vision_mask, text, text_mask), torch.stack(targets)


def _padded(column: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    values = pad_sequence(column, batch_first=True)
    if not values.shape[1]:  # not one word in the whole batch
        values = values.new_zeros(len(column), 1, values.shape[2])
    lengths = torch.tensor([len(item) for item in column])
    return values, torch.arange(values.shape[1]) < lengths[:, None]


def train(
    module: nn.Module,
    training: Utterances,
    validation: Utterances,
    task: Task,
    settings: TrainingSettings,
    seed: int,
    workers: int = 0,
) -> int:
    """Train ``module`` in place, keep the weights of the epoch with the lowest validation loss, and say how many epochs
    it took."""
    torch.manual_seed(seed)
    batches = DataLoader(training, settings.batch_size, shuffle=True, collate_fn=collate, num_workers=workers)
    optimiser = torch.optim.AdamW(module.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    best, best_loss, best_epoch, epoch = {}, float("inf"), 0, 0
    for epoch in range(1, settings.epochs + 1):
        module.train()
        for batch, targets in batches:
            optimiser.zero_grad()
            output = answer(module, batch)
            loss = task_loss(task, output.logits, targets)
            for weight, value in output.auxiliary.values():
                loss = loss + weight * value
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), settings.clip)
            optimiser.step()
        found = validation_loss(module, validation, task, settings.batch_size)
        if found < best_loss:
            best, best_loss, best_epoch = {k: v.clone() for k, v in module.state_dict().items()}, found, epoch
        elif epoch - best_epoch >= settings.patience:
            break
    module.load_state_dict(best)
    return epoch


@torch.no_grad()
def validation_loss(module: nn.Module, data: Utterances, task: Task, batch_size: int) -> float:
    """The mean task loss."""
    module.eval()
    total = 0.0
    for batch, targets in DataLoader(data, batch_size, collate_fn=collate):
        total += float(task_loss(task, answer(module, batch).logits, targets)) * len(targets)
    return total / len(data)


@torch.no_grad()
def predict(module: nn.Module, data: Utterances, task: Task, batch_size: int = 64) -> NDArray[np.float32]:
    """Scores (n, K)."""
    module.eval()
    batches = DataLoader(data, batch_size, collate_fn=collate)
    return torch.cat([scores_of(task, answer(module, batch).logits) for batch, _ in batches]).numpy()


def evaluate(
    module: nn.Module, encoder: Any, clean: Utterances, noisy: Callable[[], Sequence[str]], task: Task
) -> NDArray[np.float32]:
    """Scores (n, K) of one trained model under one condition: make the noisy sentences, encode them, run all of it."""
    return predict(module, replace(clean, texts=[encoded(encoder, noisy())]), task)
