"""Noise on characters: slips of the keyboard, of the scanner and of the clean-up, and letters that only look right.

Every function draws its numbers before it looks at the rate, and hits a unit whose number lies below the rate: what is
hit at a rate is hit, and in the same way, at every higher one. White space stays as it is.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dual_bench.corruptions.words import WORDS
from dual_bench.types import Corruption

_LETTERS = re.compile(r"[^\W\d_]{2,}")
"""Runs of two letters or more, of any script."""

_CHOICES = 60
"""Divisible by 1 to 6, so that one whole number below it chooses evenly among that many others."""


def _table(others: Mapping[str, str]) -> NDArray[np.uint32]:
    """Code points (128, choices): in row c and column k, what choice k puts in the place of ASCII character c.

    >>> [chr(code) for code in _table({"p": "0ol"})[ord("p"), [0, 20, 40]]]
    ['0', 'o', 'l']
    """
    table = np.arange(128, dtype=np.uint32)[:, None].repeat(_CHOICES, axis=1)
    for letter, choices in others.items():
        table[ord(letter)] = np.repeat([ord(choice) for choice in choices], _CHOICES // len(choices))
    return table


def _substituted(text: str, rate: float, rng: np.random.Generator, table: NDArray[np.uint32]) -> str:
    """Every character of ``table`` gives way to one of its others with probability ``rate``."""
    encoded = bytearray(text.encode("utf-32-le", "surrogatepass"))
    codes = np.frombuffer(encoded, "<u4")
    numbers = rng.random(2 * len(codes))
    hit = (numbers[: len(codes)] < rate).nonzero()[0]
    if not text.isascii():
        hit = hit[codes[hit] < len(table)]
    choices = (numbers[len(codes) :][hit] * _CHOICES).astype(np.intp)
    codes[hit] = table[codes[hit], choices]
    return encoded.decode("utf-32-le", "surrogatepass")


# ---------------------------------------------------------------------------------------------- keyboard

_ROWS = (("1234567890", 0.0), ("qwertyuiop", 0.5), ("asdfghjkl", 0.75), ("zxcvbnm", 1.25))
"""Keys of the US layout (ANSI INCITS 154) and how far each row begins to the right, in widths of a key."""


def _neighbours() -> dict[str, str]:
    """The keys that touch a key: beside it and diagonally above and below; capitals type capitals.

    >>> _neighbours()["s"], _neighbours()["P"]
    ('weadzx', '0OL')
    """
    places = {key: (left + i, y) for y, (keys, left) in enumerate(_ROWS) for i, key in enumerate(keys)}
    # the centres of two keys that touch lie at most 1.25 widths apart, of the next ones 1.6
    touching = {
        key: "".join(k for k, (u, v) in places.items() if 0 < (u - x) ** 2 + (v - y) ** 2 < 1.3**2)
        for key, (x, y) in places.items()
    }
    return touching | {key.upper(): others.upper() for key, others in touching.items() if key.isalpha()}


_KEYBOARD = _table(_neighbours())


def mistype(text: str, rate: float, rng: np.random.Generator) -> str:
    """Put a neighbour on the US keyboard in the place of each ASCII letter or digit (the unit), with probability
    ``rate``; all neighbours are equally likely, and a capital stays one. After Belinkov & Bisk (2018), Synthetic and
    natural noise both break neural machine translation.

    >>> mistype("We opened 2 letters", 0.3, np.random.default_rng(0))
    'W3 kpened 2 l3tyerx'
    """
    return _substituted(text, rate, rng, _KEYBOARD)


# ----------------------------------------------------------------------------------------- lost and added


def delete_characters(text: str, rate: float, rng: np.random.Generator) -> str:
    """Lose each character that is not white space (the unit) with probability ``rate``.

    A word may go altogether; the white space on both sides of it stays. Deletion, insertion, substitution and exchange
    are the four slips of typists that Damerau (1964), A technique for computer detection and correction of spelling
    errors, counts.

    >>> delete_characters("we opened the letter", 0.3, np.random.default_rng(0))
    'w pened te lttr'
    """
    characters = list(text)
    for i in np.flatnonzero(rng.random(len(text)) < rate).tolist():
        if not characters[i].isspace():
            characters[i] = ""
    return "".join(characters)


def insert_letters(text: str, rate: float, rng: np.random.Generator) -> str:
    """Put a random letter a-z behind each character that is not white space (the unit) with probability ``rate``:
    Damerau (1964).

    >>> insert_letters("we opened the letter", 0.3, np.random.default_rng(0))
    'wed oqpened thke leitteyr'
    """
    characters = list(text)
    numbers, choices = rng.random((2, len(text)))
    for i in np.flatnonzero(numbers < rate).tolist():
        if not characters[i].isspace():
            characters[i] += string.ascii_lowercase[int(choices[i] * 26)]
    return "".join(characters)


def swap_letters(text: str, rate: float, rng: np.random.Generator) -> str:
    """Exchange each pair of neighbouring letters (the unit) with probability ``rate``: Belinkov & Bisk (2018).

    Pairs lie within a run of letters and do not overlap; a number drawn for each run says whether they begin at its
    first or its second letter (at the first where there are but two). Two equal letters are no unit.

    >>> swap_letters("we opened the letter", 1.0, np.random.default_rng(1))
    'ew oepend teh elttre'
    """
    characters = list(text)
    numbers = rng.random(len(text))
    hit = (numbers < rate).tolist()
    for run in _LETTERS.finditer(text):
        start, end = run.span()
        # the number of the first letter says where pairs begin, that of its second letter whether a pair is hit
        first = start + (int(2 * numbers[start]) if end - start > 2 else 0)
        for i in range(first, end - 1, 2):
            if hit[i + 1]:
                characters[i : i + 2] = characters[i : i + 2][::-1]
    return "".join(characters)


# ---------------------------------------------------------------------------------------------- scanner

_CONFUSIONS = """
rn m; nn m; cl d; vv w; ri n; li h; ii u; fi h; m rn nn; d cl; w vv; u ii n; h li b; n u ri;
a o; b h 6; c e o; e c o; f t; g 9 q; i l 1; l 1 I i; o 0 c; q g; s 5; t f; v y; y v; z 2;
B 8; C G; D O 0; E F; F E P; G 6 C; I l 1; O 0 Q; P F; Q O; S 5; Z 2;
0 O o; 1 l I; 2 Z z; 5 S s; 6 b G; 8 B; 9 g; . ,; , .
"""
"""Print and what is read instead, by likeness of shape: letters that run together or fall apart, that differ in one
stroke, and that have the shape of a digit. The kinds are those of Kukich (1992), Techniques for automatically
correcting words in text, and Rice, Nagy & Nartker (1999), Optical character recognition."""

_MISREAD = {entry.split()[0]: entry.split()[1:] for entry in _CONFUSIONS.split(";")}
_PRINT = re.compile("(" + "|".join(map(re.escape, sorted(_MISREAD, key=len, reverse=True))) + ")")


def misread(text: str, rate: float, rng: np.random.Generator) -> str:
    """Misread each piece of print that has a look-alike (the unit) with probability ``rate``, as a scanner would.

    Pieces are the longest of the table from left to right: "rn" is one piece. All its look-alikes are equally likely.

    >>> misread("We burned 10 letters", 0.4, np.random.default_rng(1))
    'We biirncd 10 lottors'
    """
    parts = _PRINT.split(text)
    numbers, choices = rng.random((2, len(parts) // 2))
    for i in np.flatnonzero(numbers < rate).tolist():
        others = _MISREAD[parts[2 * i + 1]]
        parts[2 * i + 1] = others[int(choices[i] * len(others))]
    return "".join(parts)


# --------------------------------------------------------------------------------- capitals and punctuation


def strip_words(text: str, rate: float, rng: np.random.Generator) -> str:
    """Take capitals and punctuation from each word that has any (the unit) with probability ``rate``.

    What many speech recognisers write. Punctuation is Unicode's category P. An apostrophe between two letters is
    spelling and stays; other punctuation inside a word becomes a space, lest two words become one that is none. A word
    of nothing but punctuation goes, and the white space before it; none is then left in front.

    >>> strip_words("Well-known, isn't it - Ann ?", 1.0, np.random.default_rng(0))
    "well known isn't it ann"
    """
    parts = WORDS.split(text)
    for i in np.flatnonzero(rng.random(len(parts) // 2) < rate).tolist():
        parts[2 * i + 1] = stripped = _stripped(parts[2 * i + 1])
        if not stripped:
            parts[2 * i] = ""
    made = "".join(parts)
    return made.lstrip() if "" in parts[1:2] else made


def _stripped(word: str) -> str:
    """``word`` without capitals and punctuation.

    >>> [_stripped(word) for word in ("'Tis", "O'Neill's", "so...what?", "--")]
    ['tis', "o'neill's", 'so what', '']
    """
    spaced = [
        " " if unicodedata.category(c).startswith("P") and not (c in "'’" and _between_letters(word, i)) else c
        for i, c in enumerate(word)
    ]
    return " ".join("".join(spaced).split()).lower()


def _between_letters(word: str, i: int) -> bool:
    return word[i - 1 : i].isalpha() and word[i + 1 : i + 2].isalpha()


# ------------------------------------------------------------------------------------------- look-alikes

_LOOK_ALIKES = """
a\u0430\u03b1 b\u042c c\u0441\u03f2 d\u0501 e\u0435 f\u0584 g\u0581 h\u04bb\u0570 i\u0456\u03b9 j\u0458\u03f3
l\u04c0 n\u0578 o\u043e\u03bf\u0585 p\u0440\u03c1 q\u051b\u0563 r\u0433 s\u0455 u\u03c5\u057d v\u0475\u03bd
w\u051d x\u0445 y\u0443\u03b3 A\u0410\u0391 B\u0412\u0392 C\u0421\u03f9 E\u0415\u0395 F\u03dc G\u050c
H\u041d\u0397 I\u0406\u0399 J\u0408 K\u041a\u039a M\u041c\u039c N\u039d O\u041e\u039f P\u0420\u03a1 Q\u051a
S\u0405 T\u0422\u03a4 U\u054d V\u0474 W\u051c X\u0425\u03a7 Y\u0423\u03a5\u04ae Z\u0396
"""
"""A Latin letter, and Cyrillic, Greek and Armenian ones that Unicode Technical Standard 39 (confusables.txt) folds into
the same skeleton; a few, such as k and t, have none. As escapes, because nobody can tell them apart."""

_HOMOGLYPHS = _table({entry[0]: entry[1:] for entry in _LOOK_ALIKES.split()})


def disguise(text: str, rate: float, rng: np.random.Generator) -> str:
    r"""Put a look-alike of another script in the place of each Latin letter that has one (the unit), with probability
    ``rate``. A reader sees no difference, a tokenizer does: Boucher et al. (2022), Bad characters.

    >>> ascii(disguise("we opened", 0.3, np.random.default_rng(0)))
    "'w\\u0435 \\u0585pened'"
    """
    return _substituted(text, rate, rng, _HOMOGLYPHS)


TYPO = Corruption("typo", 1, mistype, rate_is="letters and digits mistyped")
DELETE = Corruption("char-delete", 1, delete_characters, rate_is="characters lost")
INSERT = Corruption("char-insert", 1, insert_letters, rate_is="characters with a letter put behind them")
SWAP = Corruption("char-swap", 1, swap_letters, rate_is="pairs of neighbouring letters exchanged")
OCR = Corruption("ocr", 1, misread, rate_is="look-alikes misread")
STRIPPED = Corruption("case-punctuation", 1, strip_words, rate_is="words with capitals or punctuation that lose them")
HOMOGLYPH = Corruption("homoglyph", 1, disguise, rate_is="letters put in another script")
