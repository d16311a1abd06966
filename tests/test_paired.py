"""Paired comparisons against statsmodels, published examples, longhand, and nulls that are simulated."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, t
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar

from dual_bench.metrics import ACC2_NON0, MAE, UAR
from dual_bench.stats import paired
from dual_bench.stats.paired import (
    EXACT_BELOW,
    CorrelationDifference,
    Improvement,
    almost_stochastic_order,
    dependent_correlations,
    mcnemar,
    probability_of_improvement,
)
from dual_bench.stats.resampling import Weights, resample
from dual_bench.types import FloatArray

counts = st.integers(0, 40)
seeds = st.integers(0, 2**32 - 1)


def rejected(p: list[float]) -> float:
    return float(np.mean(np.array(p) < 0.05))


# ------------------------------------------------------------------------------------------------- McNemar


def answers(both: int, only_left: int, only_right: int, none: int) -> tuple[np.ndarray, np.ndarray]:
    sides = np.repeat([[1, 1], [1, 0], [0, 1], [0, 0]], [both, only_left, only_right, none], axis=0).astype(bool)
    return sides[:, 0], sides[:, 1]


@given(st.integers(1, 40), counts, counts, counts)
def test_mcnemar_is_that_of_statsmodels(both: int, b: int, c: int, none: int) -> None:
    found = mcnemar(*answers(both, b, c, none))
    exact = b + c < EXACT_BELOW
    assert (found.only_left, found.only_right, found.method) == (b, c, "exact" if exact else "chi2")
    # statsmodels corrects a difference of 0 to one of 1
    expected = 1.0 if b == c else reference_mcnemar([[both, b], [c, none]], exact=exact, correction=True).pvalue
    assert found.p == pytest.approx(expected, rel=1e-9)
    assert found.reason == ""


def test_mcnemar_is_exact_for_24_discordant_pairs_and_not_for_25() -> None:
    assert [mcnemar(*answers(9, 20, c, 9)).method for c in (4, 5)] == ["exact", "chi2"]


@given(counts, counts, counts, counts, seeds)
def test_mcnemar_knows_neither_order_nor_side(both: int, b: int, c: int, none: int, seed: int) -> None:
    left, right = answers(both, b, c, none)
    found, swapped = mcnemar(left, right), mcnemar(right, left)
    assert (swapped.only_left, swapped.only_right) == (found.only_right, found.only_left)
    assert swapped.p == pytest.approx(found.p, nan_ok=True)
    order = np.random.default_rng(seed).permutation(len(left))
    assert mcnemar(left[order], right[order]) == found or not len(left)


def test_mcnemar_of_sides_that_never_differ_is_1_and_of_no_utterance_undefined() -> None:
    assert mcnemar(*answers(3, 0, 0, 2)).p == 1
    none = mcnemar(np.zeros(0, bool), np.zeros(0, bool))
    assert np.isnan(none.p)
    assert none.reason == "there are no utterances"


@pytest.mark.parametrize("n", [40, 250])
def test_mcnemar_seldom_rejects_equal_systems(n: int) -> None:
    rng = np.random.default_rng(0)
    p = [mcnemar(rng.random(n) < 0.7, rng.random(n) < 0.7).p for _ in range(400)]
    assert 0.01 <= rejected(p) <= 0.065


# --------------------------------------------------------------------------------- probability of improvement


def ratio(sums: FloatArray) -> FloatArray:
    return np.asarray(sums[..., 0] / sums[..., 1])


def scored(values: FloatArray) -> FloatArray:
    """Sums (S, D, C, 2) whose ``ratio`` is the mean of ``values`` (S, D, C)."""
    return np.stack([values, np.ones_like(values)], axis=-1)


def pair(seed: int, s: int = 4, d: int = 3, c: int = 8) -> tuple[FloatArray, FloatArray, Weights]:
    rng = np.random.default_rng(seed)
    left, right = (scored(rng.normal(size=(s, d, c))) for _ in "lr")
    return left, right, resample(rng, s, 3, c, 60)


@pytest.mark.parametrize("draws", [1, 3])
def test_improvement_agrees_with_a_loop_that_repeats_the_rows_themselves(draws: int) -> None:
    rng = np.random.default_rng(1)
    s, c, n, k = 3, 5, 25, 3
    truth, cluster = rng.integers(0, k, n).astype(float), np.arange(n) % c
    weights = resample(rng, s, 3, c, 40)
    scores = rng.random((2, s, draws, n, k))

    def sums(side: FloatArray) -> FloatArray:
        rows = np.array([[UAR.statistics(truth, side[i, j]) for j in range(draws)] for i in range(s)])
        return np.stack([rows[:, :, cluster == u].sum(axis=2) for u in range(c)], axis=2)

    def wins(rows: np.ndarray, pairs: list[tuple[int, int]]) -> float:
        points = []
        for i, j in pairs:
            one, other = (UAR(truth[rows], side[i, j, rows]) for side in scores)
            points.append(0.5 if one == pytest.approx(other, abs=1e-9) else float(one > other))
        return float(np.mean(points))

    expected = []
    for r in range(40):
        rows = np.repeat(np.arange(n), weights.clusters[r][cluster])
        drawn = np.repeat(np.arange(draws), weights.draws[r]) if draws > 1 else [0]
        expected.append(wins(rows, list(product(np.repeat(np.arange(s), weights.seeds[r]), drawn))))
    found = probability_of_improvement(sums(scores[0]), sums(scores[1]), UAR.value, weights, True, 0.8)
    assert found.share == pytest.approx(wins(np.arange(n), list(product(range(s), range(draws)))))
    low, high = np.quantile(expected, 0.1, method="lower"), np.quantile(expected, 0.9, method="higher")
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high))
    assert 0 < found.share < 1


def test_a_tie_is_half_an_improvement() -> None:
    weights = resample(np.random.default_rng(2), 4, 1, 2, 50)
    values = np.ones((4, 1, 2)) * np.array([1.0, 1.0, 1.0, 2.0])[:, None, None]
    assert probability_of_improvement(scored(values), scored(np.ones((4, 1, 2))), ratio, weights, True).share == 5 / 8


def test_what_differs_by_rounding_alone_is_a_tie() -> None:
    weights = resample(np.random.default_rng(2), 3, 1, 2, 50)
    left, right = (scored(np.full((3, 1, 2), value)) for value in (0.1 + 0.2, 0.3))
    assert (left != right).any()
    assert probability_of_improvement(left, right, ratio, weights, True).share == 0.5


@given(seeds)
@settings(max_examples=20)
def test_a_system_neither_improves_nor_impairs_itself_whatever_its_resample(seed: int) -> None:
    left, _, weights = pair(seed)
    found = probability_of_improvement(left, left.copy(), ratio, weights, True)
    assert (found.share, found.interval.low, found.interval.high) == (0.5, 0.5, 0.5)
    assert found.conclusion == "not significant"


@given(seeds)
@settings(max_examples=20)
def test_swapping_the_sides_or_the_direction_mirrors_the_improvement(seed: int) -> None:
    left, right, weights = pair(seed)
    found = probability_of_improvement(left, right, ratio, weights, True)
    for mirrored in (
        probability_of_improvement(right, left, ratio, weights, True),
        probability_of_improvement(left, right, ratio, weights, False),
    ):
        assert mirrored.share == pytest.approx(1 - found.share)
        ends = (1 - found.interval.high, 1 - found.interval.low)
        assert (mirrored.interval.low, mirrored.interval.high) == pytest.approx(ends)


@given(seeds)
@settings(max_examples=20)
def test_the_order_of_seeds_draws_and_clusters_changes_no_improvement(seed: int) -> None:
    left, right, weights = pair(seed)
    rng = np.random.default_rng(seed)
    s, d, c = (rng.permutation(n) for n in left.shape[:3])
    moved = Weights(weights.seeds[:, s], weights.draws[:, d], weights.clusters[:, c])
    sides = (side[s][:, d][:, :, c] for side in (left, right))
    assert probability_of_improvement(*sides, ratio, moved, True) == probability_of_improvement(
        left, right, ratio, weights, True
    )


def test_a_side_with_one_draw_meets_every_draw_of_the_other() -> None:
    left, right, weights = pair(3)
    one = left[:, :1]
    repeated = np.repeat(one, 3, axis=1)
    assert probability_of_improvement(one, right, ratio, weights, True) == probability_of_improvement(
        repeated, right, ratio, weights, True
    )


def many(share: float) -> Improvement:
    """Left wins with this share of 400 seeds, whatever the clusters."""
    won = np.where(np.arange(400) < 400 * share, 1.0, -1.0)[:, None, None] * np.ones((400, 1, 2))
    weights = resample(np.random.default_rng(4), 400, 1, 2, 300)
    return probability_of_improvement(scored(won), scored(np.zeros((400, 1, 2))), ratio, weights, True)


@pytest.mark.parametrize(
    ("share", "conclusion"),
    [
        (0.0, "not significant"),
        (0.51, "not significant"),
        (0.65, "significant, not meaningful"),
        (0.75, "significant and meaningful"),
        (1.0, "significant and meaningful"),
    ],
)
def test_an_improvement_is_significant_above_a_half_and_meaningful_where_it_may_pass_three_quarters(
    share: float, conclusion: str
) -> None:
    found = many(share)
    assert found.share == share
    assert found.conclusion == conclusion


def test_an_interval_that_ends_at_three_quarters_is_not_meaningful(monkeypatch: pytest.MonkeyPatch) -> None:
    high = many(0.8).interval.high
    monkeypatch.setattr(paired, "MEANINGFUL", high)
    assert many(0.8).conclusion == "significant, not meaningful"


@pytest.mark.parametrize(
    ("shape", "reason"),
    [((1, 3, 8), "needs at least 2 training seeds, found 1"), ((4, 3, 1), "needs at least 2 clusters, found 1")],
)
def test_one_seed_or_one_cluster_has_no_interval_of_improvement(shape: tuple[int, int, int], reason: str) -> None:
    left, right, weights = pair(5, *shape)
    found = probability_of_improvement(left, right, ratio, weights, True)
    assert np.isnan([found.interval.low, found.interval.high]).all()
    assert (found.conclusion, found.reason, found.interval.reason) == ("undefined", reason, reason)


def test_an_undefined_metric_has_no_probability_of_improvement() -> None:
    left, right, weights = pair(6)
    left[1, :, :, 1] = 0
    found = probability_of_improvement(left, right, ACC2_NON0.value, weights, True)
    assert np.isnan(found.share)
    assert (found.conclusion, found.reason) == ("undefined", "the metric is undefined in some run")


def test_of_errors_the_smaller_is_the_improvement() -> None:
    left, right = scored(np.full((3, 1, 4), 0.2)), scored(np.full((3, 1, 4), 0.3))
    weights = resample(np.random.default_rng(7), 3, 1, 4, 50)
    assert probability_of_improvement(left, right, MAE.value, weights, MAE.higher_is_better).share == 1


# --------------------------------------------------------------------------------- almost stochastic order

samples = st.lists(st.integers(-5, 5).map(float), min_size=2, max_size=9).map(np.array)


def integrated(left: FloatArray, right: FloatArray) -> float:
    """The violation ratio by the midpoint rule, whose cells no step of a quantile function divides."""
    cells = len(left) * len(right)
    places = (np.arange(cells) + 0.5) / cells
    gaps = np.quantile(left, places, method="inverted_cdf") - np.quantile(right, places, method="inverted_cdf")
    return float(np.mean(np.minimum(gaps, 0) ** 2) / np.mean(gaps**2)) if gaps.any() else np.nan


@given(samples, samples)
def test_the_violation_ratio_is_the_integral_of_the_quantile_functions(left: FloatArray, right: FloatArray) -> None:
    found = almost_stochastic_order(left, right, np.random.default_rng(0), 20)
    assert found.violation == pytest.approx(integrated(left, right), nan_ok=True)


def test_the_violation_ratio_of_large_normal_samples_is_that_of_the_normal_distributions() -> None:
    rng = np.random.default_rng(1)
    left, right = rng.normal(0.3, 1, 40_000), rng.normal(0, 2, 30_000)
    # the quantile functions differ by 0.3 - z, a normal variable: its second moment below 0 over all of it
    below = (0.3**2 + 1) * norm.cdf(-0.3) - 0.3 * norm.pdf(0.3)
    found = almost_stochastic_order(left, right, rng, 10)
    assert found.violation == pytest.approx(below / (0.3**2 + 1), abs=0.02)


def test_the_bound_lies_the_normal_quantile_times_the_deviation_of_the_resamples_above_the_ratio() -> None:
    rng = np.random.default_rng(2)
    left, right = np.sort(rng.normal(1, 1, 7)), np.sort(rng.normal(0, 1, 9))
    rng, again = np.random.default_rng(3), np.random.default_rng(3)
    found = almost_stochastic_order(left, right, rng, 300, 0.9)
    drawn = [side[again.integers(len(side), size=(300, len(side)))] for side in (left, right)]
    ratios = [integrated(one, other) for one, other in zip(*drawn, strict=True)]
    assert found.bound == pytest.approx(found.violation + norm.ppf(0.9) * np.nanstd(ratios))
    assert 0 < found.violation < found.bound < 1


@given(samples, samples)
def test_swapping_the_samples_or_changing_their_signs_mirrors_the_violation_ratio(
    left: FloatArray, right: FloatArray
) -> None:
    rng = np.random.default_rng(0)
    found = almost_stochastic_order(left, right, rng, 20).violation
    for mirrored in (almost_stochastic_order(right, left, rng, 20), almost_stochastic_order(-left, -right, rng, 20)):
        assert mirrored.violation == pytest.approx(1 - found, nan_ok=True)


@given(samples, samples, seeds)
def test_neither_order_nor_unit_of_scores_changes_the_stochastic_order(
    left: FloatArray, right: FloatArray, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    found = almost_stochastic_order(left, right, np.random.default_rng(0), 50)
    moved = (4 * rng.permutation(side) + 8 for side in (left, right))
    again = almost_stochastic_order(*moved, np.random.default_rng(0), 50)
    assert (again.violation, again.bound) == pytest.approx((found.violation, found.bound), nan_ok=True)
    assert again.reason == found.reason


def test_a_sample_above_the_other_dominates_it_without_doubt_and_never_passes_1() -> None:
    low, high = np.array([0.1, 0.2, 0.3]), np.array([0.4, 0.5])
    rng = np.random.default_rng(4)
    better, worse = almost_stochastic_order(high, low, rng), almost_stochastic_order(low, high, rng)
    assert (better.violation, better.bound, better.reason) == (0, 0, "")
    assert (worse.violation, worse.bound) == (1, 1)
    assert almost_stochastic_order(np.array([0.0, 1, 5]), np.array([0.0, 2, 4]), rng).bound <= 1


@pytest.mark.parametrize(
    ("left", "right", "reason"),
    [
        ([1.0, 1.0], [1.0, 1.0, 1.0], "the two samples have the same distribution"),
        ([1.0, 2.0], [2.0, 1.0, 2.0, 1.0], "the two samples have the same distribution"),
        ([1.0], [2.0, 3.0], "needs at least 2 scores of each side, found 1"),
        ([1.0, 2.0], [], "needs at least 2 scores of each side, found 0"),
        ([1.0, np.nan], [2.0, 3.0], "some scores are not finite"),
    ],
)
def test_without_two_samples_that_differ_there_is_no_stochastic_order(
    left: list[float], right: list[float], reason: str
) -> None:
    found = almost_stochastic_order(np.array(left), np.array(right), np.random.default_rng(5))
    assert np.isnan([found.violation, found.bound]).all()
    assert found.reason == reason


def test_a_single_resample_has_no_bound() -> None:
    found = almost_stochastic_order(np.array([1.0, 2]), np.array([0.0, 3]), np.random.default_rng(6), resamples=1)
    assert found.violation == 0.5
    assert np.isnan(found.bound)
    assert "of 1 resamples" in found.reason
    found = almost_stochastic_order(np.array([1.0, 2]), np.array([0.0, 3]), np.random.default_rng(6), resamples=2)
    assert (np.isfinite(found.bound), found.reason) == (True, "")


# -------------------------------------------------------------------------------------- dependent correlations


def three(a: float, b: float, c: float, n: int, seed: int = 0) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Truth, left and right whose sample correlations are a (truth, left), b (truth, right) and c (left, right)."""
    noise = np.random.default_rng(seed).normal(size=(n, 3))
    basis = np.linalg.qr(noise - noise.mean(axis=0))[0]
    columns = basis @ np.linalg.cholesky([[1, a, b], [a, 1, c], [b, c, 1]]).T
    return columns[:, 0], columns[:, 1], columns[:, 2]


