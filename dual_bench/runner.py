"""Walk the cells of a plan: encode once, train each model, predict under every condition, store; skip what is done."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import metadata
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from dual_bench import probe, provenance, schema, store, training
from dual_bench.bounds import ceilings, floors
from dual_bench.catalog import CORRUPTIONS, MODELS, format_settings
from dual_bench.certificate import unmoved, worst_scores
from dual_bench.engine import Done, Engine, Local, attempt_attack
from dual_bench.job import THREADS, Job, Outcome
from dual_bench.journal import Failure, Journal, failure
from dual_bench.lock import Holder, held
from dual_bench.plan import Cell, Plan, sources
from dual_bench.prepare import Asked, Encoded, ask, encode_all, identity, in_silence, training_job
from dual_bench.processes import cores, uninterrupted
from dual_bench.shards import Shard, Training, done, trainings
from dual_bench.tracking import Tracker, check_tracker, tracker_of
from dual_bench.training import Queries
from dual_bench.types import (
    ANY_TEXT,
    DAMAGED,
    SPLITS,
    Condition,
    Corruption,
    DualBenchError,
    FloatArray,
    Fold,
    IntArray,
    Report,
)
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
    failed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prepared(Encoded):
    """Everything encoded, and the folder that takes the results."""

    folder: store.RunFolder


@dataclass(frozen=True)
class Manner:
    """How a run goes about its work. No number depends on it."""

    engine: Engine | None = None
    """Who trains; by default processes of this machine."""
    shard: Shard | None = None
    """Which part of the plan is to be done; by default all of it."""
    weights: bool = False
    """Whether the weights of every trained model are stored."""
    fail_fast: bool = False
    """Whether the first model that comes to nothing ends the run; by default the rest goes on."""
    track: str = ""
    """Who else is told of every model that is done (``tracking``)."""


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
    how: Manner = Manner(),
) -> RunResult:
    """Do what is still to do of ``plan``, in ``out`` or ``reports/<name>-<digest>``.

    ``study`` is what an ablation asks, and is stored with the results. Cells of the same digest that the same code has
    finished for another run in ``reports`` are copied from there. ``jobs`` processes, 0 for one a core (one alone on
    an accelerator). Where another process works on the folder, this one waits for it. UserError before anything is
    written, where plan, corpus, features or folder are at fault.
    """
    if how.track:
        check_tracker(how.track)
    asked = ask(plan, study, data, cache, training.resolve_device(device), report)
    folder = folder_of(asked, reports, out, how.shard)
    folder.claim(asked.digest)
    new = [path for path in (folder.path, *folder.path.parents) if not path.exists()]
    engine = how.engine or Local(jobs or (cores() if asked.device == "cpu" else 1), plan.from_elsewhere)
    with (
        held(folder.path, lambda other: report("waiting", 0, 0, f"in use by {other or 'another process'}")) as died,
        folder.left_clean(new),
        Journal(folder.log_file) as journal,
    ):
        folder.claim(asked.digest)
        sitting = _Sitting(asked, folder, how, engine, journal, report)
        return sitting.whole(cache, reports, died)


def folder_of(asked: Asked, reports: Path, out: Path | None, shard: Shard | None) -> store.RunFolder:
    """Where the results of a plan lie, or of a part of it: ``out``, or a folder of its own in ``reports``."""
    part = f"-{shard.number}of{shard.count}" if shard else ""
    return store.RunFolder(out or reports / f"{asked.plan.name}-{asked.digest[:8]}{part}")


@dataclass(frozen=True)
class _Sitting:
    """What one process does to a run, whose folder is its own now, from beginning to end."""

    asked: Asked
    folder: store.RunFolder
    how: Manner
    engine: Engine
    journal: Journal
    report: Report

    def whole(self, cache: Path, reports: Path, died: Holder | None) -> RunResult:
        """Encode everything, do what is still to do, and tell the log how it went."""
        began = time.perf_counter()
        self.folder.sweep()
        part = self.how.shard.of(self.groups) if self.how.shard else self.groups
        wanted = [cell for group in part for cell in group]
        finished = done(self.folder, wanted, self.how.weights)
        self.folder.forget_failures(finished)
        missing = [cell for cell in wanted if cell.digest not in finished]
        self._begin(len(finished), len(missing), died)
        for cell in missing:
            if self.folder.cell_file(cell.digest).exists() and self.folder.finished(cell.digest) is None:
                named = self.folder.cell_file(cell.digest).with_suffix(".*")
                self._told(DAMAGED, 0, 0, f"{named} are not what was written: that cell is computed again")
        try:
            ready = Prepared(**vars(encode_all(self.asked, cache, self._told)), folder=self.folder)
            found = self._train(ready, finished, missing, reports)
        except BaseException as error:
            status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            self._end(status, _problem(error), began)
            raise
        info = self.folder.info()
        self._end(info.status, info.problem, began)
        return found

    @cached_property
    def groups(self) -> list[Training]:
        """The cells of the whole plan that share their training."""
        return trainings(self.asked.wanted)

    def _begin(self, finished: int, missing: int, died: Holder | None) -> None:
        self.journal.tell(
            "began",
            pid=os.getpid(),
            host=socket.gethostname(),
            engine=self.engine.name,
            device=self.asked.device,
            jobs=self.engine.side_by_side,
            wanted=finished + missing,
            done=finished,
            pending=missing,
            digest=self.asked.digest,
            version=metadata.version("dual-bench"),
        )
        if died is not None:
            self.journal.tell("warned", what=f"{died} died while working on this")

    def _end(self, status: str, problem: str | None, began: float) -> None:
        self.journal.tell("ended", status=status, problem=problem, seconds=time.perf_counter() - began)

    def _told(self, stage: str, done: int, total: int, detail: str) -> None:
        """To the screen and, where it is another stage or damage, to the log."""
        if stage == DAMAGED:
            self.journal.tell("damaged", what=detail)
        elif done == 0:
            self.journal.tell("stage", stage=stage)
        self.report(stage, done, total, detail)

    def _train(self, ready: Prepared, finished: Collection[str], missing: Sequence[Cell], reports: Path) -> RunResult:
        """Do what the folder still lacks."""
        folder, began = self.folder, time.perf_counter()
        earlier = folder.info() if folder.run_file.exists() else None
        ids = [ready.corpus.utterances[i].id for i in ready.words.tested]
        texts = store.text_table(ready.shared, ids, ready.words.test_texts, ready.measured)
        if earlier is not None and earlier.status == "complete" and not missing:
            folder.write_texts(texts)  # the same bytes, unless they were damaged
            return RunResult(folder.path, 0, len(finished), 0, ready.encoded)
        sittings = 1 + (earlier.provenance.sittings if earlier else 0)
        by = self.engine
        environment = provenance.gather(ready.device, THREADS, by.side_by_side, sittings, by.name)
        environment = environment.model_copy(update={"packing": ready.packing, "sources": sources(ready.plan)})
        info = described(ready, environment).model_copy(update={"found": earlier.found if earlier else 0})
        folder.write_info(info)
        folder.write_texts(texts)
        try:
            pending = _borrow(ready, missing, reports, environment, self.how.weights)
            info = info.model_copy(update={"found": info.found + len(missing) - len(pending)})
            folder.write_info(info)
            trained, failed = self._work_off(ready, pending, len(finished) + len(missing), environment)
        except BaseException as error:
            folder.write_info(info.model_copy(update={"status": "failed", "problem": _problem(error)}))
            raise
        update: dict[str, object] = {"status": "complete"}
        if failed:
            problem = f"{len(failed)} of {len(trainings(pending))} trainings failed: {failed[0]}"
            update = {"status": "failed", "problem": problem}
        elif self.how.shard and len(done(folder, ready.wanted)) < len(ready.wanted):
            update = {"status": "partial"}
        ended = {"ended": provenance.now(), "seconds": time.perf_counter() - began}
        folder.write_info(info.model_copy(update={**update, "provenance": environment.model_copy(update=ended)}))
        counts = len(trained), len(finished), len(missing) - len(pending), ready.encoded
        return RunResult(folder.path, *counts, tuple(sorted(trained)), tuple(failed))

    def _work_off(
        self, ready: Prepared, pending: Sequence[Cell], total: int, environment: schema.Provenance
    ) -> tuple[list[str], list[str]]:
        """Train, predict and store the ``pending`` cells, of ``total``; those that share their training together. The
        digests of those that are stored, and the trainings that came to nothing, which are recorded, with the reason of
        each."""
        groups = trainings(pending)
        whole = {group[0].training: group for group in self.groups}
        waiting = {number: group[0].title for number, group in enumerate(groups)}
        trained: list[str] = []
        failed: list[str] = []
        finished = total - len(pending)

        def shared(number: int) -> Training:
            # all that shares the training, done or not: what is asked together decides how numbers are rounded
            return whole[groups[number][0].training]

        def job_of(number: int) -> Job:
            return job_for(ready, shared(number), self.how.weights)

        def tell() -> None:
            self.report("models", finished, total, ", ".join(islice(waiting.values(), self.engine.side_by_side)))

        self.journal.tell("stage", stage="models")
        tell()
        with self._tracker() as tracker, closing(self.engine.each(len(groups), job_of)) as jobs:
            for number, job, came in jobs:
                group, came = groups[number], and_attacked(ready, shared(number), job, came)
                if isinstance(came.result, Failure):
                    failed.append(f"{group[0].title}: {came.result.error}")
                    self._failed(ready, group, came.result, came.host, environment)
                else:
                    trained += self._stored(ready, group, job, came, came.result, environment, tracker)
                finished += len(group)
                del waiting[number]
                tell()
        return trained, failed

    def _stored(
        self,
        ready: Prepared,
        group: Sequence[Cell],
        job: Job,
        came: Done,
        outcomes: Sequence[Outcome],
        environment: schema.Provenance,
        tracker: Tracker | None,
    ) -> list[str]:
        """Store the cells of a training, and tell the log and the ``tracker``; their digests. An interrupt waits until
        that is done, as nobody is told again of a cell that is stored."""
        with uninterrupted():
            for cell in group:
                outcome = outcomes[cell.packed.index(cell.seed)]
                if not self.how.weights:  # an attack may have needed them
                    outcome = replace(outcome, weights=None)
                info = _store_cell(ready, cell, outcome, job.queries, environment, came.processor)
                self._trained(cell, info, came.host)
                if tracker is not None:
                    tracker.cell(info)
        return [cell.digest for cell in group]

    def _trained(self, cell: Cell, info: schema.CellInfo, host: str) -> None:
        self.journal.tell(
            "trained",
            digest=cell.digest,
            title=cell.title,
            seconds_fit=info.seconds_fit,
            seconds_predict=info.seconds_predict,
            best_epoch=info.best_epoch,
            where=host,
        )

    def _failed(
        self, ready: Prepared, group: Sequence[Cell], why: Failure, host: str, environment: schema.Provenance
    ) -> None:
        for cell in group:
            _store_failure(ready, cell, why, host, environment)
            self.journal.tell("failed", digest=cell.digest, title=cell.title, error=why.error, raised=why.raised)
        if self.how.fail_fast:
            raise DualBenchError(
                f"{group[0].title}: {why.error}; what is finished is stored, and the same command goes on from there"
            )

    @contextmanager
    def _tracker(self) -> Iterator[Tracker | None]:
        """Who else is told; what goes wrong with that is told once, on the screen and in the log."""

        def told(what: str) -> None:
            self.journal.tell("warned", what=what)
            self.report(DAMAGED, 0, 0, what)

        if not self.how.track:
            yield None
            return
        tracker = tracker_of(self.how.track, self.folder.path, self.asked.plan.name, told)
        try:
            yield tracker
        finally:
            tracker.close()


def _problem(error: BaseException) -> str:
    return "interrupted" if isinstance(error, KeyboardInterrupt) else failure(error).error


def _borrow(
    ready: Prepared, missing: Sequence[Cell], reports: Path, environment: schema.Provenance, weights: bool
) -> list[Cell]:
    """Take from other runs what they have of the ``missing`` cells, and return what is left.

    Only cells that the very same code has made, on a processor that rounds alike: never by a checkout with uncommitted
    changes, nor with a model or corruption that does not come with dual-bench, whose code nobody vouches for.
    """
    if environment.dirty or not all(name in CORRUPTIONS.entries for name in ready.plan.corruptions):
        return list(missing)
    folders = {reports, ready.folder.path.parent}
    here = provenance.code(environment), environment.device, environment.processor
    return [
        cell
        for cell in missing
        if cell.variant.model not in MODELS.entries or not ready.folder.borrow(cell.digest, folders, here, weights)
    ]


def job_for(ready: Encoded, group: Sequence[Cell], weights: bool) -> Job:
    """What cells that share their training have to do together; and whether the weights are to come back."""
    words, cell = ready.words, group[0]
    fold = ready.corpus.folds[cell.fold]
    asked = sorted({number for one in group for number in one.conditions if number < len(words.test)})
    attack = _attack(ready, group)
    later = attack is not None and ready.plan.from_elsewhere  # no test label goes where such a model trains
    return replace(
        training_job(ready, cell, [(ready.plan.root_seed, seed, fold.name) for seed in cell.packed]),
        queries=_queries(words.test[asked][:, fold.test], fold.test),
        attack=None if later else attack,
        probe=_probe(ready, fold) if any(one.probed for one in group) else None,
        weights=weights or later,
    )


def and_attacked(ready: Encoded, group: Sequence[Cell], job: Job, came: Done) -> Done:
    """What came of a job, with the attack that was kept from it, if there was one (``Plan.from_elsewhere``)."""
    wanted = _attack(ready, group)
    if wanted is None or job.attack is not None or isinstance(came.result, Failure):
        return came
    done = attempt_attack(job, came.result, wanted)
    return replace(done, host=came.host, processor=came.processor)  # where it was trained, not where this is


def _queries(texts: IntArray, rows: IntArray) -> Queries:
    """The distinct (utterance, text) pairs of a fold's conditions (conditions, n), texts of like length together."""
    pairs = np.unique(np.stack([texts.ravel(), np.broadcast_to(rows, texts.shape).ravel()], axis=1), axis=0)
    return Queries(pairs[:, 1], pairs[:, 0])


