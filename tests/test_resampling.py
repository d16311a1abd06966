"""The crossed bootstrap against longhand, and against simulated worlds whose truth is known."""

from __future__ import annotations

from itertools import repeat

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import t
from sklearn.metrics import balanced_accuracy_score, f1_score, recall_score

from dual_bench.metrics import ACC2_NON0, ACCURACY, MACRO_F1, PEARSON_R, UAR, WEIGHTED_F1
from dual_bench.stats import resampling
from dual_bench.stats.contrasts import p_value
from dual_bench.stats.curves import mean_point, trapezoid
from dual_bench.stats.dependency import shapley_weights
from dual_bench.stats.intervals import interval
from dual_bench.stats.resampling import (
    Point,
    combined,
    estimate,
    influence,
    permutation_p,
    point_of,
    point_of_function,
    quotient,
    replicates,
    resample,
    shifted,
)
from dual_bench.types import MODALITIES, FloatArray


def ratio(sums: FloatArray) -> FloatArray:
    return np.asarray(sums[..., 0] / sums[..., 1])


def test_every_resample_draws_as_many_units_as_there_are() -> None:
    weights = resample(np.random.default_rng(0), 5, 3, 49, 200)
    for counts, n in ((weights.seeds, 5), (weights.draws, 3), (weights.clusters, 49)):
        assert counts.shape == (200, n)
        assert (counts.sum(axis=1) == n).all()
        assert counts.mean(axis=0) == pytest.approx(np.ones(n), abs=0.5)


@pytest.mark.parametrize("draws", [1, 3])
def test_replicates_agree_with_a_loop_that_repeats_the_rows_themselves(draws: int) -> None:
    rng = np.random.default_rng(1)
    seeds, clusters, n, k = 3, 6, 30, 4
    truth, cluster = rng.integers(0, k, n).astype(float), np.arange(n) % clusters
    scores = rng.random((seeds, draws, n, k))
    rows = np.array([[UAR.statistics(truth, scores[s, d]) for d in range(draws)] for s in range(seeds)])
    sums = np.stack([rows[:, :, cluster == c].sum(axis=2) for c in range(clusters)], axis=2)
    weights = resample(rng, seeds, 3, clusters, 20)

    expected = []
    for r in range(20):
        chosen = np.repeat(np.arange(n), weights.clusters[r][cluster])
        values = []
        for s in np.repeat(np.arange(seeds), weights.seeds[r]):
            for d in np.repeat(np.arange(3), weights.draws[r]) if draws > 1 else [0]:
                values.append(UAR(truth[chosen], scores[s, d, chosen]))
        expected.append(np.mean(values))
    assert replicates(sums, UAR.value, weights) == pytest.approx(expected)


def test_replicates_do_not_depend_on_the_size_of_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    sums, weights = rng.random((3, 2, 7, 2)), resample(rng, 3, 2, 7, 50)
    whole = replicates(sums, ratio, weights)
    monkeypatch.setattr(resampling, "_CHUNK", 1)
    assert replicates(sums, ratio, weights) == pytest.approx(whole, rel=1e-12)


def test_an_undefined_seed_spoils_only_the_resamples_that_draw_it() -> None:
    rng = np.random.default_rng(3)
    sums, weights = rng.random((3, 2, 7, 2)), resample(rng, 3, 2, 7, 50)
    sums[1, :, :, 1] = 0
    found = replicates(sums, ACC2_NON0.value, weights)
    assert np.isnan(found).tolist() == (weights.seeds[:, 1] > 0).tolist()
    assert np.isnan(estimate(sums, ACC2_NON0.value))


# --------------------------------------------------------------------------------------------- influence


def test_influence_of_a_mean_is_what_each_cluster_holds_and_its_mean_is_the_estimate() -> None:
    rng = np.random.default_rng(4)
    y = rng.random((3, 2, 9))
    sums = np.stack([y, np.ones_like(y)], axis=-1)
    assert influence(sums, ratio) == pytest.approx(y)
    for metric, m in ((WEIGHTED_F1, 12), (PEARSON_R, 6)):
        totals = rng.integers(1, 9, (3, 2, 9, m)).astype(float)
        if metric is PEARSON_R:
            x, z = rng.normal(size=(2, 3, 2, 9, 20))
            totals = np.stack([np.full(x.shape[:-1], 20.0), *(v.sum(axis=-1) for v in (x, z, x * x, z * z, x * z))], -1)
        found = influence(totals, metric.value)
        assert found.mean(axis=2) == pytest.approx(metric.value(totals.sum(axis=2)))
        assert found.mean() == pytest.approx(estimate(totals, metric.value))


