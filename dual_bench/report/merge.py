"""Several runs in one report: those on one corpus become one run, if their plans can be compared."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dual_bench.report.unfinished import unfinished
from dual_bench.schema import CellInfo, RunInfo
from dual_bench.stats.frame import system_name
from dual_bench.store import Run, RunFolder
from dual_bench.types import UserError

ALIKE = ("metric", "corruptions", "rates", "severities", "draws", "seeds", "root_seed", "training")
"""Fields of the plan that must be the same: what models are asked, how often, and how they are trained. They may differ
in models and regimes."""


def merged(runs: Sequence[Run], folder: Path) -> list[Run]:
    """A run for each corpus, in the order given; UserError where two on one corpus cannot be compared, saying which
    field differs."""
    by_corpus: dict[str, list[Run]] = {}
    for run in runs:
        by_corpus.setdefault(run.info.corpus.name, []).append(run)
    return [_one(of_corpus, folder) for of_corpus in by_corpus.values()]


def _one(runs: Sequence[Run], folder: Path) -> Run:
    first, *others = runs
    if not others:
        return first
    for other in others:
        _check_comparable(first, other)
    cells: dict[tuple[Any, ...], tuple[Run, CellInfo]] = {}
    notes: dict[str, None] = {}
    for run in runs:
        for cell in run.cells:
            kept, same = cells.setdefault(_training(cell), (run, cell))
            if same.sha256 != cell.sha256:
                notes[
                    f"{_name(kept)} and {_name(run)} both hold {system_name(cell.model, cell.variant)}, trained "
                    f"{cell.regime}, with rows that are not the same to the byte; those of {_name(kept)} are used."
                ] = None
    told = [f"{_name(run)}: {sentence}" for run in runs for sentence in (*run.faults, *unfinished(run))]
    return Run(
        RunFolder(folder),
        _info([run.info for run in runs], [cell.digest for _, cell in cells.values()]),
        tuple(cell for _, cell in cells.values()),
        {cell.digest: run.files[cell.digest] for run, cell in cells.values()},
        next((run.texts for run in runs if len(run.texts)), first.texts),
        faults=(*told, *notes),
        parts_of=tuple(runs),
    )


def _training(cell: CellInfo) -> tuple[Any, ...]:
    return (cell.model, cell.variant, cell.regime, cell.seed, cell.fold, cell.corruption, cell.rate)


def _name(run: Run) -> str:
    return str(run.folder.path)


def _check_comparable(one: Run, other: Run) -> None:
    """UserError with the first field that differs and must not."""
    differ = list(_differences(one.info, other.info))
    if not differ:
        return
    field, here, there = differ[0]
    more = f" (so {'does' if len(differ) == 2 else 'do'} {', '.join(name for name, _, _ in differ[1:])})"
    raise UserError(
        f"{_name(one)} and {_name(other)} cannot be compared: {field} differs, {_short(here)} and {_short(there)}"
        f"{more if len(differ) > 1 else ''}; report on them one by one, or run one of them again with the plan of the "
        "other"
    )


def _differences(one: RunInfo, other: RunInfo) -> list[tuple[str, Any, Any]]:
    """(field, value, other value) of all that must be the same."""
    found: list[tuple[str, Any, Any]] = [("corpus fingerprint", one.corpus.fingerprint, other.corpus.fingerprint)]
    found += [(name, one.plan.get(name), other.plan.get(name)) for name in ALIKE]
    found.append(("encoders", one.encoders, other.encoders))
    if one.study or other.study:  # an ablation stands by itself, but for parts of the same
        studies = [info.study.digest if info.study else None for info in (one, other)]
        found += [("study", studies[0], studies[1]), ("digest of the plan", one.digest, other.digest)]
    return [(name, here, there) for name, here, there in found if here != there]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _info(infos: Sequence[RunInfo], cells: Sequence[str]) -> RunInfo:
    """What the comparison is of: the plan of the first run, with the models and regimes of all."""
    first = infos[0]
    plan = first.plan | {
        field: list(dict.fromkeys(value for info in infos for value in info.plan[field]))
        for field in ("models", "regimes")
    }
    questions = list(dict.fromkeys(info.plan.get("question", "") for info in infos))
    name = " + ".join(dict.fromkeys(info.name for info in infos))
    digest = hashlib.sha256(" ".join(info.digest for info in infos).encode()).hexdigest()
    return first.model_copy(
        update={
            "plan": plan | {"name": name, "question": questions[0] if len(questions) == 1 else ""},
            "name": name,
            "digest": digest if len({info.digest for info in infos}) > 1 else first.digest,
            "cells": tuple(cells),
            "status": "complete",  # what is not is said of each run
            "problem": None,
        }
    )
