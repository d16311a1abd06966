"""What a report writes: whatever names and texts are, they stay text in LaTeX, HTML, Markdown, CSV and SVG."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from html.parser import HTMLParser
from typing import Any
from unittest.mock import patch

import pandas as pd
from fuzz.base import HOSTILE, Target, surrogates, text, text_of
from hypothesis import strategies as st
from jinja2 import Environment
from markdown_it import MarkdownIt
from rich.console import Console

from dual_bench import screen
from dual_bench.report import latex, page
from dual_bench.report.canvas import Picture
from dual_bench.report.explorer import Explorer, Look
from dual_bench.report.flips import Flip, Flips, Group, Voice
from dual_bench.report.sentences import Passage
from dual_bench.report.table import Table
from dual_bench.shown import legible

_signs = st.text(st.sampled_from("\\{}[]()<>&%$#_^~`'\"|*=+-@!:;,./?\t\r\n\x0b\x1c\u2028\u202e\ufdd0 ab1"), max_size=16)
texts = text | surrogates | _signs
_environment = page.environment
_made: dict[tuple[object, ...], Environment] = {}


def _kept_environment(**settings: Any) -> Environment:
    """One environment for each kind of template, as compiling them takes longer than rendering."""
    kind = settings.get("autoescape"), settings.get("block_start_string")
    if kind not in _made:
        _made[kind] = _environment(**settings)
    return _made[kind]


@contextmanager
def _compiled_once() -> Iterator[None]:
    with patch.object(page, "environment", _kept_environment), patch.object(latex, "environment", _kept_environment):
        yield


# ------------------------------------------------------------------------------------------------- LaTeX

_NEVER = frozenset(
    [
        "input",
        "include",
        "write",
        "immediate",
        "openin",
        "openout",
        "read",
        "def",
        "edef",
        "let",
        "catcode",
        "csname",
        "special",
        "directlua",
        "item",
        "newcommand",
        "verb",
        "usepackage",
        "expandafter",
        "begin",
        "end",
    ]
)
_ENVIRONMENTS = frozenset(("table", "tabular", "longtable", "landscape", "minipage"))


def _commands(tex: str) -> list[str]:
    return re.findall(r"\\([a-zA-Z]+)", tex.replace("\\\\", " "))


def _check_balanced(tex: str) -> None:
    depth = 0
    for sign in re.findall(r"\\.|[{}]", tex, re.DOTALL):
        depth += {"{": 1, "}": -1}.get(sign, 0)
        assert depth >= 0, "a brace closes what is not open"
    assert depth == 0, "a brace stays open"


def escape(given: str) -> None:
    found = latex.escape(given)
    assert all(" " <= sign <= "~" for sign in found)
    _check_balanced(found)
    assert not re.search(r"(?<!\\)(\\\\)*[#&%$_^~]", found)
    assert not _NEVER & set(_commands(found))
    assert "\n" not in latex.printable(given)
    assert len(found) <= 64 * (len(given) + 1)


whole = text | _signs
"""Without halves of characters: what tables hold comes from files."""


@st.composite
def tables(draw: st.DrawFn) -> Table:
    width = draw(st.integers(1, 4))
    numbers = st.sampled_from(("85.2", "−0.5", "–", "<0.001", "12.1 (10.0 to 14.2)", "never", ""))
    kinds = [draw(st.sampled_from((numbers, whole))) for _ in range(width)]
    rows = [
        [draw(kind) for kind in kinds]
        for _ in range(draw(st.sampled_from((0, 1, 1, 2, 2, 3, 47))) and draw(st.integers(1, 4)))
    ]
    rows = rows * 12 if rows and not draw(st.integers(0, 15)) else rows
    heads = pd.Index(draw(st.lists(whole, min_size=width, max_size=width, unique=True)), dtype=object)
    frame = pd.DataFrame(rows, columns=heads, dtype=object)
    bold = frozenset((i, heads[0]) for i in range(len(rows)) if i % 2)
    return Table("scores", draw(texts), frame, frame, tuple(draw(st.lists(texts, max_size=2))), bold)


def write_table(made: Table) -> None:
    """A table as LaTeX, as CSV and in Markdown."""
    assert made.shown is not None
    with _compiled_once():
        tex = latex.table(made)
    tex = tex.split("\n", 1)[1]  # behind a comment
    _check_balanced(tex)
    assert tex.isascii()
    assert not (_NEVER - {"begin", "end"}) & set(_commands(tex))
    begun, ended = (re.findall(rf"(?<!\\)\\{what}\{{(\w*)\}}", tex) for what in ("begin", "end"))
    assert sorted(begun) == sorted(ended)
    assert set(begun) <= _ENVIRONMENTS
    body = tex.split("\\midrule\n")[-1].split("\\bottomrule" if "\\begin{table}" in tex else "\\end{longtable}")[0]
    lines = [line for line in body.splitlines() if line.endswith(" \\\\")]
    assert len(lines) == len(made.shown)
    assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} <= {made.shown.shape[1] - 1}
    read = list(csv.reader(io.StringIO(made.csv(), newline="")))
    if all(map(str.strip, made.frame)):
        assert {len(row) for row in read if row} <= {made.shown.shape[1]}
    assert len(str(page.pipes(made.shown, made.bold)).split("\n")) == len(made.shown) + 2


# -------------------------------------------------------------------------------------------------- HTML


class _Reading(HTMLParser):
    """Elements with the names of their attributes, the text outside of scripts, and the scripts."""

    def __init__(self, content: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, str]] = []
        self.counts: dict[str, int] = {}
        self.text: list[str] = []
        self.scripts: list[str] = []
        self.others: list[str] = []
        self._inside = ""
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag if tag in ("script", "style") else ""
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.elements += [(tag, ""), *((tag, name) for name, _ in attrs)]

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        (self.scripts if self._inside else self.text).append(data)

    def handle_comment(self, data: str) -> None:
        self.others.append(data)

    def handle_pi(self, data: str) -> None:
        self.others.append(data)

    def unknown_decl(self, data: str) -> None:
        self.others.append(data)


Said = tuple[list[str], Table]


def _context(said: Said, explored: bool = True) -> dict[str, Any]:
    """All that a page shows, said in the words of an input."""
    (a, b, c), table = said
    svg = f'<svg viewBox="0 0 1 1"><text id="t1" x="0.123456">{html.escape(legible(a))}</text></svg>'
    picture = Picture("forest", a, b, c, svg)
    group = Group(a, b, (c, "d"), "broken", (Voice(c, 1, 1, 1, 2), Voice("d", 2, 2, 2, 2)))
    words = (("so", "same"), (a, "lost"), (b, "added"), (c, "changed"))
    flip = Flip(a, b, 0.5, c, a, b, words, a, b, c, (group,))  # type: ignore[arg-type]
    numbers = {"corruptions": [{"findings": [a], "caption": b}], "x": c}
    look = Look(a, "--series-1", (), "circle", 1.0)
    explorer = Explorer((look,), (b,), (c,), {"item": a, b: c}, numbers, "var bokeh;") if explored else None
    return page.context(
        [table],
        [picture],
        name=a,
        title=b,
        notes=(c,),
        problems=(a,),
        headlines=[Passage(a, (b, c)), Passage(c, (a,))],
        explorer=explorer,
        flips=Flips((flip,), 1, b),
        methods=[a, c],
        provenance=[(b, c)],
        plan=a,
        command=b,
    )


_PLAIN_TABLE = Table(
    "scores",
    "t",
    pd.DataFrame({"a": ["x"], "b": ["1"]}),
    pd.DataFrame({"a": ["x"], "b": ["1"]}),
    ("n",),
    frozenset({(0, "b")}),
)


@cache
def _ordinary() -> tuple[frozenset[tuple[str, str]], dict[str, int], int]:
    """The elements of a page of ordinary words, how many of some kinds there are, and the signs < of its Markdown."""
    said = ["a", "b", "c"], _PLAIN_TABLE
    folded = Table("scores", "t", *[pd.DataFrame({"a": ["x", "x"] * 30})] * 2)
    with _compiled_once():
        plain, long = _Reading(page.html(_context(said))), _Reading(page.html(_context((["a", "b", "c"], folded))))
        signs = page.markdown(_context(said) | {"plan": "", "command": ""}).count("<")
    return frozenset(plain.elements + long.elements), {tag: plain.counts.get(tag, 0) for tag in _COUNTED}, signs


_COUNTED = ("script", "style", "link", "meta", "a", "img", "iframe", "object", "form", "svg", "select")


def write_page(said: Said) -> None:
    elements, counts, signs = _ordinary()
    with _compiled_once():
        written = page.html(_context(said))
        plain = page.markdown(_context(said) | {"plan": "", "command": ""})
        page.methods_markdown(_context(said))
    written.encode()
    plain.encode()
    read = _Reading(written)
    assert not set(read.elements) - elements, set(read.elements) - elements
    assert {tag: read.counts.get(tag, 0) for tag in _COUNTED} == counts
    assert not read.others
    shown = "".join(read.text)
    assert all(legible(one) in shown for one in said[0])
    data = [script for script in read.scripts if script.startswith("{")]
    explorer = _context(said)["explorer"]
    assert [json.loads(one) for one in data] == [
        json.loads(json.dumps(one)) for one in (explorer.item, explorer.numbers)
    ]
    folds = 2 * int(said[1].is_long) * 2
    assert plain.count("<") == signs + folds


# ----------------------------------------------------------------------------------------------- Markdown

_markdown = MarkdownIt("commonmark").enable("table")


def mark_down(given: str) -> None:
    rendered = _markdown.render(page.escape_markdown(given))
    assert set(re.findall(r"</?([^\s>/]+)", rendered)) <= {"p"}
    told = html.unescape(rendered.removeprefix("<p>").strip().removesuffix("</p>"))
    assert "".join(told.split()) == "".join(legible(given).split())
    fenced = _markdown.render(str(page.fenced(legible(given))))
    assert set(re.findall(r"</?([^\s>/]+)", fenced)) == {"pre", "code"}


def say(given: str) -> None:
    """A sentence about a text, as the command line ends with it."""
    told = io.StringIO()
    console = Console(file=told, emoji=False, force_terminal=True, no_color=True)
    with patch.object(screen, "errors", console), suppress(SystemExit):
        screen._stop(given, 2)
    told.getvalue().encode()
    plain = told.getvalue().replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert plain.count("\n") == 1
    assert plain[:-1].isprintable()


_SEEDS = tuple(b" " + one.encode() for one in HOSTILE if len(one) < 99)
_three = st.lists(texts, min_size=3, max_size=3)
TARGETS = (
    Target("LaTeX text", texts, escape, 8_000, 55_000, _SEEDS, text_of),
    Target("tables", tables(), write_table, 1_500, 0),
    Target("pages", st.tuples(_three, tables()), write_page, 800, 0),
    Target("sentences", texts, say, 2_000, 10_000, _SEEDS, text_of),
    Target("Markdown text", texts, mark_down, 4_000, 28_000, _SEEDS, text_of),
)
