"""From prediction rows to cubes, curves and contrasts; ``test_resampling`` covers the bootstrap itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy.stats import kendalltau

from dual_bench.catalog import METRICS
from dual_bench.confidence import BRIER
from dual_bench.metrics import ACC2_NON0, ACCURACY, MAE, PEARSON_R, UAR, WEIGHTED_F1, Metric
from dual_bench.schema import MEASURED, PREDICTION_COLUMNS
from dual_bench.stats import curves
from dual_bench.stats.contrasts import Contrast, compare
from dual_bench.stats.frame import Cube, Key, Summing, cube, summed
from dual_bench.stats.intervals import Interval, t_interval
from dual_bench.stats.resampling import Point, Weights, combined, estimate, point_of, replicates, resample
from dual_bench.store import prediction_table
from dual_bench.types import CLEAN, Condition, FloatArray, UserError, Utterance

CONDITIONS = [
    CLEAN,
    *(Condition("word-drop", rate, draw) for rate in (0.2, 1.0) for draw in (0, 1)),
    Condition("transcript:asr", 1.0),
]
KEYS = [("clean", 0.0), ("word-drop", 0.2), ("word-drop", 1.0), ("transcript:asr", 1.0)]
N, K = 40, 3


def predictions(
    skill: dict[str, float],
    seeds: int = 3,
    clusters: int = 8,
    regimes: Sequence[str] = ("clean",),
    values: bool = False,
) -> pd.DataFrame:
    """Rows as a run stores them: the share ``skill`` of a system's scores is the truth, the rest is noise."""
    rng = np.random.default_rng(7)
    target = rng.normal(0, 2, N) if values else rng.integers(0, K, N).astype(float)
    utterances = [
        Utterance(f"u{i:02d}", "test", f"dialogue {i % clusters}", "s", "words", y) for i, y in enumerate(target)
    ]
    measured = pd.DataFrame({name: np.zeros(len(CONDITIONS) * N) for name in MEASURED})
    right = target[:, None] if values else np.eye(K)[target.astype(int)]
    tables = []
    for system, share in skill.items():
        model, _, variant = system.partition(":")
        for regime in regimes:
            for seed in range(seeds):
                noise = rng.normal(0, 1, (len(CONDITIONS), *right.shape))
                cell: dict[str, str | int] = {"cell": f"{system} {regime} {seed}", "model": model, "variant": variant}
                cell |= {"regime": regime, "seed": seed, "fold": "official"}
                scores = share * right + (1 - share) * noise
                tables.append(prediction_table(cell, CONDITIONS, utterances, scores, measured))
    return pa.concat_tables(tables).unify_dictionaries().to_pandas()


def plain(frame: pd.DataFrame) -> pd.DataFrame:
    """The same rows with ordinary strings, so that a test can write into them."""
    return frame.astype({name: str for name in frame.columns if isinstance(frame[name].dtype, pd.CategoricalDtype)})


def bootstrap(of: Cube, resamples: int = 400) -> Weights:
    return resample(np.random.default_rng(5), len(of.seeds), of.draws, len(of.clusters), resamples)


def direct(frame: pd.DataFrame, metric: Metric) -> float:
    scores = frame[[name for name in frame.columns if name.startswith("score_")]].to_numpy()
    return metric(frame["truth"].to_numpy(), scores)


def same(left: Cube, right: Cube) -> bool:
    return (
        replace(left, sums={}) == replace(right, sums={})
        and left.sums.keys() == right.sums.keys()
        and all(np.array_equal(left.sums[key], right.sums[key]) for key in left.sums)
    )


# ------------------------------------------------------------------------------------------------ frame


def test_the_builder_writes_the_columns_of_the_store() -> None:
    assert list(predictions({"dual": 1}).columns)[:-K] == list(PREDICTION_COLUMNS)