def test_the_error_by_influence_is_scipys_jackknife_error_where_clusters_alone_vary() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=60)
    z = x + rng.normal(size=60)
    rows = np.stack([np.ones(60), x, z, x * x, z * z, x * z], axis=-1)
    found = influence(rows[None, None], PEARSON_R.value)[0, 0]
    left_out = [stats.pearsonr(np.delete(x, i), np.delete(z, i))[0] for i in range(60)]
    assert found.std(ddof=1) / 60**0.5 == pytest.approx((59 / 60 * ((left_out - np.mean(left_out)) ** 2).sum()) ** 0.5)


def test_points_add_up_as_their_numbers_do() -> None:
    rng = np.random.default_rng(6)
    weights = resample(rng, 3, 2, 7, 50)
    one, two = (point_of(rng.random((3, d, 7, 2)) + 0.1, ratio, weights) for d in (2, 1))
    both = combined([(2.0, one), (-0.5, two)])
    assert both.estimate == pytest.approx(2 * one.estimate - 0.5 * two.estimate)
    assert both.replicates == pytest.approx(2 * one.replicates - 0.5 * two.replicates)
    assert both.influence.shape == (3, 2, 7)
    assert both.influence.mean() == pytest.approx(both.estimate)
    share = quotient(one, two)
    assert share.estimate == pytest.approx(one.estimate / two.estimate)
    assert share.replicates == pytest.approx(one.replicates / two.replicates)
    assert share.influence.mean() == pytest.approx(share.estimate)
    assert shifted(one, 1).influence.mean() == pytest.approx(one.estimate + 1)


@given(
    height=st.floats(-1e3, 1e3, allow_subnormal=False),
    rates=st.lists(st.floats(0.01, 1), min_size=2, max_size=9, unique=True),
)
def test_what_cancels_but_for_rounding_is_nothing_at_all(height: float, rates: list[float]) -> None:
    """Whether a model reads a modality at all must not hang on the last digit of a sum."""
    flat = Point(height, np.full(7, height), np.full((2, 1, 4), height))
    area = combined(zip(trapezoid([0.0, *sorted(rates)]).tolist(), repeat(flat)))
    worths = [combined((weight, flat) for weight in shapley_weights(m).values()) for m in MODALITIES]
    for found in (area - flat, *worths, shifted(flat, -height), mean_point([flat] * len(rates)) - flat):
        assert (found.estimate, found.replicates.any(), found.influence.any()) == (0, False, False)


def test_what_is_small_but_no_rounding_stays_and_what_is_undefined_too() -> None:
    left, right = (Point(v, np.array([v, np.nan]), np.array([[[v, 1.0]]])) for v in (1 + 1e-12, 1.0))
    found = left - right
    assert found.estimate == (1 + 1e-12) - 1
    assert found.replicates[0] == found.estimate
    assert np.isnan(found.replicates[1])
    assert found.influence.tolist() == [[[found.estimate, 0]]]
    assert shifted(left, np.inf).estimate == np.inf


def test_a_quotient_by_nothing_is_undefined() -> None:
    rng = np.random.default_rng(7)
    one = point_of(rng.random((3, 1, 7, 2)) + 0.1, ratio, resample(rng, 3, 1, 7, 50))
    gone = quotient(one, one - one)
    assert np.isnan([gone.estimate, *gone.replicates]).all()


# -------------------------------------------------------------------------------------- plain functions


@pytest.mark.parametrize(
    ("metric", "function"),
    [
        (UAR, lambda y, s: balanced_accuracy_score(y, s.argmax(axis=1))),
        (WEIGHTED_F1, lambda y, s: f1_score(y, s.argmax(axis=1), average="weighted", zero_division=0.0)),
        (MACRO_F1, lambda y, s: f1_score(y, s.argmax(axis=1), average="macro", zero_division=0.0)),
        (ACCURACY, lambda y, s: recall_score(y, s.argmax(axis=1), average="micro")),
    ],
)
def test_a_function_of_scikit_learn_resamples_as_the_same_metric_by_sums(metric: object, function: object) -> None:
    rng = np.random.default_rng(8)
    n, clusters = 60, 6
    truth, cluster = np.tile([0.0, 1.0, 2.0], 20), np.repeat(np.arange(clusters), 10)
    scores = rng.random((2, 2, n, 3)) + 0.5 * np.eye(3)[truth.astype(int)]
    rows = np.array([[metric.statistics(truth, scores[s, d]) for d in range(2)] for s in range(2)])
    sums = rows.reshape(2, 2, clusters, 10, -1).sum(axis=3)
    weights = resample(rng, 2, 2, clusters, 15)
    by_sums, by_function = (
        point_of(sums, metric.value, weights),
        point_of_function(function, truth, scores, cluster, weights),
    )
    assert by_function.estimate == pytest.approx(by_sums.estimate)
    assert by_function.replicates == pytest.approx(by_sums.replicates)
    assert by_function.influence == pytest.approx(by_sums.influence)


