"""What the catalogue holds for a model: its settings, how to build it, and what it reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from dual_bench.models.layers import ModelSettings
from dual_bench.types import Modality, Task, Widths


@dataclass(frozen=True)
class ModelSpec:
    """``build(widths, task, settings)`` gives a module as ``types.Model`` describes it."""

    name: str
    settings: type[ModelSettings]
    build: Callable[[Widths, Task, Any], nn.Module]
    needs: frozenset[Modality]
    """Modalities that a corpus must have for this model."""


def parameter_count(module: nn.Module) -> int:
    """Trainable numbers in ``module``."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
