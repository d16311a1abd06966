"""Presets: what ``dual-bench tune`` chose for the models of a corpus, by fold, and how much it tried for each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from dual_bench.catalog import digest_of, validated
from dual_bench.limits import TOML, read_text, toml
from dual_bench.types import Corpus, UserError

AUTO = "auto"
"""The presets that come with dual-bench for a corpus."""

Setting = bool | int | float | str


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Chosen(_Record):
    """What was chosen for one model in one fold."""

    spent: int
    """Distinct settings that were tried, the default among them."""
    default: float
    """Validation loss with the default settings: the mean over regimes of the loss of the epoch chosen."""
    best: float
    """The same with the settings chosen."""
    settings: dict[str, Setting]
    """Those that differ from the default."""


class Terms(_Record):
    """All that the trials of every model have in common."""

    corpus: str
    fingerprint: str
    trials: int
    """Distinct settings that each model may try in each fold."""
    root_seed: int
    device: str
    regimes: tuple[str, ...]
    corruptions: dict[str, float]
    """What training of the regime ``mixed`` met, and the largest rate of each."""
    encoders: dict[str, str]
    training: dict[str, Setting]
    code: str
    """Versions of dual-bench and torch, and the commit, that the trials were made with."""


class Preset(_Record):
    """A preset file."""

    commands: tuple[str, ...]
    """That made it."""
    digest: str
    """sha256 of all below."""
    trials: str
    """sha256 of the trials and their losses, which stand in the file beside this one."""
    asked: Terms
    models: dict[str, dict[str, Chosen]]
    """By system (a model, or a spec with settings of its own) and fold."""

    def of(self, model: str, system: str) -> Mapping[str, Chosen]:
        """What was chosen for a system, or else for its model, by fold; empty where neither was tuned."""
        return self.models.get(system) or self.models.get(model) or {}

    def computed(self) -> str:
        """What the digest has to be."""
        return digest_of(self.model_dump(mode="json", exclude={"commands", "digest"}))

    def toml(self) -> str:
        """The file."""
        lines = ["# What `dual-bench tune` chose on validation parts, and how much it tried; made by these commands."]
        lines += [f"{name} = {_toml(getattr(self, name))}" for name in ("commands", "digest", "trials")]
        lines += ["", "[asked]"]
        lines += [f"{name} = {_toml(value)}" for name, value in self.asked.model_dump(mode="json").items()]
        for system, folds in self.models.items():
            for fold, chosen in folds.items():
                lines += ["", f"[models.{_toml(system)}.{_toml(fold)}]"]
                lines += [f"{name} = {_toml(value)}" for name, value in chosen.model_dump().items()]
        return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    """A value in TOML, on one line.

    >>> _toml({"a b": [1, 1e-5, True], "x": float("inf")})
    '{ "a b" = [1, 1e-05, true], "x" = inf }'
    """
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_toml(key)} = {_toml(each)}" for key, each in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def read_preset(name: str, corpus: Corpus) -> Preset:
    """The preset file ``name``, or ``auto``; UserError where there is none, or it is not for this very corpus."""
    if name == AUTO:
        packaged = resources.files("dual_bench.presets")
        file = packaged / f"{corpus.name}.toml"
        if not file.is_file():
            known = sorted(f.name.removesuffix(".toml") for f in packaged.iterdir() if f.name.endswith(".toml"))
            raise UserError(
                f"no presets for '{corpus.name}' come with dual-bench (it has: {', '.join(known) or 'none'}); make a "
                "file by `dual-bench tune`, or use --presets none"
            )
        text, where = file.read_text(encoding="utf-8"), f"{file.name}, which comes with dual-bench"
    else:
        try:
            text, where = read_text(Path(name), TOML, f"presets {name}"), name
        except (OSError, UnicodeDecodeError):
            raise UserError(f"no preset file '{name}'; expected auto, none, or a file of `dual-bench tune`") from None
    found = parsed(text, where)
    if found.asked.fingerprint != corpus.fingerprint:
        raise UserError(
            f"presets {where} are for another corpus: expected fingerprint {corpus.fingerprint[:12]} ({corpus.name}), "
            f"found {found.asked.fingerprint[:12]} ({found.asked.corpus}); tune on this corpus, or use --presets none"
        )
    return found


def parsed(text: str, where: str) -> Preset:
    """The preset that a file holds; UserError where it is none, or was changed by hand."""
    found = validated(Preset, toml(text, f"presets {where}"), f"presets {where}")
    if found.digest != found.computed():
        raise UserError(
            f"presets {where} are not what `dual-bench tune` wrote: expected digest {found.computed()[:12]}, found "
            f"{found.digest[:12]}; tune again, or set what you want in the study (`--models dual:width=64`)"
        )
    return found


S = TypeVar("S", bound=BaseModel)


def applied(settings: S, chosen: Mapping[str, Setting], what: str) -> S:
    """The settings with those chosen where the user set none.

    A variant may have no use for a setting that was tuned with its model (a loss whose part is off): such a one keeps
    its default. UserError where the model itself does not take what was chosen.
    """
    given: dict[str, Any] = settings.model_dump(exclude_unset=True)
    for name, value in chosen.items():
        if name in given:
            continue
        try:
            settings = type(settings).model_validate(given | {name: value})
            given = {**given, name: value}
        except ValidationError:
            validated(type(settings), {name: value}, what)
    return settings
