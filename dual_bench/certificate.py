"""The certificate: what holds of a trained model under any text whatever, where the model bounds what text can do.

Let z (K,) be what voice and face alone say, and let no text move a logit by more than the radius s. A class keeps its
place whatever the text if its logit exceeds every other by more than 2 s; a value stays within s. (The idea of a
radius in which a prediction cannot change is that of certified robustness to small perturbations, Cohen et al. 2019,
ICML; there is nothing small here, as the bound is built into the model and holds for every text.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from dual_bench.inputs import Resident
from dual_bench.training import autocast, chunks, trunk_states
from dual_bench.types import FloatArray, IntArray, Task


@dataclass(frozen=True)
class Certificate:
    """What voice and face alone say of utterances ``rows`` (n,), ``logits`` (n, K), and the ``radius``."""

    rows: IntArray
    logits: FloatArray
    radius: float

    def of(self, rows: IntArray) -> Certificate:
        """The same for some of the rows, in their order."""
        return Certificate(rows, self.logits[np.searchsorted(self.rows, rows)], self.radius)


@torch.no_grad()
def certify(module: Any, resident: Resident, rows: IntArray) -> Certificate | None:
    """The certificate of ``rows`` (n,), ascending; None where the model bounds nothing."""
    module.eval()
    states = trunk_states(module, resident, rows) if hasattr(module, "certify") else None
    if states is None:
        return None
    with autocast(resident.device):
        # in the same pieces as predictions, for the same bits
        parts = [module.certify(states[piece]) for piece in chunks(len(rows))]
    if parts[0] is None:
        return None
    return Certificate(rows, torch.cat([logits for logits, _ in parts]).double().cpu().numpy(), parts[0][1])


def unmoved(task: Task, certificate: Certificate) -> NDArray[np.bool_] | None:
    """Of which utterances no text can change the predicted class, (n,); None of a regression, which has no class.

    >>> sure = Certificate(np.array([4, 7]), np.array([[2.0, 0.0], [1.0, 0.5]]), 0.5)
    >>> unmoved(Task("classification", ("a", "b")), sure)
    array([ True, False])
    """
    if task.kind == "regression":
        return None
    second, first = np.sort(certificate.logits, axis=1)[:, -2:].T
    sure: NDArray[np.bool_] = first - second > 2 * certificate.radius
    return sure


def worst_scores(task: Task, certificate: Certificate, targets: FloatArray) -> NDArray[np.float32]:
    """The scores (n, K) that text would bring about if it could do its worst to every logit at once.

    The true class loses the radius and every other gains it: the true one still wins exactly where no text can make
    the prediction wrong. A value moves away from the truth by the radius, within the task's range. So accuracy on these
    scores is never above, and mean absolute error never below, what any text leads to.
    """
    logits, radius = certificate.logits, certificate.radius
    if task.kind == "regression":
        ends = np.clip(logits + radius * np.array([-1.0, 1.0]), task.low, task.high)
        worst = np.abs(ends - targets[:, None]).argmax(axis=1)
        return ends[np.arange(len(ends)), worst, None].astype(np.float32)
    moved = logits + radius
    moved[np.arange(len(moved)), targets.astype(int)] -= 2 * radius
    found: NDArray[np.float32] = softmax(moved, axis=1).astype(np.float32)
    return found
