"""Study files and where they are found."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from dual_bench.catalog import did_you_mean
from dual_bench.limits import TOML, read_text, toml
from dual_bench.types import UserError


def find_study(name: str) -> tuple[str, str]:
    """The text of a study file and where it was: a path, ``./ablations``, then those that come with the package."""
    path = Path(name)
    for candidate in (path, Path("ablations") / f"{name}.toml"):
        if candidate.is_file():
            try:
                return read_text(candidate, TOML, f"study {candidate}"), str(candidate)
            except UnicodeDecodeError:
                raise UserError(f"study {candidate} is not UTF-8 text") from None
    packaged = _packaged()
    if name not in packaged:
        raise UserError(f"no study '{name}' as a file, in ./ablations or in the package{did_you_mean(name, packaged)}")
    return packaged[name], f"{name}, which comes with dual-bench"


def read_file(name: str) -> tuple[dict[str, Any], str]:
    """The fields of a study file, whatever they are, and where it was found; UserError where it is no TOML."""
    text, where = find_study(name)
    return toml(text, f"study {where}"), where


def questions(ablations: bool) -> dict[str, str]:
    """What each comparison, or each ablation, that comes with the package asks."""
    read = {name: tomllib.loads(text) for name, text in _packaged().items()}
    return {name: str(fields["question"]) for name, fields in read.items() if ablations == is_ablation(fields)}


def is_ablation(fields: Mapping[str, Any]) -> bool:
    """Whether the fields of a study are those of an ablation."""
    return not fields.keys().isdisjoint({"variants", "factors"})


def _packaged() -> dict[str, str]:
    files = sorted(resources.files("dual_bench.studies").iterdir(), key=lambda item: item.name)
    return {f.name.removesuffix(".toml"): f.read_text(encoding="utf-8") for f in files if f.name.endswith(".toml")}
