"""Every metric against an independent reference, on random data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, recall_score

from dual_bench import metrics
from dual_bench.catalog import METRICS
from dual_bench.metrics import Metric
from dual_bench.types import FloatArray

ALL: list[Metric] = [METRICS.load(name) for name in METRICS.entries]
seeds = st.integers(0, 2**32 - 1)


def classes(seed: int) -> tuple[FloatArray, FloatArray]:
    """Truth and scores; some classes may be absent from the truth, the predictions or both."""
    rng = np.random.default_rng(seed)
    n, k = rng.integers(1, 50), rng.integers(2, 7)
    scores = rng.random((n, k)) * rng.integers(0, 2, k)
    return rng.integers(0, rng.integers(1, k + 1), n).astype(float), scores


def values(seed: int) -> tuple[FloatArray, FloatArray]:
    """Values in and beyond [-3, 3], with zeros and halves among them on either side."""
    rng = np.random.default_rng(seed)
    n = rng.integers(3, 50)
    truth, predicted = rng.normal(0, 2, (2, n))
    truth[rng.random(n) < 0.3] = 0.0
    predicted[rng.random(n) < 0.2] = 0.0
    halves = rng.random(n) < 0.3
    truth[halves] = np.round(truth[halves]) + 0.5
    predicted[halves] = np.round(predicted[halves]) - 0.5
    return truth, predicted[:, None]


def data(metric: Metric, seed: int) -> tuple[FloatArray, FloatArray]:
    return classes(seed) if metric.task == "classification" else values(seed)


@given(seeds)
def test_classification_metrics_agree_with_scikit_learn_also_where_classes_are_absent(seed: int) -> None:
    truth, scores = classes(seed)
    predicted = scores.argmax(axis=1)
    assert metrics.ACCURACY(truth, scores) == pytest.approx(accuracy_score(truth, predicted))
    # scikit-learn's balanced accuracy is this recall, with a warning where a class is predicted but never true
    recall = recall_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0)
    assert metrics.UAR(truth, scores) == pytest.approx(recall)
    for metric, average in ((metrics.WEIGHTED_F1, "weighted"), (metrics.MACRO_F1, "macro")):
        expected = f1_score(truth, predicted, average=average, zero_division=0)
        assert metric(truth, scores) == pytest.approx(expected)


@given(seeds)
def test_regression_metrics_agree_with_scikit_learn_and_scipy(seed: int) -> None:
    truth, scores = values(seed)
    assert metrics.MAE(truth, scores) == pytest.approx(mean_absolute_error(truth, scores[:, 0]))
    if np.ptp(truth) > 0.1 and np.ptp(scores) > 0.1:
        assert metrics.PEARSON_R(truth, scores) == pytest.approx(pearsonr(truth, scores[:, 0])[0], abs=1e-9)


@given(seeds)
def test_acc2_and_acc7_agree_with_longhand(seed: int) -> None:
    truth, scores = values(seed)
    pairs = list(zip(truth.tolist(), scores[:, 0].tolist(), strict=True))
    has0 = [(y < 0) == (p < 0) for y, p in pairs]
    assert metrics.ACC2_HAS0(truth, scores) == pytest.approx(sum(has0) / len(has0))
    non0 = [(p > 0) if y > 0 else (p <= 0) for y, p in pairs if y != 0]
    expected = sum(non0) / len(non0) if non0 else np.nan
    assert metrics.ACC2_NON0(truth, scores) == pytest.approx(expected, nan_ok=True)
    seven = [round(min(max(y, -3), 3)) == round(min(max(p, -3), 3)) for y, p in pairs]
    assert metrics.ACC7(truth, scores) == pytest.approx(sum(seven) / len(seven))


@pytest.mark.parametrize("metric", ALL, ids=lambda m: m.name)
@given(seed=seeds)
def test_sums_of_parts_give_the_metric_of_the_whole(metric: Metric, seed: int) -> None:
    truth, scores = data(metric, seed)
    rows = metric.statistics(truth, scores)
    cut = len(truth) // 2
    halves = np.stack([rows[:cut].sum(axis=0), rows[cut:].sum(axis=0)])
    assert float(metric.value(halves.sum(axis=0))) == pytest.approx(metric(truth, scores), nan_ok=True)
    each = [float(metric.value(half)) for half in halves]
    assert metric.value(halves).tolist() == pytest.approx(each, nan_ok=True)


@pytest.mark.parametrize("metric", ALL, ids=lambda m: m.name)
def test_a_perfect_prediction_is_better_than_its_opposite_in_the_stated_direction(metric: Metric) -> None:
    truth, scores = data(metric, 3)
    if metric.task == "classification":
        perfect = np.eye(scores.shape[1])[truth.astype(int)]
        opposite = np.roll(perfect, 1, axis=1)
    else:
        perfect, opposite = truth[:, None], -truth[:, None]
    gain = metric(truth, perfect) - metric(truth, opposite)
    assert gain > 0 if metric.higher_is_better else gain < 0


@pytest.mark.parametrize("metric", ALL, ids=lambda m: m.name)
def test_a_metric_of_no_utterance_is_undefined(metric: Metric) -> None:
    width = data(metric, 0)[1].shape[1]
    assert np.isnan(metric(np.empty(0), np.empty((0, width))))


@pytest.mark.parametrize("metric", ALL, ids=lambda m: m.name)
def test_a_metric_bears_its_catalogue_name(metric: Metric) -> None:
    assert METRICS.load(metric.name) is metric


@pytest.mark.parametrize("constant", [0.0, 0.1, -1 / 3, 1e6])
def test_pearson_r_of_a_constant_is_undefined_on_either_side(constant: float) -> None:
    varied, flat = np.random.default_rng(0).normal(size=97), np.full(97, constant)
    assert np.isnan(metrics.PEARSON_R(varied, flat[:, None]))
    assert np.isnan(metrics.PEARSON_R(flat, varied[:, None]))


def test_acc2_non0_without_a_truth_other_than_zero_is_undefined() -> None:
    assert np.isnan(metrics.ACC2_NON0(np.zeros(4), np.ones((4, 1))))


def test_the_first_of_equal_scores_wins() -> None:
    assert metrics.ACCURACY(np.array([0.0, 1.0]), np.array([[0.4, 0.4], [0.4, 0.4]])) == 0.5


def test_a_class_that_is_true_once_counts_in_uar_as_much_as_any_other() -> None:
    scores = np.eye(2)[[0, 0, 0, 1, 1]]
    assert metrics.UAR(np.array([0.0, 0.0, 0.0, 0.0, 1.0]), scores) == (3 / 4 + 1) / 2


def test_acc7_takes_what_lies_beyond_the_scale_for_its_end() -> None:
    assert metrics.ACC7(np.array([3.0, -3.0, 3.0]), np.array([[3.9], [-7.0], [2.4]])) == pytest.approx(2 / 3)


def test_pearson_r_does_not_depend_on_the_unit() -> None:
    truth, scores = values(1)
    for unit in (1e-4, 1e4):
        assert metrics.PEARSON_R(unit * truth, unit * scores) == pytest.approx(metrics.PEARSON_R(truth, scores))


def test_scores_of_single_precision_lose_nothing() -> None:
    truth, noise = np.random.default_rng(0).normal(size=(2, 50)).astype(np.float32)
    truth, scores = truth + np.float32(300), (truth + noise + np.float32(300))[:, None]
    expected = pearsonr(truth.astype(float), scores[:, 0].astype(float))[0]
    assert metrics.PEARSON_R(truth, scores) == pytest.approx(expected, abs=1e-9)
    counts = np.array([[1, 2], [0, 0]])
    np.testing.assert_array_equal(metrics.ratio(counts[:, 0], counts[:, 1]), [0.5, np.nan])