def ends(found: CorrelationDifference) -> tuple[float, float]:
    return found.interval.low, found.interval.high


def test_williams_t_is_that_of_a_published_example() -> None:
    # Silver, Hittner & May (2006, Applied Psychological Measurement 30:152)
    found = dependent_correlations(*three(0.3, 0.4, 0.5, 100))
    assert (round(found.statistic, 4), round(found.p, 4)) == (-1.0767, 0.2843)
    assert (found.left, found.right, found.difference) == pytest.approx((0.3, 0.4, -0.1))


def test_zous_interval_is_that_of_his_example() -> None:
    # Zou (2007, Psychological Methods 12:409, example 2)
    low, high = ends(dependent_correlations(*three(0.396, 0.179, 0.088, 66)))
    assert (round(low, 3), round(high, 3)) == (-0.093, 0.517)


@given(seeds, st.integers(4, 30))
def test_williams_t_is_his_formula_with_a_determinant(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=n)
    left, right = truth + rng.normal(size=n), truth + 2 * rng.normal(size=n)
    r = np.corrcoef([truth, left, right])
    a, b, c = r[0, 1], r[0, 2], r[1, 2]
    below = 2 * (n - 1) / (n - 3) * np.linalg.det(r) + ((a + b) / 2) ** 2 * (1 - c) ** 3
    expected = (a - b) * np.sqrt((n - 1) * (1 + c) / below)
    found = dependent_correlations(truth, left, right)
    assert found.statistic == pytest.approx(expected, rel=1e-6)
    assert found.p == pytest.approx(2 * t.cdf(-abs(expected), n - 3), rel=1e-6)
    assert found.interval.low <= found.difference <= found.interval.high


