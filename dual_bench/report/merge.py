"""Several runs in one report: those on one corpus become one run, if their plans can be compared."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dual_bench.report.unfinished import ended, unfinished
from dual_bench.schema import CellInfo, RunInfo
from dual_bench.shown import shortened
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
    by_plan: dict[str, list[Run]] = {}
    for run in runs:
        by_plan.setdefault(run.info.digest, []).append(run)
    told = [sentence for parts in by_plan.values() for sentence in _told(parts)]
    owners: dict[tuple[str, str, str], Run] = {}
    cells: dict[tuple[Any, ...], tuple[Run, CellInfo]] = {}
    notes: dict[str, None] = {}
    for run in map(_together, by_plan.values()):
        for cell in run.cells:
            if _training(cell) in cells and cells[_training(cell)][1].sha256 == cell.sha256:
                continue  # a cell that one took from the other
            owner = owners.setdefault((cell.model, cell.variant, cell.regime), run)
            if owner is not run:
                # seeds of one system may not come from two ways of making it
                notes[
                    f"{_name(owner)} and {_name(run)} both hold {system_name(cell.model, cell.variant)}, trained "
                    f"{cell.regime}, with rows that are not the same to the byte; all those of {_name(owner)} are used."
                ] = None
                continue
            cells.setdefault(_training(cell), (run, cell))
    return Run(
        RunFolder(folder),
        _info([run.info for run in runs], [cell.digest for _, cell in cells.values()]),
        tuple(cell for _, cell in cells.values()),
        {cell.digest: run.files[cell.digest] for run, cell in cells.values()},
        next((run.texts for run in runs if len(run.texts)), first.texts),
        faults=(*told, *notes),
        parts_of=tuple(runs),
    )


def _together(parts: Sequence[Run]) -> Run:
    """Parts of one plan as one run, its cells in the order of the plan; missing is what none of them has."""
    first, *others = parts
    if not others:
        return first
    found: dict[str, tuple[Run, CellInfo]] = {}
    for part in parts:
        for cell in part.cells:
            found.setdefault(cell.digest, (part, cell))
    there = [digest for digest in first.info.cells if digest in found]
    return Run(
        first.folder,
        first.info.model_copy(update={"status": "complete", "problem": None}),  # what is missing tells the rest
        tuple(found[digest][1] for digest in there),
        {digest: found[digest][0].files[digest] for digest in there},
        first.texts,
        tuple(digest for digest in first.info.cells if digest not in found),
        tuple(one for part in parts for one in part.failed if one.digest not in found),
    )


def _told(parts: Sequence[Run]) -> Iterator[str]:
    """What is to be said of the parts of one plan: of each what could not be read, of all together what is missing."""
    whole = _together(parts)
    yield from (f"{_name(part)}: {sentence}" for part in parts for sentence in part.faults)
    more = len(parts) - 1
    name = f"{_name(whole)} and {more} more {'part' if more == 1 else 'parts'} of its plan" if more else _name(whole)
    yield from (f"{name}: {sentence}" for sentence in unfinished(whole))
    if more and whole.missing:
        yield from (f"{_name(part)}: {sentence}" for part in parts if (sentence := ended(part.info)))


def _training(cell: CellInfo) -> tuple[Any, ...]:
    return (cell.model, cell.variant, cell.regime, cell.seed, cell.fold, cell.corruption, cell.rate)


def _name(run: Run) -> str:
    return str(run.folder.path)


def _check_comparable(one: Run, other: Run) -> None:
    """UserError with the first field that differs and must not."""
    differ = list(_differences(one, other))
    if not differ:
        return
    field, here, there = differ[0]
    more = f" (so {'does' if len(differ) == 2 else 'do'} {', '.join(name for name, _, _ in differ[1:])})"
    values = " and ".join(shortened(str(value), 80) for value in (here, there))
    raise UserError(
        f"{_name(one)} and {_name(other)} cannot be compared: {field} differs, {values}"
        f"{more if len(differ) > 1 else ''}; report on them one by one, or run one of them again with the plan of the "
        "other"
    )


def _differences(one: Run, other: Run) -> list[tuple[str, Any, Any]]:
    """(field, value, other value) of all that must be the same."""
    here, there = one.info, other.info
    found: list[tuple[str, Any, Any]] = [("corpus fingerprint", here.corpus.fingerprint, there.corpus.fingerprint)]
    found += [(name, _asked(here, name), _asked(there, name)) for name in ALIKE]
    found.append(("encoders", here.encoders, there.encoders))
    tuned = [info.tuning.digest[:12] if info.tuning else None for info in (here, there)]
    found.append(("presets", tuned[0], tuned[1]))
    if here.study or there.study:  # an ablation stands by itself, but for parts of the same
        studies = [info.study.digest if info.study else None for info in (here, there)]
        found += [("study", studies[0], studies[1]), ("digest of the plan", here.digest, there.digest)]
    differ = [(name, mine, theirs) for name, mine, theirs in found if mine != theirs]
    if not differ and (where := _other_words(one.texts, other.texts)):
        differ = [("what the models read", f"{where} of the one", f"{where} of the other")]
    return differ


def _asked(info: RunInfo, field: str) -> Any:
    """A field of the plan, without what makes no difference: clean text as a rate, the order of corruptions, and how
    many seeds were trained stacked."""
    value = info.plan.get(field)
    if field == "training":
        return {name: each for name, each in (value or {}).items() if name != "pack"}
    if field == "rates":
        return sorted({float(rate) for rate in value or () if float(rate) > 0})
    if field == "corruptions":
        return sorted(value or ())
    return list(value or ()) if field == "severities" else value


def _other_words(one: pd.DataFrame, other: pd.DataFrame) -> str:
    """The first condition under which two runs read other words; nothing where they read the same, or texts are lost:
    another version of a corruption, say, is in no plan."""
    keys = ["corruption", "rate", "draw", "utterance"]
    if one.empty or other.empty:
        return ""
    sides = [side[[*keys, "text"]].astype(dict.fromkeys(("corruption", "utterance"), str)) for side in (one, other)]
    both = sides[0].merge(sides[1], on=keys, how="outer", suffixes=("", "_other"))
    wrong = both[both["text"].ne(both["text_other"])]
    return "" if wrong.empty else f"{wrong['corruption'].iloc[0]} {wrong['rate'].iloc[0]:g}"


def _info(infos: Sequence[RunInfo], cells: Sequence[str]) -> RunInfo:
    """What the comparison is of: the plan of the first run, with the models and regimes of all."""
    first = infos[0]
    plan = first.plan | {
        field: list(dict.fromkeys(value for info in infos for value in info.plan[field]))
        for field in ("models", "regimes")
    }
    questions = list(dict.fromkeys(info.plan.get("question", "") for info in infos))
    name = " + ".join(dict.fromkeys(info.name for info in infos))
    systems = {name: folds for info in infos if info.tuning for name, folds in info.tuning.systems.items()}
    digest = hashlib.sha256(" ".join(info.digest for info in infos).encode()).hexdigest()
    return first.model_copy(
        update={
            "plan": plan | {"name": name, "question": questions[0] if len(questions) == 1 else ""},
            "name": name,
            "digest": digest if len({info.digest for info in infos}) > 1 else first.digest,
            "cells": tuple(cells),
            "tuning": first.tuning and first.tuning.model_copy(update={"systems": systems}),
            "status": "complete",  # what is not is said of each plan
            "problem": None,
        }
    )
