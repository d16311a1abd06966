"""From a run folder to its report: ``report.md``, ``index.html``, ``tables/`` and ``figures/``, without torch."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dual_bench.report import page
from dual_bench.report.evidence import gather
from dual_bench.report.figures import DEGRADATION, FIXED_NAMES, HEAT, OVERVIEW, pictures
from dual_bench.report.tables import NAMES, summary, tables
from dual_bench.store import read_run, write_text


@dataclass(frozen=True)
class Rendered:
    """``files`` that were written, the page first, and the ``summary`` for the screen, in rounded strings."""

    files: tuple[Path, ...]
    summary: pd.DataFrame


def render(path: Path) -> Rendered:
    """Compute everything from the rows stored in ``path`` and write the report beside them."""
    evidence = gather(read_run(path))
    found = tables(evidence)
    files = [path / "index.html", path / "report.md"]
    for table in found:
        files.append(path / "tables" / f"{table.name}.csv")
        write_text(files[-1], table.csv())
    drawn = pictures(evidence, path / "figures")
    files += [path / "figures" / f"{picture.name}.{kind}" for picture in drawn for kind in ("svg", "png")]
    _remove_stale(path, files)
    write_text(files[0], page.html(evidence, found, drawn))
    write_text(files[1], page.markdown(evidence, found, drawn))
    return Rendered(tuple(files), summary(evidence))


def _remove_stale(path: Path, files: Collection[Path]) -> None:
    """Remove what an earlier rendering wrote and this one has no rows for; files of other names are not ours."""
    earlier = [*(path / "tables").glob("*.csv"), *(path / "figures").glob("*.svg"), *(path / "figures").glob("*.png")]
    for file in earlier:
        ours = file.stem in (*NAMES, *FIXED_NAMES) or file.stem.startswith((DEGRADATION, HEAT, OVERVIEW))
        if ours and file not in files:
            file.unlink()
