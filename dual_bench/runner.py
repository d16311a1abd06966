"""Walk the cells of a plan: encode once, train each model, predict under every condition, store; skip what is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from dual_bench import probe, provenance, schema, store, training
from dual_bench.bounds import ceilings, floors
from dual_bench.catalog import CORRUPTIONS, MODELS, format_settings
from dual_bench.certificate import unmoved, worst_scores
from dual_bench.job import THREADS, Job, Outcome, work
from dual_bench.plan import Cell, Plan
from dual_bench.prepare import Encoded, ask, encode_all, in_silence, training_job
from dual_bench.processes import cores, executor_of
from dual_bench.training import Queries
from dual_bench.types import ANY_TEXT, SPLITS, Condition, Fold, IntArray, Report
from dual_bench.worst import Attack


@dataclass(frozen=True)
class RunResult:
    """Where the results lie; how many cells were trained now, were there before, and were found in other runs; how
    many items were encoded now; and the digests of the cells trained now."""

    folder: Path
    trained: int
    skipped: int
    found: int
    encoded: int
    cells: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prepared(Encoded):
    """Everything encoded, and the folder that takes the results."""

    folder: store.RunFolder


def run(
    plan: Plan,
    data: Path,
    cache: Path,
    reports: Path,
    out: Path | None = None,
    device: str = "auto",
    jobs: int = 0,
    report: Report = in_silence,
    study: schema.StudyInfo | None = None,
) -> RunResult:
    """Do what is still to do of ``plan``, in ``out`` or ``reports/<name>-<digest>``.

    ``study`` is what an ablation asks, and is stored with the results. Cells of the same digest that the same code has
    finished for another run in ``reports`` are copied from there. ``jobs`` processes, 0 for one a core (one alone on
    an accelerator). UserError before anything is written, where plan, corpus, features or folder are at fault.
    """
    asked = ask(plan, study, data, cache, training.resolve_device(device), report)
    folder = store.RunFolder(out or reports / f"{plan.name}-{asked.digest[:8]}")
    folder.claim(asked.digest)
    ready = Prepared(**vars(encode_all(asked, cache, report)), folder=folder)
    jobs = jobs or (cores() if ready.device == "cpu" else 1)
    missing = [cell for cell in ready.wanted if folder.finished(cell.digest) is None]
    done = len(ready.wanted) - len(missing)
    earlier = folder.info() if folder.run_file.exists() else None
    ids = [ready.corpus.utterances[i].id for i in ready.words.tested]
    texts = store.text_table(ready.shared, ids, ready.words.test_texts, ready.measured)
    if earlier is not None and earlier.status == "complete" and not missing:
        folder.write_texts(texts)  # the same bytes, unless they were damaged
        return RunResult(folder.path, 0, done, 0, ready.encoded)
    sittings = 1 + (earlier.provenance.sittings if earlier else 0)
    environment = provenance.gather(ready.device, THREADS, jobs, sittings).model_copy(update={"packing": ready.packing})
    info = _describe(ready, environment).model_copy(update={"found": earlier.found if earlier else 0})
    began = time.perf_counter()
    folder.sweep()
    folder.write_info(info)
    folder.write_texts(texts)
    try:
        pending = _borrow(ready, missing, reports, environment)
        found = len(missing) - len(pending)
        info = info.model_copy(update={"found": info.found + found})
        folder.write_info(info)
        _work_off(ready, pending, jobs, environment, report)
    except BaseException as error:
        problem = f"{type(error).__name__}: {error}".removesuffix(": ")
        folder.write_info(info.model_copy(update={"status": "failed", "problem": problem}))
        raise
    ended = environment.model_copy(update={"ended": provenance.now(), "seconds": time.perf_counter() - began})
    folder.write_info(info.model_copy(update={"status": "complete", "provenance": ended}))
    return RunResult(folder.path, len(pending), done, found, ready.encoded, tuple(cell.digest for cell in pending))


def _borrow(ready: Prepared, missing: Sequence[Cell], reports: Path, environment: schema.Provenance) -> list[Cell]:
    """Take from other runs what they have of the ``missing`` cells, and return what is left.

    Only cells that the very same code has made: never by a checkout with uncommitted changes, nor with a model or
    corruption that does not come with dual-bench, whose code nobody vouches for.
    """
    if environment.dirty or not all(name in CORRUPTIONS.entries for name in ready.plan.corruptions):
        return list(missing)
    folders, code = {reports, ready.folder.path.parent}, provenance.code(environment)
    return [
        cell
        for cell in missing
        if cell.variant.model not in MODELS.entries or not ready.folder.borrow(cell.digest, folders, code)
    ]


def _work_off(
    ready: Prepared, pending: Sequence[Cell], jobs: int, environment: schema.Provenance, report: Report
) -> None:
    """Train, predict and store the pending cells; those that share their training together."""
    in_order = sorted(pending, key=lambda cell: (cell.training, cell.seed, cell.regimen))
    groups = [list(group) for _, group in groupby(in_order, key=lambda cell: cell.training)]
    waiting = {group[0].digest: group[0].title for group in groups}
    done, total = len(ready.wanted) - len(pending), len(ready.wanted)
    with executor_of(jobs, len(groups)) as executor:
        running = jobs if executor else 1
        report("models", done, total, ", ".join(list(waiting.values())[:running]))
        for group, outcomes, queries in _outcomes(executor, jobs, groups, partial(_job, ready)):
            for cell in group:
                _store_cell(ready, cell, outcomes[cell.packed.index(cell.seed)], queries, environment)
            done += len(group)
            del waiting[group[0].digest]
            report("models", done, total, ", ".join(list(waiting.values())[:running]))


def _outcomes(
    executor: Executor | None, jobs: int, groups: Sequence[list[Cell]], job_of: Callable[[list[Cell]], Job]
) -> Iterator[tuple[list[Cell], list[Outcome], Queries]]:
    """The outcomes of each group of cells that share their training, one for each seed of their pack, in the order they
    finish."""
    if executor is None:
        for group in groups:
            job = job_of(group)
            yield group, work(job), job.queries
        return
    coming = iter(groups)
    running: dict[Future[list[Outcome]], tuple[list[Cell], Queries]] = {}
    free = 2 * jobs  # none waits for its job, and no more of them than that are in memory, nor of their outcomes
    while True:
        for group in islice(coming, free):
            job = job_of(group)
            running[executor.submit(work, job)] = (group, job.queries)
        if not running:
            return
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        free = len(done)
        while done:
            future = done.pop()
            group, queries = running.pop(future)
            yield group, future.result(), queries


def _job(ready: Prepared, group: Sequence[Cell]) -> Job:
    """What cells that share their training have to do together."""
    words, cell = ready.words, group[0]
    fold = ready.corpus.folds[cell.fold]
    asked = sorted({number for one in group for number in one.conditions})
    chosen = [number for number in asked if number >= len(words.test)]
    return replace(
        training_job(ready, cell, [(ready.plan.root_seed, seed, fold.name) for seed in cell.packed]),
        queries=_queries(words.test[asked[: len(asked) - len(chosen)]][:, fold.test], fold.test),
        attack=_attack(ready, fold.test, [ready.conditions[number] for number in chosen]),
        probe=_probe(ready, fold) if any(one.probed for one in group) else None,
    )


def _queries(texts: IntArray, rows: IntArray) -> Queries:
    """The distinct (utterance, text) pairs of a fold's conditions (conditions, n), texts of like length together."""
    pairs = np.unique(np.stack([texts.ravel(), np.broadcast_to(rows, texts.shape).ravel()], axis=1), axis=0)
    return Queries(pairs[:, 1], pairs[:, 0])


