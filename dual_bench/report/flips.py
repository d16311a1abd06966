"""The sentences: test utterances whose prediction flips when the words are noisy, with what was read and answered.

All is computed on arrays of answers, (systems, conditions, utterances, seeds) for each regime; only the rows that are
picked meet their words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from dual_bench.corruptions.measure import Change, changes
from dual_bench.report.answers import ABSENT, SIGNS, Panel, codes, conditions, panel, said
from dual_bench.report.evidence import MATCHED, Evidence
from dual_bench.report.numbers import listing, plural
from dual_bench.report.table import Table

MOST = 300
"""Rows that are picked at most."""

WHOLE, AROUND, SHOWN, LETTERS = 60, 5, 120, 60
"""A text of ``WHOLE`` words is shown whole; of a longer one the ``AROUND`` words on each side of every change, at most
``SHOWN`` in all. Of a longer word than ``LETTERS`` the middle is left out."""

GAP = "…"
Kind = Literal["broken", "moved", "mended", "kept"]
KINDS: tuple[Kind, ...] = ("broken", "moved", "mended", "kept")
"""Right to wrong, wrong to another wrong, wrong to right, unchanged: in this order groups are listed."""

Marked = tuple[tuple[str, Change], ...]


class Voice(NamedTuple):
    """How many of the ``seeds`` trainings of a system say its answer on clean text, under noise, and both."""

    system: str
    clean: int
    noisy: int
    both: int
    seeds: int


@dataclass(frozen=True)
class Group:
    """Systems (their titles) with one answer on clean text, ``before``, and one under noise, ``after``; their
    ``voices`` come in the same order."""

    before: str
    after: str
    systems: tuple[str, ...]
    kind: Kind
    voices: tuple[Voice, ...] = ()

    @property
    def named(self) -> tuple[str, ...]:
        """The systems, and how many of their seeds answer just so, where not all do: ``dual (4 of 5 seeds)``."""
        return tuple(
            title if voice.both == voice.seeds else f"{title} ({voice.both} of {voice.seeds} seeds)"
            for title, voice in zip(self.systems, self.voices, strict=True)
        )


@dataclass(frozen=True)
class Flip:
    """An utterance under one condition, which changes the answer of some system.

    ``words`` are those of both texts, each with what became of it, empty where the texts are not known; ``before`` and
    ``after`` are the texts. All are shortened to what is near a change.
    """

    condition: str
    corruption: str
    rate: float
    regime: str
    utterance: str
    cluster: str
    words: Marked
    before: str
    after: str
    truth: str
    groups: tuple[Group, ...]

    @property
    def unchanged(self) -> bool:
        """Whether noise acts behind the words, which are known and the same."""
        return bool(self.words) and all(kind == "same" for _, kind in self.words)


@dataclass(frozen=True)
class Flips:
    """The rows picked from ``total``, and by which rule."""

    rows: tuple[Flip, ...]
    total: int
    rule: str


class _Spot(NamedTuple):
    """A condition (its number; 0 is clean text) in one regime, and what flips there: (utterance, the systems asked)."""

    condition: int
    regime: str
    found: list[tuple[int, tuple[int, ...]]]


def flips(evidence: Evidence) -> Flips | None:
    """At most ``MOST`` rows, evenly from all conditions and regimes; None where there is no noise, or no answer that
    can flip."""
    answers = panel(evidence)
    if answers is None:
        return None
    spots = [
        _Spot(condition, regime, _candidates(answers, condition, regime))
        for condition in range(1, len(answers.places))
        for regime in answers.answers
    ]
    counts = [len(spot.found) for spot in spots]
    picked = [
        _Spot(spot.condition, spot.regime, spot.found[:share])
        for spot, share in zip(spots, evenly(counts, MOST), strict=True)
    ]
    texts = _Texts.of(evidence, answers, {utterance for spot in picked for utterance, _ in spot.found})
    rows = tuple(
        _row(evidence, answers, texts, spot, utterance, systems) for spot in picked for utterance, systems in spot.found
    )
    return Flips(rows, sum(counts), _rule(evidence, answers, rows, sum(counts)))


def table(found: Flips | None) -> Table | None:
    """The flips of the rows, a line for each system; None where there is none."""
    lines = [
        {
            "trained": row.regime,
            "condition": row.condition,
            "corruption": row.corruption,
            "rate": row.rate,
            "cluster": row.cluster,
            "utterance": row.utterance,
            "truth": row.truth,
            "before": row.before,
            "after": row.after,
            "system": voice.system,
            "answer_clean": group.before,
            "answer_noisy": group.after,
            "seeds": voice.seeds,
            "seeds_clean": voice.clean,
            "seeds_noisy": voice.noisy,
            "seeds_both": voice.both,
            "kind": group.kind,
        }
        for row in (found.rows if found else ())
        for group in row.groups
        if group.kind != "kept"
        for voice in group.voices
    ]
    notes = (found.rule,) if found else ()
    return Table("sentences", "Sentences", pd.DataFrame(lines), None, notes) if lines else None


def _candidates(answers: Panel, condition: int, regime: str) -> list[tuple[int, tuple[int, ...]]]:
    """The utterances at which an answer flips, those of most systems first, then by id; where each model reads words of
    its own, one for each of them."""
    before, after = map(said, answers.pair(condition, regime))
    there = (before != ABSENT) & (after != ABSENT)
    flipped = there & (before != after)
    count = flipped.sum(axis=0)
    order = np.argsort(-count, kind="stable")[: int((count > 0).sum())]
    if condition in answers.own:
        return [(int(u), (int(s),)) for u in order for s in np.flatnonzero(flipped[:, u])]
    return [(int(u), tuple(map(int, np.flatnonzero(there[:, u])))) for u in order]


def evenly(counts: Sequence[int], most: int) -> list[int]:
    """How many to take of each so that there are ``most`` in all: equally many, as far as there are.

    >>> evenly([9, 2, 50], 20)
    [9, 2, 9]
    """
    shares, left = [0] * len(counts), most
    for done, i in enumerate(sorted(range(len(counts)), key=counts.__getitem__)):
        shares[i] = min(counts[i], left // (len(counts) - done))
        left -= shares[i]
    return shares


# ---------------------------------------------------------------------------------------------- texts


@dataclass(frozen=True)
class _Texts:
    """``shared[condition, utterance]``, and ``own[condition, utterance, regime, system]``."""

    shared: Mapping[tuple[int, int], str]
    own: Mapping[tuple[int, int, str, int], str]

    @classmethod
    def of(cls, evidence: Evidence, answers: Panel, wanted: set[int]) -> _Texts:
        """What was read of the utterances ``wanted``, in the first draw."""
        names, shared = [answers.utterances[u] for u in sorted(wanted)], {}
        texts = evidence.run.texts
        texts = texts[texts["utterance"].isin(names)].sort_values("draw", ascending=False, kind="stable")
        for condition, unit, text in cls._told(texts, answers):
            shared[condition, unit] = text
        rows = evidence.answers
        rows = rows[rows["text"].notna() & (rows["seed"] == evidence.cube.seeds[0])]
        rows = rows[rows["utterance"].isin(names)]
        system = codes(rows["system"], answers.systems)
        own = {}
        for (condition, unit, text), regime, who in zip(cls._told(rows, answers), rows["regime"], system, strict=True):
            if condition in answers.own:
                own[condition, unit, str(regime), int(who)] = text
            else:
                shared[condition, unit] = text
        return cls(shared, own)

    @staticmethod
    def _told(rows: pd.DataFrame, answers: Panel) -> Iterator[tuple[int, int, str]]:
        condition, unit = conditions(rows, answers.places), codes(rows["utterance"], answers.utterances)
        return zip(map(int, condition), map(int, unit), map(str, rows["text"]), strict=True)

    def read(self, condition: int, utterance: int, regime: str, systems: tuple[int, ...]) -> str | None:
        """What the systems read; None where nobody knows."""
        mine = self.own.get((condition, utterance, regime, systems[0]))
        return self.shared.get((condition, utterance)) if mine is None else mine


def shortened(words: Sequence[tuple[str, Change]]) -> Marked:
    """The words around the changes, ``GAP`` where some are left out."""
    kept = list(range(len(words)))
    if len(words) > WHOLE:
        changed = [i for i, (_, kind) in enumerate(words) if kind != "same"]
        reach, near = (AROUND, changed) if changed else (WHOLE // 2 - 1, [0, len(words) - 1])
        kept = sorted({j for i in near for j in range(max(i - reach, 0), min(i + reach + 1, len(words)))})
    if len(kept) > SHOWN:
        kept = kept[: SHOWN // 2] + kept[-SHOWN // 2 :]
    found: list[tuple[str, Change]] = []
    last = -1
    for i in kept:
        found += [(GAP, "same")] if i > last + 1 else []
        word, kind = words[i]
        found.append((word if len(word) <= LETTERS else f"{word[: LETTERS // 2]}{GAP}{word[-LETTERS // 2 :]}", kind))
        last = i
    if last + 1 < len(words):
        found.append((GAP, "same"))
    return tuple(found)


def _plain(words: Marked) -> str:
    """The words that are in the text, on one line."""
    return " ".join(word for word, kind in words if kind != "lost")


# ----------------------------------------------------------------------------------------------- rows


def _row(
    evidence: Evidence, answers: Panel, texts: _Texts, spot: _Spot, utterance: int, systems: tuple[int, ...]
) -> Flip:
    place, regime = answers.places[spot.condition], spot.regime
    before = texts.read(0, utterance, regime, systems)
    after = texts.read(spot.condition, utterance, regime, systems)
    words: Marked = ()
    backwards = shortened([(word, "same") for word in (before or "").split()])
    if before is not None and after is not None:
        words, backwards = shortened(changes(before, after)), shortened(changes(after, before))
    return Flip(
        condition=place.label,
        corruption=place.corruption,
        rate=place.rate,
        regime=regime,
        utterance=answers.utterances[utterance],
        cluster=answers.clusters[utterance],
        words=words,
        before=_plain(backwards),
        after=_plain(words),
        truth=answers.classes[int(answers.truth[utterance])],
        groups=_groups(evidence, answers, spot, utterance, systems),
    )


def _groups(
    evidence: Evidence, answers: Panel, spot: _Spot, utterance: int, systems: tuple[int, ...]
) -> tuple[Group, ...]:
    clean, noisy = (each[:, utterance] for each in answers.pair(spot.condition, spot.regime))
    before, after, truth = said(clean), said(noisy), int(answers.truth[utterance])
    members: dict[tuple[int, int], list[Voice]] = {}
    for s in systems:
        told, then = clean[s] == before[s], noisy[s] == after[s]
        asked = (clean[s] != ABSENT) | (noisy[s] != ABSENT)
        counts = (int(each.sum()) for each in (told, then, told & then, asked))
        members.setdefault((int(before[s]), int(after[s])), []).append(Voice(answers.systems[s], *counts))
    found = [
        Group(
            answers.classes[old],
            answers.classes[new],
            tuple(evidence.title(voice.system) for voice in voices),
            kind_of(old, new, truth),
            tuple(voices),
        )
        for (old, new), voices in sorted(members.items())
    ]
    return tuple(sorted(found, key=lambda group: (KINDS.index(group.kind), -len(group.systems))))


def kind_of(before: int, after: int, truth: int) -> Kind:
    """
    >>> [kind_of(*answers, truth=0) for answers in [(0, 1), (1, 2), (1, 0), (1, 1)]]
    ['broken', 'moved', 'mended', 'kept']
    """
    if before == after:
        return "kept"
    return "broken" if before == truth else "mended" if after == truth else "moved"


def _rule(evidence: Evidence, answers: Panel, rows: Sequence[Flip], total: int) -> str:
    """How the rows were picked and what they show, in plain sentences."""
    if total == 0:
        first = "No noise that was looked at changes what most seeds of a system answer."
    elif len(rows) == total:
        first = f"{plural(total, 'case')}: every test utterance at which a system changes its answer."
    else:
        first = (
            f"{len(rows):,} of {total:,} cases in which a system changes its answer: evenly from conditions and "
            "regimes, the utterances at which most systems change theirs first, then by id. They show what failing "
            "looks like, not how often it happens."
        )
    found = [
        first,
        "Of each corruption the middle and the largest rate are looked at, in the first noise draw.",
        ""
        if evidence.run.info.corpus.classes
        else f"An answer is the sign of the value: “{SIGNS[0]}”, or “{SIGNS[1]}”.",
    ]
    if len(evidence.cube.seeds) > 1:
        found.append(
            f"A system's answer is what most of its {plural(len(evidence.cube.seeds), 'seed')} say, of equals the "
            "first class; in brackets, how many seeds give both answers, where not all do."
        )
    if answers.own:
        own = listing(list(dict.fromkeys(answers.places[i].corruption for i in sorted(answers.own - {0}))))
        found.append(
            f"Under {own} each model reads words of its own: those of its first seed are shown, with its answers."
        )
    if MATCHED in evidence.regimes:
        found.append(f"The regime {MATCHED} is left out: there another model reads clean text.")
    if unknown := sum(not row.words and not row.before for row in rows):
        of = "any row" if unknown == len(rows) else f"{unknown:,} of the rows"
        found.append(f"The words of {of} are not known.")
    return " ".join(filter(None, found))
