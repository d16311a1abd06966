"""What each modality is worth: against the mean over orders, the perfect perceiver, and models whose truth is known."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dual_bench.bounds import ceilings
from dual_bench.datasets.synthetic import CONFUSION, PRIOR, Settings, ceiling, draw, load
from dual_bench.metrics import ACCURACY, MAE
from dual_bench.stats.dependency import GAME, Dependence, ceiling_game, dependency, shapley
from dual_bench.stats.frame import Cube, Key, cube
from dual_bench.stats.resampling import estimate, resample
from dual_bench.types import CLEAN, MODALITIES, FloatArray, Modality

DRAWS = 3
games = st.lists(st.floats(-2, 2), min_size=8, max_size=8).map(lambda v: dict(zip(GAME, v, strict=True)))


@given(games)
def test_shapley_values_sum_to_what_all_are_worth_over_none(values: dict[frozenset[Modality], float]) -> None:
    total = values[frozenset(MODALITIES)] - values[frozenset()]
    assert sum(shapley(values).values()) == pytest.approx(total, abs=1e-12)


@given(games)
def test_a_shapley_value_is_the_mean_over_all_orders_of_what_a_modality_adds(
    values: dict[frozenset[Modality], float],
) -> None:
    added = {m: [] for m in MODALITIES}
    for order in permutations(MODALITIES):
        for i, m in enumerate(order):
            added[m].append(values[frozenset(order[: i + 1])] - values[frozenset(order[:i])])
    for m, found in shapley(values).items():
        assert found == pytest.approx(np.mean(added[m]), abs=1e-12)


def test_the_game_of_the_perfect_perceiver_is_its_exact_accuracy() -> None:
    corpus = load(None, utterances=24)
    game = ceiling_game(ceilings(corpus, (CLEAN,)))
    assert game == {s: ceiling(s, "clean", 0.0) for s in GAME}
    assert game[frozenset()] == pytest.approx(max(PRIOR))
    assert ceiling_game([]) == {}


# ------------------------------------------------------------------------------------- the perfect perceiver


def bayes(seen: dict[Modality, np.ndarray], n: int) -> FloatArray:
    """Posterior (n, K) of a perceiver that sees what some modalities express."""
    joint = np.tile(PRIOR, (n, 1))
    for modality, expressed in seen.items():
        joint = joint * CONFUSION[modality][:, expressed].T
    return joint / joint.sum(axis=1, keepdims=True)


def oracle_rows(utterances: int, seeds: int = 2) -> pd.DataFrame:
    """Prediction rows of the perfect perceiver with every subset of modalities absent; seeds are all alike."""
    latent = draw(Settings(utterances=utterances))
    k = len(PRIOR)
    tables = []
    for subset in GAME:
        scores = bayes({m: latent.expressed[m] for m in subset}, utterances)
        gone = "+".join(m for m in MODALITIES if m not in subset)
        facts = {
            "model": "oracle", "variant": "", "regime": "clean", "corruption": f"absent:{gone}" if gone else "clean",
            "rate": float(bool(gone)), "draw": 0, "truth": latent.truth.astype(float),
            "utterance": [f"u{i:05}" for i in range(utterances)],
            "cluster": [f"d{i // 8:05}" for i in range(utterances)],
        }  # fmt: skip
        tables += [
            pd.DataFrame({**facts, "seed": s, **{f"score_{i}": scores[:, i] for i in range(k)}}) for s in range(seeds)
        ]
    return pd.concat(tables, ignore_index=True)


def measured(rows: pd.DataFrame, points: object = ()) -> dict[tuple[str, str, str], Dependence]:
    probes = cube(rows, ACCURACY)
    weights = resample(np.random.default_rng(0), len(probes.seeds), probes.draws, len(probes.clusters), 300)
    return {(d.measure, d.modality, d.reading): d for d in dependency(probes, weights, points)}


def test_for_the_perfect_perceiver_they_equal_the_analytic_ones_and_there_is_no_excess() -> None:
    """On 8,000 utterances the Bayes classifier's values lie within sampling of those worked out from the channels."""
    points = ceilings(load(None, utterances=24), (CLEAN,))
    found = measured(oracle_rows(8_000), points)
    analytic = shapley(ceiling_game(points))
    for m in MODALITIES:
        one = found["shapley", m, "absent"].estimate
        assert one.value == pytest.approx(analytic[m], abs=0.01)
        assert one.interval.low <= analytic[m] <= one.interval.high
        excess = found["excess", m, "absent"].estimate
        assert excess.value == pytest.approx(one.value - analytic[m])
        assert excess.interval.low <= 0 <= excess.interval.high


def test_exactly_over_all_that_can_be_expressed_the_perceivers_values_are_the_analytic_ones() -> None:
    """Every combination of truth and expressions, weighted by its probability, instead of a sample."""
    k = len(PRIOR)
    y, a, v, t = (part.ravel() for part in np.meshgrid(*[np.arange(k)] * 4, indexing="ij"))
    weight = PRIOR[y] * CONFUSION["audio"][y, a] * CONFUSION["vision"][y, v] * CONFUSION["text"][y, t]
    expressed: dict[Modality, np.ndarray] = {"audio": a, "vision": v, "text": t}
    game = {s: float(weight[bayes({m: expressed[m] for m in s}, len(y)).argmax(axis=1) == y].sum()) for s in GAME}
    exact = shapley({s: ceiling(s, "clean", 0.0) for s in GAME})
    assert shapley(game) == pytest.approx(exact, abs=1e-12)


