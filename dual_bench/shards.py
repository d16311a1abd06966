"""The trainings of a plan: which cells share one, which are done already, and which part of them falls to whom."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from dual_bench.plan import Cell, keeping
from dual_bench.schema import CellInfo
from dual_bench.store import RunFolder
from dual_bench.types import UserError

Training = list[Cell]
"""Cells that share one, those of a pack together: it is done as a whole."""


@keeping()
def trainings(wanted: Iterable[Cell]) -> list[Training]:
    """The cells by what they share, in the order in which the first of each comes: that of the plan, seeds slowest."""
    found: dict[tuple[str | int, ...], Training] = {}
    for cell in wanted:
        found.setdefault(cell.training, []).append(cell)
    return list(found.values())


def finished(folder: RunFolder, wanted: Iterable[Cell], weights: bool = False) -> Iterator[CellInfo]:
    """The records of those of the ``wanted`` cells that are finished in the folder, with their ``weights`` where they
    are asked for. It is listed once: nothing is looked for that is not there."""
    try:
        names = os.listdir(folder.cell_file("").parent)
    except FileNotFoundError:
        return
    there = {name.removesuffix(".json") for name in names if name.endswith(".json")}
    with ThreadPoolExecutor() as pool:  # most of it is hashing the rows
        there_with = partial(folder.finished, weights=weights)
        for record in pool.map(there_with, [cell.digest for cell in wanted if cell.digest in there]):
            if record is not None:
                yield record


def done(folder: RunFolder, wanted: Iterable[Cell], weights: bool = False) -> set[str]:
    """The digests of those."""
    return {record.digest for record in finished(folder, wanted, weights)}


@dataclass(frozen=True)
class Shard:
    """Part ``number`` (from 1) of ``count``."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """``2/3``; UserError for something else.

        >>> Shard.parse("2/3")
        Shard(number=2, count=3)
        """
        found = re.fullmatch(r"\s*([0-9]{1,9})\s*/\s*([0-9]{1,9})\s*", text)
        number, count = map(int, found.groups()) if found else (0, 0)
        if not 1 <= number <= count:
            raise UserError(
                f"--shard: expected i/n, part i of n with i from 1 to n, as in 2/3, found '{text}'; give each site a "
                "number of its own and all of them the same n"
            )
        return cls(number, count)

    def of(self, groups: Sequence[Training]) -> list[Training]:
        """The trainings of this part, in their order; ``groups`` are all of a plan, done or not.

        Each training is in one part. The numbers of trainings that two parts have differ by one at most: in all, of
        each system, and of each system in each regime. Of a regime over all systems they are as even as that allows.
        """
        kinds: dict[tuple[str, str, str], list[int]] = {}
        for place, group in enumerate(groups):
            first = group[0]
            kinds.setdefault((first.variant.model, first.variant.changed, first.reads.regime), []).append(place)
        had: Counter[tuple[object, ...]] = Counter()
        chosen: list[int] = []
        for kind in sorted(kinds):
            places, (*system, regime) = kinds[kind], kind
            # what is left over when all parts have the same goes to those that have had least
            order = sorted(
                range(1, self.count + 1), key=lambda part: (had[part,], had[part, *system], had[part, regime], part)
            )
            for part in order[: len(places) % self.count]:
                had.update([(part,), (part, *system), (part, regime)])
            chosen += places[order.index(self.number) :: self.count]
        return [groups[place] for place in sorted(chosen)]