@given(seeds, st.integers(4, 30))
def test_zous_interval_joins_fishers_by_the_general_covariance_of_two_correlations(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=n)
    left, right = truth + rng.normal(size=n), truth + 2 * rng.normal(size=n)
    r = np.corrcoef([truth, left, right])

    def covariance(i: int, j: int, k: int, m: int) -> float:
        """Of the errors of r_ij and r_km, times n (Steiger 1980, equation 2)."""
        half = r[i, j] * r[k, m] * (r[i, k] ** 2 + r[i, m] ** 2 + r[j, k] ** 2 + r[j, m] ** 2) / 2
        triples = [(i, j, k, m), (j, i, k, m), (k, i, j, m), (m, i, j, k)]
        return half + r[i, k] * r[j, m] + r[i, m] * r[j, k] - sum(r[a, b] * r[a, c] * r[a, d] for a, b, c, d in triples)

    shared = covariance(0, 1, 0, 2) / np.sqrt(covariance(0, 1, 0, 1) * covariance(0, 2, 0, 2))
    half = norm.ppf(0.975) / np.sqrt(n - 3)
    a, b = np.arctanh(r[0, 1]), np.arctanh(r[0, 2])
    down = np.array([r[0, 1] - np.tanh(a - half), np.tanh(b + half) - r[0, 2]])
    up = np.array([np.tanh(a + half) - r[0, 1], r[0, 2] - np.tanh(b - half)])
    lengths = [float(np.sqrt(gaps @ [[1, -shared], [-shared, 1]] @ gaps)) for gaps in (down, up)]
    found = dependent_correlations(truth, left, right)
    assert ends(found) == pytest.approx((found.difference - lengths[0], found.difference + lengths[1]), rel=1e-6)


