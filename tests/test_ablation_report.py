"""Reports of ablations are rendered from made runs: every number against the rows, every verdict against what was
planted."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from made_run import Made, Skill, write
from markdown_it import MarkdownIt
from reading import assert_only_our_scripts, body_text, parse, rows_of, table_bytes
from statsmodels.stats.multitest import multipletests

from dual_bench.report import canvas, degradation, findings, forest, heat
from dual_bench.report import evidence as evidence_module
from dual_bench.report.ablation_sentences import concluded, expectation, promises, undecided
from dual_bench.report.certified import WORDLESS
from dual_bench.report.evidence import Evidence, gather
from dual_bench.report.merge import merged
from dual_bench.report.methods import methods
from dual_bench.report.render import Rendered, render
from dual_bench.report.table import Table
from dual_bench.report.tables import tables
from dual_bench.schema import ComparisonInfo, Expected, StudyInfo, Term
from dual_bench.store import RunFolder, read_run

DIGEST = "0123456789abcdef" * 4
BASE, WORSE, SAME, WIDE = "dual", "dual:sdm=off", "dual:vdm=off", "dual:width=96"
GOOD, BAD = Skill(0.85, 0.6, luck=0, noise=0.02), Skill(0.6, 0.4, luck=0, noise=0.02)
SKILLS = {BASE: GOOD, WORSE: BAD, SAME: GOOD, WIDE: GOOD._replace(luck=9)}
"""``WORSE`` is wrong wherever the baseline is, and oftener; ``SAME`` answers like it; ``WIDE`` is as good by other
luck, which is more than so few utterances can tell."""

Means = dict[tuple[str, str, str, float], float]
"""(system, regime, corruption, rate) -> the metric."""


def against(
    system: str, name: str = "", expected: Expected = "loss", regime: str = "clean", base: tuple[str, str] | None = None
) -> ComparisonInfo:
    """The system minus the baseline (by default ``dual``, trained in the same regime)."""
    one, other = (system, regime), base or (BASE, regime)
    terms = tuple(Term(weight=w, system=s, regime=r) for w, (s, r) in ((1, one), (-1, other)))
    trained = regime if other[1] == regime else f"{regime} against {other[1]}"
    return ComparisonInfo(name=name or system, kind="variant", regime=trained, expected=expected, terms=terms)


def study_of(*comparisons: ComparisonInfo, **fields: object) -> StudyInfo:
    facts = {
        "where": "ablations/parts.toml", "digest": DIGEST, "replaced": {"seeds": "4"}, "margin": 0.05,
        "primary": ("clean", "word-drop area"), "baseline": BASE, "titles": {}, "comparisons": comparisons,
    }  # fmt: skip
    return StudyInfo.model_validate(facts | fields)


PARTS = Made(
    models=(BASE, WORSE, SAME, WIDE),
    regimes=("clean",),
    corruptions=("word-drop",),
    rates=(0.25, 1.0),
    seeds=4,
    clusters=12,
    utterances=96,
    skills=SKILLS,
    study=study_of(
        against(WORSE, "SDM off"),
        against(WORSE, "SDM off, hoped for", "gain"),
        against(SAME, "VDM off"),
        against(SAME, "VDM off, in vain", "none"),
        against(WIDE, "width 96"),
        titles={BASE: "the baseline", WORSE: "without SDM", SAME: "without VDM", WIDE: "wide"},
    ),
)
VERDICTS = {
    "SDM off": "supported",
    "SDM off, hoped for": "contradicted",
    "VDM off": "equivalent",
    "VDM off, in vain": "supported",
    "width 96": "undecided",
}
QUANTITIES = ("clean", "word-drop area", "word-drop 0.25", "word-drop 1.0", "transcript:whisper")
SMALL = replace(
    PARTS, models=(BASE, WORSE), study=study_of(against(WORSE, "SDM off")), transcripts=(), seeds=3, utterances=48
)


@pytest.fixture(scope="module", autouse=True)
def _few_resamples() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence_module, "RESAMPLES", 200)
        yield


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rendered]:
    folder = tmp_path_factory.mktemp("parts")
    write(folder, PARTS)
    return folder, render(folder)


@pytest.fixture(scope="module")
def page(parts: tuple[Path, Rendered]) -> ElementTree.Element:
    return parse((parts[0] / "index.html").read_text(encoding="utf-8"))


def written(folder: Path, made: Made) -> Evidence:
    write(folder, made)
    return gather(read_run(folder))


def table_of(evidence: Evidence, name: str) -> Table:
    (table,) = [t for t in tables(evidence) if t.name == name]
    return table


def system_of(rows: pd.DataFrame) -> list[str]:
    return [f"{m}:{v}" if v else m for m, v in zip(rows["model"], rows["variant"], strict=True)]


def means_of(rows: pd.DataFrame, value: pd.Series[float]) -> Means:
    """The mean over seeds and draws of the mean over utterances."""
    where, inner = ["system", "regime", "corruption", "rate"], ["seed", "draw"]
    frame = rows[["regime", "corruption", "rate", *inner]].assign(system=system_of(rows), value=value)
    each = frame.groupby([*where, *inner], observed=True)["value"].mean()
    return each.groupby(level=where, observed=True).mean().to_dict()


def right(rows: pd.DataFrame) -> pd.Series[float]:
    scores = rows[[c for c in rows if c.startswith("score_")]].to_numpy()
    return pd.Series(scores.argmax(axis=1) == rows["truth"].to_numpy(), rows.index).astype(float)


def off_by(rows: pd.DataFrame) -> pd.Series[float]:
    return (rows["score_0"].astype(float) - rows["truth"]).abs()


def at(means: Means, system: str, regime: str, quantity: str) -> float:
    """One side of a comparison, from its definition."""
    if quantity == "clean":
        return means[system, regime, "clean", 0.0]
    if quantity.startswith("transcript:"):
        return means[system, regime, quantity, 1.0]
    corruption, _, last = quantity.rpartition(" ")
    if last != "area":
        return means[system, regime, corruption, float(last)]
    curve = {0.0: means[system, regime, "clean", 0.0]}
    curve |= {rate: mean for (*who, rate), mean in means.items() if who == [system, regime, corruption]}
    rates = sorted(curve)
    return float(np.trapezoid([curve[rate] for rate in rates], rates) / rates[-1])


def both(folder: Path) -> list[dict[str, str]]:
    return [*rows_of(folder, "hypotheses"), *rows_of(folder, "conditions")]


def remove(folder: Path, *systems: str, regime: str = "") -> None:
    """Remove the records of some cells."""
    run = read_run(folder)
    for cell in run.cells:
        name = f"{cell.model}:{cell.variant}" if cell.variant else cell.model
        if name in systems and regime in ("", cell.regime):
            run.folder.cell_file(cell.digest).unlink()


def figures_of(folder: Path) -> set[str]:
    return {file.stem for file in (folder / "figures").iterdir()}


def points(value: float | str) -> str:
    """``−22.1``, as sentences have it."""
    return f"{100 * float(value):.1f}".replace("-", "−")


# ------------------------------------------------------------------------------------------- the verdicts


def test_verdicts_follow_what_was_planted_and_expected(parts: tuple[Path, Rendered]) -> None:
    rows = rows_of(parts[0], "hypotheses")
    assert {(r["comparison"], r["quantity"], r["verdict"]) for r in rows} == {
        (name, quantity, verdict) for name, verdict in VERDICTS.items() for quantity in ("clean", "word-drop area")
    }


def test_the_summary_for_the_screen_has_every_hypothesis_and_calls_the_same_identical(
    parts: tuple[Path, Rendered],
) -> None:
    summary = parts[1].summary
    found = dict(zip(zip(summary["comparison"], summary["quantity"], strict=True), summary["verdict"], strict=True))
    told = VERDICTS | {"VDM off": "equivalent (identical)", "VDM off, in vain": "supported (identical)"}
    assert found == {(n, q): v for n, v in told.items() for q in ("clean text", "word-drop area")}
    (cell,) = summary.loc[(summary.comparison == "SDM off") & (summary.quantity == "clean text"), "difference (points)"]
    assert re.fullmatch(r"−\d+\.\d \(−\d+\.\d to −\d+\.\d\)", cell)


@pytest.fixture(scope="module")
def found(parts: tuple[Path, Rendered], page: ElementTree.Element) -> str:
    """What the page says can be concluded, and what cannot."""
    text = body_text(page)
    return text[text.index("What can be concluded") : text.index("Contents Effects")]


@pytest.mark.parametrize(
    ("opening", "name"), [("As expected", "SDM off"), ("Against the expectation", "SDM off, hoped for")]
)
def test_the_paragraph_states_differences_as_the_table_has_them(
    parts: tuple[Path, Rendered], found: str, opening: str, name: str
) -> None:
    stated = []
    for quantity, called in (("clean", "clean text"), ("word-drop area", "word-drop area")):
        (row,) = [r for r in rows_of(parts[0], "hypotheses") if (r["comparison"], r["quantity"]) == (name, quantity)]
        value, low, high = (points(row[column]) for column in ("estimate", "estimate_low", "estimate_high"))
        stated.append(f"{name}: accuracy on {called} differs by {value} points ({low} to {high}), a loss")
    assert re.search(rf"{opening}, ([^.]|\.\d)*\.", found)[0] in (
        f"{opening}, {'; '.join(order)}." for order in (stated, stated[::-1])
    )


def test_the_paragraph_tells_equivalent_identical_and_undecided_apart(found: str) -> None:
    assert "Of 10 hypotheses, corrected together: 4 supported, 2 contradicted, 2 equivalent, 2 undecided." in found
    assert "Shown to make no difference of 5.0 points or more: VDM off." in found
    assert "As expected, no difference of 5.0 points or more: VDM off, in vain." in found
    assert re.search(r"With VDM off(, in vain)?; VDM off(, in vain)? both sides have the same accuracy in every", found)
    assert "Undecided, neither a difference nor its absence being shown after correction: width 96." in found
    assert not re.search(r"(VDM off|width 96)[^.;]* differs by", found)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (replace(SMALL, seeds=1), "needs at least 2 training seeds, found 1"),
        (replace(SMALL, clusters=1), "needs at least 2 clusters, found 1"),
    ],
    ids=["seeds", "clusters"],
)
@pytest.mark.usefixtures("no_figures")
def test_with_one_seed_or_cluster_everything_is_undefined_and_nothing_concluded(
    tmp_path: Path, made: Made, reason: str
) -> None:
    write(tmp_path, made)
    result = render(tmp_path, formats=["md", "csv"])
    rows, means = both(tmp_path), means_of(frame := read_run(tmp_path).predictions, right(frame))
    assert len(rows) == 4
    for row in rows:
        assert (row["verdict"], row["estimate_reason"]) == ("undefined", reason)
        undefined = ("estimate_low", "estimate_high", "p", "p_adjusted", "p_equivalence", "seeds_needed", "detectable")
        assert {row[name] for name in undefined} == {"NaN"}
        expected = at(means, WORSE, "clean", row["quantity"]) - at(means, BASE, "clean", row["quantity"])
        assert float(row["estimate"]) == pytest.approx(expected, abs=1e-12)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    told = text[text.index("## What can be concluded") :].splitlines()[2]
    assert told == f"Nothing can be concluded: there is no interval ({reason})."
    assert list(result.summary["verdict"]) == ["undefined"] * 2


# ----------------------------------------------------------------------------------------------- the tables


def test_every_comparison_under_every_quantity_stands_in_exactly_one_table(parts: tuple[Path, Rendered]) -> None:
    names = Counter((row["comparison"], row["quantity"]) for row in both(parts[0]))
    assert names == Counter(product(VERDICTS, QUANTITIES))
    assert PARTS.study is not None
    assert {row["quantity"] for row in rows_of(parts[0], "hypotheses")} == set(PARTS.study.primary)


def test_estimates_are_differences_of_means_of_the_rows(parts: tuple[Path, Rendered]) -> None:
    rows = read_run(parts[0]).predictions
    means = means_of(rows, right(rows))
    systems = {c.name: c.terms[0].system for c in PARTS.study.comparisons} if PARTS.study else {}
    for row in both(parts[0]):
        system, quantity = systems[row["comparison"]], row["quantity"]
        expected = at(means, system, "clean", quantity) - at(means, BASE, "clean", quantity)
        assert float(row["estimate"]) == pytest.approx(expected, abs=1e-12)
        assert row["terms"] == f"'+1*{system}(clean) -1*{BASE}(clean)"


def test_intervals_hold_the_estimate_and_agree_with_p(parts: tuple[Path, Rendered]) -> None:
    decided = set()
    for row in both(parts[0]):
        value, low, high = (float(row[n]) for n in ("estimate", "estimate_low", "estimate_high"))
        assert low <= value <= high
        assert (low > 0 or high < 0) == (float(row["p"]) < 0.05)
        decided.add(low > 0 or high < 0)
    assert decided == {True, False}


@pytest.mark.parametrize(("table", "family"), [("hypotheses", "hypotheses"), ("conditions", "other quantities")])
def test_adjusted_p_is_that_of_holm_over_the_family(parts: tuple[Path, Rendered], table: str, family: str) -> None:
    rows = rows_of(parts[0], table)
    assert {row["family"] for row in rows} == {f"Holm over {len(rows)} {family} of Accuracy"}
    for name in ("p", "p_equivalence"):
        p, adjusted = (np.array([float(row[column]) for row in rows]) for column in (name, f"{name}_adjusted"))
        np.testing.assert_allclose(adjusted, multipletests(p, method="holm")[1])
        assert (adjusted >= p).all()
        assert (adjusted > p).any()


def test_the_tables_carry_the_study_and_the_size_of_both_sides(parts: tuple[Path, Rendered]) -> None:
    parameters = {"SDM off": 1001, "SDM off, hoped for": 1001, "VDM off": 1002, "VDM off, in vain": 1002}
    expected = {c.name: c.expected for c in PARTS.study.comparisons} if PARTS.study else {}
    for row in both(parts[0]):
        assert float(row["parameters"]) == parameters.get(row["comparison"], 1003)
        assert float(row["parameters_baseline"]) == 1000
        assert (row["expected"], float(row["margin"])) == (expected[row["comparison"]], 0.05)
        assert (row["seeds"], row["draws"], row["clusters"]) == ("4", "2", "12")


def test_parameters_of_a_factorial_are_means_over_the_cells_of_each_side(tmp_path: Path) -> None:
    models = (BASE, WORSE, SAME, "dual:sdm=off,vdm=off")
    signs = {"SDM off": (-1, 1, -1, 1), "SDM x VDM": (1, -1, -1, 1)}
    comparisons = [
        ComparisonInfo(
            name=name, kind="interaction" if "x" in name else "main effect", regime="clean", expected="loss",
            terms=tuple(Term(weight=s / 2, system=m, regime="clean") for s, m in zip(side, models, strict=True)),
        )
        for name, side in signs.items()
    ]  # fmt: skip
    evidence = written(tmp_path, replace(SMALL, models=models, study=study_of(*comparisons)))
    means = means_of(rows := evidence.run.predictions, right(rows))
    frame = table_of(evidence, "hypotheses").frame.set_index(["comparison", "quantity"])
    assert len(frame) == 4
    for (name, quantity), row in frame.iterrows():
        values = [at(means, model, "clean", quantity) for model in models]
        assert row["estimate"] == pytest.approx(np.dot(signs[name], values) / 2, abs=1e-12)
    sizes = frame.loc[(slice(None), "clean"), ["parameters", "parameters_baseline"]]
    assert sizes.loc["SDM off"].to_numpy().tolist() == [[1002.0, 1001.0]]
    assert sizes.loc["SDM x VDM"].to_numpy().tolist() == [[1001.5, 1001.5]]


def test_where_severities_chose_the_rates_a_hypothesis_is_about_their_plain_mean(tmp_path: Path) -> None:
    study = study_of(against(WORSE, "SDM off"), primary=("typo mean",))
    made = replace(SMALL, corruptions=("typo",), rates=(), severities=(1, 3, 5), weak=("typo",), study=study)
    evidence = written(tmp_path, made)
    means = means_of(rows := evidence.run.predictions, right(rows))
    scale = [point.rate for point in made.scale()]
    assert len(set(scale)) < len(scale)  # a rate that stands for two severities counts twice
    sides = [np.mean([means[system, "clean", "typo", rate] for rate in scale]) for system in (WORSE, BASE)]
    (row,) = table_of(evidence, "hypotheses").frame.to_dict("records")
    assert row["quantity"] == "typo mean"
    assert row["estimate"] == pytest.approx(sides[0] - sides[1], abs=1e-12)


@pytest.mark.usefixtures("no_figures")
def test_the_same_rows_give_the_same_bytes_in_every_table(parts: tuple[Path, Rendered], tmp_path: Path) -> None:
    """Though the one was slower, and made elsewhere."""
    folder = tmp_path / "again"
    shutil.copytree(parts[0], folder)
    for part in ("tables", "figures"):
        shutil.rmtree(folder / part)
    (folder / "index.html").unlink()
    for cell in read_run(folder).cells:
        slower = cell.model_copy(update={"seconds_fit": 99.0, "seconds_predict": 9.0, "threads": 7})
        RunFolder(folder).cell_file(cell.digest).write_text(slower.model_dump_json())
    render(folder, formats=["md", "csv"])
    assert table_bytes(folder) == table_bytes(parts[0])
    assert "hypotheses.csv" in table_bytes(folder)
    assert "99.0 / 99.0" in (folder / "report.md").read_text(encoding="utf-8")


# --------------------------------------------------------------------------------------- lower is better


def regression(folder: Path, primary: Sequence[str]) -> Evidence:
    study = study_of(
        against(WORSE, "SDM off"), against(WORSE, "SDM off, hoped for", "gain"), primary=tuple(primary), margin=0.1
    )
    return written(folder, replace(SMALL, classes=(), study=study))


def test_a_larger_error_is_a_loss(tmp_path: Path) -> None:
    evidence = regression(tmp_path, ("clean",))
    means = means_of(rows := evidence.run.predictions, off_by(rows))
    for effect in evidence.effects:
        sides = [at(means, system, "clean", effect.quantity) for system in (WORSE, BASE)]
        assert effect.estimate == pytest.approx(sides[0] - sides[1], abs=1e-6)
        assert effect.gain == -effect.estimate < 0
    table = table_of(evidence, "hypotheses").frame
    assert dict(zip(table["comparison"], table["verdict"], strict=True)) == {
        "SDM off": "supported",
        "SDM off, hoped for": "contradicted",
    }
    text = " ".join((*concluded(evidence), *undecided(evidence)))
    assert re.search(r"As expected, SDM off: MAE on clean text differs by 0\.\d{3} \([^)]*\), a loss\.", text)
    assert re.search(r"Against the expectation, SDM off, hoped for: MAE on clean text .*, a loss\.", text)


@pytest.mark.parametrize("primary", [("clean",), ("clean", "word-drop area")], ids=["one", "two"])
def test_worse_is_on_the_left_in_every_panel_where_lower_is_better(tmp_path: Path, primary: tuple[str, ...]) -> None:
    figure = forest.forest(regression(tmp_path, primary))
    assert len(figure.axes) == len(primary)
    assert [panel.get_xlabel() for panel in figure.axes] == ["worse ← MAE → better"] * len(primary)
    assert [bool(panel.xaxis_inverted()) for panel in figure.axes] == [True] * len(primary)


def test_worse_is_on_the_left_in_every_panel_where_higher_is_better(parts: tuple[Path, Rendered]) -> None:
    panels = forest.forest(gather(read_run(parts[0]))).axes
    assert [bool(panel.xaxis_inverted()) for panel in panels] == [False, False]
    assert [panel.get_title(loc="left") for panel in panels] == ["clean text", "word-drop area"]
    labels = {label.get_text() for label in panels[0].get_yticklabels()}
    assert labels == set(VERDICTS)


# ----------------------------------------------------------------------------------------------- the page


FIGURES = {"forest", "degradation-word-drop", "transcripts", "slope", "training", "coverage", "confusion-clean"}
FIGURES |= {"reliability-clean"}


def test_an_ablation_has_effects_and_no_contrasts(parts: tuple[Path, Rendered], page: ElementTree.Element) -> None:
    folder, _ = parts
    names = {"hypotheses", "conditions", "scores", "retention", "noise", "training", "ceilings", "curves"}
    names |= {"robustness", "variance", "confidence", "classical", "confusion", "sentences"}
    assert {file.stem for file in (folder / "tables").iterdir()} == names
    assert figures_of(folder) == FIGURES
    sections = [section.get("id") for section in page.iter("section")]
    assert {"effects", "hypotheses", "conditions"} <= set(sections)
    assert "comparisons" not in sections
    assert "Paired comparisons" not in body_text(page)


def labels_of(page: ElementTree.Element) -> list[str]:
    figures = [e for e in page.iter() if str(e.tag).rpartition("}")[2] == "svg" and e.get("aria-hidden") != "true"]
    return [e.get("aria-label", "") for e in figures]


def test_the_forest_is_drawn_once_and_tells_every_comparison(page: ElementTree.Element) -> None:
    labels = labels_of(page)
    assert len(labels) == len(FIGURES)
    (told,) = [label for label in labels if label.startswith("Effects with intervals. ")]
    for name, verdict in VERDICTS.items():
        for quantity in ("clean text", "word-drop area"):
            assert re.search(rf"(\. |; ){name}, {quantity}: −?[\d.]+ \(−?[\d.]+ to −?[\d.]+\), {verdict}", told)


def assert_valid(folder: Path) -> ElementTree.Element:
    """The page, which is valid and whole in itself."""
    text = (folder / "index.html").read_text(encoding="utf-8")
    tree = parse(text)
    assert_only_our_scripts(tree)
    assert not tree.findall(".//link") + tree.findall(".//img")
    ids = [e.get("id") for e in tree.iter() if e.get("id")]
    assert len(ids) == len(set(ids))
    targets = [value for e in tree.iter() for name, value in e.items() if name.endswith("href")]
    assert all(target.startswith("#") and target[1:] in ids for target in targets)
    return tree


def test_the_page_is_valid_and_says_what_was_written_down(parts: tuple[Path, Rendered]) -> None:
    tree = assert_valid(parts[0])
    assert tree.findtext(".//h1") == "made: what each part does"
    text = body_text(tree)
    assert f"The study file (ablations/parts.toml, sha256 {DIGEST}) names comparisons" in text
    assert f"Written down in ablations/parts.toml (sha256 {DIGEST[:12]}): expected is" in text
    assert "Not from that file, but from flags: seeds 4." in text
    assert "a difference below 5.0 points does not matter" in text
    expected = (
        "a loss of SDM off, VDM off and width 96; a gain of SDM off, hoped for; "
        "no difference that matters of VDM off, in vain"
    )
    assert f"expected is {expected}." in text


def test_tables_in_markdown_parse_and_systems_bear_the_names_of_the_study(parts: tuple[Path, Rendered]) -> None:
    text = (parts[0] / "report.md").read_text(encoding="utf-8")
    parsed = MarkdownIt("commonmark").enable("table").render(text)
    assert parsed.count("<table>") == 11
    assert parsed.count("<img") == len(FIGURES)
    scores = text[text.index("## Scores") : text.index("## What is retained")]
    assert [
        name for name in ("the baseline", "without SDM", "without VDM", "wide") if f"| {name} |" not in scores
    ] == []
    svg = (parts[0] / "figures" / "degradation-word-drop.svg").read_text(encoding="utf-8")
    assert ">without SDM</text>" in svg
    assert ">dual:sdm=off</text>" not in svg


HOSTILE = "<b>|x `y` $z$ [w](http://evil.example/) *v*"


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    system = f"dual:note={HOSTILE}"
    study = study_of(
        against(system, f"{HOSTILE}\n# head"), against(system, f"={HOSTILE}", "gain"),
        where=HOSTILE, replaced={HOSTILE: HOSTILE}, titles={system: HOSTILE},
    )  # fmt: skip
    write(tmp_path, replace(SMALL, models=(BASE, system), study=study))
    render(tmp_path)
    tree = assert_valid(tmp_path)
    text = body_text(tree)
    assert f"in {HOSTILE} (sha256 " in text
    assert f"Not from that file, but from flags: {HOSTILE} {HOSTILE}." in text
    cells = {"".join(cell.itertext()) for cell in (*tree.iter("th"), *tree.iter("td"))}
    assert {HOSTILE, f"{HOSTILE}\n# head", f"={HOSTILE}"} <= cells
    assert all(HOSTILE not in "".join(e.itertext()) for e in tree.iter() if e.tag in ("b", "i", "a", "script"))
    told = next(label for label in labels_of(tree) if label.startswith("Effects"))
    assert f"={HOSTILE}, clean text: " in told

    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    parsed = MarkdownIt("commonmark").enable("table").render(markdown)
    assert not re.search(r"<b>|<em>|<a |<h1>\s*head", parsed)
    first = parsed[parsed.index("<table>") : parsed.index("</table>")]
    columns = len(re.findall(r"<th\b", first))
    assert len(re.findall(r"<td\b", first)) == 4 * columns
    assert first.count("<code>") == 0
    assert first.count("&lt;b&gt;|x `y` $z$ [w](http://evil.example/) *v*") == 4

    names = {row["comparison"] for row in both(tmp_path)}
    assert names == {f"{HOSTILE}\n# head", f"'={HOSTILE}"}
    for figure in (tmp_path / "figures").glob("*.svg"):
        ElementTree.parse(figure)


def test_comparisons_of_several_regimes_name_theirs(tmp_path: Path) -> None:
    comparisons = [against(WORSE, "SDM off", regime=regime) for regime in ("clean", "mixed")]
    comparisons.append(against(BASE, "trained mixed", "gain", "mixed", (BASE, "clean")))
    evidence = written(tmp_path, replace(SMALL, regimes=("clean", "mixed"), study=study_of(*comparisons)))
    means = means_of(rows := evidence.run.predictions, right(rows))
    shown = table_of(evidence, "hypotheses").shown
    assert shown is not None
    assert set(shown["comparison"]) == {"SDM off (clean)", "SDM off (mixed)", "trained mixed"}
    found = {e.comparison.regime: e.estimate for e in evidence.effects if e.quantity == "word-drop 1.0"}
    sides = {
        "clean": ((WORSE, "clean"), (BASE, "clean")),
        "mixed": ((WORSE, "mixed"), (BASE, "mixed")),
        "mixed against clean": ((BASE, "mixed"), (BASE, "clean")),
    }
    assert found == {
        name: pytest.approx(at(means, *one, "word-drop 1.0") - at(means, *other, "word-drop 1.0"), abs=1e-12)
        for name, (one, other) in sides.items()
    }


@pytest.mark.parametrize(
    "comparisons",
    [
        [against(WORSE, "trained longer", regime=regime) for regime in ("clean", "matched")],
        [against(BASE, "trained mixed", "gain", "mixed", (BASE, regime)) for regime in ("clean", "matched")],
    ],
    ids=["named-so", "against-each-regime"],
)
def test_no_two_comparisons_are_called_the_same(tmp_path: Path, comparisons: list[ComparisonInfo]) -> None:
    made = replace(SMALL, regimes=("clean", "matched", "mixed"), study=study_of(*comparisons))
    evidence = written(tmp_path, made)
    assert len({forest.label(comparison, evidence) for comparison in comparisons}) == 2


def test_sides_that_err_differently_are_not_said_to_give_the_same_answers(tmp_path: Path) -> None:
    made = replace(SMALL, models=(BASE, SAME), study=study_of(against(SAME, "VDM off")))
    write(tmp_path, made)
    run = read_run(tmp_path)
    rows = run.predictions.copy()
    names = ["score_0", "score_1", "score_2"]
    wrong = (rows["variant"] == "vdm=off").to_numpy() & (right(rows) == 0).to_numpy()
    scores = rows[names].to_numpy().copy()
    third = 3 - scores.argmax(axis=1) - rows["truth"].to_numpy().astype(int)
    scores[wrong] = np.eye(3)[third[wrong]]
    assert wrong.any()
    rows[names] = scores
    assert "the same answers" not in " ".join(undecided(gather(replace(run, held=rows))))


# ------------------------------------------------------------------------------------------------- curves


def many(systems: int, **fields: object) -> Made:
    models = (BASE, *(f"dual:part{i}=off" for i in range(systems - 1)))
    regimes = ("clean", "mixed")
    study = study_of(*(against(m, f"without {m[-5]}", regime=r) for m in models[1:] for r in regimes))
    facts = {"transcripts": (), "seeds": 2, "utterances": 24, "clusters": 4, "skills": {}, "regimes": regimes}
    return replace(PARTS, models=models, **(facts | {"study": study} | fields))


@pytest.mark.slow
def test_many_systems_are_drawn_apart_and_figures_of_an_earlier_rendering_go(tmp_path: Path) -> None:
    always = {"forest", "slope", "training"} | {
        f"{n}-{r}" for n in ("confusion", "reliability") for r in ("clean", "mixed")
    }
    together = always | {"coverage", "degradation-word-drop", "degradation-typo"}
    apart = {f"degradation-{c}-{r}" for c in ("word-drop", "typo") for r in ("clean", "mixed")}
    corruptions = ("word-drop", "typo")
    write(tmp_path, many(degradation.MOST_TOGETHER, corruptions=corruptions))
    render(tmp_path, formats=["html", "csv"])
    assert figures_of(tmp_path) == together
    write(tmp_path, many(degradation.MOST_TOGETHER + 1, corruptions=corruptions))
    render(tmp_path, formats=["html", "csv"])
    assert figures_of(tmp_path) == always | apart
    labels = [label for label in labels_of(assert_valid(tmp_path)) if "heavier" in label]
    assert len(labels) == 4
    assert [len(re.findall("Trained (?:clean|mixed): dual goes from", label)) for label in labels] == [1] * 4
    write(tmp_path, many(2, corruptions=("word-drop",), study=None))
    render(tmp_path, formats=["html", "csv"])
    assert figures_of(tmp_path) == always - {"forest"} | {"coverage", "degradation-word-drop"}
    assert not {"hypotheses", "conditions"} & {file.stem for file in (tmp_path / "tables").iterdir()}


def test_each_variant_has_a_panel_beside_the_baseline(tmp_path: Path) -> None:
    evidence = written(tmp_path, many(degradation.MOST_TOGETHER + 1))
    figure = degradation.apart(evidence, "word-drop", "mixed")
    panels = [panel for panel in figure.axes if panel.get_visible()]
    assert [panel.get_title(loc="left") for panel in panels] == list(evidence.systems[1:])
    means = means_of(rows := evidence.run.predictions, right(rows))
    for panel, system in zip(panels, evidence.systems[1:], strict=True):
        curves = [line.get_ydata().tolist() for line in panel.lines if line.get_marker() not in ("None", "")]
        expected = [
            [100 * means[s, "mixed", c, r] for c, r in (("clean", 0.0), ("word-drop", 0.25), ("word-drop", 1.0))]
            for s in (BASE, system)
        ]
        assert curves == [pytest.approx(curve) for curve in expected]


def test_a_regime_in_which_only_the_baseline_is_done_yet_renders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canvas, "MOST_TOGETHER", 2)
    made = many(3)
    write(tmp_path, made)
    remove(tmp_path, *made.models[1:], regime="mixed")
    assert "degradation-word-drop-clean.svg" in {file.name for file in render(tmp_path, formats=["html"]).files}


# ---------------------------------------------------------------------------------------------- what is missing


@pytest.fixture(scope="module")
def gap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of ``PARTS``, of which one system has no finished cell."""
    folder = tmp_path_factory.mktemp("gap")
    write(folder, PARTS)
    remove(folder, SAME)
    render(folder)
    return folder


