"""From stored rows to a report: ``report.md``, ``index.html``, ``tables/`` and ``figures/``, without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dual_bench.report import corpora, page
from dual_bench.report.canvas import Album, Picture
from dual_bench.report.evidence import Evidence, gather
from dual_bench.report.figures import DEGRADATION, FIXED_NAMES, HEAT, OVERVIEW, RANKS, pictures
from dual_bench.report.foreign_run import read_predictions
from dual_bench.report.table import Table
from dual_bench.report.tables import NAMES, summary, tables
from dual_bench.store import check_writable, read_run, write_text
from dual_bench.types import UserError

MARK = "predictions.sha256"
"""The file that says which predictions a folder reports on: one line for each, as ``sha256sum`` writes it."""


@dataclass(frozen=True)
class Rendered:
    """``files`` that were written, the page first, and the ``summary`` for the screen, in rounded strings."""

    files: tuple[Path, ...]
    summary: pd.DataFrame


def render(path: Path) -> Rendered:
    """Compute everything from the rows stored in ``path`` and write the report beside them."""
    return _one(gather(read_run(path)), path)


def _one(evidence: Evidence, folder: Path) -> Rendered:
    """The report on one run, or on the predictions of one corpus."""
    found = tables(evidence)
    drawn = pictures(evidence, Album(folder / "figures", {"svg", "png"}))
    return Rendered(_write(folder, found, drawn, page.of_run(evidence, found, drawn)), summary(evidence))


def _several(ranking: corpora.Ranking, folder: Path) -> Rendered:
    """The comparison over several corpora."""
    found = corpora.tables(ranking)
    drawn = corpora.pictures(ranking, Album(folder / "figures", {"svg", "png"}))
    return Rendered(_write(folder, found, drawn, corpora.context(ranking, found, drawn)), corpora.summary(ranking))


def render_predictions(paths: Sequence[Path], metric: str | None, out: Path | None, reports: Path) -> Rendered:
    """The report on predictions that were made elsewhere: of one corpus like that of a run, of several a comparison.

    It is written to ``out``, by default to ``<stem>-<digest>`` in ``reports``; nothing is, where the input is at fault.
    """
    runs = read_predictions(paths, metric, out or reports)
    lines = dict.fromkeys(f"{run.info.digest}  {run.info.source.file}\n" for run in runs if run.info.source)
    digests = [line.split()[0] for line in lines]
    name = digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()
    folder = out or reports / f"{paths[0].stem}-{name[:8]}"
    found = gather(runs[0]) if len(runs) == 1 else corpora.gather(runs)
    _claim(folder, "".join(lines))  # only now: the input is sound
    return _one(found, folder) if isinstance(found, Evidence) else _several(found, folder)


def _claim(folder: Path, lines: str) -> None:
    """Mark the folder as a report on these predictions; UserError if it holds anything else."""
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
    path: Path, found: Sequence[Table], drawn: Sequence[Picture], context: Mapping[str, Any]
) -> tuple[Path, ...]:
    """Write tables and pages beside the figures, and remove what an earlier rendering left."""
    files = [path / "index.html", path / "report.md"]
    for table in found:
        files.append(path / "tables" / f"{table.name}.csv")
        write_text(files[-1], table.csv())
    files += [path / "figures" / f"{picture.name}.{kind}" for picture in drawn for kind in ("svg", "png")]
    _remove_stale(path, files)
    write_text(files[0], page.html(context))
    write_text(files[1], page.markdown(context))
    return tuple(files)


def _remove_stale(path: Path, files: Collection[Path]) -> None:
    """Remove what an earlier rendering wrote and this one has no rows for; files of other names are not ours."""
    earlier = [*(path / "tables").glob("*.csv"), *(path / "figures").glob("*.svg"), *(path / "figures").glob("*.png")]
    for file in earlier:
        ours = file.stem in (*NAMES, *FIXED_NAMES) or file.stem.startswith((DEGRADATION, HEAT, OVERVIEW, RANKS))
        if ours and file not in files:
            file.unlink()
