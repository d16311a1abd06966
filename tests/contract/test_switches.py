"""Every switch of every model in the catalogue does something, and a switch that does nothing is found out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dual_bench.catalog import MODELS
from dual_bench.models.layers import ModelSettings
from dual_bench.models.spec import ModelSpec, parameter_count
from dual_bench.seeding import torch_stream
from dual_bench.training import build
from dual_bench.types import Batch, Output, Task, Widths

WIDTHS = Widths(audio=5, vision=7, text=6)
TASK = Task("classification", ("a", "b", "c"))
Build = Callable[[ModelSettings], nn.Module]

WITHOUT_PARAMETERS = {"static_alignment", "dynamic_alignment"}
"""Switches of a loss: what they switch has no parameter."""


def switches(spec: ModelSpec) -> dict[str, tuple[object, ...]]:
    """The fields that are on or off, and what else than their default each may be."""
    found: dict[str, tuple[object, ...]] = {}
    for name, field in spec.settings.model_fields.items():
        if isinstance(field.default, bool):
            plain = ("plain",) if "plain" in str(field.annotation) else ()
            found[name] = (not field.default, *plain)
    return found


def made(spec: ModelSpec, settings: ModelSettings) -> nn.Module:
    """The same first weights for all settings, as far as they have the same."""
    return build(spec, settings, WIDTHS, TASK, "switches")


def batch() -> Batch:
    with torch_stream("switches batch"):
        parts: dict[str, Tensor] = {}
        for modality, steps in (("audio", 9), ("vision", 5), ("text", 6)):
            parts[modality] = torch.randn(4, steps, getattr(WIDTHS, modality))
            parts[f"{modality}_mask"] = torch.ones(4, steps, dtype=torch.bool)
        return Batch(**parts)


def problems(build_of: Build, settings: type[ModelSettings], switch: str, value: object) -> list[str]:
    """What is wrong with a switch: nothing, where switching changes the answers, or the parts of the loss."""
    default = settings()
    on, off = build_of(default), build_of(settings.model_validate({switch: value}))
    outputs: list[Output] = []
    for module in (on, off):
        with torch_stream("switches dropout"):
            outputs.append(module.train()(batch()))
    same_loss = set(outputs[0].auxiliary) == set(outputs[1].auxiliary)
    found = []
    if torch.equal(outputs[0].logits, outputs[1].logits) and same_loss:
        found.append(f"{switch}={value} changes neither the answers nor the loss")
    counts = [parameter_count(module) for module in (on, off)]
    if value is False and switch not in WITHOUT_PARAMETERS and counts[0] == counts[1]:
        found.append(f"{switch}={value} leaves the parameter count as it is")
    if value == "plain" and abs(counts[1] / counts[0] - 1) > 0.02:
        found.append(f"{switch}=plain has {counts[1]} parameters in place of {counts[0]}")
    return found


CASES = [
    (name, switch, value)
    for name in sorted(MODELS.entries)
    for switch, values in switches(MODELS.load(name)).items()
    for value in values
]


@pytest.mark.parametrize(("name", "switch", "value"), CASES)
def test_every_switch_changes_the_model(name: str, switch: str, value: object) -> None:
    spec: ModelSpec = MODELS.load(name)
    assert problems(partial(made, spec), spec.settings, switch, value) == []


@pytest.mark.parametrize(("name", "switch", "value"), CASES)
def test_a_switch_that_is_wired_to_nothing_is_found_out(name: str, switch: str, value: object) -> None:
    """The bug planted here: the model is built as if the switch stood where it stands by default."""
    spec: ModelSpec = MODELS.load(name)

    def deaf(settings: ModelSettings) -> nn.Module:
        untouched: Any = getattr(spec.settings(), switch)
        return made(spec, settings.model_copy(update={switch: untouched}))

    assert f"{switch}={value} changes neither the answers nor the loss" in problems(deaf, spec.settings, switch, value)


def test_dual_has_all_its_switches_and_a_plain_block_for_each_part_with_a_shape() -> None:
    found = switches(MODELS.load("dual"))
    assert set(found) == {
        "nonlinear_alignment", "sdm", "vdm", "static_alignment", "dynamic_alignment", "sentiment_residual",
        "time_mixing",
    }  # fmt: skip
    assert {name for name, values in found.items() if "plain" in values} == {
        "nonlinear_alignment", "sdm", "vdm", "sentiment_residual",
    }  # fmt: skip


@pytest.mark.parametrize("width", [8, 16, 32, 64])
@pytest.mark.parametrize("switch", ["nonlinear_alignment", "sdm", "vdm", "sentiment_residual"])
def test_a_plain_block_has_the_parameters_of_the_part_it_stands_for(switch: str, width: int) -> None:
    """Within 2 % of the whole model, at the widths of the real encoders as at small ones."""
    spec: ModelSpec = MODELS.load("dual")
    for widths in (WIDTHS, Widths(audio=40, vision=64, text=384), Widths(audio=768, vision=2048, text=384)):
        counts = [
            parameter_count(build(spec, spec.settings(width=width, **{switch: value}), widths, TASK, "capacity"))
            for value in (True, "plain")
        ]
        assert abs(counts[1] / counts[0] - 1) <= 0.02
