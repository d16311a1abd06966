"""Fair budgets: every model may try as many settings as every other, its default first, and validation loss chooses.

A trial trains a model with some settings in each regime of the study, and counts with the mean over the regimes of the
validation loss of the epoch chosen. No trial sees the test part: jobs are made by ``prepare.training_job``, which
knows the training and the validation part of a fold alone. In a cross-validation the validation utterances of one fold
are test utterances of another, so each fold has trials of its own, and what they choose serves that fold alone. The
trainings have a stream of their own: no seed of a study is chosen for.

Half of the trials are drawn at random, the others by the tree-structured Parzen estimator (Bergstra et al. 2011,
Algorithms for Hyper-Parameter Optimization, NeurIPS), from the values that a model's settings name (``layers.Tried``).
Where the estimator comes back to a point, one that was not tried yet is drawn instead, so that no trial is spent twice.
"""

from __future__ import annotations

import csv
import io
import os
import shlex
import sys
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from math import fsum, inf, isfinite
from pathlib import Path
from typing import Any, cast

import pandas as pd
from pydantic import BaseModel, ValidationError

from dual_bench import provenance, training
from dual_bench.catalog import digest_of, format_settings, parse_spec
from dual_bench.job import THREADS, Job, trained
from dual_bench.limits import RECORD, TOML, check_size, read_text
from dual_bench.models.layers import Tried
from dual_bench.plan import Cell, Plan, Variant, largest_rates
from dual_bench.prepare import Encoded, ask, encode_all, in_silence, training_job
from dual_bench.preset import Chosen, Preset, Setting, Terms, parsed
from dual_bench.processes import cores, executor_of
from dual_bench.seeding import generator, seed_of
from dual_bench.store import check_writable, write_text
from dual_bench.types import DualBenchError, Report, UserError

Point = dict[str, Setting]
"""A value for each setting that is tuned."""


@dataclass(frozen=True)
class Trial:
    """Settings of one system in one fold; ``settings`` are those that differ from its default."""

    digest: str
    system: str
    fold: str
    number: int
    settings: Point
    losses: Mapping[str, float]
    """Validation loss by regime; inf where training diverged, nothing before it is done."""

    @property
    def loss(self) -> float:
        return fsum(self.losses.values()) / len(self.losses)


@dataclass(frozen=True)
class Tuned:
    """What was chosen, where it was written, and how many trials were trained now and found done."""

    preset: Preset
    file: Path
    trained: int
    known: int

    def summary(self) -> pd.DataFrame:
        """A row for each system and fold, in strings."""
        rows = [
            {"system": system, "fold": fold, "trials": str(chosen.spent)}
            | {"default": f"{chosen.default:.4f}", "best": f"{chosen.best:.4f}"}
            | {"settings": format_settings(chosen.settings) or "the default"}
            for system, folds in self.preset.models.items()
            for fold, chosen in folds.items()
        ]
        return pd.DataFrame(rows)


