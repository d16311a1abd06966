"""What the catalogue holds for a model: its settings, how to build it, and what it reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from dual_bench.models.layers import ModelSettings
from dual_bench.types import MODALITIES, Modality, Task, Widths


@dataclass(frozen=True)
class ModelSpec:
    """``build(widths, task, settings)`` gives a module as ``types.Model`` describes it."""

    name: str
    settings: type[ModelSettings]
    build: Callable[[Widths, Task, Any], nn.Module]
    reads: Callable[[Any], frozenset[Modality]]
    """The modalities that a model with these settings reads, and a corpus must have."""


def always(modalities: frozenset[Modality], settings: ModelSettings) -> frozenset[Modality]:
    """``reads`` of a model that reads the same modalities whatever its settings; for ``functools.partial``."""
    return modalities


def modalities_of(module: nn.Module) -> frozenset[Modality]:
    """The modalities that a module reads: all of them, where it does not say."""
    return cast("frozenset[Modality]", getattr(module, "modalities", frozenset(MODALITIES)))


def parameter_count(module: nn.Module) -> int:
    """Trainable numbers in ``module``."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
