"""Walk the cells of a plan: encode once, train each model, predict under every condition, store; skip what is done.

Work runs in processes of one thread each, so that no number depends on how many there are.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from multiprocessing import connection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from dual_bench import provenance, store, training
from dual_bench.bounds import ceilings, floors
from dual_bench.features.audio import LogMel
from dual_bench.features.cache import FeatureStore, content_key
from dual_bench.features.text import MiniLM, encode_texts
from dual_bench.features.vision import FrameDCT
from dual_bench.models.spec import ModelSpec, parameter_count
from dual_bench.plan import Cell, Plan, cells, check, load_corpus, plan_digest, variants
from dual_bench.training import Examples, Inputs, Queries
from dual_bench.types import SPLITS, Condition, Corpus, FloatArray, IntArray, Modality, Ragged, Task
from dual_bench.words import Words, words_of

Report = Callable[[str, int, int, str], None]
"""(stage, done, total, detail); total 0 where it is not known."""

_THREADS = 1


@dataclass(frozen=True)
class RunResult:
    """Where the results lie, and how many cells were trained now, and before."""

    folder: Path
    trained: int
    skipped: int
    encoded: int


# ------------------------------------------------------------------------------------------- one cell


@dataclass(frozen=True)
class Job:
    """All that training and prediction see, in one parcel for a process; test labels are not among it."""

    spec: ModelSpec
    settings: BaseModel
    stream: tuple[str | int, ...]
    task: Task
    training: training.TrainingSettings
    inputs: Inputs
    train: Examples
    validation: Examples
    queries: Queries
    device: str


@dataclass(frozen=True)
class Outcome:
    """What comes back: scores (queries, K) and how they came about."""

    scores: NDArray[np.float32]
    fit: training.Fit
    parameters: int
    seconds_predict: float


def work(job: Job) -> Outcome:
    """Train one model and ask it everything."""
    with training.exact_repeats(job.device, _THREADS):
        module = training.build(job.spec, job.settings, job.inputs.widths, job.task, *job.stream).to(job.device)
        resident = training.Resident(job.inputs, job.train.rows, module.modalities, job.device)  # type: ignore[arg-type]
        fit = training.fit(module, resident, job.train, job.validation, job.task, job.training, *job.stream)
        began = time.perf_counter()
        scores = training.predict(module, resident, job.task, job.queries)
        return Outcome(scores, fit, parameter_count(module), time.perf_counter() - began)


# --------------------------------------------------------------------------------------------- a run


@dataclass(frozen=True)
class Prepared:
    """A plan with its corpus, everything encoded; ``encoded`` items were encoded only now."""

    plan: Plan
    corpus: Corpus
    device: str
    encoders: dict[str, str]
    wanted: tuple[Cell, ...]
    digest: str
    folder: store.RunFolder
    conditions: tuple[Condition, ...]
    words: Words
    inputs: Inputs
    encoded: int


def run(
    plan: Plan,
    data: Path,
    cache: Path,
    reports: Path,
    out: Path | None = None,
    device: str = "auto",
    jobs: int = 0,
    report: Report = lambda stage, done, total, detail: None,
) -> RunResult:
    """Do what is still to do of ``plan``, in ``out`` or ``reports/<name>-<digest>``.

    ``jobs`` processes, 0 for one a core (one alone on an accelerator). UserError before anything is written, where
    plan, corpus, features or folder are at fault.
    """
    ready = _prepare(plan, data, cache, reports, out, training.resolve_device(device), report)
    jobs = jobs or (_cores() if ready.device == "cpu" else 1)
    folder = ready.folder
    pending = [cell for cell in ready.wanted if folder.finished(cell.digest) is None]
    result = RunResult(folder.path, len(pending), len(ready.wanted) - len(pending), ready.encoded)
    earlier = folder.info() if folder.run_file.exists() else None
    ids = [ready.corpus.utterances[i].id for i in ready.words.tested]
    texts = store.text_table(ready.conditions, ids, ready.words.test_texts, ready.words.table)
    if earlier is not None and earlier.status == "complete" and not pending:
        folder.write_texts(texts)  # the same bytes, unless they were damaged
        return result
    sittings = 1 + (earlier.provenance.sittings if earlier else 0)
    environment = provenance.gather(ready.device, _THREADS, jobs, sittings)
    info = _describe(ready, environment)
    began = time.perf_counter()
    folder.sweep()
    folder.write_info(info)
    folder.write_texts(texts)
    try:
        _work_off(ready, pending, jobs, environment, report)
    except BaseException as error:
        problem = f"{type(error).__name__}: {error}".removesuffix(": ")
        folder.write_info(info.model_copy(update={"status": "failed", "problem": problem}))
        raise
    ended = environment.model_copy(update={"ended": provenance.now(), "seconds": time.perf_counter() - began})
    folder.write_info(info.model_copy(update={"status": "complete", "provenance": ended}))
    return result


def _prepare(
    plan: Plan, data: Path, cache: Path, reports: Path, out: Path | None, device: str, report: Report
) -> Prepared:
    """Load, check and encode; nothing is written but the feature cache."""
    report("corpus", 0, 0, plan.dataset)
    corpus = load_corpus(plan.dataset, data)
    plan = check(plan, corpus)
    encoders: dict[Modality, LogMel | FrameDCT] = {"audio": LogMel(), "vision": FrameDCT()}
    text_encoder = MiniLM(device)
    raw = [m for m, signal in corpus.signals.items() if signal.kind != "features"]
    names = {str(m): encoders[m].name for m in raw} | {"text": text_encoder.name}
    wanted = cells(plan, corpus, names, device)
    digest = plan_digest(plan, wanted)
    folder = store.RunFolder(out or reports / f"{plan.name}-{digest[:8]}")
    folder.claim(digest)

    conditions = plan.conditions(corpus)
    signals = {m: _encoded(corpus, m, encoders[m], cache, report) for m in encoders}
    report("words", 0, 0, "noisy texts")
    words = words_of(plan, corpus, conditions)
    detail = f"{len(words.texts)} distinct texts to MiniLM"
    text, encoded_texts = encode_texts(
        words.texts, text_encoder, cache, lambda done, total: report("words", done, total, detail)
    )
    inputs = Inputs(signals["audio"][0], signals["vision"][0], text)
    for variant in variants(plan):  # settings that cannot be built are found before anything is written
        training.build(variant.spec, variant.settings, inputs.widths, corpus.task, "check")
    encoded = encoded_texts + sum(count for _, count in signals.values())
    return Prepared(plan, corpus, device, names, wanted, digest, folder, conditions, words, inputs, encoded)


def _work_off(
    ready: Prepared, pending: Sequence[Cell], jobs: int, environment: store.Provenance, report: Report
) -> None:
    """Train, predict and store the pending cells; those that share their training together."""
    in_order = sorted(pending, key=lambda cell: (cell.seed, cell.training, cell.regime))
    groups = [list(group) for _, group in groupby(in_order, key=lambda cell: cell.training)]
    waiting = {group[0].digest: group[0].title for group in groups}
    done, total = len(ready.wanted) - len(pending), len(ready.wanted)
    with _executor(jobs, len(groups)) as executor:
        running = jobs if executor else 1
        report("models", done, total, ", ".join(list(waiting.values())[:running]))
        for group, outcome, queries in _outcomes(executor, groups, partial(_job, ready)):
            for cell in group:
                _store_cell(ready, cell, outcome, queries, environment)
            done += len(group)
            del waiting[group[0].digest]
            report("models", done, total, ", ".join(list(waiting.values())[:running]))


def _outcomes(
    executor: Executor | None, groups: Sequence[list[Cell]], job_of: Callable[[Cell], Job]
) -> Iterator[tuple[list[Cell], Outcome, Queries]]:
    """The outcome of each group of cells that share their training, in the order they finish."""
    if executor is None:
        for group in groups:
            job = job_of(group[0])
            yield group, work(job), job.queries
        return
    futures: dict[Future[Outcome], tuple[list[Cell], Queries]] = {}
    for group in groups:
        job = job_of(group[0])
        futures[executor.submit(work, job)] = (group, job.queries)
    for future in as_completed(futures):
        group, queries = futures[future]
        yield group, future.result(), queries


def _encoded(
    corpus: Corpus, modality: Modality, encoder: LogMel | FrameDCT, cache: Path, report: Report
) -> tuple[Ragged, int]:
    """Features of one modality of every utterance, and how many were encoded now; without steps where absent."""
    signal = corpus.signals.get(modality)
    if signal is None:
        zeros = np.zeros(len(corpus), np.int64)
        return Ragged(np.empty((0, 1), np.float32), zeros, zeros), 0
    if signal.kind == "features":
        return Ragged.pack([np.asarray(item, np.float32) for item in signal.items]), 0
    keys = [content_key(encoder.name, repr(signal.rate), item) for item in signal.items]

    def encode(positions: list[int]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        for count, position in enumerate(positions):
            if count % 50 == 0:
                report(modality, count, len(positions), encoder.name)
            yield position, encoder(signal.items[position], signal.rate)

    folder = cache / modality / content_key(encoder.name)[:16]
    return FeatureStore(folder, encoder.width).ensure(keys, encode)


def _job(ready: Prepared, cell: Cell) -> Job:
    plan, corpus, words = ready.plan, ready.corpus, ready.words
    fold = corpus.folds[cell.fold]
    return Job(
        cell.variant.spec,
        cell.variant.settings,
        (plan.root_seed, *cell.training),
        corpus.task,
        plan.training,
        ready.inputs,
        _examples(corpus, fold.train, words.training[cell.regime]),
        _examples(corpus, fold.validation, words.validation[cell.regime]),
        _queries(words.test[:, fold.test], fold.test),
        ready.device,
    )


def _examples(corpus: Corpus, rows: IntArray, texts: IntArray) -> Examples:
    return Examples(rows, texts[:, rows], np.array([corpus.utterances[i].target for i in rows], np.float64))


def _queries(texts: IntArray, rows: IntArray) -> Queries:
    """The distinct (utterance, text) pairs of a fold's conditions (conditions, n), texts of like length together."""
    pairs = np.unique(np.stack([texts.ravel(), np.broadcast_to(rows, texts.shape).ravel()], axis=1), axis=0)
    return Queries(pairs[:, 1], pairs[:, 0])


