"""Floors and ceilings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny import write_corpus

from dual_bench.bounds import ceilings, floors
from dual_bench.datasets import synthetic
from dual_bench.metrics import ACC7, MAE
from dual_bench.plan import load_corpus
from dual_bench.types import CLEAN, Condition, Corpus, FloatArray


def targets(corpus: Corpus) -> tuple[FloatArray, FloatArray]:
    values = np.array([u.target for u in corpus.utterances])
    return values[corpus.folds[0].train], values[corpus.folds[0].test]


def test_the_floor_of_a_classification_is_the_class_that_training_holds_most_of(tmp_path: Path) -> None:
    corpus = load_corpus(str(write_corpus(tmp_path)), Path())
    train, test = targets(corpus)
    majority = np.bincount(train.astype(int)).argmax()
    found = floors(corpus)
    assert found["accuracy"] == pytest.approx((test == majority).mean())
    assert found["uar"] == pytest.approx(0.25)  # any constant is right about one of four classes


def test_the_floor_of_a_regression_is_the_best_constant_of_each_metric_on_training(tmp_path: Path) -> None:
    corpus = load_corpus(str(write_corpus(tmp_path, regression=True)), Path())
    train, test = targets(corpus)
    found = floors(corpus)

    def constant(metric: object, values: FloatArray, of: FloatArray) -> list[float]:
        assert callable(metric)
        return [metric(of, np.full((len(of), 1), value)) for value in values]

    tried = np.array([np.median(train), -1.0, 0.0, 1.0])
    errors, hits = constant(MAE, tried, train), constant(ACC7, tried, train)
    assert found["mae"] == pytest.approx(constant(MAE, tried, test)[int(np.argmin(errors))])
    assert found["acc7"] == pytest.approx(constant(ACC7, tried, test)[int(np.argmax(hits))])
    assert found["pearson-r"] is None


def test_a_constant_in_each_fold_has_no_correlation_over_all_of_them(shared_data: Path) -> None:
    found = floors(load_corpus("mosi-752", shared_data))
    assert found["pearson-r"] is None
    assert found["acc2-has0"] == pytest.approx(0.621, abs=5e-4)  # the majority that its provenance states


def test_ceilings_hold_every_subset_of_modalities_down_to_none() -> None:
    corpus = load_corpus("synthetic:utterances=48", Path())
    points = ceilings(corpus, [CLEAN, Condition("word-drop", 1.0)])
    found = {(p.modalities, p.corruption, p.rate): p.accuracy for p in points}
    assert len(found) == 8 * 2
    assert found["none", "clean", 0.0] == pytest.approx(synthetic.PRIOR.max())
    assert found["text", "word-drop", 1.0] == pytest.approx(synthetic.PRIOR.max())
    assert found["audio+vision+text", "word-drop", 1.0] == pytest.approx(found["audio+vision", "clean", 0.0])
    assert max(found, key=found.__getitem__) == ("audio+vision+text", "clean", 0.0)


def test_a_corpus_without_a_known_ceiling_has_none(tmp_path: Path) -> None:
    assert ceilings(load_corpus(str(write_corpus(tmp_path)), Path()), [CLEAN]) == ()
