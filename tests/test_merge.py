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

from dual_bench.report.merge import merged
from dual_bench.report.render import FORMATS, render
from dual_bench.store import RunFolder, read_run
from dual_bench.types import UserError

HERE = Made(models=("dual", "text-only"), regimes=("clean",), name="here")
THERE = Made(models=("dual", "audio-vision"), regimes=("clean", "mixed"), name="here", first_cell=64)


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


def test_parts_of_one_plan_are_put_together(tmp_path: Path) -> None:
    made = Made(models=("dual", "concat"), regimes=("clean",))
    whole = write(tmp_path / "whole", made)
    render(tmp_path / "whole", formats=["csv"])
    cells = list(whole.info().cells)
    for name, lost in (("a", cells[:2]), ("b", cells[2:])):
        part = write(tmp_path / name, made)
        for digest in lost:
            part.cell_file(digest).unlink()
    rendered = render(tmp_path / "a", tmp_path / "b", out=tmp_path / "out", formats=["html", "csv"])
    assert table_bytes(tmp_path / "out") == table_bytes(tmp_path / "whole")
    text = body_text(parse(rendered.files[0].read_text(encoding="utf-8")))
    assert "2 of 6 cells are missing or damaged" in text  # of the one part
    assert "4 of 6 cells are missing or damaged" in text  # of the other


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
    page = parse(render(folder, formats=["html", "csv"]).files[0].read_text(encoding="utf-8"))
    return " ".join(" ".join(e.itertext()) for e in page.iter("p") if "problem" in (e.get("class") or ""))


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
def test_without_its_texts_a_run_is_reported_but_for_the_words(run: RunFolder, content: bytes | None) -> None:
    render(run.path, formats=["csv"])
    before = rows_of(run.path, "scores")
    run.texts_file.unlink()
    if content is not None:
        run.texts_file.write_bytes(content)
    assert "no test text can be shown" in problems(run.path)
    assert rows_of(run.path, "scores") == before


def test_a_run_of_an_older_schema_is_reported_and_says_so(run: RunFolder) -> None:
    render(run.path, formats=["csv"])
    before = table_bytes(run.path)
    record = json.loads(run.run_file.read_text())
    for later in ("study", "source", "found"):
        del record[later]
    run.run_file.write_text(json.dumps(record | {"schema_version": 2}))
    assert "schema 2" in problems(run.path)
    assert table_bytes(run.path) == before


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


def test_systems_that_not_all_corpora_have_are_not_ranked_and_are_named(tmp_path: Path) -> None:
    for i, (name, more) in enumerate((("talks", ()), ("films", ("concat",)))):
        made = Made(models=("dual", "text-only", *more), name=name, first_cell=100 * i, cluster_prefix=name)
        write(tmp_path / name, made)
    render(tmp_path / "talks", tmp_path / "films", out=tmp_path / "out", formats=["html", "csv"])
    assert {row["system"] for row in rows_of(tmp_path / "out", "ranks")} == {"dual", "text-only"}
    text = body_text(parse((tmp_path / "out" / "index.html").read_text(encoding="utf-8")))
    assert "films: concat not ranked" in text


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
