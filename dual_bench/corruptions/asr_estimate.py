"""Estimate how a recogniser errs from pairs of what was said and what it wrote, and check it on pairs kept apart.

    python -m dual_bench.corruptions.asr_estimate PAIRS.jsonl ... [--out FILE] [--splits N]

Every line of a file is ``{"reference": text, "hypotheses": [text, …]}``, best hypothesis first, both written alike
(lower case, no punctuation), as in HyPoradise (Chen et al. 2023). A random half of each file is fitted; the table is
about the other half, with the held-out pairs' own word error rate as the nominal rate. Who speaks is not in the files:
a speaker may be in both halves. ``--out`` writes the numbers, which ``speech.read_recogniser`` reads.

One split can be lucky, so ``--splits N`` fits and checks N of them, the one above first. Measured by

    python -m dual_bench.corruptions.asr_estimate coraal_test.jsonl cv_test.jsonl --splits 20

on 170 pairs of CORAAL and 2,000 of Common Voice. Relative errors of the rates of substitutions, deletions and
insertions (S, D, I), held-out pairs of both sources together:

                                    S       D       I
    first split, asr_model.json   +5 %   -15 %   +14 %
    median of 20 splits           -1 %    +2 %    +0 %
    lowest                       -11 %   -27 %   -13 %
    highest                      +18 %   +22 %   +26 %

All three are within 20 % in 15 of the 20 splits. D depends most on the split: ten of the 2,170 utterances have 31 % of
all deletions. Within one source the model is far off, as it has one mixture of S, D and I for all speech. Rates a word
in the held-out pairs of the first split:

                            S       D       I
    CORAAL, real         .079    .186    .015
    CORAAL, model        .155    .086    .036
    Common Voice, real   .113    .012    .024
    Common Voice, model  .088    .041    .019
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from scipy.optimize import minimize, minimize_scalar
from scipy.special import betaincinv
from scipy.stats import binom

from dual_bench.corruptions.speech import SHORT, Recogniser, asr_errors, distances, lexicon, spoken
from dual_bench.seeding import generator
from dual_bench.types import FloatArray, IntArray, UserError

Pair = tuple[str, str]
"""What was said, and what the recogniser wrote."""

DRAWS = 10
WITHIN = 0.2
"""A relative error up to which a rate counts as met."""
_FAR = 12
"""Phones apart from which on a word is not heard for its sound: at 2.4 a phone, exp(-29) is nothing."""


@dataclass(frozen=True)
class Errors:
    """Word errors of a set of pairs. N utterances."""

    words: IntArray
    """(N,) words of the reference."""
    substituted: IntArray
    deleted: IntArray
    inserted: IntArray
    confusions: tuple[Pair, ...]
    """(word said, word written) of every substitution."""
    alone: tuple[Pair, ...]
    """Those with no deletion or insertion beside them, where nobody knows which word stands for which."""
    lost: tuple[str, ...]
    """Every word deleted."""

    @cached_property
    def all(self) -> IntArray:
        """(N,) errors."""
        return self.substituted + self.deleted + self.inserted

    @property
    def rates(self) -> tuple[float, float, float, float]:
        """Word error rate, and the rates of substitutions, deletions and insertions, over all words."""
        counts = (self.all, self.substituted, self.deleted, self.inserted)
        wer, s, d, i = (float(count.sum() / self.words.sum()) for count in counts)
        return wer, s, d, i

    @property
    def spread(self) -> float:
        """Standard deviation of the utterances' word error rates."""
        return float(np.std(self.all / self.words))


def read_pairs(path: Path) -> list[Pair]:
    """The pairs of a file of JSON lines; a reference without words has no error rate, and is left out."""
    pairs = []
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        try:
            found = json.loads(line)
            pair = (" ".join(found["reference"].split()), " ".join(found["hypotheses"][0].split()))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(
                f'{path}, line {number}: expected {{"reference": text, "hypotheses": [text, …]}}: {error!r}'
            ) from error
        if pair[0]:
            pairs.append(pair)
    if len(pairs) < 2:
        raise UserError(f"{path}: expected two pairs at least, one to fit and one to check on, found {len(pairs)}")
    return pairs


