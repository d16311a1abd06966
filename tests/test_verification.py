"""``dual-bench verify``: a run that holds passes; whatever was changed in it is found, and named."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from calling import invoke, refused, without_figures
from safetensors.numpy import load_file, save_file
from tiny import write_corpus

from dual_bench.differences import in_report_file
from dual_bench.durable import sha256_of
from dual_bench.features.cache import default_folder
from dual_bench.schema import CellInfo
from dual_bench.store import RunFolder
from dual_bench.tolerance import SCORES
from dual_bench.verification import verify

MODELS = "dual:text_path=bounded,width=8,heads=2,text-only:width=8"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A study with everything that rows can hold: a certificate, a probe, words that the model chose, and weights. Its
    corpus is named from the folder that is the working one here."""
    place = tmp_path_factory.mktemp("study")
    asked = ["--models", MODELS, "--seeds", "2", "--regimes", "clean", "--corruptions", "word-drop,worst-case"]
    more = ["--rates", "0,1", "--draws", "1", "--epochs", "2", "--jobs", "1", "--keep-weights"]
    with without_figures(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(write_corpus(place).parent)
        patch.setattr("dual_bench.provenance._git_state", lambda folder: ("c" * 40, False))
        found = invoke("run", "--dataset", "corpus.csv", *asked, *more, "--out", place / "run")
        assert found.exit_code == 0, found.output
        yield place / "run"


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy that can be changed."""
    return shutil.copytree(made, tmp_path / "run")


def verified(run: Path, *flags: str | Path, code: int) -> str:
    """What is told, without spaces: lines break anywhere."""
    with without_figures():
        found = invoke("verify", run, "--jobs", "1", *flags)
    assert found.exit_code == code, found.output
    told = squeezed(found.stdout)
    assert ("nothingfails" in told) == (code == 0)
    return told


def squeezed(text: str) -> str:
    return "".join(text.split())


def first_that_fails(run: Path, sample: int | None = 0) -> str:
    """What the first check that fails says; those behind it are not made."""
    findings = verify(run, Path("data"), default_folder(), 0, sample, jobs=1)
    with without_figures():
        return next(f"{found.promise}: {found.detail}" for found in findings if found.verdict == "FAILS")


def cells(run: Path) -> list[CellInfo]:
    folder = RunFolder(run)
    return [folder.record(digest) for digest in folder.info().cells]


def rewrite(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    fields = json.loads(file.read_text())
    change(fields)
    file.write_text(json.dumps(fields))


def forge(run: Path, cell: CellInfo, column: str, at: int, value: object) -> None:
    """Change one value of the stored rows of a cell."""
    file = RunFolder(run).rows_file(cell.digest)
    table = pq.read_table(file)
    values = table.column(column).to_pylist()
    assert values[at] != value
    values[at] = value
    number = table.column_names.index(column)
    pq.write_table(table.set_column(number, column, pa.array(values, table.schema.field(column).type)), file)


def declare(run: Path, cell: CellInfo) -> None:
    """Let the record say that the files are what they are now."""
    folder = RunFolder(run)
    now = {"sha256": sha256_of(folder.rows_file(cell.digest))}
    if cell.weights:
        now["weights"] = sha256_of(folder.weights_file(cell.digest))
    rewrite(folder.cell_file(cell.digest), lambda fields: fields.update(now))


def forget_weights(run: Path) -> None:
    folder = RunFolder(run)
    for cell in cells(run):
        folder.weights_file(cell.digest).unlink()
        rewrite(folder.cell_file(cell.digest), lambda fields: fields.update(weights=None))


def test_a_fresh_run_holds_to_the_bit_and_nothing_in_its_folder_is_touched(made: Path) -> None:
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in made.rglob("*") if file.is_file()}
    told = verified(made, "--retrain", "all", code=0)
    assert "skipped" not in told
    assert squeezed("4 of 4 trainings, drawn by") in told
    assert squeezed("the same bits") in told
    assert squeezed("4 models answer as is stored") in told
    after = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in made.rglob("*") if file.is_file()}
    assert after == before


@pytest.mark.parametrize(
    ("file", "before", "named"),
    [
        ("tables/scores.csv", ",value,", "tables/scores.csv, line 2, value: says '"),
        ("report.md", "95 %", "report.md, line "),
        ("index.html", "95 %", "index.html, line "),
    ],
)
def test_a_number_that_was_changed_in_a_report_is_named(run: Path, file: str, before: str, named: str) -> None:
    whole = (run / file).read_text()
    if file.endswith(".csv"):
        table = pd.read_csv(run / file)
        table.loc[0, "value"] += 0.01
        table.to_csv(run / file, index=False)
    else:
        at = next(found.start() for found in re.finditer(r"[1-8]", whole) if whole.index(before) < found.start())
        (run / file).write_text(f"{whole[:at]}{int(whole[at]) + 1}{whole[at + 1 :]}")
    assert (run / file).read_text() != whole
    assert f"report: {named}" in first_that_fails(run)


def test_where_other_code_made_a_run_its_report_may_be_of_that_code_and_this_is_said(run: Path) -> None:
    rewrite(run / "run.json", lambda fields: fields["provenance"].update(dual_bench="0.0.9"))  # the report tells it
    assert "other code made this run" in first_that_fails(run)


def test_a_prediction_that_was_changed_is_named(run: Path) -> None:
    cell = next(cell for cell in cells(run) if cell.model == "text-only")
    forge(run, cell, "score_1", 5, 0.987)
    told = verified(run, code=1)
    name = f"cell {cell.digest[:12]} (text-only:width=8 clean seed 0)"
    assert squeezed(f"{name}: {cell.digest}.parquet has sha256") in told
    assert squeezed(f"{cell.digest}.parquet: utterance u69, clean: score_1 is 0.987, expected") in told  # trained again
    assert squeezed("unable report (its rows are damaged") in told


def test_a_prediction_that_was_changed_is_named_also_where_its_record_vouches_for_it(run: Path) -> None:
    cell = next(cell for cell in cells(run) if cell.model == "text-only")
    forge(run, cell, "score_1", 5, 0.987)
    declare(run, cell)
    told = verified(run, "--retrain", "0", code=1)
    assert squeezed("utterance u69, clean: score_1 is stored as 0.987, the kept weights say") in told
    assert squeezed("tables/scores.csv, line") in told
    forget_weights(run)
    assert "utterance u69, clean: score_1 is 0.987" in first_that_fails(run, sample=None)


def test_weights_that_were_exchanged_are_named(run: Path) -> None:
    folder = RunFolder(run)
    one, other = (cell for cell in cells(run) if cell.model == "text-only")
    first, second = (folder.weights_file(cell.digest) for cell in (one, other))
    before = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(before)
    told = first_that_fails(run)
    assert f"{one.digest}.safetensors has sha256" in told
    assert f"{other.digest}.safetensors has sha256" in told

    declare(run, one)
    declare(run, other)
    assert first_that_fails(run).count("the kept weights say") == 2

    first.write_bytes(b"no weights")
    declare(run, one)
    assert "its weights are not those of such a model" in first_that_fails(run)


@pytest.mark.parametrize(
    ("column", "at", "value"),
    [("truth", 3, 3.0), ("utterance", 3, "u70"), ("wer", 40, 0.5), ("rate", 40, 0.5), ("cluster", 0, "talk17")],
)
def test_labels_texts_and_noise_that_were_changed_are_named(run: Path, column: str, at: int, value: object) -> None:
    cell = cells(run)[0]
    forge(run, cell, column, at, value)
    declare(run, cell)
    told = first_that_fails(run)
    assert told.startswith(f"rows but for scores: {cell.digest}.parquet: utterance u")
    assert f": {column} is {value}, expected" in told


def test_a_text_that_was_changed_is_named(run: Path) -> None:
    file = RunFolder(run).texts_file
    table = pq.read_table(file)
    texts = table.column("text").to_pylist()
    texts[2] = "they were happy"
    number = table.column_names.index("text")
    pq.write_table(table.set_column(number, "text", pa.array(texts)), file)
    assert "texts.parquet: utterance u66, clean: text is they were happy, expected" in first_that_fails(run)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda run: run["floors"].update(accuracy=0.9), "floors.accuracy is 0.9, expected"),
        (lambda run: run["plan"].update(root_seed=3), "cells.0 is"),
        (lambda run: run["plan"].update(seeds="many"), "plan: seeds: "),
        (lambda run: run["corpus"].update(fingerprint="0" * 64), "corpus.fingerprint is 0000"),
        (lambda run: run.update(digest="f" * 64), "digest is ffff"),
    ],
)
def test_what_a_run_says_of_itself_is_held_against_its_plan(
    run: Path, change: Callable[[dict[str, Any]], None], named: str
) -> None:
    rewrite(run / "run.json", change)
    told = first_that_fails(run)
    assert told.startswith("plan, corpus and digests: ")
    assert named in told


def test_a_cell_that_is_gone_or_is_another_is_named(run: Path) -> None:
    folder = RunFolder(run)
    one, other, *_ = cells(run)
    folder.cell_file(one.digest).unlink()
    assert "1 cells are not there" in first_that_fails(run)
    shutil.copy(folder.cell_file(other.digest), folder.cell_file(one.digest))
    assert f"its record is that of cell {other.digest[:12]}" in first_that_fails(run)


def test_where_the_corpus_lies_elsewhere_it_can_be_named_and_without_it_the_rest_is_checked(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = verified(made, code=3)
    assert told.count("unable") == 5
    assert squeezed("5 of 7 checks could not be made") in told
    assert squeezed("the corpus cannot be had here: manifest corpus.csv is missing") in told
    verdicts = verify(made, Path("data"), default_folder(), 0, 0, str(made.parent / "corpus.csv"), jobs=1)
    assert [found.verdict for found in itertools.islice(verdicts, 5)] == ["ok"] * 5


def test_what_is_no_run_or_no_number_is_the_users_mistake(made: Path, tmp_path: Path) -> None:
    assert "run.json is missing" in refused("verify", tmp_path)
    assert "expected a whole number from 0, or all, found 'some'" in refused("verify", made, "--retrain", "some")


def test_code_that_a_run_names_runs_only_where_the_command_line_names_it_too(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run.parent / "evil.py").write_text("raise SystemExit('it ran')\n")
    monkeypatch.syspath_prepend(run.parent)
    rewrite(run / "run.json", lambda fields: fields["plan"].update(models=["evil:model"]))
    findings = verify(run, Path("data"), default_folder(), 0, jobs=1)
    _, plan, *others = itertools.islice(findings, 6)
    assert {found.verdict for found in (plan, *others)} == {"unable"}
    assert "mentions model 'evil:model', code that runs only where the command line names it too" in plan.detail
    assert "expected package.module:attribute" in refused("verify", run, "--code", "evil")


def test_what_a_record_says_of_a_training_is_held_against_another(run: Path) -> None:
    cell = cells(run)[0]
    rewrite(RunFolder(run).cell_file(cell.digest), lambda fields: fields.update(parameters=1))
    told = first_that_fails(run, sample=None)
    assert told.startswith("trained again: cell ")
    assert "parameters is 1, expected" in told


def test_kept_weights_are_held_against_those_of_another_training(run: Path) -> None:
    """A checkpoint that answers every question of the run alike, and others otherwise."""
    cell = next(cell for cell in cells(run) if cell.model == "text-only")
    file = RunFolder(run).weights_file(cell.digest)
    weights = load_file(file)
    name = next(name for name, value in weights.items() if value.ndim == 1)
    save_file({**weights, name: np.nextafter(weights[name], np.float32(np.inf))}, file)
    declare(run, cell)
    findings = verify(run, Path("data"), default_folder(), 0, None, jobs=1)
    assert any(f"{name} of its kept weights is not what training comes to" in found.detail for found in findings)


@pytest.mark.parametrize("file", ["tables/more.csv", "figures/more.svg"])
def test_a_file_that_the_rows_do_not_come_to_is_named(run: Path, file: str) -> None:
    (run / file).parent.mkdir(exist_ok=True)
    (run / file).write_text("more")
    assert f"{file} is no part of this report" in first_that_fails(run)


def test_a_file_among_the_cells_that_no_record_speaks_of_is_named(run: Path) -> None:
    (run / "cells" / f"{'0' * 64}.parquet").write_bytes(b"")
    assert f"cells/{'0' * 64}.parquet belongs to no cell of this run" in first_that_fails(run)


def test_a_figure_is_compared_to_the_byte_and_a_number_to_the_ninth_digit(tmp_path: Path) -> None:
    there, made = tmp_path / "there", tmp_path / "made"
    for old, new, suffix, told in (
        (b"<svg/>", b"<svg></svg>", ".svg", "a.svg is not the figure that the rows come to"),
        (b"x\n0.5\n", b"x\n0.50000000000001\n", ".csv", ""),
        (b"x\n0.5\n", b"x\n0.500001\n", ".csv", "a.csv, line 2, x: says '0.5', the rows come to '0.500001'"),
        (b"one\ntwo", b"one\nto", ".md", "a.md, line 2: says 'two', the rows come to 'to'"),
    ):
        there.with_suffix(suffix).write_bytes(old)
        made.with_suffix(suffix).write_bytes(new)
        assert in_report_file(f"a{suffix}", there.with_suffix(suffix), made.with_suffix(suffix)) == told


def test_elsewhere_scores_may_differ_by_the_tolerance_and_the_findings_say_so(run: Path) -> None:
    rewrite(run / "run.json", lambda fields: fields["provenance"].update(platform="another machine"))
    cell = next(cell for cell in cells(run) if cell.model == "text-only")
    before = RunFolder(run).rows_file(cell.digest).read_bytes()
    score = pq.read_table(RunFolder(run).rows_file(cell.digest)).column("score_1")[5].as_py()
    for difference, verdict in ((SCORES / 2, "ok"), (2 * SCORES, "FAILS")):
        forge(run, cell, "score_1", 5, score + difference)
        declare(run, cell)
        found = {found.promise: found for found in itertools.islice(verify(run, Path(), default_folder(), 0, 0), 5)}
        assert found["kept weights"].verdict == verdict
        assert "to within 0.001 (platform another machine, here" in found["texts"].detail
        RunFolder(run).rows_file(cell.digest).write_bytes(before)


def test_a_record_that_commands_a_terminal_is_shown_as_text(run: Path) -> None:
    cell = cells(run)[0]
    rewrite(RunFolder(run).cell_file(cell.digest), lambda fields: fields.update(model="\x1b[2Kok", sha256="0"))
    with without_figures():
        assert "\x1b" not in invoke("verify", run, "--retrain", "0").stdout
