"""What fuzzing found: every case, by target, stays mended."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzz import asked, tables, writers
from fuzz.targets import TARGETS
from made_run import Made, write

from dual_bench import preset
from dual_bench.ablation import read_study
from dual_bench.corruptions.recogniser import ASR_LOOP
from dual_bench.datasets import manifest, meld, mmsa, safe_pickle
from dual_bench.durable import sha256_of
from dual_bench.plan import read_plan
from dual_bench.report import page
from dual_bench.report.foreign_run import read_predictions
from dual_bench.store import read_run
from dual_bench.types import UserError

DIGITS = "9" * 5000
"""More than Python turns into a number."""
HEXADECIMAL = "0x" + "f" * 5000
"""A number that Python reads, and does not show."""
DEEP = "[" * 5000
_STUDY = 'name = "x"\ndataset = "synthetic"\n'
_ABLATION = _STUDY + 'question = "?"\nmetric = "accuracy"\nmargin = 0.02\nvariants = [{ change = { sdm = false } }]\n'
_UTTERANCES = {"id": "u", "split": "train", "cluster": "c", "speaker": "s", "text": "t", "label": "a"}


def _manifest(**cells: str) -> bytes:
    rows = [{**_UTTERANCES, "id": split, "split": split, **cells} for split in ("train", "validation", "test")]
    return tables.written([list(rows[0]), *(list(row.values()) for row in rows)])


def _meld(number: str) -> bytes:
    return tables.written([list(tables._MELD), ["1", "so", "Ann", "joy", "positive", "0", number]])


def _mmsa(**parts: Any) -> dict[str, Any]:
    split = {"id": ["v$_$1"], "raw_text": ["so"], "regression_labels": [0.5], "audio": [np.ones((1, 2))], **parts}
    return {
        name: {**split, "id": [f"{name}$_$1"]} if "id" not in parts else split for name in ("train", "valid", "test")
    }


FOUND: dict[str, list[Any]] = {
    "manifest": [_manifest(audio_file="a.npz", audio_row=DIGITS)],
    "meld": [_meld(DIGITS)],
    "encodings": [(b"", "a\x00b"), (b"Sr No.\\\x92", "unicode_escape")],
    "features": [
        tables._bare({"values": ("<c8", (2**64, 2**62), b"")}),
        tables._bare({"values": ("<f8", (2**31,), b"")}),
        b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape'\xff\xff, 2, 2), }",
    ],
    "predictions, Parquet": [
        b"PAR1",
        tables._parquet()[:-9] + b"\xff" * 9,
        tables._parquet().replace(b"\x15\x04", b"\x87\x91", 3),
    ],
    "study TOML": [
        (f"x = {DEEP}".encode(), {}),
        (f"x = {DIGITS}".encode(), {}),
        (f'name = "x"\ndataset = "{"x" * 300}"'.encode(), {}),
        (f"{_STUDY}models = ['dual']\nroot_seed = {HEXADECIMAL}".encode(), {}),
        (f"{_STUDY}models = ['dual:width={HEXADECIMAL}', 'dual:width={DEEP}']".encode(), {}),
        (f"{_STUDY}models = ['dual']\ntraining = 5".encode(), {"training": {"epochs": 2}}),
        (f"{_STUDY}models = ['dual']\nencoders = [1]".encode(), {"encoders": {"text": "sentence-transformers"}}),
        (_ABLATION.replace("metric", "x").encode(), {"metric": "uar"}),
        (
            asked.toml(
                {
                    "name": "x",
                    "dataset": "synthetic",
                    "question": "?",
                    "metric": "accuracy",
                    "margin": 0.1,
                    "factors": [{"name": f"f{i}", "off": {f"s{i}": 1}} for i in range(40)],
                }
            ),
            {},
        ),
    ],
    "preset TOML": [f"x = {DEEP}".encode(), f"x = {DIGITS}".encode(), f"commands = [{HEXADECIMAL}]".encode()],
    "flags": [(f"dual:width={DEEP}", [f"text=sentence-transformers:x={DIGITS}"])],
    "pickles": [
        b"\x80\x04cbuiltins\nset\n.",
        b"\x80\x04cnumpy\ndtype\n.",
        b"\x80\x04]cnumpy.core.multiarray\n_reconstruct\na.",
        b"\x80\x04cnumpy\ndtype\n(U\x02f4tR.",
    ],
    "MMSA": [
        _mmsa(vision=np.array(1.0)),
        _mmsa(id=3),
        _mmsa(regression_labels=[10**400]),
        _mmsa(audio=[[[10**400]]]),
    ],
    "JSON": [b"[" * 200_000, b'{"losing": ' + b"9" * 400 + b"}"],
    "records of runs": [b"[" * 200_000],
    "asr-loop": [([0.5], 1e300, 1.0, 0), ([-0.2], 1_000_000_007.0, 1e-9, 1)],
    "sentences": ["two\nlines", "\x1b]0;title\x07\x9b31m", "\ud800"],
    "Markdown text": ["1. ", "12) so", "3."],
    "pages": [(["\x07", "\ud8aa", "a\x00b"], writers._PLAIN_TABLE)],
}


@pytest.mark.parametrize(
    ("name", "case"),
    [(name, case) for name, cases in FOUND.items() for case in cases],
    ids=lambda v: str(v)[:30] if isinstance(v, str) else "",
)
def test_what_was_found_is_met_with_a_sentence(name: str, case: Any) -> None:
    next(target for target in TARGETS if target.name == name).check(case)


def _study(folder: Path, content: str, read: Callable[..., object] = read_plan, **flags: Any) -> None:
    (folder / "x.toml").write_text(content)
    read(str(folder / "x.toml"), flags)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f"x = {DEEP}", "nested deeper"),
        (f"x = {DIGITS}", "4300 digits"),
        (f"{_STUDY}models = ['dual']\nroot_seed = {HEXADECIMAL}", "64 bits"),
        (f"{_STUDY}models = ['dual']\nencoders = 5", r"a table \[encoders\]"),
        (f"{_STUDY}models = ['dual']\nseeds = '{'x' * 900}'", "x…"),
    ],
)
def test_a_study_that_is_deep_or_holds_endless_numbers_is_refused(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        _study(tmp_path, content)
    assert len(str(caught.value)) < 600


def test_a_study_of_more_factors_than_can_be_crossed_is_refused(tmp_path: Path) -> None:
    fields = {"name": "x", "dataset": "synthetic", "question": "?", "metric": "accuracy", "margin": 0.1}
    factors = [{"name": f"f{i}", "off": {f"s{i}": True}} for i in range(9)]
    with pytest.raises(UserError, match=r"factors: .*at most 8"):
        _study(tmp_path, asked.toml(fields | {"factors": factors}).decode(), read_study)


def test_a_preset_of_endless_numbers_is_refused() -> None:
    for value, said in ((DIGITS, "not TOML"), (HEXADECIMAL, "64 bits"), (DEEP, "nested deeper")):
        with pytest.raises(UserError, match=said):
            preset.parsed(f"x = {value}", "mine.toml")


@pytest.mark.parametrize("content", FOUND["pickles"])
def test_a_pickle_that_keeps_what_rebuilds_arrays_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(UserError, match="only plain containers and numpy arrays"):
        safe_pickle.load(tmp_path / "x.pkl")


@pytest.mark.parametrize("content", FOUND["predictions, Parquet"])
def test_a_damaged_parquet_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as parquet"):
        read_predictions([tmp_path / "x.parquet"], None, tmp_path)


def test_rows_that_share_neither_model_nor_seed_take_no_more_memory_than_rows(tmp_path: Path) -> None:
    """As a table of models and seeds they would take its square, 288 MB here."""
    number = np.arange(6000)
    frame = pd.DataFrame(
        {"model": [f"m{i}" for i in number], "seed": number, "utterance": "u", "truth": 0.0, "score_0": 0.5}
    )
    frame.to_parquet(tmp_path / "x.parquet")
    tracemalloc.start()
    with pytest.raises(UserError, match="1 rows each; found 0 by 'm0'"):
        read_predictions([tmp_path / "x.parquet"], None, tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_a_file_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    for name in (b"\xff.csv", b"a\nb.csv"):
        path = tmp_path / os.fsdecode(name)
        path.write_bytes(b"x")
        with pytest.raises(UserError, match="printable characters"):
            read_predictions([path], None, tmp_path)
        with pytest.raises(UserError, match="printable characters"):
            manifest.load(tmp_path, path=str(path))


def test_a_meld_table_with_endless_numbers_is_refused() -> None:
    (tables._meld() / "test_sent_emo.csv").write_bytes(_meld(DIGITS))
    with pytest.raises(UserError, match="whole numbers as Dialogue_ID"):
        meld.read(tables._meld())


def test_mmsa_numbers_beyond_any_float_are_refused(tmp_path: Path) -> None:
    import pickle

    for content, said in (
        (_mmsa(id=3), "no list"),
        (_mmsa(regression_labels=[10**400]), "outside"),
        (_mmsa(audio=[[[10**400]]]), "no sequence"),
    ):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(content))
        with pytest.raises(UserError, match=said):
            mmsa.read(tmp_path / "x.pkl", low=-1, high=1)


def test_a_sound_of_more_samples_a_second_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match="at most 1,000,000"):
        ASR_LOOP.apply("so", 0.5, np.random.default_rng(0), np.ones(3, np.float32), 1e300)


# ---------------------------------------------------------------------------------------------- run folders


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Path]:
    """A run folder, and the record of its only cell."""
    one = Made(models=("dual",), regimes=("clean",), rates=(0.5,), draws=1, seeds=1, utterances=4, clusters=2)
    run = write(tmp_path / "run", one)
    return run.path, next((run.path / "cells").glob("*.json"))


@pytest.mark.parametrize("digest", ["../../elsewhere", "a\x00b", "x" * 300, ""])
def test_a_run_that_names_its_cells_like_files_elsewhere_is_refused(made: tuple[Path, Path], digest: str) -> None:
    file = made[0] / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"cells": [digest]}))
    with pytest.raises(UserError, match="cells"):
        read_run(made[0])


def test_a_record_that_is_a_folder_is_refused(made: tuple[Path, Path]) -> None:
    (made[0] / "run.json").unlink()
    (made[0] / "run.json").mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        read_run(made[0])


@pytest.mark.parametrize("change", ["lost", "double", "another type", "no table"])
def test_rows_of_another_schema_are_refused_though_their_record_has_their_hash(
    made: tuple[Path, Path], change: str
) -> None:
    rows = made[1].with_suffix(".parquet")
    table = pq.read_table(rows)
    changed = {
        "lost": lambda: table.drop_columns(["truth"]),
        "double": lambda: table.append_column("wer", table["wer"]),
        "another type": lambda: table.set_column(0, "corruption", pa.nulls(len(table))).drop_columns(["model"]),
        "no table": lambda: None,
    }[change]()
    pq.write_table(changed, rows) if changed is not None else rows.write_bytes(b"PAR1")
    made[1].write_text(json.dumps(json.loads(made[1].read_text()) | {"sha256": sha256_of(rows)}))
    run = read_run(made[0])
    for read in (run.first, run.chosen, lambda: run.predictions, lambda: list(run.each(len))):
        with pytest.raises(UserError, match="does not hold what dual-bench wrote"):
            read()


def test_texts_of_another_schema_are_told_and_left_out(made: tuple[Path, Path]) -> None:
    pq.write_table(pa.table({"text": [1]}), made[0] / "texts.parquet")
    run = read_run(made[0])
    assert "cannot be read" in run.faults[0]
    assert run.texts.empty


# -------------------------------------------------------------------------------------------------- pages


def test_markdown_makes_no_list_of_a_text_that_begins_with_a_number() -> None:
    assert [page.escape_markdown(text) for text in ("1. a", "12) a", "3.", "85.2", "3 a")] == [
        "1\\. a",
        "12\\) a",
        "3\\.",
        "85.2",
        "3 a",
    ]


def test_control_characters_are_in_no_page(tmp_path: Path) -> None:
    said = ["\x07", "\ud8aa", "a\x00b"], writers._PLAIN_TABLE
    for written in (page.html(writers._context(said)), page.markdown(writers._context(said))):
        assert not [sign for sign in ("\x07", "\ud8aa", "\x00") if sign in written]
