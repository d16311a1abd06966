"""Reports are rendered from made runs, and every number is checked against the rows."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

import html5lib
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from made_run import NOTE, Made, digest, write
from markdown_it import MarkdownIt
from reading import assert_only_our_scripts, body_text, direct, parse, rows_of, table_bytes, without_bokeh
from statsmodels.stats.multitest import multipletests

from dual_bench.metrics import ACC2_NON0, ACCURACY, MAE, UAR
from dual_bench.report import evidence as evidence_module
from dual_bench.report import methods, sentences
from dual_bench.report import page as page_module
from dual_bench.report.canvas import Picture
from dual_bench.report.evidence import Evidence, gather
from dual_bench.report.merge import merged
from dual_bench.report.render import Rendered, render
from dual_bench.report.table import Table
from dual_bench.stats.contrasts import Verdict
from dual_bench.stats.frame import Key
from dual_bench.store import read_run
from dual_bench.types import UserError

HOSTILE = "<script>alert(\"1\")</script> | =cmd 'q' `x` $y$\n# [z](http://evil.example/)"


@pytest.fixture(scope="module", autouse=True)
def _few_resamples() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence_module, "RESAMPLES", 200)
        yield


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rendered]:
    folder = tmp_path_factory.mktemp("run")
    write(folder, Made())
    return folder, render(folder)


# ------------------------------------------------------------------------------------------- the folder

FIGURES = [
    "coverage", "degradation-utterance-drop", "degradation-word-drop", "slope", "training", "transcripts",
    *(f"{name}-{regime}" for name in ("confusion", "matrix", "reliability") for regime in ("clean", "mixed")),
]  # fmt: skip


def test_every_file_is_written_and_none_is_left_over(rendered: tuple[Path, Rendered]) -> None:
    folder, result = rendered
    figures = FIGURES
    assert sorted(p.name for p in (folder / "figures").iterdir()) == sorted(
        f"{name}.{kind}" for name in figures for kind in ("svg", "png")
    )
    names = {"field", "scores", "retention", "comparisons", "noise", "training", "ceilings", "curves"}
    names |= {"robustness", "variance", "confidence", "classical", "pairwise", "confusion", "sentences"}
    assert {p.stem for p in (folder / "tables").iterdir()} == names
    assert all(file.stat().st_size for file in result.files)
    assert len(set(result.files)) == len(["index.html", "report.md", "methods.md"]) + len(names) + 2 * len(figures)


def test_the_summary_has_a_row_for_each_trained_system(rendered: tuple[Path, Rendered]) -> None:
    summary = rendered[1].summary
    assert list(summary["system"]) == ["dual", "text-only", "audio-vision"] * 2
    assert list(summary["trained"]) == ["clean"] * 3 + ["mixed"] * 3
    assert re.fullmatch(r"\d+\.\d \(\d+\.\d to \d+\.\d\)", summary["all text gone"][0])


def test_rendering_twice_gives_the_same_bytes(rendered: tuple[Path, Rendered]) -> None:
    folder, result = rendered
    before = {file: file.read_bytes() for file in result.files}
    render(folder)
    assert {file: file.read_bytes() for file in result.files} == before


@pytest.mark.usefixtures("no_figures")
def test_tables_do_not_tell_when_or_in_how_many_sittings(tmp_path: Path) -> None:
    made = Made(models=("dual", "text-only"))
    straight, resumed = write(tmp_path / "a", made), write(tmp_path / "b", made)
    render(straight.path, formats=["md", "csv"])
    info = resumed.info()
    later = info.provenance.model_copy(update={"started": "2025-02-02T00:00:00+00:00", "command": "other", "jobs": 9})
    resumed.write_info(info.model_copy(update={"provenance": later}))
    cell = resumed.finished(digest(0))
    assert cell is not None
    slower = cell.model_copy(update={"seconds_fit": 99.0, "threads": 7})
    resumed.cell_file(digest(0)).write_text(slower.model_dump_json())
    render(resumed.path, formats=["md", "csv"])
    assert table_bytes(straight.path) == table_bytes(resumed.path)
    assert (straight.path / "report.md").read_text() != (resumed.path / "report.md").read_text()


# ------------------------------------------------------------------------------------------ the numbers


def test_scores_equal_the_rows(rendered: tuple[Path, Rendered]) -> None:
    folder, _ = rendered
    metrics = {"accuracy": ACCURACY, "uar": UAR}
    checked = 0
    for row in rows_of(folder, "scores"):
        if metric := metrics.get(row["metric"]):
            value = direct(folder, row["trained"], row["system"], row["corruption"], float(row["rate"]), metric)
            assert float(row["value"]) == pytest.approx(value, abs=1e-12)
            assert float(row["low"]) <= float(row["value"]) <= float(row["high"])
            checked += 1
    assert checked == 2 * 6 * 3


def test_curves_retention_and_comparisons_equal_the_rows(rendered: tuple[Path, Rendered]) -> None:
    folder, _ = rendered
    curve = {
        float(r["rate"]): r for r in rows_of(folder, "curves")
        if (r["corruption"], r["trained"], r["system"]) == ("word-drop", "clean", "dual")
    }  # fmt: skip
    clean, half, gone = (float(curve[rate]["value"]) for rate in (0.0, 0.5, 1.0))
    assert half == pytest.approx(direct(folder, "clean", "dual", "word-drop", 0.5), abs=1e-12)
    assert [float(curve[r]["ceiling"]) for r in (0.0, 0.5, 1.0)] == pytest.approx([0.95, 0.85, 0.75])
    assert float(curve[0.5]["floor"]) == 0.36

    kept = next(r for r in rows_of(folder, "retention") if (r["trained"], r["system"]) == ("clean", "dual"))
    assert float(kept["lost"]) == pytest.approx(clean - gone, abs=1e-12)
    assert float(kept["area_word_drop"]) == pytest.approx((clean + 2 * half + gone) / 4, abs=1e-12)
    assert float(kept["retention"]) == pytest.approx(gone / clean, abs=1e-12)
    assert float(kept["retention_above_floor"]) == pytest.approx((gone - 0.36) / (clean - 0.36), abs=1e-12)

    compared = [r for r in rows_of(folder, "comparisons") if (r["trained"], r["quantity"]) == ("mixed", "clean")]
    assert {r["right"] for r in compared} == {"text-only", "audio-vision"}
    for row in compared:
        sides = [direct(folder, "mixed", side, "clean", 0.0) for side in (row["left"], row["right"])]
        assert float(row["estimate"]) == pytest.approx(sides[0] - sides[1], abs=1e-12)


def test_noise_is_measured_over_the_whole_test_part(rendered: tuple[Path, Rendered]) -> None:
    folder, _ = rendered
    texts = read_run(folder).texts
    row = next(r for r in rows_of(folder, "noise") if (r["corruption"], float(r["rate"])) == ("word-drop", 0.5))
    draws = [
        g.errors.sum() / g.words.sum()
        for _, g in texts.query("corruption == 'word-drop' and rate == 0.5").groupby("draw")
    ]
    assert float(row["wer"]) == pytest.approx(np.mean(draws), abs=1e-12)
    assert float(row["wer_sd"]) == pytest.approx(np.std(draws, ddof=1), abs=1e-12)
    assert int(row["draws"]) == 2
    heard = next(r for r in rows_of(folder, "noise") if r["corruption"] == "transcript:whisper")
    assert math.isnan(float(heard["wer_sd"]))


# ---------------------------------------------------------------------------------------------- the page


def test_the_page_is_valid_and_asks_nothing_of_the_network(rendered: tuple[Path, Rendered]) -> None:
    page = (rendered[0] / "index.html").read_text(encoding="utf-8")
    tree = parse(page)
    assert body_text(tree).startswith(NOTE)
    assert not re.search(r"https?://", without_bokeh(page))
    assert len(tree.findall(".//style")) == 1
    assert_only_our_scripts(parse(page))
    assert not tree.findall(".//link") + tree.findall(".//img")
    ids = [e.get("id") for e in tree.iter() if e.get("id")]
    assert len(ids) == len(set(ids))
    targets = [value for e in tree.iter() for name, value in e.items() if name.endswith("href")]
    assert all(target.startswith("#") and target[1:] in ids for target in targets)


def test_markdown_opens_with_the_note_and_its_tables_parse(rendered: tuple[Path, Rendered]) -> None:
    text = (rendered[0] / "report.md").read_text(encoding="utf-8")
    assert text.startswith(f"**{NOTE}**\n\n# made")
    parsed = MarkdownIt("commonmark").enable("table").render(text)
    shown = [
        "field",
        "scores",
        "retention",
        "robustness",
        "comparisons",
        "pairwise",
        "classical",
        "variance",
        "confidence",
    ]
    assert parsed.count("<table>") == len([*shown, "noise", "training", "ceilings"])
    assert parsed.count("<img") == len(FIGURES)


def test_every_figure_states_its_finding(rendered: tuple[Path, Rendered]) -> None:
    folder, _ = rendered
    page = parse((folder / "index.html").read_text(encoding="utf-8"))
    figures = [e for e in page.iter() if str(e.tag).endswith("svg") and e.get("aria-hidden") != "true"]
    labels = [figure.get("aria-label", "") for figure in figures]
    assert len(labels) == len(FIGURES)
    assert all(re.search(r"\d", label) for label in labels)
    assert "Trained clean: dual goes from" in labels[0]
    assert all(figure.get("role") == "img" for figure in figures)


def test_headlines_carry_intervals_and_name_the_regimes(rendered: tuple[Path, Rendered]) -> None:
    text = (rendered[0] / "report.md").read_text(encoding="utf-8")
    assert "## Trained clean" in text
    assert "## Trained mixed" in text
    assert re.search(r"With all text gone, the accuracy of dual is [\d.]+ % \([\d.]+ to [\d.]+\): a loss of", text)
    assert re.search(r"the difference dual minus audio-vision is .* points \(.* to .*\)", text)
    assert "Undecided does not mean equal." in text
    assert "Holm over" in text


# ------------------------------------------------------------------------------------- what can go wrong


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    made = Made(
        models=("dual", "=cmd.x|<b>$a$"), regimes=("clean",), classes=("a", HOSTILE), notes=(HOSTILE,), name=HOSTILE,
        transcripts=("<i>|t",), cluster_prefix=HOSTILE,
    )  # fmt: skip
    write(tmp_path, made)
    render(tmp_path)
    tree = parse((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert not [e for e in tree.iter() if e.tag in ("script", "i", "a") and "evil" in "".join(e.itertext())]
    assert not [e for e in tree.iter("b") if "".join(e.itertext()).startswith("$a$")]
    assert_only_our_scripts(parse((tmp_path / "index.html").read_text(encoding="utf-8")))
    assert body_text(tree).startswith(" ".join(HOSTILE.split()))
    parsed = MarkdownIt("commonmark").enable("table").render((tmp_path / "report.md").read_text(encoding="utf-8"))
    assert not re.search(r"<script|<b>|<i>|<a ", parsed)
    assert parsed.index("alert") < parsed.index("<h1>")
    systems = {row["system"] for row in rows_of(tmp_path, "scores")}
    assert systems == {"dual", "'=cmd.x|<b>$a$"}
    for figure in (tmp_path / "figures").glob("*.svg"):
        ElementTree.parse(figure)


@pytest.mark.usefixtures("no_figures")
def test_a_missing_cell_is_named_and_the_rest_rendered(tmp_path: Path) -> None:
    run = write(tmp_path, Made())
    run.cell_file(digest(1)).unlink()
    render(tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    top = text[: text.index("## What was asked")]
    assert "1 of 18 cells is missing or damaged (000100010001)" in top
    assert "dual, trained clean: 2 of 3 done." in top
    assert "Training seed 1 is left out" in top
    assert body_text(parse((tmp_path / "index.html").read_text())).startswith(
        f"{NOTE} made: what is left when the words go Note"
    )
    assert {row["seeds"] for row in rows_of(tmp_path, "scores")} == {"2"}


@pytest.mark.usefixtures("no_figures")
def test_the_way_to_the_ceiling_is_measured_between_exact_ends(tmp_path: Path) -> None:
    write(tmp_path, Made(regimes=("clean",)))
    render(tmp_path, formats=["md", "csv"])
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    (clean,) = [float(r["value"]) for r in rows_of(tmp_path, "curves") if r["system"] == "dual" and r["rate"] == "0.0"][
        :1
    ]
    share = 100 * (clean - 0.35) / (0.95 - 0.35)
    assert f"dual comes {share:.1f} %" in text
    assert "best constant answer can expect (35.0 %) to what a perfect perceiver can (95.0 %), both exact" in text


@pytest.mark.usefixtures("no_figures")
def test_cells_made_by_different_code_are_said_to_be(tmp_path: Path) -> None:
    run = write(tmp_path, Made(regimes=("clean",)))
    render(tmp_path, formats=["md"])
    assert "different code" not in (tmp_path / "report.md").read_text(encoding="utf-8")
    file = run.cell_file(digest(0))
    file.write_text(file.read_text().replace('"dual-bench 0"', '"dual-bench 1"'))
    render(tmp_path, formats=["md"])
    told = "The cells were made by different code: dual-bench 0; dual-bench 1."
    assert told in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_the_heaviest_noise_is_that_which_dropped_most_whatever_its_name(tmp_path: Path) -> None:
    write(tmp_path, Made(regimes=("clean",), corruptions=("my.own:NOISE",), rates=(0.5, 1.0)))
    render(tmp_path, formats=["csv"])
    assert {row["condition"] for row in rows_of(tmp_path, "scores")} >= {"clean text", "all text gone"}
    assert rows_of(tmp_path, "retention")


@pytest.mark.usefixtures("no_figures")
def test_without_the_reference_nothing_is_compared(tmp_path: Path) -> None:
    run = write(tmp_path, Made(regimes=("clean",)))
    for cell in range(3):
        run.cell_file(digest(cell)).unlink()
    render(tmp_path, formats=["md", "csv"])
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "The reference, dual, has no finished cell" in text
    assert not (tmp_path / "tables" / "comparisons.csv").exists()
    assert {row["system"] for row in rows_of(tmp_path, "scores")} == {"text-only", "audio-vision"}


def test_a_table_that_no_longer_applies_is_removed(tmp_path: Path) -> None:
    run = write(tmp_path, Made(regimes=("clean",)))
    render(tmp_path, formats=["csv"])
    for cell in range(3):
        run.cell_file(digest(cell)).unlink()
    render(tmp_path, formats=["csv"])
    assert not (tmp_path / "tables" / "comparisons.csv").exists()


def test_one_seed_has_no_intervals_and_says_why(tmp_path: Path) -> None:
    write(tmp_path, Made(seeds=1))
    render(tmp_path, formats=["md", "csv"])
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    reason = "needs at least 2 training seeds, found 1"
    assert f"No estimate has an interval ({reason}): the numbers describe this run and decide nothing." in text
    assert "No bands" in text
    claims = text[text.index("## Trained clean") : text.index("## Trained mixed")]
    assert re.fullmatch(r"Measured .*, without intervals: .*", claims.split("- ", 1)[1].splitlines()[0])
    assert not re.search("highest|loss|better", claims)
    assert {row["low"] for row in rows_of(tmp_path, "curves")} == {"NaN"}
    assert {row["reason"] for row in rows_of(tmp_path, "curves")} == {reason}
    assert "dual is better" not in text


def test_regression(tmp_path: Path) -> None:
    write(tmp_path, Made(classes=()))
    render(tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "On clean text the lowest estimate of MAE" in text
    assert "MAE, lower is better" in text
    assert "“–” is undefined: a share of MAE kept has no meaning: lower is better." in text
    assert "lower is better" in (tmp_path / "figures" / "degradation-word-drop.svg").read_text(encoding="utf-8")
    assert not (tmp_path / "tables" / "ceilings.csv").exists()
    for name, metric in (("mae", MAE), ("acc2-non0", ACC2_NON0)):
        row = next(r for r in rows_of(tmp_path, "scores") if (r["metric"], r["condition"]) == (name, "all text gone"))
        value = direct(tmp_path, "clean", "dual", row["corruption"], float(row["rate"]), metric)
        assert float(row["value"]) == pytest.approx(value, abs=1e-12)
    kept = next(iter(rows_of(tmp_path, "retention")))
    assert float(kept["lost"]) > 0
    assert kept["retention"] == "NaN"


@pytest.mark.parametrize(
    "made",
    [
        Made(corruptions=(), rates=()),
        Made(corruptions=("word-drop",), rates=(0.4,), transcripts=()),
        Made(models=("dual",), regimes=("mixed",), transcripts=()),
        Made(models=("text-only", "concat", "dual:sdm=off")),
    ],
    ids=["transcripts-only", "one-rate", "one-model", "reference-is-the-first"],
)
def test_narrow_plans_render(tmp_path: Path, made: Made) -> None:
    write(tmp_path, made)
    render(tmp_path, formats=["html", "csv"])
    page = body_text(parse((tmp_path / "index.html").read_text(encoding="utf-8")))
    for model in made.models:
        assert model in page
    assert {row["system"] for row in rows_of(tmp_path, "scores")} == set(made.models)


@pytest.mark.usefixtures("no_figures")
def test_a_part_that_is_not_all_text_gone_is_not_called_so(tmp_path: Path) -> None:
    write(tmp_path, Made(corruptions=("word-drop",), rates=(0.4, 0.8)))
    render(tmp_path, formats=["md"])
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "word-drop 80 %" in text
    assert "all text gone" not in text


def test_the_run_of_a_folder_without_cells_is_refused(tmp_path: Path) -> None:
    run = write(tmp_path, Made(models=("dual",), regimes=("clean",), seeds=1))
    run.cell_file(digest(0)).unlink()
    with pytest.raises(UserError, match="no finished cell"):
        render(tmp_path)
    assert not (tmp_path / "index.html").exists()


def test_the_reference_is_dual_wherever_it_stands(tmp_path: Path) -> None:
    write(tmp_path, Made(models=("text-only", "dual"), regimes=("clean",)))
    assert gather(read_run(tmp_path)).systems == ("dual", "text-only")


# ------------------------------------------------------------------------------ what the page is made of


def test_conclusions_come_first_and_open_questions_say_what_would_decide_them(rendered: tuple[Path, Rendered]) -> None:
    folder, _ = rendered
    text = (folder / "report.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)", text, re.MULTILINE)
    assert headings[:5] == [
        "What was asked", "What can be concluded", "What cannot be concluded", "Trained clean", "Trained mixed",
    ]  # fmt: skip
    can, cannot = (text.split(f"## {heading}\n")[1].split("\n## ")[0] for heading in headings[1:3])
    rows = rows_of(folder, "comparisons")
    count = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in ("better", "worse", "undecided")}
    assert f"dual is better in {count['better']}, worse in {count['worse']}." in can
    assert f"{count['undecided']} of the {len(rows)} comparisons with dual are undecided." in cannot
    assert len(re.findall("would decide it|table of comparisons", cannot)) == min(count["undecided"], 8) + 1
    assert "undecided" not in can
    assert "do not cover another training sample, another corpus, or another choice of settings" in cannot
    for regime in ("clean", "mixed"):
        for row in rows_of(folder, "retention"):
            if row["trained"] == regime and float(row["lost_low"]) > 0:
                told = next(line for line in can.splitlines() if f"trained {regime}, accuracy is worse" in line)
                assert f"{row['system']} by {100 * float(row['lost']):.1f} points" in told


def test_the_explorer_holds_the_numbers_of_the_curves(rendered: tuple[Path, Rendered]) -> None:
    folder, _ = rendered
    page = parse((folder / "index.html").read_text(encoding="utf-8"))
    (data,) = [json.loads(s.text or "") for s in page.iter("script") if s.get("id") == "explorer-numbers"]
    table = {(r["corruption"], r["trained"], r["system"], 100 * float(r["rate"])): r for r in rows_of(folder, "curves")}
    names = [row["system"] for row in rows_of(folder, "retention") if row["trained"] == "clean"]
    assert [system[0] for system in data["systems"]] == names
    checked = 0
    for name, corruption in zip(("word-drop", "utterance-drop"), data["corruptions"], strict=True):
        for regime, curves in zip(data["regimes"], corruption["curves"], strict=True):
            for number, *columns in curves:
                for x, value, low, high, told in zip(corruption["x"], *columns, strict=True):
                    row = table[name, regime, names[number], x]
                    found = [100 * float(row[column]) for column in ("value", "low", "high")]
                    assert [value, low, high] == pytest.approx(found, rel=1e-4)
                    assert told.startswith(f"{found[0]:.1f} % ({found[1]:.1f}")
                    checked += 1
    assert checked == len(table)
    assert data["floor"] == pytest.approx(36.0)


def test_a_run_without_curves_has_no_explorer_and_no_library(tmp_path: Path) -> None:
    write(tmp_path, Made(corruptions=("word-drop",), rates=(1.0,), models=("dual",), regimes=("clean",)))
    render(tmp_path, formats=["html"])
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert 'id="explorer"' not in page
    assert "Bokeh Contributors" not in page


def test_headings_are_in_order_and_the_contents_lead_to_every_section(rendered: tuple[Path, Rendered]) -> None:
    page = parse((rendered[0] / "index.html").read_text(encoding="utf-8"))
    levels = [int(e.tag[1]) for e in page.iter() if re.fullmatch(r"h\d", str(e.tag))]
    assert levels[0] == levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    targets = [a.get("href", "")[1:] for nav in page.iter("nav") for a in nav.iter("a")]
    sections = [s.get("id") for s in page.findall(".//div[@id='after-contents']/section")]
    assert targets == sections
    assert {e.tag for e in page.iter()} >= {"header", "main", "nav"}


def test_emphasised_cells_are_strong_in_both_and_others_are_not() -> None:
    shown = pd.DataFrame({"system": ["a|b", "c"], "score": ["1.0", "2.0"]})

    @dataclass(frozen=True)
    class Bold(Table):
        bold: frozenset[tuple[int, str]] = frozenset({(1, "score"), (0, "system")})

    made = page_module.context(
        [Bold("scores", "Scores", shown, shown)], (), name="n", title="t", headlines=(), methods=(), provenance=(),
        command="c",
    )  # fmt: skip
    tree = parse(page_module.html(made))
    assert ["".join(e.itertext()) for e in tree.iter("strong")] == ["a|b", "2.0"]
    parsed = MarkdownIt("commonmark").enable("table").render(page_module.markdown(made))
    assert re.findall("<strong>(.*?)</strong>", parsed) == ["a|b", "2.0"]


def test_inline_figures_keep_what_is_drawn_and_lose_what_is_not_needed(rendered: tuple[Path, Rendered]) -> None:
    text = (rendered[0] / "figures" / "degradation-word-drop.svg").read_text(encoding="utf-8")
    systems = text.count('id="system-2"')
    text = text.replace('<g id="line2d_1">', '<g id="system-2">')
    name = 'system id="system-9" #0072b2 1.23456'
    text = text.replace("</svg>", f'<text x="1.23456">{name}</text></svg>')
    found = page_module.inline(Picture("curve", "t", "c", '"<alt>', text))
    before, after = (html5lib.parseFragment(t, namespaceHTMLElements=False) for t in (text, str(found)))
    for tag in ("path", "use", "text", "g"):
        assert len(list(after.iter(SVG + tag))) == len(list(before.iter(SVG + tag))) > 0, tag
    assert [e.text for e in after.iter(SVG + "text")][-1] == name
    assert [e.get("x") for e in after.iter(SVG + "text")][-1] == "1.23"
    assert sum(e.get("class") == "system-2" for e in after.iter()) == systems + 1
    ids = {e.get("id") for e in after.iter() if e.get("id")}
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', str(found)))
    assert ids == used
    assert all(one.startswith("curve-") for one in ids)
    assert len(found) < 0.7 * len(text)
    assert next(after.iter(SVG + "svg")).get("aria-label") == '"<alt>'


SVG = "{http://www.w3.org/2000/svg}"


def test_methods_stand_alone(rendered: tuple[Path, Rendered]) -> None:
    evidence = gather(read_run(rendered[0]))
    text = page_module.methods_markdown(page_module.of_run(evidence, (), ()))
    parsed = MarkdownIt("commonmark").render(text)
    assert parsed.startswith("<h1>Methods: made")
    plain = " ".join(re.sub("<.*?>", " ", parsed).split())
    for told in (
        NOTE, "Corpus: made", "100 train, 40 validation, 48 test", "3 seeds", "2 draws", "bootstrap resamples",
        "t tests", "Holm's method", "dual-bench run made --name made", "dual-bench: 0",
    ):  # fmt: skip
        assert told in plain, told


# ------------------------------------------------------------------------------------- what is concluded


def texts(evidence: Evidence) -> dict[str, str]:
    """Heading -> its sentences."""
    return {passage.heading: " ".join(passage.sentences) for passage in sentences.headlines(evidence)}


def test_who_loses_is_decided_by_holm_over_the_losses_of_all_systems_and_regimes(
    rendered: tuple[Path, Rendered],
) -> None:
    evidence = gather(read_run(rendered[0]))
    rows, p = list(evidence.rows()), []
    for regime, system in rows:
        clean, noisy = (evidence.point(Key(system, regime, *where)) for where in (("clean", 0.0), ("word-drop", 1.0)))
        width = (clean - noisy).spread
        ratio = abs(clean.estimate - noisy.estimate) / width.error if width.error else 0.0
        p.append(2 * scipy.stats.t.sf(ratio, width.freedom) if ratio else np.nan)
    tested = [each for each in p if each == each]
    adjusted = dict(zip([r for r, each in zip(rows, p, strict=True) if each == each],
                        multipletests(tested, method="holm")[1], strict=True))  # fmt: skip
    said = texts(evidence)["What can be concluded"]
    shown = 0
    for regime, system in rows:
        found = re.search(rf"trained {regime}, accuracy is worse than on clean text: (.*?)\(Holm over (\d+) ", said)
        told = found is not None and f"{system} by " in found[1]
        assert told == (adjusted.get((regime, system), 1.0) < 0.05), (regime, system)
        assert found is None or int(found[2]) == len(tested)
        shown += told
    assert shown


def test_a_loss_that_correction_does_not_leave_is_nowhere_called_a_loss(
    rendered: tuple[Path, Rendered], monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence = gather(read_run(rendered[0]))
    assert evidence.loss("dual", "clean", evidence.poles[1]).interval.low > 0
    monkeypatch.setattr(sentences, "ALPHA", 1e-300)
    said = texts(evidence)
    assert "worse than on clean text" not in said["What can be concluded"]
    assert "trained clean, a loss cannot be told from none after correction: dual " in said["What cannot be concluded"]
    assert re.search(
        r": a measured loss of [^:]*, which after correction cannot be told from none", said["Trained clean"]
    )


def test_every_comparison_that_the_reference_loses_is_named_wherever_it_is(rendered: tuple[Path, Rendered]) -> None:
    evidence = gather(read_run(rendered[0]))
    poles = {"clean", "word-drop 1.0"}
    verdicts: itertools.cycle[Verdict] = itertools.cycle(("worse", "better", "worse", "undecided", "better"))
    planted = tuple(replace(c, verdict=next(verdicts)) for c in evidence.contrasts)
    said = texts(replace(evidence, contrasts=planted))["What can be concluded"]
    elsewhere = [c for c in planted if c.quantity not in poles]
    assert {c.verdict for c in elsewhere} == {"worse", "better", "undecided"}
    for c in elsewhere:
        named = f"{c.right} (trained {c.regime}, {evidence.noise.quantity(c.quantity)})"
        assert (named in said) == (c.verdict == "worse")
    won = sum(c.verdict == "better" for c in elsewhere)
    assert f", and better in {won} comparison{'' if won == 1 else 's'}." in said


# --------------------------------------------------------------------------------------------- the methods


def told_of(evidence: Evidence) -> str:
    return " ".join(methods.methods(evidence))


PARTICULAR = (
    "All pairs of systems",
    "Fieller's",
    "Shapley",
    "EMAP",
    "Calibration: ",
    "picked by rule",
    "than on clean",
)


def test_methods_explain_what_the_report_has_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "all", Made(probed=True, regimes=("clean",)))
    everything = told_of(gather(read_run(tmp_path / "all")))
    assert [name for name in PARTICULAR if name not in everything] == []
    bare_run = Made(classes=(), models=("dual", "text-only"), regimes=("clean",), corruptions=(), transcripts=())
    write(tmp_path / "bare", bare_run)
    bare = told_of(gather(read_run(tmp_path / "bare")))
    assert [name for name in PARTICULAR if name in bare] == []
    assert "Every interval is by itself, not corrected for their number" in bare


def test_methods_tell_what_was_done_and_what_was_only_planned(tmp_path: Path) -> None:
    run = write(tmp_path, Made())
    assert "Each is trained with 3 seeds in the regimes" in told_of(gather(read_run(tmp_path)))
    for cell in (2, 12, 13, 14, 15, 16, 17):  # a seed of dual, and all of audio-vision
        run.cell_file(digest(cell)).unlink()
    told = told_of(gather(read_run(tmp_path)))
    assert "Models: dual, text-only. Each is trained with 2 seeds (planned: 3) in the regimes clean (" in told
    assert "Planned, but without a finished model: audio-vision." in told


def test_methods_of_merged_runs_tell_which_models_each_regime_has(tmp_path: Path) -> None:
    write(tmp_path / "one", Made(models=("dual", "text-only"), regimes=("clean",)))
    write(tmp_path / "two", Made(models=("text-only", "audio-vision"), regimes=("mixed",), first_cell=64))
    (run,) = merged([read_run(tmp_path / "one"), read_run(tmp_path / "two")], tmp_path)
    told = told_of(gather(run))
    assert "Each is trained" not in told
    for regime, models in (("clean", "dual, text-only"), ("mixed", "text-only, audio-vision")):
        assert re.search(rf"{regime} \([^)]*\), of which there are {models}[;.]", told), regime
    assert "Trained mixed there is no dual, and nothing is compared with it." in told