def _store_cell(ready: Prepared, cell: Cell, outcome: Outcome, queries: Queries, environment: store.Provenance) -> None:
    """Spread the scores over the conditions, join the labels, write."""
    corpus, words, conditions = ready.corpus, ready.words, ready.conditions
    fold = corpus.folds[cell.fold]
    texts = words.test[:, fold.test]
    # the pairs were sorted by (text, utterance): one number a pair, in that order, finds each of them
    width = len(corpus)
    order = queries.texts * width + queries.rows
    asked = texts * width + fold.test[None, :]
    scores: FloatArray = outcome.scores[np.searchsorted(order, asked)]
    place = np.searchsorted(words.tested, fold.test)
    rows = (np.arange(len(conditions))[:, None] * len(words.tested) + place).ravel()
    who: dict[str, str | int] = {
        "model": cell.variant.model,
        "variant": cell.variant.changed,
        "regime": cell.regime,
        "seed": cell.seed,
        "fold": fold.name,
    }
    tested = [corpus.utterances[i] for i in fold.test]
    table = store.prediction_table({"cell": cell.digest, **who}, conditions, tested, scores, words.table.iloc[rows])
    ready.folder.write_cell(
        table,
        digest=cell.digest,
        **who,
        parameters=outcome.parameters,
        best_epoch=outcome.fit.best_epoch,
        history=outcome.fit.history,
        seconds_fit=outcome.fit.seconds,
        seconds_predict=outcome.seconds_predict,
        device=environment.device,
        threads=environment.threads,
        code=provenance.code(environment),
    )