@given(seeds, st.integers(4, 30))
def test_swapping_the_sides_turns_the_difference_of_correlations_round(seed: int, n: int) -> None:
    truth, left, right = np.random.default_rng(seed).normal(size=(3, n))
    found, swapped = dependent_correlations(truth, left, right), dependent_correlations(truth, right, left)
    assert (swapped.difference, swapped.statistic) == pytest.approx((-found.difference, -found.statistic))
    assert swapped.p == pytest.approx(found.p)
    assert ends(swapped) == pytest.approx((-found.interval.high, -found.interval.low))


@given(seeds, st.integers(4, 30))
def test_neither_the_order_of_utterances_nor_a_scale_changes_correlations(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(3, n))
    found, order = dependent_correlations(*rows), rng.permutation(n)
    moved = dependent_correlations(rows[0, order], 3 * rows[1, order] + 2, rows[2, order] / 7)
    assert (moved.statistic, moved.p, *ends(moved)) == pytest.approx((found.statistic, found.p, *ends(found)))


def test_a_higher_level_is_a_wider_interval_about_the_same_test() -> None:
    rows = three(0.5, 0.2, 0.3, 40)
    narrow, wide = dependent_correlations(*rows, level=0.8), dependent_correlations(*rows, level=0.99)
    assert wide.interval.low < narrow.interval.low < 0.3 < narrow.interval.high < wide.interval.high
    assert (wide.p, wide.interval.level) == (narrow.p, 0.99)


