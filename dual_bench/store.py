"""What a run leaves behind: the schema, atomic writes, and reading it back without torch.

A run folder holds

* ``run.json``: plan, corpus, floors, ceilings, provenance (``RunInfo``);
* ``texts.parquet``: every test text under every condition, with what was measured on it (``TEXT_COLUMNS``);
* ``cells/<digest>.parquet``: prediction rows of one trained model under all conditions (``PREDICTION_COLUMNS``);
* ``cells/<digest>.safetensors``: its weights, where they were asked for;
* ``cells/<digest>.json``: how that model was trained, and the status; written last (``CellInfo``);
* ``cells/<digest>.failed.json``: why there is none of these (``FailedCell``), until there is;
* ``.lock``: what a run that is at work holds (``lock``); ``log.jsonl``: what it did when (``journal``).

A cell is done when its JSON says so, carries the digest asked for, and names the hashes of rows and weights as they lie
there.
Files are written under a temporary name, flushed to disk and renamed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError
from safetensors.numpy import save_file

from dual_bench.durable import sha256_of, sync_folder
from dual_bench.journal import LOG
from dual_bench.limits import RECORD, parquet, read_bytes
from dual_bench.lock import HOLDER, LOCK
from dual_bench.processes import alive
from dual_bench.schema import (
    MEASURED,
    OLDEST_SCHEMA,
    PREDICTION_COLUMNS,
    SCHEMA_VERSION,
    TEXT_COLUMNS,
    CellInfo,
    FailedCell,
    RunInfo,
)
from dual_bench.types import ANY_TEXT, Condition, FloatArray, Task, UserError, Utterance, is_probe

# ------------------------------------------------------------------------------------------- writing


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary neighbour of ``path`` to write to; flushed and renamed at the end, removed on an exception."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 with plain newlines, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _write_table(path: Path, table: pa.Table) -> str:
    """Write Parquet and return the sha256 of the file; the same table always gives the same bytes."""
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
        digest = sha256_of(temporary)
    return digest


def _dictionary(values: Sequence[str], codes: NDArray[np.integer]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(values, pa.string()))


def text_table(
    conditions: Sequence[Condition], utterances: Sequence[str], texts: Sequence[str], measured: pd.DataFrame
) -> pa.Table:
    """The rows of ``texts.parquet``, condition after condition; ``measured`` has a row for each text."""
    n = len(utterances)
    columns: dict[str, Any] = _condition_columns(conditions, n)
    columns["utterance"] = _dictionary(utterances, np.tile(np.arange(n), len(conditions)))
    columns["text"] = pa.array(texts, pa.string())
    for name in MEASURED:
        columns[name] = pa.array(measured[name].to_numpy(np.float32))
    for name in ("words", "errors"):
        columns[name] = pa.array(measured[name].to_numpy(np.int32))
    return pa.table(columns)


def _condition_columns(conditions: Sequence[Condition], repeats: int) -> dict[str, Any]:
    names = sorted({c.corruption for c in conditions})
    return {
        "corruption": _dictionary(names, np.repeat(np.array([names.index(c.corruption) for c in conditions]), repeats)),
        "rate": pa.array(np.repeat([c.rate for c in conditions], repeats)),
        "draw": pa.array(np.repeat([c.draw for c in conditions], repeats).astype(np.int16)),
        "severity": pa.array(np.repeat([c.severity for c in conditions], repeats).astype(np.int8)),
    }


def prediction_table(
    cell: dict[str, str | int],
    conditions: Sequence[Condition],
    utterances: Sequence[Utterance],
    scores: FloatArray,
    measured: pd.DataFrame,
    texts: Sequence[str | None] | None = None,
    certified: Sequence[bool | None] | None = None,
) -> pa.Table:
    """Join a cell's scores with the labels.

    ``cell`` holds the columns from ``cell`` to ``fold``; ``scores`` is (conditions, N, K); ``measured``, ``texts`` and
    ``certified`` have conditions x N rows in the same order.
    """
    count, n, k = scores.shape
    total = count * n
    columns: dict[str, Any] = {}
    for name in ("cell", "model", "variant", "regime", "seed", "fold"):
        value = cell[name]
        if isinstance(value, str):
            columns[name] = _dictionary([value], np.zeros(total, int))
        else:
            columns[name] = pa.array(np.full(total, value, np.int32))
    columns |= _condition_columns(conditions, n)
    rows = np.tile(np.arange(n), count)
    clusters = sorted({u.cluster for u in utterances})
    position = {name: i for i, name in enumerate(clusters)}
    columns["utterance"] = _dictionary([u.id for u in utterances], rows)
    columns["cluster"] = _dictionary(clusters, np.array([position[u.cluster] for u in utterances])[rows])
    columns["truth"] = pa.array(np.array([u.target for u in utterances])[rows])
    for name in MEASURED:
        columns[name] = pa.array(measured[name].to_numpy(np.float32))
    columns["text"] = pa.array([None] * total if texts is None else texts, pa.string()).dictionary_encode()
    columns["certified"] = pa.array([None] * total if certified is None else certified, pa.bool_())
    for i in range(k):
        columns[f"score_{i}"] = pa.array(scores[:, :, i].reshape(-1).astype(np.float32))
    return pa.table(columns)


def check_writable(path: Path) -> None:
    """UserError where the folder ``path`` can neither be made nor written to."""
    there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UserError(f"{path} cannot be written: {there} is no writable folder; choose another --out")


def check_unlinked(folder: Path) -> None:
    """UserError where something in a folder that is to be written to is a link: who made it would choose where that
    lands."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_symlink():
            raise UserError(
                f"{path} is a link to {os.readlink(path)}, where nothing is to be written; a folder of results has no "
                "links, so remove it, or choose another --out"
            )