def _attack(ready: Prepared, rows: IntArray, conditions: Sequence[Condition]) -> Attack | None:
    """What a model is to be attacked with, where a condition depends on it."""
    if not conditions:
        return None
    utterances = [ready.corpus.utterances[i] for i in rows]
    return Attack(
        tuple(conditions),
        rows,
        tuple(u.id for u in utterances),
        tuple(u.text for u in utterances),
        np.array([u.target for u in utterances], np.float64),
        ready.plan.root_seed,
    )


def _probe(ready: Prepared, fold: Fold) -> probe.Probe:
    """Which modalities a model tested on this fold is to be asked to do without, or to read of whom."""
    plan = ready.plan
    return probe.drawn(fold.test, ready.words.test[0, fold.test], plan.draws, plan.root_seed, fold.name)


def _store_cell(
    ready: Prepared, cell: Cell, outcome: Outcome, queries: Queries, environment: schema.Provenance
) -> None:
    """Spread the scores over the conditions, join the labels, write."""
    fold = ready.corpus.folds[cell.fold]
    who: dict[str, str | int] = {
        "model": cell.variant.model,
        "variant": cell.variant.changed,
        "regime": cell.regimen.regime,
        "seed": cell.seed,
        "fold": fold.name,
    }
    ready.folder.write_cell(
        _table(ready, cell, who, outcome, queries),
        digest=cell.digest,
        **who,
        corruption=cell.regimen.corruption,
        rate=cell.regimen.rate,
        parameters=outcome.parameters,
        radius=None if outcome.certificate is None else outcome.certificate.radius,
        best_epoch=outcome.fit.best_epoch,
        history=outcome.fit.history,
        seconds_fit=outcome.fit.seconds,
        seconds_predict=outcome.seconds_predict,
        device=environment.device,
        threads=environment.threads,
        code=provenance.code(environment),
    )


