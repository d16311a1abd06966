"""Models that go wrong in training while a file named by $TROUBLE is there; afterwards they are small and sound."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch
from torch import nn

from dual_bench.types import Batch, Task, Widths


class Troubled(nn.Module):
    modalities = frozenset({"text"})

    def __init__(self, widths: Widths, task: Task, trouble: str) -> None:
        super().__init__()
        self.layer = nn.Linear(widths.text, task.outputs)
        self.trouble = trouble

    def forward(self, batch: Batch) -> torch.Tensor:
        logits: torch.Tensor = self.layer((batch.text * batch.text_mask[..., None]).mean(dim=1))
        if not self.training or not Path(os.environ["TROUBLE"]).exists():
            return logits
        if self.trouble == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.trouble == "raises":
            raise RuntimeError("the third wheel came off")
        return logits * float("nan")


def killed(widths: Widths, task: Task) -> nn.Module:
    """As the system does to a process when memory runs out."""
    return Troubled(widths, task, "killed")


def raises(widths: Widths, task: Task) -> nn.Module:
    return Troubled(widths, task, "raises")


def diverges(widths: Widths, task: Task) -> nn.Module:
    return Troubled(widths, task, "diverges")
