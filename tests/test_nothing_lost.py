"""What goes wrong takes nothing with it: failing models, killed processes, damaged files, full disks, two at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from calling import PLAIN, invoke
from safetensors.numpy import load_file
from tiny import write_corpus

from dual_bench.store import RunFolder, read_run

SOUND, SMALL = "audio-vision:width=8", ["--seeds", "2", "--regimes", "clean", "--rates", "0,1", "--draws", "1"]

pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """While this file is there, some models go wrong."""
    file = tmp_path / "trouble"
    file.touch()
    monkeypatch.setenv("TROUBLE", str(file))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    return file


def command(manifest: Path, out: Path, *models: str) -> list[str | Path]:
    chosen = ["--models", ",".join(models)] if models else ["--models", f"{SOUND},text-only:width=8"]
    return ["run", "--dataset", manifest, *chosen, *SMALL, "--epochs", "2", "--out", out]


def rows(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (*folder.glob("cells/*.parquet"), folder / "texts.parquet")}


@pytest.mark.parametrize(
    ("model", "jobs", "seeds", "says"),
    [
        ("troubled:raises", 1, 2, "RuntimeError: the third wheel came off"),
        ("troubled:diverges", 2, 2, "the training loss became nan; try a smaller learning_rate"),
        ("troubled:killed", 2, 1, "its process was killed, twice"),
    ],
)
def test_a_model_that_fails_is_recorded_and_marked_while_the_rest_goes_on(
    manifest: Path, tmp_path: Path, trouble: Path, model: str, jobs: int, seeds: int, says: str
) -> None:
    out = tmp_path / "out"
    asked = [*command(manifest, out, SOUND, model), "--seeds", seeds]
    found = invoke(*asked, "--jobs", jobs)
    assert found.exit_code == 1
    assert says in found.stderr
    assert ("and 1 more" in found.stderr) == (seeds == 2)
    run = read_run(out)
    assert {cell.model for cell in run.cells} == {"audio-vision"}
    assert [(one.model, one.error.startswith(says)) for one in run.failed] == [(model, True)] * seeds
    assert ("troubled.py" in run.failed[0].traceback) == (model == "troubled:raises")
    assert says in (out / "index.html").read_text()
    before = {cell.digest: (out / "cells" / f"{cell.digest}.json").stat().st_mtime_ns for cell in run.cells}

    trouble.unlink()
    found = invoke(*asked, "--jobs", 1)
    assert found.exit_code == 0, found.output
    again = read_run(out)
    assert (again.info.status, len(again.cells), again.failed) == ("complete", 2 * seeds, ())
    assert {digest: (out / "cells" / f"{digest}.json").stat().st_mtime_ns for digest in before} == before
    assert not list(out.rglob("*.failed.json"))


def test_who_prefers_it_stops_at_the_first_failure(manifest: Path, tmp_path: Path, trouble: Path) -> None:
    out = tmp_path / "out"
    found = invoke(*command(manifest, out, "troubled:raises", SOUND), "--jobs", 1, "--fail-fast")
    assert found.exit_code == 1
    assert "the same command goes on from there" in found.stderr
    assert RunFolder(out).info().status == "failed"
    assert len(list(out.glob("cells/*.failed.json"))) == 1


def test_where_everything_fails_there_is_no_report_but_a_reason(manifest: Path, tmp_path: Path, trouble: Path) -> None:
    out = tmp_path / "out"
    found = invoke(*command(manifest, out, "troubled:raises"), "--jobs", 1)
    assert (found.exit_code, "the third wheel came off" in found.stderr) == (1, True)
    assert not (out / "index.html").exists()


def test_weights_that_are_kept_are_those_that_predicted_and_damage_to_them_is_mended(
    manifest: Path, tmp_path: Path
) -> None:
    plain, kept = tmp_path / "plain" / "out", tmp_path / "kept" / "out"
    assert invoke(*command(manifest, plain), "--jobs", 1).exit_code == 0
    asked = [*command(manifest, kept), "--jobs", 1, "--keep-weights"]
    assert invoke(*asked).exit_code == 0
    assert rows(plain) == rows(kept)
    files = sorted(kept.glob("cells/*.safetensors"))
    assert len(files) == 4
    assert all(np.isfinite(value).all() for file in files for value in load_file(file).values())
    before = {file: file.read_bytes() for file in files}

    middle = len(before[files[0]]) // 2
    files[0].write_bytes(before[files[0]][:middle] + b"\xff" + before[files[0]][middle + 1 :])
    assert RunFolder(kept).finished(files[0].stem) is None
    assert "1 models trained, 3 found finished" in invoke(*asked).stdout
    assert {file: file.read_bytes() for file in files} == before
    assert "4 models trained, 0 found finished" in invoke(*command(manifest, plain), *asked[-3:]).stdout


def test_told_to_end_it_ends_stores_what_is_finished_and_says_so(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = [*command(manifest, out)[:-4], "--epochs", "2", "--seeds", "30", "--out", out, "--jobs", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "dual_bench.cli", *map(str, asked)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"COLUMNS": "200"},
    )
    while not list(out.glob("cells/*.json")):
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 143, said
    assert "told to end; what is finished is stored" in said
    assert json.loads((out / "run.json").read_text())["status"] == "failed"
    assert not list(out.rglob("*.tmp"))
    assert read_run(out).cells


def test_a_truncated_table_is_computed_again(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert invoke(*command(manifest, out), "--jobs", 1).exit_code == 0
    before = rows(out)
    for file in (next(out.glob("cells/*.parquet")), out / "texts.parquet"):
        file.write_bytes(file.read_bytes()[:100])
    assert "1 models trained, 3 found finished" in invoke(*command(manifest, out), "--jobs", 1).stdout
    assert rows(out) == before


@pytest.mark.slow
def test_two_at_once_compute_each_cell_once(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = [sys.executable, "-c", PLAIN, *map(str, command(manifest, out)), "--jobs", "1"]
    both = [subprocess.Popen(asked, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=180)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(line.split(";")[0] for text in said for line in text.splitlines() if "models trained" in line) == [
        "0 models trained, 4 found finished",
        "4 models trained, 0 found finished",
    ]


def test_a_full_disk_is_named_and_what_was_stored_is_gone_on_from(
    manifest: Path, small_disk: Callable[[int], Path]
) -> None:
    disk = small_disk(8)
    out = disk / "out"
    asked = [*command(manifest, out), "--jobs", 1]
    filler = disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    found = invoke(*asked)
    assert (found.exit_code, "the disk is full; free some space and run the same command" in found.stderr) == (1, True)
    assert not list(disk.rglob("*.tmp"))
    filler.unlink()
    assert invoke(*asked).exit_code == 0
    assert len(read_run(out).cells) == 4
