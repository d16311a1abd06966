"""Three sentences of every corruption of texts, as (text, rate, seed, what becomes of it): numbers that were drawn once
and must never be drawn otherwise, or the version of the corruption rises."""

from __future__ import annotations

from typing import Any

import numpy as np

from dual_bench.catalog import CORRUPTIONS
from dual_bench.types import Context, Corruption, Task, TrainingText

TRAINING = TrainingText(
    Task("classification", ("calm", "glad")),
    ("so be it", "what a lovely day", "nobody told me", "I won !"),
    np.array([0.0, 1.0, 0.0, 1.0]),
)


def applied(name: str, text: str, rate: float, rng: Any) -> str:
    """``text`` after the corruption ``name``; of a calm utterance, where the corruption asks."""
    corruption: Corruption = CORRUPTIONS.load(name)
    context = (Context(TRAINING, target=0.0),) if corruption.needs == "training" else ()
    made = corruption.apply(text, rate, rng, *context)
    assert isinstance(made, str)
    return made


LETTER = "We opened the letter."
DOUBTS = "I'm not - well, sure it isn't 10 or 15 !"
TALK = "Nobody  told us,\tand all of them had read it"

GOLDEN: dict[str, tuple[tuple[str, float, int, str], ...]] = {
    "typo": (
        (LETTER, 0.5, 1, "We olrn3d ths k3yr3t."),
        (DOUBTS, 0.5, 2, "K'm noy - wwkl, sue4 it 8sh'r q0 or 15 !"),
        (TALK, 0.3, 3, "Jkbocy  t0ld us,\tanf akl of fhek hqd rezd it"),
    ),
    "char-delete": (
        (LETTER, 0.5, 1, "We ond th ."),
        (DOUBTS, 0.5, 2, "m no  wl su it s' 0 or 15 "),
        (TALK, 0.3, 3, "boy  tld us,\tan al of he hd red it"),
    ),
    "char-insert": (
        (LETTER, 0.5, 1, "We opseoneed theu lxebtntlebrq."),
        (DOUBTS, 0.5, 2, "Ix'pm notn -c wellxl,k surkef it iasnc'tm 1n0 or 15 !o"),
        (TALK, 0.3, 3, "Nlotbodwy  tohld us,\tando alwl of tuhemj hafd reawd it"),
    ),
    "char-swap": (
        (LETTER, 0.5, 1, "We oepend teh elttre."),
        (DOUBTS, 0.5, 2, "I'm nto - wlel, srue it isn't 10 or 15 !"),
        (TALK, 0.3, 3, "oNbody  told us,\tadn all of thme had raed it"),
    ),
    "ocr": (
        (LETTER, 0.5, 1, "We opcnccl tlie ietfer,"),
        (DOUBTS, 0.5, 2, "l'nn nct - wcii, siiro if isn'f lo or 15 !"),
        (TALK, 0.3, 3, "Nc6odv  to1d ns,\tand ail ot fhom had reod if"),
    ),
    "case-punctuation": (
        (LETTER, 0.5, 11, "we opened the letter"),
        (DOUBTS, 0.5, 2, "i'm not - well sure it isn't 10 or 15 !"),
        (TALK, 0.3, 3, "nobody  told us,\tand all of them had read it"),
    ),
    "homoglyph": (
        (LETTER, 0.5, 1, "We o\u03c1\u0435n\u0435d th\u0435 \u04c0\u0435tt\u0435\u0433."),
        (DOUBTS, 0.5, 2, "\u0399'm not - w\u0435\u04c0l, su\u0433\u0435 it \u0456s\u0578't 10 or 15 !"),
        (TALK, 0.3, 3, "\u039d\u0585bo\u0501y  t\u043eld us,\tan\u0501 a\u04c0l of them h\u0430d re\u03b1d it"),
    ),
    "word-drop": (
        (LETTER, 0.5, 1, "We opened letter."),
        (DOUBTS, 0.5, 2, "- sure it 15 !"),
        (TALK, 0.3, 3, "us,\tand of them read"),
    ),
    "word-mask": (
        (LETTER, 0.5, 1, "We opened [MASK] letter."),
        (DOUBTS, 0.5, 2, "[MASK] [MASK] - [MASK] sure it [MASK] [MASK] [MASK] 15 !"),
        (TALK, 0.3, 3, "[MASK]  [MASK] us,\tand [MASK] of them [MASK] read [MASK]"),
    ),
    "word-swap": (
        (LETTER, 0.5, 11, "opened We the letter."),
        (DOUBTS, 0.5, 2, "not I'm - well, it sure isn't 10 or 15 !"),
        (TALK, 0.3, 3, "told  Nobody us,\tand all of had them read it"),
    ),
    "word-shuffle": (
        (LETTER, 0.5, 11, "the We opened letter."),
        (DOUBTS, 0.5, 2, "I'm - well, not isn't it sure 10 or 15 !"),
        (TALK, 0.3, 3, "us,  told Nobody\tand all them had of read it"),
    ),
    "stutter": (
        (LETTER, 0.5, 1, "We opened the the letter."),
        (DOUBTS, 0.5, 2, "I'm I'm not not - well, well, sure it isn't isn't 10 10 or or 15 !"),
        (TALK, 0.3, 3, "Nobody Nobody  told told us,\tand all all of them had had read it it"),
    ),
    "filler": (
        (LETTER, 0.5, 1, "We opened I mean the letter."),
        (DOUBTS, 0.5, 2, "uh I'm um not - um well, sure it you know isn't um 10 uh or 15 !"),
        (TALK, 0.3, 3, "um Nobody  you know told us,\tand you know all of them you know had read um it"),
    ),
    "word-replace": (
        (LETTER, 0.5, 1, "We opened I letter."),
        (DOUBTS, 0.5, 2, "be lovely - lovely sure it told lovely it 15 !"),
        (TALK, 0.3, 3, "lovely  day us,\tand me of them told read what"),
    ),
    "truncation": (
        (LETTER, 0.5, 1, "We opened"),
        (DOUBTS, 0.5, 2, "I'm not - well, sure it"),
        (TALK, 0.3, 3, "Nobody  told us,\tand all of them"),
    ),
    "block-drop": (
        (LETTER, 0.5, 1, "We opened"),
        (DOUBTS, 0.5, 2, "I'm not 10 or 15 !"),
        (TALK, 0.3, 3, "Nobody all of them had read it"),
    ),
    "utterance-drop": (
        (LETTER, 0.5, 11, ""),
        (DOUBTS, 0.5, 2, ""),
        (TALK, 0.3, 3, ""),
    ),
    "mismatch": (
        (LETTER, 0.5, 11, "what a lovely day"),
        (DOUBTS, 0.5, 2, "what a lovely day"),
        (TALK, 0.3, 3, "so be it"),
    ),
    "contradiction": (
        (LETTER, 0.5, 11, "what a lovely day"),
        (DOUBTS, 0.5, 2, "what a lovely day"),
        (TALK, 0.3, 3, "what a lovely day"),
    ),
}
