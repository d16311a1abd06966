"""Exact repeats: from encoding to tables the same bytes again, and within the tolerance with other sums."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny import write_corpus

from dual_bench import job, runner
from dual_bench.ablation import read_study
from dual_bench.report.render import render
from dual_bench.store import Run, read_run
from dual_bench.tolerance import METRICS, SCORES

STUDY = """
name = "again"
question = "Is it the same again?"
dataset = "synthetic"
metric = "accuracy"
margin = 0.02
baseline = "text-only:width=8"
regimes = ["clean"]
corruptions = ["word-drop"]
rates = [0.5, 1.0]
draws = 1
seeds = 2
training = { epochs = 4 }

[[variants]]
regime = "mixed"
"""


def studied(folder: Path, name: str) -> Path:
    """A study from its raw features on, and its report; what is encoded, trained and drawn is its own."""
    plan, study = read_study(str(folder / "study.toml"), {"dataset": str(folder / "corpus.csv")})
    out = folder / name / "run"
    runner.run(plan, Path(), folder / name / "cache", out.parent, out, "cpu", 1, study=study)
    render(out, formats=["md", "csv", "latex"])
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("again")
    write_corpus(folder)
    (folder / "study.toml").write_text(STUDY)
    return folder


@pytest.fixture(scope="module")
def first(folder: Path) -> Path:
    from calling import without_figures

    with without_figures():
        return studied(folder, "first")


def files(out: Path) -> dict[str, bytes]:
    """Everything that does not tell when it was made, how long it took, and by which command."""
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.suffix in KEPT}


KEPT = {".parquet", ".csv"}


def scores(run: Run) -> pd.DataFrame:
    keys = ["model", "regime", "seed", "corruption", "rate", "draw", "utterance"]
    return run.predictions.set_index(keys)[[f"score_{k}" for k in range(4)]].sort_index()


@pytest.mark.usefixtures("no_figures")
def test_the_same_study_gives_the_same_bytes_in_every_row_and_table(folder: Path, first: Path) -> None:
    again = studied(folder, "again")
    assert {"tables/hypotheses.csv", "tables/scores.csv", "texts.parquet"} <= set(files(first))
    assert files(again) == files(first)


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_two_threads_agree_with_one_within_the_tolerance_and_in_every_verdict(
    folder: Path, first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "THREADS", 2)
    other = studied(folder, "threads")
    one, two = read_run(first), read_run(other)
    assert np.abs(scores(one) - scores(two)).to_numpy().max() <= SCORES
    assert [c.best_epoch for c in one.cells] == [c.best_epoch for c in two.cells]
    tables = [{path.stem: pd.read_csv(path) for path in out.glob("tables/*.csv")} for out in (first, other)]
    values = [each["scores"]["value"] for each in tables]
    assert np.abs(values[0] - values[1]).max() <= METRICS
    judged = [{name: list(table["verdict"]) for name, table in each.items() if "verdict" in table} for each in tables]
    assert judged[0] == judged[1]
    assert "hypotheses" in judged[0]
    seeds = scores(one)
    apart = np.abs(seeds.xs(0, level="seed") - seeds.xs(1, level="seed")).to_numpy().max()
    assert apart > SCORES, "another seed is another model"
