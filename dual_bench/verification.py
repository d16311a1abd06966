"""Does a run hold? Its digests, labels, texts, predictions and report, made again from what it says of itself.

What is cheap is done for every cell. To train again is dear, so that is done for a random sample: whoever forged one of
n trainings, and all that depends on it, is found by a sample of k with probability k / n. The sample is drawn anew each
time; nobody can know it beforehand.

What cannot be made again is taken on trust: provenance and seconds, the margin and the expectations of an ablation, and
which cells of a plan are not there. Where the environment is said to be another, or is not known, numbers may differ by
``tolerance``, and the findings say so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from safetensors import SafetensorError
from safetensors.numpy import load_file

from dual_bench import job, provenance, schema, store, tolerance, training
from dual_bench.catalog import check_code, validated
from dual_bench.contract.checks import Finding, SkippedError
from dual_bench.differences import (
    DRAWN,
    DiffersError,
    check_none,
    check_rows,
    column,
    first_unlike,
    in_fields,
    in_report_file,
    place,
    read_rows,
    short,
)
from dual_bench.durable import sha256_of
from dual_bench.engine import Local
from dual_bench.journal import Failure
from dual_bench.models.spec import told
from dual_bench.plan import FORMAT_VERSION, Cell, Plan, load_corpus, plan_digest
from dual_bench.prepare import Asked, ask, encode_all, identity, in_silence
from dual_bench.processes import cores
from dual_bench.report.render import rendered
from dual_bench.runner import Prepared, and_attacked, asked_about, described, job_for, measured_on, rows_of, spread
from dual_bench.seeding import generator
from dual_bench.shards import Training, trainings
from dual_bench.stats.frame import system_name
from dual_bench.store import RunFolder, read_run
from dual_bench.types import Corpus, DualBenchError, Report, UserError


def verify(
    path: Path,
    data: Path,
    cache: Path,
    seed: int,
    sample: int | None = 1,
    dataset: str | None = None,
    code: Collection[str] = (),
    jobs: int = 0,
    report: Report = in_silence,
) -> Iterator[Finding]:
    """The finding of each check of the run in ``path``, as it is made; nothing is written there.

    ``sample`` trainings, None for all, drawn by ``seed``, are trained again, side by side in ``jobs`` processes (0: one
    a core). ``dataset`` is where the corpus lies here, by default where the plan has it; ``code`` are the parts from
    elsewhere that the plan may mention. UserError where there is no run.
    """
    run = _Claims(RunFolder(path), data, cache, seed, sample, dataset, code, jobs, report)
    run.info  # noqa: B018 – an error of this is the user's
    return (_found(what, check, run) for what, check in _CHECKS.items())


def _found(what: str, check: Callable[[_Claims], str], run: _Claims) -> Finding:
    try:
        return Finding(what, "ok", check(run))
    except SkippedError as reason:
        return Finding(what, "skipped", str(reason))
    except UnableError as reason:
        return Finding(what, "unable", str(reason))
    except (DiffersError, DualBenchError) as difference:
        return Finding(what, "FAILS", str(difference))
    except Exception as error:  # whatever a forged file leads to is a finding
        return Finding(what, "FAILS", f"raised {told(error)}")


class UnableError(Exception):
    """Why something that ought to be checked cannot be checked here."""


@dataclass(frozen=True)
class _Claims:
    """What a run says of itself, and what it can be made again from."""

    folder: RunFolder
    data: Path
    cache: Path
    seed: int
    sample: int | None
    dataset: str | None
    code: Collection[str]
    jobs: int
    report: Report

    @cached_property
    def info(self) -> schema.RunInfo:
        return self.folder.info()

    @cached_property
    def damaged(self) -> dict[str, str]:
        """What is wrong with the files of a cell, by its digest; a cell that is not there is not among them."""
        return {digest: wrong for digest in self.info.cells if (wrong := _wrong_with(self.folder, digest))}

    @cached_property
    def records(self) -> dict[str, schema.CellInfo]:
        """Of the cells that are there, by digest."""
        there = [digest for digest in self.info.cells if self.folder.cell_file(digest).exists()]
        return {digest: self.folder.record(digest) for digest in there if digest not in self.damaged}

    @cached_property
    def corpus(self) -> Corpus:
        given = {} if self.dataset is None else {"dataset": self.dataset}
        try:
            check_code({**self.info.plan, **given}, str(self.folder.run_file), self.code, given)
        except UserError as error:
            raise UnableError(str(error)) from None
        try:
            return load_corpus(self.dataset or self.info.plan["dataset"], self.data)
        except UserError as error:
            raise UnableError(f"the corpus cannot be had here: {error}") from None

    @cached_property
    def asked(self) -> Asked:
        """The plan, asked again."""
        if self.info.schema_version != schema.SCHEMA_VERSION:
            raise UnableError(f"another dual-bench wrote this (schema {self.info.schema_version})")
        if (made := self.info.provenance.format) not in (None, FORMAT_VERSION):
            raise UnableError(f"plans gave other numbers then (format {made}, now {FORMAT_VERSION})")
        device = self.info.provenance.device
        try:
            training.resolve_device(device)
        except UserError:
            raise UnableError(f"this was made on '{device}', which is not here") from None
        corpus = self.corpus
        plan = validated(Plan, dict(self.info.plan), f"{self.folder.run_file}, plan")
        try:
            return ask(plan, self.info.study, self.data, self.cache, device, self.report, corpus)
        except UserError as error:
            raise UnableError(f"it cannot be asked again here: {error}") from None

    @cached_property
    def cells(self) -> dict[str, Cell]:
        """Those of the plan that are whole here, by digest."""
        wanted = {cell.digest: cell for cell in self.asked.wanted}
        if set(wanted) != set(self.info.cells):
            raise UnableError("the plan comes to other cells, see above")
        return {digest: wanted[digest] for digest in self.records}

    @cached_property
    def groups(self) -> list[Training]:
        """All trainings of the plan, with all that shares each: what is asked together decides how numbers are
        rounded."""
        return trainings(self.asked.wanted)

    @cached_property
    def ready(self) -> Prepared:
        try:
            return Prepared(**vars(encode_all(self.asked, self.cache, self.report)), folder=self.folder)
        except UserError as error:
            raise UnableError(f"it cannot be encoded again here: {error}") from None

    @cached_property
    def ours(self) -> schema.Provenance:
        """The environment here, as a run would tell it."""
        return provenance.gather(self.info.provenance.device, job.THREADS, self.jobs)

    @cached_property
    def elsewhere(self) -> str:
        """In what the run's environment differs from this one, so that numbers may be rounded otherwise; empty: in
        nothing that is known."""
        theirs, ours = self.info.provenance, self.ours
        named = ("commit", "dirty", "python", "platform", "threads", "accelerator", "arithmetic")
        pairs = {what: (getattr(theirs, what), getattr(ours, what)) for what in named}
        pairs |= {what: (theirs.packages[what], ours.packages.get(what)) for what in theirs.packages}
        there = sorted({record.processor for record in self.records.values()})
        pairs["processor"] = (" and ".join(there) or "unknown", ours.processor)
        other = [f"{what} {short(there)}, here {short(here)}" for what, (there, here) in pairs.items() if there != here]
        return "; ".join(other)

    @cached_property
    def tolerance(self) -> float:
        """By how much a score may differ."""
        if not self.elsewhere:
            return 0.0
        if self.corpus.task.kind == "classification":
            return tolerance.SCORES
        return tolerance.SCORES * float(np.ptp([u.target for u in self.corpus.utterances]))  # of a value in use

    @property
    def within(self) -> str:
        """The same for people, with what allows it."""
        first, *more = self.elsewhere.split("; ")
        others = f" and {len(more)} more" if more else ""
        return f", to within {self.tolerance:.2g} ({first}{others})" if first else ", to the bit"

    @property
    def drawn_alike(self) -> bool:
        """Whether the figures are known to come from the matplotlib and the Bokeh that are here."""
        return all(self.info.provenance.packages.get(name) == metadata.version(name) for name in _DRAW)

    def name(self, digest: str) -> str:
        """A cell for people."""
        try:
            record = self.folder.record(digest)
        except UserError:
            return f"cell {digest[:12]}"
        return f"cell {digest[:12]} ({system_name(record.model, record.variant)} {record.regime} seed {record.seed})"


# --------------------------------------------------------------------------------------------- the checks


def _files(run: _Claims) -> str:
    there = sum(run.folder.cell_file(digest).exists() for digest in run.info.cells)
    check_none([f"{run.name(digest)}: {wrong}" for digest, wrong in run.damaged.items()])
    check_none([f"cells/{name} belongs to no cell of this run" for name in _unclaimed(run)])
    if run.info.status == "complete" and there < len(run.info.cells):
        raise DiffersError(f"the run says that it is complete, and {len(run.info.cells) - there} cells are not there")
    return f"{there} of {len(run.info.cells)} cells are there"


def _plan(run: _Claims) -> str:
    asked, info = run.asked, run.info
    claimed = asked.plan.model_copy(update={"dataset": info.plan["dataset"]})
    here = described(asked, info.provenance).model_copy(
        update={
            "plan": claimed.model_dump(mode="json"),
            "digest": plan_digest(claimed, asked.wanted, asked.study, asked.preset),
        }
    )
    told = {"status", "found", "problem", "provenance"}  # how it went, which no plan tells
    check_none(in_fields(*(one.model_dump(mode="json", exclude=told) for one in (info, here))))
    return f"digest {info.digest[:12]}, {len(info.cells)} cells, corpus {info.corpus.fingerprint[:12]}"


def _texts(run: _Claims) -> str:
    ready = run.ready
    ids = [ready.corpus.utterances[i].id for i in ready.words.tested]
    made = store.text_table(ready.shared, ids, ready.words.test_texts, ready.measured)
    check_rows(run.folder.texts_file, read_rows(run.folder.texts_file), made, run.tolerance)
    return f"{made.num_rows:,} texts, made and measured again{run.within}"


def _rows(run: _Claims) -> str:
    """All columns but scores, and what a model chose for itself."""
    ready, count, other = run.ready, 0, []
    for digest, cell in run.cells.items():
        record, file = run.records[digest], run.folder.rows_file(digest)
        try:
            stored = read_rows(file)
            rows = check_rows(file, stored, _rebuilt(ready, cell, record, stored), run.tolerance)
            known = {**identity(ready, cell), "rows": rows, "device": ready.device, "threads": job.THREADS}
            said = {name: getattr(record, name) for name in known}
            check_none([f"{run.name(digest)}: {difference}" for difference in in_fields(said, known)])
            count += rows
        except DiffersError as difference:
            other.append(str(difference))
    check_none(other)
    return f"labels, texts and measured noise of {count:,} rows, joined again{run.within}"


def _rebuilt(ready: Prepared, cell: Cell, record: schema.CellInfo, stored: pa.Table) -> pa.Table:
    """The rows of a cell as they have to be, around its scores and what the model chose for itself."""
    tested = [ready.corpus.utterances[i] for i in ready.corpus.folds[cell.fold].test]
    conditions = asked_about(ready, cell, record.radius is not None)
    if stored.num_rows != len(conditions) * len(tested):
        raise DiffersError(
            f"{ready.folder.rows_file(cell.digest).name} has {stored.num_rows} rows, and its conditions come to "
            f"{len(conditions) * len(tested)}"
        )
    scores = np.stack([column(stored, f"score_{i}") for i in range(ready.corpus.task.outputs)], axis=1)
    own = pd.DataFrame({name: column(stored, name) for name in schema.MEASURED})
    again = measured_on(ready, cell)
    own.iloc[: len(again)] = again.to_numpy(np.float32)
    texts, sure = (stored.column(name).to_pylist() for name in ("text", "certified"))
    texts[: len(again)] = [None] * len(again)
    who = {"cell": cell.digest, **identity(ready, cell)}
    shape = (len(conditions), len(tested), -1)
    return store.prediction_table(who, conditions, tested, scores.reshape(shape), own, texts, sure)


def _weights(run: _Claims) -> str:
    """What the stored weights say is what is stored of their answers."""
    kept = {digest for digest in run.cells if run.records[digest].weights}
    if not kept:
        raise SkippedError("none were kept (--keep-weights)")
    other = []
    for number, group in enumerate(run.groups):
        run.report("weights", number, len(run.groups), group[0].title)
        asked = [cell for cell in group if cell.digest in kept]
        if not asked:
            continue
        parcel = job_for(run.ready, group, weights=False)
        for cell in asked:
            try:
                _check_answers(run, cell, parcel)
            except DiffersError as difference:
                other.append(str(difference))
    check_none(other)
    return f"{len(kept)} models answer as is stored{run.within}"


def _check_answers(run: _Claims, cell: Cell, parcel: job.Job) -> None:
    name, folder = run.name(cell.digest), run.folder
    try:
        scores = job.answers(parcel, load_file(folder.weights_file(cell.digest)))
    except (SafetensorError, RuntimeError) as error:
        raise DiffersError(f"{name}: its weights are not those of such a model: {told(error)}") from None
    stored = read_rows(folder.rows_file(cell.digest))
    answers = spread(run.ready, cell, scores, parcel.queries).reshape(-1, run.ready.corpus.task.outputs)
    for number, again in enumerate(answers.T):
        key = f"score_{number}"
        there = column(stored, key)[: len(again)]
        if (at := first_unlike(there, again, run.tolerance)) is not None:
            values = f"{key} is stored as {there[at]:.7g}, the kept weights say {again[at]:.7g}"
            raise DiffersError(f"{name}: {place(stored, at)}: {values}")


def _retrained(run: _Claims) -> str:
    """A sample, and beside it what is damaged, so that it can be said which numbers were changed."""
    whole = [group for group in run.groups if any(cell.digest in run.cells for cell in group)]
    if run.sample == 0 or not whole:
        raise SkippedError("none is asked for" if whole else "no cell is whole")
    count = len(whole) if run.sample is None else min(run.sample, len(whole))
    drawn = generator("verify", run.seed).choice(len(whole), count, replace=False)
    chosen = [whole[number] for number in sorted(drawn)]
    damaged = [group for group in run.groups if any(cell.digest in run.damaged for cell in group)]
    chosen += [group for group in damaged if group not in chosen][:count]
    other, unable, largest = [], [], 0.0
    run.report("models", 0, len(chosen), chosen[0][0].title)
    engine = Local(run.jobs or (cores() if run.asked.device == "cpu" else 1), run.asked.plan.from_elsewhere)
    with closing(engine.each(len(chosen), lambda number: job_for(run.ready, chosen[number], weights=True))) as jobs:
        for done, (number, parcel, came) in enumerate(jobs, 1):
            run.report("models", done, len(chosen), chosen[number][0].title)
            came = and_attacked(run.ready, chosen[number], parcel, came)
            for cell in chosen[number]:
                try:
                    if isinstance(came.result, Failure):
                        raise UnableError(f"{cell.title}: {came.result.error}")
                    outcome = came.result[cell.packed.index(cell.seed)]
                    largest = max(largest, _repeats(run, cell, outcome, parcel))
                except DiffersError as difference:
                    other.append(str(difference))
                except UnableError as reason:
                    unable.append(str(reason))
    check_none(other)
    if unable:
        raise UnableError("\n".join(unable))
    share = f"{len(chosen)} of {len(run.groups)} trainings, drawn by --seed {run.seed}"
    return (
        f"{share}: scores differ by {largest:.1g} at most{run.within}" if run.elsewhere else f"{share}: the same bits"
    )


def _repeats(run: _Claims, cell: Cell, outcome: job.Outcome, parcel: job.Job) -> float:
    """The largest difference of a score from what is stored of a cell that was in the sample."""
    name, file, record = run.name(cell.digest), run.folder.rows_file(cell.digest), run.records.get(cell.digest)
    if not file.exists():
        return 0.0
    if record is not None:
        _check_record(run, name, record, outcome)
    stored, made = read_rows(file), rows_of(run.ready, cell, outcome, parcel.queries)
    check_rows(file, stored, made, run.tolerance)
    scores = [each for each in made.column_names if each.startswith("score_")]
    return max(float(np.abs(column(stored, each) - column(made, each)).max()) for each in scores)


def _check_record(run: _Claims, name: str, record: schema.CellInfo, outcome: job.Outcome) -> None:
    """What a record says of its training; on another machine alone what does not depend on rounding."""
    fit, certificate = outcome.fit, outcome.certificate
    found: dict[str, Any] = {"parameters": outcome.parameters, "certified": certificate is not None}
    said: dict[str, Any] = {"parameters": record.parameters, "certified": record.radius is not None}
    if not run.elsewhere:
        found |= {"best_epoch": fit.best_epoch, "history": list(fit.history)}
        found |= {"radius": None if certificate is None else certificate.radius}
        said |= {"best_epoch": record.best_epoch, "history": list(record.history), "radius": record.radius}
    check_none([f"{name}: {difference}" for difference in in_fields(said, found)])
    if record.best_epoch != fit.best_epoch:
        raise UnableError(
            f"{name}: epoch {fit.best_epoch} is chosen here and {record.best_epoch} was there, as may be with other "
            f"rounding ({run.elsewhere})"
        )
    if record.weights and not run.elsewhere:
        kept = load_file(run.folder.weights_file(record.digest))
        again = outcome.weights or {}
        other = [key for key in {*kept, *again} if not np.array_equal(kept.get(key, ()), again.get(key, ()))]
        check_none([f"{name}: {key} of its kept weights is not what training comes to" for key in sorted(other)])


def _report(run: _Claims) -> str:
    """Every file of the report, rendered again from the rows."""
    if run.damaged:
        raise UnableError("its rows are damaged, see above")
    there = _report_files(run.folder.path, _WRITTEN)
    formats = [kind for kind in _WRITTEN if _report_files(run.folder.path, [kind])]
    if not formats:
        raise SkippedError("there is none in this folder")
    run.report("report", 0, 0, ", ".join(formats))
    with TemporaryDirectory() as again:
        rendered(read_run(run.folder.path), Path(again), formats)
        made = _report_files(Path(again), _WRITTEN)
        found = {name: in_report_file(name, run.folder.path / name, file) for name, file in sorted(made.items())}
    found |= {name: f"{name} is no part of this report" for name in sorted(set(there) - set(made))}
    other = {name: difference for name, difference in found.items() if difference}
    drawn = {name for name in other if name in there and name in made and name.endswith(DRAWN)}
    try:
        check_none([difference for name, difference in other.items() if name not in drawn or run.drawn_alike])
    except DiffersError as error:
        if provenance.code(run.info.provenance) == provenance.code(run.ours):
            raise
        raise DiffersError(f"{error}; other code made this run, and may have written another report") from None
    if drawn:
        ours = ", ".join(f"{name} {metadata.version(name)}" for name in _DRAW)
        raise UnableError(f"{len(drawn)} of {len(made)} files, with figures, are not what {ours} draw; the others hold")
    return f"{len(made)} files"


_DRAW = ("matplotlib", "bokeh")
_WRITTEN = {
    "html": ("index.html", "figures/*.svg"),
    "md": ("report.md", "methods.md", "figures/*.png"),
    "latex": ("report.tex", "tables/*.tex", "figures/*.pdf"),
    "csv": ("tables/*.csv",),
}
"""What a report in each format is found by."""


def _report_files(folder: Path, formats: Iterable[str]) -> dict[str, Path]:
    """The files of a report in these formats, by their names in its folder."""
    found = (file for kind in formats for pattern in _WRITTEN[kind] for file in folder.glob(pattern))
    return {file.relative_to(folder).as_posix(): file for file in found}


def _unclaimed(run: _Claims) -> Iterator[str]:
    """Files among the cells that no record speaks of; what a writing process has there for a moment is none."""
    for file in sorted(run.folder.rows_file("").parent.glob("[!.]*")):
        digest, _, kind = file.name.partition(".")
        record = run.records.get(digest)
        if digest not in run.info.cells or (kind == "safetensors" and record is not None and not record.weights):
            yield file.name


_CHECKS: Mapping[str, Callable[[_Claims], str]] = {
    "files are what their records say": _files,
    "plan, corpus and digests": _plan,
    "texts": _texts,
    "rows but for scores": _rows,
    "kept weights": _weights,
    "trained again": _retrained,
    "report": _report,
}


# ------------------------------------------------------------------------------------------------ parts


def _wrong_with(folder: RunFolder, digest: str) -> str:
    """What is wrong with the files of a cell; empty where nothing is, or it is not there."""
    if not folder.cell_file(digest).exists():
        return ""
    try:
        record = folder.record(digest)
        if record.digest != digest:
            return f"its record is that of cell {record.digest[:12]}"
        files = {folder.rows_file(digest): record.sha256}
        if record.weights:
            files[folder.weights_file(digest)] = record.weights
        for file, expected in files.items():
            if not file.is_file():
                return f"{file.name} is missing"
            if (found := sha256_of(file)) != expected:
                return f"{file.name} has sha256 {found[:12]}, its record says {expected[:12]}"
    except UserError as error:
        return str(error)
    except OSError as error:
        return f"{Path(error.filename or '').name} cannot be read: {error.strerror}"
    return ""
