"""The default study at small size: what its report may claim has to hold here too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dual_bench import runner
from dual_bench.plan import read_plan
from dual_bench.store import Run, read_run


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One seed, few noisy texts, text whole, half or gone."""
    folder = tmp_path_factory.mktemp("study")
    plan = read_plan(
        "default",
        {
            "dataset": "synthetic:utterances=1200",
            "models": ["dual", "audio-vision", "text-only"],
            "rates": [0.0, 0.5, 1.0],
            "draws": 1,
            "seeds": 1,
            "training": {"epochs": 8, "noisy_texts": 3, "noisy_validation_texts": 1},
        },
    )
    runner.run(plan, Path(), folder / "cache", folder, folder / "run", "cpu", 1)
    return read_run(folder / "run")


@pytest.fixture(scope="module")
def accuracy(study: Run) -> pd.Series[float]:
    """By model, regime, corruption and rate: share of right answers over seeds and utterances."""
    rows = study.predictions.astype({"model": str, "regime": str, "corruption": str})
    scores = rows[[f"score_{i}" for i in range(len(study.task.classes))]].to_numpy()
    right = (scores.argmax(axis=1) == rows["truth"]).astype(float)
    found: pd.Series[float] = right.groupby([rows[name] for name in ("model", "regime", "corruption", "rate")]).mean()
    return found


def ceiling(study: Run, modalities: str, corruption: str, rate: float) -> float:
    points = {(p.modalities, p.corruption, p.rate): p.accuracy for p in study.info.ceilings}
    return points[modalities, corruption, rate]


def test_on_clean_text_dual_beats_words_alone_and_voice_with_face(accuracy: pd.Series[float]) -> None:
    dual = accuracy["dual", "clean", "clean", 0.0]
    assert dual > accuracy["audio-vision", "clean", "clean", 0.0] + 0.02
    assert dual > accuracy["text-only", "clean", "clean", 0.0] + 0.05


def test_on_clean_text_dual_comes_most_of_the_way_to_the_exact_ceiling(study: Run, accuracy: pd.Series[float]) -> None:
    floor, best = study.info.floors["accuracy"], ceiling(study, "audio+vision+text", "clean", 0.0)
    assert floor is not None
    assert (accuracy["dual", "clean", "clean", 0.0] - floor) / (best - floor) >= 0.85


def test_trained_mixed_dual_without_text_stays_near_voice_with_face(accuracy: pd.Series[float]) -> None:
    gone = accuracy["dual", "mixed", "utterance-drop", 1.0]
    assert gone > accuracy["audio-vision", "mixed", "clean", 0.0] - 0.05


def test_words_alone_without_words_are_one_constant_answer(study: Run, accuracy: pd.Series[float]) -> None:
    rows = study.predictions
    gone = rows[(rows["model"] == "text-only") & (rows["rate"] == 1.0)]
    assert (gone.groupby(["seed", "regime"], observed=True)["score_0"].nunique() == 1).all()
    assert accuracy["text-only", "mixed", "utterance-drop", 1.0] == pytest.approx(study.info.floors["accuracy"])


def test_no_model_beats_the_exact_ceiling_beyond_chance(study: Run, accuracy: pd.Series[float]) -> None:
    reads = {"dual": "audio+vision+text", "audio-vision": "audio+vision", "text-only": "text"}
    assert len(accuracy) == 3 * 2 * 5
    for (model, _, corruption, rate), found in accuracy.items():  # type: ignore[misc]
        best = ceiling(study, reads[model], corruption, rate)
        chance = np.sqrt(best * (1 - best) / study.info.corpus.counts["test"])
        assert found <= best + 3 * chance, (model, corruption, rate)


def test_both_corruptions_at_rate_1_are_the_same_condition(accuracy: pd.Series[float]) -> None:
    for model in ("dual", "audio-vision", "text-only"):
        for regime in ("clean", "mixed"):
            assert accuracy[model, regime, "word-drop", 1.0] == accuracy[model, regime, "utterance-drop", 1.0]