@pytest.mark.parametrize("name", METRICS.entries)
def test_an_estimate_is_the_mean_over_seeds_and_draws_of_the_metric_over_the_rows(name: str) -> None:
    metric: Metric = METRICS.load(name)
    frame = predictions({"dual": 0.6, "concat": 0.4}, values=metric.task == "regression")
    found = cube(frame, metric)
    for system in ("dual", "concat"):
        for corruption, rate in KEYS:
            rows = frame[(frame["model"] == system) & (frame["corruption"] == corruption) & (frame["rate"] == rate)]
            parts = [direct(part, metric) for _, part in rows.groupby(["seed", "draw"])]
            sums = found.sums[Key(system, "clean", corruption, rate)]
            assert len(parts) == sums.shape[0] * sums.shape[1] == 3 * (2 if corruption == "word-drop" else 1)
            assert estimate(sums, metric.value) == pytest.approx(np.mean(parts))


def test_each_cell_of_a_cube_sums_the_utterances_of_one_cluster() -> None:
    frame = predictions({"dual": 0.5})
    found = cube(frame, MAE)
    sums = found.sums[Key("dual", "clean", "word-drop", 0.2)]
    assert sums.shape == (3, 2, 8, 2)
    rows = frame[(frame["corruption"] == "word-drop") & (frame["rate"] == 0.2)]
    for (seed, draw, cluster), part in rows.groupby(["seed", "draw", "cluster"], observed=True):
        error = (part["score_0"] - part["truth"]).abs().sum()
        place = (found.seeds.index(seed), draw, found.clusters.index(cluster))
        assert sums[place].tolist() == pytest.approx([error, len(part)])


def test_a_cube_names_its_axes() -> None:
    found = cube(predictions({"dual": 1, "dual:sdm=off": 1, "concat": 1}, regimes=("mixed", "clean")), ACCURACY)
    assert found.systems() == ("dual", "dual:sdm=off", "concat")
    assert found.regimes() == ("mixed", "clean")
    assert found.corruptions() == ("transcript:asr", "word-drop")
    assert found.rates("word-drop") == (0.2, 1.0)
    assert found.seeds == (0, 1, 2)
    assert found.clusters == tuple(f"dialogue {i}" for i in range(8))
    assert (found.draws, found.utterances, found.skipped) == (2, N, ())


def test_the_order_of_rows_and_of_categories_changes_no_bit() -> None:
    frame = predictions({"dual": 0.5}, values=True)
    shuffled = frame.sample(frac=1, random_state=1)
    for name in ("utterance", "cluster", "corruption"):
        shuffled[name] = shuffled[name].cat.reorder_categories(frame[name].cat.categories[::-1])
    assert not frame["utterance"].equals(shuffled["utterance"].reset_index(drop=True))
    assert same(cube(frame, MAE), cube(shuffled, MAE))
    assert same(cube(frame, MAE), cube(plain(frame), MAE))


def test_folds_of_a_seed_are_pooled() -> None:
    whole = plain(predictions({"dual": 0.5, "concat": 0.3}))
    folds = whole.assign(fold=np.where(whole["utterance"] < "u15", "first", "second"))
    assert same(cube(whole, WEIGHTED_F1), cube(folds.sort_values("fold"), WEIGHTED_F1))


def test_a_seed_that_one_system_lacks_rows_of_is_left_out_everywhere_and_named() -> None:
    frame = predictions({"dual": 0.5, "concat:width=8": 0.5})
    lost = (frame["model"] == "concat") & (frame["seed"] == 1) & (frame["utterance"] == "u03") & (frame["draw"] == 1)
    found = cube(frame[~lost], ACCURACY)
    assert found.seeds == (0, 2)
    total = N * len(CONDITIONS)
    assert found.skipped == (
        f"training seed 1 is left out: concat:width=8 (clean) has {total - 2} of {total} predictions",
    )
    assert same(replace(found, skipped=()), cube(frame[frame["seed"] != 1], ACCURACY))