@dataclass(frozen=True)
class RunFolder:
    """One folder of results; every path in it has its name here."""

    path: Path

    @property
    def run_file(self) -> Path:
        return self.path / "run.json"

    @property
    def texts_file(self) -> Path:
        return self.path / "texts.parquet"

    @property
    def log_file(self) -> Path:
        return self.path / LOG

    @property
    def profile_file(self) -> Path:
        return self.path / "profile.json"

    def rows_file(self, digest: str) -> Path:
        return self.path / "cells" / f"{digest}.parquet"

    def cell_file(self, digest: str) -> Path:
        return self.path / "cells" / f"{digest}.json"

    def weights_file(self, digest: str) -> Path:
        return self.path / "cells" / f"{digest}.safetensors"

    def failure_file(self, digest: str) -> Path:
        return self.path / "cells" / f"{digest}.failed.json"

    def claim(self, digest: str) -> None:
        """UserError if the folder holds anything but a run of the plan with this digest."""
        check_unlinked(self.path)
        if self.run_file.is_file():
            found = self.info().digest
            if found != digest:
                raise UserError(
                    f"{self.path} belongs to another plan (digest {found[:12]}, this one is {digest[:12]}); "
                    "choose another --out, or remove that folder"
                )
        elif self.path.is_file() or (self.path.is_dir() and any(not _passing(p) for p in self.path.iterdir())):
            raise UserError(f"{self.path} exists and is not a dual-bench run; choose another --out")
        check_writable(self.path)

    @contextmanager
    def left_clean(self, new: Sequence[Path]) -> Iterator[None]:
        """Where no run has begun in the folder at the end, there is nothing in it, nor is it there if it was ``new``,
        nor the folders above it that were. For who holds its lock, which goes too: ``held`` notices that."""
        try:
            yield
        finally:
            if not self.run_file.exists():
                for file in filter(_passing, self.path.iterdir()):
                    file.unlink(missing_ok=True)
                with suppress(OSError):  # something else is in there
                    for path in new:
                        path.rmdir()

    def sweep(self) -> None:
        """Remove what a killed run was in the middle of writing; not what a living process writes now."""
        for temporary in self.path.rglob(".*.tmp"):
            if not alive(temporary.name.split(".")[-2]):
                temporary.unlink(missing_ok=True)

    def forget_failures(self, finished: Collection[str]) -> None:
        """Remove the records of failures of cells that are finished."""
        for file in (self.path / "cells").glob("*.failed.json"):
            if file.name.split(".")[0] in finished:
                file.unlink(missing_ok=True)

    def info(self) -> RunInfo:
        """UserError where there is none, or none that can be read."""
        _check_schema(self.run_file)
        return _read_record(self.run_file, RunInfo)

    def write_info(self, info: RunInfo) -> None:
        write_text(self.run_file, info.model_dump_json(indent=1) + "\n")

    def write_texts(self, table: pa.Table) -> None:
        _write_table(self.texts_file, table)

    def write_cell(
        self, table: pa.Table, weights: Mapping[str, NDArray[np.generic]] | None = None, **facts: Any
    ) -> CellInfo:
        """Write the rows, and the weights if there are any, then the record that declares them done."""
        digest = facts["digest"]
        sha256 = _write_table(self.rows_file(digest), table)
        kept = None
        self.weights_file(digest).unlink(missing_ok=True)
        if weights is not None:
            with replacing(self.weights_file(digest)) as temporary:
                save_file(dict(weights), temporary)
                kept = sha256_of(temporary)
        info = CellInfo(status="done", rows=table.num_rows, sha256=sha256, weights=kept, **facts)
        write_text(self.cell_file(digest), info.model_dump_json(indent=1) + "\n")
        self.failure_file(digest).unlink(missing_ok=True)
        return info

    def write_failure(self, why: FailedCell) -> None:
        write_text(self.failure_file(why.digest), why.model_dump_json(indent=1) + "\n")

    def record(self, digest: str) -> CellInfo:
        """How a cell was made; UserError where it is not done, or its record cannot be read."""
        return _read_record(self.cell_file(digest), CellInfo)

    def failed(self, digest: str) -> FailedCell | None:
        """Why there is no such cell, where it was tried and came to nothing."""
        try:
            return _read_record(self.failure_file(digest), FailedCell)
        except UserError:
            return None

    def finished(self, digest: str, weights: bool = False) -> CellInfo | None:
        """The record of a cell that is done, whose rows are whole and, where it has some or they are asked for, its
        weights too; else None."""
        try:
            info = self.record(digest)
            whole = info.digest == digest and sha256_of(self.rows_file(digest)) == info.sha256
            if weights or info.weights:
                whole = whole and sha256_of(self.weights_file(digest)) == info.weights
        except (UserError, OSError):
            return None
        return info if whole else None

    def borrow(
        self, digest: str, folders: Iterable[Path], made_by: tuple[str, str, str], weights: bool = False
    ) -> bool:
        """Copy the cell from a run in one of ``folders`` that has finished it, ``made_by`` the same (code, device,
        processor), and with its ``weights`` where they are asked for; whether there was one. What cannot be read is not
        there."""
        for other in sorted(path.parent.parent for each in folders for path in each.glob(f"*/cells/{digest}.json")):
            theirs = RunFolder(other)
            found = theirs.finished(digest, weights) if other != self.path else None
            if found is None or (found.code, found.device, found.processor) != made_by:
                continue
            with suppress(FileNotFoundError):  # a run that was removed in between
                for file in (
                    RunFolder.rows_file,
                    *((RunFolder.weights_file,) if found.weights else ()),
                    RunFolder.cell_file,  # last: it declares the others done
                ):
                    with replacing(file(self, digest)) as temporary:
                        shutil.copyfile(file(theirs, digest), temporary)
                if not found.weights:
                    self.weights_file(digest).unlink(missing_ok=True)
                self.failure_file(digest).unlink(missing_ok=True)
                return True
        return False


