"""A plan: TOML and flags, validated, and the cells it asks for.

A *cell* is one trained model (model, settings, regime, seed, fold) together with its predictions under every
condition: training is the dear part and conditions share it, so it is what is stored, skipped and resumed as a whole.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from dual_bench.catalog import (
    CORRUPTIONS,
    DATASETS,
    METRICS,
    MODELS,
    check_code,
    corpus_spec,
    did_you_mean,
    digest_of,
    format_settings,
    parse_spec,
    parts,
    validated,
)
from dual_bench.corruptions.noise import load
from dual_bench.corruptions.recogniser import parsed_rate
from dual_bench.features.encoder import DEFAULTS, encoders_of, with_settings
from dual_bench.metrics import Metric
from dual_bench.models.spec import ModelSpec, spec_of
from dual_bench.preset import Preset, applied
from dual_bench.schema import SeverityPoint, StudyInfo
from dual_bench.stats.frame import system_name
from dual_bench.study import is_ablation, read_file
from dual_bench.training import TrainingSettings
from dual_bench.types import CLEAN, TRANSCRIPT_PREFIX, Condition, Corpus, Modality, Task, UserError

Regime = Literal["clean", "matched", "mixed", "modality-dropout"]
DEFAULT_STUDY = "default"
FORMAT_VERSION = 5
"""Raised whenever the same plan would give other numbers; part of every digest."""


class Regimen(NamedTuple):
    """What a model is trained on: a regime and, where that is ``matched``, the corruption and its rate."""

    regime: Regime
    corruption: str = ""
    rate: float = 0.0

    @property
    def title(self) -> str:
        return f"{self.regime} {self.corruption} {self.rate:g}" if self.corruption else self.regime


Rate = Annotated[float, BeforeValidator(parsed_rate), Field(ge=0, le=1)]


class Design(BaseModel):
    """On what, under which noise, how often: the fields that comparisons and ablations share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    question: str = ""
    dataset: str
    regimes: Annotated[tuple[Regime, ...], Field(min_length=1)] = ("clean", "mixed")
    corruptions: tuple[str, ...] = ("word-drop", "utterance-drop")
    rates: tuple[Rate, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    """Nominal rates in [0, 1], or signal-to-noise ratios such as "10 dB"."""
    severities: tuple[Annotated[int, Field(ge=1, le=5)], ...] = ()
    """In place of rates: 1 to 5, word error rates of .10 .20 .35 .50 .70 (``corruptions.severity``)."""
    draws: Annotated[int, Field(ge=1)] = 5
    seeds: Annotated[int, Field(ge=1)] = 5
    root_seed: int = 0
    dependency: bool = True
    """Whether every model is also asked what it says with modalities taken away or exchanged (``probe``): Shapley
    values need it."""
    metric: str = ""
    """The primary metric; by default accuracy or mae."""
    training: TrainingSettings = TrainingSettings()
    presets: str = ""
    """Settings that ``dual-bench tune`` chose: a preset file, ``auto`` for the one that comes along, or none."""
    encoders: dict[str, str] = {}
    """Encoders of sound, pictures and words by modality, as specs; a modality that is left out has the default."""

    @field_validator("presets")
    @classmethod
    def _none(cls, value: str) -> str:
        return "" if value == "none" else value

    @field_validator("severities")
    @classmethod
    def _ascending(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(values))

    @field_validator("regimes", "corruptions", "rates", "severities")
    @classmethod
    def _once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return once(values)


def once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values, for a validator; ValueError where one stands twice."""
    twice = [value for value in values if values.count(value) > 1]
    if twice:
        raise ValueError(f"'{twice[0]}' stands twice")
    return values


class Plan(Design):
    """What to compare; one field of a study file each."""

    models: Annotated[tuple[str, ...], Field(min_length=1)]
    """Specs, ``name`` or ``name:setting=value,…``; the reference of every comparison is ``dual``, or else the first."""

    @field_validator("models")
    @classmethod
    def _each_once(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return once(values)

    @property
    def from_elsewhere(self) -> bool:
        """Whether a model does not come with dual-bench: nobody vouches for its code."""
        return any(parse_spec(text)[0] not in MODELS.entries for text in self.models)

    def conditions(self, corpus: Corpus, scale: Sequence[SeverityPoint] = ()) -> tuple[Condition, ...]:
        """Clean first, then each corruption by rate and draw, then the transcripts that the corpus brings, and last
        what depends on the model, of which there is one draw.

        Rates come from ``scale`` where the plan names severities. Severities that share a rate, because the corruption
        cannot do more, are one condition, with the lowest of them.
        """
        noisy: list[Condition] = []
        worst: list[Condition] = []
        for name in self.corruptions:
            model = load(name).needs == "model"
            points = sorted((p for p in scale if p.corruption == name), key=lambda p: p.severity, reverse=True)
            found = {point.rate: point.severity for point in points}
            chosen = found if self.severities else {rate: 0 for rate in self.rates if rate > 0}
            for rate, severity in sorted(chosen.items()):
                draws = range(1 if model else self.draws)
                (worst if model else noisy).extend(Condition(name, rate, draw, severity) for draw in draws)
        heard = (Condition(f"{TRANSCRIPT_PREFIX}{name}", 1.0) for name in corpus.transcripts)
        return (CLEAN, *noisy, *heard, *worst)


def quantities(plan: Design, conditions: Sequence[Condition]) -> tuple[str, ...]:
    """What can be compared, by name: ``clean``, each condition, and each whole corruption that has several rates."""
    found = ["clean"]
    for name in dict.fromkeys(c.corruption for c in conditions if c != CLEAN):
        rates = sorted({c.rate for c in conditions if c.corruption == name})
        if name.startswith(TRANSCRIPT_PREFIX):
            found.append(name)
            continue
        found += [f"{name} {'mean' if plan.severities else 'area'}"] if len(rates) > 1 else []
        found += [f"{name} {rate}" for rate in rates]
    return tuple(found)


def depends_on_model(condition: Condition) -> bool:
    """Whether the words of a condition are chosen for each model."""
    return condition.made and load(condition.corruption).needs == "model"


def largest_rates(conditions: Iterable[Condition]) -> dict[str, float]:
    """Each corruption that training can meet, in the order of the plan, with the largest rate at which it is tested."""
    found: dict[str, float] = {}
    for c in conditions:
        if c.made and not depends_on_model(c):
            found[c.corruption] = max(c.rate, found.get(c.corruption, 0.0))
    return found


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

    @property
    def system(self) -> str:
        """Its name in tables."""
        return system_name(self.model, self.changed)

    def tuned(self, preset: Preset | None, fold: str) -> BaseModel:
        """The settings, with what a preset has for this fold where the plan sets none."""
        chosen = preset.of(self.model, self.system).get(fold) if preset else None
        return applied(self.settings, chosen.settings, f"presets of '{self.model}'") if chosen else self.settings


@dataclass(frozen=True, slots=True)
class Cell:
    """One trained model under the conditions it is asked about; ``digest`` names everything its rows depend on."""

    digest: str
    variant: Variant
    settings: BaseModel
    """The variant's, with those of a preset for this fold."""
    regimen: Regimen
    reads: Regimen
    """What training reads: matched to clean text is clean, so is noise to a model that reads no words, and no modality
    can be spared by a model that reads one."""
    seed: int
    fold: int
    conditions: tuple[int, ...]
    """Numbers of conditions of the plan: all of them; of a ``matched`` model those alone that it was trained for."""
    pack: tuple[int, int]
    """The first of the seeds that are trained stacked with it, itself among them, and how many there are; 1 alone."""
    probed: bool
    """Whether it is asked what it says with modalities taken away: never a ``matched`` model that trained on noise, as
    it is not asked about clean text."""

    @property
    def packed(self) -> range:
        """The seeds of its pack."""
        return range(self.pack[0], sum(self.pack))

    @property
    def title(self) -> str:
        """What is trained, for people."""
        return f"{self.variant.system} {self.regimen.title} seed {self.seed}"

    @property
    def training(self) -> tuple[str | int, ...]:
        """Cells of equal key share their training, those of a pack with seeds of their own."""
        regime, corruption, rate = self.reads
        return *self.pack, self.variant.model, self.variant.changed, regime, corruption, repr(rate), self.fold


TEXT_SETTINGS = "text settings"
"""Overrides of a study may have, under this name, settings of its text encoder by name: whichever that is."""


def read_plan(name: str, overrides: Mapping[str, Any], code: Collection[str] = ()) -> Plan:
    """The study ``name`` with ``overrides`` in place of its fields; UserError names the first thing that is unknown.

    Parts of the user's own that the file mentions have to be among ``code`` or ``overrides``.
    """
    fields, where = read_fields(name, overrides, code)
    if is_ablation(fields):
        raise UserError(f"study {where} is an ablation; use `dual-bench ablate {name}`")
    plan = validated(Plan, fields, f"study {where}")
    check_names(plan, f"study {where}")
    return plan


def read_fields(name: str, overrides: Mapping[str, Any], code: Collection[str] = ()) -> tuple[dict[str, Any], str]:
    """The fields of a study file with ``overrides`` in their place, and where it was found; UserError where it mentions
    code that neither ``code`` nor ``overrides`` name."""
    fields, where = read_file(name)
    for chosen, other in (("rates", "severities"), ("severities", "rates")):
        if chosen in overrides and other not in overrides:
            fields.pop(other, None)
    for key in ("training", "encoders"):
        if not isinstance(fields.get(key, {}), dict):
            raise UserError(f"study {where}: expected a table [{key}], found {str(fields[key])[:40]!r}")
    tables = {key: {**fields.get(key, {}), **overrides[key]} for key in ("training", "encoders") if key in overrides}
    fields |= {key: value for key, value in overrides.items() if key != TEXT_SETTINGS} | tables
    check_code(fields, f"study {where}", code, overrides)
    if TEXT_SETTINGS in overrides:
        encoders = fields.get("encoders", {})
        before = encoders.get("text", DEFAULTS["text"])
        text = with_settings(before, overrides[TEXT_SETTINGS])
        others = {key: value for key, value in encoders.items() if key != "text"}
        if text != before:  # a study that spells out a default keeps it, and one that does not is not given it
            fields["encoders"] = others if text == DEFAULTS["text"] else {**others, "text": text}
    return fields, where


def sources(plan: Plan) -> dict[str, str]:
    """sha256 of the file of each part of a plan that does not come with dual-bench, by its name; all are loaded."""
    return {name: source for catalog, name in parts(plan.model_dump()) if (source := catalog.source(name))}


def check_names(plan: Plan, what: str) -> None:
    """UserError where a plan names something unknown, or things that do not go together."""
    variants(plan)
    if plan.metric:
        METRICS.load(plan.metric)
    if plan.severities and "rates" in plan.model_fields_set:
        raise UserError(f"{what}: expected rates or severities, found both; leave one out")
    encoders_of(plan.encoders)
    _check_corruptions(plan)


def _check_corruptions(plan: Plan) -> None:
    """UserError where the corruptions of a plan do not go with its regimes, or with severities."""
    needs = {name: load(name).needs for name in plan.corruptions}
    on_model = [name for name, needed in needs.items() if needed == "model"]
    behind = [name for name, needed in needs.items() if needed == "tokens"]
    if plan.severities and behind:
        raise UserError(f"severities are word error rates, and '{behind[0]}' acts behind the words; give rates")
    if "mixed" in plan.regimes and (len(on_model) == len(needs) or not (plan.severities or any(plan.rates))):
        raise UserError(
            "regime 'mixed' trains on noisy words; name a corruption that does not depend on the model, and a rate "
            "above 0, or leave the regime out"
        )
    if "matched" in plan.regimes and on_model:
        raise UserError(
            f"regime 'matched' cannot train on '{on_model[0]}', which exists for trained models only; leave one out"
        )


def variants(plan: Plan) -> tuple[Variant, ...]:
    """The models of the plan, settings validated; UserError where one is unknown, or two are the same."""
    found: list[Variant] = []
    for text in plan.models:
        name, given = parse_spec(text)
        spec = spec_of(name, MODELS.load(name))
        settings = validated(spec.settings, given, f"model '{name}'")
        defaults = spec.settings()
        changed = {key: getattr(settings, key) for key in given if getattr(settings, key) != getattr(defaults, key)}
        variant = Variant(name, format_settings(changed), spec, settings)
        if any((other.model, other.changed) == (variant.model, variant.changed) for other in found):
            raise UserError(f"model '{text}' is the same as another of the plan; leave one out")
        found.append(variant)
    return tuple(found)


def load_corpus(spec: str, data: Path) -> Corpus:
    """The corpus ``spec`` names (``catalog.corpus_spec``)."""
    name, settings = corpus_spec(spec)
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
    for name in plan.corruptions:
        if load(name).needs == "sound" and corpus.heard is None:
            raise UserError(f"corruption '{name}' needs sound, and '{corpus.name}' has none but features; leave it out")
    for modality in {"audio", "vision"} & set(plan.encoders):
        signal = corpus.signals.get(cast(Modality, modality))
        if signal is None or signal.kind == "features":
            why = "does not have" if signal is None else "has as features, encoded elsewhere"
            raise UserError(f"an encoder for {modality} is given, which '{corpus.name}' {why}; leave it out")
    usable = metrics_of(corpus.task)
    name = plan.metric or usable[0].name
    if METRICS.load(name).task != corpus.task.kind:
        raise UserError(f"metric '{name}' is not for {corpus.task.kind}{did_you_mean(name, [m.name for m in usable])}")
    return plan.model_copy(update={"metric": name, "training": _packed(plan)})


def _packed(plan: Plan) -> TrainingSettings:
    """The settings of training, with no larger packs than there are seeds; UserError where no model can be stacked."""
    size = plan.training.pack
    if size == "auto" or size == 1:
        return plan.training
    if not any(variant.spec.stackable for variant in variants(plan)):
        able = [name for name in MODELS.entries if spec_of(name, MODELS.load(name)).stackable]
        raise UserError(
            f"pack = {size}, but none of the models can be trained stacked ({', '.join(able)} can); leave it out"
        )
    return plan.training.model_copy(update={"pack": min(size, plan.seeds)})


@contextmanager
def keeping() -> Iterator[None]:
    """No search for garbage inside the block: where a million things are made and kept, that takes half of the time."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


@keeping()
def cells(
    plan: Plan,
    corpus: Corpus,
    conditions: Sequence[Condition],
    encoders: Mapping[str, str],
    device: str,
    preset: Preset | None = None,
) -> tuple[Cell, ...]:
    """Every cell of the plan; seeds vary slowest, so that an unfinished run is balanced."""
    shared = {
        "format": FORMAT_VERSION,
        "corpus": corpus.fingerprint,
        "encoders": dict(encoders),
        "device": device,
        "training": plan.training.model_dump(mode="json", exclude={"pack"}),
        "root_seed": plan.root_seed,
    }
    asked = _asked(plan, conditions)
    about = {regimen: _facts(conditions, numbers, regimen) for regimen, numbers in asked.items()}
    found, alike = [], []
    for variant in variants(plan):
        trained = []
        chosen = {fold.name: variant.tuned(preset, fold.name) for fold in corpus.folds}
        for regimen, numbers in asked.items():
            probed = plan.dependency and conditions[numbers[0]] == CLEAN
            for fold, (name, settings) in enumerate(chosen.items()):
                own = {
                    "model": variant.model,
                    "settings": settings.model_dump(mode="json", exclude_none=True),
                    "regimen": regimen,
                    "fold": name,
                    "probe": plan.draws if probed else None,
                }
                if source := MODELS.source(variant.model):
                    own["source"] = source
                digest = _Digest(shared | own | about[regimen])
                trained.append((digest, settings, regimen, _read(variant, regimen), fold, numbers, probed))
        alike.append((variant, trained))
    for seed in range(plan.seeds):
        for variant, trained in alike:
            pack = _pack(plan, variant, seed)
            for digest, settings, regimen, reads, fold, numbers, probed in trained:
                named = digest.of(seed, pack)
                found.append(Cell(named, variant, settings, regimen, reads, seed, fold, numbers, pack, probed))
    return tuple(found)


class _Digest:
    """``digest_of`` of ``facts`` with a seed and, where there are others, its pack: a plan has many seeds, and all but
    these two is written and hashed once for all of them."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        parts: list[dict[str, Any]] = [{}, {}, {}]
        for key, value in facts.items():
            parts[(key > "pack") + (key > "seed")][key] = value
        before, self._between, self._after = (json.dumps(part, sort_keys=True)[1:-1] for part in parts)
        self._begun = hashlib.sha256(f"{{{before}, ".encode())

    def of(self, seed: int, pack: tuple[int, int]) -> str:
        shown = f'"pack": [{pack[0]}, {pack[1]}], ' if pack[1] > 1 else ""
        found = self._begun.copy()
        found.update(f'{shown}{self._between}, "seed": {seed}, {self._after}}}'.encode())
        return found.hexdigest()


def _read(variant: Variant, regimen: Regimen) -> Regimen:
    """What training reads of a regimen."""
    if regimen.regime == "modality-dropout":
        return regimen if len(variant.reads) > 1 else Regimen("clean")
    clean = "text" not in variant.reads or regimen.corruption == CLEAN.corruption
    return Regimen("clean") if clean else regimen


def _pack(plan: Plan, variant: Variant, seed: int) -> tuple[int, int]:
    """The pack of a seed: the plan alone decides, not what is left to do."""
    size = plan.training.pack
    assert size != "auto", "a plan's packs are settled before its cells"
    if not variant.spec.stackable:
        size = 1
    first = seed - seed % size
    return first, min(size, plan.seeds - first)


def _asked(plan: Plan, conditions: Sequence[Condition]) -> dict[Regimen, tuple[int, ...]]:
    """What is trained for each regime, and the numbers of the conditions that each is asked about."""
    found: dict[Regimen, tuple[int, ...]] = {}
    for regime in plan.regimes:
        for number, c in enumerate(conditions):
            regimen = Regimen(regime, c.corruption, c.rate) if regime == "matched" else Regimen(regime)
            found[regimen] = (*found.get(regimen, ()), number)
    return found


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those of ``packages`` that are installed."""
    found = {}
    for name in packages:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _facts(conditions: Sequence[Condition], numbers: Sequence[int], regimen: Regimen) -> dict[str, Any]:
    """What a cell's rows owe to its conditions and, where it trains on them, to all."""
    own = [conditions[number] for number in numbers]
    names = sorted({c.corruption for c in own if c.made})
    return {
        "corruptions": [
            (name, load(name).version, installed(load(name).packages), *filter(None, [CORRUPTIONS.source(name)]))
            for name in names
        ],
        "conditions": [astuple(c) for c in own],
        "mixture": list(largest_rates(conditions).items()) if regimen.regime == "mixed" else [],
    }


def plan_digest(
    plan: Plan, wanted: Sequence[Cell], study: StudyInfo | None = None, preset: Preset | None = None
) -> str:
    """Names the plan, what is asked of it, and all that its results depend on."""
    asked: dict[str, Any] = {} if study is None else {"study": study.model_dump(mode="json", exclude={"where"})}
    if preset is not None:
        asked["presets"] = preset.digest
    fields = plan.model_dump(mode="json", exclude={"presets", "encoders"})  # cells know what these come to
    return digest_of({"plan": fields, "cells": [cell.digest for cell in wanted]} | asked)
