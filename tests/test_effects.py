"""Effects of an ablation: against longhand, ordinary least squares, and a null that is simulated."""

from __future__ import annotations

import gc
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from dual_bench.metrics import ACCURACY, MAE, Metric
from dual_bench.schema import ComparisonInfo, Expected, StudyInfo, Term
from dual_bench.seeding import generator
from dual_bench.stats.contrasts import detectable, holm, needed, p_value
from dual_bench.stats.curves import point
from dual_bench.stats.effects import Effect, by_size, effects, p_equivalence, verdict_on
from dual_bench.stats.frame import Cube, Key
from dual_bench.stats.resampling import resample
from dual_bench.stats.variance import Spread
from dual_bench.types import FloatArray

BASE = "dual"
RATES = (0.5, 1.0)


def against(system: str, expected: Expected = "loss") -> ComparisonInfo:
    terms = (Term(weight=1, system=system, regime="clean"), Term(weight=-1, system=BASE, regime="clean"))
    return ComparisonInfo(name=system, kind="variant", regime="clean", expected=expected, terms=terms)


def study_of(*comparisons: ComparisonInfo, margin: float = 0.02, primary: tuple[str, ...] = ("clean",)) -> StudyInfo:
    return StudyInfo(
        where="here", digest="d", replaced={}, margin=margin, primary=primary, baseline=BASE, titles={},
        comparisons=comparisons,
    )  # fmt: skip


def cube_of(right: dict[str, FloatArray], metric: Metric = ACCURACY) -> Cube:
    """``right[system]`` (conditions, S, D, C, u): for each utterance whether the answer is right (or its error); the
    conditions are clean (first draw alone) and word-drop at the last of ``RATES``."""
    sums = {}
    for system, hits in right.items():
        totals = np.stack([hits.sum(axis=-1), np.full(hits.shape[:-1], hits.shape[-1], float)], axis=-1)
        sums[Key(system, "clean", "clean", 0.0)] = totals[0][:, :1]
        for rate, one in zip(RATES[-len(totals) + 1 :], totals[1:], strict=True):
            sums[Key(system, "clean", "word-drop", rate)] = one
    first = next(iter(right.values()))
    _, seeds, _, clusters, each = first.shape
    names = tuple(f"c{i:03}" for i in range(clusters))
    return Cube(metric, sums, tuple(range(seeds)), names, clusters * each, ())


def drawn(
    rng: np.random.Generator, skill: float, seeds: int = 5, draws: int = 3, clusters: int = 40, each: int = 6,
    shared: FloatArray | None = None, luck: float = 0.03, conditions: int = 3,
) -> FloatArray:  # fmt: skip
    """Answers of one system: clusters that are hard for all (``shared``), seeds that are lucky, the rest by chance."""
    hard = np.zeros(clusters) if shared is None else shared
    seed = rng.normal(0, luck, (conditions, seeds, 1, 1, 1))
    own = rng.normal(0, 0.05, (1, seeds, 1, clusters, 1))
    chance = np.clip(skill + seed + own + hard[:, None], 0, 1)
    return (rng.random((conditions, seeds, draws, clusters, each)) < chance).astype(float)


def judged(
    right: dict[str, FloatArray], study: StudyInfo, resamples: int = 2000, metric: object = ACCURACY
) -> list[Effect]:
    cube = cube_of(right, metric)
    rng = generator("bootstrap of a test")
    weights = resample(rng, len(cube.seeds), cube.draws, len(cube.clusters), resamples)
    return list(effects(cube, study, weights))


@pytest.fixture(scope="module")
def found() -> list[Effect]:
    rng = generator("effects")
    shared = rng.normal(0, 0.1, 40)
    base = drawn(rng, 0.8, shared=shared)
    right = {
        BASE: base,
        "worse": drawn(rng, 0.55, shared=shared),
        "same": base,
        "better": drawn(rng, 0.97, shared=shared),
    }
    study = study_of(against("worse"), against("same"), against("better"), primary=("clean", "word-drop area"))
    return judged(right, study)


