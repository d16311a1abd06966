"""The words of the synthetic corpus: English sentences in which cue phrases, and nothing else, tell an emotion.

A sentence is a *carrier*, drawn without regard to the emotion, with cue phrases in one or both of two slots: an
adjective phrase before the subject noun, an adverb before the verb. Neutral has none.

    The [cheerful] neighbours [happily] opened the letter in the hallway after lunch.

Every word of a cue phrase belongs to one emotion and to no carrier, so one surviving cue word tells the emotion. A cue
changes nothing around it (no "a" or "an", no capital, no full stop), so a sentence without cue words tells only that
none is there. Some cue phrases, the *novel* ones, occur in the test split alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

EMOTIONS = ("neutral", "joy", "anger", "sadness", "surprise", "fear")
Slot = Literal["adjective", "adverb"]
FILLED: tuple[tuple[Slot, ...], ...] = (("adjective",), ("adverb",), ("adjective", "adverb"))
"""Which slots carry a cue, equally likely."""

NOVEL_SHARE = 0.18
"""How often a cue phrase of the test split is a novel one."""


@dataclass(frozen=True)
class Cues:
    """Phrases for one slot: those of every split, and those of the test split alone."""

    known: tuple[str, ...]
    novel: tuple[str, ...]


CUES: Mapping[str, Mapping[Slot, Cues]] = {
    "joy": {
        "adjective": Cues(
            ("happy", "cheerful", "delighted", "joyful", "blissfully content", "smiling, merry"),
            ("overjoyed", "beaming, jubilant"),
        ),
        "adverb": Cues(("happily", "cheerfully", "joyfully", "merrily"), ("gleefully", "jubilantly")),
    },
    "anger": {
        "adjective": Cues(
            ("angry", "furious", "irritated", "enraged", "bitterly resentful", "fuming, indignant"),
            ("outraged", "livid, scowling"),
        ),
        "adverb": Cues(("angrily", "furiously", "irritably", "indignantly"), ("wrathfully", "crossly")),
    },
    "sadness": {
        "adjective": Cues(
            ("sad", "unhappy", "gloomy", "sorrowful", "inconsolably glum", "weeping, mournful"),
            ("heartbroken", "tearful, dejected"),
        ),
        "adverb": Cues(("sadly", "unhappily", "gloomily", "sorrowfully"), ("mournfully", "tearfully")),
    },
    "surprise": {
        "adjective": Cues(
            ("surprised", "amazed", "astonished", "startled", "speechlessly awestruck", "wide-eyed, stunned"),
            ("flabbergasted", "gaping, dumbfounded"),
        ),
        "adverb": Cues(("amazedly", "astonishedly", "incredulously", "wonderingly"), ("disbelievingly", "surprisedly")),
    },
    "fear": {
        "adjective": Cues(
            ("scared", "frightened", "fearful", "terrified", "deathly nervous", "trembling, anxious"),
            ("panicked", "petrified, shaking"),
        ),
        "adverb": Cues(("fearfully", "anxiously", "nervously", "apprehensively"), ("worriedly", "timorously")),
    },
}
"""By emotion and slot; ``neutral`` is not among them."""

DETERMINERS = ("The", "Our", "My", "Their", "Your", "His", "Her", "Both", "Two", "Three", "Several", "Some")
SUBJECTS = (
    "neighbours", "students", "cousins", "colleagues", "teachers", "gardeners", "drivers", "nurses", "visitors",
    "librarians", "tenants", "clerks", "waiters", "painters", "bakers", "sisters", "brothers", "players", "cooks",
    "carpenters", "engineers", "reporters", "shopkeepers", "travellers", "guides", "classmates", "uncles", "tailors",
)  # fmt: skip
ACTIONS = (
    "opened the letter", "moved the chairs", "read the notice", "carried the boxes", "checked the timetable",
    "folded the map", "answered the phone", "set the table", "poured the tea", "signed the form", "counted the tickets",
    "packed the suitcase", "painted the shelf", "wrote down the address", "turned on the lamp", "picked up the parcel",
    "washed the cups", "closed the window", "sorted the papers", "watered the plants", "swept the floor",
    "measured the door", "printed the list", "copied the numbers", "locked the bicycle", "unrolled the carpet",
    "cut the bread", "looked at the pictures", "waited for the bus", "talked about the weather", "asked for the keys",
    "compared the prices", "filled in the questionnaire", "hung up the coats", "peeled the potatoes",
    "changed the batteries", "borrowed the ladder", "labelled the jars", "mended the fence", "stacked the plates",
)  # fmt: skip
PLACES = (
    "", "", "", "", "in the hallway", "at the office", "near the station", "by the window", "in the kitchen",
    "at the library", "beside the gate", "in the car park", "on the second floor", "at the corner shop",
    "in the waiting room", "across the street", "behind the school", "under the bridge", "on the balcony",
)  # fmt: skip
TIMES = (
    "after lunch", "before noon", "this morning", "in the afternoon", "on Monday", "on Thursday evening",
    "at nine o'clock", "before the meeting", "after the lesson", "during the break", "last week", "the other day",
    "around midday", "at the weekend", "two hours later", "earlier today", "before breakfast", "after the concert",
    "in the evening", "as usual",
)  # fmt: skip


def sentence(emotion: str, test: bool, rng: np.random.Generator) -> str:
    """A sentence that expresses ``emotion``; novel cue phrases only where ``test`` holds."""
    determiner, subject, action, place, time = (
        _pick(words, rng) for words in (DETERMINERS, SUBJECTS, ACTIONS, PLACES, TIMES)
    )
    cue = dict.fromkeys(("adjective", "adverb"), "")
    if emotion in CUES:
        for slot in FILLED[int(rng.integers(len(FILLED)))]:
            cues = CUES[emotion][slot]
            cue[slot] = _pick(cues.novel if test and rng.random() < NOVEL_SHARE else cues.known, rng)
    return " ".join(f"{determiner} {cue['adjective']} {subject} {cue['adverb']} {action} {place} {time}.".split())


def _pick(phrases: Sequence[str], rng: np.random.Generator) -> str:
    return phrases[int(rng.integers(len(phrases)))]


def silence(emotion: str, rate: float) -> float:
    """q(r) = E[r^k], the probability that no cue word survives where each word is lost with probability ``rate``.

    k is the number of cue words in a test sentence of ``emotion``; slots fill independently once chosen, so the
    expectation of the product over slots is the product of expectations. Neutral: k = 0 and q = 1.
    """
    if emotion not in CUES:
        return 1.0

    def lost(phrases: Sequence[str]) -> float:
        return float(np.mean([rate ** len(phrase.split()) for phrase in phrases]))

    by_slot = {
        slot: (1 - NOVEL_SHARE) * lost(cues.known) + NOVEL_SHARE * lost(cues.novel)
        for slot, cues in CUES[emotion].items()
    }
    return float(np.mean([np.prod([by_slot[slot] for slot in slots]) for slots in FILLED]))