def test_a_system_without_a_finished_cell_leaves_its_own_comparisons_undefined(gap: Path) -> None:
    lost = {"VDM off", "VDM off, in vain"}
    rows = rows_of(gap, "hypotheses")
    assert {(r["comparison"], r["verdict"]) for r in rows} == {
        (name, "undefined" if name in lost else verdict) for name, verdict in VERDICTS.items()
    }
    reason = f"'{SAME}' has no finished cell"
    for row in both(gap):
        gone = row["comparison"] in lost
        assert row["estimate_reason"] == (reason if gone else "")
        assert (row["estimate"] == "NaN") == (row["p"] == "NaN") == (row["parameters"] == "NaN") == gone
    assert {row["family"] for row in rows} == {"Holm over 6 hypotheses of Accuracy"}
    text = body_text(assert_valid(gap))
    assert f"“–” is undefined: {reason}." in text
    assert "corrected together: 2 supported, 2 contradicted, 0 equivalent, 2 undecided, 4 undefined." in text
    assert "identical" not in text[text.index("What can be concluded") : text.index("Contents Effects")]


def test_the_note_on_missing_cells_names_the_variant(gap: Path) -> None:
    text = (gap / "report.md").read_text(encoding="utf-8")
    (note,) = [line for line in text.splitlines() if "cells are missing" in line]
    assert f"{SAME}, trained clean: 0 of 4 done." in note


