"""How much noise a nominal rate, and a severity, really make: on the lines of MELD, for every corruption of words.

    python benchmarks/realised.py DATA --out reports/reference

DATA is the folder that holds ``meld_text`` (train_sent_emo.csv, test_sent_emo.csv; Poria et al. 2019). Rates are
applied to the test lines, in five draws as a study has; what severities mean is found on the training lines and then
measured on the test lines. The share of units that were hit is counted from the texts, by another way than the
corruption's own.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from rapidfuzz.distance import Levenshtein

from dual_bench.catalog import CORRUPTIONS
from dual_bench.corruptions.noise import Reading, Spoken, corrupted, load, measured
from dual_bench.corruptions.severity import TARGETS, find
from dual_bench.report.sentences import fixed
from dual_bench.store import write_text
from dual_bench.types import Condition, Task, TrainingText, Utterance

RATES = (0.1, 0.3, 0.5, 0.7, 0.9)
DRAWS = 5
EMOTIONS = ("neutral", "joy", "surprise", "anger", "sadness", "disgust", "fear")
NAMES = tuple(name for name in CORRUPTIONS.entries if load(name).needs in ("nothing", "training"))

RELATIVE = ("ocr", "char-swap", "word-swap", "case-punctuation")
"""Their hits are counted relative to what rate 1 does to the same text."""

WITH_LOOK_ALIKE = "abcdefghijlnopqrsuvwxyABCEFGHIJKMNOPQSTUVWXYZ"
FILLER = re.compile(r"\b(?:uh|um|you know|I mean)\b")


def units_and_hits(name: str, text: str, found: str, all_hit: str) -> tuple[float, float]:
    """Units of a text, of which the rate is a share, and how many of them were hit in ``found``; ``all_hit`` is what
    the same noise makes at rate 1.

    >>> units_and_hits("word-drop", "we opened it", "we it", "")
    (3, 1)
    """
    was, now = text.split(), found.split()
    letters = len("".join(was))
    match name:
        case "typo":
            return sum(c.isascii() and c.isalnum() for c in text), differences(text, found)
        case "homoglyph":
            return sum(c in WITH_LOOK_ALIKE for c in text), differences(text, found)
        case "ocr":  # pieces of one or two characters that become one or two: counted by the edits that all would be
            return Levenshtein.distance(text, all_hit), Levenshtein.distance(text, found)
        case "char-delete" | "char-insert":
            return letters, abs(len(found) - len(text))
        case "char-swap":
            return differences(text, all_hit) // 2, differences(text, found) // 2
        case "word-swap":
            return differences(was, all_hit.split()) // 2, differences(was, now) // 2
        case "word-shuffle":
            windows = [(was[i : i + 4], now[i : i + 4]) for i in range(0, len(was), 4)]
            return sum(len(set(before)) > 1 for before, _ in windows), sum(a != b for a, b in windows)
        case "case-punctuation":  # words that change, vanish or fall in two: likewise
            return Levenshtein.distance(was, all_hit.split()), Levenshtein.distance(was, now)
        case "word-drop" | "truncation" | "block-drop":
            return len(was), len(was) - len(now)
        case "stutter":
            return len(was), len(now) - len(was)
        case "filler":
            return len(was), len(FILLER.findall(found)) - len(FILLER.findall(text))
        case "word-mask":
            return len(was), now.count("[MASK]")
        case "word-replace":
            return len(was), differences(was, now)
        case "utterance-drop" | "mismatch" | "contradiction":
            return 1, found != text
        case "asr-model":  # its rate is a word error rate
            return len(was), Levenshtein.distance(was, now)
    raise ValueError(f"expected a corruption whose units are known here, found '{name}'")


def differences(one: Sequence[object], other: Sequence[object]) -> int:
    return sum(a != b for a, b in zip(one, other, strict=True))


def lines(data: Path, split: str) -> list[Spoken]:
    """The lines of a split of MELD, with the training lines to take other words from."""
    tables = {s: pd.read_csv(data / f"meld_text/{s}_sent_emo.csv", keep_default_na=False) for s in ("train", split)}
    targets = [np.array([EMOTIONS.index(e) for e in tables[s]["Emotion"]], np.float64) for s in ("train", split)]
    training = TrainingText(Task("classification", EMOTIONS), tuple(tables["train"]["Utterance"]), targets[0])
    said = zip(tables[split]["Utterance"], targets[1], strict=True)
    return [Spoken(Utterance(f"{split}{i}", "test", "", "", t, float(y)), training) for i, (t, y) in enumerate(said)]


def noisy(name: str, rate: float, spoken: Sequence[Spoken]) -> list[str]:
    """The lines of every draw, one draw after the other."""
    return [corrupted(one, Condition(name, rate, draw), 0).text for draw in range(DRAWS) for one in spoken]


def facts(name: str, rate: float, spoken: Sequence[Spoken], all_hit: Sequence[str]) -> dict[str, float]:
    """What ``rate`` makes of the lines: realised share of units, and error rates of all draws together."""
    references = [one.utterance.text for one in spoken] * DRAWS
    made = noisy(name, rate, spoken)
    counts = [units_and_hits(name, *texts) for texts in zip(references, made, all_hit, strict=True)]
    units, hits = np.sum(counts, axis=0)
    table = measured(references, [Reading(text) for text in made])
    words = table["words"].to_numpy(float)
    means = {k: float(np.nansum(table[k] * words) / words.sum()) for k in ("cer", "dropped")}
    return {"realised": float(hits / units), "wer": float(table["errors"].sum() / words.sum()), **means}


def table_of(
    data: Path, names: Iterable[str], rates: Sequence[float] = RATES, severities: Sequence[int] = tuple(TARGETS)
) -> pd.DataFrame:
    """A row for each corruption and rate, given or found for a severity (1 to 5; else 0)."""
    train, test = lines(data, "train"), lines(data, "test")
    rows = []
    for name in names:
        all_hit = noisy(name, 1.0, test) if name in RELATIVE else [""] * (DRAWS * len(test))
        for rate in rates:
            rows.append({"corruption": name, "severity": 0, "nominal": rate, **facts(name, rate, test, all_hit)})
        for point in find(name, train, severities, 0):
            line = {"corruption": name, "severity": point.severity, "nominal": point.rate, "target": point.target}
            rows.append(
                {**line, "training_wer": point.wer, "reached": point.reached, **facts(name, point.rate, test, all_hit)}
            )
    return pd.DataFrame(rows)


def markdown(table: pd.DataFrame) -> str:
    """Two tables: what nominal rates realise, and what severities do."""
    nominal, scale = table[table["severity"] == 0], table[table["severity"] > 0]
    rates = [f"{rate:g}" for rate in RATES]
    said = [
        "# What the noise does to real lines",
        "",
        f"The 2,610 test lines of MELD, {DRAWS} draws. Made by `make reference` (`benchmarks/realised.py`); "
        "`realised.csv` has the numbers at full precision, with CER and the share of words dropped.",
        "",
        "## Realised share at a nominal rate",
        "",
        "Counted from the texts, by another way than the corruption's own; of ocr, char-swap, word-swap and "
        "case-punctuation relative to what rate 1 does to the same text. In brackets: word error rate.",
        "",
        f"| corruption | the rate is the share of | {' | '.join(rates)} |",
        f"|---|---|{'---|' * len(rates)}",
    ]
    for name, rows in nominal.groupby("corruption", sort=False):
        cells = [f"{fixed(r, 3)} ({fixed(w, 2)})" for r, w in zip(rows["realised"], rows["wer"], strict=True)]
        said.append(f"| {name} | {load(str(name)).rate_is} | {' | '.join(cells)} |")
    heads = [f"{severity}: {target:.2f}" for severity, target in TARGETS.items()]
    said += [
        "",
        "## Word error rate at a severity",
        "",
        "On the test lines, at the rate in brackets, which was found on the 9,989 training lines. † The corruption "
        "cannot reach the target: this is the most (or the least) it does.",
        "",
        f"| corruption | {' | '.join(heads)} |",
        f"|---|{'---|' * len(heads)}",
    ]
    for name, rows in scale.groupby("corruption", sort=False):
        both = zip(rows["wer"], rows["nominal"], rows["reached"], strict=True)
        cells = [f"{fixed(wer, 3)}{'' if reached else ' †'} ({rate:g})" for wer, rate, reached in both]
        said.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(said) + "\n"


def csv(table: pd.DataFrame) -> str:
    return table.to_csv(index=False, lineterminator="\n", na_rep="")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    table = table_of(asked.data, NAMES)
    write_text(asked.out / "realised.csv", csv(table))
    write_text(asked.out / "realised.md", markdown(table))


if __name__ == "__main__":
    main()