def _attack(ready: Encoded, group: Sequence[Cell]) -> Attack | None:
    """What a model is to be attacked with, where a condition depends on it."""
    chosen = sorted({number for one in group for number in one.conditions if number >= len(ready.words.test)})
    if not chosen:
        return None
    rows = ready.corpus.folds[group[0].fold].test
    utterances = [ready.corpus.utterances[i] for i in rows]
    return Attack(
        tuple(ready.conditions[number] for number in chosen),
        rows,
        tuple(u.id for u in utterances),
        tuple(u.text for u in utterances),
        np.array([u.target for u in utterances], np.float64),
        ready.plan.root_seed,
    )


def _probe(ready: Encoded, fold: Fold) -> probe.Probe:
    """Which modalities a model tested on this fold is to be asked to do without, or to read of whom."""
    plan = ready.plan
    return probe.drawn(fold.test, ready.words.test[0, fold.test], plan.draws, plan.root_seed, fold.name)


def _store_cell(
    ready: Prepared,
    cell: Cell,
    outcome: Outcome,
    queries: Queries,
    environment: schema.Provenance,
    processor: str,
) -> schema.CellInfo:
    """Spread the scores over the conditions, join the labels, write."""
    return ready.folder.write_cell(
        rows_of(ready, cell, outcome, queries),
        outcome.weights,
        digest=cell.digest,
        **identity(ready, cell),
        parameters=outcome.parameters,
        radius=None if outcome.certificate is None else outcome.certificate.radius,
        best_epoch=outcome.fit.best_epoch,
        history=outcome.fit.history,
        seconds_fit=outcome.fit.seconds,
        seconds_predict=outcome.seconds_predict,
        device=environment.device,
        threads=environment.threads,
        processor=processor,
        code=provenance.code(environment),
    )