def of(found: list[Effect], name: str, quantity: str) -> Effect:
    (one,) = [e for e in found if (e.comparison.name, e.quantity) == (name, quantity)]
    return one


def test_every_comparison_has_an_effect_under_every_quantity(found: list[Effect]) -> None:
    names = {(e.comparison.name, e.quantity) for e in found}
    quantities = {"clean", "word-drop area", "word-drop 0.5", "word-drop 1.0"}
    assert names == set(product(("worse", "same", "better"), quantities))
    assert {e.quantity for e in found if e.primary} == {"clean", "word-drop area"}


def test_verdicts_follow_what_was_planted(found: list[Effect]) -> None:
    for quantity in ("clean", "word-drop area"):
        assert of(found, "worse", quantity).verdict == "supported"
        assert of(found, "better", quantity).verdict == "contradicted"
        same = of(found, "same", quantity)
        assert (same.verdict, same.identical, same.estimate) == ("equivalent", True, 0.0)
        assert same.interval.low == same.interval.high == 0


def test_each_family_is_corrected_by_itself(found: list[Effect]) -> None:
    for primary in (True, False):
        family = [e for e in found if e.primary == primary]
        assert f"Holm over {len(family)} " in family[0].family
        np.testing.assert_allclose(
            [e.p_adjusted for e in family], multipletests([e.p for e in family], method="holm")[1]
        )
        np.testing.assert_allclose(
            [e.p_equivalence_adjusted for e in family],
            multipletests([e.p_equivalence for e in family], method="holm")[1],
        )


def test_every_number_of_an_effect_is_that_of_the_difference_of_its_sides() -> None:
    rng = generator("longhand effects")
    base = drawn(rng, 0.6, seeds=3, draws=1, clusters=8, conditions=2)
    other = drawn(rng, 0.5, seeds=3, draws=1, clusters=8, conditions=2)
    turned = base[:, :, :, ::-1]  # as often right, elsewhere
    comparisons = [against(name, expected) for name, expected in (("other", "loss"), ("turned", "none"))]
    study = study_of(*comparisons, against("same"), margin=0.05)
    cube = cube_of({BASE: base, "other": other, "turned": turned, "same": base})
    weights = resample(generator("w"), 3, 1, 8, 200)
    found = {e.comparison.name: e for e in effects(cube, study, weights) if e.quantity == "clean"}

    sides = {name: point(cube, Key(name, "clean", "clean", 0.0), weights) for name in (BASE, *found)}
    adjusted = holm([e.p for e in found.values()])
    for (name, effect), p in zip(found.items(), adjusted, strict=True):
        difference = sides[name] - sides[BASE]
        assert effect.estimate == pytest.approx(difference.estimate, abs=1e-12)
        excused = 0.05 if name == "turned" else 0.0
        assert effect.p == pytest.approx(p_value(difference.estimate, difference.spread, excused))
        assert effect.p_equivalence == pytest.approx(p_equivalence(difference.estimate, difference.spread, 0.05))
        assert effect.detectable == pytest.approx(detectable(difference.spread))
        assert effect.p_adjusted == pytest.approx(p)
    assert {name: effect.identical for name, effect in found.items()} == {"other": False, "turned": False, "same": True}
    assert found["turned"].estimate == 0


def test_the_area_is_that_of_the_difference_curve(found: list[Effect]) -> None:
    clean, half, whole = (of(found, "worse", q).estimate for q in ("clean", "word-drop 0.5", "word-drop 1.0"))
    assert of(found, "worse", "word-drop area").estimate == pytest.approx((clean + 2 * half + whole) / 4)


def test_a_lower_metric_is_better_where_the_metric_says_so() -> None:
    rng = generator("errors")
    base = np.abs(rng.normal(0.5, 0.1, (3, 5, 3, 40, 6)))
    (effect, *_) = judged(
        {BASE: base, "wild": base + rng.normal(0.3, 0.05, base.shape)}, study_of(against("wild")), metric=MAE
    )
    assert effect.estimate == pytest.approx(0.3, abs=0.01)
    assert effect.gain == -effect.estimate
    assert effect.verdict == "supported"