# ---------------------------------------------------------------------------------------- made probes


def made(values: dict[str, float], metric: object = ACCURACY, noise: float = 0.0) -> Cube:
    """A cube whose metric under each condition is as given, in every seed, draw and cluster but for ``noise``."""
    rng = np.random.default_rng(1)
    sums = {}
    for corruption, value in values.items():
        draws = DRAWS if corruption.startswith("permuted") else 1
        heights = value + noise * rng.normal(size=(4, draws, 20))
        key = Key("dual", "clean", corruption, 0.0 if corruption == "clean" else 1.0)
        sums[key] = np.stack([heights, np.ones_like(heights)], axis=-1)
    return Cube(metric, sums, (0, 1, 2, 3), tuple(map(str, range(20))), 20, ())


GAME_VALUES = {
    "clean": 0.9, "absent:audio": 0.8, "absent:vision": 0.7, "absent:text": 0.6, "absent:audio+vision": 0.65,
    "absent:audio+text": 0.5, "absent:vision+text": 0.45, "absent:audio+vision+text": 0.3,
}  # fmt: skip
OTHERS = {name.replace("absent", "permuted"): value - 0.05 for name, value in GAME_VALUES.items() if name != "clean"}


def found_in(values: dict[str, float], metric: object = ACCURACY) -> dict[tuple[str, str, str], float]:
    probes = made(values, metric)
    weights = resample(np.random.default_rng(2), 4, DRAWS, 20, 50)
    return {(d.measure, d.modality, d.reading): d.estimate.value for d in dependency(probes, weights)}


def test_every_measure_is_its_definition() -> None:
    found = found_in(GAME_VALUES | OTHERS | {"additive": 0.87})
    text = (0.9 - 0.6) / 3 + (0.8 - 0.5) / 6 + (0.7 - 0.45) / 6 + (0.65 - 0.3) / 3
    assert found["shapley", "text", "absent"] == pytest.approx(text)
    assert found["total", "", "absent"] == pytest.approx(0.6)
    assert found["share", "text", "absent"] == pytest.approx(text / 0.6)
    assert found["conditional utilisation", "text", "absent"] == pytest.approx((0.9 - 0.6) / 0.9)
    assert found["perceptual score", "text", "permuted"] == pytest.approx(0.9 - 0.55)
    assert found["emap gap", "", ""] == pytest.approx(0.03)
    total = sum(found["shapley", m, "permuted"] for m in MODALITIES)
    assert total == pytest.approx(found["total", "", "permuted"], abs=1e-12)
    assert not any(measure == "excess" for measure, _, _ in found)


def test_where_lower_is_better_a_modality_that_lowers_the_error_is_worth_something() -> None:
    found = found_in({name: 1.5 - value for name, value in (GAME_VALUES | OTHERS).items()}, MAE)
    better = found_in(GAME_VALUES | OTHERS)
    for key, value in found.items():
        if key[0] != "conditional utilisation":
            assert value == pytest.approx(better[key]), key
    assert not any(measure == "conditional utilisation" for measure, _, _ in found)


def test_what_a_frame_lacks_is_left_out() -> None:
    assert found_in({"clean": 0.9}) == {}
    found = found_in({"clean": 0.9, "absent:text": 0.6, "permuted:text": 0.5})
    assert set(found) == {("conditional utilisation", "text", "absent"), ("perceptual score", "text", "permuted")}
    assert found_in({"absent:text": 0.6}) == {}


def test_a_model_that_all_modalities_do_not_help_has_no_shares_and_says_why() -> None:
    probes = made(dict.fromkeys(GAME_VALUES, 0.4))
    weights = resample(np.random.default_rng(3), 4, DRAWS, 20, 50)
    shares = [d.estimate for d in dependency(probes, weights) if d.measure == "share"]
    assert len(shares) == 3
    for share in shares:
        assert np.isnan(share.value)
        assert "no better than none" in share.interval.reason


def test_intervals_are_paired_so_that_what_is_common_to_all_subsets_cancels() -> None:
    rng = np.random.default_rng(4)
    common = 0.2 * rng.normal(size=(4, 1, 20))
    sums = {
        key: np.stack([s[..., 0] + common, s[..., 1]], axis=-1)
        for key, s in made(GAME_VALUES, noise=0.001).sums.items()
    }
    probes = Cube(ACCURACY, sums, (0, 1, 2, 3), tuple(map(str, range(20))), 20, ())
    weights = resample(rng, 4, 1, 20, 200)
    for d in dependency(probes, weights):
        if d.measure == "shapley":
            assert d.estimate.interval.high - d.estimate.interval.low < 0.01
    clean = sums[Key("dual", "clean", "clean", 0.0)]
    assert clean[..., 0].std() > 0.1
    assert estimate(clean, ACCURACY.value) == pytest.approx(0.9, abs=0.1)