def _store_failure(ready: Prepared, cell: Cell, why: Failure, host: str, environment: schema.Provenance) -> None:
    ready.folder.write_failure(
        schema.FailedCell(
            digest=cell.digest,
            **identity(ready, cell),
            error=why.error,
            traceback=why.traceback,
            when=provenance.now(),
            host=host,
            code=provenance.code(environment),
        )
    )


def rows_of(ready: Encoded, cell: Cell, outcome: Outcome, queries: Queries) -> pa.Table:
    """The prediction rows of a cell: the conditions that all models share, those of its own, any text, and those of the
    probe."""
    corpus, fold = ready.corpus, ready.corpus.folds[cell.fold]
    tested = [corpus.utterances[i] for i in fold.test]
    conditions = asked_about(ready, cell, outcome.certificate is not None)
    scores, measured = spread(ready, cell, outcome.scores, queries), measured_on(ready, cell)
    shared = len(scores)
    read: list[str | None] = [None for _ in range(len(measured))]
    certified: list[bool | None] = [None for _ in range(len(tested) * len(cell.conditions))]
    if outcome.worst is not None and shared < len(cell.conditions):
        scores = np.concatenate([scores, outcome.worst.scores])
        measured = pd.concat([measured, outcome.worst.measured[list(schema.MEASURED)]])
        read += outcome.worst.texts
    if outcome.certificate is not None:
        bound = outcome.certificate.of(fold.test)
        worst = worst_scores(corpus.task, bound, np.array([u.target for u in tested]))
        sure = unmoved(corpus.task, bound)
        scores = np.concatenate([scores, worst[None]])
        certified += [None] * len(tested) if sure is None else sure.tolist()
    if outcome.probed is not None and cell.probed:
        scores = np.concatenate([scores, probe.settled(outcome.probed, scores[0], cell.variant.reads)])
    total = len(conditions) * len(tested)
    measured = measured.reset_index(drop=True).reindex(range(total))  # no text of its own, no measure
    read += [None] * (total - len(read))
    certified += [None] * (total - len(certified))
    who = {"cell": cell.digest, **identity(ready, cell)}
    return store.prediction_table(who, conditions, tested, scores, measured, read, certified)


