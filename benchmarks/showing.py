"""What a benchmark found, as a record that can be kept, and as tables on the screen and in Markdown."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table as Shown
from timing import Limit, Ratio

from dual_bench.store import write_text


@dataclass(frozen=True)
class Table:
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def as_markdown(self, level: int = 2) -> str:
        lines = [self.head, ("---",) * len(self.head), *self.rows]
        return f"{'#' * level} {self.title}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"

    def on_screen(self) -> Shown:
        shown = Shown(title=self.title)
        for name in self.head:
            shown.add_column(name)
        for row in self.rows:
            shown.add_row(*row)
        return shown


@dataclass(frozen=True)
class Section:
    """What one benchmark found; ``about`` says what was measured, on what, and what is scaled up from a sample."""

    title: str
    about: str
    ratios: tuple[Ratio, ...] = ()
    limits: tuple[Limit, ...] = ()
    tables: tuple[Table, ...] = ()

    def as_markdown(self, level: int = 1) -> str:
        tables = [table.as_markdown(level + 1) for table in self.tables]
        return "\n".join([f"{'#' * level} {self.title}\n\n{self.about}\n", *tables])


SECTION = TypeAdapter(Section)

RATIOS = ("what", "ours", "against", "ours, s", "theirs, s", "ratio", "lowest to highest", "repetitions", "asked for")
LIMITS = ("what", "measured", "at most")


def ratio_table(ratios: Sequence[Ratio]) -> Table:
    return Table("Ratios", RATIOS, tuple(_ratio_row(ratio) for ratio in ratios))


def limit_table(limits: Sequence[Limit]) -> Table:
    return Table("Limits", LIMITS, tuple(_limit_row(limit) for limit in limits))


def _ratio_row(ratio: Ratio) -> tuple[str, ...]:
    low, high = ratio.spread
    asked = "" if ratio.asked is None else f"{ratio.asked:g}: {'met' if ratio.value >= ratio.asked else 'not met'}"
    seconds = (shown(ratio.our_median), shown(ratio.their_median))
    spread = (f"{ratio.value:.2f}", f"{low:.2f} to {high:.2f}", str(len(ratio.seconds)))
    return ratio.what, ratio.ours, ratio.theirs, *seconds, *spread, asked


def _limit_row(limit: Limit) -> tuple[str, ...]:
    met = "met" if limit.value <= limit.most else "not met"
    unit = f" {limit.unit}" if limit.unit else ""
    return limit.what, f"{shown(limit.value)}{unit}", f"{limit.most:g}{unit}: {met}"


def shown(seconds: float) -> str:
    """Three digits, and all of those before the point.

    >>> [shown(s) for s in (0.012345, 1.2345, 123.45, 12345.6)]
    ['0.0123', '1.23', '123', '12,346']
    """
    return f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.3g}"


def arguments(about: str | None, repetitions: int = 0) -> argparse.ArgumentParser:
    """What every benchmark can be asked; how often, where it has ``repetitions`` by default."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write a page of its own there, as Markdown")
    parser.add_argument("--keep", type=Path, help="write what was found there, as JSON")
    if repetitions:
        said = f"timings of each contestant (default: {repetitions})"
        parser.add_argument("--repetitions", type=int, default=repetitions, help=said)
    return parser


def tell(section: Section, asked: argparse.Namespace) -> None:
    """Print what was found, and write it where it was asked for."""
    console = Console()
    found = (ratio_table(section.ratios), limit_table(section.limits))
    whole = replace(section, tables=tuple(dict.fromkeys(t for t in (*section.tables, *found) if t.rows)))
    for table in whole.tables:
        console.print(table.on_screen())
    console.print(section.about)
    if asked.out:
        write_text(asked.out, whole.as_markdown())
    if asked.keep:
        write_text(asked.keep, SECTION.dump_json(section).decode())
