"""Noise on words: a word is a run of characters without white space.

What is hit keeps the white space around it, unless a docstring says otherwise. Every function draws its numbers before
it looks at the rate, and hits a unit whose number lies below the rate: what is hit at a rate is hit, and in the same
way, at every higher one.
"""

from __future__ import annotations

import re
from itertools import compress, permutations

import numpy as np

from dual_bench.types import Context, Corruption

_WORD = re.compile(r"\s*\S+")
WORDS = re.compile(r"(\S+)")
"""Splits a text into white space (even places) and words (odd places); joined, they are the text to the byte."""

MASK_TOKEN = "[MASK]"
"""What the text encoder was taught to guess a word from (Devlin et al. 2019, BERT)."""

FILLERS = ("uh", "um", "you know", "I mean")
"""Filled pauses (Clark & Fox Tree 2002, Using uh and um in spontaneous speaking) and two discourse markers that do
their work (Fox Tree & Schrock 2002, Basic meanings of you know and I mean). None tells a feeling, as "like", "well" and
"oh" may: what is measured is the disturbance, not the filler."""

WINDOW = 4
"""Words that are shuffled among themselves."""


def drop_words(text: str, rate: float, rng: np.random.Generator) -> str:
    """Lose each word (the unit) with probability ``rate``, independently.

    Every word draws one number whatever the rate, so that the words lost at a lower rate are lost at a higher one.
    The white space before a word goes with it, and none is left in front. (The word dropout of Iyyer et al. 2015, Deep
    unordered composition, here in testing.)

    >>> drop_words("we opened the letter after lunch", 0.5, np.random.default_rng(3))
    'the letter'
    """
    words = text.split()
    stays = (rng.random(len(words)) >= rate).tobytes()  # a byte for each word
    if " ".join(words) == text:  # the common case, twice as fast
        return " ".join(compress(words, stays))
    kept = list(compress(_WORD.findall(text), stays))
    return text if len(kept) == len(words) else "".join(kept).lstrip()


