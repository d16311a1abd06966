"""Several runs in one report, and runs that are unfinished, of an older schema, or damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from calling import invoke, refused
from made_run import Made, write
from reading import body_text, direct, parse, rows_of, table_bytes

from dual_bench.report import corpora, evidence
from dual_bench.report.merge import merged
from dual_bench.report.render import FORMATS, Rendered, render
from dual_bench.store import RunFolder, read_run
from dual_bench.types import UserError

HERE = Made(models=("dual", "text-only"), regimes=("clean",), name="here")
THERE = Made(models=("dual", "audio-vision"), regimes=("clean", "mixed"), name="here", first_cell=64)


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (evidence, corpora):
        monkeypatch.setattr(module, "RESAMPLES", 200)


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, Path]:
    """Two runs on one corpus that share the model dual."""
    for made, folder in ((HERE, "one"), (THERE, "two")):
        write(tmp_path / folder, made)
    return tmp_path / "one", tmp_path / "two"


def change(folder: Path, **fields: Any) -> None:
    """Other fields in the plan of a run."""
    record = json.loads((folder / "run.json").read_text())
    record["plan"] |= fields
    (folder / "run.json").write_text(json.dumps(record))


def test_runs_on_one_corpus_become_one_comparison(both: tuple[Path, Path], tmp_path: Path) -> None:
    render(*both, out=tmp_path / "out", formats=["csv"])
    scores = {
        (row["trained"], row["system"]): float(row["value"])
        for row in rows_of(tmp_path / "out", "scores")
        if row["metric"] == "accuracy" and row["condition"] == "clean text"
    }
    assert set(scores) == {
        *(("clean", system) for system in ("dual", "text-only", "audio-vision")),
        *(("mixed", system) for system in ("dual", "audio-vision")),
    }
    assert scores["clean", "text-only"] == pytest.approx(direct(both[0], "clean", "text-only", "clean", 0.0))
    assert scores["mixed", "audio-vision"] == pytest.approx(direct(both[1], "mixed", "audio-vision", "clean", 0.0))


@pytest.mark.usefixtures("no_figures")
def test_a_merged_report_shows_the_plans_that_were_run(both: tuple[Path, Path], tmp_path: Path) -> None:
    page = parse(render(*both, out=tmp_path / "out", formats=["html"]).files[0].read_text(encoding="utf-8"))
    shown = ["".join(e.itertext()) for e in page.iter("pre")]
    plans = [read_run(folder).info.plan for folder in both]
    assert any(text.strip().startswith("[") and json.loads(text) == plans for text in shown)


def test_of_a_training_that_two_runs_hold_the_first_counts_and_is_named(
    both: tuple[Path, Path], tmp_path: Path
) -> None:
    found = merged([read_run(folder) for folder in both], tmp_path)[0]
    who = [(cell.model, cell.regime, cell.seed) for cell in found.cells]
    assert len(who) == len(set(who))
    ours = {cell.digest for cell in read_run(both[0]).cells}
    assert {c.digest for c in found.cells if (c.model, c.regime) == ("dual", "clean")} <= ours
    assert any("both hold dual, trained clean" in fault for fault in found.faults)


PARTED = Made(models=("dual", "concat"), regimes=("clean",))


def parted(folder: Path, *kept: slice, status: str = "partial") -> list[Path]:
    """Runs of one plan, each with some of its six cells."""
    found = []
    for number, each in enumerate(kept):
        part = write(folder / f"part{number}", PARTED)
        record = json.loads(part.run_file.read_text())
        for digest in set(record["cells"]) - set(record["cells"][each]):
            part.cell_file(digest).unlink()
        part.run_file.write_text(json.dumps(record | {"status": status}))
        found.append(part.path)
    return found


def complaints(rendered: Rendered) -> str:
    page = parse(rendered.files[0].read_text(encoding="utf-8"))
    return " ".join(" ".join(e.itertext()) for e in page.iter("p") if "problem" in (e.get("class") or ""))


@pytest.mark.usefixtures("no_figures")
def test_parts_of_one_plan_are_the_whole_to_the_byte_and_without_complaint(tmp_path: Path) -> None:
    write(tmp_path / "whole", PARTED)
    whole = render(tmp_path / "whole", formats=["html", "csv"])
    parts = parted(tmp_path, slice(1, 6, 2), slice(0, 6, 2))
    rendered = render(*parts, out=tmp_path / "out", formats=["html", "csv"])
    assert table_bytes(tmp_path / "out") == table_bytes(tmp_path / "whole")
    assert complaints(rendered) == complaints(whole) == ""
    merged_cells = merged([read_run(part) for part in parts], tmp_path)[0].info.cells
    assert merged_cells == read_run(tmp_path / "whole").info.cells


@pytest.mark.parametrize("status", ["partial", "failed"])
def test_what_all_parts_of_a_plan_lack_is_said_once_and_by_system(tmp_path: Path, status: str) -> None:
    parts = parted(tmp_path, slice(0, 2), slice(1, 4), slice(3, 4), status=status)
    (found,) = merged([read_run(part) for part in parts], tmp_path)
    said = " ".join(found.faults)
    assert said.count("missing or damaged") == 1
    assert f"{parts[0]} and 2 more parts of its plan: 2 of 6 cells are missing" in said
    assert said.count("concat, trained clean: 1 of 3 done.") == 1
    assert "dual, trained clean" not in said
    assert said.count("came to no end") == (3 if status == "failed" else 0)


@pytest.mark.usefixtures("no_figures")
def test_a_single_part_says_that_it_is_one(tmp_path: Path) -> None:
    (part,) = parted(tmp_path, slice(0, 4))
    said = complaints(render(part, formats=["html", "csv"]))
    assert "This folder holds a part of the plan, 4 of 6 cells." in said
    assert "concat, trained clean: 1 of 3 done." in said
    assert "dual-bench report" in said
    assert "no end" not in said


@pytest.mark.parametrize(
    ("field", "value"),
    [("metric", "uar"), ("draws", 9), ("seeds", 9), ("root_seed", 1), ("rates", [0.5]), ("training", {"epochs": 1})],
)
def test_plans_that_cannot_be_compared_are_refused_naming_the_field(
    both: tuple[Path, Path], tmp_path: Path, field: str, value: object
) -> None:
    change(both[1], **{field: value})
    said = refused("report", *both, "--out", tmp_path / "out")
    assert f"cannot be compared: {field} differs" in said
    assert not (tmp_path / "out").exists()


def test_runs_on_corpora_of_one_name_and_other_content_are_refused(both: tuple[Path, Path], tmp_path: Path) -> None:
    record = json.loads((both[1] / "run.json").read_text())
    record["corpus"]["fingerprint"] = "0" * 64
    (both[1] / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="corpus fingerprint differs"):
        render(*both, out=tmp_path / "out")


def test_runs_on_several_corpora_are_compared_by_ranks(tmp_path: Path) -> None:
    names = ("talks", "films", "calls")
    for i, name in enumerate(names):
        write(tmp_path / name, Made(name=name, first_cell=100 * i, cluster_prefix=name))
    assert invoke("report", *(tmp_path / name for name in names), "--out", tmp_path / "out").exit_code == 0
    blocks = rows_of(tmp_path / "out", "blocks")
    assert {row["corpus"] for row in blocks} == set(names)
    one = [row for row in blocks if (row["corpus"], row["system"], row["trained"]) == ("films", "dual", "mixed")]
    assert np.mean([float(row["value"]) for row in one]) == pytest.approx(
        direct(tmp_path / "films", "mixed", "dual", "clean", 0.0)
    )
    text = body_text(parse((tmp_path / "out" / "index.html").read_text(encoding="utf-8")))
    assert "made elsewhere" not in text
    assert (tmp_path / "out" / "figures" / "ranks-clean.svg").is_file()


def test_a_folder_given_twice_or_an_out_that_holds_something_else_is_refused(both: tuple[Path, Path]) -> None:
    assert "more than once" in refused("report", both[0], both[0])
    assert "choose another --out" in refused("report", *both, "--out", both[0])
    assert "did you mean 'one'?" in refused("report", both[0].parent / "onee")


# --------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_writes_its_files_and_no_others(both: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    folder = tmp_path / "out"
    rendered = render(both[0], out=folder, formats=[name])
    endings = {"html": {"html", "svg"}, "md": {"md", "png"}, "latex": {"tex", "pdf"}, "csv": {"csv"}}[name]
    there = {p for p in folder.rglob("*") if p.is_file() and p.suffix != ".sha256"}
    assert {p.suffix[1:] for p in there} == endings
    assert there == set(rendered.files)


@pytest.mark.usefixtures("no_figures")
def test_the_page_is_opened_when_asked_for(both: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("typer.launch", opened.append)
    assert invoke("report", both[0], "--format", "html", "--open").exit_code == 0
    assert opened == [str(both[0] / "index.html")]
    assert "add html" in refused("report", both[0], "--format", "csv", "--open")
    assert "did you mean 'latex'?" in refused("report", both[0], "--format", "html,latx")


# ------------------------------------------------------------------------- unfinished, older, damaged


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return write(tmp_path / "run", Made(corruptions=("word-drop",)))


def problems(folder: Path) -> str:
    """What the page says of the whole run, after rendering it anew."""
    return complaints(render(folder, formats=["html", "csv"]))


@pytest.mark.usefixtures("no_figures")
def test_a_system_without_a_seed_that_the_others_have_does_not_hold_up_the_rest(run: RunFolder) -> None:
    done = [cell for cell in read_run(run.path).cells if cell.model == "text-only" and cell.regime == "mixed"]
    for cell in done:
        if cell.seed != 2:
            run.cell_file(cell.digest).unlink()
    for cell in read_run(run.path).cells:
        if cell.model != "text-only" and cell.seed == 2:
            run.rows_file(cell.digest).write_bytes(b"damaged")
    said = problems(run.path)
    assert "text-only, trained mixed: 1 of 3 done" in said
    assert "text-only (mixed) is left out" in said.replace("Text-only", "text-only")
    assert {(r["system"], r["trained"]) for r in rows_of(run.path, "scores")} >= {
        ("dual", "mixed"),
        ("text-only", "clean"),
    }


@pytest.mark.parametrize("content", [None, b"", b"PAR1 no more"])
@pytest.mark.usefixtures("no_figures")
def test_without_its_texts_a_run_is_reported_but_for_the_words(run: RunFolder, content: bytes | None) -> None:
    render(run.path, formats=["csv"])
    before = rows_of(run.path, "scores")
    run.texts_file.unlink()
    if content is not None:
        run.texts_file.write_bytes(content)
    assert "no test text can be shown" in problems(run.path)
    assert rows_of(run.path, "scores") == before


@pytest.mark.usefixtures("no_figures")
def test_a_run_of_an_older_schema_is_reported_and_says_so(run: RunFolder) -> None:
    render(run.path, formats=["csv"])
    before = table_bytes(run.path)
    record = json.loads(run.run_file.read_text())
    for later in ("study", "source", "found"):
        del record[later]
    run.run_file.write_text(json.dumps(record | {"schema_version": 2}))
    assert "schema 2" in problems(run.path)
    assert table_bytes(run.path) == before


@pytest.mark.usefixtures("no_figures")
def test_every_byte_that_is_lost_from_a_cell_is_noticed(run: RunFolder) -> None:
    cells = read_run(run.path).cells
    for i, cell in enumerate(cells[:4]):
        data = bytearray(run.rows_file(cell.digest).read_bytes())
        data[(i + 1) * len(data) // 6] ^= 1
        run.rows_file(cell.digest).write_bytes(bytes(data))
    assert f"4 of {len(cells)} cells are missing or damaged" in problems(run.path)


def test_other_noisy_words_under_the_same_plan_are_refused(both: tuple[Path, Path], tmp_path: Path) -> None:
    texts = pq.read_table(both[1] / "texts.parquet").to_pandas()
    noisy = (texts["corruption"] == "word-drop") & (texts["rate"] == 1.0)
    texts.loc[noisy, "text"] = "of another version"
    pq.write_table(pa.Table.from_pandas(texts), both[1] / "texts.parquet")
    with pytest.raises(UserError, match=r"what the models read differs, word-drop 1"):
        render(*both, out=tmp_path / "out")


def test_what_makes_no_difference_does_not_keep_runs_apart(both: tuple[Path, Path], tmp_path: Path) -> None:
    change(both[0], corruptions=["utterance-drop", "word-drop"], rates=[0, 0.5, 1], severities=None)
    change(both[1], regimes=["clean"], rates=[1.0, 0.5])
    assert len(merged([read_run(folder) for folder in both], tmp_path)) == 1


def test_all_seeds_of_a_system_come_from_one_run(both: tuple[Path, Path], tmp_path: Path) -> None:
    first = read_run(both[0])
    lost = [cell for cell in first.cells if (cell.model, cell.seed) == ("dual", 2)]
    for cell in lost:
        first.folder.cell_file(cell.digest).unlink()
    found = merged([read_run(folder) for folder in both], tmp_path)[0]
    ours = {cell.digest for cell in first.cells}
    mine = [cell for cell in found.cells if (cell.model, cell.regime) == ("dual", "clean")]
    assert {cell.seed for cell in mine} == {0, 1}
    assert {cell.digest for cell in mine} <= ours


@pytest.mark.usefixtures("no_figures")
def test_systems_that_not_all_corpora_have_are_not_ranked_and_are_named(tmp_path: Path) -> None:
    for i, (name, more) in enumerate((("talks", ()), ("films", ("concat",)))):
        made = Made(models=("dual", "text-only", *more), name=name, first_cell=100 * i, cluster_prefix=name)
        write(tmp_path / name, made)
    render(tmp_path / "talks", tmp_path / "films", out=tmp_path / "out", formats=["html", "csv"])
    assert {row["system"] for row in rows_of(tmp_path / "out", "ranks")} == {"dual", "text-only"}
    text = body_text(parse((tmp_path / "out" / "index.html").read_text(encoding="utf-8")))
    assert "films: concat not ranked" in text


@pytest.mark.usefixtures("no_figures")
def test_formats_of_an_earlier_rendering_are_written_anew(run: RunFolder) -> None:
    render(run.path, formats=["md", "csv"])
    report = run.path / "report.md"
    report.write_text("of other rows")
    render(run.path, formats=["csv"])
    assert report.read_text(encoding="utf-8") != "of other rows"
    assert not (run.path / "index.html").exists()


def test_the_folder_of_a_run_may_be_spelt_in_two_ways(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.path.parent)
    assert invoke("report", run.path.name, "--out", run.path, "--format", "csv").exit_code == 0
