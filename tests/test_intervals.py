"""Intervals against scipy, longhand, and what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dual_bench.metrics import ACC2_NON0, ACCURACY
from dual_bench.stats.intervals import (
    all_intervals,
    bca,
    by_influence,
    caution,
    interval,
    percentile,
    ratio_interval,
    studentised,
)
from dual_bench.stats.resampling import Point, Weights, combined, point_of, resample
from dual_bench.stats.variance import spread
from dual_bench.types import FloatArray


def ratio(sums: FloatArray) -> FloatArray:
    return np.asarray(sums[..., 0] / sums[..., 1])


def counted(y: FloatArray) -> FloatArray:
    """Sums of one utterance a cluster: the value, and 1."""
    return np.stack([y, np.ones_like(y)], axis=-1)


def clusters_alone(seed: int = 0, n: int = 40, resamples: int = 4000) -> tuple[FloatArray, Point, Weights]:
    """Values of two equal seeds, so that clusters are all that is resampled with an effect."""
    rng = np.random.default_rng(seed)
    values = rng.exponential(size=n)
    weights = resample(rng, 2, 1, n, resamples)
    return values, point_of(counted(np.broadcast_to(values, (2, 1, n))), ratio, weights), weights


def test_a_percentile_interval_leaves_out_a_fortieth_at_each_end() -> None:
    found = percentile(np.random.default_rng(4).permutation(2001).astype(float))
    assert (found.low, found.high, found.level, found.reason) == (50, 1950, 0.95, "")


def test_undefined_replicates_widen_an_interval_and_then_undo_it() -> None:
    sample = np.arange(2001.0)
    sample[1000:1020] = np.nan
    found = percentile(sample)
    assert (found.low, found.high) == (30, 1970)
    sample[1000:1060] = np.nan
    found = percentile(sample)
    assert np.isnan([found.low, found.high]).all()
    assert (found.level, found.reason) == (0.95, "undefined in 60 of 2001 resamples")


def test_percentile_and_bca_are_those_of_scipy_on_the_same_resamples() -> None:
    values, point, _ = clusters_alone()
    # scipy's own resamples, so that both see the same
    rng = np.random.default_rng(1)
    given = {"n_resamples": 4000, "vectorized": True, "rng": rng}
    theirs = stats.bootstrap((values,), np.mean, method="BCa", **given)
    ours = Point(float(values.mean()), theirs.bootstrap_distribution, point.influence)
    found = bca(ours)
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.004)
    plain = stats.bootstrap((values,), np.mean, method="percentile", bootstrap_result=theirs, n_resamples=0)
    assert (percentile(ours.replicates).low, percentile(ours.replicates).high) == pytest.approx(
        tuple(plain.confidence_interval), abs=0.004
    )
    shifted = found.low - percentile(ours.replicates).low
    assert shifted > 0.005  # skewed values: the two methods differ by more than they agree to


def test_bca_of_several_levels_is_that_of_scipy_for_several_samples() -> None:
    """A sum of a seed's and a cluster's value is the sum of two means, which scipy resamples as two samples."""
    rng = np.random.default_rng(2)
    seeds, clusters = rng.exponential(size=8), rng.exponential(size=25)
    y = seeds[:, None, None] + clusters
    given = {"n_resamples": 4000, "vectorized": True, "rng": np.random.default_rng(3), "method": "BCa"}
    theirs = stats.bootstrap((seeds, clusters), lambda a, b, axis: a.mean(axis=axis) + b.mean(axis=axis), **given)
    ours = bca(Point(float(y.mean()), theirs.bootstrap_distribution, y))
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.01)


def test_a_studentised_interval_is_the_definition_written_out() -> None:
    rng = np.random.default_rng(4)
    y = rng.normal(size=(6, 2, 15)) + rng.normal(size=(6, 1, 1))
    weights = resample(rng, 6, 2, 15, 300)
    point = point_of(counted(y), ratio, weights)
    ratios = []
    for r in range(300):
        rows = [np.repeat(np.arange(n), w[r]) for n, w in zip(y.shape, weights.of(2), strict=True)]
        drawn = y[np.ix_(*rows)]
        error = spread(drawn).error
        ratios.append((drawn.mean() - y.mean()) / error)
    low, high = np.quantile(ratios, 0.025, method="lower"), np.quantile(ratios, 0.975, method="higher")
    found = studentised(point, weights)
    assert found.low == pytest.approx(point.estimate - high * point.spread.error)
    assert found.high == pytest.approx(point.estimate - low * point.spread.error)


def test_an_interval_is_as_wide_as_the_t_distribution_asks() -> None:
    rng = np.random.default_rng(6)
    y = 1 + rng.normal(size=(5, 1, 1)) + 0.1 * rng.normal(size=(1, 1, 30))
    weights = resample(rng, 5, 1, 30, 20_000)
    point = point_of(counted(y), ratio, weights)
    found, width = interval(point), point.spread
    assert found.high - found.low == pytest.approx(2 * stats.t.ppf(0.975, width.freedom) * width.error, rel=0.1)
    plain = percentile(point.replicates)
    assert found.low < plain.low < plain.high < found.high


def test_replicates_that_are_biased_do_not_push_the_interval_off_the_estimate() -> None:
    _, point, _ = clusters_alone()
    pushed = Point(point.estimate, point.replicates + 3, point.influence)
    assert interval(pushed).low == pytest.approx(interval(point).low)
    assert interval(pushed).low < point.estimate < interval(pushed).high


def test_what_never_varies_has_no_interval_but_where_both_sides_say_the_same() -> None:
    found = interval(Point(0.25, np.full(100, 0.25), np.full((3, 1, 9), 0.25)))
    assert np.isnan([found.low, found.high]).all()
    assert "the same in every seed" in found.reason
    same = interval(Point(0.0, np.zeros(100), np.zeros((3, 1, 9))))
    assert (same.low, same.high, same.reason) == (0.0, 0.0, "")


def test_fiellers_interval_is_that_of_the_formula_where_clusters_alone_vary() -> None:
    """Of means of 30 pairs, both equal in every seed: the roots of (a - r b)^2 = t^2 var(a - r b), by the formula."""
    rng = np.random.default_rng(20)
    x, z = 2 + rng.normal(size=30), 3 + rng.normal(size=30)
    weights = resample(rng, 2, 1, 30, 10)
    top, bottom = (point_of(counted(np.broadcast_to(v, (2, 1, 30))), ratio, weights) for v in (x, z))
    found = ratio_interval(top, bottom)
    (vx, vxz), (_, vz) = np.cov(x, z) / 30
    q = stats.t.ppf(0.975, 29) ** 2
    a, b = x.mean(), z.mean()
    roots = np.roots([b**2 - q * vz, -2 * (a * b - q * vxz), a**2 - q * vx])
    assert (found.low, found.high) == pytest.approx(tuple(sorted(roots)), rel=1e-6)


def test_a_ratio_over_what_may_be_nothing_has_no_interval() -> None:
    rng = np.random.default_rng(21)
    weights = resample(rng, 3, 1, 20, 10)
    top, bottom = (point_of(counted(m + rng.normal(size=(3, 1, 20))), ratio, weights) for m in (2.0, 0.1))
    assert "not shown to be above 0" in ratio_interval(top, bottom).reason
    assert "the same in every seed" in ratio_interval(top, top).reason


@given(st.integers(0, 2**32 - 1))
def test_swapping_the_sides_mirrors_every_interval(seed: int) -> None:
    rng = np.random.default_rng(seed)
    left, right = (counted(rng.random((4, 3, 12))) for _ in range(2))
    weights = resample(rng, 4, 3, 12, 199)
    one, other = (point_of(side, ratio, weights) for side in (left, right))
    ahead, behind = all_intervals(one - other, weights), all_intervals(other - one, weights)
    assert ahead.keys() == {"report", "t", "percentile", "bca", "studentised"}
    for kind in ahead.keys() - {"bca"}:  # whose percentiles lie between two order statistics, rounded outward
        ends = (ahead[kind].low, ahead[kind].high)
        assert ends == pytest.approx((-behind[kind].high, -behind[kind].low), nan_ok=True), kind


@pytest.mark.parametrize(
    ("shape", "reason"),
    [((1, 3, 9), "at least 2 training seeds, found 1"), ((3, 3, 1), "at least 2 clusters, found 1")],
)
def test_one_seed_or_one_cluster_gives_nan_with_a_reason(shape: tuple[int, int, int], reason: str) -> None:
    rng = np.random.default_rng(7)
    weights = resample(rng, *shape, 50)
    point = point_of(counted(rng.random(shape)), ACCURACY.value, weights)
    for kind, found in all_intervals(point, weights).items():
        if kind in ("report", "bca", "studentised"):
            assert np.isnan([found.low, found.high]).all()
            assert reason in found.reason


def test_a_statistic_that_hangs_on_one_cluster_has_no_interval_and_says_why() -> None:
    sums = np.zeros((3, 1, 5, 2))
    sums[:, :, 0] = 1
    weights = resample(np.random.default_rng(8), 3, 1, 5, 100)
    found = interval(point_of(sums, ACC2_NON0.value, weights))
    assert np.isnan([found.low, found.high]).all()
    assert "where one cluster is left out" in found.reason
    _, found = by_influence(sums, ACC2_NON0.value)
    assert np.isnan([found.low, found.high]).all()
    assert found.reason == "undefined"


def test_one_seed_too_often_alone_leaves_no_studentised_interval() -> None:
    rng = np.random.default_rng(9)
    y = np.broadcast_to(rng.normal(size=(2, 1, 1)), (2, 1, 10))
    weights = resample(rng, 2, 1, 10, 500)
    assert "one seed alone" in studentised(point_of(counted(y), ratio, weights), weights).reason


def test_equal_generators_give_equal_intervals() -> None:
    sums = counted(np.random.default_rng(10).random((3, 2, 8)))

    def found() -> dict[str, object]:
        weights = resample(np.random.default_rng(11), 3, 2, 8, 200)
        return dict(all_intervals(point_of(sums, ratio, weights), weights))

    assert found() == found()


def test_a_constant_predictor_sits_on_the_floor_without_doubt_about_it() -> None:
    """Always the same class: every seed and draw scores the share of that class, and only clusters are uncertain."""
    rng = np.random.default_rng(12)
    truth = rng.integers(0, 3, 90).astype(float)
    rows = ACCURACY.statistics(truth, np.tile([1.0, 0, 0], (90, 1)))
    sums = np.broadcast_to(rows.reshape(9, 10, 2).sum(axis=1), (4, 3, 9, 2))
    point = point_of(sums, ACCURACY.value, resample(rng, 4, 3, 9, 500))
    assert point.estimate == pytest.approx(np.mean(truth == 0))
    parts = point.spread.parts
    assert parts[2,] == pytest.approx(point.spread.error**2)
    gone = combined([(1.0, point), (-1.0, point)])
    assert (interval(gone).low, interval(gone).high) == (0, 0)


@pytest.mark.parametrize(
    ("seeds", "clusters", "words"),
    [(5, 10, ""), (4, 10, "4 training seeds"), (5, 9, "9 clusters"), (2, 3, "2 training")],
)
def test_few_seeds_or_clusters_bring_a_word_of_caution(seeds: int, clusters: int, words: str) -> None:
    assert words in caution(seeds, clusters)
    assert bool(words) == bool(caution(seeds, clusters))
