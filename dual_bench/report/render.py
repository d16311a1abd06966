"""From stored rows to a report: a page, Markdown, LaTeX, tables and figures, without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dual_bench.catalog import did_you_mean
from dual_bench.report import corpora, page
from dual_bench.report.canvas import Album, Picture
from dual_bench.report.evidence import Evidence, gather
from dual_bench.report.figures import FIXED_NAMES, PREFIXES, pictures
from dual_bench.report.flips import flips
from dual_bench.report.flips import table as sentences
from dual_bench.report.foreign_run import read_predictions
from dual_bench.report.merge import merged
from dual_bench.report.table import Table
from dual_bench.report.tables import NAMES, summary, tables
from dual_bench.store import Run, check_unlinked, check_writable, read_run, write_text
from dual_bench.types import UserError

FORMATS = ("html", "md", "latex", "csv")
"""What a report may be written as."""

USUAL = ("html", "md", "csv")
"""What it is written as where nobody asks: LaTeX and its figures take as long as all the rest."""

MARK = "predictions.sha256"
"""The file that says what a folder reports on: a line for each file of predictions, as ``sha256sum`` writes it, or for
each run, with its digest."""

_FIGURES = {"html": "svg", "md": "png", "latex": "pdf"}
_TABLES = {"csv": "csv", "latex": "tex"}


@dataclass(frozen=True)
class Rendered:
    """``files`` that were written, the page first, and the ``summary`` for the screen, in rounded strings."""

    files: tuple[Path, ...]
    summary: pd.DataFrame


def render(
    *folders: Path, out: Path | None = None, reports: Path = Path("reports"), formats: Collection[str] = USUAL
) -> Rendered:
    """Compute everything from the rows stored in ``folders``, and write the report.

    That of one run is written beside its rows, or to ``out``; that of several to ``out``, by default to
    ``comparison-<digest>`` in ``reports``. What the folder holds in other formats is written anew as well. UserError
    where runs cannot be compared.
    """
    same = [folder.resolve() for folder in folders]
    if twice := [folder for folder in folders if same.count(folder.resolve()) > 1]:
        raise UserError(f"expected every folder once, found {twice[0]} more than once")
    for folder in folders:
        if not folder.is_dir():
            there = [p.name for p in folder.parent.glob("*") if (p / "run.json").is_file()]
            raise UserError(f"{folder} is no folder{did_you_mean(folder.name, there)}")
    runs = [read_run(folder) for folder in folders]
    if len(runs) == 1 and (out is None or out.resolve() == same[0]):
        return rendered(runs[0], folders[0], formats)
    lines = "".join(f"{run.info.digest}  {run.folder.run_file}\n" for run in runs)
    folder = out or reports / f"comparison-{hashlib.sha256(' '.join(_digests(lines)).encode()).hexdigest()[:8]}"
    return _report(merged(runs, folder), folder, lines, formats)


def rendered(run: Run, folder: Path, formats: Collection[str]) -> Rendered:
    """The report of one run alone, written to ``folder``; the same rows always give the same bytes."""
    return _one(gather(run), folder, formats)


def render_predictions(
    paths: Sequence[Path],
    metric: str | None,
    out: Path | None,
    reports: Path,
    formats: Collection[str] = USUAL,
) -> Rendered:
    """The report on predictions that were made elsewhere: of one corpus like that of a run, of several a comparison.

    It is written to ``out``, by default to ``<stem>-<digest>`` in ``reports``; nothing is, where the input is at fault.
    """
    runs = read_predictions(paths, metric, out or reports)
    lines = dict.fromkeys(f"{run.info.digest}  {run.info.source.file}\n" for run in runs if run.info.source)
    digests = [line.split()[0] for line in lines]
    name = digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()
    return _report(runs, out or reports / f"{paths[0].stem}-{name[:8]}", "".join(lines), formats)


def _report(runs: Sequence[Run], folder: Path, lines: str, formats: Collection[str]) -> Rendered:
    """The report on one run for each corpus, in a folder of its own."""
    found = gather(runs[0]) if len(runs) == 1 else corpora.gather(runs)
    _claim(folder, lines)  # only now: the input is sound
    return _one(found, folder, formats) if isinstance(found, Evidence) else _several(found, folder, formats)


def _one(evidence: Evidence, folder: Path, formats: Collection[str]) -> Rendered:
    """The report on one corpus."""
    check_unlinked(folder)
    formats = _with_present(folder, formats)
    changed = flips(evidence)
    listed = sentences(changed)
    found = (*tables(evidence), *([listed] if listed else []))
    album = Album(folder / "figures", {_FIGURES[name] for name in formats if name in _FIGURES})
    drawn = pictures(evidence, album) if album.kinds else ()
    context = page.of_run(evidence, found, drawn, changed, interactive="html" in formats)
    return Rendered(_write(folder, found, drawn, context, formats), summary(evidence))


def _several(ranking: corpora.Ranking, folder: Path, formats: Collection[str]) -> Rendered:
    """The comparison over several corpora."""
    check_unlinked(folder)
    formats = _with_present(folder, formats)
    found = corpora.tables(ranking)
    album = Album(folder / "figures", {_FIGURES[name] for name in formats if name in _FIGURES})
    drawn = corpora.pictures(ranking, album) if album.kinds else ()
    context = corpora.context(ranking, found, drawn)
    return Rendered(_write(folder, found, drawn, context, formats), corpora.summary(ranking))


def _claim(folder: Path, lines: str) -> None:
    """Mark the folder as a report on this; UserError if it holds anything else."""
    mark = folder / MARK
    if folder.is_dir() and any(folder.iterdir()):
        if not mark.is_file() or sorted(_digests(mark.read_text(encoding="utf-8"))) != sorted(_digests(lines)):
            raise UserError(f"{folder} holds something else than a report on these predictions; choose another --out")
    elif folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file, expected a folder; choose another --out")
    check_writable(folder)
    write_text(mark, lines)


def _digests(lines: str) -> list[str]:
    return [line.partition(" ")[0] for line in lines.splitlines()]


def _write(
    folder: Path,
    found: Sequence[Table],
    drawn: Sequence[Picture],
    context: Mapping[str, Any],
    formats: Collection[str],
) -> tuple[Path, ...]:
    """Write tables and pages beside the figures, and remove what an earlier rendering left in these formats."""
    texts = dict(_texts(found, drawn, context, formats))
    files = [folder / name for name in texts]
    files += [folder / "figures" / f"{p.name}.{_FIGURES[name]}" for p in drawn for name in formats if name in _FIGURES]
    _remove_stale(folder, files, formats)
    for name, text in texts.items():
        write_text(folder / name, text)
    return tuple(files)


def _texts(
    found: Sequence[Table], drawn: Sequence[Picture], context: Mapping[str, Any], formats: Collection[str]
) -> Iterator[tuple[str, str]]:
    """(name, text) of each file besides figures."""
    if "html" in formats:
        yield "index.html", page.html(context)
    if "md" in formats:
        yield "report.md", page.markdown(context)
        yield "methods.md", page.methods_markdown(context)
    if "latex" in formats:
        from dual_bench.report import latex

        said = {name: context[name] for name in ("title", "methods", "headlines", "notes", "problems")}
        yield "report.tex", latex.document(found, drawn, **said)
        for table in found:
            if table.shown is not None:
                yield f"tables/{table.name}.tex", latex.table(table)
    if "csv" in formats:
        for table in found:
            yield f"tables/{table.name}.csv", table.csv()


def _with_present(folder: Path, formats: Collection[str]) -> tuple[str, ...]:
    """The formats asked for, and those that the folder holds from before, whose numbers may be others by now."""
    marks = {"html": "index.html", "md": "report.md", "latex": "report.tex", "csv": "tables/scores.csv"}
    return tuple(name for name in FORMATS if name in formats or (folder / marks[name]).is_file())


def _remove_stale(folder: Path, files: Collection[Path], formats: Collection[str]) -> None:
    """Remove what an earlier rendering wrote and this one has no rows for; files of other names are not ours."""
    kinds = [(folder / "tables", _TABLES[name]) for name in formats if name in _TABLES]
    kinds += [(folder / "figures", _FIGURES[name]) for name in formats if name in _FIGURES]
    for file in (file for where, kind in kinds for file in where.glob(f"*.{kind}")):
        ours = file.stem in (*NAMES, *FIXED_NAMES) or file.stem.startswith(PREFIXES)
        if ours and file not in files:
            file.unlink()