def test_factorial_effects_are_those_of_least_squares_on_all_cells() -> None:
    """y on coded columns -1 (part on) and 1 (off): twice the coefficient is the effect."""
    rng = generator("factorial")
    parts = ("A", "B", "C")
    cells = list(product((-1, 1), repeat=3))
    skill = {c: 0.7 - 0.08 * c[0] + 0.02 * c[1] - 0.03 * c[0] * c[1] for c in cells}
    names = {c: BASE if c == (-1, -1, -1) else f"{BASE}:{c}" for c in cells}
    right = {names[c]: drawn(rng, skill[c]) for c in cells}
    columns = {(p,): [c[i] for c in cells] for i, p in enumerate(parts)}
    columns |= {("A", "B"): [c[0] * c[1] for c in cells]}
    comparisons = [
        ComparisonInfo(
            name=" x ".join(key), kind="main effect" if len(key) == 1 else "interaction", regime="clean",
            expected="loss",
            terms=tuple(
                Term(weight=sign * 2 / len(cells), system=names[c], regime="clean")
                for c, sign in zip(cells, signs, strict=True)
            ),
        )
        for key, signs in columns.items()
    ]  # fmt: skip
    found = judged(right, study_of(*comparisons))
    means = np.array([right[names[c]][0][:, :1].mean() for c in cells])
    design = np.column_stack([np.ones(8), *columns.values()])
    coefficients = np.linalg.lstsq(design, means)[0]
    for effect, coefficient in zip((e for e in found if e.quantity == "clean"), coefficients[1:], strict=True):
        assert effect.estimate == pytest.approx(2 * coefficient)
    assert of(found, "A", "clean").verdict == "supported"


def test_two_one_sided_tests_are_those_of_scipy() -> None:
    """On n paired differences the larger p of ttest_1samp against -margin and +margin."""
    d = generator("tost").normal(0.004, 0.02, 30)
    width = Spread({(2,): float(d.var(ddof=1) / 30)}, (1, 1, 30))
    above = stats.ttest_1samp(d, -0.02, alternative="greater").pvalue
    below = stats.ttest_1samp(d, 0.02, alternative="less").pvalue
    assert p_equivalence(float(d.mean()), width, 0.02) == pytest.approx(max(above, below))


@given(st.floats(-0.1, 0.1), st.floats(0, 1), st.floats(0, 1), st.sampled_from(["loss", "gain"]))
def test_a_verdict_turns_with_the_expectation_and_never_both_ways(
    gain: float, p: float, q: float, expected: Expected
) -> None:
    other: Expected = "gain" if expected == "loss" else "loss"
    one, two = verdict_on(expected, gain, p, q), verdict_on(other, gain, p, q)
    swapped = {"supported": "contradicted", "contradicted": "supported"}
    assert two == swapped.get(one, one)
    assert verdict_on(expected, -gain, p, q) == swapped.get(one, one)


def test_a_difference_that_may_lie_within_the_margin_does_not_contradict_that_none_matters() -> None:
    """Margin 0.02: a difference of 0.012 that is certain to be there, and one of 0.06."""
    width = Spread({(2,): 0.003**2}, (1, 1, 51))
    assert p_value(0.012, width) < 0.001
    assert p_value(0.012, width, 0.02) > 0.9
    assert p_value(0.06, width, 0.02) < 0.001
    assert p_value(0.03, width, 0.0) == pytest.approx(2 * stats.t.sf(10, 50))