def _table(ready: Prepared, cell: Cell, who: dict[str, str | int], outcome: Outcome, queries: Queries) -> pa.Table:
    """The prediction rows of a cell: the conditions that all models share, those of its own, any text, and those of the
    probe."""
    corpus, words, fold = ready.corpus, ready.words, ready.corpus.folds[cell.fold]
    tested = [corpus.utterances[i] for i in fold.test]
    conditions = [ready.conditions[number] for number in cell.conditions]
    shared = [number for number in cell.conditions if number < len(words.test)]
    texts = words.test[shared][:, fold.test]
    # the pairs were sorted by (text, utterance): one number a pair, in that order, finds each of them
    order = queries.texts * len(corpus) + queries.rows
    scores = outcome.scores[np.searchsorted(order, texts * len(corpus) + fold.test[None, :])]
    place = np.searchsorted(words.tested, fold.test)
    rows = (np.array(shared)[:, None] * len(words.tested) + place).ravel()
    measured = ready.measured.iloc[rows][list(schema.MEASURED)]
    read: list[str | None] = [None for _ in rows]
    certified: list[bool | None] = [None for _ in range(len(tested) * len(conditions))]
    if outcome.worst is not None and len(shared) < len(cell.conditions):
        scores = np.concatenate([scores, outcome.worst.scores])
        measured = pd.concat([measured, outcome.worst.measured[list(schema.MEASURED)]])
        read += outcome.worst.texts
    if outcome.certificate is not None:
        bound = outcome.certificate.of(fold.test)
        worst = worst_scores(corpus.task, bound, np.array([u.target for u in tested]))
        sure = unmoved(corpus.task, bound)
        scores = np.concatenate([scores, worst[None]])
        certified += [None] * len(tested) if sure is None else sure.tolist()
        conditions.append(ANY_TEXT)
    if outcome.probed is not None and cell.probed:
        scores = np.concatenate([scores, probe.settled(outcome.probed, scores[0], cell.variant.reads)])
        conditions += probe.conditions(ready.plan.draws)
    total = len(conditions) * len(tested)
    measured = measured.reset_index(drop=True).reindex(range(total))  # no text of its own, no measure
    read += [None] * (total - len(read))
    certified += [None] * (total - len(certified))
    return store.prediction_table({"cell": cell.digest, **who}, conditions, tested, scores, measured, read, certified)


def _describe(ready: Prepared, environment: schema.Provenance) -> schema.RunInfo:
    """``run.json`` before the first cell."""
    plan, corpus = ready.plan, ready.corpus
    task = corpus.task
    tested = {corpus.utterances[i].cluster for fold in corpus.folds for i in fold.test}
    info = schema.CorpusInfo(
        name=corpus.name,
        task=task.kind,
        classes=task.classes,
        low=None if task.kind == "classification" else task.low,
        high=None if task.kind == "classification" else task.high,
        counts={part: sum(len(getattr(fold, part)) for fold in corpus.folds) for part in SPLITS},
        folds=len(corpus.folds),
        clusters=len(tested),
        fingerprint=corpus.fingerprint,
        licence=corpus.licence,
        notes=corpus.notes,
        transcripts=corpus.transcripts,
    )
    return schema.RunInfo(
        schema_version=schema.SCHEMA_VERSION,
        status="running",
        name=plan.name,
        digest=ready.digest,
        plan=plan.model_dump(mode="json"),
        corpus=info,
        cells=tuple(cell.digest for cell in ready.wanted),
        floors=floors(corpus),
        ceilings=ceilings(corpus, ready.conditions),
        severities=ready.scale,
        encoders=ready.encoders,
        provenance=environment,
        study=ready.study,
        tuning=_tuning(ready),
    )


def _tuning(ready: Prepared) -> schema.TuningInfo | None:
    """What is known of the presets that the models got."""
    if ready.preset is None:
        return None
    asked = ready.preset.asked
    systems: dict[str, dict[str, schema.TunedInfo]] = {}
    settled = {(cell.variant.system, cell.fold): cell for cell in ready.wanted}
    for (system, number), cell in settled.items():
        fold = ready.corpus.folds[number].name
        chosen = ready.preset.of(cell.variant.model, system).get(fold)
        if chosen is None:
            continue
        own = {name: getattr(cell.settings, name) for name in chosen.settings}
        taken = {name: value for name, value in own.items() if value != getattr(cell.variant.settings, name)}
        systems.setdefault(system, {})[fold] = schema.TunedInfo(
            spent=chosen.spent,
            settings=format_settings(taken),
            default=chosen.default,
            best=chosen.best,
            of="" if system in ready.preset.models else cell.variant.model,
        )
    return schema.TuningInfo(
        digest=ready.preset.digest,
        trials=asked.trials,
        regimes=asked.regimes,
        corruptions=asked.corruptions,
        training=dict(asked.training),
        systems=systems,
    )