def halves(pairs: Sequence[Pair], split: int = 0) -> tuple[list[Pair], list[Pair]]:
    """A random half to fit, the same each time for the same ``split``, and the other to check on; both in their order.

    The numbers of ``asr_model.json`` are from split 0.
    """
    rng = generator("asr-estimate", "split", split) if split else generator("asr-estimate")
    fitted = set(rng.permutation(len(pairs))[: len(pairs) // 2].tolist())
    return [p for i, p in enumerate(pairs) if i in fitted], [p for i, p in enumerate(pairs) if i not in fitted]


def errors(pairs: Sequence[Pair]) -> Errors:
    """Align word by word (Levenshtein) and count."""
    counts = {kind: np.zeros(len(pairs), np.int64) for kind in ("equal", "replace", "delete", "insert")}
    confusions: list[Pair] = []
    alone: list[Pair] = []
    lost: list[str] = []
    for row, (reference, hypothesis) in enumerate(pairs):
        said, written = reference.split(), hypothesis.split()
        blocks = list(Levenshtein.opcodes(said, written))
        for at, block in enumerate(blocks):
            there = said[block.src_start : block.src_end]
            here = written[block.dest_start : block.dest_end]
            counts[block.tag][row] += max(len(there), len(here))
            if block.tag == "replace":
                confusions += zip(there, here, strict=True)
                if all(other.tag == "equal" for other in (*blocks[max(at - 1, 0) : at], *blocks[at + 1 : at + 2])):
                    alone += zip(there, here, strict=True)
            elif block.tag == "delete":
                lost += there
    words = counts["equal"] + counts["replace"] + counts["delete"]
    errors = (counts["replace"], counts["delete"], counts["insert"])
    return Errors(words, *errors, tuple(confusions), tuple(alone), tuple(lost))


# ------------------------------------------------------------------------------------------------ fitting


def estimate(pairs: Sequence[Pair]) -> Recogniser:
    """All numbers of the model: shares by their moments, the channel and the clumping by maximum likelihood."""
    found = errors(pairs)
    if not found.all.sum():
        raise UserError("expected pairs with word errors, found none; add pairs")
    losing = _losing(found)
    short, long = _lost(pairs, found, losing)
    gained = (1 - losing) * found.all.sum()
    inserted = min(float(found.inserted.sum() / gained), 0.5) if gained else 0.0
    return Recogniser(losing, short, long, inserted, _clumping(found, losing, inserted), *channel(found.alone))


def _losing(found: Errors) -> float:
    """Share of errors, in utterances that tell, that are in utterances with more deletions than insertions."""
    losing = found.all[found.deleted > found.inserted].sum()
    gaining = found.all[found.inserted > found.deleted].sum()
    return float(losing / (losing + gaining)) if losing + gaining else 0.5


def _lost(pairs: Sequence[Pair], found: Errors, losing: float) -> tuple[float, float]:
    """Of short words and of longer ones that are hit in an utterance that loses words, the share lost.

    The model hits all words alike: it loses wer · losing · share of them.
    """
    said = [_short(word) for reference, _ in pairs for word in reference.split()]
    lost = [_short(word) for word in found.lost]
    hit = found.rates[0] * losing
    shares = [min(lost.count(kind) / (said.count(kind) * hit), 1.0) if hit and kind in said else 0.0 for kind in (1, 0)]
    return shares[0], shares[1]


def _short(word: str) -> int:
    return int(len(spoken(word)[1].units) <= SHORT)


def _clumping(found: Errors, losing: float, inserted: float) -> float:
    """The sum of the Beta distribution's parameters that makes the words hit in each utterance likeliest."""
    hit, words = (found.substituted + found.deleted)[:, None], found.words[:, None]
    wer = min(found.rates[0], 0.99)
    quantiles = (np.arange(200) + 0.5) / 200

    def unlikely(log_sum: float) -> float:
        total = np.exp(log_sum)
        rates = betaincinv(total * wer, total * (1 - wer), quantiles)
        likely = losing * binom.pmf(hit, words, rates) + (1 - losing) * binom.pmf(hit, words, rates * (1 - inserted))
        return -float(np.log(np.maximum(likely.mean(axis=1), np.finfo(float).tiny)).sum())

    return float(np.exp(minimize_scalar(unlikely, bounds=(-1, 6), method="bounded").x))


def channel(confusions: Iterable[Pair]) -> tuple[float, float, float]:
    """``per_phone``, ``commonness`` and ``unrelated`` under which the words heard are likeliest.

    Words written that are not in the lexicon (names, and what recognisers spell out of pieces) say nothing here. For a
    given ``commonness``, the weight of all words at a distance is a sum that the other two numbers leave as it is.
    """
    place = lexicon().places
    known = sorted((said, heard) for said, heard in confusions if heard in place and spoken(said)[0] != heard)
    if not known:
        raise UserError("expected pairs in which a word became another common word, found none; add pairs")
    said = {word: row for row, word in enumerate(sorted({word for word, _ in known}))}
    apart = _apart_from_lexicon(list(said))
    rows, heard = np.array([(said[word], place[other]) for word, other in known]).T
    here = apart[rows, heard]
    ranks = lexicon().ranks
    zipf = (1 / ranks[heard]) / (1 / ranks).sum()

    def fit(commonness: float) -> tuple[float, float, float]:
        """(minus log likelihood, per_phone, unrelated)"""
        weight = ranks**-commonness
        at = np.stack([np.bincount(row, weight, _FAR + 1)[:_FAR] for row in apart])

        def unlikely(numbers: FloatArray) -> float:
            per_phone, unrelated = np.exp(numbers[0]), 1 / (1 + np.exp(-numbers[1]))
            near = np.where(here < _FAR, np.exp(-per_phone * here) * weight[heard], 0)
            near = near / np.maximum(at @ np.exp(-per_phone * np.arange(_FAR)), np.finfo(float).tiny)[rows]
            return -float(np.log((1 - unrelated) * near + unrelated * zipf).sum())

        best = minimize(unlikely, [0.5, -1.0], method="Nelder-Mead", bounds=[(-3, 2), (-6, 6)])
        return float(best.fun), float(np.exp(best.x[0])), float(1 / (1 + np.exp(-best.x[1])))

    commonness = float(minimize_scalar(lambda b: fit(b)[0], bounds=(0, 2), method="bounded", options={"xatol": 0.01}).x)
    _, per_phone, unrelated = fit(commonness)
    return per_phone, commonness, unrelated


def _apart_from_lexicon(said: Sequence[str]) -> NDArray[np.uint8]:
    """(words, lexicon): how far apart they sound, at most ``_FAR``; a word is never heard as itself."""
    place = lexicon().places
    found = np.empty((len(said), len(place)), np.uint8)
    words = [spoken(word) for word in said]
    for known in (True, False):
        rows = [i for i, (_, sound) in enumerate(words) if sound.known == known]
        if rows:
            found[rows] = distances([words[i][1] for i in rows], known)
    own = [(i, place[word]) for i, (word, _) in enumerate(words) if word in place]
    if own:
        found[tuple(np.array(own).T)] = _FAR
    return np.minimum(found, _FAR)


# ----------------------------------------------------------------------------------------------- checking


def simulated(pairs: Sequence[Pair], recogniser: Recogniser, draw: int) -> list[Pair]:
    """The references with the model's errors, at the nominal rate that is the word error rate of ``pairs``."""
    rate = errors(pairs).rates[0]
    said = [reference for reference, _ in pairs]
    streams = (generator("asr-estimate", "check", draw, i) for i in range(len(said)))
    return [(text, asr_errors(text, rate, rng, recogniser)) for text, rng in zip(said, streams, strict=True)]


def apart(said: str, heard: str) -> int:
    """Phones between two words; letters where the pronunciation of either is unknown.

    >>> apart("two", "too"), apart("ship", "sheep")
    (0, 1)
    """
    (word, sound), (other, sounding) = spoken(said), spoken(heard)
    if sound.known and sounding.known:
        return int(Levenshtein.distance(sound.units, sounding.units))
    return int(Levenshtein.distance(word, other))


def summary(pairs: Sequence[Pair]) -> list[float]:
    """Word error rate, rates of S, D and I, spread of utterances' error rates, shares of substitutes at 0 … 4 and at 5
    or more phones."""
    found = errors(pairs)
    steps = np.minimum([apart(*pair) for pair in found.confusions], 5).astype(np.int64)
    return [*found.rates, found.spread, *(np.bincount(steps, minlength=6) / max(len(steps), 1)).tolist()]


def check(sources: Mapping[str, Sequence[Pair]], recogniser: Recogniser) -> str:
    """Real pairs beside the model's, as a table; the model's numbers are means of ``DRAWS`` draws."""
    columns = ["WER", "S", "D", "I", "sd", *(f"{d}" for d in range(5)), "5+"]
    lines = ["sd: of utterances' WER; 0 to 5+: share of substitutions that many phones (or letters) away"]
    lines.append(f"{'held-out pairs':<28}" + "".join(f"{name:>7}" for name in columns))
    for name, pairs in sources.items():
        drawn = [summary(simulated(pairs, recogniser, draw)) for draw in range(DRAWS)]
        for label, row in (("real", summary(pairs)), ("model", np.mean(drawn, axis=0))):
            lines.append(f"{f'{name} ({len(pairs)}), {label}':<28}" + "".join(f"{value:7.3f}" for value in row))
    return "\n".join(lines)


def relative_errors(pairs: Sequence[Pair], recogniser: Recogniser) -> FloatArray:
    """(3,) of the model's rates of S, D and I, which are means of ``DRAWS`` draws; infinite where only the real one is
    0."""
    real = np.array(errors(pairs).rates[1:])
    drawn = [errors(simulated(pairs, recogniser, draw)).rates[1:] for draw in range(DRAWS)]
    model = np.mean(drawn, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(model == real, 0.0, model / real - 1)


def check_splits(sources: Mapping[str, Sequence[Pair]], splits: int) -> str:
    """A fit and its relative errors for each of ``splits`` random halves, of all sources together, as a table."""
    rows = []
    for split in range(splits):
        divided = [halves(pairs, split) for pairs in sources.values()]
        recogniser = estimate([pair for fitted, _ in divided for pair in fitted])
        rows.append(relative_errors([pair for _, held_out in divided for pair in held_out], recogniser))
    found = np.array(rows)
    summaries = {"median": np.median(found, axis=0), "lowest": found.min(axis=0), "highest": found.max(axis=0)}
    lines = [f"{'all held-out pairs, model against real':<40}" + "".join(f"{name:>8}" for name in "SDI")]
    for label, row in ({f"split {split}": row for split, row in enumerate(rows)} | summaries).items():
        lines.append(f"{label:<40}" + "".join(f"{value:+8.1%}" for value in row))
    near = int((np.abs(found) <= WITHIN).all(axis=1).sum())
    return "\n".join([*lines, f"all three within {WITHIN:.0%} in {near} of {splits} splits"])


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m dual_bench.corruptions.asr_estimate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="PAIRS.jsonl")
    parser.add_argument("--out", type=Path, help="write the numbers to this JSON file")
    parser.add_argument("--splits", type=int, default=1, metavar="N", help="check on N random halves, each fitted anew")
    chosen = parser.parse_args(arguments)
    if chosen.splits < 1:
        parser.error(f"--splits: expected 1 or more, found {chosen.splits}")
    try:
        sources = {path.name: read_pairs(path) for path in chosen.files}
        if len(sources) < len(chosen.files):
            raise UserError("expected files with different names, found two with the same; rename one")
        divided = {name: halves(pairs) for name, pairs in sources.items()}
        recogniser = estimate([pair for fitted, _ in divided.values() for pair in fitted])
    except UserError as error:
        parser.error(str(error))
    kept = {name: held_out for name, (_, held_out) in divided.items()}
    print(json.dumps(asdict(recogniser), indent=2))
    print(check({"all": [pair for held_out in kept.values() for pair in held_out]} | kept, recogniser))
    if chosen.out:
        digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in chosen.files}
        command = f"python -m dual_bench.corruptions.asr_estimate {' '.join(digests)} --out {chosen.out.name}"
        numbers = {name: round(number, 4) for name, number in asdict(recogniser).items()}
        written = json.dumps({"command": command, "sha256": digests, **numbers}, indent=2)
        chosen.out.write_text(written + "\n", "utf-8")
    if chosen.splits > 1:
        try:
            print(check_splits(sources, chosen.splits))
        except UserError as error:
            parser.error(f"--splits: {error}")


if __name__ == "__main__":
    main()
