"""A study on a cluster ends with the bytes of one on this machine, whatever is lost on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from calling import invoke, refused
from tiny import write_corpus

from dual_bench import runner
from dual_bench.cluster import connected
from dual_bench.journal import LOG, Trained, read
from dual_bench.plan import Plan, read_plan
from dual_bench.store import RunFolder, read_run

ray = pytest.importorskip("ray")
from ray.cluster_utils import Cluster as Nodes  # noqa: E402

MEMORY = 100 << 20  # of a node's object store


@dataclass(frozen=True)
class Study:
    manifest: Path
    plan: Plan
    cache: Path
    alone: Path
    """The folder of a run in one process."""

    def rows(self, folder: Path) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in (*folder.glob("cells/*.parquet"), folder / "texts.parquet")}

    @property
    def expected(self) -> dict[str, bytes]:
        return self.rows(self.alone)


FIELDS = {"models": "dual:width=8,text-only:width=8", "seeds": 4, "draws": 1, "rates": "0,1", "epochs": 4}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    manifest, cache = write_corpus(folder), Path(os.environ["DUAL_BENCH_CACHE"])
    plan = read_plan(
        "default",
        {
            "dataset": str(manifest),
            "models": FIELDS["models"].split(","),
            "seeds": FIELDS["seeds"],
            "draws": FIELDS["draws"],
            "rates": [0.0, 1.0],
            "metric": "",
            "training": {"epochs": FIELDS["epochs"]},
        },
    )
    runner.run(plan, Path(), cache, folder / "alone", folder / "alone" / "run", "cpu", 1)
    return Study(manifest, plan, cache, folder / "alone" / "run")


@pytest.fixture
def nodes() -> Iterator[Any]:
    """Three nodes on this machine; the head has no room for tasks, so that every one runs on another."""
    cluster = Nodes(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": MEMORY, "include_dashboard": False},
    )
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
    yield cluster
    cluster.shutdown()


def test_a_worker_node_that_is_lost_in_the_middle_changes_no_byte(study: Study, nodes: Any, tmp_path: Path) -> None:
    out, before = tmp_path / "run", list[str]()

    def where() -> list[str]:
        return [event.where for event in read(out / LOG) if isinstance(event, Trained)]

    def report(stage: str, done: int, total: int, detail: str) -> None:
        if stage == "models" and not before and len(set(where())) == 2:
            before.extend(where())
            nodes.remove_node(min(nodes.worker_nodes, key=str), allow_graceful=False)

    with connected(nodes.address) as engine:
        assert engine.name.endswith("3 nodes")
        found = runner.run(
            study.plan, Path(), study.cache, tmp_path, out, "cpu", 0, report, how=runner.Manner(engine=engine)
        )
    assert len(set(before)) == 2, "both nodes were at work"
    assert len(before) < 14
    assert len(set(where()[-2:])) == 1, "only one of them was in the end"
    assert (found.trained, found.failed) == (16, ())
    assert study.rows(out) == study.expected
    assert RunFolder(out).info().provenance.engine.startswith("ray ")


@pytest.mark.slow
def test_a_driver_that_is_killed_goes_on_with_the_same_command_and_changes_no_byte(
    study: Study, nodes: Any, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    asked = [
        "run", "--dataset", str(study.manifest), "--models", FIELDS["models"], "--seeds", str(FIELDS["seeds"]),
        "--draws", str(FIELDS["draws"]), "--rates", FIELDS["rates"], "--epochs", str(FIELDS["epochs"]), "--out",
        str(out), "--engine", "ray", "--address", nodes.address,
    ]  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", "dual_bench.cli", *asked], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not list(out.glob("cells/*.json")):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "nothing is trained"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = {p.stem: p.stat().st_mtime_ns for p in out.glob("cells/*.json")}
    assert len(kept) < 16, "nothing was left to do"

    done = invoke(*asked)
    assert done.exit_code == 0, done.output
    assert {digest: (out / "cells" / f"{digest}.json").stat().st_mtime_ns for digest in kept} == kept
    assert study.rows(out) == study.expected
    assert read_run(out).info.status == "complete"
    assert not list(out.rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_a_model_that_fails_on_a_cluster_is_recorded_while_the_rest_goes_on(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trouble = tmp_path / "trouble"
    trouble.touch()
    monkeypatch.setenv("TROUBLE", str(trouble))
    out = tmp_path / "run"
    found = invoke(
        "run", "--dataset", study.manifest, "--models", "text-only:width=8,troubled:raises,troubled:killed",
        "--seeds", 1, "--regimes", "clean", "--rates", "0,1", "--draws", 1, "--epochs", 1, "--out", out,
        "--engine", "ray", "--jobs", 2,
    )  # fmt: skip
    assert found.exit_code == 1, found.output
    assert {one.model: one.error.split(":")[0] for one in read_run(out).failed} == {
        "troubled:raises": "RuntimeError",
        "troubled:killed": "WorkerCrashedError",
    }
    assert [cell.model for cell in read_run(out).cells] == ["text-only"]


def test_slips_about_a_cluster_are_explained(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("run", "--dataset", study.manifest)
    assert "did you mean 'ray'?" in refused(*asked, "--engine", "rai")
    assert "--address is for a cluster" in refused(*asked, "--address", "auto")
    assert "--gpu-share is for a cluster" in refused(*asked, "--gpu-share", "0.5")
    on_cpu = ("--engine", "ray", "--gpu-share", "0.5", "--device", "cpu")
    assert "--gpu-share is for models that are trained on a GPU" in refused(*asked, *on_cpu)
    assert "no Ray cluster at '127.0.0.1:1'" in refused(*asked, "--engine", "ray", "--address", "127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "pip install 'dual-bench[cluster]'" in refused(*asked, "--engine", "ray")
