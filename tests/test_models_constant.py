"""The floor as a model is the floor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny import write_corpus

from dual_bench.plan import read_plan
from dual_bench.runner import run
from dual_bench.store import read_run


@pytest.mark.parametrize("regression", [False, True])
def test_its_scores_are_the_floor_of_the_run(tmp_path: Path, regression: bool) -> None:
    asked = {"models": ["constant", "concat"], "seeds": 1, "draws": 1, "rates": [0, 1], "training": {"epochs": 2}}
    asked |= {"dataset": str(write_corpus(tmp_path, regression=regression)), "metric": "", "corruptions": ["word-drop"]}
    folder = run(read_plan("default", asked), tmp_path, tmp_path / "cache", tmp_path, device="cpu", jobs=1).folder
    found = read_run(folder)
    rows: pd.DataFrame = found.predictions
    rows = rows[rows["model"] == "constant"]
    scores = rows.filter(like="score_").to_numpy()
    assert (scores == scores[0]).all()
    truth = rows["truth"].to_numpy()
    if regression:
        median = np.median(pd.read_csv(tmp_path / "corpus.csv").query("split == 'train'")["value"])
        assert scores[0, 0] == pytest.approx(median)
        assert np.abs(scores[:, 0] - truth).mean() == pytest.approx(found.info.floors["mae"])
    else:
        shares = pd.read_csv(tmp_path / "corpus.csv").query("split == 'train'")["label"].value_counts(normalize=True)
        assert scores[0] == pytest.approx(shares.sort_index().to_numpy())
        assert (scores.argmax(axis=1) == truth).mean() == pytest.approx(found.info.floors["accuracy"])
    assert next(cell.parameters for cell in found.cells if cell.model == "constant") == 0
