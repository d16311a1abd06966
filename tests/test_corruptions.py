"""Corruptions of texts: what every one of them promises, and what each does."""

from __future__ import annotations

import ast
import random
import re
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from golden_corruptions import GOLDEN, TRAINING, applied
from hypothesis import example, given
from hypothesis import strategies as st
from realised import WITH_LOOK_ALIKE, units_and_hits
from unusual import UNUSUAL, is_subsequence, rates, seeds, texts

from dual_bench.catalog import CORRUPTIONS
from dual_bench.types import Context, Corruption, Task, TrainingText

ELSEWHERE = ("recogniser", "tokens", "worst")
"""Modules whose corruptions take more than a text and its training part."""

NAMES = [name for name, e in CORRUPTIONS.entries.items() if e.target.split(":")[0].split(".")[-1] not in ELSEWHERE]
every_corruption = pytest.mark.parametrize("name", NAMES)


def apply(name: str, text: str, rate: float, seed: int) -> str:
    return applied(name, text, rate, np.random.default_rng(seed))


# ------------------------------------------------------------------------------- what each one promises


def test_every_corruption_that_needs_no_more_than_texts_is_tested_here() -> None:
    wanted = [name for name in CORRUPTIONS.entries if CORRUPTIONS.load(name).needs in ("nothing", "training")]
    assert sorted(wanted) == sorted(NAMES)


@pytest.mark.parametrize("name", CORRUPTIONS.entries)
def test_a_corruption_bears_its_catalogue_name_and_says_what_its_rate_is(name: str) -> None:
    corruption: Corruption = CORRUPTIONS.load(name)
    assert corruption.name == name
    assert corruption.version >= 1
    assert corruption.rate_is.strip()


@every_corruption
@given(text=texts, seed=seeds)
def test_rate_zero_is_the_identity_to_the_byte(name: str, text: str, seed: int) -> None:
    assert apply(name, text, 0.0, seed) == text


@every_corruption
def test_rate_zero_hits_nothing_even_with_the_smallest_number(name: str) -> None:
    smallest = SimpleNamespace(random=lambda size=(): np.zeros(size))
    assert applied(name, "We opened 2 letters.", 0.0, smallest) == "We opened 2 letters."


@every_corruption
@given(text=texts, rate=rates, seed=seeds)
@example(text=UNUSUAL[-1], rate=1.0, seed=0)
def test_any_text_at_any_rate_gives_valid_text_and_the_same_for_the_same_seed(
    name: str, text: str, rate: float, seed: int
) -> None:
    found = apply(name, text, rate, seed)
    assert found.encode("utf-8").decode("utf-8") == found
    assert apply(name, text, rate, seed) == found


@every_corruption
@given(text=texts, rate=rates, seed=seeds)
def test_the_numbers_drawn_do_not_depend_on_the_rate(name: str, text: str, rate: float, seed: int) -> None:
    one, other = np.random.default_rng(seed), np.random.default_rng(seed)
    applied(name, text, rate, one)
    applied(name, text, 0.5, other)
    assert one.bit_generator.state == other.bit_generator.state


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_sentences_come_out_as_ever(name: str) -> None:
    for text, rate, seed, expected in GOLDEN[name]:
        assert apply(name, text, rate, seed) == expected


def test_every_corruption_has_three_golden_sentences() -> None:
    assert {*NAMES} - {*GOLDEN} == {"asr-model"}  # its sentences are with the tests of its numbers
    assert all(len(sentences) >= 3 for sentences in GOLDEN.values())