def _passing(path: Path) -> bool:
    """Whether a file may be in a folder that holds no results yet."""
    return path.suffix == ".tmp" or path.name in (LOCK, HOLDER, LOG)


def _check_schema(path: Path) -> None:
    """UserError where a record says that another dual-bench wrote it, which this one cannot read."""
    try:
        found = json.loads(read_bytes(path, RECORD, str(path)))["schema_version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return  # what is wrong with it is said where it is read
    if not isinstance(found, int) or OLDEST_SCHEMA <= found <= SCHEMA_VERSION:
        return
    what = (
        "is of a newer dual-bench: install that one"
        if found > SCHEMA_VERSION
        else "is of a dual-bench too old to be read: run it again"
    )
    raise UserError(f"{path} has schema {found}, this dual-bench reads {OLDEST_SCHEMA} to {SCHEMA_VERSION}; it {what}")


R = TypeVar("R", bound=BaseModel)
T = TypeVar("T")


def _read_record(path: Path, kind: type[R]) -> R:
    try:
        return kind.model_validate_json(read_bytes(path, RECORD, str(path)))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; expected a folder that `dual-bench run` wrote") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"{path} is not a {kind.__name__} of schema {SCHEMA_VERSION}: {where}: {first['msg']}"
        ) from None


# ------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class Run:
    """A run read back: its records, its texts, and the way to its prediction rows.

    ``files`` holds the rows of each finished cell, by digest; ``held`` those of another toolkit, which are in memory.
    ``missing`` are the digests of cells that are not done, or whose rows are damaged, and ``faults`` says what else
    could not be read.
    """

    folder: RunFolder
    info: RunInfo
    cells: tuple[CellInfo, ...]
    files: Mapping[str, Path]
    texts: pd.DataFrame
    missing: tuple[str, ...] = ()
    failed: tuple[FailedCell, ...] = ()
    """Those of the missing that were tried and came to nothing."""
    faults: tuple[str, ...] = ()
    held: pd.DataFrame | None = None
    parts_of: tuple[Run, ...] = ()
    """The runs that this one was merged from."""

    @property
    def task(self) -> Task:
        corpus = self.info.corpus
        return Task(
            corpus.task,
            corpus.classes,
            low=-np.inf if corpus.low is None else corpus.low,
            high=np.inf if corpus.high is None else corpus.high,
        )

    def each(self, work: Callable[[pd.DataFrame], T]) -> Iterator[T]:
        """What ``work`` makes of the prediction rows of each training (model, variant, regime, seed), in the order of
        cells.

        A study may have more rows than memory: as many trainings are in it at a time as there are cores.
        """
        if self.held is not None:
            yield work(self.held)
            return
        trainings: dict[tuple[str, str, str, int], list[Path]] = {}
        for cell in self.cells:
            who = (cell.model, cell.variant, cell.regime, cell.seed)
            trainings.setdefault(who, []).append(self.files[cell.digest])
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            yield from pool.map(lambda files: work(_read_rows(files)), trainings.values())

    def first(self) -> pd.DataFrame:
        """The prediction rows of the first cell."""
        return _read_rows([self.files[self.cells[0].digest]]) if self.held is None else self.held

    def chosen(self) -> pd.DataFrame:
        """The rows whose text depends on the model that read it."""
        frames = []
        for file in self.files.values():
            for texts in _read_table(file, PREDICTION_COLUMNS, ["text"]).columns:  # none: an old schema
                if pc.any(given := texts.is_valid()).as_py():
                    frames.append(_read_table(file, PREDICTION_COLUMNS).filter(given))
        if not frames:
            return pd.DataFrame(columns=list(PREDICTION_COLUMNS))
        return _joined(frames)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """The rows of ordinary conditions, all in memory."""
        return self._apart[0]

    @cached_property
    def certified(self) -> pd.DataFrame:
        """The rows of the condition ``any-text``, likewise."""
        return self._apart[1]

    @cached_property
    def probes(self) -> pd.DataFrame:
        """The rows with modalities taken away or exchanged (``types.is_probe``), likewise."""
        return self._apart[2]

    @cached_property
    def _apart(self) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        if self.held is not None:
            return apart(self.held)
        return apart(_read_rows([self.files[cell.digest] for cell in self.cells]))