# ------------------------------------------------------------------------------------------ permutation


def test_the_permutation_test_agrees_with_scipy_on_one_value_a_cluster() -> None:
    rng = np.random.default_rng(9)
    left = rng.normal(size=12)
    right = left + rng.normal(0.5, 0.8, size=12)
    sides = (np.stack([side, np.ones(12)], axis=-1)[None, None] for side in (left, right))
    exact = stats.permutation_test(
        (left, right), lambda a, b, axis: (a - b).mean(axis=axis), permutation_type="samples", vectorized=True
    )
    assert permutation_p(*sides, ratio, rng, 20_000) == pytest.approx(exact.pvalue, abs=0.01)


@given(st.integers(0, 2**32 - 1))
def test_a_permutation_p_does_not_know_left_from_right_and_equal_sides_have_one(seed: int) -> None:
    sums = np.random.default_rng(seed).integers(1, 9, (2, 3, 2, 8, 6)).astype(float)
    one, other = (permutation_p(*sides, MACRO_F1.value, np.random.default_rng(1), 99) for sides in (sums, sums[::-1]))
    assert one == other
    assert permutation_p(sums[0], sums[0], MACRO_F1.value, np.random.default_rng(1), 99) == 1
    assert one >= 1 / 100


def test_one_cluster_cannot_be_permuted() -> None:
    assert np.isnan(permutation_p(*np.ones((2, 3, 1, 1, 2)), ratio, np.random.default_rng(0), 9))


# ------------------------------------------------------------------------------------ simulated worlds


def world(rng: np.random.Generator, seed: float, draw: float, cluster: float, rest: float, shift: float) -> FloatArray:
    """A paired difference with the mean ``shift``, (5, 3, 30, 2), made of effects with these standard deviations."""
    value = shift + rest * rng.normal(size=(5, 3, 30))
    for effect, shape in ((seed, (5, 1, 1)), (draw, (1, 3, 1)), (cluster, (1, 1, 30))):
        value += effect * rng.normal(size=shape)
    size = rng.integers(3, 12, 30).astype(float)
    return np.stack([value * size, np.broadcast_to(size, value.shape)], axis=-1)


def simulate(effects: tuple[float, float, float, float], shift: float = 0.0) -> tuple[float, float]:
    """Over 400 worlds: the share of intervals that hold ``shift``, and of tests that reject 0 at .05."""
    rng = np.random.default_rng(8)
    held, rejected = 0, 0
    for _ in range(400):
        sums, weights = world(rng, *effects, shift), resample(rng, 5, 3, 30, 400)
        point = point_of(sums, ratio, weights)
        found = interval(point)
        held += found.low <= shift <= found.high
        rejected += p_value(point.estimate, point.spread) < 0.05
    return held / 400, rejected / 400


WORLDS = {
    "seeds lead": (1.0, 0.0, 0.0, 1.0),
    "clusters lead": (0.0, 0.0, 1.0, 0.5),
    "all levels": (0.3, 0.2, 1.0, 1.0),
}


@pytest.mark.parametrize("effects", WORLDS.values(), ids=WORLDS.keys())
def test_intervals_cover_the_truth_and_a_true_null_is_seldom_rejected(
    effects: tuple[float, float, float, float],
) -> None:
    covered, rejected = simulate(effects)
    assert 0.91 <= covered <= 0.985
    assert 0.01 <= rejected <= 0.08


def test_a_true_difference_as_large_as_the_design_can_see_is_mostly_seen() -> None:
    effects = WORLDS["clusters lead"]
    # clusters of unequal size are worth a tenth fewer of equal size
    detectable = (t.ppf(0.975, 29) + t.ppf(0.8, 29)) * (1 / 27) ** 0.5
    assert 0.65 <= simulate(effects, detectable)[1] <= 0.95