def _describe(ready: Prepared, environment: store.Provenance) -> store.RunInfo:
    """``run.json`` before the first cell."""
    plan, corpus = ready.plan, ready.corpus
    task = corpus.task
    tested = {corpus.utterances[i].cluster for fold in corpus.folds for i in fold.test}
    info = store.CorpusInfo(
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
    return store.RunInfo(
        schema_version=store.SCHEMA_VERSION,
        status="running",
        name=plan.name,
        digest=ready.digest,
        plan=plan.model_dump(mode="json"),
        corpus=info,
        cells=tuple(cell.digest for cell in ready.wanted),
        floors=floors(corpus),
        ceilings=ceilings(corpus, ready.conditions),
        encoders=ready.encoders,
        provenance=environment,
    )


# ----------------------------------------------------------------------------------------- processes


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _executor(jobs: int, count: int) -> Iterator[Executor | None]:
    """A pool of ``jobs`` fresh processes; None, and the work happens here, where one is enough."""
    if min(jobs, count) <= 1:
        yield None
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, count), context, initializer=_die_with_parent) as pool:
        try:
            yield pool
        except BaseException:
            workers = list(pool._processes.values())  # shutdown forgets them
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                worker.terminate()
            raise


def _die_with_parent() -> None:
    """Leave at once when the parent is gone, however it went; an interrupt is the parent's to handle."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
