"""Sentences a second of two corruptions against nlpaug's, measured in one run on the same texts at the same rates.

    python benchmarks/corruptions.py --out corruptions.md

nlpaug (Ma 2019, https://github.com/makcedward/nlpaug) is run in two ways:

* ``as it comes``: its defaults, but for the rate. A typo hits 30% of the words at the most, and neither corruption hits
  more than 10 words of a text, or 10 letters of a word.
* ``no caps``: all words may be hit, and the caps are lifted. The fair comparison: only this is asked for the same.

It types letters and digits alone, as ours does, and is given all texts in one call, its fastest way. Ours is called
text by text: with one generator for all (``ours``), and with a generator of each text's own, as in a study (``ours,
seeded``), which costs more than the noise does. One thread; the texts are made of a short list of words. Times are CPU
times, for others may be using the machine, and medians of repetitions in which the contestants take turns.
"""

from __future__ import annotations

import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

os.environ["OMP_NUM_THREADS"] = "1"  # read when numpy is imported

import nlpaug
import numpy as np
from nlpaug.augmenter.char import KeyboardAug
from nlpaug.augmenter.word import RandomWordAug
from showing import Section, Table, arguments, tell
from timing import Ratio

from dual_bench.corruptions.characters import mistype
from dual_bench.corruptions.words import drop_words
from dual_bench.seeding import generator

RATES = (0.1, 0.3, 0.5, 0.7, 0.9)
WORDS = "we opened the letter after lunch and nobody said a word about what it told us on that very cold day"
LENGTHS = {"8 words": 8, "60 words": 60}
OURS = {"typo": mistype, "word-drop": drop_words}

Contestant = Callable[[list[str]], list[str]]


def texts(words: int, count: int) -> list[str]:
    draw = random.Random(words)
    return [" ".join(draw.choices(WORDS.split(), k=words)) for _ in range(count)]


def contestants(corruption: str, rate: float) -> dict[str, Contestant]:
    """Everything that can be timed, by name; ours come last."""
    ours, rng = OURS[corruption], np.random.default_rng(0)
    if corruption == "typo":
        keys = {"aug_char_p": rate, "include_special_char": False, "include_upper_case": False}
        capped = KeyboardAug(**keys)
        free = KeyboardAug(**keys, aug_word_p=1.0, aug_word_max=None, aug_char_max=None, min_char=1)
    else:
        capped = RandomWordAug(action="delete", aug_p=rate)
        free = RandomWordAug(action="delete", aug_p=rate, aug_max=None)
    return {
        "nlpaug, as it comes": capped.augment,
        "nlpaug, no caps": free.augment,
        "ours": lambda said: [ours(text, rate, rng) for text in said],
        "ours, seeded": lambda said: [ours(text, rate, generator("noise", i)) for i, text in enumerate(said)],
    }


def rate_of(contestant: Contestant, said: list[str]) -> float:
    """Sentences a second of CPU time."""
    start = time.process_time()
    contestant(said)
    return len(said) / (time.process_time() - start)


@dataclass(frozen=True)
class Row:
    corruption: str
    length: str
    rate: float
    speeds: dict[str, list[float]]
    """Sentences a second of each contestant, a number for each repetition."""

    def median(self, name: str) -> float:
        return statistics.median(self.speeds[name])

    def spread(self, name: str) -> float:
        """Half of the range that the middle half of the repetitions lie in, as a share of the median."""
        low, _, high = statistics.quantiles(self.speeds[name], n=4)
        return (high - low) / 2 / self.median(name)

    def cells(self) -> tuple[str, ...]:
        speeds = [f"{self.median(name):,.0f} ± {self.spread(name):.0%}" for name in self.speeds]
        ratios = [f"{self.ratio(name):.1f}" for name in ("ours", "ours, seeded")]
        return (self.corruption, self.length, f"{self.rate}", *speeds, *ratios)

    def ratio(self, name: str) -> float:
        """Of the medians, against nlpaug without its caps."""
        return self.median(name) / self.median("nlpaug, no caps")


