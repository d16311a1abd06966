"""What the catalogue holds for a model: its settings, how to build it, and what it reads.

A plain function ``build(widths, task, **settings with defaults)`` that gives a module does as well: ``spec_of`` reads
the record off its signature.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, ClassVar, cast, get_type_hints

from pydantic import create_model
from pydantic.errors import PydanticUserError
from torch import nn

from dual_bench.models.layers import ModelSettings
from dual_bench.seeding import torch_stream
from dual_bench.types import MODALITIES, DualBenchError, Modality, Task, UserError, Widths


@dataclass(frozen=True)
class ModelSpec:
    """``build(widths, task, settings)`` gives a module as ``types.Model`` describes it."""

    name: str
    settings: type[ModelSettings]
    build: Callable[[Widths, Task, Any], nn.Module]
    reads: Callable[[Any], frozenset[Modality]]
    """The modalities that a model with these settings reads, and a corpus must have."""
    stackable: bool = False
    """Whether the module takes any dimensions before those of a batch, so that seeds can be trained stacked
    (``stacked``): made of the layers known there and of parameters that broadcast, with no other state, and with no
    dropout whose shape depends on how long the longest text of a batch is."""


def always(modalities: frozenset[Modality], settings: ModelSettings) -> frozenset[Modality]:
    """``reads`` of a model that reads the same modalities whatever its settings; for ``functools.partial``."""
    return modalities


def modalities_of(module: nn.Module) -> frozenset[Modality]:
    """The modalities that a module reads: all of them, where it does not say."""
    named = getattr(module, "modalities", None)
    return frozenset(MODALITIES if named is None else cast("frozenset[Modality]", named))


def parameter_count(module: nn.Module) -> int:
    """Trainable numbers in ``module``."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


# ------------------------------------------------------------------------------------ a function as a model

Build = Callable[..., nn.Module]

_EXPECTED = "expected a function build(widths, task, setting=default, …) or a dual_bench.models.spec.ModelSpec"
_SMALL = Widths(audio=8, vision=16, text=32)
"""On which a function builds once, to see what the module reads: widths that up to 8 heads can share."""


def spec_of(name: str, found: object) -> ModelSpec:
    """What the catalogue gave for ``name`` as the record of a model: a ``ModelSpec`` as it is, a function wrapped.

    The function's own parameters, each with a default that is a number, a word, on or off, are the model's settings. A
    parameter ``learning_rate`` or ``weight_decay`` is also that of the training. UserError where it is neither.
    """
    if isinstance(found, ModelSpec):
        if not issubclass(found.settings, ModelSettings):
            raise UserError(
                f"'{name}': expected settings that are a dual_bench.models.layers.ModelSettings, found "
                f"{found.settings.__name__}; derive them from it"
            )
        return found
    if not inspect.isfunction(found):
        raise UserError(f"'{name}' is no model: {_EXPECTED}; it is {kind_of(found)}")
    try:
        settings = _settings_of(found)
    except _NoSettingsError as error:
        raise UserError(f"'{name}' is no model: {_EXPECTED}, found {error}") from None
    return FunctionSpec(name, settings, partial(_built, name, found), partial(_read, name, found), function=found)


@dataclass(frozen=True)
class FunctionSpec(ModelSpec):
    """The record of a function. Its class of settings is made in this process, so another process makes its own."""

    function: Build = field(kw_only=True)

    def __reduce__(self) -> tuple[object, ...]:
        return spec_of, (self.name, self.function)


class FunctionSettings(ModelSettings):
    """Base of the settings that were read off a function."""

    function: ClassVar[Build]

    def __reduce__(self) -> tuple[object, ...]:
        return _refilled, (type(self).function, self.model_dump())


def _refilled(function: Build, values: dict[str, Any]) -> ModelSettings:
    return _settings_of(function).model_validate(values)


class _NoSettingsError(Exception):
    """What is wrong with a signature, as the end of a sentence."""


@cache
def _settings_of(function: Build) -> type[FunctionSettings]:
    """A class with a field for each of the function's own parameters."""
    signature = inspect.signature(function)
    first, own = list(signature.parameters.values())[:2], list(signature.parameters.values())[2:]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if len(first) < 2 or not all(p.kind in positional and p.default is p.empty for p in first):
        raise _NoSettingsError(f"{function.__name__}{signature}; give it the parameters widths and task")
    try:
        hints = get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        raise _NoSettingsError(f"annotations of {function.__name__} that cannot be read ({error})") from None
    fields: dict[str, Any] = {}
    for p in own:
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) or p.default is p.empty:
            raise _NoSettingsError(f"a parameter '{p}' without a default; give it one")
        if not isinstance(p.default, bool | int | float | str | None):
            raise _NoSettingsError(f"'{p}'; a default is a number, a word, True, False or None")
        if p.name.startswith("_") or hasattr(FunctionSettings, p.name):
            raise _NoSettingsError(f"a parameter called '{p.name}', which no setting may be; rename it")
        fields[p.name] = (hints.get(p.name, Any if p.default is None else type(p.default)), p.default)
    try:
        settings = create_model(f"Settings of {function.__name__}", __base__=FunctionSettings, **fields)
    except PydanticUserError as error:
        raise _NoSettingsError(f"a parameter whose annotation does not say what may be given ({error})") from None
    settings.function = function
    return settings


def _built(name: str, function: Build, widths: Widths, task: Task, settings: FunctionSettings) -> nn.Module:
    """What the function makes; UserError where it raises, or makes no module."""
    own = list(inspect.signature(function).parameters)[2:]
    try:
        module = function(widths, task, **{parameter: getattr(settings, parameter) for parameter in own})
    except DualBenchError:
        raise
    except Exception as error:  # of a user's own, anything may come
        raise UserError(f"model '{name}' cannot be built: {told(error)}") from error
    if not isinstance(module, nn.Module):
        raise UserError(
            f"model '{name}': expected {function.__name__} to return a torch.nn.Module, found {type(module).__name__}"
        )
    return module


@cache
def _read(name: str, function: Build, settings: FunctionSettings) -> frozenset[Modality]:
    """What a module made by the function reads; UserError where it names anything but modalities."""
    with torch_stream("reads"):
        module = _built(name, function, _SMALL, Task("classification", ("a", "b")), settings)
    reads = modalities_of(module)
    if not reads <= set(MODALITIES):
        raise UserError(
            f"model '{name}': expected modalities among {', '.join(MODALITIES)}, found {module.modalities!r}"
        )
    return reads


def kind_of(found: object) -> str:
    """What something is, for people.

    >>> kind_of(nn.Linear), kind_of(3)
    ('the class Linear', 'of type int')
    """
    return f"the class {found.__name__}" if isinstance(found, type) else f"of type {type(found).__name__}"


def told(error: Exception) -> str:
    """An error of a user's own part in one line: what, and the last place that is in neither torch nor dual-bench.

    >>> told(ValueError("too wide"))
    'ValueError: too wide'
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "site-packages" not in f.filename and "dual_bench" not in f.filename.split("/")]
    place = f" ({own[-1].filename.rpartition('/')[2]}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason'}{place}"
