"""A corpus larger than memory: nothing but the page cache ever holds its features, and what grows does so in proportion.

Utterances share the rows of a small file: what they come to together is many times that, as if each had its own.
"""

from __future__ import annotations

import tracemalloc
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from dual_bench import runner, store, training
from dual_bench.certificate import certify
from dual_bench.datasets.extracted import RECORD, TABLE, VERSION, Extracted, Features
from dual_bench.inputs import Inputs, Resident
from dual_bench.plan import Plan
from dual_bench.prepare import ask, encode_all
from dual_bench.probe import drawn, probe
from dual_bench.stats.resampling import permutation_p, replicates, resample
from dual_bench.types import CLEAN, Batch, IntArray, Ragged, Task

SIZES = 1_500, 3_000
SHAPES = {"audio": (40, 512), "vision": (20, 256)}
"""Steps, and numbers a step."""
SHARED = 100
"""Rows of a file, which all utterances are stretches of."""
MIB = 2**20
T = TypeVar("T")


@dataclass(frozen=True)
class Toy:
    """A text encoder: as many tokens as words."""

    name: str = "toy"
    width: int = 8
    device: str = "cpu"
    unknown: str = "?"

    def __call__(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        return [np.full((len(text.split()), self.width), len(text), np.float32) for text in texts]


def write_corpus(folder: Path, count: int) -> int:
    """A corpus as ``data extract`` writes it; how many bytes its features would take if none shared any."""
    labels, whole, made = np.arange(count) % 2, 0, {}
    columns: dict[str, Any] = {
        "id": [f"u{i:05d}" for i in range(count)],
        "split": np.repeat(["train", "validation", "test"], [count // 2, count // 4, count - count // 2 - count // 4]),
        "fold": "",
        "cluster": [f"talk{i // 10:04d}" for i in range(count)],
        "speaker": "",
        "target": labels.astype(float),
        "text": [f"so it was number {i % 20}" for i in range(count)],
    }
    for modality, (steps, width) in SHAPES.items():
        (folder / modality).mkdir(parents=True)
        np.random.default_rng(0).normal(size=(SHARED, width)).astype(np.float32).tofile(folder / modality / "rows.f32")
        columns |= {f"{modality}_start": np.arange(count) % (SHARED - steps), f"{modality}_steps": steps}
        made[modality] = Features(folder=modality, encoder="made", width=width, rate=None)
        whole += count * steps * width * 4
    pd.DataFrame(columns).to_parquet(folder / TABLE)
    facts: dict[str, Any] = dict(name="large", layout="made", kind="classification", classes=("no", "yes"), low=None)
    facts |= dict(high=None, licence="none", notes=(), deviations=(), sound=False, made_by="a test", **made)
    digest = sha256((folder / TABLE).read_bytes()).hexdigest()
    (folder / RECORD).write_text(Extracted(version=VERSION, table_sha256=digest, **facts).model_dump_json())
    return whole


def peak(work: Callable[[], T]) -> tuple[T, int]:
    """What it gives, and how many bytes numpy and Python held for it at a time."""
    tracemalloc.start()
    try:
        return work(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[int, dict[str, int]]]:
    """For each size all features, and the peak of each part of a study without its training; in bytes."""
    found = {}
    for count in SIZES:
        folder = tmp_path_factory.mktemp("large")
        whole = write_corpus(folder / "corpus", count)
        plan = Plan(
            name="large", dataset=str(folder / "corpus"), models=("dual",), regimes=("clean",), seeds=1, draws=1,
            corruptions=("utterance-drop",), rates=(0.0, 1.0),
        )  # fmt: skip
        peaks: dict[str, int] = {}
        asked, peaks["corpus"] = peak(lambda plan=plan, folder=folder: ask(plan, None, folder, folder, "cpu"))
        asked = replace(asked, using=replace(asked.using, text=Toy()))
        ready, peaks["inputs"] = peak(lambda asked=asked, folder=folder: encode_all(asked, folder / "cache"))
        ready = runner.Prepared(**vars(ready), folder=store.RunFolder(folder / "run"))
        job, peaks["job"] = peak(lambda ready=ready: runner._job(ready, ready.wanted))
        _, peaks["answers"] = peak(lambda job=job: answers(job))
        found[count] = whole, peaks
    return found


def answers(job: Any) -> None:
    """All that an untrained model is asked."""
    module = training.build(job.spec, job.settings, job.inputs.widths, job.task, *job.streams[0])
    resident = Resident(job.inputs, job.train.rows, module.modalities, "cpu")
    with training.exact_repeats("cpu", 1):
        training.predict(module, resident, job.task, job.queries)
        certify(module, resident, np.unique(job.queries.rows))


def test_no_part_of_a_study_holds_all_features(measured: dict[int, tuple[int, dict[str, int]]]) -> None:
    whole, peaks = measured[SIZES[1]]
    assert whole > 290 * MIB
    assert max(peaks.values()) < whole / 4, peaks


def test_what_a_study_holds_grows_no_faster_than_the_corpus(
    measured: dict[int, tuple[int, dict[str, int]]],
) -> None:
    (_, small), (_, large) = measured.values()
    for part, held in large.items():
        assert held < 2.2 * small[part] + MIB, (part, small[part], held)
