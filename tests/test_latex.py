"""Tables as LaTeX and CSV: what stands in a cell, what is bold, and that pdflatex makes a page of it."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_run import Made, Skill, write
from pylatexenc.latex2text import LatexNodes2Text
from typeset import typeset

from dual_bench.report import canvas, latex, page
from dual_bench.report import evidence as evidence_module
from dual_bench.report.evidence import gather
from dual_bench.report.table import BEST, Table
from dual_bench.report.tables import tables
from dual_bench.store import read_run

SIGNS = "a − b, 5 × 3, χ² ± 1 – “so” … ≥ 2 † ε é Ł ß µ °"
HEAD = (
    r"\documentclass[a4paper]{article}\usepackage[T1]{fontenc}\usepackage[margin=2cm]{geometry}"
    r"\usepackage{array,booktabs,graphicx,longtable,pdflscape}"
)


@pytest.fixture(scope="module", autouse=True)
def _few_resamples() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence_module, "RESAMPLES", 200)
        yield


def made_tables(folder: Path, made: Made) -> dict[str, Table]:
    write(folder, made)
    return {table.name: table for table in tables(gather(read_run(folder)))}


def of(shown: pd.DataFrame, **more: object) -> Table:
    return replace(Table("made", "Made up", pd.DataFrame(), shown), **more)  # type: ignore[arg-type]


def body(tex: str) -> list[list[str]]:
    """The rows between the last \\midrule and the end, as LaTeX."""
    text = re.split(r"\\bottomrule\n(?!\\endfoot)|\\end\{longtable\}", tex.rpartition("\\midrule\n")[2])[0]
    text = text.rpartition("\\endfoot\n")[2]
    rows = re.sub(r"\\addlinespace\n", "", text).split("\\\\\n")[:-1]
    return [row.removesuffix(" ").split(" & ") for row in rows]


def read(cell: str) -> str:
    return LatexNodes2Text().latex_to_text(cell.replace(r"\allowbreak{}", "").replace(r"\ensuremath{-}", "−"))


def test_every_cell_is_in_the_table_and_repeated_leading_ones_are_blank(tmp_path: Path) -> None:
    for table in made_tables(tmp_path, Made()).values():
        if table.shown is None:
            continue
        tex = latex.table(table)
        for rule in (r"\toprule", r"\midrule", r"\bottomrule", rf"\label{{tab:{table.name}}}", r"\caption{"):
            assert rule in tex
        found = [[read(cell) for cell in row] for row in body(tex)]
        wanted = table.shown.to_numpy(str).tolist()
        assert len(found) == len(wanted)
        above: list[str] = []
        for row, texts in zip(found, wanted, strict=True):
            blank = [i for i, (one, other) in enumerate(zip(row, texts, strict=True)) if one != other]
            assert blank == list(range(len(blank)))
            assert all(row[i] == "" and above[i] == texts[i] for i in blank)
            above = texts


def test_bold_is_better_than_each_other_and_nothing_else_is(tmp_path: Path) -> None:
    best, worse = Skill(0.9, 0.6, luck=0, noise=0.01), Skill(0.5, 0.3, luck=0, noise=0.01)
    made = Made(regimes=("clean",), seeds=4, clusters=12, utterances=96)
    told = {}
    for name, second in (("one", worse), ("two", best._replace(luck=5))):
        skills = {"dual": best, "text-only": second, "audio-vision": worse}
        found = made_tables(tmp_path / name, replace(made, skills=skills))
        for which in ("scores", "retention"):
            table = found[which]
            assert table.shown is not None
            assert BEST in table.notes
            told[name, which] = {(str(table.shown["system"][row]), column) for row, column in table.bold}
            strong = {(i, read(c)) for i, row in enumerate(body(latex.table(table))) for c in row if "textbf" in c}
            assert strong == {(row, table.shown[column][row]) for row, column in table.bold}
    assert told["one", "scores"] == {("dual", "Accuracy (%)")}
    assert told["one", "retention"] == {("dual", "Clean text (%)"), ("dual", "All text gone (%)")}
    assert told["two", "scores"] == told["two", "retention"] == set()


def test_nothing_is_bold_where_nothing_is_compared(tmp_path: Path) -> None:
    alone = made_tables(tmp_path / "alone", Made(models=("dual",)))["scores"]
    assert (alone.bold, BEST in alone.notes) == (frozenset(), False)
    assert made_tables(tmp_path / "once", Made(seeds=1))["scores"].bold == frozenset()


def test_a_caption_says_what_stands_in_brackets(tmp_path: Path) -> None:
    found = made_tables(tmp_path, Made())
    assert r"In brackets: 95 {\%} intervals." in latex.table(found["scores"])
    assert "In brackets: ranges." in latex.table(found["training"])
    assert "In brackets" not in latex.table(found["ceilings"])


# ---------------------------------------------------------------------------------------------- pdflatex


def test_the_report_typesets_and_nothing_leaves_its_page(tmp_path: Path) -> None:
    names = [f"dual:a_setting_of_some_length={i},another={i}" for i in range(6)]
    heard = ("whisper", "wav2vec")
    write(tmp_path, Made(models=("dual", *names), transcripts=heard, corruptions=("word-drop",), draws=1, seeds=2))
    (tmp_path / "tables").mkdir()
    evidence = gather(read_run(tmp_path))
    found, picture = (
        tables(evidence),
        canvas.Album(tmp_path / "figures", ["pdf"]).save(canvas.blank(2.0, layout=None), "a", "A_B", "5 %.", ""),
    )
    said = page.of_run(evidence, found, [picture])
    kept = {name: said[name] for name in ("title", "methods", "headlines", "notes", "problems")}
    (tmp_path / "report.tex").write_text(latex.document(found, [picture], **kept), encoding="ascii")
    shown = [table for table in found if table.shown is not None]
    for table in shown:
        (tmp_path / "tables" / f"{table.name}.tex").write_text(latex.table(table), encoding="ascii")
    assert any("longtable" in latex.table(table) for table in shown)
    log = typeset(tmp_path)
    assert not re.findall(r"Overfull.*", log)
    assert "figures/a.pdf" in log
    assert all(f"tables/{table.name}.tex" in log for table in shown)


@pytest.mark.parametrize("rows", [3, 200])
@pytest.mark.parametrize("columns", [2, 40])
def test_any_size_typesets_and_fits_the_page(tmp_path: Path, rows: int, columns: int) -> None:
    shown = pd.DataFrame({f"column number {i}": ["12.3 (10.1 to 14.5)"] * rows for i in range(columns)})
    shown.insert(0, "what", [f"row {i} of a table with an explanation in words" for i in range(rows)])
    (tmp_path / "report.tex").write_text(
        rf"{HEAD}\begin{{document}}{latex.table(of(shown, notes=('A note.',)))}\end{{document}}"
    )
    log = typeset(tmp_path)
    if (rows, columns) != (200, 40):  # for which no page is wide enough
        assert not re.findall(r"Overfull \\[hv]box.*", log)


def test_signs_come_out_right(tmp_path: Path) -> None:
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext is not installed")
    sentence = f"{SIGNS} \\input{{x}} a_b^c~d {{e}} #5 $6 % & --- [U] *"
    text, fonts = latex.escape(sentence), r"\usepackage{lmodern}\input{glyphtounicode}\pdfgentounicode=1"
    (tmp_path / "report.tex").write_text(rf"{HEAD}{fonts}\begin{{document}}{text}\end{{document}}")
    typeset(tmp_path)
    found = subprocess.run(["pdftotext", "report.pdf", "-"], cwd=tmp_path, capture_output=True, check=True)
    printed = found.stdout.decode().rpartition("\n1")[0]
    same = ("".join(unicodedata.normalize("NFKC", text).split()) for text in (printed, sentence))  # ² is a raised 2
    assert next(same) == next(same)


def test_what_latex_has_no_letter_for_stands_as_its_code_point() -> None:
    assert latex.escape("🙂") == "{[}U+1F642{]}"
    assert latex.escape("a\u0301 \u0301") == r"{\'a} {[}U+0301{]}"


# --------------------------------------------------------------------------------------------------- CSV


@given(st.lists(st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-9), min_size=1), st.sampled_from((-1, 1)))
def test_numbers_in_a_file_have_twelve_digits(values: list[float], sign: int) -> None:
    text = Table("t", "T", pd.DataFrame({"x": values}), None).csv()
    for cell, value in zip(text.splitlines()[1:], values, strict=True):
        assert float(cell) == pytest.approx(value, rel=5e-12, abs=0)
        digits = re.sub(r"e.*", "", cell).replace("-", "").replace(".", "").strip("0")
        assert len(digits) <= 12


def test_dust_is_zero_and_kinds_of_numbers_stay() -> None:
    frame = pd.DataFrame({"n": [3, 4], "x": [1e-16, -2e-17], "y": [np.nan, 0.1 + 0.2], "mixed": [None, 1 / 3]})
    assert pd.read_csv(io.StringIO(Table("t", "T", frame, None).csv()), dtype=str).to_dict("list") == {
        "n": ["3", "4"], "x": ["0.0", "0.0"], "y": [np.nan, "0.3"], "mixed": [np.nan, "0.333333333333"],
    }  # fmt: skip
