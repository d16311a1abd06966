"""The crossed bootstrap against longhand, and against simulated worlds whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from dual_bench.metrics import ACC2_NON0, UAR
from dual_bench.stats import resampling
from dual_bench.stats.contrasts import p_value
from dual_bench.stats.resampling import caution, estimate, interval, percentile, replicates, resample, spread
from dual_bench.types import FloatArray


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
    assert found.reason == "undefined in 60 of 2001 resamples"


def test_the_standard_error_knows_which_level_it_comes_from() -> None:
    rng = np.random.default_rng(5)
    seeds, clusters = rng.normal(size=5), rng.normal(size=30)
    ones = np.ones((5, 1, 30))
    weights = resample(rng, 5, 1, 30, 20_000)
    for effect, n in ((seeds[:, None, None] * ones, 5), (clusters * ones, 30)):
        found = spread(replicates(np.stack([effect, ones], axis=-1), ratio, weights), weights)
        values = seeds if n == 5 else clusters
        assert found.error == pytest.approx(values.std(ddof=1) / n**0.5, rel=0.03)
        assert found.freedom == pytest.approx(n - 1, rel=0.03)


def test_an_interval_is_as_wide_as_the_t_distribution_asks() -> None:
    rng = np.random.default_rng(6)
    sums = np.ones((5, 1, 30, 2))
    sums[..., 0] += rng.normal(size=(5, 1, 1)) + 0.1 * rng.normal(size=30)
    weights = resample(rng, 5, 1, 30, 20_000)
    sample = replicates(sums, ratio, weights)
    found, width = interval(estimate(sums, ratio), sample, weights), spread(sample, weights)
    assert found.high - found.low == pytest.approx(2 * t.ppf(0.975, width.freedom) * width.error, rel=0.1)
    plain = percentile(sample)
    assert found.low < plain.low < plain.high < found.high


def test_no_variation_is_an_interval_without_width() -> None:
    weights = resample(np.random.default_rng(7), 3, 1, 9, 100)
    found = interval(0.25, np.full(100, 0.25), weights)
    assert (found.low, found.high) == (0.25, 0.25)


@pytest.mark.parametrize(
    ("seeds", "clusters", "words"),
    [(5, 10, ""), (4, 10, "4 training seeds"), (5, 9, "9 clusters"), (2, 3, "2 training")],
)
def test_few_seeds_or_clusters_bring_a_word_of_caution(seeds: int, clusters: int, words: str) -> None:
    assert words in caution(seeds, clusters)
    assert bool(words) == bool(caution(seeds, clusters))


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
        value, sample = estimate(sums, ratio), replicates(sums, ratio, weights)
        found = interval(value, sample, weights)
        held += found.low <= shift <= found.high
        rejected += p_value(value, spread(sample, weights)) < 0.05
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
    assert 0.90 <= covered <= 0.99
    assert 0.01 <= rejected <= 0.08


def test_a_true_difference_as_large_as_the_design_can_see_is_mostly_seen() -> None:
    effects = WORLDS["clusters lead"]
    # clusters of unequal size are worth a tenth fewer of equal size
    detectable = (t.ppf(0.975, 29) + t.ppf(0.8, 29)) * (1 / 27) ** 0.5
    assert 0.65 <= simulate(effects, detectable)[1] <= 0.95