def test_no_complete_seed_is_the_users_error() -> None:
    frame = predictions({"dual": 0.5, "concat": 0.5}, seeds=1)
    with pytest.raises(UserError, match=r"no training seed.*concat \(clean\) has 239 of 240 predictions"):
        cube(frame.iloc[:-1], ACCURACY)
    assert some_of(frame.iloc[:-1]).systems() == ("dual",)
    short = frame.drop(index=[0, len(frame) - 1])
    first = r"dual \(clean\) has 239 of 240 predictions \(the first of 2 such models\)"
    for attempt in (lambda: cube(short, ACCURACY), lambda: some_of(short)):
        with pytest.raises(UserError, match=first):
            attempt()


def some_of(frame: pd.DataFrame) -> Cube:
    """The cube of a study that is still going on."""
    sums = Summing(ACCURACY)
    sums.add(summed(frame, ACCURACY))
    return sums.cube(partial=True)


def without(frame: pd.DataFrame, gone: dict[str, tuple[int, ...]]) -> pd.DataFrame:
    """The rows but for those of these models by these seeds."""
    lost = [(frame["model"] == model) & frame["seed"].isin(seeds) for model, seeds in gone.items()]
    return frame[~np.logical_or.reduce(lost)]


def test_a_study_that_goes_on_is_read_without_the_systems_that_have_fewest_whole_seeds() -> None:
    frame = predictions({"dual": 0.5, "concat": 0.5, "mult": 0.5})
    found = some_of(without(frame, {"concat": (1, 2), "mult": (2,)}))
    assert (found.systems(), found.seeds) == (("dual", "mult"), (0, 1))
    assert found.skipped == (
        f"training seed 2 is left out: concat (clean) has 0 of {N * len(CONDITIONS)} predictions (the first of 2 such "
        "models)",
        "concat (clean) is left out: it is whole in 1 of 3 seeds",
    )
    others = without(frame, {"concat": (0, 1, 2), "dual": (2,), "mult": (2,)})
    assert same(replace(found, skipped=()), replace(cube(others, ACCURACY), skipped=()))
    assert same(some_of(frame), cube(frame, ACCURACY))


def test_where_two_seeds_would_cost_most_systems_one_seed_will_do_and_of_equals_the_last_goes() -> None:
    frame = predictions({"dual": 0.5, "concat": 0.5, "mult": 0.5})
    found = some_of(without(frame, {"dual": (0,), "concat": (1,), "mult": (2,)}))
    assert (found.systems(), found.seeds) == (("dual", "concat"), (2,))
    assert found.skipped[-1] == "mult (clean) is left out: it is whole in 2 of 3 seeds"