def test_what_is_not_expected_to_matter_is_supported_by_equivalence_and_contradicted_by_a_difference() -> None:
    assert verdict_on("none", 0.001, 0.5, 0.01) == "supported"
    assert verdict_on("none", 0.05, 0.01, 0.9) == verdict_on("none", -0.05, 0.01, 0.9) == "contradicted"
    assert verdict_on("none", 0.05, 0.3, 0.3) == "undecided"
    assert verdict_on("loss", -0.05, float("nan"), float("nan")) == "undefined"


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(0, 12))
def test_holm_is_that_of_statsmodels_and_undefined_p_values_count_for_nothing(p: list[float], where: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "collect", lambda: 0)  # statsmodels asks for it each time, and it takes half a second
        adjusted = multipletests(p, method="holm")[1]
    np.testing.assert_allclose(holm(p), adjusted)
    place = min(where, len(p))
    np.testing.assert_allclose(np.delete(holm([*p[:place], np.nan, *p[place:]]), place), adjusted)


@given(st.floats(-0.05, 0.05), st.floats(1e-6, 1e-3), st.floats(0, 1e-4), st.integers(1, 60))
def test_as_many_seeds_or_clusters_as_are_needed_decide_and_one_less_does_not(
    estimate: float, seeds_part: float, clusters_part: float, tests: int
) -> None:
    width = Spread({(0,): seeds_part, (2,): clusters_part}, (5, 5, 75))

    def decides(then: Spread) -> bool:
        return min(p_value(estimate, then), p_equivalence(estimate, then, 0.02)) * tests < 0.05

    for level, found, most, have in zip(
        ("seeds", "clusters"), needed(decides, width), (1_000, 100_000), (5, 75), strict=True
    ):
        if found is None:
            assert not decides(width.with_counts(**{level: most}))
        else:
            assert have < found <= most
            assert decides(width.with_counts(**{level: found}))
            assert found == have + 1 or not decides(width.with_counts(**{level: found - 1}))


def test_the_worst_loss_comes_first(found: list[Effect]) -> None:
    assert [c.name for c in by_size(found)] == ["worse", "same", "better"]


def test_a_system_without_cells_leaves_its_comparison_undefined_and_the_others_whole() -> None:
    rng = generator("absent")
    right = {BASE: drawn(rng, 0.8), "worse": drawn(rng, 0.5)}
    found = judged(right, study_of(against("worse"), against("gone")))
    gone = of(found, "gone", "clean")
    assert (gone.verdict, gone.interval.reason) == ("undefined", "'gone' has no finished cell")
    assert of(found, "worse", "clean").verdict == "supported"
    assert "Holm over 1 hypotheses" in gone.family


def test_one_seed_decides_nothing() -> None:
    rng = generator("lone")
    right = {BASE: drawn(rng, 0.9, seeds=1), "worse": drawn(rng, 0.2, seeds=1)}
    assert {e.verdict for e in judged(right, study_of(against("worse")))} == {"undefined"}


def null_ablation(number: int) -> list[Effect]:
    """Two variants that equal the baseline in distribution: other luck of the seeds, the same clusters and skill."""
    rng = generator("null", number)
    luck = float(rng.choice([0.0, 0.02, 0.06]))
    shared = rng.normal(0, 0.12, 40)
    right = {name: drawn(rng, 0.7, shared=shared, luck=luck, conditions=2) for name in (BASE, "one", "two")}
    study = study_of(against("one"), against("two"), primary=("clean", "word-drop 1.0"))
    return judged(right, study, resamples=500)


def test_of_200_ablations_of_nothing_at_most_7_percent_claim_anything() -> None:
    """A claim is any hypothesis of an ablation that comes out as supported or contradicted."""
    claims = sum(
        any(effect.verdict in ("supported", "contradicted") for effect in null_ablation(number))
        for number in range(200)
    )
    assert claims <= 14


@pytest.mark.parametrize("count", [10, 30, 100])
def test_the_detectable_difference_is_that_of_statsmodels_power_but_for_the_noncentral_t(count: int) -> None:
    """In units of the standard deviation of paired differences, at power 0.8 and two-sided 0.05."""
    width = Spread({(2,): 1 / count}, (1, 1, count))
    exact = TTestPower().solve_power(nobs=count, alpha=0.05, power=0.8, alternative="two-sided")
    assert detectable(width) == pytest.approx(exact, rel=0.02)