def tune(
    plan: Plan,
    trials: int,
    data: Path,
    cache: Path,
    out: Path | None = None,
    device: str = "auto",
    jobs: int = 0,
    report: Report = in_silence,
) -> Tuned:
    """Tune the models of ``plan``, and write the preset file ``out``, by default ``reports/tuning-<corpus>.toml``.

    The trials are written beside it, ``<out>-trials.csv``, as they end: what is there is not trained again. Models that
    the file has and the plan has not stay in it. UserError where it was made for something else.
    """
    _optuna()
    if "matched" in plan.regimes:
        raise UserError("regime 'matched' trains a model for each corruption and rate; tune with --regimes clean,mixed")
    fields = {"seeds": 1, "draws": 1, "dependency": False, "presets": "", "rates": (0.0, max(plan.rates, default=0.0))}
    unread = ask(plan.model_copy(update=fields), None, data, cache, training.resolve_device(device), report)
    code = provenance.code(provenance.gather(unread.device, THREADS, jobs, 1))
    wanted = Terms(
        corpus=unread.corpus.name,
        fingerprint=unread.corpus.fingerprint,
        trials=trials,
        root_seed=plan.root_seed,
        device=unread.device,
        regimes=plan.regimes,
        corruptions=largest_rates(unread.conditions) if "mixed" in plan.regimes else {},
        encoders=unread.encoders,
        training=plan.training.model_dump(mode="json", exclude={"pack"}),  # a trial has one seed
        code=code,
    )
    file = out or Path("reports") / f"tuning-{unread.corpus.name}.toml"
    earlier = _earlier(file, wanted)
    ledger = _Ledger(file.with_name(f"{file.stem}-trials.csv"), plan.regimes)
    ready = encode_all(unread, cache, report)
    searches = _searches(ready, trials, code, ledger.known)
    before = len(ledger.known)
    jobs = jobs or (cores() if ready.device == "cpu" else 1)
    with executor_of(jobs, len(searches), plan.from_elsewhere) as executor:
        _work_off(searches, executor, jobs, ledger, report)
    kept = dict(earlier.models) if earlier else {}
    found = kept | _chosen(searches)
    done = [trial for search in searches for trial in search.tried]
    others = [trial for trial in ledger.known.values() if trial.system in kept.keys() - {t.system for t in done}]
    rows = sorted([*others, *done], key=lambda trial: (trial.system, trial.fold, trial.number))
    ledger.replace([*rows, *(trial for trial in ledger.known.values() if trial.system not in found)])
    commands = dict.fromkeys((*(earlier.commands if earlier else ()), shlex.join(["dual-bench", *sys.argv[1:]])))
    evidence = digest_of([(trial.digest, dict(trial.losses)) for trial in rows])
    preset = Preset(
        commands=tuple(commands), digest="", trials=evidence, asked=wanted, models=dict(sorted(found.items()))
    )
    preset = preset.model_copy(update={"digest": preset.computed()})
    write_text(file, preset.toml())
    now = len(ledger.known) - before
    return Tuned(preset, file, now, len(done) - now)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UserError("tuning needs Optuna, which is not installed; pip install 'dual-bench[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _earlier(file: Path, wanted: Terms) -> Preset | None:
    """What the file holds; UserError where that was tuned otherwise."""
    check_writable(file.parent)
    if not file.exists():
        return None
    found = parsed(read_text(file, TOML, f"presets {file}"), str(file))
    for name, value in wanted:
        if getattr(found.asked, name) != value:
            raise UserError(
                f"{file} was tuned with another {name}: expected {value}, found {getattr(found.asked, name)}; choose "
                "another --out, or remove that file"
            )
    return found


def _searches(ready: Encoded, trials: int, code: str, known: Mapping[str, Trial]) -> list[_Search]:
    """One for each system and fold; UserError where a spec pins a setting to its default: the preset would be taken for
    that of a model whose settings are all free."""
    cells: dict[tuple[str, int], list[Cell]] = {}
    for cell in ready.wanted:
        cells.setdefault((cell.variant.system, cell.fold), []).append(cell)
    own = {cell.variant.system: cell.variant.settings for cell in ready.wanted}
    for system, settings in own.items():
        fields = type(settings).model_fields
        if pinned := [name for name in settings.model_fields_set if getattr(settings, name) == fields[name].default]:
            raise UserError(
                f"'{system}' sets {', '.join(sorted(pinned))} to the default, which tuning tries in any case; leave it "
                "out"
            )
    grids = {name: grid_of(settings, space(settings, ready.plan.training)) for name, settings in own.items()}
    return [_Search(ready, each, grids[system], trials, code, known) for (system, _), each in cells.items()]


def _chosen(searches: Sequence[_Search]) -> dict[str, dict[str, Chosen]]:
    """By system and fold; of equal losses the first tried."""
    found: dict[str, dict[str, Chosen]] = {}
    for search in searches:
        first, best = search.tried[0], min(search.tried, key=lambda trial: trial.loss)
        chosen = Chosen(spent=len(search.tried), default=first.loss, best=best.loss, settings=best.settings)
        found.setdefault(first.system, {})[first.fold] = chosen
    return found


# ---------------------------------------------------------------------------------------------- searching


def default_of(settings: BaseModel, shared: BaseModel, name: str) -> Setting:
    """The value of a setting; where the model leaves it to the plan, that of the plan."""
    own = getattr(settings, name)
    return cast(Setting, getattr(shared, name) if own is None else own)


def space(settings: BaseModel, shared: BaseModel) -> dict[str, tuple[Setting, ...]]:
    """The values of each setting that is tuned: those its annotation names, and the default; none of what the user
    set."""
    found: dict[str, tuple[Setting, ...]] = {}
    for name, field in type(settings).model_fields.items():
        tried = next((each for each in field.metadata if isinstance(each, Tried)), None)
        if tried is not None and name not in settings.model_fields_set:
            found[name] = tuple(dict.fromkeys((*tried.values, default_of(settings, shared, name))))
    return found


def grid_of(settings: BaseModel, values: Mapping[str, tuple[Setting, ...]]) -> list[Point]:
    """Every point that the model takes: some values may not go together."""
    given = settings.model_dump(exclude_unset=True)
    found = []
    for each in product(*values.values()):
        point = dict(zip(values, each, strict=True))
        with suppress(ValidationError):
            type(settings).model_validate(given | point)
            found.append(point)
    return found


def points(
    values: Mapping[str, tuple[Setting, ...]], grid: Sequence[Point], default: Point, trials: int, *stream: str | int
) -> Generator[Point, float, None]:
    """Distinct points of the grid, the default first, each to be answered with its loss; ``trials`` of them, or all."""
    optuna = _optuna()
    sampler = optuna.samplers.TPESampler(n_startup_trials=max(1, trials // 2), seed=seed_of(*stream) % 2**32)
    study = optuna.create_study(sampler=sampler)
    choices = {name: optuna.distributions.CategoricalDistribution(each) for name, each in values.items()}
    untried = {tuple(point.values()): point for point in grid}
    rng = generator(*stream)
    losses: dict[tuple[Setting, ...], float] = {}
    study.enqueue_trial(default)
    while untried and len(losses) < trials:
        trial = study.ask(choices)
        place = tuple(trial.params[name] for name in values)
        if place in untried:
            losses[place] = yield untried.pop(place)
        else:
            study.enqueue_trial(list(untried.values())[rng.integers(len(untried))])
        if place in losses:
            study.tell(trial, losses[place])
        else:  # the model does not take these settings together
            study.tell(trial, state=optuna.trial.TrialState.FAIL)


class _Search:
    """The trials of one system in one fold, one after the other."""

    def __init__(
        self,
        ready: Encoded,
        cells: Sequence[Cell],
        grid: Sequence[Point],
        trials: int,
        code: str,
        known: Mapping[str, Trial],
    ) -> None:
        self.ready, self.cells, self.code, self.known = ready, cells, code, known
        self.variant: Variant = cells[0].variant
        self.fold = ready.corpus.folds[cells[0].fold].name
        self.tried: list[Trial] = []
        shared, own = ready.plan.training, self.variant.settings
        values = space(own, shared)
        self.default = {name: default_of(own, shared, name) for name in values}
        self.most = min(trials, len(grid))
        stream = ("tuning", ready.plan.root_seed, self.variant.system, self.fold)
        self._points = points(values, grid, self.default, trials, *stream)
        self._point: Point | None = self.default

    def __str__(self) -> str:
        return f"{self.variant.system} {self.fold} {len(self.tried) + 1}"

    def next(self) -> Trial | None:
        """The next trial that nobody has done yet; None where all are done."""
        if not self.tried:
            self._point = next(self._points)
        while self._point is not None:
            trial = self._trial(self._point)
            if trial.digest not in self.known:
                return trial
            self.end(replace(trial, losses=self.known[trial.digest].losses))
        return None

    def end(self, trial: Trial) -> None:
        """Take a finished trial in, and go to the next point."""
        self.tried.append(trial)
        try:
            self._point = self._points.send(trial.loss)
        except StopIteration:
            self._point = None

    def jobs(self, trial: Trial) -> dict[str, Job]:
        """What is to be trained, by regime; a model that reads no words is trained once for clean and mixed."""
        settings = self._settings(trial.settings)
        stream = (self.ready.plan.root_seed, "tuning", self.fold)
        made = {c.reads: training_job(self.ready, replace(c, settings=settings), [stream]) for c in self.cells}
        return {c.regimen.regime: made[c.reads] for c in self.cells}

    def _trial(self, point: Point) -> Trial:
        changed = {name: value for name, value in point.items() if value != self.default[name]}
        digest = digest_of({"code": self.code, "cells": [c.digest for c in self.cells], "settings": changed})
        return Trial(digest, self.variant.system, self.fold, len(self.tried) + 1, changed, {})

    def _settings(self, changed: Point) -> BaseModel:
        given = self.variant.settings.model_dump(exclude_unset=True)
        return type(self.variant.settings).model_validate(given | changed)


def validation_losses(jobs: Mapping[str, Job]) -> dict[str, float]:
    """The validation loss of the epoch chosen, by regime; inf where training diverges."""
    found: dict[int, float] = {}
    for job in jobs.values():
        if id(job) in found:
            continue
        found[id(job)] = inf
        with training.exact_repeats(job.device, THREADS):
            try:
                _, _, (fit,) = trained(job)
            except UserError:
                raise
            except DualBenchError:
                continue
        loss = fit.history[fit.best_epoch - 1]["validation"]
        found[id(job)] = loss if isfinite(loss) else inf
    return {regime: found[id(job)] for regime, job in jobs.items()}


def _work_off(
    searches: Sequence[_Search], executor: Executor | None, jobs: int, ledger: _Ledger, report: Report
) -> None:
    """Do every trial that is not done; searches side by side, the trials of one in their order."""

    def told(running: Iterable[_Search]) -> None:
        done = sum(len(search.tried) for search in searches)
        report("trials", done, sum(search.most for search in searches), ", ".join(map(str, running)))

    def end(search: _Search, trial: Trial, losses: Mapping[str, float]) -> None:
        finished = replace(trial, losses=losses)
        ledger.add(finished)
        search.end(finished)

    if executor is None:
        for search in searches:
            while trial := search.next():
                told([search])
                end(search, trial, validation_losses(search.jobs(trial)))
        return told([])
    waiting = list(reversed(searches))
    running: dict[Future[dict[str, float]], tuple[_Search, Trial]] = {}
    while running or waiting:
        while waiting and len(running) < jobs:
            if trial := waiting[-1].next():
                running[executor.submit(validation_losses, waiting[-1].jobs(trial))] = waiting[-1], trial
            waiting.pop()
        told(search for search, _ in running.values())
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            search, trial = running.pop(future)
            end(search, trial, future.result())
            waiting.append(search)  # on top: it goes on before another begins
    told([])


# ------------------------------------------------------------------------------------------------ on disk


class _Ledger:
    """The trials on disk, a line each, written as they end; a line that was not written whole does not count."""

    def __init__(self, file: Path, regimes: Sequence[str]) -> None:
        self.file, self.regimes = file, regimes
        self._columns = ("system", "fold", "trial", "settings", *regimes, "digest")
        self.known: dict[str, Trial] = {}
        if file.exists():
            check_size(file, RECORD, f"{file}")
            with file.open(encoding="utf-8", newline="") as lines:
                rows = csv.DictReader(lines)
                if tuple(rows.fieldnames or self._columns) != self._columns:
                    raise UserError(
                        f"{file}: expected columns {', '.join(self._columns)}, found "
                        f"{', '.join(rows.fieldnames or ())}; choose another --out, or remove that file"
                    )
                self.known = {trial.digest: trial for row in rows if (trial := self._read(row))}
        self.replace(self.known.values())

    def _read(self, row: Mapping[str, str | None]) -> Trial | None:
        if len(row["digest"] or "") != 64:
            return None
        text = {name: str(value) for name, value in row.items()}
        losses = {regime: float(text[regime]) for regime in self.regimes}
        settings = parse_spec(f"x:{text['settings']}")[1]
        return Trial(text["digest"], text["system"], text["fold"], int(text["trial"]), settings, losses)

    def _line(self, trial: Trial) -> str:
        buffer = io.StringIO()
        losses = [repr(trial.losses[regime]) for regime in self.regimes]
        settings = format_settings(trial.settings)
        row = (trial.system, trial.fold, trial.number, settings, *losses, trial.digest)
        csv.writer(buffer, lineterminator="\n").writerow(row)
        return buffer.getvalue()

    def add(self, trial: Trial) -> None:
        self.known[trial.digest] = trial
        with self.file.open("a", encoding="utf-8", newline="") as lines:
            lines.write(self._line(trial))
            lines.flush()
            os.fsync(lines.fileno())

    def replace(self, trials: Iterable[Trial]) -> None:
        """Write the file anew with these alone."""
        write_text(self.file, "".join([",".join(self._columns) + "\n", *map(self._line, trials)]))