def _read_rows(files: Sequence[Path]) -> pd.DataFrame:
    return _joined([_read_table(file, PREDICTION_COLUMNS) for file in files])


_NEWER = ("severity", "text", "certified")
"""Columns that old schemas lack."""
_NUMBERS = ("seed", "rate", "draw", "severity", "truth", *MEASURED, "words", "errors")


def _read_table(file: Path, wanted: Iterable[str], columns: Sequence[str] | None = None) -> pa.Table:
    """The ``columns`` of a Parquet file, by default all; UserError where it does not have those of a schema, each once
    and of its type."""
    try:
        schema = pq.read_schema(file)
        scores = [name for name in schema.names if name.startswith("score_")]
        for name in (*wanted, *scores):
            if name not in schema.names and name in _NEWER:
                continue
            if len(schema.get_all_field_indices(name)) != 1 or not _fits(name, schema.field(name).type):
                raise pa.ArrowInvalid(f"its column '{name}' is missing, double, or of another type")
        return parquet(file, str(file), columns)
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{file} does not hold what dual-bench wrote: {reason}; let the same command run again"
        ) from None


def _fits(name: str, kind: pa.DataType) -> bool:
    """Whether a column may have values of a type."""
    if name == "certified":
        return bool(pa.types.is_boolean(kind) or pa.types.is_null(kind))
    if name in _NUMBERS or name.startswith("score_"):
        return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
    if name == "text":
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind))
    return bool(pa.types.is_dictionary(kind) and pa.types.is_string(kind.value_type))


