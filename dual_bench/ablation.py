"""An ablation: a question, an expectation and a margin, written down in a study file before anything is trained.

A study becomes a plan (what to train and test), and a record of what is to be compared with what, which is stored with
the results: a report needs nothing else. The comparisons are in ``stats.effects``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from dual_bench.catalog import METRICS, format_settings, joined_spec, parse_spec, validated
from dual_bench.plan import Design, Plan, Regime, Variant, check_names, once, read_fields, variants
from dual_bench.schema import ComparisonInfo, Expected, StudyInfo, Term
from dual_bench.stats.frame import system_name
from dual_bench.study import find_study, read_file
from dual_bench.types import UserError

Change = dict[str, bool | int | float | str]
"""Settings of a model by name; switches are ``on``, ``off`` or ``plain``."""


class VariantOf(BaseModel):
    """The baseline with some settings changed, or trained in another regime, or both."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = ""
    """By default what is changed."""
    change: Change = {}
    regime: Regime | None = None
    expected: Expected | None = None
    """By default that of the study."""

    @property
    def title(self) -> str:
        trained = [f"trained {self.regime}"] if self.regime else []
        return self.name or ", ".join([*([format_settings(self.change)] if self.change else []), *trained])


class Factor(BaseModel):
    """A part that is on in one half of all cells and off in the other."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1)]
    off: Annotated[Change, Field(min_length=1)]
    expected: Expected | None = None


class Study(Design):
    """The lab note, a field of the file each; regimes, noise, seeds and training are those of a plan."""

    question: Annotated[str, Field(min_length=1)]
    metric: Annotated[str, Field(min_length=1)]
    margin: Annotated[float, Field(gt=0)]
    """The smallest difference that matters, in the unit of the metric (0.02 is two points of accuracy)."""
    expected: Expected = "loss"
    """What a variant is expected to show against the baseline: a loss, a gain, or none that matters."""
    primary: Annotated[tuple[str, ...], Field(min_length=1)] = ("clean",)
    """The quantities that the expectation is about; every other is looked at, but decides nothing."""
    baseline: str = "dual"
    variants: tuple[VariantOf, ...] = ()
    factors: Annotated[tuple[Factor, ...], Field(max_length=8)] = ()
    """In place of variants: a full factorial, every factor on and off with every other; 8 make 256 models."""
    interactions: Expected = "none"
    """What is expected of the two-way interactions of the factors."""

    @field_validator("primary")
    @classmethod
    def _each_once(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return once(values)


def read_study(name: str, overrides: Mapping[str, Any], code: Collection[str] = ()) -> tuple[Plan, StudyInfo]:
    """The plan of study ``name`` with ``overrides`` in place of its fields, and the record of its comparisons; ``code``
    as in ``plan.read_plan``.

    UserError where something is unknown, a variant is its baseline, or a change of metric leaves the margin behind.
    """
    fields, where = read_fields(name, overrides, code)
    what = f"study {where}"
    if "models" in fields:
        raise UserError(f"{what} compares models; use `dual-bench run {name}`")
    study = validated(Study, fields, what)
    if bool(study.variants) == bool(study.factors):
        raise UserError(f"{what}: expected variants or factors, found {'both' if study.factors else 'neither'}")
    if "margin" not in overrides and overrides.get("metric", study.metric) != _metric_of(name):
        raise UserError(f"{what}: the margin of {study.margin:g} is not meant for another metric; give --margin too")
    METRICS.load(study.metric)
    specs = _specs(study, what)
    regimes = dict.fromkeys([*study.regimes, *(v.regime for v in study.variants if v.regime)])
    given = {key: getattr(study, key) for key in Design.model_fields if key in study.model_fields_set}
    plan = validated(Plan, {**given, "models": list(specs), "regimes": list(regimes)}, what)
    check_names(plan, what)
    systems = dict(zip(specs, variants(plan), strict=True))
    text = find_study(name)[0]
    record = StudyInfo(
        where=where,
        digest=hashlib.sha256(text.encode()).hexdigest(),
        replaced={key: _said(value) for key, value in sorted(overrides.items())},
        margin=study.margin,
        primary=study.primary,
        baseline=_system(systems[study.baseline]),
        titles=_titles(study, systems),
        comparisons=tuple(_factorial(study, systems) if study.factors else _variants(study, systems)),
    )
    return plan, record


def _specs(study: Study, what: str) -> tuple[str, ...]:
    """Every model of the study as a spec, the baseline first; UserError where a variant is nothing of its own."""
    names = [v.title for v in study.variants] or [f.name for f in study.factors]
    for name in names:
        if not name:
            raise UserError(f"{what}: a variant changes nothing; give it a change or a regime")
        if names.count(name) > 1:
            raise UserError(f"{what}: two variants are called '{name}'; give one of them another name")
    specs = [study.baseline]
    seen: dict[tuple[str, str | None], str] = {}
    base = _validated(study.baseline, study)
    for variant in study.variants:
        spec = changed(study.baseline, [variant.change])
        same = _validated(spec, study).settings == base.settings
        if same and (variant.regime is None or study.regimes == (variant.regime,)):
            raise UserError(
                f"{what}: variant '{variant.title}' equals its baseline '{study.baseline}'; change something"
            )
        if (spec, variant.regime) in seen:
            raise UserError(f"{what}: '{variant.title}' is the same as '{seen[spec, variant.regime]}'; leave one out")
        seen[spec, variant.regime] = variant.title
        if not same:
            specs.append(spec)
    touched = [key for factor in study.factors for key in factor.off]
    if twice := [key for key in touched if touched.count(key) > 1]:
        raise UserError(f"{what}: two factors change '{twice[0]}', and would not be told apart; let one do so")
    for off in _cells(study.factors):
        specs.append(changed(study.baseline, [f.off for f in study.factors if f.name in off]))
    return tuple(dict.fromkeys(specs))


def _metric_of(name: str) -> str:
    """The metric that the margin of a study file is meant for."""
    return str(read_file(name)[0].get("metric", ""))


def _said(value: object) -> str:
    """The value of a flag for people.

    >>> _said(["clean", "mixed"]), _said({"epochs": 2}), _said(0.05)
    ('clean, mixed', 'epochs=2', '0.05')
    """
    if isinstance(value, Mapping):
        return format_settings(value)
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _validated(spec: str, study: Study) -> Variant:
    """One model of the study, its settings validated."""
    fields = {"name": study.name, "dataset": study.dataset, "models": [spec]}
    return variants(Plan.model_validate(fields))[0]


def changed(baseline: str, changes: Iterable[Change]) -> str:
    """The spec of the baseline with settings changed; UserError where that would be another model.

    >>> changed("dual:time_mixing=off", [{"sdm": False}, {"vdm": "plain"}])
    'dual:sdm=off,time_mixing=off,vdm=plain'
    >>> changed("dual", [])
    'dual'
    """
    name, settings = parse_spec(baseline)
    for change in changes:
        settings |= change
    return joined_spec(name, settings)


def _system(variant: Variant) -> str:
    return system_name(variant.model, variant.changed)


def _variants(study: Study, systems: Mapping[str, Variant]) -> Iterator[ComparisonInfo]:
    """Each variant against the baseline, in each regime of the study."""
    base = _system(systems[study.baseline])
    settings = systems[study.baseline].settings
    for variant in study.variants:
        spec = changed(study.baseline, [variant.change])
        own = systems.get(spec)
        system = base if own is None or own.settings == settings else _system(own)
        for regime in study.regimes:
            trained = variant.regime or regime
            if (system, trained) == (base, regime):
                continue
            yield ComparisonInfo(
                name=variant.title,
                kind="variant",
                regime=trained if variant.regime is None else f"{trained} against {regime}",
                expected=variant.expected or study.expected,
                terms=(
                    Term(weight=1, system=system, regime=trained),
                    Term(weight=-1, system=base, regime=regime),
                ),
            )


def _titles(study: Study, systems: Mapping[str, Variant]) -> dict[str, str]:
    """What each system is called."""
    found = {}
    for off in _cells(study.factors):
        found[changed(study.baseline, [f.off for f in study.factors if f.name in off])] = (
            f"{', '.join(f.name for f in study.factors if f.name in off)} off"
        )
    for variant in study.variants:
        found.setdefault(changed(study.baseline, [variant.change]), variant.name or format_settings(variant.change))
    found[study.baseline] = study.baseline
    return {_system(systems[spec]): title for spec, title in found.items() if spec in systems}


def _cells(factors: Sequence[Factor]) -> Iterator[frozenset[str]]:
    """The names of the factors that are off, in every cell of the factorial; none in the first."""
    for levels in product((False, True), repeat=len(factors)):
        if factors:
            yield frozenset(f.name for f, off in zip(factors, levels, strict=True) if off)


def _factorial(study: Study, systems: Mapping[str, Variant]) -> Iterator[ComparisonInfo]:
    """Main effects and two-way interactions of 2^k cells, each estimated from all of them (Box, Hunter & Hunter 2005,
    ch. 5).

    With x_f = 1 where factor f is off and -1 where it is on, and y the metric of a cell, the main effect of f is
    sum x_f y / 2^(k-1): the mean with the part off minus the mean with it on. The interaction of f and g is
    sum x_f x_g y / 2^(k-1): half the difference between the effect of f where g is off and where it is on.
    """
    cells = {
        off: _system(systems[changed(study.baseline, [f.off for f in study.factors if f.name in off])])
        for off in _cells(study.factors)
    }
    by_name = {f.name: f for f in study.factors}
    for size in (1, 2):
        for names in combinations(by_name, size):
            expected = by_name[names[0]].expected or study.expected if size == 1 else study.interactions
            for regime in study.regimes:
                terms = []
                for off, system in cells.items():
                    sign = 1
                    for name in names:
                        sign *= 1 if name in off else -1
                    terms.append(Term(weight=sign * 2 / len(cells), system=system, regime=regime))
                yield ComparisonInfo(
                    name=" x ".join(names) if size == 2 else f"{names[0]} off",
                    kind="interaction" if size == 2 else "main effect",
                    regime=regime,
                    expected=expected,
                    terms=tuple(terms),
                )
