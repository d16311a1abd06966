"""Figures are files of the wanted kinds, and the numbers in them are those of the rows."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_run import Made, write
from scipy.stats import t
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix

from dual_bench.report import confusion, figures, heat, matrix, reliability, slope
from dual_bench.report import evidence as evidence_module
from dual_bench.report.canvas import Album, Picture, clipped, file_name, style
from dual_bench.report.evidence import Evidence, gather
from dual_bench.stats.contrasts import every_pair
from dual_bench.stats.resampling import Point
from dual_bench.store import read_run

MANY = ("dual", "text-only", *(f"my.own:Model{i}" for i in range(8)))


@pytest.fixture(scope="module", autouse=True)
def _few_resamples() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence_module, "RESAMPLES", 200)
        yield


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    folder = tmp_path_factory.mktemp("run")
    write(folder, Made())
    return gather(read_run(folder))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    folder = tmp_path_factory.mktemp("many")
    write(folder, Made(models=MANY, regimes=("clean",), corruptions=("word-drop",), seeds=2))
    return gather(read_run(folder))


@pytest.fixture(scope="module")
def drawn(evidence: Evidence, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[Picture, ...]]:
    folder = tmp_path_factory.mktemp("figures")
    return folder, figures.pictures(evidence, Album(folder, {"svg", "pdf"}))


# -------------------------------------------------------------------------------------------------- files


def test_only_the_wanted_kinds_are_written_and_the_page_has_its_svg(
    evidence: Evidence, drawn: tuple[Path, tuple[Picture, ...]], tmp_path: Path
) -> None:
    folder, pictures = drawn
    assert {p.name for p in folder.iterdir()} == {f"{p.name}.{kind}" for p in pictures for kind in ("svg", "pdf")}
    assert all((folder / f"{p.name}.svg").read_text(encoding="utf-8") == p.svg for p in pictures)
    album = Album(tmp_path / "none", ())
    one = album.save(slope.figure(evidence), "slope", "title", "caption", "alt")
    assert not one.svg
    assert not (tmp_path / "none").exists()
    assert pictures[0].svg.startswith("<?xml")


def test_the_same_numbers_give_the_same_bytes_and_no_date(evidence: Evidence, tmp_path: Path) -> None:
    for name in ("a", "b"):
        with style():
            Album(tmp_path / name, {"svg", "png", "pdf"}).save(slope.figure(evidence), "slope", "t", "c", "alt")
    for kind in ("svg", "png", "pdf"):
        first, second = ((tmp_path / name / f"slope.{kind}").read_bytes() for name in ("a", "b"))
        assert first == second
    assert b"CreationDate" not in first
    assert b"/FontFile2" in first  # TrueType, which keeps text as text
    assert b"/Type3" not in first


def test_names_of_figures_are_those_that_pages_ask_for(drawn: tuple[Path, tuple[Picture, ...]]) -> None:
    names = {p.name for p in drawn[1]}
    assert {"slope", "training", "coverage", "transcripts"} <= names
    for prefix in (figures.MATRIX, figures.CONFUSION, figures.RELIABILITY):
        assert {name for name in names if name.startswith(prefix)} == {f"{prefix}clean", f"{prefix}mixed"}
    assert all(name in figures.FIXED_NAMES or name.startswith(figures.PREFIXES) for name in names)


def test_what_belongs_to_a_system_is_in_its_group(drawn: tuple[Path, tuple[Picture, ...]]) -> None:
    for picture in drawn[1]:
        ids = {e.get("id", "") for e in ElementTree.fromstring(picture.svg).iter()}
        assert {f"system-{i}" for i in range(3)} <= ids, picture.name


def test_every_new_figure_states_numbers_and_its_regime(drawn: tuple[Path, tuple[Picture, ...]]) -> None:
    for picture in drawn[1]:
        if picture.name == "slope" or picture.name.startswith(("matrix-", "confusion-", "reliability-")):
            assert re.search(r"\d+ %|\d of \d", picture.alt), picture.name
            assert "rained clean" in picture.alt or "rained mixed" in picture.alt
            assert "mean over 3 training seeds and 2 noise draws" in picture.caption


@given(st.text(max_size=60), st.integers(3, 20), st.integers(1, 3))
def test_clipped_text_keeps_within_its_lines(text: str, width: int, lines: int) -> None:
    found = clipped(text, width, lines)
    assert len(found) <= max(lines, 1)
    assert all(len(line) <= width for line in found)


def test_long_names_of_files_stay_apart() -> None:
    one, other = file_name("x" * 10_000 + "a"), file_name("x" * 10_000 + "b")
    assert one != other
    assert len(one) < 100


# -------------------------------------------------------------------------------------------------- slope


@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(0.5, 5)), min_size=1, max_size=20),
)
def test_labels_never_collide_and_keep_their_order(found: list[tuple[float, float]]) -> None:
    wanted, heights = np.array(found).T
    placed = slope.apart(wanted, heights, 0.0, 100.0)
    order = np.argsort(wanted, kind="stable")
    gaps = np.diff(placed[order]) - (heights[order][1:] + heights[order][:-1]) / 2
    assert (gaps > -1e-9).all()
    if heights.sum() <= 100:
        assert (placed - heights / 2 > -1e-9).all()
        assert (placed + heights / 2 < 100 + 1e-9).all()


def test_labels_that_have_room_stay_where_they_are() -> None:
    wanted = np.array([50.0, 10.0, 80.0])
    assert slope.apart(wanted, np.full(3, 5.0), 0.0, 100.0) == pytest.approx(wanted)


def test_the_slope_chart_tells_both_ends_of_first_and_last(evidence: Evidence) -> None:
    said = slope.finding(evidence)
    for regime in evidence.regimes:
        for place in evidence.poles:
            values = [evidence.at(s, regime, place).value for s in evidence.systems]
            for value in (max(values), min(values)):
                assert f"{100 * value:.1f} %" in said


# ------------------------------------------------------------------------------------------------- matrix


def _points(count: int, rng: np.random.Generator, clusters: int = 12) -> dict[str, Point]:
    arrays = {f"s{i}": 0.5 + 0.05 * i + rng.normal(0, 0.1, (4, 1, clusters)) for i in range(count)}
    return {name: Point(float(y.mean()), y.mean() + rng.normal(0, 0.01, 50), y) for name, y in arrays.items()}


def test_every_pair_is_the_t_test_of_the_difference_corrected_by_holm() -> None:
    points = _points(4, np.random.default_rng(0))
    pairs = every_pair(points, True)
    assert [(p.left, p.right) for p in pairs] == list(itertools.combinations(points, 2))
    raw = []
    for pair in pairs:
        difference = points[pair.left] - points[pair.right]
        error, freedom = difference.spread.error, difference.spread.freedom
        assert pair.estimate == pytest.approx(points[pair.left].estimate - points[pair.right].estimate)
        raw.append(2 * t.sf(abs(pair.estimate) / error, freedom))
        assert pair.p == pytest.approx(raw[-1])
        half = t.ppf(0.975, freedom) * error
        assert (pair.interval.low, pair.interval.high) == pytest.approx((pair.estimate - half, pair.estimate + half))
    worst = 0.0
    for rank, i in enumerate(np.argsort(raw)):  # Holm, longhand
        worst = max(worst, min(1.0, raw[i] * (len(raw) - rank)))
        assert pairs[i].p_adjusted == pytest.approx(worst)
        sign = "better" if pairs[i].estimate > 0 else "worse"
        assert pairs[i].verdict == (sign if worst < 0.05 else "undecided")


def test_where_lower_is_better_every_verdict_turns() -> None:
    points = _points(5, np.random.default_rng(1))
    up, down = every_pair(points, True), every_pair(points, False)
    turned = {"better": "worse", "worse": "better"}
    assert any(p.verdict == "better" or p.verdict == "worse" for p in up)
    assert [turned.get(p.verdict, p.verdict) for p in up] == [p.verdict for p in down]


def test_pairs_with_the_reference_have_the_p_of_the_comparisons(evidence: Evidence) -> None:
    for regime in evidence.regimes:
        for place in evidence.poles:
            for pair in evidence.pairwise(regime, place):
                if pair.left == evidence.reference:
                    contrast = next(
                        c for c in evidence.contrasts
                        if (c.right, c.regime) == (pair.right, regime)
                        and c.quantity in (place.corruption, f"{place.corruption} {place.rate}")
                    )  # fmt: skip
                    assert (pair.estimate, pair.p, pair.interval) == (contrast.estimate, contrast.p, contrast.interval)


def test_best_is_better_than_each_other_one_or_nobody(evidence: Evidence, many: Evidence) -> None:
    for found, regime in ((evidence, "clean"), (evidence, "mixed"), (many, "clean")):
        for place in found.poles:
            pairs = found.pairwise(regime, place)
            systems = found.trained(regime)
            beats = {
                s: sum(
                    (p.left == s and p.verdict == "better") or (p.right == s and p.verdict == "worse") for p in pairs
                )
                for s in systems
            }
            winners = [s for s in systems if beats[s] == len(systems) - 1]
            assert matrix.best(found, regime, place) == (winners[0] if winners else None)


def test_the_table_of_pairs_has_each_pair_once(evidence: Evidence, many: Evidence) -> None:
    table = matrix.table(evidence)
    assert table is not None
    assert len(table.frame) == 2 * 2 * 3
    assert table.shown is not None
    frame = table.frame.set_index(["trained", "condition", "left", "right"])
    assert frame.index.is_unique
    for (regime, condition, left, right), row in frame.iterrows():  # type: ignore[misc]
        place = next(p for p in evidence.poles if p.label == condition)
        values = [evidence.at(s, regime, place).value for s in (left, right)]
        assert row["estimate"] == pytest.approx(values[0] - values[1])
    longer = matrix.table(many)
    assert longer is not None
    assert len(longer.frame) == 90
    assert longer.shown is None


# ---------------------------------------------------------------------------------- confusion, calibration


def _rows(evidence: Evidence, regime: str, system: str, corruption: str, rate: float) -> tuple[np.ndarray, np.ndarray]:
    few = evidence.few
    few = few[(few["model"] == system) & (few["regime"] == regime)]
    few = few[(few["corruption"] == corruption) & (few["rate"] == rate)]
    return few["truth"].to_numpy().astype(int), few.filter(like="score_").to_numpy()


def test_confusion_matrices_are_those_of_scikit_learn(evidence: Evidence) -> None:
    table = confusion.table(evidence)
    assert table is not None
    assert len(table.frame) == 2 * 3 * 2 * 9
    counts = confusion.counted(evidence)
    for (regime, system, place), found in counts.items():
        truth, scores = _rows(evidence, regime, system, place.corruption, place.rate)
        assert found.tolist() == confusion_matrix(truth, scores.argmax(axis=1)).tolist()
        rows = table.frame.query("trained == @regime and system == @system and condition == @place.label")
        expected = confusion_matrix(truth, scores.argmax(axis=1), normalize="true").ravel()
        assert rows["share"].to_numpy() == pytest.approx(expected)
        assert rows.groupby("true", sort=False)["n"].first().sum() == evidence.cube.utterances


def test_a_class_without_utterances_has_no_shares() -> None:
    found = confusion.shares(np.array([[3, 1], [0, 0]]))
    assert found[0].tolist() == [0.75, 0.25]
    assert np.isnan(found[1]).all()


def test_confusion_shows_the_reference_and_the_best(many: Evidence) -> None:
    shown = confusion.drawn(many, "clean")
    assert shown[0] == many.reference
    assert len(shown) == confusion.MOST_SHOWN
    clean = many.poles[0]
    worst_shown = min(many.at(s, "clean", clean).value for s in shown[1:])
    assert all(many.at(s, "clean", clean).value <= worst_shown for s in many.systems if s not in shown)
    assert "8 of 10 systems are shown" in confusion.caption(many, confusion.counted(many), "clean")


def test_bins_of_reliability_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    sure, hit = rng.uniform(0.2, 1, 2000), rng.integers(0, 2, 2000)
    accuracy, confidence = calibration_curve(hit, sure, n_bins=15)
    which = reliability.bin_of(sure)
    mine = [(hit[which == b].mean(), sure[which == b].mean()) for b in range(15) if (which == b).any()]
    assert np.array(mine) == pytest.approx(np.stack([accuracy, confidence], axis=1))


def test_bins_give_back_the_calibration_error_and_the_accuracy(evidence: Evidence) -> None:
    bins = reliability.binned(evidence)
    assert len(bins) == 2 * 3 * 2
    for (regime, system, place), found in bins.items():
        assert found.count.sum() == pytest.approx(evidence.cube.utterances)
        assert found.mean(found.accuracy) == pytest.approx(evidence.at(system, regime, place).value)
        _, scores = _rows(evidence, regime, system, place.corruption, place.rate)
        assert found.mean(found.confidence) == pytest.approx(scores.max(axis=1).mean())
        assert (found.drawn == (found.count >= reliability.FEWEST)).all()


# ------------------------------------------------------------------------------------------- many systems


def test_many_systems_have_few_lines_in_a_panel_and_every_name(many: Evidence, tmp_path: Path) -> None:
    pictures = {p.name: p for p in figures.pictures(many, Album(tmp_path, {"svg"}))}
    curves = ElementTree.fromstring(pictures["degradation-word-drop"].svg)
    panels = [e for e in curves.iter() if re.fullmatch(r"axes_\d+", e.get("id", ""))]
    assert len(panels) == 2
    for panel in panels:
        systems = {e.get("id") for e in panel.iter() if str(e.get("id")).startswith("system-")}
        assert len(systems) <= 7
    text = " ".join(curves.itertext())
    assert all(name in text for name in MANY)


def test_the_loss_of_a_cell_is_that_of_the_tables(evidence: Evidence) -> None:
    for regime, system in evidence.rows():
        place = evidence.poles[-1]
        assert heat.loss_of(evidence, system, regime, place) == pytest.approx(
            evidence.loss(system, regime, place).value
        )


def test_regression_has_neither_confusion_nor_calibration(tmp_path: Path) -> None:
    write(tmp_path, Made(classes=(), regimes=("clean",)))
    found = gather(read_run(tmp_path))
    assert confusion.table(found) is None
    assert not reliability.binned(found)
    names = {p.name for p in figures.pictures(found, Album(tmp_path / "figures", ()))}
    assert {"slope", "matrix-clean"} <= names
    assert not [name for name in names if name.startswith(("confusion-", "reliability-"))]


def test_one_seed_decides_no_pair(tmp_path: Path) -> None:
    write(tmp_path, Made(regimes=("clean",), seeds=1))
    found = gather(read_run(tmp_path))
    assert {p.verdict for place in found.poles for p in found.pairwise("clean", place)} == {"undefined"}
    assert matrix.best(found, "clean", found.poles[0]) is None
    assert "0 of 3 pairs are decided" in matrix.finding(found, "clean")
