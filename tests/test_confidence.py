"""Metrics of confidence, against scikit-learn, against their definitions in longhand, and what they promise."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from sklearn.metrics import brier_score_loss

from dual_bench.confidence import AURC, BRIER, ECE, selective_accuracy
from dual_bench.metrics import ACCURACY, Metric
from dual_bench.types import FloatArray

ALL = [BRIER, ECE, AURC]
each = pytest.mark.parametrize("metric", ALL, ids=lambda m: m.name)
seeds = st.integers(0, 2**32 - 1)


def probabilities(seed: int) -> tuple[FloatArray, FloatArray]:
    """Truth and class probabilities, from nearly even to nearly sure, better than chance."""
    rng = np.random.default_rng(seed)
    n, k = rng.integers(1, 60), rng.integers(2, 7)
    truth = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k)) + np.eye(k)[truth]
    return truth.astype(float), softmax(logits * 10 ** rng.uniform(-1, 1.5))


def softmax(logits: FloatArray) -> FloatArray:
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def answers(confidence: FloatArray, right: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Truth and scores of two classes that have this confidence, above a half, and are right where said so."""
    return 1.0 - right.astype(float), np.stack([confidence, 1 - confidence], axis=1)


def tied(seed: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Confidence in the middle of one of 20 levels, whether right, and a weight, at times 0."""
    rng = np.random.default_rng(seed)
    n = rng.integers(1, 30)
    weights = rng.random(n) * rng.integers(0, 2, n)
    weights[0] = 1.0
    return 0.605 + 0.01 * rng.integers(0, 20, n), rng.random(n) < rng.random(), weights


def stepwise(confidence: FloatArray, right: FloatArray) -> float:
    """AURC as Geifman et al. have it: the mean of the risk after each of the n utterances."""
    wrong, risks = 0, []
    for k, i in enumerate(np.argsort(-confidence, kind="stable"), 1):
        wrong += not right[i]
        risks.append(wrong / k)
    return sum(risks) / len(risks)


def between_steps(n: int) -> float:
    """How far the integral may lie from the mean of n steps: (1/2 + ... + 1/n) / n."""
    return sum(1 / k for k in range(2, n + 1)) / n


# ------------------------------------------------------------------------------------------- definitions


@given(seeds)
def test_brier_agrees_with_scikit_learn(seed: int) -> None:
    truth, scores = probabilities(seed)
    expected = brier_score_loss(truth, scores, labels=np.arange(scores.shape[1]), scale_by_half=False)
    assert BRIER(truth, scores) == pytest.approx(expected)


@given(seeds)
def test_ece_agrees_with_longhand_also_on_the_edges_of_bins(seed: int) -> None:
    rng = np.random.default_rng(seed)
    confidence = np.where(rng.random(40) < 0.3, rng.integers(8, 16, 40) / 15, rng.uniform(0.5, 1, 40))
    right = rng.random(40) < confidence
    expected = 0.0
    for b in range(15):
        inside = [i for i in range(40) if b / 15 < confidence[i] <= (b + 1) / 15]
        if inside:
            accuracy = sum(right[i] for i in inside) / len(inside)
            expected += len(inside) / 40 * abs(accuracy - sum(confidence[i] for i in inside) / len(inside))
    assert ECE(*answers(confidence, right)) == pytest.approx(expected)


@given(seeds)
def test_aurc_is_the_integral_of_the_expected_risk_also_with_ties_and_real_weights(seed: int) -> None:
    confidence, right, weights = tied(seed)
    expected = accepted = errors = 0.0
    for level in sorted(set(confidence.tolist()), reverse=True):
        count = sum(w for c, w in zip(confidence, weights, strict=True) if c == level)
        wrong = sum(w for c, r, w in zip(confidence, right, weights, strict=True) if c == level and not r)
        if count:
            start, slope, before = accepted, wrong / count, errors
            risk = lambda t: (before + (t - start) * slope) / t if t else slope  # noqa: B023, E731
            expected += quad(risk, start, start + count)[0]
        accepted, errors = accepted + count, errors + wrong
    sums = weights @ AURC.statistics(*answers(confidence, right))
    assert float(AURC.value(sums)) == pytest.approx(expected / accepted)


@given(seeds)
def test_aurc_without_ties_is_the_mean_over_the_steps_but_for_what_lies_between_steps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    confidence = rng.permutation(np.arange(0.605, 0.9, 0.01))[: rng.integers(1, 30)]
    right = rng.random(len(confidence)) < rng.random()
    found = AURC(*answers(confidence, right))
    assert abs(found - stepwise(confidence, right)) <= between_steps(len(right)) + 1e-12


def test_a_level_counts_in_the_mean_of_all_orders_of_its_utterances() -> None:
    confidence = np.array([0.905, 0.805, 0.805, 0.805, 0.705, 0.705])
    shares = np.arange(1, 7) / 6
    for right in product([True, False], repeat=6):
        orders = [
            np.cumsum([right[i] for i in (0, *first, *second)]) / np.arange(1, 7)
            for first in permutations((1, 2, 3))
            for second in permutations((4, 5))
        ]
        sums = AURC.statistics(*answers(confidence, np.array(right))).sum(axis=0)
        assert selective_accuracy(sums, shares) == pytest.approx(np.mean(orders, axis=0))


@pytest.mark.parametrize("scale", [0.5, 1, 2, 5, 10, 40])
def test_the_grid_of_aurc_ranks_the_under_and_the_overconfident_alike(scale: float) -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(2000, 6))
    truth = np.array([rng.choice(6, p=p) for p in softmax(1.5 * logits)])
    scores = softmax((scale * logits).astype(np.float32))
    # float32 calls some of the surest equal; in random order, whichever was drawn, those are a level of their own
    confidence, right = scores.max(axis=1), scores.argmax(axis=1) == truth
    expected = np.mean([stepwise(confidence[o], right[o]) for o in (rng.permutation(2000) for _ in range(5))])
    assert AURC(truth, scores) == pytest.approx(expected, abs=0.001 + between_steps(2000))


# -------------------------------------------------------------------------------------------- properties


@each
@given(seed=seeds)
def test_the_order_of_utterances_does_not_matter(metric: Metric, seed: int) -> None:
    truth, scores = probabilities(seed)
    order = np.random.default_rng(seed).permutation(len(truth))
    assert metric(truth[order], scores[order]) == pytest.approx(metric(truth, scores), abs=1e-12)


@each
@given(seed=seeds)
def test_sums_of_groups_weighted_alike_give_the_metric_of_the_whole(metric: Metric, seed: int) -> None:
    truth, scores = probabilities(seed)
    group = np.random.default_rng(seed).integers(0, 4, len(truth))
    parts = np.stack([metric.statistics(truth[group == g], scores[group == g]).sum(axis=0) for g in range(4)])
    for weight in (1.0, 2.0, 0.3):
        found = float(metric.value(weight * parts.sum(axis=0)))
        assert found == pytest.approx(metric(truth, scores), abs=1e-12)
    alone = [metric(truth[group == g], scores[group == g]) for g in range(4)]
    assert metric.value(parts.reshape(2, 2, -1)).ravel().tolist() == pytest.approx(alone, abs=1e-12, nan_ok=True)


@each
@given(seed=seeds)
def test_values_lie_in_the_stated_range_and_the_perfect_answer_is_best(metric: Metric, seed: int) -> None:
    truth, scores = probabilities(seed)
    sure = np.eye(scores.shape[1])[truth.astype(int)]
    wrong = np.roll(sure, 1, axis=1)
    assert not metric.higher_is_better
    assert metric(truth, sure) == metric.low <= metric(truth, scores) <= metric.high == metric(truth, wrong)


@each
def test_a_metric_of_no_utterance_is_undefined(metric: Metric) -> None:
    assert np.isnan(metric(np.empty(0), np.empty((0, 4))))


@each
def test_a_probability_that_float32_puts_above_one_counts_as_one(metric: Metric) -> None:
    above = np.nextafter(np.float32(1), np.float32(2))
    for true in (0.0, 1.0):
        noisy = metric(np.array([true]), np.array([[above, 0]], np.float32))
        assert noisy == pytest.approx(metric(np.array([true]), np.array([[1.0, 0.0]])), abs=1e-6)
    assert ECE(np.ones(1), np.array([[above, 0]], np.float32)) == 1.0


# ----------------------------------------------------------------------------------- what they say of a model


def calibrated(n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    confidence = rng.uniform(0.5, 1, n)
    return answers(confidence, rng.random(n) < confidence)


def test_ece_of_a_calibrated_model_is_near_0_for_many_utterances_and_as_biased_as_stated_for_few() -> None:
    rng = np.random.default_rng(2)
    assert ECE(*calibrated(200_000, rng)) < 0.005
    # 7.5 of the 15 bins lie above a half, where v is 1/6 on average
    found = np.mean([ECE(*calibrated(200, rng)) for _ in range(200)])
    assert found == pytest.approx(np.sqrt(2 / np.pi / 6 * 7.5 / 200), rel=0.15)


def test_ece_of_an_overconfident_model_is_what_it_claims_too_much() -> None:
    right = np.arange(100) < 60
    assert ECE(*answers(np.full(100, 0.9), right)) == pytest.approx(0.3)


@given(seeds, st.floats(0.51, 1.0))
def test_aurc_of_constant_confidence_is_the_error_rate(seed: int, confidence: float) -> None:
    right = np.random.default_rng(seed).random(30) < 0.7
    truth, scores = answers(np.full(30, confidence), right)
    assert AURC(truth, scores) == pytest.approx(1 - ACCURACY(truth, scores))


@given(seeds)
def test_no_model_of_the_same_accuracy_has_a_smaller_aurc_than_a_perfect_ranking(seed: int) -> None:
    confidence, right, _ = tied(seed)
    best = AURC(*answers(np.where(right, 0.9, 0.6), right))
    worst = AURC(*answers(np.where(right, 0.6, 0.9), right))
    assert best - 1e-12 <= AURC(*answers(confidence, right)) <= worst + 1e-12
    r = 1 - right.mean()
    assert best == pytest.approx(r + (1 - r) * np.log1p(-r) if r < 1 else 1.0)


@given(seeds)
def test_selective_accuracy_ends_at_accuracy_and_encloses_the_area_of_aurc(seed: int) -> None:
    truth, scores = probabilities(seed)
    sums = AURC.statistics(truth, scores).sum(axis=0)
    assert selective_accuracy(sums, np.ones(1)) == pytest.approx(ACCURACY(truth, scores))
    middles = (np.arange(500) + 0.5) / 500
    assert 1 - selective_accuracy(sums, middles).mean() == pytest.approx(AURC(truth, scores), abs=0.01)


def test_selective_accuracy_takes_many_sums_at_once_and_is_undefined_for_nobody() -> None:
    rows = AURC.statistics(*answers(np.array([0.9, 0.6]), np.array([True, False])))
    found = selective_accuracy(np.stack([rows, 0 * rows]), np.array([0.0, 0.5, 1.0]))
    nan = np.nan
    np.testing.assert_array_equal(found, [[[nan, 1, 1], [nan, 0, 0]], [[nan] * 3] * 2])