def spread(ready: Encoded, cell: Cell, scores: FloatArray, queries: Queries) -> FloatArray:
    """The ``scores`` (queries, K) of a cell over the conditions that all models share: (conditions, n, K)."""
    rows, count = ready.corpus.folds[cell.fold].test, len(ready.corpus)
    texts = ready.words.test[_shared(ready, cell)][:, rows]
    # the pairs were sorted by (text, utterance): one number a pair, in that order, finds each of them
    return scores[np.searchsorted(queries.texts * count + queries.rows, texts * count + rows[None, :])]


def measured_on(ready: Encoded, cell: Cell) -> pd.DataFrame:
    """What was measured on the texts of these conditions, (conditions x n,)."""
    tested = ready.words.tested
    place = np.searchsorted(tested, ready.corpus.folds[cell.fold].test)
    rows = (np.array(_shared(ready, cell))[:, None] * len(tested) + place).ravel()
    return ready.measured.iloc[rows][list(schema.MEASURED)]


def _shared(ready: Encoded, cell: Cell) -> list[int]:
    return [number for number in cell.conditions if number < len(ready.words.test)]


def asked_about(asked: Asked, cell: Cell, certified: bool) -> list[Condition]:
    """The conditions of a cell's rows, in their order: those of the plan, any text if something is ``certified`` of the
    model, and the probe."""
    found = [asked.conditions[number] for number in cell.conditions]
    found += [ANY_TEXT] if certified else []
    return found + list(probe.conditions(asked.plan.draws)) if cell.probed else found


