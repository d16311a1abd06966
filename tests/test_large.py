"""A corpus larger than memory: no part of a study holds its features, and what grows does so in proportion.

Utterances share the rows of a small file: what they come to together is many times that, as if each had its own.
"""

from __future__ import annotations

import mmap
import os
import pickle
import tracemalloc
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import memory
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dual_bench import inputs, runner, store
from dual_bench.datasets.extracted import RECORD, TABLE, VERSION, Extracted, Features, load
from dual_bench.inputs import Inputs, Resident
from dual_bench.metrics import ACCURACY
from dual_bench.plan import Plan
from dual_bench.prepare import ask, encode_all
from dual_bench.probe import drawn, probe
from dual_bench.stats import resampling
from dual_bench.stats.resampling import permutation_p, replicates, resample
from dual_bench.types import MODALITIES, Batch, Ragged, Task

SIZES = 400, 800
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
    """A corpus as ``data extract`` writes it; how many bytes the features would take if no two shared any."""
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
    record = Extracted(
        version=VERSION, name="large", layout="made", kind="classification", classes=("no", "yes"), low=None, high=None,
        licence="none", notes=(), deviations=(), sound=False, made_by="a test", **made,
        table_sha256=sha256((folder / TABLE).read_bytes()).hexdigest(),
    )  # fmt: skip
    (folder / RECORD).write_text(record.model_dump_json())
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
    """For each size all features, and the peak of each part of a study before its training; in bytes."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "_BLOCK", 1 << 16)
        for count in SIZES:
            folder = tmp_path_factory.mktemp("large")
            whole = write_corpus(folder / "corpus", count)
            found[count] = whole, peaks_of(folder)
    return found


def peaks_of(folder: Path) -> dict[str, int]:
    plan = Plan(
        name="large", dataset=str(folder / "corpus"), models=("dual",), regimes=("clean",), seeds=1, draws=1,
        corruptions=("utterance-drop",), rates=(0.0, 1.0), dependency=False,
    )  # fmt: skip
    peaks: dict[str, int] = {}
    asked, peaks["corpus"] = peak(lambda: ask(plan, None, folder, folder, "cpu"))
    toy = replace(asked, using=replace(asked.using, text=Toy()))
    encoded, peaks["inputs"] = peak(lambda: encode_all(toy, folder / "cache"))
    ready = runner.Prepared(**vars(encoded), folder=store.RunFolder(folder / "run"))
    job, peaks["job"] = peak(lambda: pickle.loads(pickle.dumps(runner.job_for(ready, ready.wanted, False))))

    def batch() -> None:
        resident = Resident(replace(job.inputs, scales={}), job.train.rows, frozenset(MODALITIES), "cpu")
        resident.batch(job.train.rows[:64], job.train.texts[0, :64])

    _, peaks["batch"] = peak(batch)
    return peaks


def test_no_part_of_a_study_holds_all_features(measured: dict[int, tuple[int, dict[str, int]]]) -> None:
    whole, peaks = measured[SIZES[1]]
    assert whole > 70 * MIB
    assert max(peaks.values()) < 6 * MIB, peaks


def test_what_a_study_holds_grows_no_faster_than_the_corpus(measured: dict[int, tuple[int, dict[str, int]]]) -> None:
    (_, small), (_, large) = measured.values()
    for part, held in large.items():
        assert held < 2.2 * small[part] + MIB / 4, (part, small[part], held)


class Late(nn.Module):
    """A model whose text enters late, which counts the states of its trunk that somebody holds."""

    modalities = frozenset(MODALITIES)
    text_enters_late = True

    def __init__(self) -> None:
        super().__init__()
        self.states: weakref.WeakSet[Tensor] = weakref.WeakSet()
        self.made = self.most = 0

    def trunk(self, batch: Batch) -> Tensor:
        state = batch.audio.mean(dim=(1, 2), keepdim=True)[:, 0].clone()
        self.states.add(state)
        self.made += len(state)
        return state

    def decode(self, state: Tensor, text: Tensor, text_mask: Tensor) -> Tensor:
        self.most = max(self.most, sum(map(len, self.states)))
        return torch.cat([state, text.mean(dim=(1, 2), keepdim=True)[:, 0]], dim=1)


def test_the_probe_holds_the_states_of_few_utterances_at_a_time() -> None:
    rows, model = np.arange(1_000), Late()
    features = Ragged.pack([np.full((1, 2), i, np.float32) for i in rows])
    resident = Resident(Inputs(features, features, features), rows, model.modalities, "cpu")
    probe(model, resident, Task("classification", ("no", "yes")), drawn(rows, rows, 2, 0, "official"))
    assert model.made > 4_000
    assert model.most <= 1_536  # what a piece of 512 answers needs may lie in three pieces of states


def test_clusters_are_drawn_for_few_resamples_at_a_time_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 5, (2, 1, 1, 400, 2)).astype(float)
    weights = resample(rng, 1, 1, 400, 300)

    def found() -> tuple[list[float], float]:
        points = replicates(left, ACCURACY.value, weights).tolist()
        return points, permutation_p(left, right, ACCURACY.value, np.random.default_rng(1), 300)

    expected, at_once = peak(found)
    monkeypatch.setattr(resampling, "_DRAWN", 4_000)
    again, in_parts = peak(found)
    assert again == expected
    assert in_parts < at_once / 3


def test_the_benchmark_studies_a_corpus_that_can_be_read_and_says_what_its_features_take(tmp_path: Path) -> None:
    whole = memory.write_corpus(tmp_path / "corpus", 40, 10)
    corpus = load(tmp_path, path=str(tmp_path / "corpus"))
    items = [item for signal in corpus.signals.values() for item in signal.items]
    assert len(corpus) == 40
    assert whole == sum(item.nbytes for item in items)
    np.testing.assert_array_equal(items[3], items[13])


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="what a process holds is read from /proc")
def test_the_benchmark_counts_what_a_process_holds() -> None:
    before, _ = memory.memory(os.getpid())
    block = mmap.mmap(-1, 64 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # none that lay free already
    block.write(bytes(64 * MIB))
    after, _ = memory.memory(os.getpid())
    assert len(block) * 0.9 < after - before
