"""Variance components against ordinary analysis of variance, and against worlds that were made of known ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2, t
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from dual_bench.stats.variance import EFFECTS, LEVELS, Spread, components, contributions, name_of, spread
from dual_bench.types import FloatArray


def made(rng: np.random.Generator, deviations: dict[tuple[int, ...], float], shape: tuple[int, int, int]) -> FloatArray:
    """A normal effect of each kind, with these standard deviations."""
    y = np.zeros(shape)
    for effect, deviation in deviations.items():
        y = y + deviation * rng.normal(size=[n if level in effect else 1 for level, n in enumerate(shape)])
    return np.array(y)


def test_the_parts_are_those_of_statsmodels_mean_squares() -> None:
    """E[MS] of a crossed layout, solved by hand for each component, from the mean squares of an independent fit."""
    s, d, c = 4, 3, 6
    y = np.random.default_rng(0).normal(size=(s, d, c)) + np.arange(s)[:, None, None]
    index = pd.MultiIndex.from_product([range(s), range(d), range(c)], names=LEVELS)
    frame = pd.Series(y.ravel(), index, name="y").reset_index()
    mains = ols("y ~ C(seed) * C(draw) + C(seed) * C(cluster) + C(draw) * C(cluster)", frame).fit()
    table = anova_lm(mains)
    ms = {name: table.loc[name, "mean_sq"] for name in table.index}
    sd, sc, dc, rest = ms["C(seed):C(draw)"], ms["C(seed):C(cluster)"], ms["C(draw):C(cluster)"], ms["Residual"]
    expected = [
        (ms["C(seed)"] - sd - sc + rest) / (d * c) / s,
        (ms["C(draw)"] - sd - dc + rest) / (s * c) / d,
        (ms["C(cluster)"] - sc - dc + rest) / (s * d) / c,
        (sd - rest) / c / (s * d),
        (sc - rest) / d / (s * c),
        (dc - rest) / s / (d * c),
        rest / (s * d * c),
    ]
    assert contributions(y)[0] == pytest.approx(expected)


@pytest.mark.parametrize(("axis", "shape"), [(0, (7, 1, 1)), (2, (1, 1, 40))])
def test_of_one_level_alone_the_spread_is_that_of_the_t_test(axis: int, shape: tuple[int, int, int]) -> None:
    values = np.random.default_rng(1).normal(size=shape)
    found = spread(values)
    assert found.error == pytest.approx(values.std(ddof=1) / shape[axis] ** 0.5)
    assert found.freedom == pytest.approx(shape[axis] - 1)


def test_estimated_parts_are_right_on_average() -> None:
    rng = np.random.default_rng(2)
    deviations = {(0,): 0.5, (1,): 0.3, (2,): 1.0, (0, 1): 0.2, (0, 2): 0.7, (1, 2): 0.4, (0, 1, 2): 0.6}
    shape = (5, 4, 20)
    found = np.mean([contributions(made(rng, deviations, shape))[0] for _ in range(3000)], axis=0)
    expected = [deviations[e] ** 2 / np.prod([shape[level] for level in e]) for e in EFFECTS]
    assert found == pytest.approx(expected, rel=0.1)


def test_the_variance_of_the_mean_is_what_means_of_many_worlds_vary_by() -> None:
    """Also where seeds and clusters vary only together, which a bootstrap counts three times."""
    rng = np.random.default_rng(3)
    for deviations in ({(0, 2): 1.0}, {(0,): 0.3, (2,): 0.5, (0, 1, 2): 1.0}):
        worlds = [made(rng, deviations, (5, 3, 30)) for _ in range(2000)]
        unbiased = np.mean([contributions(y)[0].sum() for y in worlds])
        assert unbiased == pytest.approx(np.var([y.mean() for y in worlds]), rel=0.1)
        assert 0.97 * unbiased <= np.mean([spread(y).error ** 2 for y in worlds]) <= 1.4 * unbiased


@given(st.integers(0, 2**32 - 1), st.permutations(range(4)), st.floats(-3, 3))
def test_neither_the_order_of_units_nor_a_shift_changes_the_parts(seed: int, order: list[int], by: float) -> None:
    y = np.random.default_rng(seed).normal(size=(4, 3, 5))
    parts = contributions(y)
    assert contributions(y[order][:, ::-1][:, :, ::-1]) == pytest.approx(parts)
    assert contributions(y + by) == pytest.approx(parts, rel=1e-6, abs=1e-12)
    assert contributions(-2 * y) == pytest.approx(4 * parts)


def test_what_does_not_vary_has_no_spread() -> None:
    found = spread(np.full((3, 2, 4), 0.7))
    assert (found.error, found.freedom) == (0, np.inf)


def test_a_level_with_one_unit_adds_nothing() -> None:
    y = np.random.default_rng(4).normal(size=(4, 1, 9))
    found = spread(y)
    assert {e for e, part in found.parts.items() if part} <= {(0,), (2,), (0, 2)}
    assert {c.name for c in components(y)} == {"seed", "cluster", "seed × cluster"}


def test_more_units_shrink_what_they_add_alone_and_with_others() -> None:
    width = Spread({(0,): 0.04, (1,): 0.01, (2,): 0.02, (0, 2): 0.03, (0, 1, 2): 0.06}, (5, 5, 75))
    assert width.with_counts(seeds=20).error ** 2 == pytest.approx(0.01 + 0.01 + 0.02 + 0.03 / 4 + 0.06 / 4)
    assert width.with_counts(draws=10).error ** 2 == pytest.approx(0.04 + 0.005 + 0.02 + 0.03 + 0.03)
    assert width.with_counts(clusters=150).error ** 2 == pytest.approx(0.04 + 0.01 + 0.01 + 0.015 + 0.03)
    assert width.with_counts().error == pytest.approx(width.error)
    assert width.with_counts(seeds=50).freedom > width.freedom


def test_resampled_parts_are_those_of_the_rows_repeated() -> None:
    """Weights (2, 0, 1) of three seeds are the layout with the first seed twice, with the freedom of three."""
    y = np.random.default_rng(5).normal(size=(3, 2, 4))
    counts = [np.array([[2, 0, 1]]), np.array([[1, 1]]), np.array([[0, 1, 3, 0]])]
    repeated = np.repeat(np.repeat(y, counts[0][0], axis=0), counts[2][0], axis=2)
    # the sums of squares are taken about the mean of y, and the repeated layout's about its own: both agree
    assert contributions(y, counts)[0] == pytest.approx(contributions(repeated)[0])


def test_intervals_of_components_hold_the_truth() -> None:
    rng = np.random.default_rng(6)
    deviations = {(0,): 0.5, (2,): 1.0, (0, 2): 1.0}
    truth = {"seed": 0.25, "cluster": 1.0, "seed × cluster": 1.0}
    held = dict.fromkeys(truth, 0)
    for _ in range(400):
        for found in components(made(rng, deviations, (6, 1, 30))):
            held[found.name] += found.low <= truth[found.name] <= found.high
    assert all(count / 400 >= 0.92 for count in held.values()), held


def test_the_interval_of_what_varies_with_everything_is_the_chi_squared_one() -> None:
    y = np.random.default_rng(9).normal(size=(4, 1, 6))
    rest = y[:, 0] - y[:, 0].mean(axis=0) - y[:, 0].mean(axis=1, keepdims=True) + y.mean()
    found = next(c for c in components(y, 0.9) if c.name == "seed × cluster")
    assert found.variance == pytest.approx(np.sum(rest**2) / 15)
    assert (found.low, found.high) == pytest.approx(np.sum(rest**2) / chi2.ppf([0.95, 0.05], 15))


def test_the_interval_of_a_main_effect_is_the_modified_large_sample_one_written_out() -> None:
    y = np.random.default_rng(10).normal(size=(4, 1, 6)) + np.arange(4)[:, None, None]
    rows, columns = y[:, 0].mean(axis=1), y[:, 0].mean(axis=0)
    seed = 6 * np.sum((rows - y.mean()) ** 2) / 3
    rest = np.sum((y[:, 0] - rows[:, None] - columns + y.mean()) ** 2) / 15
    found = components(y, 0.9)[0]
    assert found.name == "seed"
    assert found.variance == pytest.approx((seed - rest) / 6)
    shrink = [1 - free / chi2.ppf(0.95, free) for free in (3, 15)]
    stretch = [free / chi2.ppf(0.05, free) - 1 for free in (3, 15)]
    assert found.low == pytest.approx((seed - rest - np.hypot(shrink[0] * seed, stretch[1] * rest)) / 6)
    assert found.high == pytest.approx((seed - rest + np.hypot(stretch[0] * seed, shrink[1] * rest)) / 6)


def test_shares_of_the_components_sum_to_one_and_units_are_counted() -> None:
    y = np.random.default_rng(7).normal(size=(4, 3, 6))
    found = components(y)
    assert sum(c.share for c in found) == pytest.approx(1)
    assert {c.name: c.units for c in found} == {
        name_of(e): int(np.prod([y.shape[level] for level in e])) for e in EFFECTS
    }


def test_a_t_interval_of_three_seeds_knows_its_two_degrees_of_freedom() -> None:
    rng = np.random.default_rng(8)
    held = 0
    for _ in range(1000):
        y = made(rng, {(0,): 1.0, (0, 2): 0.5}, (3, 1, 30))
        width = spread(y)
        held += abs(y.mean()) <= t.ppf(0.975, width.freedom) * width.error
    assert 0.92 <= held / 1000 <= 0.98