@pytest.mark.usefixtures("no_figures")
def test_without_the_baseline_every_comparison_is_undefined_and_the_rest_renders(tmp_path: Path) -> None:
    write(tmp_path, SMALL)
    remove(tmp_path, BASE)
    result = render(tmp_path, formats=["html", "csv"])
    assert list(result.summary["verdict"]) == ["undefined"] * 2
    assert {row["estimate_reason"] for row in both(tmp_path)} == {f"'{BASE}' has no finished cell"}
    assert {row["system"] for row in rows_of(tmp_path, "scores")} == {WORSE}
    assert "The reference, dual, has no finished cell" in body_text(assert_valid(tmp_path))


# ----------------------------------------------------------------------------------------- whatever the text

TIED, MUTE = "dual:text=bounded", "dual:text=off"
BOUNDED = replace(
    SMALL,
    models=(BASE, TIED, MUTE),
    regimes=("clean", "matched"),
    skills={BASE: GOOD, TIED: Skill(0.8, 0.6, luck=3, noise=0.02), MUTE: Skill(0.55, 0.55, luck=4)},
    radii={TIED: 0.4, MUTE: WORDLESS / 10},
    study=study_of(against(TIED, "bounded"), against(MUTE, "mute"), titles={TIED: "the bounded one", MUTE: "the mute"}),
)
PROMISED = ">certified, any text</text>"


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bounded")
    write(folder, BOUNDED)
    render(folder)
    return folder


