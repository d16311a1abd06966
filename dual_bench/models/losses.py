"""Loss terms. Each takes tensors and returns a scalar."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from dual_bench.types import Task

_SHORT = 1e-2


def task_loss(task: Task, logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Cross-entropy of logits (B, K) against class numbers (B,), or L1 of (B, 1) against values (B,)."""
    if task.kind == "classification":
        return functional.cross_entropy(logits.float(), target.long(), class_weights)
    return functional.l1_loss(logits[:, 0].float(), target.float())


def restoration_loss(restored: Tensor, sequence: Tensor, gone: Tensor) -> Tensor:
    """SmoothL1 between (B, T, d) and (B, T, d), averaged over the steps that are ``gone`` (B, T); 0 where none is."""
    errors = functional.smooth_l1_loss(restored.float(), sequence.float(), reduction="none").mean(dim=2)
    return (errors * gone).sum() / gone.sum().clamp_min(1)


def alignment_loss(a: Tensor, v: Tensor, temperature: float, negatives: str = "time") -> Tensor:
    """Symmetric InfoNCE over time of two sequences (B, T, d) on one clock (section 4 of DUAL).

    S_ij = cos(a_i, v_j) / temperature; the positive of row i is column i, and so for columns. ``negatives`` are the
    other steps of the same utterance ("time"), or every other step of the batch ("batch"). A step shorter than 0.01
    has no direction to speak of: its cosines shrink with it instead of blowing its gradient up.
    """
    if negatives == "batch":
        a, v = a.reshape(1, -1, a.shape[-1]), v.reshape(1, -1, v.shape[-1])
    a, v = (functional.normalize(x.float(), dim=-1, eps=_SHORT) for x in (a, v))
    similarity = a @ v.transpose(1, 2) / temperature
    rows = similarity.log_softmax(dim=2).diagonal(dim1=1, dim2=2)
    columns = similarity.log_softmax(dim=1).diagonal(dim1=1, dim2=2)
    return -torch.cat([rows, columns]).mean()