RISING = np.arange(5.0)
BENT = np.array([0.0, 2, 1, 5, 3])


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([RISING[:3], BENT[:3], BENT[2::-1]], "needs at least 4 utterances, found 3"),
        ([RISING[:0]] * 3, "needs at least 4 utterances, found 0"),
        ([RISING, np.ones(5), BENT], "left constant"),
        ([np.ones(5), RISING, np.zeros(5)], "truth and right constant"),
        ([RISING, BENT, np.array([1, 2, np.nan, 0, 1])], "some values are not finite"),
    ],
)
def test_correlations_of_too_little_are_undefined_with_a_reason(rows: list[FloatArray], reason: str) -> None:
    found = dependent_correlations(*rows)
    assert np.isnan([found.left, found.difference, found.statistic, found.p, *ends(found)]).all()
    assert found.reason == found.interval.reason == reason


@pytest.mark.parametrize("right", [BENT, 2 * BENT + 1, -BENT, RISING])
def test_where_two_variables_make_the_third_the_difference_is_known_and_its_test_undefined(right: FloatArray) -> None:
    found = dependent_correlations(RISING, BENT, right)
    assert found.difference == pytest.approx(found.left - np.corrcoef(RISING, right)[0, 1])
    assert np.isnan([found.statistic, found.p, *ends(found)]).all()
    assert found.reason == "two of truth, left and right determine the third"


def test_williams_seldom_rejects_and_zous_interval_covers_where_correlations_are_equal() -> None:
    rng = np.random.default_rng(8)
    found = []
    for _ in range(400):
        truth, left, right = rng.normal(size=(3, 25))
        found.append(dependent_correlations(truth, truth + left, truth + right))
    assert 0.02 <= rejected([one.p for one in found]) <= 0.065
    assert np.mean([one.interval.low <= 0 <= one.interval.high for one in found]) >= 0.93
