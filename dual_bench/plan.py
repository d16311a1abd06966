"""A plan: TOML and flags, validated, and the cells it asks for.

A *cell* is one trained model (model, settings, regime, seed, fold) together with its predictions under every
condition: training is the dear part and conditions share it, so it is what is stored, skipped and resumed as a whole.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, field_validator

from dual_bench.catalog import (
    CORRUPTIONS,
    DATASETS,
    METRICS,
    MODELS,
    did_you_mean,
    format_settings,
    parse_spec,
    validated,
)
from dual_bench.metrics import Metric
from dual_bench.models.spec import ModelSpec
from dual_bench.stats.frame import system_name
from dual_bench.study import find_study
from dual_bench.training import TrainingSettings
from dual_bench.types import CLEAN, TRANSCRIPT_PREFIX, Condition, Corpus, Modality, Task, UserError

Regime = Literal["clean", "mixed"]
DEFAULT_STUDY = "default"
FORMAT_VERSION = 1
"""Raised whenever the same plan would give other numbers; part of every digest."""


class Plan(BaseModel):
    """What to compare on what, under which noise; one field of a study file each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    question: str = ""
    dataset: str
    models: Annotated[tuple[str, ...], Field(min_length=1)]
    """Specs, ``name`` or ``name:setting=value,…``; the reference of every comparison is ``dual``, or else the first."""
    regimes: Annotated[tuple[Regime, ...], Field(min_length=1)] = ("clean", "mixed")
    corruptions: tuple[str, ...] = ("word-drop", "utterance-drop")
    rates: tuple[Annotated[float, Field(ge=0, le=1)], ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    draws: Annotated[int, Field(ge=1)] = 5
    seeds: Annotated[int, Field(ge=1)] = 5
    root_seed: int = 0
    metric: str = ""
    """The primary metric; by default accuracy or mae."""
    training: TrainingSettings = TrainingSettings()

    @field_validator("models", "regimes", "corruptions", "rates")
    @classmethod
    def _once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        twice = [value for value in values if values.count(value) > 1]
        if twice:
            raise ValueError(f"'{twice[0]}' stands twice")
        return values

    def conditions(self, corpus: Corpus) -> tuple[Condition, ...]:
        """Clean first, then each corruption by rate and draw, then the transcripts that the corpus brings."""
        noisy = [
            Condition(name, rate, draw)
            for name in self.corruptions
            for rate in sorted(self.rates)
            if rate > 0
            for draw in range(self.draws)
        ]
        return (CLEAN, *noisy, *(Condition(f"{TRANSCRIPT_PREFIX}{name}", 1.0) for name in corpus.transcripts))


@dataclass(frozen=True)
class Variant:
    """A model of the plan: its name, the settings that differ from its own, and all settings."""

    model: str
    changed: str
    spec: ModelSpec
    settings: BaseModel

    @property
    def reads(self) -> frozenset[Modality]:
        return self.spec.reads(self.settings)


@dataclass(frozen=True)
class Cell:
    """One trained model under all conditions; ``digest`` names everything its rows depend on."""

    digest: str
    variant: Variant
    regime: Regime
    seed: int
    fold: int

    @property
    def title(self) -> str:
        """What is trained, for people."""
        return f"{system_name(self.variant.model, self.variant.changed)} {self.regime} seed {self.seed}"

    @property
    def training(self) -> tuple[str, str, str, int, int]:
        """Cells of equal key share their training: words make no difference to a model that reads none."""
        regime = self.regime if "text" in self.variant.reads else "any"
        return self.variant.model, self.variant.changed, regime, self.seed, self.fold


def read_plan(name: str, overrides: Mapping[str, Any]) -> Plan:
    """The study ``name`` with ``overrides`` in place of its fields; UserError names the first thing that is unknown."""
    text, where = find_study(name)
    try:
        fields = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"study {where} is not TOML: {error}") from None
    training = {**fields.get("training", {}), **overrides.get("training", {})}
    plan = validated(Plan, {**fields, **overrides, "training": training}, f"study {where}")
    variants(plan)
    for corruption in plan.corruptions:
        CORRUPTIONS.load(corruption)
    if plan.metric:
        METRICS.load(plan.metric)
    if "mixed" in plan.regimes and not plan.corruptions:
        raise UserError("regime 'mixed' trains on noisy words; name at least one corruption, or leave it out")
    return plan