def test_another_process_makes_the_same_noise(another_process: Callable[[str], str]) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import numpy as np
from golden_corruptions import GOLDEN, applied
print([applied(name, *case[:2], np.random.default_rng(case[2])) for name in GOLDEN for case in GOLDEN[name]])
"""
    assert ast.literal_eval(another_process(code)) == [case[3] for cases in GOLDEN.values() for case in cases]


# ------------------------------------------------------------------- heavier noise contains lighter noise


def characters(text: str) -> list[str]:
    return list(text)


def words(text: str) -> list[str]:
    return text.split()


def bare(text: str) -> list[str]:
    """Characters without capitals and white space; a sigma at the end of a word is still a sigma."""
    return list("".join(text.split()).lower().replace("ς", "σ"))


Parts = Callable[[str], list[str]]


def fewer(parts: Parts) -> Callable[[str, str, str], bool]:
    """Whether what heavier noise leaves is there under lighter noise, in the same order."""
    return lambda text, low, high: is_subsequence(parts(high), parts(low)) and is_subsequence(parts(low), parts(text))


def more(parts: Parts) -> Callable[[str, str, str], bool]:
    """Whether what lighter noise adds is there under heavier noise, in the same order."""
    return lambda text, low, high: fewer(parts)(high, low, text)


def changed(parts: Parts) -> Callable[[str, str, str], bool]:
    """Whether every place that lighter noise changes reads the same under heavier noise."""
    return lambda text, low, high: all(
        light in (was, heavy) for was, light, heavy in zip(parts(text), parts(low), parts(high), strict=True)
    )


def whole(text: str) -> list[str]:
    return [text]


CONTAINED = (
    dict.fromkeys(("word-drop", "truncation", "block-drop", "utterance-drop"), fewer(words))
    | {"char-delete": fewer(characters), "case-punctuation": fewer(bare)}
    | {"char-insert": more(characters), "stutter": more(words), "filler": more(words)}
    | dict.fromkeys(("typo", "homoglyph", "char-swap"), changed(characters))
    | dict.fromkeys(("word-mask", "word-replace", "word-swap", "word-shuffle", "ocr"), changed(words))
    | dict.fromkeys(("mismatch", "contradiction"), changed(whole))
)
"""For each corruption, whether heavier noise contains lighter noise: (text, lighter, heavier) -> bool."""


def spaced(text: str) -> str:
    """Every character a word, and some print of two letters: so that misread print keeps its place."""
    return " ".join([*"".join(text.split()), "rn", "cl", "m", "vv"])


@pytest.mark.parametrize("name", CONTAINED)
@given(text=texts, low=rates, high=rates, seed=seeds)
@example(text=UNUSUAL[-1], low=0.3, high=0.31, seed=0)
@example(text="Isn't it -- well, so  Lovely, that we opened\tit on the 15th?", low=0.4, high=0.6, seed=1)
def test_heavier_noise_contains_lighter_noise(name: str, text: str, low: float, high: float, seed: int) -> None:
    text = spaced(text) if name == "ocr" else text
    lighter, heavier = (apply(name, text, rate, seed) for rate in sorted((low, high)))
    assert CONTAINED[name](text, lighter, heavier)


def test_every_nested_corruption_is_checked_to_be_nested() -> None:
    nested = {name for name in NAMES if CORRUPTIONS.load(name).nested}
    assert nested - {"asr-model"} == set(CONTAINED)  # which has tests of its own


@pytest.mark.parametrize("name", ["word-drop", "truncation", "block-drop", "char-delete"])
def test_losses_grow_one_by_one_to_everything(name: str) -> None:
    text = " ".join(f"w{i}" for i in range(30))
    for seed in range(10):
        found = [apply(name, text, rate / 40, seed) for rate in range(41)]
        assert (found[0], found[-1].split()) == (text, [])
        assert all(CONTAINED[name](text, light, heavy) for light, heavy in pairwise(found))


# -------------------------------------------------------------------------------- how much of it is there

SPOKEN = """
we you I they nobody Ann opened read saw the a that letter lunch house after on before isn't won't it, so... what?
really! 15 2 well hmm all OK because of sure hello kick jazz little
"""


def lines(count: int, longest: int = 12) -> list[str]:
    draw = random.Random(7)
    return [" ".join(draw.choices(SPOKEN.split(), k=draw.randint(1, longest))) for _ in range(count)]


LINES = lines(2610)


def realised_share(name: str, rate: float) -> float:
    counts = [
        units_and_hits(name, text, apply(name, text, rate, seed), apply(name, text, 1.0, seed))
        for seed, text in enumerate(LINES)
    ]
    units, hits = np.sum(counts, axis=0)
    return float(hits / units)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "asr-model"])
def test_the_share_of_units_that_are_hit_is_the_nominal_rate(name: str) -> None:
    for rate in (0.1, 0.3, 0.5, 0.7, 0.9):
        assert realised_share(name, rate) == pytest.approx(rate, abs=0.02)
    assert (realised_share(name, 0.0), realised_share(name, 1.0)) == (0, 1)


# ----------------------------------------------------------------------------------------- white space


@pytest.mark.parametrize(
    "name",
    ["typo", "char-insert", "char-swap", "ocr", "homoglyph", "word-mask", "word-swap", "word-shuffle", "word-replace"],
)
@given(text=texts, rate=rates, seed=seeds)
def test_white_space_stays_as_it_is(name: str, text: str, rate: float, seed: int) -> None:
    assert re.split(r"\S+", apply(name, text, rate, seed)) == re.split(r"\S+", text)


@given(text=texts, rate=rates, seed=seeds)
def test_deleted_characters_leave_all_white_space(text: str, rate: float, seed: int) -> None:
    assert re.findall(r"\s", apply("char-delete", text, rate, seed)) == re.findall(r"\s", text)


@pytest.mark.parametrize("name", ["word-drop", "truncation", "block-drop"])
@given(text=texts, rate=rates, seed=seeds)
def test_nothing_is_left_in_front_of_what_words_were_lost_from(name: str, text: str, rate: float, seed: int) -> None:
    kept = apply(name, text, rate, seed)
    assert kept == text or kept == kept.lstrip()


def test_white_space_before_a_lost_word_goes_with_it() -> None:
    def kept(name: str, rate: float) -> set[str]:
        return {apply(name, "a\tb  c\n", rate, seed) for seed in range(200)}

    assert kept("word-drop", 0.5) == {"a\tb  c\n", "a\tb", "a  c", "b  c", "a", "b", "c", ""}
    assert kept("truncation", 0.5) == {"a\tb", "a"}
    assert kept("block-drop", 0.5) == {"a\tb", "a  c", "b  c", "a", "c"}


# ---------------------------------------------------------------------------------------------- each one


@given(text=texts, rate=rates, seed=seeds)
def test_word_drop_loses_the_words_whose_numbers_lie_below_the_rate(text: str, rate: float, seed: int) -> None:
    lost = np.random.default_rng(seed).random(len(text.split())) < rate
    kept = [word for word, gone in zip(text.split(), lost, strict=True) if not gone]
    assert apply("word-drop", text, rate, seed).split() == kept


@pytest.mark.parametrize(
    ("key", "touching"),
    [("g", "tyfhvb"), ("q", "12wa"), ("M", "NJK"), ("A", "QWSZ"), ("5", "46rt"), ("0", "9op"), ("l", "kop")],
)
def test_a_typo_is_any_of_the_keys_that_touch_the_right_one(key: str, touching: str) -> None:
    typed = Counter(apply("typo", key * 6000, 1.0, 0))
    assert set(typed) == set(touching)
    assert [n / 6000 for n in typed.values()] == pytest.approx([1 / len(touching)] * len(touching), abs=0.03)


@given(text=texts, seed=seeds)
def test_typos_and_look_alikes_touch_nothing_but_ascii_letters_and_digits(text: str, seed: int) -> None:
    for name in ("typo", "homoglyph"):
        pairs = zip(text, apply(name, text, 1.0, seed), strict=True)
        assert all(a == b or (a.isascii() and a.isalnum()) for a, b in pairs)


def test_a_typo_keeps_the_case_of_a_letter() -> None:
    for seed in range(50):
        assert not re.search(r"[a-z]", apply("typo", "QWERTYUIOPASDFGHJKLZXCVBNM", 1.0, seed))
        assert not re.search(r"[A-Z]", apply("typo", "qwertyuiopasdfghjklzxcvbnm1234567890", 1.0, seed))


def test_look_alikes_are_letters_of_another_script() -> None:
    found = {apply("homoglyph", WITH_LOOK_ALIKE, 1.0, seed) for seed in range(50)}
    assert all(c.isalpha() and not c.isascii() for text in found for c in text)
    assert {text[WITH_LOOK_ALIKE.index("o")] for text in found} == set("оοօ")


@given(word=st.text(st.characters(categories=("Ll", "Lu")), min_size=2, max_size=12), seed=seeds)
def test_at_rate_one_all_pairs_of_letters_from_the_first_or_from_the_second_on_are_exchanged(
    word: str, seed: int
) -> None:
    def exchanged(first: int) -> str:
        pairs = [word[i : i + 2][::-1] for i in range(first, len(word), 2)]
        return word[:first] + "".join(pairs)

    assert apply("char-swap", word, 1.0, seed) in {exchanged(0), exchanged(1 if len(word) > 2 else 0)}


@given(n=st.integers(2, 12), seed=seeds)
def test_at_rate_one_all_pairs_of_words_from_the_first_or_from_the_second_on_are_exchanged(n: int, seed: int) -> None:
    said = [f"w{i}" for i in range(n)]
    swapped = apply("word-swap", " ".join(said), 1.0, seed).split()
    first = 0 if n == 2 or swapped[0] != said[0] else 1
    assert swapped == said[:first] + [w for i in range(first, n, 2) for w in said[i : i + 2][::-1]]


def test_pairs_begin_at_the_first_and_at_the_second_place_alike() -> None:
    for name, text in (
        ("char-swap", "abc"),
        ("char-swap", "abcdef"),
        ("word-swap", "a b c"),
        ("word-swap", "a b c d e f"),
    ):
        begun = [apply(name, text, 1.0, seed)[0] != "a" for seed in range(1000)]
        assert np.mean(begun) == pytest.approx(0.5, abs=0.06)


@given(rate=rates, seed=seeds)
def test_a_shuffled_window_holds_the_same_words(rate: float, seed: int) -> None:
    said = [f"w{i}" for i in range(14)]
    found = apply("word-shuffle", " ".join(said), rate, seed).split()
    assert [sorted(found[i : i + 4]) for i in range(0, 14, 4)] == [sorted(said[i : i + 4]) for i in range(0, 14, 4)]


def test_a_window_is_put_into_all_other_orders_alike() -> None:
    orders = Counter(apply("word-shuffle", "a b c c", 1.0, seed) for seed in range(2200))
    assert len(orders) == 11
    assert "a b c c" not in orders
    assert min(orders.values()) > 140


@pytest.mark.parametrize(
    ("printed", "read"),
    [
        ("burn", {"hiim", "6iim", "hnm", "6nm"}),
        ("clip", {"dlp", "d1p"}),
        ("10", {"lO", "IO", "lo", "Io"}),
        ("k", {"k"}),
    ],
)
def test_print_is_misread_by_its_longest_pieces(printed: str, read: set[str]) -> None:
    assert {apply("ocr", printed, 1.0, seed) for seed in range(100)} == read


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("It's O'Neill's, isn’t it?", "it's o'neill's isn’t it"),
        ("... well -\tno!\n", "well\tno\n"),
        (" 'Twas 3.5 «so…what» 😀!  x", " twas 3 5 so what 😀  x"),
        ("— !", ""),
        ("na\u0308ive #tag_one", "na\u0308ive tag one"),
    ],
)
def test_stripped_words_have_neither_capitals_nor_punctuation(said: str, left: str) -> None:
    assert apply("case-punctuation", said, 1.0, 0) == left


def test_a_replaced_word_becomes_another_as_often_as_that_is_said() -> None:
    training = TrainingText(Task("regression"), ("a a b", "a c"), np.zeros(2))
    replace = CORRUPTIONS.load("word-replace").apply
    found = Counter(replace("x " * 5000, 1.0, np.random.default_rng(0), Context(training)).split())
    assert {word: n / 5000 for word, n in found.items()} == pytest.approx({"a": 0.6, "b": 0.2, "c": 0.2}, abs=0.02)
    assert "a" not in replace("a " * 50, 1.0, np.random.default_rng(0), Context(training)).split()


@pytest.mark.parametrize("said", [(), ("",), ("so", "so so")])
def test_a_word_stays_where_the_training_part_has_no_other(said: tuple[str, ...]) -> None:
    training = TrainingText(Task("regression"), said, np.zeros(len(said)))
    rng = np.random.default_rng(0)
    assert CORRUPTIONS.load("word-replace").apply("so so", 1.0, rng, Context(training)) == "so so"


@pytest.mark.parametrize("name", ["truncation", "block-drop"])
@given(n=st.integers(0, 40), rate=rates, seed=seeds)
def test_a_run_of_the_nominal_number_of_words_is_lost(name: str, n: int, rate: float, seed: int) -> None:
    said = [f"w{i}" for i in range(n)]
    kept = apply(name, " ".join(said), rate, seed).split()
    start = next((i for i, (a, b) in enumerate(zip(said, kept, strict=False)) if a != b), len(kept))
    lost = n - len(kept)
    assert np.floor(rate * n) <= lost <= np.ceil(rate * n)
    assert kept == said[:start] + said[start + lost :]
    assert name == "block-drop" or start == len(kept)


def test_a_lost_run_lies_anywhere_alike() -> None:
    said = [f"w{i}" for i in range(5)]
    kept = Counter(apply("block-drop", " ".join(said), 0.4, seed) for seed in range(4000))
    assert len(kept) == 4
    assert min(kept.values()) > 900


@pytest.mark.parametrize("name", ["word-drop", "truncation", "block-drop", "utterance-drop", "char-delete"])
@given(text=texts, seed=seeds)
def test_losses_at_rate_one_leave_no_word(name: str, text: str, seed: int) -> None:
    assert apply(name, text, 1.0, seed).split() == []


@given(text=texts, rate=rates, seed=seeds)
def test_what_happens_to_utterances_happens_to_all_of_one_or_not_at_all(text: str, rate: float, seed: int) -> None:
    assert apply("utterance-drop", text, rate, seed) in (text, "")
    for name in ("mismatch", "contradiction"):
        assert apply(name, text, rate, seed) in (text, *TRAINING.texts)


def test_fillers_are_alike_and_stand_before_words() -> None:
    found = apply("filler", "so " * 4000, 1.0, 0).split(" so")
    counts = Counter(part.strip() for part in found if part.strip())
    assert sorted(counts) == ["I mean", "uh", "um", "you know"]
    assert min(counts.values()) > 900
