"""A run that is killed at any moment goes on by the same command, and ends as one that never was.

Two moments by default; $CHAOS of them otherwise (``make chaos``: fifty).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny import write_corpus

from dual_bench import runner
from dual_bench.journal import LOG, Trained, read
from dual_bench.plan import read_plan
from dual_bench.seeding import generator
from dual_bench.store import RunFolder

MOMENTS = generator("chaos").random(int(os.environ.get("CHAOS", "2")))


@dataclass(frozen=True)
class Unbroken:
    """A run that nobody killed: the time from its first sign of life to its end, and what it left."""

    manifest: Path
    seconds: float
    rows: dict[str, bytes]
    cells: set[str]


FIELDS = {
    "models": ["dual:width=8", "text-only:width=8"], "regimes": ["clean", "matched"], "corruptions": ["word-drop"],
    "seeds": 2, "draws": 1, "rates": [0.0, 1.0], "metric": "",
    "training": {"epochs": 3},
}  # fmt: skip


def go(manifest: Path, out: Path, cache: Path, jobs: int) -> runner.RunResult:
    """What ``dual-bench run --keep-weights`` does before it renders the report."""
    plan = read_plan("default", {"dataset": str(manifest), **FIELDS})
    return runner.run(plan, Path(), cache, out.parent, out, "cpu", jobs, how=runner.Manner(weights=True))


def started(manifest: Path, out: Path, cache: Path) -> subprocess.Popen[bytes]:
    """A run of two processes that has begun to write."""
    code = (
        f"from pathlib import Path; from test_chaos import go; go(*map(Path, {[*map(str, (manifest, out, cache))]}), 2)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    while not (out / LOG).exists():
        assert process.poll() is None, "it ended before it began"
        time.sleep(0.002)
    return process


def rows(folder: Path) -> dict[str, bytes]:
    files = (*folder.glob("cells/*.parquet"), *folder.glob("cells/*.safetensors"), folder / "texts.parquet")
    return {file.name: file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Unbroken:
    folder = tmp_path_factory.mktemp("unbroken")
    manifest = write_corpus(folder)
    process = started(manifest, folder / "out", folder / "cache")
    began = time.perf_counter()
    assert process.wait() == 0
    seconds = time.perf_counter() - began
    return Unbroken(manifest, seconds, rows(folder / "out"), {path.stem for path in folder.glob("out/cells/*.json")})


def test_cells_that_share_a_training_keep_their_bytes_where_one_of_them_is_lost(
    unbroken: Unbroken, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    go(unbroken.manifest, out, tmp_path / "cache", 1)
    for path in sorted(out.glob("cells/*.json"))[::2]:
        path.unlink()
    assert go(unbroken.manifest, out, tmp_path / "cache", 1).trained == -(-len(unbroken.cells) // 2)
    assert rows(out) == unbroken.rows


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: f"{moment:.3f}")
def test_a_run_that_is_killed_at_any_moment_goes_on_and_ends_with_the_same_bytes(
    unbroken: Unbroken, moment: float, tmp_path: Path
) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    process = started(unbroken.manifest, out, cache)
    time.sleep(moment * unbroken.seconds)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    folder = RunFolder(out)
    done = {path.stem for path in out.glob("cells/*.json") if folder.finished(path.stem)}

    again = go(unbroken.manifest, out, cache, 1)
    assert (again.skipped, again.skipped + again.trained) == (len(done), len(unbroken.cells))
    assert rows(out) == unbroken.rows
    trained = Counter(event.digest for event in read(out / LOG) if isinstance(event, Trained))
    assert max(trained.values()) == 1
    # what was stored in the last instant may be missing in the log, and is not trained again either
    assert set(trained) | done == unbroken.cells
    assert not [path for path in tmp_path.rglob("*") if ".tmp" in path.name]
