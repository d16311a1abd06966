"""The tables of what modalities are worth, of confidence, robustness and variance, against the rows they come from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_run import Made, write
from sklearn.metrics import brier_score_loss
from statsmodels.stats.contingency_tables import mcnemar

from dual_bench.report import dependency
from dual_bench.report import evidence as evidence_module
from dual_bench.report.evidence import Evidence, gather
from dual_bench.report.render import render
from dual_bench.stats.curves import Estimate
from dual_bench.stats.dependency import GAME, Dependence, shapley
from dual_bench.stats.intervals import Interval
from dual_bench.store import read_run
from dual_bench.types import MODALITIES, is_probe


@pytest.fixture(scope="module", autouse=True)
def _few_resamples() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence_module, "RESAMPLES", 200)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("probed")
    write(path, Made(probed=True, seeds=4, models=("dual", "text-only", "audio-vision")))
    render(path)
    return path


@pytest.fixture(scope="module")
def evidence(folder: Path) -> Evidence:
    return gather(read_run(folder))


def table(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / "tables" / f"{name}.csv")


def hits(rows: pd.DataFrame) -> pd.Series:
    return rows.filter(like="score_").to_numpy().argmax(axis=1) == rows["truth"].to_numpy()


def test_rows_of_the_probe_are_apart_and_change_no_other_table(folder: Path, tmp_path: Path) -> None:
    run = read_run(folder)
    assert run.probes["corruption"].map(is_probe).all()
    assert not run.predictions["corruption"].astype(str).map(is_probe).any()
    write(tmp_path, Made(seeds=4, models=("dual", "text-only", "audio-vision")))
    render(tmp_path, formats=["html", "csv"])
    for name in ("scores", "comparisons", "retention", "robustness", "variance", "confidence", "curves"):
        ours, plain = (path / "tables" / f"{name}.csv" for path in (folder, tmp_path))
        assert ours.read_bytes() == plain.read_bytes(), name
    assert not (tmp_path / "tables" / "dependency.csv").exists()
    assert not (tmp_path / "figures" / "dependency.svg").exists()


@pytest.mark.parametrize("reading", ["absent", "permuted"])
def test_shapley_values_of_the_table_are_those_of_the_rows(folder: Path, reading: str) -> None:
    run, found = read_run(folder), table(folder, "dependency")
    for system in ("dual", "text-only"):
        game = {}
        for present in GAME:
            gone = "+".join(m for m in MODALITIES if m not in present)
            rows = run.probes[run.probes["corruption"] == f"{reading}:{gone}"] if gone else run.predictions
            rows = rows if gone else rows[rows["corruption"] == "clean"]
            rows = rows[(rows["model"] == system) & (rows["regime"] == "mixed")]
            game[present] = float(np.mean(hits(rows)))
        for m, value in shapley(game).items():
            row = found[
                (found["system"] == system) & (found["trained"] == "mixed") & (found["measure"] == "shapley")
                & (found["modality"] == m) & (found["reading"] == reading)
            ]  # fmt: skip
            assert row["value"].item() == pytest.approx(value)
            assert row["low"].item() < value < row["high"].item()


def test_the_field_says_of_each_system_what_the_other_tables_say(folder: Path) -> None:
    field, kept, worth = (table(folder, name) for name in ("field", "retention", "dependency"))
    assert field[["trained", "system"]].equals(kept[["trained", "system"]])
    assert len(field) == 6
    for column in ("clean_text", "area_word_drop", "retention_above_floor"):
        for end in ("", "_low", "_high"):
            pd.testing.assert_series_equal(field[column + end], kept[column + end])
    shares = worth.query("measure == 'share' and modality == 'text' and reading == 'absent'")
    expected = shares.set_index(["trained", "system"])["value"].loc[pd.MultiIndex.from_frame(kept.iloc[:, :2])]
    assert np.allclose(field["share_of_words"], expected, equal_nan=True)
    sizes = table(folder, "training")
    assert field["parameters"].tolist() == sizes["parameters"].tolist()


def test_excess_is_over_the_perfect_perceiver_of_the_run(folder: Path) -> None:
    """The made run knows the ceilings of four subsets only, which is no game: no excess, and no line for it."""
    found = table(folder, "dependency")
    assert "excess" not in set(found["measure"])
    assert (
        "perfect perceiver" not in (folder / "report.md").read_text().partition("What each modality is worth")[2][:3000]
    )


def test_the_page_says_what_the_words_are_worth_to_the_reference(folder: Path) -> None:
    text = (folder / "report.md").read_text()
    assert "## What the words are worth" in text
    assert "points" in text.partition("## What the words are worth")[2][:400]
    page = (folder / "index.html").read_text()
    assert "What each modality is worth" in page
    assert page.count("Accuracy and coverage") >= 1


def test_the_brier_score_of_the_table_is_that_of_scikit_learn(folder: Path) -> None:
    run, found = read_run(folder), table(folder, "confidence")
    rows = run.predictions
    rows = rows[(rows["corruption"] == "clean") & (rows["model"] == "dual") & (rows["regime"] == "clean")]
    expected = []
    for _, part in rows.groupby("seed"):
        scores = part.filter(like="score_").to_numpy(float)
        expected.append(brier_score_loss(part["truth"], scores, labels=[0, 1, 2], scale_by_half=False))
    row = found[
        (found["system"] == "dual") & (found["trained"] == "clean") & (found["corruption"] == "clean")
        & (found["metric"] == "brier")
    ]  # fmt: skip
    assert row["value"].item() == pytest.approx(np.mean(expected))


def test_confidence_is_asked_of_classifications_alone(tmp_path: Path) -> None:
    write(tmp_path, Made(classes=(), transcripts=()))
    render(tmp_path, formats=["html", "csv"])
    assert not (tmp_path / "tables" / "confidence.csv").exists()
    assert not (tmp_path / "figures" / "coverage.svg").exists()


def test_shares_of_variance_sum_to_one_and_more_units_never_hurt(folder: Path, evidence: Evidence) -> None:
    found = table(folder, "variance")
    for _, part in found.groupby(["condition", "trained", "of"]):
        total = part["share"].sum()
        assert total == pytest.approx(1) or part["share"].isna().all()
        assert (part["low"] <= part["high"]).all()
    for regime, system in evidence.rows():
        width = evidence.point(next(k for k in evidence.cube.sums if (k.system, k.regime) == (system, regime))).spread
        for more in (width.with_counts(seeds=9), width.with_counts(clusters=99)):
            assert more.error <= width.error + 1e-12


def test_the_reference_has_the_corruption_error_one_and_what_reads_no_words_adds_no_error(folder: Path) -> None:
    found = table(folder, "robustness").set_index(["trained", "system"])
    for regime in ("clean", "mixed"):
        assert found.loc[(regime, "dual"), ["mce", "relative_mce"]].tolist() == [1, 1]
        assert found.loc[(regime, "audio-vision"), "relative_mce"] == pytest.approx(0)
        assert found.loc[(regime, "text-only"), "relative_mce"] > 1


def test_a_curve_breaks_in_the_table_where_its_own_interval_meets_the_floor(folder: Path) -> None:
    curves, found = table(folder, "curves"), table(folder, "robustness").set_index(["trained", "system"])
    for (regime, system, corruption), points in curves.groupby(["trained", "system", "corruption"]):
        met = points.sort_values("rate").query("low <= floor")["rate"]
        breaks = found.loc[(regime, system), f"breaks_floor_{corruption}"]
        assert breaks == met.iloc[0] if len(met) else np.isnan(breaks)


@pytest.mark.usefixtures("no_figures")
def test_one_seed_has_estimates_of_worth_without_intervals(tmp_path: Path) -> None:
    write(tmp_path, Made(probed=True, seeds=1))
    render(tmp_path, formats=["md", "csv"])
    found = table(tmp_path, "dependency")
    assert found.loc[found["measure"] == "shapley", "value"].notna().all()
    assert found["low"].isna().all()
    assert not (tmp_path / "tables" / "variance.csv").exists()
    assert "at least 2 training seeds" in (tmp_path / "report.md").read_text()


def test_the_classical_tests_are_those_of_the_first_seed_and_of_the_clusters(folder: Path, tmp_path: Path) -> None:
    run, found = read_run(folder), table(folder, "classical")
    rows = run.predictions
    rows = rows[(rows["corruption"] == "clean") & (rows["regime"] == "mixed") & (rows["seed"] == 0)]
    right = {m: hits(part.sort_values("utterance")) for m, part in rows.groupby("model", observed=True)}
    table_2x2 = pd.crosstab(right["dual"], right["text-only"])
    row = found[(found["trained"] == "mixed") & (found["right"] == "text-only")]
    few = table_2x2.to_numpy()[[0, 1], [1, 0]].sum() < 25
    assert row["mcnemar_p"].item() == pytest.approx(mcnemar(table_2x2, exact=few, correction=True).pvalue)
    assert row["permutation_p"].between(1 / 2001, 1).all()
    assert "williams_p" not in found
    write(tmp_path, Made(classes=(), transcripts=(), seeds=2))
    render(tmp_path, formats=["csv"])
    assert table(tmp_path, "classical")["williams_p"].between(0, 1).all()


def test_a_comparison_with_the_perfect_perceiver_says_that_it_is_not_corrected(folder: Path) -> None:
    evidence = gather(read_run(folder))
    excess = Estimate(-0.05, Interval(-0.08, -0.01, 0.95))
    planted = (*evidence.dependence, Dependence("dual", "clean", "excess", "text", "absent", excess))
    vars(evidence)["dependence"] = planted
    said = [sentence for sentence in dependency.sentences(evidence) if "perfect perceiver" in sentence]
    assert len(said) == 1
    assert (
        "less than they are worth to the perfect perceiver (−5.0 points (−8.0 to −1.0); by this interval alone)"
        in (said[0])
    )