def certified_of(folder: Path) -> dict[str, dict[str, str]]:
    """System -> its line of the table, of which there is one each."""
    rows = rows_of(folder, "certified")
    found = {row["system"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def test_certified_numbers_are_those_of_the_rows_under_any_text(bounded: Path) -> None:
    run, table = read_run(bounded), certified_of(bounded)
    assert list(table) == [TIED, MUTE]
    rows = run.certified[run.certified["regime"] == "clean"]
    worst, sure = means_of(rows, right(rows)), means_of(rows, rows["certified"].astype(float))
    measured = means_of(run.predictions, right(run.predictions))
    for system, row in table.items():
        assert row["trained"] == "clean"
        assert float(row["any_text"]) == pytest.approx(worst[system, "clean", "any-text", 1.0], abs=1e-12)
        assert float(row["certified_share"]) == pytest.approx(sure[system, "clean", "any-text", 1.0], abs=1e-12)
        assert float(row["clean"]) == pytest.approx(measured[system, "clean", "clean", 0.0], abs=1e-12)
        lowest = min(value for (s, regime, *_), value in measured.items() if (s, regime) == (system, "clean"))
        assert float(row["worst_measured"]) == pytest.approx(lowest, abs=1e-12)
        assert float(row["any_text_low"]) <= float(row["any_text"]) <= float(row["any_text_high"])
        assert float(row["radius"]) == pytest.approx(1.1 * BOUNDED.radii[system])  # mean over 1, 1.1 and 1.2 times it
    assert table[TIED]["worst_measured_at"] == "word-drop 100 %"
    shares = {float(row[name]) for row in table.values() for name in ("any_text", "certified_share", "clean")}
    assert len(shares) == 5  # that of the mute is the same on clean text and under any


def test_a_bound_is_drawn_where_the_model_reads_words(bounded: Path) -> None:
    figure = degradation.degradation(gather(read_run(bounded)), "word-drop")
    levels = {
        panel.get_title(loc="left"): [line.get_ydata()[0] for line in panel.lines if list(line.get_xdata()) == [0, 1]]
        for panel in figure.axes
    }
    floor, promised = 36.0, 100 * float(certified_of(bounded)[TIED]["any_text"])
    assert levels["trained matched"] == [floor]
    assert sorted(levels["trained clean"]) == pytest.approx(sorted([floor, promised]))
    svg = (bounded / "figures" / "degradation-word-drop.svg").read_text(encoding="utf-8")
    assert svg.count(PROMISED) == 1
    assert "certified whatever the text" in degradation.caption(gather(read_run(bounded)), "word-drop")


def test_small_panels_of_many_variants_show_the_bound_too(bounded: Path) -> None:
    evidence = gather(read_run(bounded))
    for regime, count in (("clean", 1), ("matched", 0)):
        figure = degradation.apart(evidence, "word-drop", regime)
        (legend,) = figure.legends
        assert [text.get_text() for text in legend.get_texts()].count("certified, any text") == count
        panels = [panel for panel in figure.axes if panel.get_visible()]
        lines = [sum(list(line.get_xdata()) == [0, 1] for line in panel.lines) for panel in panels]
        assert lines == [1 + count, 1]  # the floor, and the bound of the first variant
        assert ("certified whatever the text" in degradation.apart_caption(evidence, "word-drop", regime)) == count


def test_what_is_promised_is_told_of_models_that_read_words_alone(bounded: Path) -> None:
    tree, row = assert_valid(bounded), certified_of(bounded)[TIED]
    text = body_text(tree)
    told = text[text.index("What can be concluded") : text.index("What cannot be concluded")]
    value, low, high, share = (points(row[n]) for n in ("any_text", "any_text_low", "any_text_high", "certified_share"))
    assert f"whatever the text, {value} % ({low} to {high}) is certified; of {share} % of the test utterances" in told
    assert told.count("the bounded one, trained clean: ") == told.count("trained") == 1
    (section,) = [section for section in tree.iter("section") if section.get("id") == "certified"]
    moves = [["".join(cell.itertext()) for cell in line][1:3] for line in section.iter("tr")][1:]
    assert moves == [["the bounded one", "0.44 (0.40 to 0.48)"], ["the mute", "0 (reads no words)"]]


def test_a_run_without_bounds_promises_nothing(parts: tuple[Path, Rendered], page: ElementTree.Element) -> None:
    assert not (parts[0] / "tables" / "certified.csv").exists()
    assert "certified" not in [section.get("id") for section in page.iter("section")]
    assert "promised" not in body_text(page)
    assert PROMISED not in (parts[0] / "figures" / "degradation-word-drop.svg").read_text(encoding="utf-8")


def test_bounds_of_a_run_trained_matched_alone_are_left_out(tmp_path: Path) -> None:
    study = study_of(against(TIED, "bounded", regime="matched"))
    evidence = written(tmp_path, replace(BOUNDED, models=(BASE, TIED), regimes=("matched",), study=study))
    assert not evidence.run.certified.empty
    assert not evidence.certified
    assert "certified" not in {table.name for table in tables(evidence)}


def test_a_bounded_regression_has_no_share_of_classes(tmp_path: Path) -> None:
    evidence = written(tmp_path, replace(BOUNDED, classes=(), regimes=("clean",)))
    rows = evidence.run.certified
    worst = means_of(rows, off_by(rows))
    table = table_of(evidence, "certified")
    assert table.shown is not None
    assert not [name for name in (*table.frame, *table.shown) if "share" in str(name) or "class" in str(name)]
    assert set(table.frame["system"]) == {TIED, MUTE}
    for row in table.frame.to_dict("records"):
        assert row["any_text"] == pytest.approx(worst[row["system"], "clean", "any-text", 1.0], abs=1e-6)
        assert row["worst_measured"] >= row["clean"]
    assert "utterances no text can change" not in " ".join(promises(evidence))


def test_a_metric_that_is_no_mean_over_utterances_is_not_certified(tmp_path: Path) -> None:
    run = write(tmp_path, replace(BOUNDED, regimes=("clean",)))
    info = run.info()
    run.write_info(info.model_copy(update={"plan": info.plan | {"metric": "uar"}}))
    evidence = gather(read_run(tmp_path))
    assert evidence.metric.name == "uar"
    assert not evidence.run.certified.empty
    assert not evidence.certified


def test_a_seed_that_is_left_out_counts_for_no_bound(tmp_path: Path) -> None:
    write(tmp_path, replace(BOUNDED, regimes=("clean",)))
    run = read_run(tmp_path)
    (cell,) = [c for c in run.cells if (c.variant, c.seed) == ("", 1)]
    run.folder.cell_file(cell.digest).unlink()
    evidence = gather(read_run(tmp_path))
    rows = run.certified[run.certified["seed"] != 1]
    worst, all_seeds = means_of(rows, right(rows)), means_of(run.certified, right(run.certified))
    found = evidence.certified[TIED, "clean"].metric.value
    assert found == pytest.approx(worst[TIED, "clean", "any-text", 1.0], abs=1e-12)
    assert found != pytest.approx(all_seeds[TIED, "clean", "any-text", 1.0], abs=1e-9)


# --------------------------------------------------------------------------------------------------- names


def test_text_alternatives_and_methods_call_systems_by_the_names_of_the_study(tmp_path: Path) -> None:
    evidence = written(tmp_path, replace(PARTS, corruptions=("word-drop", "typo", "filler"), seeds=2, utterances=24))
    assert evidence.grid is not None
    sheet = heat.Sheet("heatmap", "Corruptions, trained clean", (("clean", BASE), ("clean", WORSE)))
    for told in (
        findings.heat_finding(evidence, evidence.grid, sheet),
        findings.training_finding(evidence),
        findings.overview_finding(evidence, ("word-drop",), "clean"),
        findings.transcript_finding(evidence),
    ):
        assert "the baseline" in told
        assert not re.search(r"\bdual\b", told)
    assert "Models: the baseline (dual), without SDM (dual:sdm=off), " in " ".join(methods(evidence))


def test_models_that_were_there_before_are_told_of_each_merged_run(tmp_path: Path) -> None:
    runs = []
    for name, found in (("one", 2), ("two", 0), ("three", 3)):
        run = write(tmp_path / name, SMALL)
        run.write_info(run.info().model_copy(update={"found": found}))
        runs.append(read_run(tmp_path / name))
    said = " ".join(expectation(gather(merged(runs, tmp_path)[0])))
    for name, told in (("one", "2 of 6 trained models of"), ("three", "3 of 6 trained models of")):
        assert f"{told} {tmp_path / name} were there before that run" in said
    assert str(tmp_path / "two") not in said
    assert "2 of 6 trained models were there before this run" in " ".join(expectation(gather(runs[0])))