def _joined(tables: Sequence[pa.Table]) -> pd.DataFrame:
    try:
        rows: pd.DataFrame = pa.concat_tables(tables, promote_options="default").unify_dictionaries().to_pandas()
    except pa.ArrowException as error:
        raise UserError(f"the rows of several cells do not go together: {' '.join(str(error).split())[:200]}") from None
    return rows if "certified" in rows else rows.assign(certified=None)  # schema 2 had none


def read_run(path: Path) -> Run:
    """Read what is sound in a run folder; UserError where there is no run, or no finished cell."""
    folder = RunFolder(path)
    info = folder.info()
    with ThreadPoolExecutor() as pool:  # most of it is hashing the rows
        records = dict(zip(info.cells, pool.map(folder.finished, info.cells), strict=True))
    done = tuple(record for record in records.values() if record is not None)
    if not done:
        raise UserError(f"{path} holds no finished cell yet; let `dual-bench run` go on")
    files = {record.digest: folder.rows_file(record.digest) for record in done}
    missing = tuple(digest for digest, record in records.items() if record is None)
    texts, faults = _read_texts(folder)
    if info.schema_version < SCHEMA_VERSION:
        faults += (
            f"An older dual-bench wrote these rows (schema {info.schema_version}, now {SCHEMA_VERSION}): what it did "
            "not store is left out.",
        )
    failed = tuple(why for digest in missing if (why := folder.failed(digest)) is not None)
    return Run(folder, info, done, files, texts, missing, failed, faults)


def _read_texts(folder: RunFolder) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The texts, or none and what is wrong with them."""
    file = folder.texts_file
    if not file.is_file():
        wrong = "is missing"
    else:
        try:
            texts: pd.DataFrame = _read_table(file, TEXT_COLUMNS).to_pandas()[list(TEXT_COLUMNS)]
            return texts.astype({"text": object}), ()
        except (UserError, KeyError) as error:
            wrong = f"cannot be read ({error})"
    said = f"{file.name} {wrong}: no test text can be shown. The same command run again writes it anew."
    return pd.DataFrame(columns=list(TEXT_COLUMNS)), (said,)


def apart(predictions: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The rows of ordinary conditions, those of ``any-text``, and those with modalities taken away or exchanged; each
    counted from 0."""
    corruption = predictions["corruption"]
    bound = corruption == ANY_TEXT.corruption
    probed = corruption.isin([name for name in corruption.cat.categories if is_probe(name)])
    if not (bound | probed).any():
        none = predictions.iloc[:0].copy()  # a view would keep all rows in memory
        return predictions.reset_index(drop=True), none, none
    ordinary, certified, probes = (
        predictions[rows].reset_index(drop=True) for rows in (~(bound | probed), bound, probed)
    )
    return ordinary, certified, probes