def spoilt(what: str) -> pd.DataFrame:
    frame = plain(predictions({"dual": 0.5}))
    match what:
        case "score":
            frame.loc[9, "score_1"] = np.nan
        case "truth":
            frame.loc[9, "truth"] += 1
        case "unknown truth":
            frame.loc[frame["utterance"] == "u09", "truth"] = np.nan
        case "cluster":
            frame.loc[9, "cluster"] = "dialogue x"
        case "twice":
            frame = pd.concat([frame, frame.iloc[[9]]])
        case "draws":
            frame = frame[(frame["rate"] != 0.2) | (frame["draw"] == 0)]
            extra = frame[frame["corruption"] == "clean"]
            frame = pd.concat([frame, *(extra.assign(corruption="other", rate=0.5, draw=d) for d in range(3))])
        case "empty":
            frame = frame.iloc[:0]
    return frame


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("score", "finite scores, found NaN or infinity by dual .seed 0. for utterance 'u09' under clean 0"),
        ("truth", "one truth for utterance 'u09', found"),
        ("unknown truth", "one truth for utterance 'u09', found nan"),
        ("cluster", "one cluster for each utterance, found 'dialogue 1' and 'dialogue x' for 'u09'"),
        ("twice", "found two of 'u09' by dual .seed 0, clean 0"),
        ("draws", "same noise draws.*3 of other 0.5"),
        ("empty", "expected prediction rows, found none"),
    ],
)
def test_rows_that_contradict_each_other_are_the_users_error(what: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        cube(spoilt(what), ACCURACY)


# ----------------------------------------------------------------------------------------------- curves


def line(heights: dict[float, FloatArray], metric: Metric = ACCURACY) -> Cube:
    """A cube of one system whose metric is heights[rate] (S, C) in each seed and cluster."""
    sums = {}
    for rate, height in heights.items():
        counts = np.stack([height, np.ones_like(height)], axis=-1)
        sums[Key("dual", "clean", "word-drop" if rate else "clean", rate)] = counts[:, None]
    seeds, clusters = height.shape
    return Cube(metric, sums, tuple(range(seeds)), tuple(map(str, range(clusters))), clusters, ())


def heights(mean: float, spread: float = 0.02) -> FloatArray:
    """(4, 30) with exactly this mean."""
    noise = np.random.default_rng(3).normal(0, spread, (4, 30))
    return mean + noise - noise.mean()


def test_the_area_of_a_straight_line_is_its_mean_height_whatever_the_rates() -> None:
    found = line({rate: heights(0.9 - 0.5 * rate) for rate in (0.0, 0.1, 0.3, 0.8)})
    area = curves.estimate_of(curves.area_point(found, "dual", "clean", "word-drop", bootstrap(found)))
    assert area.value == pytest.approx((0.9 + 0.9 - 0.5 * 0.8) / 2)
    assert area.interval.low < area.value < area.interval.high


def test_the_area_pairs_the_resamples_of_all_rates() -> None:
    found = line({0.0: heights(0.9), 0.25: heights(0.6), 1.0: heights(0.2)})
    weights = bootstrap(found)
    a, b, c = (replicates(sums, ACCURACY.value, weights) for sums in found.sums.values())
    sample = curves.area_point(found, "dual", "clean", "word-drop", weights).replicates
    assert sample == pytest.approx(0.25 * (a + b) / 2 + 0.75 * (b + c) / 2)


def test_a_curve_starts_at_the_clean_condition() -> None:
    found = line({0.0: heights(0.9), 0.5: heights(0.6)})
    weights, grid = bootstrap(found), curves.rates(found, "word-drop")
    assert grid == [0.0, 0.5]
    points = [curves.point(found, curves.key("dual", "clean", "word-drop", rate), weights) for rate in grid]
    assert [point.estimate for point in points] == pytest.approx([0.9, 0.6])


def retention(found: Cube, floor: float) -> tuple[curves.Estimate, curves.Estimate]:
    weights = bootstrap(found)
    noisy, clean = (curves.point(found, curves.key("dual", "clean", "word-drop", rate), weights) for rate in (0.5, 0.0))
    return curves.retention(found.metric, noisy, clean, floor)


@pytest.mark.parametrize(
    ("metric", "clean", "noisy", "floor", "plain_share", "share"),
    [(ACCURACY, 0.9, 0.5, 0.4, 0.5 / 0.9, 0.2), (MAE, 0.8, 1.2, 1.3, np.nan, 0.2)],
)
def test_retention_is_the_share_kept_of_all_and_of_what_lies_above_the_floor(
    metric: Metric, clean: float, noisy: float, floor: float, plain_share: float, share: float
) -> None:
    found = line({0.0: heights(clean), 0.5: heights(noisy)}, metric)
    plainly, normalised = retention(found, floor)
    assert plainly.value == pytest.approx(plain_share, nan_ok=True)
    assert normalised.value == pytest.approx(share)
    assert normalised.interval.low < share < normalised.interval.high
    assert ("lower is better" in plainly.interval.reason) == (metric is MAE)


@pytest.mark.parametrize(
    ("floor", "reason"), [(0.95, "not better than the floor"), (np.nan, "the floor of Accuracy is undefined")]
)
def test_retention_above_a_floor_that_clean_does_not_beat_is_undefined(floor: float, reason: str) -> None:
    found = line({0.0: heights(0.9), 0.5: heights(0.6)})
    _, normalised = retention(found, floor)
    assert np.isnan([normalised.value, normalised.interval.low, normalised.interval.high]).all()
    assert reason in normalised.interval.reason


# --------------------------------------------------------------------- against a reference, and where curves break


def two_systems(metric: Metric = ACCURACY) -> Cube:
    """A leans on words, B does not: their metric falls from .9 to .3, and from .7 to .65."""
    heights_of = {"A": {0.0: 0.9, 0.5: 0.6, 1.0: 0.3}, "B": {0.0: 0.7, 0.5: 0.68, 1.0: 0.65}}
    sums = {}
    for system, by_rate in heights_of.items():
        for rate, mean in by_rate.items():
            height = heights(mean if metric.higher_is_better else 1 - mean)
            counts = np.stack([height, np.ones_like(height)], axis=-1)
            sums[Key(system, "clean", "word-drop" if rate else "clean", rate)] = counts[:, None]
    return Cube(metric, sums, (0, 1, 2, 3), tuple(map(str, range(30))), 30, ())


@pytest.mark.parametrize("metric", [ACCURACY, MAE])
def test_corruption_errors_are_ratios_of_summed_errors(metric: Metric) -> None:
    found = two_systems(metric)
    weights = bootstrap(found)
    noisy, base = (curves.overall(found, s, "clean", "word-drop", weights, (0.5, 1.0)) for s in ("A", "B"))
    clean, base_clean = (curves.point(found, curves.key(s, "clean", "clean", 0.0), weights) for s in ("A", "B"))
    plain = curves.corruption_error(metric, noisy, base)
    assert plain.estimate == pytest.approx((0.4 + 0.7) / (0.32 + 0.35))
    relative = curves.relative_corruption_error(metric, noisy, clean, base, base_clean)
    assert relative.estimate == pytest.approx((0.3 + 0.6) / (0.02 + 0.05))
    assert curves.corruption_error(metric, base, base).estimate == pytest.approx(1)
    assert curves.mean_point([plain, relative]).estimate == pytest.approx((plain.estimate + relative.estimate) / 2)


@pytest.mark.parametrize("height", [0.9 + i / 1000 for i in range(100)])
def test_what_noise_does_not_change_has_no_added_error_at_all(height: float) -> None:
    flat = Point(height, np.full(5, height), np.full((2, 1, 3), height))
    area = combined(zip(curves.trapezoid([0, 0.1, 0.3, 0.6, 1.0]).tolist(), [flat] * 5, strict=True))
    for metric in (ACCURACY, MAE):
        found = curves.added_error(metric, area, flat)
        assert (found.estimate, found.replicates.any(), found.influence.any()) == (0, False, False)


def test_a_corruption_that_does_not_harm_the_reference_has_no_relative_error() -> None:
    found = two_systems()
    weights = bootstrap(found)
    noisy, clean = (curves.point(found, curves.key("A", "clean", "word-drop", rate), weights) for rate in (1.0, 0.0))
    gone = curves.relative_corruption_error(ACCURACY, noisy, clean, clean, clean)
    assert np.isnan(gone.estimate)
    assert curves.estimate_of(gone, reason="no harm").interval.reason == "no harm"


def drawn(points: dict[float, tuple[float, float]]) -> list[tuple[float, curves.Estimate]]:
    return [(rate, curves.Estimate((a + b) / 2, Interval(a, b, 0.95))) for rate, (a, b) in points.items()]


def test_a_curve_breaks_at_the_first_rate_whose_worse_end_is_not_better_than_the_line() -> None:
    falling = drawn({0.0: (0.7, 0.9), 0.5: (0.5, 0.7), 1.0: (0.3, 0.5)})
    assert curves.breaking_rate(falling, 0.4, True) == (1.0, "")
    assert curves.breaking_rate(falling, 0.5, True) == (0.5, "")
    assert curves.breaking_rate(falling, 0.8, True) == (0.0, "")
    rate, reason = curves.breaking_rate(falling, 0.2, True)
    assert np.isnan(rate)
    assert reason == "better at every rate tested"
    rising = drawn({0.0: (0.7, 0.9), 0.5: (0.9, 1.1), 1.0: (1.3, 1.5)})
    assert curves.breaking_rate(rising, 1.1, False) == (0.5, "")


def test_a_curve_without_intervals_or_a_line_breaks_nowhere_and_says_why() -> None:
    rate, reason = curves.breaking_rate(
        [(0.0, curves.Estimate(0.5, Interval(np.nan, np.nan, 0.95, "one seed")))], 0, True
    )
    assert np.isnan(rate)
    assert reason == "one seed"
    assert "no line" in curves.breaking_rate(drawn({0.0: (0.7, 0.9)}), np.nan, True)[1]


def test_rank_stability_is_the_mean_of_scipys_kendall_tau_over_pairs_of_draws() -> None:
    rng = np.random.default_rng(9)
    values = rng.random((5, 3))
    weights = resample(rng, 2, 3, 4, 10)
    points = []
    for row in values:
        y = np.broadcast_to(row[None, :, None], (2, 3, 4))
        points.append(point_of(np.stack([y, np.ones_like(y)], axis=-1), ACCURACY.value, weights))
    taus = [kendalltau(values[:, i], values[:, j])[0] for i, j in ((0, 1), (0, 2), (1, 2))]
    assert curves.rank_stability(points) == (pytest.approx(np.mean(taus)), "")
    assert "three systems" in curves.rank_stability(points[:2])[1]
    assert "does not order" in curves.rank_stability([points[0]] * 3)[1]


def test_a_metric_of_confidence_has_the_t_interval_of_its_influence_within_its_range() -> None:
    rng = np.random.default_rng(10)
    truth, scores = rng.integers(0, 3, 60).astype(float), rng.dirichlet(np.ones(3), (4, 1, 60))
    rows = np.array([[BRIER.statistics(truth, scores[s, 0])] for s in range(4)])
    sums = rows.reshape(4, 1, 12, 5, -1).sum(axis=3)
    found = curves.of_sums(BRIER, sums)
    assert found.value == pytest.approx(np.mean([BRIER(truth, scores[s, 0]) for s in range(4)]))
    exact = point_of(sums, BRIER.value, resample(rng, 4, 1, 12, 10))
    ends = t_interval(exact.estimate, exact.spread, 0.95)
    assert (found.interval.low, found.interval.high) == pytest.approx((ends.low, ends.high))
    assert "at least 2 training seeds" in curves.of_sums(BRIER, sums[:1]).interval.reason


# -------------------------------------------------------------------------------------------- contrasts


def contrasts(frame: pd.DataFrame, metric: Metric = ACCURACY, reference: str = "dual") -> list[Contrast]:
    found = cube(frame, metric)
    return compare(found, reference, bootstrap(found))


def test_every_other_system_is_compared_on_every_quantity_in_every_regime() -> None:
    found = contrasts(predictions({"dual": 0.6, "concat": 0.5, "text-only": 0.3}, regimes=("clean", "mixed")))
    quantities = ("clean", "transcript:asr", "word-drop area", "word-drop 1.0")
    expected = [(r, s, q) for r in ("clean", "mixed") for s in ("concat", "text-only") for q in quantities]
    assert [(c.regime, c.right, c.quantity) for c in found] == expected
    assert {c.family for c in found} == {"Holm over 16 contrasts of accuracy with dual"}
    assert {(c.quantity, c.draws) for c in found} == {(q, 2 if "word-drop" in q else 1) for q in quantities}
    assert {(c.left, c.metric, c.seeds, c.clusters, c.utterances) for c in found} == {("dual", "accuracy", 3, 8, N)}


def test_largest_rates_with_the_same_predictions_are_compared_once() -> None:
    """At rate 1 two corruptions may both leave no word; a copy must not cost the family a test."""
    frame = plain(predictions({"dual": 0.6, "concat": 0.5}))
    drop = frame[frame["corruption"] == "word-drop"]
    found = contrasts(pd.concat([frame, drop.assign(corruption="zeroed")]))
    assert [c.quantity for c in found if "1.0" in c.quantity] == ["word-drop 1.0"]
    other = drop.assign(corruption="zeroed", score_0=drop["score_0"] + (drop["utterance"] == "u00") * 9.0)
    found = contrasts(pd.concat([frame, other]))
    assert [c.quantity for c in found if "1.0" in c.quantity] == ["word-drop 1.0", "zeroed 1.0"]


def test_severities_are_compared_by_their_plain_mean_and_one_rate_may_stand_for_several() -> None:
    found = cube(predictions({"dual": 0.6, "concat": 0.5}), ACCURACY)
    weights = bootstrap(found)
    by_severity = {c.quantity: c for c in compare(found, "dual", weights, severities={"word-drop": (0.2, 1.0, 1.0)})}
    by_rate = {c.quantity: c for c in compare(found, "dual", weights)}
    assert list(by_severity) == ["clean", "transcript:asr", "word-drop mean", "word-drop 1.0"]
    assert list(by_rate) == ["clean", "transcript:asr", "word-drop area", "word-drop 1.0"]
    sides = []
    for system in ("dual", "concat"):
        low, high = (estimate(found.sums[Key(system, "clean", "word-drop", r)], ACCURACY.value) for r in (0.2, 1.0))
        sides.append((low + 2 * high) / 3)
    assert by_severity["word-drop mean"].estimate == pytest.approx(sides[0] - sides[1])
    assert (
        by_severity["word-drop mean"].interval.low < sides[0] - sides[1] < by_severity["word-drop mean"].interval.high
    )
    assert by_severity["word-drop 1.0"].interval == by_rate["word-drop 1.0"].interval


def test_a_corruption_of_one_draw_and_rates_of_its_own_is_compared_beside_the_others() -> None:
    frame = plain(predictions({"dual": 0.6, "concat": 0.5}))
    drop = frame[(frame["corruption"] == "word-drop") & (frame["draw"] == 0)]
    lone = drop.assign(corruption="worst-case", rate=drop["rate"].map({0.2: 0.35, 1.0: 0.7}))
    found = contrasts(pd.concat([frame, lone]))
    draws = {c.quantity: c.draws for c in found}
    assert draws == {
        "clean": 1, "transcript:asr": 1, "word-drop area": 2, "word-drop 1.0": 2, "worst-case area": 1,
        "worst-case 0.7": 1,
    }  # fmt: skip
    assert not any(np.isnan(c.p) for c in found)


def test_a_regime_without_the_reference_has_no_contrast() -> None:
    frame = predictions({"dual": 0.6, "concat": 0.5}, regimes=("clean", "mixed"))
    found = contrasts(frame[(frame["model"] != "dual") | (frame["regime"] == "mixed")])
    assert {c.regime for c in found} == {"mixed"}


def test_an_unknown_reference_is_the_users_error() -> None:
    with pytest.raises(UserError, match=r"no predictions of 'duel'.*did you mean 'dual'"):
        contrasts(predictions({"dual": 0.6, "concat": 0.5}), reference="duel")


@pytest.mark.parametrize("metric", [UAR, ACCURACY])
def test_swapping_sides_flips_the_sign_and_nothing_else(metric: Metric) -> None:
    frame = predictions({"dual": 0.6, "concat": 0.5})
    for one, other in zip(contrasts(frame, metric), contrasts(frame, metric, "concat"), strict=True):
        assert one.estimate == -other.estimate != 0
        assert one.interval.low == pytest.approx(-other.interval.high)
        assert one.interval.high == pytest.approx(-other.interval.low)
        assert (one.p, one.detectable) == pytest.approx((other.p, other.detectable))


def test_identical_systems_differ_by_nothing() -> None:
    frame = plain(predictions({"dual": 0.5}))
    for c in contrasts(pd.concat([frame, frame.assign(model="twin")])):
        assert (c.estimate, c.interval.low, c.interval.high, c.p, c.p_adjusted) == (0, 0, 0, 1, 1)
        assert c.verdict == "undecided"


def test_a_planted_difference_is_found_from_either_side() -> None:
    frame = predictions({"dual": 0.9, "concat": 0.2}, seeds=5, clusters=20)
    assert {c.verdict for c in contrasts(frame)} == {"better"}
    assert {c.verdict for c in contrasts(frame, reference="concat")} == {"worse"}


def test_a_smaller_error_is_better() -> None:
    frame = predictions({"dual": 0.9, "concat": 0.2}, seeds=5, clusters=20, values=True)
    found = contrasts(frame, MAE)
    assert {c.verdict for c in found} == {"better"}
    assert all(c.estimate < 0 and c.interval.high < 0 for c in found)


def test_holm_agrees_with_longhand() -> None:
    found = contrasts(predictions({"dual": 0.6, "concat": 0.5, "text-only": 0.3}, seeds=6))
    ordered = sorted(found, key=lambda c: c.p)
    running = 0.0
    for rank, c in enumerate(ordered):
        running = max(running, min(1.0, (len(ordered) - rank) * c.p))
        assert c.p_adjusted == pytest.approx(running)
        assert (c.verdict == "undecided") == (running >= 0.05)
    assert {c.verdict for c in found} == {"better", "undecided"}


def test_an_undefined_contrast_says_so_and_does_not_count_in_the_family() -> None:
    frame = plain(predictions({"dual": 0.6, "concat": 0.5, "flat": 0.5}, values=True))
    frame.loc[frame["model"] == "flat", "score_0"] = 0.1
    found = contrasts(frame, PEARSON_R)
    assert {c.family for c in found} == {"Holm over 4 contrasts of pearson-r with dual"}
    for c in found:
        undefined = c.right == "flat"
        numbers = (c.estimate, c.interval.low, c.interval.high, c.p, c.p_adjusted, c.detectable)
        assert np.isnan(numbers).tolist() == [undefined] * 6
        assert (c.verdict == "undefined") == undefined == bool(c.interval.reason)


def test_a_difference_that_many_resamples_cannot_show_has_no_interval_and_no_p() -> None:
    frame = predictions({"dual": 0.9, "concat": 0.2}, values=True)
    frame.loc[frame["cluster"] != "dialogue 0", "truth"] = 0.0
    for c in contrasts(frame, ACC2_NON0):
        assert np.isfinite(c.estimate)
        assert re.fullmatch(r"undefined in \d+ of 400 resamples, and where one cluster is left out", c.interval.reason)
        assert np.isnan((c.interval.low, c.interval.high, c.p, c.detectable)).all()
        assert c.verdict == "undefined"


@pytest.mark.parametrize(
    ("seeds", "clusters", "reason"),
    [(1, 8, "needs at least 2 training seeds, found 1"), (3, 1, "needs at least 2 clusters, found 1")],
)
def test_one_seed_or_one_cluster_gives_an_estimate_without_an_interval(seeds: int, clusters: int, reason: str) -> None:
    frame = predictions({"dual": 0.9, "concat": 0.2}, seeds=seeds, clusters=clusters)
    for c in contrasts(frame):
        assert c.estimate > 0
        assert c.interval.reason == reason
        assert np.isnan((c.interval.low, c.interval.high, c.p, c.p_adjusted, c.detectable)).all()
        assert c.verdict == "undefined"
    found = cube(frame, ACCURACY)
    area = curves.estimate_of(curves.area_point(found, "dual", "clean", "word-drop", bootstrap(found)))
    assert area.value > 0
    assert area.interval.reason == reason