def described(asked: Asked, environment: schema.Provenance) -> schema.RunInfo:
    """``run.json`` before the first cell."""
    plan, corpus = asked.plan, asked.corpus
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
        digest=asked.digest,
        plan=plan.model_dump(mode="json"),
        corpus=info,
        cells=tuple(cell.digest for cell in asked.wanted),
        floors=floors(corpus),
        ceilings=ceilings(corpus, asked.conditions),
        severities=asked.scale,
        own_noise={name: _noise(name) for name in plan.corruptions if CORRUPTIONS.is_own(name)},
        encoders=asked.encoders,
        provenance=environment,
        study=asked.study,
        tuning=_tuning(asked),
    )


def _noise(name: str) -> schema.NoiseInfo:
    found: Corruption = CORRUPTIONS.load(name)
    return schema.NoiseInfo(rate_is=found.rate_is, nested=found.nested, tells_label=found.tells_label)


def _tuning(asked: Asked) -> schema.TuningInfo | None:
    """What is known of the presets that the models got."""
    if asked.preset is None:
        return None
    effort = asked.preset.asked
    systems: dict[str, dict[str, schema.TunedInfo]] = {}
    settled = {(cell.variant.system, cell.fold): cell for cell in asked.wanted}
    for (system, number), cell in settled.items():
        fold = asked.corpus.folds[number].name
        chosen = asked.preset.of(cell.variant.model, system).get(fold)
        if chosen is None:
            continue
        own = {name: getattr(cell.settings, name) for name in chosen.settings}
        taken = {name: value for name, value in own.items() if value != getattr(cell.variant.settings, name)}
        systems.setdefault(system, {})[fold] = schema.TunedInfo(
            spent=chosen.spent,
            settings=format_settings(taken),
            default=chosen.default,
            best=chosen.best,
            of="" if system in asked.preset.models else cell.variant.model,
        )
    return schema.TuningInfo(
        digest=asked.preset.digest,
        trials=effort.trials,
        regimes=effort.regimes,
        corruptions=effort.corruptions,
        training=dict(effort.training),
        systems=systems,
    )
