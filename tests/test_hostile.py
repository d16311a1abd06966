"""Whatever a corpus, a study or a model is called, and whatever its texts say: it stays text in every output."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from made_run import Made, write
from markdown_it import MarkdownIt
from reading import parse
from test_ablation_report import PARTS, study_of
from typeset import typeset

from dual_bench.report import evidence as evidence_module
from dual_bench.report import flips, latex, page
from dual_bench.report.evidence import gather
from dual_bench.report.render import FORMATS, render
from dual_bench.report.table import Table
from dual_bench.report.tables import tables
from dual_bench.spreadsheet import neutral
from dual_bench.store import read_run

MARKUP = "<script>alert(1)</script><img src=x onerror=alert(1)> &amp; \"double\" 'single' <!-- -->"
LATEX = r"\input{secret}\write18{calc} \ { } $ & # ^ _ ~ % \\[9em] [x] * -- ``q''"
LINES = "one|two\nthree | four\r\n# five `six` ```seven\n\n- eight **nine** [ten](http://evil.example/) <i>"
EVIL = "http://evil.example/"
FORMULA = "=cmd|' /C calc'!A0"
WIDE_FORMULA = " \u200b＝1+1"
MARKS = "\u202eevil \u200f\u2066\u0301 \u0301\u0302 e\u0301 🙂 中文 مرحبا"
CONTROL = "bell\x07escape\x1b[31m\x7f\x0b end"
LONG = "x" * 10_000
TEXTS = (MARKUP, LATEX, LINES, FORMULA, WIDE_FORMULA, MARKS, CONTROL, LONG)
ALL = " ".join(TEXTS)
MADE = Made(
    models=("dual", "\u202e=cmd.x|<i>&amp;$\\input{a}^_~%#`'\""), regimes=("clean",), classes=TEXTS, notes=TEXTS,
    name=ALL, licence=ALL, text=ALL, utterance_prefix=FORMULA, cluster_prefix=ALL, transcripts=("<i>|=1\\input",),
)  # fmt: skip
BASE, WORSE, SAME, WIDE = PARTS.models
TITLES = {BASE: MARKUP, WORSE: f"{LATEX} {LONG}", SAME: LINES, WIDE: f"{FORMULA} {MARKS} {CONTROL}"}
assert PARTS.study
STUDIED = replace(
    PARTS,
    notes=TEXTS,
    study=study_of(
        *(c.model_copy(update={"name": text}) for c, text in zip(PARTS.study.comparisons, TEXTS, strict=False)),
        titles=TITLES,
    ),
)


@dataclass(frozen=True)
class Report:
    """What was rendered from a made run, and which of the hostile texts are in it."""

    tables: tuple[Table, ...]
    html: str
    markdown: str
    latex: Path
    texts: tuple[str, ...]


@pytest.fixture(scope="module", params=[MADE, STUDIED], ids=["run", "study"])
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("hostile")
    write(folder, request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence_module, "RESAMPLES", 50)
        render(folder, formats=FORMATS)
        evidence = gather(read_run(folder))
        found = (*tables(evidence), *([listed] if (listed := flips.table(flips.flips(evidence))) else []))
    read = [(folder / name).read_text(encoding="utf-8") for name in ("index.html", "report.md")]
    return Report(found, *read, folder, TEXTS)


def plain(text: str) -> str:
    """The text without what no page shows: control characters, and how words are spaced."""
    return "".join(c for c in text if unicodedata.category(c) not in ("Cc", "Zs"))


# ------------------------------------------------------------------------------------------------- HTML


def test_in_html_text_makes_no_element_and_comes_back(report: Report) -> None:
    tree = parse(report.html)
    assert not [e for e in tree.iter() if e.tag in ("img", "iframe", "object", "i") or e.get("href") == EVIL]
    assert not [name for e in tree.iter() for name, _ in e.items() if str(name).startswith("on")]
    run = [e for e in tree.iter("script") if e.get("type") != "application/json"]
    assert not [e for e in run if "alert(1)" in "".join(e.itertext())]
    text = plain("".join(tree.itertext()).replace("\ufffd", ""))
    for said in report.texts:
        assert plain(said) in text


def test_figures_are_well_formed(report: Report) -> None:
    figures = list((report.latex / "figures").glob("*.svg"))
    assert len(figures) > 4
    assert {ElementTree.parse(figure).getroot().tag.rpartition("}")[2] for figure in figures} == {"svg"}


# --------------------------------------------------------------------------------------------- Markdown


def test_in_markdown_tables_stay_whole_and_no_html_passes(report: Report) -> None:
    parser = MarkdownIt("commonmark").enable("table")
    rendered = parser.render(report.markdown)
    assert not re.search(r"<(script|b|i|a|!--)\b", rendered)
    assert set(re.findall(r'<img src="([^"]*)', rendered)) <= {
        f"figures/{p.name}" for p in (report.latex / "figures").glob("*.png")
    }
    shown = [t.shown for t in report.tables if t.shown is not None]
    sizes = []
    for part in rendered.split("<table>")[1:]:
        rows = [re.findall(r"<t[hd]\b", row) for row in part.split("</table>")[0].split("<tr>")[1:]]
        assert len({len(row) for row in rows}) == 1
        sizes.append((len(rows) - 1, len(rows[0])))
    assert sorted(sizes) == sorted(frame.shape for frame in shown)
    text = plain(re.sub(r"<[^>]*>", "", rendered))
    assert plain("alert(1)") in text


# -------------------------------------------------------------------------------------------------- CSV


def test_csv_stays_rectangular_and_no_cell_is_a_formula(report: Report) -> None:
    for table in report.tables:
        head, *rows = csv.reader(io.StringIO(table.csv(), newline=""))
        assert (len(rows), len(head)) == table.frame.shape
        assert {len(row) for row in rows} <= {len(head)}
        for text in [*head, *(cell for row in rows for cell in row)]:
            assert not is_formula(text)


def is_formula(text: str) -> bool:
    """Whether a spreadsheet may run the text: numbers are no formulas."""
    try:
        float(text)
    except ValueError:
        shown = unicodedata.normalize("NFKC", "".join(c for c in text if unicodedata.category(c)[0] not in "ZCM"))
        return shown[:1] in tuple("=+-@") or text[:1] in ("\t", "\r", "\n")
    return False


# ------------------------------------------------------------------------------------------------ LaTeX


def test_latex_typesets(report: Report) -> None:
    assert "Output written on report.pdf" in typeset(report.latex)


def test_no_text_is_a_command_of_latex(report: Report) -> None:
    inputs = []
    for file in (report.latex / "report.tex", *(report.latex / "tables").glob("*.tex")):
        text = file.read_text(encoding="ascii")
        assert not re.search(r"\\write|\\immediate|\\openin|\\include\b|\\catcode", text)
        inputs += re.findall(r"\\input\{([^}]*)\}", text)
    files = [f"tables/{t.name}" for t in report.tables if t.shown is not None]
    assert sorted(inputs) == sorted(["glyphtounicode", *files])


# ------------------------------------------------------------------------------------------- properties

ANY = st.one_of(st.text(), st.text(alphabet="=+-@＝|\\`*_{}[]()#&<>^~%$\"'\t\r\n\x0b\u2028\u202e ab1", max_size=12))


@given(ANY)
@example(ALL)
def test_escaped_latex_is_ascii_balanced_and_has_only_known_commands(text: str) -> None:
    found = latex.escape(text)
    assert all(" " <= c <= "~" for c in found)
    bare = re.sub(r"\\[{}]", "", found)
    depth = 0
    for c in bare:
        depth += {"{": 1, "}": -1}.get(c, 0)
        assert depth >= 0
    assert depth == 0
    assert not re.search(r"(?<!\\)[#&%$_^~]", found)
    commands = set(re.findall(r"\\([a-zA-Z]+)", found))
    assert not commands & {"input", "write", "def", "catcode", "begin", "end", "csname", "item"}


@given(st.lists(ANY, min_size=2, max_size=4), st.lists(ANY, min_size=2, max_size=4))
@example([ALL, "a"], list(TEXTS[:2]))
def test_csv_comes_back_but_for_the_apostrophe(one: list[str], other: list[str]) -> None:
    size = min(len(one), len(other))
    frame = pd.DataFrame([one[:size], other[:size]], columns=[f"c{i}" for i in range(size)])
    head, *rows = csv.reader(io.StringIO(Table("t", "T", frame, None).csv(), newline=""))
    assert head == list(frame)
    for row, texts in zip(rows, frame.to_numpy().tolist(), strict=True):
        for cell, text in zip(row, (re.sub("\r\n?", "\n", text) for text in texts), strict=True):
            assert cell in (text, f"'{text}")


@given(ANY)
def test_what_a_spreadsheet_would_run_is_neutralised(text: str) -> None:
    try:
        float(text)
    except ValueError:
        assert not is_formula(neutral(text))


@given(st.lists(ANY, min_size=2, max_size=4))
@example([LINES, ALL])
def test_a_row_of_a_markdown_table_keeps_its_cells(cells: list[str]) -> None:
    frame = pd.DataFrame([cells], columns=[f"c{i}" for i in range(len(cells))])
    rendered = MarkdownIt("commonmark").enable("table").render(str(page.pipes(frame)))
    assert len(re.findall("<td\\b", rendered)) == len(re.findall("<th\\b", rendered)) == len(cells)
    assert not re.search(r"<(?!/?(table|thead|tbody|tr|th|td)\b)", rendered)
