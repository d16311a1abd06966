"""The report as Markdown and as one self-contained HTML file; every value is escaped unless it was made here."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dual_bench.report.canvas import COLOURS, GRID, INK, MUTED, PAPER, Picture
from dual_bench.report.evidence import Evidence
from dual_bench.report.figures import DEGRADATION, HEAT, OVERVIEW, RANKS
from dual_bench.report.flips import Flips
from dual_bench.report.heat import ON_HIGH, ON_LOW, STEPS
from dual_bench.report.methods import methods
from dual_bench.report.numbers import plural
from dual_bench.report.sentences import headlines
from dual_bench.report.table import Table, is_numeric
from dual_bench.schema import RunInfo
from dual_bench.shown import legible
from dual_bench.store import Run

if TYPE_CHECKING:
    from dual_bench.report.explorer import Explorer

ORDER = [
    "field", "conditions", "scores", "retention", "robustness", "comparisons", "classical", "variance", "noise",
    "tuning", "ceilings",
]  # fmt: skip
"""Tables that have no place beside a figure; others that have none come behind them."""

KINDS = {"broken": "right → wrong", "mended": "wrong → right", "moved": "wrong → other wrong"}
"""What noise does to an answer."""

MATRIX, CONFUSION, RELIABILITY = "matrix", "confusion", "reliability"
"""How the names of figures begin, besides those that ``figures`` has."""


def html(context: Mapping[str, Any]) -> str:
    """``index.html``: whole in itself, no request to anywhere, figures inline, and readable without its script."""
    made = environment(autoescape=True, finalize=_html_value)
    made.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    made.filters |= {"inline": inline, "numeric": is_numeric, "marked": marked, "voices": voices, "legible": legible}
    made.filters |= {"row_headers": row_headers}
    made.filters |= {"numbered": lambda names: list(enumerate(names)), "places": places}
    made.filters |= {"paired": lambda names: [(name, name) for name in names]}
    return made.get_template("index.html.j2").render(context)


def markdown(context: Mapping[str, Any]) -> str:
    """``report.md``, with the figures as PNG files beside it."""
    return _markdown("report.md.j2", context)


def methods_markdown(context: Mapping[str, Any]) -> str:
    """``methods.md``: what was done, to be pasted into a paper."""
    return _markdown("methods.md.j2", context)


def _markdown(template: str, context: Mapping[str, Any]) -> str:
    made = environment(finalize=_markdown_value)
    made.filters |= {"pipes": pipes, "fenced": fenced}
    return made.get_template(template).render(context)


def environment(**settings: Any) -> Environment:
    """Where templates are found, and what is the same for all of them."""
    return Environment(
        loader=PackageLoader("dual_bench.report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **settings,
    )


def context(tables: Sequence[Table], pictures: Sequence[Picture], **said: Any) -> dict[str, Any]:
    """All that the templates ask for; ``said`` holds what is not in tables and pictures."""
    prefixes = {
        "maps": HEAT,
        "overviews": OVERVIEW,
        "curves": DEGRADATION,
        "ranks": RANKS,
        "matrices": MATRIX,
        "confusions": CONFUSION,
        "reliability": RELIABILITY,
    }
    named = ("forest", "transcripts", "slope", "dependency", "coverage", "training")
    known = (*prefixes.values(), *named)
    return {
        "notes": (),
        "problems": (),
        "tables": {table.name: table for table in tables},
        **{what: [p for p in pictures if p.name.startswith(prefix)] for what, prefix in prefixes.items()},
        "others": [p for p in pictures if not p.name.startswith(known)],
        "pictures": {picture.name: picture for picture in pictures},
        "order": ORDER,
        "kinds": KINDS,
        "explorer": None,
        "flips": None,
        "plan": "",
        **said,
    }


def of_run(
    evidence: Evidence,
    tables: Sequence[Table],
    pictures: Sequence[Picture],
    flips: Flips | None = None,
    interactive: bool = True,
) -> dict[str, Any]:
    """What the report of one run says; ``flips`` are the sentences at which answers change."""
    info = evidence.run.info
    asked = "what each part does" if info.study else "what is left when the words go"
    if info.source and not evidence.cube.corruptions():
        asked = "systems compared"
    return context(
        tables,
        pictures,
        name=info.name,
        title=f"{info.name}: {asked}",
        notes=info.corpus.notes,
        problems=evidence.problems(),
        headlines=headlines(evidence),
        explorer=_explorer(evidence) if interactive else None,
        flips=flips,
        methods=methods(evidence),
        provenance=rendered_by([info]) if info.source else _provenance(evidence.run),
        plan="" if info.source else _plans(evidence.run),
        command="\n".join(dict.fromkeys(one.provenance.command for one in infos(evidence.run))),
    )


def infos(run: Run) -> list[RunInfo]:
    """The records of the runs that were merged into this one, or its own."""
    return [part.info for part in run.parts_of] or [run.info]


def _plans(run: Run) -> str:
    """The plan of the run as JSON; a list of those that were run, where it was merged from several."""
    plans = list({info.digest: info.plan for info in infos(run)}.values())
    return json.dumps(plans if len(plans) > 1 else plans[0], indent=2, ensure_ascii=False)


def _provenance(run: Run) -> list[tuple[str, str]]:
    return [line for info in infos(run) for line in provenance(info)]


def _explorer(evidence: Evidence) -> Explorer | None:
    from dual_bench.report.explorer import explorer  # Bokeh is loaded for a page alone

    return explorer(evidence)


def rendered_by(infos: Sequence[RunInfo]) -> list[tuple[str, str]]:
    """(what, value) of reports on predictions that were made elsewhere: the files, and what computed the rest."""
    made = infos[0].provenance
    sources = dict.fromkeys((i.source.file, i.source.sha256) for i in infos if i.source)
    return [
        *(("predictions", f"{file}, sha256 {digest}") for file, digest in sources),
        ("statistics by", f"dual-bench {made.dual_bench}, Python {made.python} on {made.platform}"),
        ("packages", ", ".join(f"{name} {version}" for name, version in made.packages.items())),
    ]


def provenance(info: RunInfo) -> list[tuple[str, str]]:
    """(what, value) of all that the result depends on besides the plan."""
    made = info.provenance
    dirty = {True: " (with uncommitted changes)", False: "", None: ""}[made.dirty]
    computed = [("processor", ", ".join(filter(None, (made.processor, made.accelerator))))] if made.processor else []
    took = "" if made.seconds is None else f", {made.seconds:,.0f} s"
    return [
        ("run", f"{info.name}, digest {info.digest}, {info.status}, schema {info.schema_version}"),
        ("corpus", f"{info.corpus.name}, fingerprint {info.corpus.fingerprint}"),
        ("licence of the corpus", info.corpus.licence),
        ("encoders", "; ".join(f"{modality}: {name}" for modality, name in info.encoders.items()) or "none"),
        ("dual-bench", f"{made.dual_bench}, commit {made.commit or 'unknown'}{dirty}"),
        ("made with", f"Python {made.python} on {made.platform}"),
        ("packages", ", ".join(f"{name} {version}" for name, version in made.packages.items())),
        ("device", f"{made.device}, {plural(made.threads, 'thread')} in each of {plural(made.jobs, 'job')}"),
        *computed,
        ("time", f"{made.started} to {made.ended or 'unfinished'}{took}"),
    ]


# ------------------------------------------------------------------------------------------------- HTML


def _html_value(value: object) -> object:
    return value if isinstance(value, Markup) or not isinstance(value, str) else legible(value)


_THEMED = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--line)", PAPER: "none"} | {
    colour: f"var(--series-{i})" for i, colour in enumerate(COLOURS) if colour != INK
}
_THEMED |= {colour: f"var(--heat-{i})" for i, colour in enumerate(STEPS)}
_THEMED |= {ON_LOW: "var(--on-low)", ON_HIGH: "var(--on-high)"}
_COLOUR = re.compile("|".join(_THEMED))


def inline(picture: Picture) -> Markup:
    """The SVG as part of a page: ids of its own, colours of the page's theme, a class for what belongs to a system, its
    finding for screen readers, and nothing that a page does without."""
    svg = picture.svg[picture.svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<title>.*?</title>", "", svg, flags=re.DOTALL)
    svg = re.sub(r">\s+<(?!/?tspan)", "><", svg)
    head, body = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    opening = Markup('<svg {} role="img" aria-label="{}">').format(Markup(box[0] if box else ""), legible(picture.alt))
    used = frozenset(re.findall(r'(?:url\(|href=")#([^")]+)', body))
    return opening + Markup(re.sub(r"<[^>]+>", lambda tag: _tag(tag[0], picture.name, used), body))


def _tag(tag: str, picture: str, used: Collection[str]) -> str:
    """A tag of matplotlib's, for a page that holds others like it; what is written between tags stays as it is."""
    tag = re.sub(r'\sid="(system-\d+)"', r' class="\1"', tag)
    tag = re.sub(r'\sid="([^"]*)"', lambda found: found[0] if found[1] in used else "", tag)
    tag = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{picture}-", tag)
    tag = re.sub(r" font-family: [^;\"]*;?", "", tag)  # the page's style sheet says it once
    tag = re.sub(r' transform="rotate\(-?0 [^)]*\)"', "", tag)
    tag = re.sub(r"-?\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), tag)
    return _COLOUR.sub(lambda colour: _THEMED[colour[0]], " ".join(tag.split()))


_MARKS = {"same": "{}", "changed": "<mark>{}</mark>", "added": "<ins>{}</ins>", "lost": "<del>{}</del>"}


def marked(words: Sequence[tuple[str, str]]) -> Markup:
    """The words in a row, those that noise changed, added or took away in elements that say so.

    >>> print(marked([("so", "same"), ("it", "lost"), ("<b>", "lost")]))
    so <del><span class="sr">lost: </span>it &lt;b&gt;</del>
    """
    runs = []
    for kind, run in itertools.groupby(words, key=lambda word: word[1]):
        told = Markup("" if kind == "same" else '<span class="sr">{}: </span>').format(kind)
        runs.append(Markup(_MARKS[kind]).format(told + legible(" ".join(word for word, _ in run))))
    return Markup(" ").join(runs)


def voices(flips: Flips) -> list[str]:
    """The systems that answer, in the order in which they come."""
    return list(dict.fromkeys(system for row in flips.rows for group in row.groups for system in group.systems))


def row_headers(shown: pd.DataFrame) -> list[str]:
    """The columns that say what a row is about: those of text before the first of numbers, and in any case the first.

    >>> row_headers(pd.DataFrame({"trained": ["clean"], "system": ["dual"], "accuracy": ["85.2"], "note": ["none"]}))
    ['trained', 'system']
    """
    names = [str(name) for name in shown]
    return list(itertools.takewhile(lambda name: not is_numeric(shown[name]), names)) or names[:1]


def places(systems: Iterable[str], names: Sequence[str]) -> str:
    """Where the systems stand among the names, for a data attribute."""
    return " ".join(str(names.index(system)) for system in systems)


# --------------------------------------------------------------------------------------------- Markdown


def _markdown_value(value: object) -> object:
    return value if isinstance(value, Markup) else escape_markdown(str(value))


def escape_markdown(text: str) -> str:
    r"""The text as it is, on one line, with no power over the document.

    >>> print(escape_markdown("a|b <i>\n# *c*"))
    a\|b &lt;i&gt; # \*c\*
    """
    text = " ".join(legible(text).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_\[\]|~$!])", r"\\\1", text)
    text = re.sub(r"^([0-9]+)([.)])( |$)", r"\1\\\2\3", text)
    return re.sub(r"^([#+=:-])", r"\\\1", text)


def pipes(frame: pd.DataFrame, bold: Collection[tuple[int, str]] = ()) -> Markup:
    """A table of strings in Markdown; ``bold`` holds (row, column) of the cells that are emphasised."""
    rules = ["---:" if is_numeric(frame[name]) else "---" for name in frame]
    head = [escape_markdown(str(name)) for name in frame]
    body = [[escape_markdown(str(cell)) for cell in row] for row in frame.to_numpy()]
    for row, column in bold:
        place = list(frame).index(column)
        body[row][place] = f"**{body[row][place]}**"
    return Markup("\n".join(f"| {' | '.join(row)} |" for row in [head, rules, *body]))


def fenced(text: str) -> Markup:
    """The text in a code block, whose fence is longer than any in the text."""
    text = legible(text)
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup(f"{fence}\n{text}\n{fence}")
