"""Tests by ranks against scipy, statsmodels, scikit-posthocs, published tables, longhand, and simulated nulls."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scikit_posthocs import posthoc_nemenyi_friedman
from scipy import stats
from scipy.special import expit
from statsmodels.api import OLS
from statsmodels.stats.multitest import multipletests

from dual_bench.stats.ranks import cliques, friedman, nemenyi, pairwise_wilcoxon, wilcoxon
from dual_bench.types import FloatArray

seeds = st.integers(0, 2**32 - 1)
steps = st.lists(st.integers(-4, 4), min_size=1, max_size=9).map(lambda values: np.array(values, float))


def table(seed: int, blocks: int = 9, systems: int = 4, ties: bool = False) -> FloatArray:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(blocks, systems)) + 0.7 * np.arange(systems)
    return np.round(scores) if ties else scores


def rejected(p: list[float]) -> float:
    return float(np.mean(np.array(p) < 0.05))


# ------------------------------------------------------------------------------------------------ Wilcoxon


@given(steps)
@settings(max_examples=40)
def test_wilcoxon_counts_the_signs_that_the_differences_could_have_had(differences: FloatArray) -> None:
    ranks = stats.rankdata(np.abs(differences))  # zeros are ranked, and then count on no side
    above, below = ranks[differences > 0].sum(), ranks[differences < 0].sum()
    free = ranks[differences != 0]
    sums = np.array(
        [sum(r for r, up in zip(free, signs, strict=True) if up) for signs in product([0, 1], repeat=len(free))]
    )
    found = wilcoxon(differences)
    assert found.statistic == min(above, below)
    assert found.p == pytest.approx(min(1, 2 * min(np.mean(sums <= above), np.mean(sums >= above))))
    assert found.reason == ""


def test_wilcoxon_of_many_differences_is_normal_and_corrected_for_zeros_ties_and_continuity() -> None:
    differences = np.random.default_rng(0).choice([-2.0, -1, 0, 0, 1, 1, 2, 3], 60)
    n, zeros = len(differences), int(np.sum(differences == 0))
    ranks = stats.rankdata(np.abs(differences))
    above = ranks[differences > 0].sum()
    mean = ranks[differences != 0].sum() / 2
    error = np.sqrt(np.sum(ranks[differences != 0] ** 2) / 4)
    found = wilcoxon(differences)
    assert zeros
    assert n > 50
    assert found.p == pytest.approx(2 * stats.norm.sf((abs(above - mean) - 0.5) / error))


@given(steps, seeds)
@settings(max_examples=20)
def test_wilcoxon_knows_neither_order_nor_side(differences: FloatArray, seed: int) -> None:
    found = wilcoxon(differences)
    for moved in (-differences, np.random.default_rng(seed).permutation(differences)):
        again = wilcoxon(moved)
        assert (again.statistic, again.p) == pytest.approx((found.statistic, found.p))


def test_differences_that_are_all_0_show_none_and_no_differences_or_undefined_ones_have_a_reason() -> None:
    none = wilcoxon(np.zeros(5))
    assert (none.statistic, none.p, none.reason) == (0, 1, "")
    for differences, reason in (([], "there are no differences"), ([1, np.nan, 2], "1 of 3 differences are undefined")):
        found = wilcoxon(np.array(differences))
        assert np.isnan([found.statistic, found.p]).all()
        assert found.reason == reason


@pytest.mark.parametrize(("n", "ties"), [(8, False), (30, False), (30, True)])
def test_wilcoxon_seldom_rejects_equal_systems(n: int, ties: bool) -> None:
    rng = np.random.default_rng(1)
    draws = rng.normal(size=(400, n))
    assert rejected([wilcoxon(np.round(row) if ties else row).p for row in draws]) <= 0.065


# ------------------------------------------------------------------------------------------------ Friedman


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("shape", [(2, 3), (9, 4), (30, 7)])
def test_friedmans_chi_squared_is_that_of_scipy(shape: tuple[int, int], ties: bool) -> None:
    scores = table(2, *shape, ties=ties)
    found, expected = friedman(scores, True), stats.friedmanchisquare(*scores.T)
    assert (found.chi2, found.p_chi2) == pytest.approx((expected.statistic, expected.pvalue))
    assert (found.blocks, found.reason) == (shape[0], "")


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("shape", [(9, 2), (9, 4), (20, 6)])
def test_iman_and_davenports_f_is_that_of_an_analysis_of_variance_of_the_ranks(
    shape: tuple[int, int], ties: bool
) -> None:
    n, k = shape
    scores = table(3, n, k, ties)
    ranks = np.array([[1 + np.sum(row > x) + (np.sum(row == x) - 1) / 2 for x in row] for row in scores])
    blocks, systems = np.kron(np.eye(n), np.ones((k, 1))), np.kron(np.ones((n, 1)), np.eye(k))
    whole, without = OLS(ranks.ravel(), np.hstack([blocks, systems[:, 1:]])).fit(), OLS(ranks.ravel(), blocks).fit()
    f, p, _ = whole.compare_f_test(without)
    found = friedman(scores, True)
    assert found.mean_ranks == pytest.approx(ranks.mean(axis=0))
    assert (found.f, found.p) == pytest.approx((f, p))


def test_rank_1_is_the_highest_score_or_the_lowest_error() -> None:
    scores = np.array([[0.9, 0.5, 0.5], [0.8, 0.7, 0.1]])
    assert friedman(scores, True).mean_ranks.tolist() == [1, 2.25, 2.75]
    assert friedman(scores, False).mean_ranks.tolist() == [3, 1.75, 1.25]


@given(seeds, st.booleans())
@settings(max_examples=30)
def test_friedman_knows_no_order_of_blocks_no_scale_and_only_names_of_systems(seed: int, ties: bool) -> None:
    scores, rng = table(seed, ties=ties), np.random.default_rng(seed)
    found, systems = friedman(scores, True), rng.permutation(4)
    blocks = friedman(expit(rng.permutation(scores, axis=0)), True)
    moved, turned = friedman(scores[:, systems], True), friedman(scores, False)
    assert moved.mean_ranks == pytest.approx(found.mean_ranks[systems])
    assert turned.mean_ranks == pytest.approx(5 - found.mean_ranks)
    assert blocks.mean_ranks == pytest.approx(found.mean_ranks)
    for again in (blocks, moved, turned):
        assert (again.chi2, again.f, again.p) == pytest.approx((found.chi2, found.f, found.p), nan_ok=True)


def test_blocks_that_agree_wholly_have_an_infinite_f() -> None:
    found = friedman(np.tile([0.3, 0.1, 0.2], (6, 1)), True)
    assert (found.chi2, found.f, found.p) == (12, np.inf, 0)
    assert found.mean_ranks.tolist() == [1, 3, 2]


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        (np.ones((1, 3)) * [1, 2, 3], "needs at least 2 blocks and 2 systems, found 1 and 3"),
        (np.arange(4.0)[:, None], "needs at least 2 blocks and 2 systems, found 4 and 1"),
        (np.array([[1.0, 2], [np.nan, 3]]), "1 of 4 scores are undefined"),
        (np.ones((4, 3)), "all systems are tied in every block"),
    ],
)
def test_too_little_to_rank_is_undefined_with_a_reason_in_friedmans_and_nemenyis_test(
    scores: FloatArray, reason: str
) -> None:
    found = friedman(scores, True)
    after = nemenyi(found)
    assert np.isnan([found.chi2, found.p_chi2, found.f, found.p, after.critical_difference]).all()
    assert np.isnan(after.p).all()
    assert after.p.shape == (scores.shape[1],) * 2
    assert found.reason == after.reason == reason


def test_friedman_seldom_rejects_equal_systems() -> None:
    rng = np.random.default_rng(4)
    found = [friedman(rng.normal(size=(12, 4)) + rng.normal(size=(12, 1)), True) for _ in range(400)]
    assert 0.02 <= rejected([one.p for one in found]) <= 0.065
    assert rejected([one.p_chi2 for one in found]) <= 0.065


# ------------------------------------------------------------------------------------- which systems differ


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("systems", [3, 5])
def test_nemenyis_p_is_that_of_scikit_posthocs(systems: int, ties: bool) -> None:
    scores = table(5, 8, systems, ties)
    found = nemenyi(friedman(scores, True))
    assert found.p == pytest.approx(posthoc_nemenyi_friedman(scores).to_numpy(), abs=1e-9)


@pytest.mark.parametrize(
    ("systems", "alpha", "q"),
    [(2, 0.05, 1.960), (3, 0.05, 2.343), (4, 0.05, 2.569), (10, 0.05, 3.164), (4, 0.1, 2.291), (10, 0.1, 2.920)],
)
def test_the_critical_difference_is_that_of_demsars_table(systems: int, alpha: float, q: float) -> None:
    # Demšar (2006), table 5 (a); his own example, 4 systems on 14 data sets, has 1.25
    found = nemenyi(friedman(table(6, 14, systems), True), alpha)
    assert found.critical_difference == pytest.approx(q * np.sqrt(systems * (systems + 1) / (6 * 14)), rel=5e-4)
    if (systems, alpha) == (4, 0.05):
        assert round(found.critical_difference, 2) == 1.25


@given(seeds)
@settings(max_examples=30)
def test_a_pair_is_significant_where_its_mean_ranks_lie_a_critical_difference_apart(seed: int) -> None:
    scores = table(seed)
    ranking = friedman(scores, True)
    found = nemenyi(ranking)
    gaps = np.abs(ranking.mean_ranks[:, None] - ranking.mean_ranks)
    assert ((found.p <= 0.05) == (gaps >= found.critical_difference)).all()
    assert (found.p == found.p.T).all()
    assert (np.diagonal(found.p) == 1).all()


def test_pairwise_wilcoxon_is_scipys_corrected_by_the_holm_of_statsmodels() -> None:
    scores = table(7, 12, 4)
    found = pairwise_wilcoxon(scores)
    pairs = list(combinations(range(4), 2))
    plain = [stats.wilcoxon(scores[:, i], scores[:, j]).pvalue for i, j in pairs]
    adjusted = multipletests(plain, method="holm")[1]
    for (i, j), p, q in zip(pairs, plain, adjusted, strict=True):
        assert found.p[i, j] == found.p[j, i] == pytest.approx(p)
        assert found.p_adjusted[i, j] == found.p_adjusted[j, i] == pytest.approx(q)
    assert (np.diagonal(found.p_adjusted) == 1).all()
    assert (found.p_adjusted > found.p).any()
    assert found.reason == ""


@given(seeds)
@settings(max_examples=10)
def test_pairwise_wilcoxon_knows_neither_the_order_of_blocks_nor_of_systems(seed: int) -> None:
    scores, rng = table(seed), np.random.default_rng(seed)
    order = rng.permutation(4)
    found, moved = pairwise_wilcoxon(scores), pairwise_wilcoxon(rng.permutation(scores, axis=0)[:, order])
    assert moved.p == pytest.approx(found.p[np.ix_(order, order)])
    assert moved.p_adjusted == pytest.approx(found.p_adjusted[np.ix_(order, order)])


def test_a_pair_with_an_undefined_score_is_undefined_and_counts_for_nothing() -> None:
    scores = table(8, 10, 4)
    scores[3, 2] = np.nan
    found, without = pairwise_wilcoxon(scores), pairwise_wilcoxon(scores[:, [0, 1, 3]])
    assert np.isnan(found.p[2, [0, 1, 3]]).all()
    assert found.p_adjusted[np.ix_([0, 1, 3], [0, 1, 3])] == pytest.approx(without.p_adjusted)
    assert found.reason == "1 of 10 differences are undefined"


@given(
    st.lists(st.integers(2, 14).map(lambda half: half / 2), min_size=0, max_size=7),
    st.sampled_from([0.0, 0.5, 1.2, 3.0]),
)
def test_cliques_are_the_largest_groups_within_a_critical_difference(ranks: list[float], difference: float) -> None:
    places = range(len(ranks))
    together = [
        set(group)
        for size in range(2, len(ranks) + 1)
        for group in combinations(places, size)
        if max(ranks[i] for i in group) - min(ranks[i] for i in group) < difference
    ]
    found = cliques(np.array(ranks), difference)
    expected = [group for group in together if not any(group < other for other in together)]
    assert sorted(map(sorted, found)) == sorted(map(sorted, expected))
    for group in found:
        assert [ranks[i] for i in group] == sorted(ranks[i] for i in group)
    best = [min(ranks[i] for i in group) for group in found]
    assert best == sorted(best)


def test_an_undefined_ranking_has_no_cliques() -> None:
    assert cliques(np.full(3, np.nan), np.nan) == cliques(np.arange(3.0), np.nan) == []
