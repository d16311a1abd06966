"""The report of many corruptions at several severities: heat map, tables of noise, and every name and mark in them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_run import TARGETS, WORST, Made, digest, write
from markdown_it import MarkdownIt
from reading import accuracies, body_text, direct, parse, rows_of

from dual_bench.metrics import ACCURACY, MAE
from dual_bench.report import evidence as evidence_module
from dual_bench.report import heat
from dual_bench.report.canvas import COLOURS, GRID, INK, MUTED, PAPER
from dual_bench.report.noise import DEPENDS, UNREACHED, Noise, gather_noise
from dual_bench.report.render import Rendered, render
from dual_bench.store import read_run

BATTERY = Made(
    corruptions=("word-drop", "typo", "case-punctuation", "filler", WORST),
    severities=(1, 2, 3, 4, 5),
    weak=("case-punctuation", "filler"),
    models=("dual", "text-only", "concat"),
    regimes=("clean", "mixed", "matched"),
    transcripts=(),
)
"""A plan refuses matched models for the worst case; the report does not mind."""


@pytest.fixture(scope="module", autouse=True)
def _few_resamples() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence_module, "RESAMPLES", 100)
        yield


@pytest.fixture(scope="module")
def battery(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rendered]:
    folder = tmp_path_factory.mktemp("battery")
    write(folder, BATTERY)
    return folder, render(folder)


@pytest.fixture(scope="module")
def markdown(battery: tuple[Path, Rendered]) -> str:
    return (battery[0] / "report.md").read_text(encoding="utf-8")


def noise_of(folder: Path) -> Noise:
    run = read_run(folder)
    return gather_noise(run.texts, run.predictions, run.info.severities)


# ---------------------------------------------------------------------------------------- the heat map


def test_the_table_of_the_heat_map_equals_the_rows(battery: tuple[Path, Rendered]) -> None:
    folder, _ = battery
    rows = rows_of(folder, "severity")
    assert len(rows) == 3 * 3 * 5 * 5
    asked = {(p.corruption, p.severity): p for p in BATTERY.scale()}
    values = accuracies(folder)
    for row in rows:
        point = asked[row["corruption"], int(row["severity"])]
        told = [float(row[name]) for name in ("target", "rate", "training_wer")]
        assert told == [TARGETS[point.severity], point.rate, point.wer]
        assert row["reached"] == str(point.reached)
        who = (row["trained"], row["system"])
        value = values[*who, row["corruption"], point.rate]
        assert float(row["value"]) == pytest.approx(value, abs=1e-12)
        assert float(row["loss"]) == pytest.approx(values[*who, "clean", 0.0] - value, abs=1e-12)
        assert float(row["low"]) <= float(row["value"]) <= float(row["high"])


def test_the_severities_of_the_table_carry_what_the_noise_did_to_the_test_text(battery: tuple[Path, Rendered]) -> None:
    folder, _ = battery
    texts = read_run(folder).texts
    row = next(r for r in rows_of(folder, "severity") if (r["corruption"], r["severity"]) == ("typo", "4"))
    part = texts[(texts["corruption"] == "typo") & (texts["rate"] == 0.5)]
    draws = [draw["errors"].sum() / draw["words"].sum() for _, draw in part.groupby("draw")]
    assert float(row["wer"]) == pytest.approx(np.mean(draws), abs=1e-12)


def cells_of(svg: str) -> list[str]:
    """The numbers in the cells of a heat map."""
    return re.findall(r">(\d+\.\d†?)</text>", svg)


@pytest.mark.parametrize("regime", BATTERY.regimes)
def test_every_cell_of_the_map_is_a_number_of_the_table_and_unreached_ones_are_marked(
    battery: tuple[Path, Rendered], regime: str
) -> None:
    folder, _ = battery
    expected, values = [], accuracies(folder)
    for row in rows_of(folder, "severity"):
        if row["trained"] == regime:
            mark = "" if row["reached"] == "True" else UNREACHED
            expected.append(f"{100 * float(row['value']):.1f}{mark}")
    for system in BATTERY.models:
        expected += [f"{100 * values[regime, system, 'clean', 0.0]:.1f}"] * 5
    svg = (folder / "figures" / f"heatmap-{regime}.svg").read_text(encoding="utf-8")
    found = cells_of(svg)
    scale = len(found) - len(expected)  # a step of the scale may have a decimal too
    assert 0 <= scale <= len(heat.STEPS)
    assert (
        not pd.Series(expected).value_counts().gt(pd.Series(found).value_counts().reindex(expected, fill_value=0)).any()
    )
    assert sum(UNREACHED in cell for cell in found) == 2 * 3 * 3
    assert "<pattern" in svg
    assert svg.count(f">trained {regime}</text>") == len(BATTERY.models)


def test_severities_that_share_a_rate_show_one_number_and_the_caption_says_what_was_reached(
    battery: tuple[Path, Rendered], markdown: str
) -> None:
    folder, _ = battery
    whose = ("clean", "dual", "filler", "False")
    rows = rows_of(folder, "severity")
    same = {r["value"] for r in rows if (r["trained"], r["system"], r["corruption"], r["reached"]) == whose}
    assert len(same) == 1
    assert "case-punctuation 30 % in place of severity 3, 4 and 5; filler 30 % in place of" in markdown
    noise = next(line for line in markdown.splitlines() if line.startswith("| case-punctuation | 3†"))
    assert "3†, 4†, 5† | 35 %, 50 %, 70 % | 30.0 % | 100 %" in noise


def test_the_map_comes_after_the_curves_and_states_its_finding(battery: tuple[Path, Rendered], markdown: str) -> None:
    assert markdown.index("## Degradation curves") < markdown.index("## Every corruption at every severity")
    rows = [
        r
        for r in rows_of(battery[0], "severity")
        if (r["trained"], r["system"], r["severity"]) == ("clean", "dual", "5")
    ]
    losses = {r["corruption"]: float(r["loss"]) for r in rows}
    assert max(losses, key=losses.__getitem__) == WORST
    assert min(losses, key=losses.__getitem__) == "filler"
    high, low = (f"{100 * losses[name]:.1f}" for name in (WORST, "filler"))
    told = f"largest loss {high} under {WORST} {DEPENDS}, smallest {low} under filler"
    assert told in markdown
    assert (
        "at severity 5 the one with the largest measured loss of dual is worst-case (chosen for each model), a"
        in markdown
    )


def luminance(colour: str) -> float:
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return float(np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    dark, bright = sorted((luminance(one), luminance(other)))
    return (bright + 0.05) / (dark + 0.05)


def test_numbers_can_be_read_on_every_step_in_either_theme(battery: tuple[Path, Rendered]) -> None:
    page = (battery[0] / "index.html").read_text(encoding="utf-8")
    for block in page.split("@media screen and (prefers-color-scheme: dark)")[:2]:
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block[:1500]))
        steps = [colours[f"heat-{i}"] for i in range(len(heat.STEPS))]
        for i, step in enumerate(steps):
            assert contrast(step, colours["on-low" if i < heat.SWITCH else "on-high"]) > 4.5
        order = [luminance(step) for step in steps]
        assert order in (sorted(order), sorted(order, reverse=True))
    distinct = {*heat.STEPS, heat.ON_LOW, heat.ON_HIGH, *COLOURS, INK, MUTED, GRID, PAPER}
    assert len(distinct) == len(heat.STEPS) + 2 + len(COLOURS) + 3
    assert not re.search("|".join(heat.STEPS), page[page.index("<body>") :])


def test_rates_make_a_map_where_there_are_three_corruptions(tmp_path: Path) -> None:
    made = Made(corruptions=("word-drop", "typo", "token-noise"), regimes=("clean",))
    write(tmp_path, made)
    render(tmp_path, formats=["html", "csv"])
    text = body_text(parse((tmp_path / "index.html").read_text(encoding="utf-8")))
    assert "Every corruption at every rate" in text
    assert "Intervals: tables/curves.csv" in text
    assert not (tmp_path / "tables" / "severity.csv").exists()
    svg = (tmp_path / "figures" / "heatmap-clean.svg").read_text(encoding="utf-8")
    assert f"{100 * direct(tmp_path, 'clean', 'dual', 'token-noise', 0.5):.1f}" in cells_of(svg)
    write(tmp_path / "two", Made(regimes=("clean",)))
    render(tmp_path / "two", formats=["html"])
    assert not list((tmp_path / "two" / "figures").glob("heatmap*"))


# ----------------------------------------------------------------------------------------- names, marks


def test_every_regime_is_named_and_explained(battery: tuple[Path, Rendered], markdown: str) -> None:
    for regime in BATTERY.regimes:
        assert f"## Trained {regime}" in markdown
        for table in ("severity", "scores", "retention", "comparisons", "training", "curves"):
            assert regime in {row["trained"] for row in rows_of(battery[0], table)}
    assert (
        "drawn evenly between 0 and the largest at which that corruption is tested; worst-case is left out" in markdown
    )
    assert "for each corruption at each rate a model of its own, trained on just that, in other draws" in markdown


def test_wherever_the_worst_case_stands_it_is_said_to_depend_on_the_model(
    battery: tuple[Path, Rendered], markdown: str
) -> None:
    shown = [line for line in markdown.splitlines() if line.startswith("|") and WORST in line]
    assert shown
    assert all(line.count(WORST) == line.count(f"{WORST} {DEPENDS}") for line in shown)
    for alt in re.findall(r"!\[(.*?)\]\(", markdown):
        assert alt.count(WORST) == alt.count(f"{WORST} {DEPENDS}")
    assert f"**Degradation under {WORST} {DEPENDS}.**" in markdown
    for name in ("heatmap-clean", "overview-clean"):
        svg = (battery[0] / "figures" / f"{name}.svg").read_text(encoding="utf-8")
        assert len(re.findall(rf"{re.escape(DEPENDS)}</(?:tspan|text)>", svg)) == 1
    assert {row["depends_on_model"] for row in rows_of(battery[0], "severity") if row["corruption"] == WORST} == {
        "True"
    }
    told = " ".join(markdown.split())
    assert "The words of worst-case are chosen for each trained model" in told
    assert "worst-case: the text depends on the model, and each number is the mean over" in told


def test_noise_that_depends_on_the_model_is_measured_over_all_models(battery: tuple[Path, Rendered]) -> None:
    folder, _ = battery
    rows = read_run(folder).predictions
    rows = rows[(rows["corruption"] == WORST) & (rows["rate"] == 0.5)]
    run = read_run(folder)
    words = run.texts[run.texts["corruption"] == "clean"].set_index("utterance")["words"].rename(index=str)
    count = rows["utterance"].astype(str).map(words)
    models = [
        (part["wer"] * count[part.index]).sum() / count[part.index].sum()
        for _, part in rows.groupby(["model", "regime", "seed"], observed=True)
    ]
    row = next(r for r in rows_of(folder, "noise") if (r["corruption"], float(r["rate"])) == (WORST, 0.5))
    assert float(row["wer"]) == pytest.approx(np.mean(models), abs=1e-6)
    assert (int(row["models"]), int(row["draws"]), row["wer_sd"]) == (len(models), 1, "NaN")
    assert len(models) == 27


@pytest.mark.usefixtures("no_figures")
def test_noise_behind_the_words_has_no_word_error_rate_and_says_why(tmp_path: Path) -> None:
    write(tmp_path, Made(corruptions=("token-noise", "token-unk"), regimes=("clean",)))
    render(tmp_path, formats=["md", "csv"])
    for row in rows_of(tmp_path, "noise"):
        silent = row["corruption"].startswith("token")
        assert [row[name] == "NaN" for name in ("wer", "cer", "dropped")] == [silent] * 3
        assert float(row["cosine"]) > 0
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert re.search(r"\| token-noise \| 50 % \| 2 \| – \| – \| – \| 0\.300", text)
    assert "“–” under WER, CER and words dropped: token-unk and token-noise act behind the words" in text
    assert {row["wer"] for row in rows_of(tmp_path, "curves") if float(row["rate"])} == {"NaN"}


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (Made(corruptions=("typo", "word-drop")), "word-drop"),
        (Made(corruptions=("typo",)), "typo"),
        (Made(corruptions=("token-noise", "typo")), "typo"),
        (Made(corruptions=("token-noise",)), "token-noise"),
        (Made(corruptions=(WORST,)), WORST),
        (Made(corruptions=(WORST, "typo")), "typo"),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value.corruptions),
)
def test_the_headlines_are_of_the_noise_that_takes_most_words(tmp_path: Path, made: Made, expected: str) -> None:
    write(tmp_path, made)
    place = noise_of(tmp_path).heaviest()
    assert place is not None
    assert (place.corruption, place.rate) == (expected, 1.0)
    gone = expected in ("word-drop", WORST)
    assert (place.label == "all text gone") == gone
    assert gone or place.label == f"{expected} 100 %"


def test_a_severity_is_named_as_such_and_marked_where_it_is_not_reached(battery: tuple[Path, Rendered]) -> None:
    noise = noise_of(battery[0])
    assert noise.where("word-drop", 0.7) == "severity 5"
    assert noise.where("filler", 1.0) == f"severity 3 to 5{UNREACHED}"
    assert noise.place(WORST, 0.7).label == f"{WORST} {DEPENDS} severity 5"
    assert noise.quantity("typo mean") == "typo mean over severities"
    assert noise.quantity("typo area") == "typo area"
    assert noise.quantity("clean") == "clean text"
    assert noise.quantity("transcript:whisper") == "whisper text"
    assert noise.quantity("unknown 0.4") == "unknown at 40 %"


# ------------------------------------------------------------------------------------ the whole report


def test_the_mean_over_severities_equals_the_rows(battery: tuple[Path, Rendered]) -> None:
    folder, _ = battery
    rates = [p.rate for p in BATTERY.scale() if p.corruption == "filler"]
    found = accuracies(folder)
    values = [found["mixed", "dual", "filler", rate] for rate in rates]
    kept = next(r for r in rows_of(folder, "retention") if (r["trained"], r["system"]) == ("mixed", "dual"))
    assert float(kept["mean_filler"]) == pytest.approx(np.mean(values), abs=1e-12)
    other = [found["mixed", "text-only", "filler", rate] for rate in rates]
    compared = next(
        r for r in rows_of(folder, "comparisons")
        if (r["trained"], r["quantity"], r["right"]) == ("mixed", "filler mean", "text-only")
    )  # fmt: skip
    assert float(compared["estimate"]) == pytest.approx(np.mean(values) - np.mean(other), abs=1e-12)


def test_page_and_markdown_parse_and_long_parts_are_folded(battery: tuple[Path, Rendered], markdown: str) -> None:
    tree = parse((battery[0] / "index.html").read_text(encoding="utf-8"))
    folded = [e.text for e in tree.findall(".//summary")]
    assert "Each of the 5 corruptions by itself" in folded
    assert f"{len(rows_of(battery[0], 'comparisons'))} rows" in folded
    ids = [e.get("id") for e in tree.iter() if e.get("id")]
    assert len(ids) == len(set(ids))
    assert "Every corruption at every severity" in body_text(tree)
    parsed = MarkdownIt("commonmark").enable("table").render(markdown)
    tables = [
        "severity",
        "field",
        "scores",
        "retention",
        "robustness",
        "comparisons",
        "pairwise",
        "classical",
        "variance",
    ]
    tables += ["confidence", "noise", "training", "ceilings"]
    assert parsed.count("<table>") == len(tables)
    apart = ("heatmap", "overview", "matrix", "confusion", "reliability")
    assert parsed.count("<img") == 3 * len(apart) + 5 + len(["slope", "coverage", "training"])
    assert parsed.count("<details>") == parsed.count("</details>") > 0


def test_a_severity_run_renders_to_the_same_bytes_without_torch(battery: tuple[Path, Rendered], tmp_path: Path) -> None:
    folder, result = battery
    script = (
        "import sys; from pathlib import Path; from dual_bench.report import evidence; evidence.RESAMPLES = 100;"
        "from dual_bench.report.render import render; folder, out = map(Path, sys.argv[1:]);"
        "render(folder, out=out, formats=['html', 'csv']); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, str(folder), str(tmp_path)], check=True)
    before = {f.relative_to(folder): f.read_bytes() for f in result.files if f.suffix in (".html", ".csv", ".svg")}
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_curves_lie_on_the_measured_word_error_rate(battery: tuple[Path, Rendered], markdown: str) -> None:
    svg = (battery[0] / "figures" / "degradation-typo.svg").read_text(encoding="utf-8")
    assert "measured word error rate (%)" in svg
    assert "nominal" not in svg
    assert "the x axis is the word error rate that they really make of the test text" in markdown
    points = {float(r["wer"]) for r in rows_of(battery[0], "curves") if r["corruption"] == "typo"}
    assert points == {0.0} | {float(r["wer"]) for r in rows_of(battery[0], "noise") if r["corruption"] == "typo"}


@pytest.mark.usefixtures("no_figures")
def test_a_missing_matched_model_is_counted_among_those_of_its_regime(tmp_path: Path) -> None:
    made = Made(models=("dual", "concat"), regimes=("clean", "matched"), corruptions=("typo",), severities=(1, 5))
    run = write(tmp_path, made)
    cells = {(c.model, c.regime, c.corruption, c.rate, c.seed): c.digest for c in read_run(tmp_path).cells}
    run.cell_file(cells["concat", "matched", "typo", 0.7, 1]).unlink()
    render(tmp_path, formats=["md"])
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "concat, trained matched: 11 of 12 done." in text
    assert "Training seed 1 is left out" in text
    assert len(cells) == 2 * 3 * (1 + 4)
    assert digest(0) in cells.values()


@pytest.mark.usefixtures("no_figures")
def test_a_regression_has_its_map_in_the_direction_of_its_metric(tmp_path: Path) -> None:
    made = Made(classes=(), corruptions=("typo", WORST), severities=(1, 5), regimes=("clean",))
    write(tmp_path, made)
    render(tmp_path, formats=["md", "csv"])
    rows = rows_of(tmp_path, "severity")
    for row in rows:
        value = direct(tmp_path, "clean", row["system"], row["corruption"], float(row["rate"]), MAE)
        clean = direct(tmp_path, "clean", row["system"], "clean", 0.0, MAE)
        assert float(row["value"]) == pytest.approx(value, abs=1e-12)
        assert float(row["loss"]) == pytest.approx(value - clean, abs=1e-12)
    assert "MAE, lower is better" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert ACCURACY.name not in {row["metric"] for row in rows}


@pytest.mark.parametrize(
    "made",
    [
        Made(models=("dual",), corruptions=("typo",), severities=(3,), regimes=("matched",), transcripts=()),
        Made(corruptions=("filler",), severities=(4, 5), weak=("filler",), regimes=("mixed",)),
        Made(corruptions=(WORST,), severities=(1, 2, 3, 4, 5), seeds=1),
        Made(corruptions=("token-zero",), rates=(1.0,), transcripts=(), draws=1),
        Made(corruptions=("my.own:NOISE", "typo", "no-such"), regimes=("clean",)),
    ],
    ids=["one-matched", "one-shared-rate", "worst-case-one-seed", "one-token-rate", "unknown-names"],
)
def test_narrow_plans_of_severities_render(tmp_path: Path, made: Made) -> None:
    write(tmp_path, made)
    render(tmp_path, formats=["html", "csv"])
    page = body_text(parse((tmp_path / "index.html").read_text(encoding="utf-8")))
    for name in (*made.models, *made.corruptions):
        assert name in page
