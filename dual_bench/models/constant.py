"""The floor as a model: it reads nothing, and answers what is best without reading.

For classes the logarithm of how often each comes in training, so that the most frequent wins (cross-entropy has its
least there); for a value the median (so has the absolute error). It has no parameter: the answer is a buffer, counted
from the training targets.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from dual_bench.models.layers import ModelSettings
from dual_bench.models.spec import ModelSpec, always
from dual_bench.types import Batch, Modality, Output, Task, Widths


class ConstantSettings(ModelSettings):
    """Nothing is descended, so there is no rate to choose."""

    learning_rate: None = None
    weight_decay: None = None


class Constant(nn.Module):
    """The same logits (B, K) for every utterance."""

    answer: Tensor

    def __init__(self, widths: Widths, task: Task, settings: ConstantSettings) -> None:
        super().__init__()
        self.modalities: frozenset[Modality] = frozenset()
        self.task = task
        self.register_buffer("answer", torch.zeros(task.outputs))

    def forward(self, batch: Batch) -> Output:
        if batch.lesson is not None:
            self.answer = best_constant(self.task, batch.lesson.everyone)
        return Output(self.answer.expand(len(batch.text), -1))


def best_constant(task: Task, targets: Tensor) -> Tensor:
    """What is best to say of all ``targets`` (n,): logits (K,), or one value."""
    if task.kind == "regression":
        return targets.quantile(0.5).reshape(1)
    counts = torch.bincount(targets.long(), minlength=task.outputs)
    return (counts / len(targets)).clamp_min(1e-6).log()


SPEC = ModelSpec("constant", ConstantSettings, Constant, partial(always, frozenset()))
