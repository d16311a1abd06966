"""What a name on the command line stands for, and every check that fits it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from dual_bench.catalog import CORRUPTIONS, DATASETS, MODELS, Catalog, did_you_mean, is_folder, parse_spec, validated
from dual_bench.contract import corpora, corruptions, models
from dual_bench.contract.checks import Finding, findings
from dual_bench.corruptions.noise import load
from dual_bench.models.spec import ModelSpec, kind_of, spec_of
from dual_bench.plan import load_corpus
from dual_bench.types import Corruption, UserError

_CATALOGS = {catalog.kind: catalog for catalog in (MODELS, CORRUPTIONS, DATASETS)}


def examine(target: str, kind: str | None, data: Path) -> tuple[str, Iterator[Finding]]:
    """The kind of a part, by default as it looks, and the findings of its checks, which are made as they are asked for.

    UserError where there is no such part, or its settings or the folder ``data`` of the real corpora are at fault. What
    a manifest of the user's own does wrong is a finding.
    """
    name, given = parse_spec(target)
    if kind is not None and kind not in _CATALOGS:
        raise UserError(f"--as: expected {', '.join(_CATALOGS)}, found '{kind}'{did_you_mean(kind, _CATALOGS)}")
    kind = kind or _kind_of(name)
    if kind == MODELS.kind:
        spec = spec_of(name, MODELS.load(name))
        settings = validated(spec.settings, given, f"model '{name}'")
        return kind, findings(models.PROMISES, models.Subject(spec, settings))
    if kind == CORRUPTIONS.kind:
        if given:
            raise UserError(f"corruption '{name}' has no settings; name it alone")
        return kind, findings(corruptions.PROMISES, load(name))
    if not name.endswith(".csv") and not is_folder(name):
        DATASETS.load(name)
    subject = corpora.Subject(partial(load_corpus, target, data))
    if name in DATASETS.entries and isinstance(subject.outcome, UserError):
        raise subject.outcome
    return kind, findings(corpora.PROMISES, subject)


def _kind_of(name: str) -> str:
    """What a part is by its name, or else by its looks; UserError where neither tells."""
    if name.endswith(".csv"):
        if not Path(name).is_file():
            raise UserError(f"manifest {name} is missing")
        return DATASETS.kind
    if is_folder(name):
        return DATASETS.kind
    homes = [kind for kind, catalog in _CATALOGS.items() if name in catalog.parts]
    if len(homes) > 1:
        raise UserError(f"'{name}' is a {' and a '.join(homes)}; say which is meant with --as")
    if homes:
        return homes[0]
    if ":" not in name:
        known = [known for catalog in _CATALOGS.values() for known in catalog.parts]
        raise UserError(f"unknown model, corruption or corpus '{name}'{_near(name, known)}")
    found = Catalog("part", {}).load(name)
    if isinstance(found, Corruption):
        return CORRUPTIONS.kind
    if isinstance(found, ModelSpec):
        return MODELS.kind
    given = _given_by_place(found) if inspect.isfunction(found) else []
    if not given:
        raise UserError(
            f"'{name}' is {kind_of(found)}: expected a model (a ModelSpec, or a function of widths and task), "
            "a Corruption, or a corpus (a manifest.csv, or a function of the folder of data); say which with --as"
        )
    if "rate" in given:
        raise UserError(f"'{name}' looks like the function of a corruption; name the Corruption that holds it")
    return DATASETS.kind if len(given) == 1 else MODELS.kind


def _near(name: str, known: list[str]) -> str:
    hint = did_you_mean(name, known)
    return hint if "did you mean" in hint else "; `dual-bench list` shows what there is"


def _given_by_place(function: Callable[..., object]) -> list[str]:
    """Names of the parameters that can be given by place, and have to be given."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in inspect.signature(function).parameters.values() if p.kind in kinds and p.default is p.empty]
