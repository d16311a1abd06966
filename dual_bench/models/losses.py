"""Loss terms. Each takes tensors and returns a scalar; those of models trained stacked, one for each model.

Before the shapes that are given, any dimensions of models may come.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from dual_bench.types import Task

_SHORT = 1e-2
_NO_NEGATIVE = -1e9
"""Similarity to what is left out: finite, so that a row without any other still has a logarithm."""


def task_loss(task: Task, logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Cross-entropy of logits (B, K) against class numbers (B,), or L1 of (B, 1) against values (B,)."""
    if task.kind == "regression":
        return (logits[..., 0].float() - target.float()).abs().mean(dim=-1)
    target = target.long()
    losses = -logits.float().log_softmax(dim=-1).gather(-1, target[..., None]).squeeze(-1)
    if class_weights is None:
        return losses.mean(dim=-1)
    weights = class_weights[target]
    return (losses * weights).sum(dim=-1) / weights.sum(dim=-1)


def restoration_loss(restored: Tensor, sequence: Tensor, gone: Tensor) -> Tensor:
    """SmoothL1 between (B, T, d) and (B, T, d), averaged over the steps that are ``gone`` (B, T); 0 where none is."""
    errors = functional.smooth_l1_loss(restored.float(), sequence.float(), reduction="none").mean(dim=2)
    return (errors * gone).sum() / gone.sum().clamp_min(1)


def alignment_loss(
    a: Tensor, v: Tensor, temperature: float, negatives: str = "time", moving: Tensor | None = None
) -> Tensor:
    """Symmetric InfoNCE over time of two sequences (B, T, d) on one clock (section 4 of DUAL).

    S_ij = cos(a_i, v_j) / temperature; the positive of row i is column i, and so for columns. ``negatives`` are the
    other steps of the same utterance ("time"), or every other step of the batch ("batch"). A step shorter than 0.01
    has no direction to speak of: its cosines shrink with it instead of blowing its gradient up. Utterances that are not
    ``moving`` (B,) are left out; 0 where none moves.
    """
    if moving is None:
        moving = a.new_ones(a.shape[:-2], dtype=torch.bool)
    a, v = (functional.normalize(x.float(), dim=-1, eps=_SHORT) for x in (a, v))
    if negatives == "batch":
        moving = moving.repeat_interleave(a.shape[-2], dim=-1)
        a, v = a.flatten(-3, -2), v.flatten(-3, -2)
        apart = ~(moving[..., None] & moving[..., None, :])
        similarity = (a @ v.transpose(-2, -1) / temperature).masked_fill(apart, _NO_NEGATIVE)
    else:
        similarity = a @ v.transpose(-2, -1) / temperature
    rows, columns = (similarity.log_softmax(dim).diagonal(dim1=-2, dim2=-1) for dim in (-1, -2))
    each = rows + columns if negatives == "batch" else (rows + columns).mean(dim=-1)
    return -(each * moving).sum(dim=-1) / (2 * moving.sum(dim=-1).clamp_min(1))
