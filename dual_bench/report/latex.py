"""Tables and the report as LaTeX, for plain ``pdflatex`` and the packages of every TeX distribution.

Every table is a file of its own, to be ``\\input`` in a paper. Any text compiles: what the fonts of plain LaTeX lack
stands as its code point, and no text reaches LaTeX but through ``escape``.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import pandas as pd
from jinja2 import Environment
from markupsafe import Markup
from pylatexenc.latexencode import (
    RULE_DICT,
    RULE_REGEX,
    UnicodeToLatexConversionRule,
    UnicodeToLatexEncoder,
    get_builtin_uni2latex_dict,
)

from dual_bench.report.canvas import Picture
from dual_bench.report.page import environment
from dual_bench.report.sentences import Passage
from dual_bench.report.table import Table, is_numeric
from dual_bench.shown import shortened

MOST = 80
"""Characters of a cell, and of a word anywhere; longer ones end in an ellipsis."""

LONG, LONG_TURNED = 45, 24
"""Rows that fit on a page with their notes, upright and turned; a longer table may break between pages."""

# --------------------------------------------------------------------------------------------------- text

_SIGNS = "‐–—‘’‚“”„†‡•…‰‹›€™←↑→↓∂∆∇∈∏∑−∓√∝∞∧∨∩∪∫∼≈≠≡≤≥⊂⊆"
_LIBRARY = get_builtin_uni2latex_dict()
_KNOWN = _LIBRARY.keys() & {*range(0xA0, 0x180), *range(0x386, 0x3CF), *map(ord, _SIGNS)} - {0xAD, 0x149, 0x390}
"""What the library writes with commands that LaTeX has without further packages."""

_ASCII = {ord(sign): sign for sign in "[]*"}  # in braces, for they mean something after the end of a row
_ASCII |= {ord('"'): r"\textquotedbl", ord("`"): r"\textasciigrave", ord("|"): r"\textbar"}
_LIGATURES: list[tuple[re.Pattern[str], str]] = [(re.compile(r"-(?=-)"), "-{}"), (re.compile(r"([',])(?=\1)"), r"\1{}")]


@cache
def _encoder() -> UnicodeToLatexEncoder:
    known = {code: found for code, found in _LIBRARY.items() if code < 0x80 or code in _KNOWN}
    return UnicodeToLatexEncoder(
        conversion_rules=[
            UnicodeToLatexConversionRule(RULE_REGEX, _LIGATURES, replacement_latex_protection="none"),
            UnicodeToLatexConversionRule(RULE_DICT, known | _ASCII),
        ],
        replacement_latex_protection="braces-all",
    )


def printable(text: str) -> str:
    """The text on one line, each sign that LaTeX has no letter for as its code point, and no word of more than 80.

    >>> printable("one\\ntwo 🙂 \\u202e")
    'one two [U+1F642] [U+202E]'
    """
    composed = unicodedata.normalize("NFC", " ".join(text.split()))
    shown = "".join(c if " " <= c <= "~" or ord(c) in _KNOWN else f"[U+{ord(c):04X}]" for c in composed)
    return " ".join(shortened(word, MOST) for word in shown.split(" "))


def escape(text: str) -> str:
    """The text as LaTeX that prints it, in ASCII; long words may break anywhere.

    >>> print(escape(r"\\input{x} 5 % − a_b"))
    {\\textbackslash}input{\\{}x{\\}} 5 {\\%} {\\ensuremath{-}} a{\\_}b
    """
    return " ".join(r"\allowbreak{}".join(map(_encoded, _pieces(word))) for word in printable(text).split(" "))


def _encoded(text: str) -> str:
    return str(_encoder().unicode_to_latex(text))


def _pieces(word: str) -> list[str]:
    return [word] if len(word) <= 24 else [word[i : i + 8] for i in range(0, len(word), 8)]


# -------------------------------------------------------------------------------------------------- tables

_POINT = 0.5
"""Width of a character on average, in sizes of the font."""

_GAP = 8.0
"""Points between two columns."""

_WIDTHS = {False: 483.0, True: 710.0}
"""Points of a line of A4 with margins of 2 cm, upright and turned."""


@dataclass(frozen=True)
class _Layout:
    """``most`` characters stand in one line of a column of text, and ``heads`` in one of a heading."""

    turned: bool
    size: str
    points: float
    most: int


_LAYOUTS = (
    _Layout(False, "small", 9, 40),
    _Layout(False, "footnotesize", 8, 32),
    _Layout(False, "scriptsize", 7, 26),
    _Layout(True, "small", 9, 40),
    _Layout(True, "footnotesize", 8, 32),
    _Layout(True, "scriptsize", 7, 24),
    _Layout(True, "tiny", 5, 20),
)
"""The first that a table fits is taken, or else the last."""


@dataclass(frozen=True)
class _Column:
    """A column of strings as they will be printed."""

    heading: str
    cells: tuple[str, ...]
    numeric: bool

    def lines(self) -> list[str]:
        """The heading, no wider than the cells, or 7 characters, where its words allow."""
        most = max(7, *map(len, self.heading.split(" ")), *map(len, self.cells))
        return textwrap.wrap(self.heading, most, break_long_words=False, break_on_hyphens=False)

    def width(self, most: int) -> int:
        """Characters of the widest line."""
        cells = max(map(len, self.cells), default=0)
        return max([cells if self.numeric else min(cells, most), *map(len, self.lines())])

    def kind(self, most: int) -> str:
        """How LaTeX aligns it: numbers right, text left, and long text in lines."""
        if self.numeric:
            return "r"
        if max(map(len, self.cells), default=0) <= most:
            return "l"
        return rf">{{\raggedright\arraybackslash}}p{{{_POINT * self.width(most):g}em}}"

    def head(self) -> str:
        lines, side = [escape(line) for line in self.lines()], "r" if self.numeric else "l"
        if len(lines) < 2:
            return "".join(lines)
        return rf"\begin{{tabular}}[b]{{@{{}}{side}@{{}}}}" + r" \\ ".join(lines) + r"\end{tabular}"


def _columns(shown: pd.DataFrame) -> list[_Column]:
    cells = [tuple(shortened(printable(str(cell)), MOST) for cell in shown.iloc[:, i]) for i in range(shown.shape[1])]
    return [
        _Column(printable(str(name)), texts, _numeric(texts)) for name, texts in zip(shown.columns, cells, strict=True)
    ]


def _numeric(cells: Sequence[str]) -> bool:
    """Whether the cells are numbers, as far as there is anything in them."""
    found = [text for text in cells if text not in ("", "never")]
    return bool(found) and is_numeric(pd.Series(found))


def _layout(columns: Sequence[_Column]) -> _Layout:
    def width(layout: _Layout) -> float:
        return sum(column.width(layout.most) * _POINT * layout.points + _GAP for column in columns)

    return next((found for found in _LAYOUTS if width(found) <= _WIDTHS[found.turned]), _LAYOUTS[-1])


def _rows(columns: Sequence[_Column], bold: Collection[tuple[int, int]], again: bool) -> Iterator[str]:
    """The lines of the body: a leading cell that repeats the one above is blank unless ``again`` is wanted, and the
    groups of the first column stand apart where it has some."""
    leading = next((i for i, column in enumerate(columns) if column.numeric), len(columns))
    rows = list(zip(*(column.cells for column in columns), strict=True))
    grouped = len({row[0] for row in rows}) < len(rows)
    for number, row in enumerate(rows):
        above = rows[number - 1] if number else ()
        if number and grouped and row[0] != above[0]:
            yield r"\addlinespace"
        texts = []
        for i, text in enumerate(row):
            same = i < leading - 1 and row[: i + 1] == above[: i + 1]
            made = "" if same and not again else escape(text)
            texts.append(rf"\textbf{{{made}}}" if (number, i) in bold else made)
        yield rf"{' & '.join(texts)} \\"


def table(made: Table) -> str:
    """The table with a caption, the label ``tab:NAME`` and its notes; it shrinks to the width of the text, and past 45
    rows it may break between pages. Needs ``shown``."""
    assert made.shown is not None
    columns, names = _columns(made.shown), [str(name) for name in made.shown]
    layout = _layout(columns)
    long = len(made.shown) > (LONG_TURNED if layout.turned else LONG)
    spans = any(_SPAN.search(text) for column in columns for text in column.cells)
    return _environment().get_template("table.tex.j2").render(
        name=Markup(made.name),
        title=made.title,
        interval=f"In brackets: {made.brackets}." if spans else "",
        columns=Markup("".join(column.kind(layout.most) for column in columns)),
        heads=Markup(" & ".join(column.head() for column in columns)),
        count=len(columns),
        rows=[Markup(row) for row in _rows(columns, {(row, names.index(name)) for row, name in made.bold}, long)],
        notes=made.notes,
        long=long,
        turned=layout.turned,
        size=Markup(layout.size),
    )  # fmt: skip


_SPAN = re.compile(r"\(\S+ to \S+\)")
"""An interval in a cell."""


def document(
    tables: Sequence[Table],
    pictures: Sequence[Picture],
    *,
    title: str,
    methods: Sequence[str],
    headlines: Sequence[Passage] = (),
    notes: Sequence[str] = (),
    problems: Sequence[str] = (),
) -> str:
    """``report.tex``: the findings, every figure of ``figures/`` and every table of ``tables/``, and the methods."""
    return _environment().get_template("report.tex.j2").render(
        tables=[Markup(made.name) for made in tables if made.shown is not None],
        pictures=[(Markup(picture.name), picture) for picture in pictures],
        title=title,
        methods=methods,
        headlines=headlines,
        notes=notes,
        problems=problems,
    )  # fmt: skip


def _environment() -> Environment:
    """Templates with signs that LaTeX has no use for: ``(* *)`` and ``(( ))``."""
    return environment(
        block_start_string="(*",
        block_end_string="*)",
        variable_start_string="((",
        variable_end_string="))",
        comment_start_string="(#",
        comment_end_string="#)",
        finalize=lambda value: value if isinstance(value, Markup) else escape(str(value)),
    )
