"""Whether seeds are trained all stacked, or one by one: a short measurement on this machine, made once and kept.

What is measured is the time that trainings take, not what they find; nothing of a corpus but its widths is in it. The
number is part of the plan's digest, as rounding depends on it, and it stays: the same machine is not asked twice.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from dual_bench import training
from dual_bench.features.cache import content_key
from dual_bench.inputs import Inputs, Resident
from dual_bench.models.spec import modalities_of
from dual_bench.plan import Plan, Variant, variants
from dual_bench.processes import cores
from dual_bench.seeding import generator
from dual_bench.store import write_text
from dual_bench.types import Ragged, Task, Widths

_LARGEST = 16
"""Seeds in a pack."""
_STEPS, _WORDS, _TIMES = 2, 12, 3
"""Steps of training in a measurement, tokens of a text in it, and how often it is made."""
_WORTH = 0.9
"""Stacked must take no more than this share of the time."""


class Measured(BaseModel):
    """How many seeds were stacked, and seconds that a pass of so many seeds of all models takes, one by one and
    stacked, on all cores."""

    model_config = ConfigDict(frozen=True)

    seeds: int
    alone: float
    stacked: float

    @property
    def pack(self) -> int:
        return self.seeds if self.stacked <= _WORTH * self.alone else 1

    def __str__(self) -> str:
        chosen = f"packs of {self.pack}" if self.pack > 1 else "one by one"
        return (
            f"seeds are trained {chosen}: short trainings of {self.seeds} seeds of every model that can be stacked "
            f"would take some {self.alone:.2f} s one by one, {self.stacked:.2f} s stacked"
        )


def settled(
    plan: Plan, folds: int, widths: Widths, task: Task, device: str, cache: Path, report: Callable[[str], None]
) -> tuple[Plan, str]:
    """The plan with a number in the place of ``pack = "auto"``, and what was measured, in a sentence."""
    chosen = [variant for variant in variants(plan) if variant.spec.stackable]
    pack, said = 1, ""
    if chosen and plan.seeds > 1:
        found = _known(plan, chosen, folds, widths, task, device, cache, report)
        pack, said = found.pack, str(found)
    return plan.model_copy(update={"training": plan.training.model_copy(update={"pack": pack})}), said


def _known(
    plan: Plan,
    chosen: Sequence[Variant],
    folds: int,
    widths: Widths,
    task: Task,
    device: str,
    cache: Path,
    report: Callable[[str], None],
) -> Measured:
    """What was measured before for these models on this machine, or is now."""
    card = torch.cuda.get_device_name() if device == "cuda" else device
    machine = (platform.node(), cores(), card, torch.__version__, metadata.version("dual-bench"))
    models = [(variant.model, repr(variant.settings)) for variant in chosen]
    seeds, others = min(plan.seeds, _LARGEST), len(plan.regimes) * folds
    about = (machine, models, seeds, others, widths, task.outputs, plan.training.batch_size)
    kept = cache / "packing" / f"{content_key(repr(about))}.json"
    try:
        return Measured.model_validate_json(kept.read_bytes())
    except (OSError, ValueError):  # not measured yet, or damaged
        pass
    alone: list[float] = []
    stacked: list[float] = []
    for variant in chosen:
        report(f"one by one or stacked: {variant.system}")
        one, many = _times(variant, seeds, widths, task, plan.training.batch_size, device)
        alone += [one] * (seeds * others)
        stacked += [many] * others
    found = Measured(seeds=seeds, alone=_span(alone, device), stacked=_span(stacked, device))
    write_text(kept, found.model_dump_json())
    return found


def _span(seconds: Sequence[float], device: str) -> float:
    """How long trainings of these lengths take side by side: a process a core, or one alone on an accelerator."""
    workers = cores() if device == "cpu" else 1
    return max(sum(seconds) / workers, *seconds)


def _times(
    variant: Variant, seeds: int, widths: Widths, task: Task, batch_size: int, device: str
) -> tuple[float, float]:
    """Seconds that a short training takes of one seed, and of ``seeds`` stacked: medians of turns."""

    def modules(count: int) -> list[Any]:
        return [training.build(variant.spec, variant.settings, widths, task, seed).to(device) for seed in range(count)]

    rng, rows = generator("packing"), np.arange(_STEPS * batch_size)
    (first,) = modules(1)

    def made(steps: int, width: int) -> Ragged:
        return Ragged.pack([rng.standard_normal((steps, width), np.float32) for _ in rows])

    bins = int(getattr(first, "time_bins", 0)) or 16
    inputs = Inputs(made(bins, widths.audio), made(bins, widths.vision), made(_WORDS, widths.text))
    targets = (rows % max(task.outputs, 2)).astype(np.float64)
    part = training.Examples(rows, rows[None], targets)
    few = training.Examples(rows[:1], rows[None, :1], targets[:1])
    settings = training.TrainingSettings(epochs=1, batch_size=batch_size)
    alone, stacked = [], []
    with training.exact_repeats(device, 1):
        resident = Resident(inputs, rows, modalities_of(first), device)
        for time_ in range(_TIMES + 1):
            one, pack = modules(1)[0], modules(seeds)
            began = _now(device)
            training.fit(one, resident, part, few, task, settings, 0)
            between = _now(device)
            training.fit_stacked(pack, resident, part, few, task, settings, [(seed,) for seed in range(seeds)])
            if time_:  # the first warms up
                alone.append(between - began)
                stacked.append(_now(device) - between)
    return median(alone), median(stacked)


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