def mask_words(text: str, rate: float, rng: np.random.Generator) -> str:
    """Put the mask token in the place of each word (the unit) with probability ``rate``: Devlin et al. (2019).

    >>> mask_words("we opened the letter after lunch", 0.5, np.random.default_rng(3))
    '[MASK] [MASK] the letter [MASK] [MASK]'
    """
    parts = WORDS.split(text)
    for i in np.flatnonzero(rng.random(len(parts) // 2) < rate).tolist():
        parts[2 * i + 1] = MASK_TOKEN
    return "".join(parts)


def swap_words(text: str, rate: float, rng: np.random.Generator) -> str:
    """Exchange each pair of neighbouring words (the unit) with probability ``rate``.

    Pairs do not overlap; a number drawn for the text says whether they begin at its first or its second word (at the
    first where there are but two). Two equal words are no unit. After the word order noise of Belinkov & Bisk (2018),
    who swap letters.

    >>> swap_words("we opened the letter after lunch", 1.0, np.random.default_rng(3))
    'opened we letter the lunch after'
    >>> swap_words("we opened the letter after lunch", 1.0, np.random.default_rng(0))
    'we the opened after letter lunch'
    """
    parts = WORDS.split(text)
    words = parts[1::2]
    first = int(2 * rng.random()) if len(words) > 2 else 0
    hit = rng.random(len(words) // 2) < rate
    for i in (first + 2 * np.flatnonzero(hit)).tolist():
        words[i : i + 2] = words[i : i + 2][::-1]
    parts[1::2] = words
    return "".join(parts)


def shuffle_words(text: str, rate: float, rng: np.random.Generator) -> str:
    """Put each window of four words (the unit; the last may be shorter) into another order with probability ``rate``.

    All orders that read differently are equally likely. A window of equal words, or of one, is no unit. (How little
    models of language miss the order of words: Pham et al. 2021, Out of order.)

    >>> shuffle_words("we opened the letter after lunch", 1.0, np.random.default_rng(0))
    'we opened letter the lunch after'
    """
    parts = WORDS.split(text)
    words = parts[1::2]
    numbers, choices = rng.random((2, -(-len(words) // WINDOW)))
    for i in np.flatnonzero(numbers < rate).tolist():
        window = slice(WINDOW * i, WINDOW * (i + 1))
        words[window] = _another_order(tuple(words[window]), choices[i])
    parts[1::2] = words
    return "".join(parts)


def _another_order(window: tuple[str, ...], choice: float) -> tuple[str, ...]:
    """The order of ``window`` at ``choice`` in [0, 1) among those that differ from it; itself where none does.

    >>> _another_order(("a", "b", "b"), 0.6)
    ('b', 'b', 'a')
    """
    # a dictionary keeps the order of permutations, whose first is the window as it is
    others = list(dict.fromkeys(permutations(window)))[1:]
    return others[int(choice * len(others))] if others else window


def stutter(text: str, rate: float, rng: np.random.Generator) -> str:
    """Say each word (the unit) twice with probability ``rate``: the repetitions of Shriberg (1994), Preliminaries to a
    theory of speech disfluencies.

    >>> stutter("we opened the letter after lunch", 0.3, np.random.default_rng(3))
    'we we opened opened the letter after after lunch'
    """
    parts = WORDS.split(text)
    for i in np.flatnonzero(rng.random(len(parts) // 2) < rate).tolist():
        parts[2 * i + 1] += " " + parts[2 * i + 1]
    return "".join(parts)


def fill_pauses(text: str, rate: float, rng: np.random.Generator) -> str:
    """Say a filler, evenly drawn from ``FILLERS`` (with its sources), before each word (the unit) with probability
    ``rate``.

    >>> fill_pauses("we opened the letter after lunch", 0.3, np.random.default_rng(3))
    'um we uh opened the letter um after lunch'
    """
    parts = WORDS.split(text)
    numbers, choices = rng.random((2, len(parts) // 2))
    for i in np.flatnonzero(numbers < rate).tolist():
        parts[2 * i + 1] = f"{FILLERS[int(choices[i] * len(FILLERS))]} {parts[2 * i + 1]}"
    return "".join(parts)


def replace_words(text: str, rate: float, rng: np.random.Generator, context: Context) -> str:
    """Put a random word of the training texts in the place of each word (the unit) with probability ``rate``.

    A word is drawn as often as it is said there. Where that is the very word to be replaced, the next one that differs
    stands in, so that only a training part of that single word leaves it as it is. (The unigram noise of Xie et al.
    2017, Data noising as smoothing.)

    >>> from dual_bench.types import Task, TrainingText
    >>> training = TrainingText(Task("regression"), ("not now", "maybe later then"), np.zeros(2))
    >>> replace_words("we opened the letter", 0.5, np.random.default_rng(3), Context(training))
    'not maybe the letter'
    """
    parts = WORDS.split(text)
    vocabulary = context.training.words
    numbers, choices = rng.random((2, len(parts) // 2))
    for i in np.flatnonzero(numbers < rate).tolist():
        parts[2 * i + 1] = _another_word(parts[2 * i + 1], vocabulary, int(choices[i] * len(vocabulary)))
    return "".join(parts)


def _another_word(word: str, vocabulary: tuple[str, ...], place: int) -> str:
    """The first word from ``place`` on, and round the end, that is not ``word``; ``word`` where there is none.

    >>> _another_word("b", ("a", "b", "b"), 1)
    'a'
    """
    from_place = (vocabulary[(place + i) % len(vocabulary)] for i in range(len(vocabulary)))
    return next((other for other in from_place if other != word), word)


def truncate(text: str, rate: float, rng: np.random.Generator) -> str:
    """Lose the last words (a word is the unit): what a system reads that has to answer before the speaker has ended
    (Köhn 2018, Incremental natural language processing).

    Of n words, floor(``rate`` * n + u) are lost, with u even in [0, 1) and drawn once: ``rate`` * n on average. The
    white space around words that are lost goes with them, and none is left in front.

    >>> truncate("we opened the letter after lunch", 0.5, np.random.default_rng(3))
    'we opened the'
    """
    words = _WORD.findall(text)
    lost = _lost(len(words), rate, rng.random())
    return "".join(words[: len(words) - lost]).lstrip() if lost else text


def drop_block(text: str, rate: float, rng: np.random.Generator) -> str:
    """Lose one run of words (a word is the unit), as in a gap of the line: errors come in bursts (Gilbert 1960,
    Capacity of a burst-noise channel).

    Of n words, m = floor(``rate`` * n + u) are lost from word floor(v * (n - m + 1)) on, with u and v even in [0, 1)
    and drawn once: a longer run contains a shorter one. White space goes as in ``drop_words``.

    >>> drop_block("we opened the letter after lunch", 0.5, np.random.default_rng(3))
    'letter after lunch'
    """
    words = _WORD.findall(text)
    length, place = rng.random(2)
    lost = _lost(len(words), rate, length)
    start = int(place * (len(words) - lost + 1))
    return "".join(words[:start] + words[start + lost :]).lstrip() if lost else text


def _lost(words: int, rate: float, number: float) -> int:
    """How many of ``words`` are lost: ``rate`` of them, rounded up or down by ``number`` in [0, 1).

    >>> [_lost(5, 0.5, number) for number in (0.4, 0.6)]
    [2, 3]
    """
    # the sum may round up to words + 1
    return min(words, int(rate * words + number))


DROP = Corruption("word-drop", 1, drop_words, rate_is="words lost")
MASK = Corruption("word-mask", 1, mask_words, rate_is="words masked")
SWAP = Corruption("word-swap", 1, swap_words, rate_is="pairs of neighbouring words exchanged")
SHUFFLE = Corruption("word-shuffle", 1, shuffle_words, rate_is="windows of four words shuffled")
STUTTER = Corruption("stutter", 1, stutter, rate_is="words said twice")
FILLER = Corruption("filler", 1, fill_pauses, rate_is="words with a filler before them")
REPLACE = Corruption("word-replace", 1, replace_words, rate_is="words replaced", needs="training")
TRUNCATION = Corruption("truncation", 1, truncate, rate_is="words lost")
BLOCK = Corruption("block-drop", 1, drop_block, rate_is="words lost")