def variants(plan: Plan) -> tuple[Variant, ...]:
    """The models of the plan, settings validated; UserError where one is unknown, or two are the same."""
    found: list[Variant] = []
    for text in plan.models:
        name, given = parse_spec(text)
        spec: ModelSpec = MODELS.load(name)
        settings = validated(spec.settings, given, f"model '{name}'")
        defaults = spec.settings()
        changed = {key: getattr(settings, key) for key in given if getattr(settings, key) != getattr(defaults, key)}
        variant = Variant(name, format_settings(changed), spec, settings)
        if any((other.model, other.changed) == (variant.model, variant.changed) for other in found):
            raise UserError(f"model '{text}' is the same as another of the plan; leave one out")
        found.append(variant)
    return tuple(found)


def load_corpus(spec: str, data: Path) -> Corpus:
    """The corpus ``spec`` names: a catalogue name with settings, or the path of a manifest CSV."""
    name, settings = parse_spec(spec)
    if not settings and name.endswith(".csv"):
        return cast(Corpus, DATASETS.load("manifest")(data, path=name))
    return cast(Corpus, DATASETS.load(name)(data, **settings))


def metrics_of(task: Task) -> tuple[Metric, ...]:
    """Every metric of this kind of task, in the catalogue's order."""
    return tuple(metric for metric in map(METRICS.load, METRICS.entries) if metric.task == task.kind)


def check(plan: Plan, corpus: Corpus) -> Plan:
    """The plan with its primary metric filled in; UserError where plan and corpus do not go together."""
    for variant in variants(plan):
        missing = sorted(variant.reads - {"text"} - set(corpus.signals))
        if missing:
            raise UserError(
                f"model '{variant.model}' needs {' and '.join(missing)}, which '{corpus.name}' does not have"
            )
    usable = metrics_of(corpus.task)
    name = plan.metric or usable[0].name
    if METRICS.load(name).task != corpus.task.kind:
        raise UserError(f"metric '{name}' is not for {corpus.task.kind}{did_you_mean(name, [m.name for m in usable])}")
    return plan.model_copy(update={"metric": name})


def cells(plan: Plan, corpus: Corpus, encoders: Mapping[str, str], device: str) -> tuple[Cell, ...]:
    """Every cell of the plan; seeds vary slowest, so that an unfinished run is balanced."""
    shared = {
        "format": FORMAT_VERSION,
        "corpus": corpus.fingerprint,
        "encoders": dict(encoders),
        "device": device,
        "training": plan.training.model_dump(mode="json"),
        "root_seed": plan.root_seed,
        "corruptions": [(name, CORRUPTIONS.load(name).version) for name in plan.corruptions],
        "conditions": [(c.corruption, c.rate, c.draw) for c in plan.conditions(corpus)],
    }
    found, compared = [], variants(plan)
    for seed in range(plan.seeds):
        for variant in compared:
            for regime in plan.regimes:
                for fold in range(len(corpus.folds)):
                    own = {
                        "model": variant.model,
                        "settings": variant.settings.model_dump(mode="json"),
                        "regime": regime,
                        "seed": seed,
                        "fold": corpus.folds[fold].name,
                    }
                    found.append(Cell(_digest(shared | own), variant, regime, seed, fold))
    return tuple(found)


def plan_digest(plan: Plan, wanted: Sequence[Cell]) -> str:
    """Names the plan and all that its results depend on."""
    return _digest({"plan": plan.model_dump(mode="json"), "cells": [cell.digest for cell in wanted]})


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