def timed(corruption: str, length: str, rate: float, count: int, repetitions: int) -> Row:
    said = texts(LENGTHS[length], count)
    field = contestants(corruption, rate)
    for contestant in field.values():
        contestant(said[:10])  # whatever is done once and for all
    speeds: dict[str, list[float]] = {name: [] for name in field}
    for _ in range(repetitions):
        for name, contestant in field.items():
            speeds[name].append(rate_of(contestant, said))
    return Row(corruption, length, rate, speeds)


def share_hit(corruption: str, said: Sequence[str], made: Sequence[str]) -> float:
    """Words lost, or letters mistyped, over all of ``said``; nlpaug keeps the length of words it mistypes."""
    if corruption == "word-drop":
        return 1 - sum(len(text.split()) for text in made) / sum(len(text.split()) for text in said)
    pairs = [pair for a, b in zip(said, made, strict=True) for pair in zip(a, b, strict=True) if pair[0] != " "]
    return sum(a != b for a, b in pairs) / len(pairs)


def realised(corruption: str, count: int) -> list[tuple[str, ...]]:
    said = texts(60, count)
    found = {rate: contestants(corruption, rate) for rate in RATES}
    names = [name for name in found[RATES[0]] if name != "ours, seeded"]
    return [
        (corruption, name, *(f"{share_hit(corruption, said, found[rate][name](said)):.3f}" for rate in RATES))
        for name in names
    ]


def summary(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """For each corruption and length, the ratio at the rate where it is lowest, in the middle, and highest."""
    found = []
    for corruption, length, name in product(OURS, LENGTHS, ("ours", "ours, seeded")):
        ratios = [row.ratio(name) for row in rows if (row.corruption, row.length) == (corruption, length)]
        shown = (min(ratios), statistics.median(ratios), max(ratios))
        found.append((corruption, length, name, *(f"{ratio:.1f}" for ratio in shown)))
    return found


def ratios(rows: Sequence[Row], count: int) -> tuple[Ratio, ...]:
    """Of the seconds for all rates together, for each corruption and length."""

    other = "nlpaug, no caps"

    def seconds(corruption: str, length: str, name: str) -> tuple[float, ...]:
        chosen = [row.speeds[name] for row in rows if (row.corruption, row.length) == (corruption, length)]
        return tuple(sum(count / speed for speed in repetition) for repetition in zip(*chosen, strict=True))

    return tuple(
        Ratio(f"{c} on texts of {n}", "ours, seeded", other, seconds(c, n, "ours, seeded"), seconds(c, n, other))
        for c, n in product(OURS, LENGTHS)
    )


def measure(count: int, repetitions: int) -> Section:
    random.seed(0)  # nlpaug draws from the global generators
    np.random.seed(0)  # noqa: NPY002
    rows = [timed(c, n, r, count, repetitions) for c in OURS for n in LENGTHS for r in RATES]
    names = list(rows[0].speeds)
    tables = (
        Table(
            "Ratio to nlpaug without caps, over the rates",
            ("corruption", "texts", "", "lowest", "median", "highest"),
            tuple(summary(rows)),
        ),
        Table(
            "Sentences a second: median ± half the interquartile range",
            ("corruption", "texts", "rate", *names, "ours / no caps", "seeded / no caps"),
            tuple(row.cells() for row in rows),
        ),
        Table(
            "Share that was hit, of texts of 60 words, by nominal rate",
            ("corruption", "", *map(str, RATES)),
            tuple(line for corruption in OURS for line in realised(corruption, count)),
        ),
    )
    about = f"nlpaug {nlpaug.__version__}, numpy {np.__version__}, Python {platform.python_version()}, one thread; "
    about += f"{count} texts, {repetitions} repetitions."
    return Section("Corruptions: speed against nlpaug", about, ratios(rows, count), tables=tables)


def main() -> None:
    parser = arguments(__doc__, repetitions=15)
    parser.add_argument("--texts", type=int, default=400, help="texts of each length (default: 400)")
    asked = parser.parse_args()
    tell(measure(asked.texts, asked.repetitions), asked)


if __name__ == "__main__":
    main()
