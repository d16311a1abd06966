"""Noise on words: what every corruption promises, what the seeds promise, and how much noise is said to be there."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Sequence
from itertools import pairwise, product
from types import SimpleNamespace
from typing import Any

import jiwer
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from dual_bench.catalog import CORRUPTIONS
from dual_bench.corruptions import noise
from dual_bench.corruptions.measure import Measured, measure
from dual_bench.corruptions.noise import corrupted, measured, mixed
from dual_bench.seeding import generator, seed_of
from dual_bench.types import CLEAN, Condition, Corruption, Utterance

LOSSES = ("word-drop", "utterance-drop")
"""Corruptions that only take words away."""

UNUSUAL = (
    "",
    " ",
    " \t\n\u2003\u00a0 ",
    "word",
    "  two   words\n",
    "👩‍👩‍👧‍👦 fine 👍🏽 🇩🇪",
    "e\u0301\u0302 a\u0308 \u0301 b",
    "שלום עולם \u202bمرحبا\u202c بك",
    "我们打开了那封信 在 走廊里",
    "zero\u200bwidth \ufeffmark \x00 \x1c \x85 end",
    " ".join(f"w{i}" for i in range(5000)),
)
words = st.text(st.characters(exclude_categories=("Cs", "Zs", "Zl", "Zp", "Cc")), min_size=1, max_size=8)
spaces = st.text(st.sampled_from(" \t\n\u00a0\u2003"), min_size=1, max_size=3)
sentences = st.lists(st.tuples(words, spaces), max_size=12).map(lambda pairs: "".join(w + s for w, s in pairs))
texts = st.one_of(st.text(), sentences, st.sampled_from(UNUSUAL))
rates = st.floats(0, 1)
seeds = st.integers(0, 2**32 - 1)

every_corruption = pytest.mark.parametrize("name", CORRUPTIONS.entries)
every_loss = pytest.mark.parametrize("name", LOSSES)


def utterance(name: str = "u", text: str = "we opened the letter after lunch") -> Utterance:
    return Utterance(name, "test", "c", "s", text, 0.0, {"whisper": "we opened a ladder"})


def apply(name: str, text: str, rate: float, seed: int) -> str:
    corruption: Corruption = CORRUPTIONS.load(name)
    return corruption.apply(text, rate, np.random.default_rng(seed))


def is_subsequence(part: Sequence[str], whole: Sequence[str]) -> bool:
    rest = iter(whole)
    return all(word in rest for word in part)


# ------------------------------------------------------------------------------- what each one promises


@every_corruption
def test_a_corruption_bears_its_catalogue_name_and_a_version(name: str) -> None:
    corruption: Corruption = CORRUPTIONS.load(name)
    assert corruption.name == name
    assert corruption.version >= 1


@every_corruption
@given(text=texts, seed=seeds)
def test_rate_zero_is_the_identity_to_the_byte(name: str, text: str, seed: int) -> None:
    assert apply(name, text, 0.0, seed) == text


@every_corruption
@given(text=texts, rate=rates, seed=seeds)
def test_any_text_at_any_rate_gives_valid_text_and_the_same_for_the_same_seed(
    name: str, text: str, rate: float, seed: int
) -> None:
    found = apply(name, text, rate, seed)
    assert found.encode("utf-8").decode("utf-8") == found
    assert apply(name, text, rate, seed) == found


@every_corruption
@given(text=texts, rate=rates, seed=seeds)
def test_the_numbers_drawn_do_not_depend_on_the_rate(name: str, text: str, rate: float, seed: int) -> None:
    corruption: Corruption = CORRUPTIONS.load(name)
    one, other = np.random.default_rng(seed), np.random.default_rng(seed)
    corruption.apply(text, rate, one)
    corruption.apply(text, 0.5, other)
    assert one.bit_generator.state == other.bit_generator.state


@every_loss
def test_rate_zero_loses_nothing_even_to_the_smallest_number(name: str) -> None:
    smallest: Any = SimpleNamespace(random=lambda size=(): np.zeros(size))
    assert CORRUPTIONS.load(name).apply("we opened it", 0.0, smallest) == "we opened it"


@every_loss
@given(text=texts, seed=seeds)
def test_rate_one_leaves_no_word(name: str, text: str, seed: int) -> None:
    assert apply(name, text, 1.0, seed).split() == []


@every_loss
@given(text=texts, low=rates, high=rates, seed=seeds)
@example(text=UNUSUAL[-1], low=0.3, high=0.31, seed=0)
def test_heavier_noise_contains_lighter_noise(name: str, text: str, low: float, high: float, seed: int) -> None:
    lighter, heavier = (apply(name, text, rate, seed).split() for rate in sorted((low, high)))
    assert is_subsequence(heavier, lighter)
    assert is_subsequence(lighter, text.split())


@given(text=texts, rate=rates, seed=seeds)
def test_word_drop_keeps_words_whole_and_the_white_space_between_neighbours(text: str, rate: float, seed: int) -> None:
    kept = apply("word-drop", text, rate, seed)
    lost = np.random.default_rng(seed).random(len(text.split())) < rate
    assert kept.split() == [word for word, gone in zip(text.split(), lost, strict=True) if not gone]
    assert kept == text or kept == kept.lstrip()


def test_word_drop_takes_the_white_space_before_a_word_with_it() -> None:
    kept = {apply("word-drop", "a\tb  c\n", 0.5, seed) for seed in range(200)}
    assert kept == {"a\tb  c\n", "a\tb", "a  c", "b  c", "a", "b", "c", ""}


@given(text=texts, rate=rates, seed=seeds)
def test_utterance_drop_takes_all_or_nothing(text: str, rate: float, seed: int) -> None:
    assert apply("utterance-drop", text, rate, seed) in (text, "")


@every_loss
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_that_is_lost_is_the_nominal_rate(name: str, rate: float) -> None:
    n = 4000
    single = [utterance(f"u{i}", "one") for i in range(n)]
    lost = sum(corrupted(u, Condition(name, rate), 0) == "" for u in single) / n
    assert lost == pytest.approx(rate, abs=4 * math.sqrt(rate * (1 - rate) / n))
    if name == "word-drop":
        long = corrupted(utterance("long", UNUSUAL[-1]), Condition(name, rate), 0)
        dropped = measure(UNUSUAL[-1], long).dropped
        assert dropped == pytest.approx(rate, abs=4 * math.sqrt(rate * (1 - rate) / 5000))


# ---------------------------------------------------------------------------------------- what seeds promise

CONDITIONS = [Condition(name, rate, draw) for name in LOSSES for rate in (0.3, 0.7) for draw in range(3)]
SPOKEN = [utterance(f"u{i}", " ".join(f"w{j}" for j in range(30))) for i in range(5)]


def test_clean_and_transcripts_are_given_as_they_are() -> None:
    assert corrupted(utterance(), CLEAN, 0) == "we opened the letter after lunch"
    assert corrupted(utterance(), Condition("transcript:whisper", 1.0), 0) == "we opened a ladder"


@every_corruption
@given(text=texts)
def test_rate_zero_of_every_draw_is_the_clean_text(name: str, text: str) -> None:
    assert {corrupted(utterance("u", text), Condition(name, 0.0, draw), 5) for draw in range(3)} == {text}


def test_another_process_makes_the_same_noise(another_process: Callable[[str], str]) -> None:
    code = """
from dual_bench.corruptions.noise import corrupted, mixed
from dual_bench.types import Condition, Utterance
u = Utterance("u-é", "test", "c", "s", " ".join(f"w{j}" for j in range(30)), 0.0)
noisy = [corrupted(u, Condition(n, r, d), 3) for n in ("word-drop", "utterance-drop") for r in (.3, .7) for d in (0, 1)]
print([*noisy, *(mixed(u, ["word-drop", "utterance-drop"], k, 3) for k in range(8))])
"""
    u = utterance("u-é", SPOKEN[0].text)
    here = [corrupted(u, Condition(n, r, d), 3) for n in LOSSES for r in (0.3, 0.7) for d in (0, 1)]
    assert ast.literal_eval(another_process(code)) == [*here, *(mixed(u, LOSSES, k, 3) for k in range(8))]


def test_noise_depends_neither_on_the_order_of_work_nor_on_global_generators() -> None:
    asked = [(u, c) for u in SPOKEN for c in CONDITIONS]
    forwards = {(u.id, c): corrupted(u, c, 0) for u, c in asked}
    torch.rand(3)
    generator("anything").random(7)
    backwards = {(u.id, c): corrupted(u, c, 0) for u, c in reversed(asked)}
    assert forwards == backwards


@every_loss
def test_within_one_draw_what_is_lost_at_a_rate_is_lost_at_every_higher_one(name: str) -> None:
    for u, draw in product(SPOKEN, range(4)):
        noisy = [corrupted(u, Condition(name, rate / 10, draw), 0).split() for rate in range(11)]
        assert (noisy[0], noisy[-1]) == (u.text.split(), [])
        assert all(is_subsequence(heavier, lighter) for lighter, heavier in pairwise(noisy))


def test_noise_differs_between_draws_utterances_seeds_and_corruptions() -> None:
    condition = Condition("word-drop", 0.5)
    made = [corrupted(u, Condition("word-drop", 0.5, d), s) for u in SPOKEN for d in range(3) for s in range(3)]
    assert len(set(made)) == len(made)
    gone = [corrupted(u, Condition("utterance-drop", 0.5, d), 0) == "" for u in SPOKEN for d in range(8)]
    assert 0 < sum(gone) < len(gone)
    assert corrupted(SPOKEN[0], condition, 0) == corrupted(SPOKEN[0], condition, 0)


def test_mixed_texts_come_from_no_test_stream_at_rates_all_over_the_unit_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    streams: list[int] = []
    applied: list[tuple[str, float]] = []

    def opened(*key: str | int) -> np.random.Generator:
        streams.append(seed_of(*key))
        return generator(*key)

    def load(name: str) -> Corruption:
        def spy(text: str, rate: float, rng: np.random.Generator) -> str:
            applied.append((name, rate))
            return text

        return Corruption(name, 1, spy)

    monkeypatch.setattr(noise, "generator", opened)
    monkeypatch.setattr(noise, "CORRUPTIONS", SimpleNamespace(load=load))
    for u, k in product(SPOKEN, range(60)):
        mixed(u, LOSSES, k, 0)
    drawn = np.array([rate for _, rate in applied])
    names = [name for name, _ in applied]
    for u, draw, name in product(SPOKEN, range(60), LOSSES):
        corrupted(u, Condition(name, 0.5, draw), 0)
    assert len(set(streams)) == len(streams) == 900
    assert (drawn >= 0).all()
    assert (drawn < 1).all()
    assert np.histogram(drawn, bins=10, range=(0, 1))[0].min() >= 15
    assert 110 < names.count("word-drop") < 190


@given(text=texts, number=st.integers(0, 50))
def test_mixed_texts_only_lose_words_and_are_the_same_each_time(text: str, number: int) -> None:
    found = mixed(utterance("u", text), LOSSES, number, 0)
    assert is_subsequence(found.split(), text.split())
    assert mixed(utterance("u", text), LOSSES, number, 0) == found


# ----------------------------------------------------------------------------------------- how much noise


def distance(one: Sequence[str], other: Sequence[str]) -> int:
    """Levenshtein's, longhand."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, start=1):
        above, row[0] = row[0], i
        for j, b in enumerate(other, start=1):
            above, row[j] = row[j], min(above + (a != b), row[j] + 1, row[j - 1] + 1)
    return row[-1]


plain = st.lists(st.sampled_from(["a", "b", "ab", "ba", "é", "我"]), max_size=9).map(" ".join)


@given(reference=plain.filter(bool), text=plain)
def test_error_rates_agree_with_longhand_and_jiwer(reference: str, text: str) -> None:
    found = measure(reference, text)
    assert found.words == len(reference.split())
    assert found.errors == distance(reference.split(), text.split())
    assert found.wer == pytest.approx(found.errors / found.words)
    assert found.wer == pytest.approx(jiwer.wer(reference, text))
    assert found.cer == pytest.approx(distance(reference, text) / len(reference))
    assert 0 <= found.dropped <= 1


@given(reference=sentences.filter(str.strip), rate=rates, seed=seeds)
@example(reference="we\topened\nit", rate=0.5, seed=2)
def test_words_that_were_dropped_are_counted_exactly_whatever_white_space_lies_between(
    reference: str, rate: float, seed: int
) -> None:
    text = apply("word-drop", reference, rate, seed)
    found = measure(reference, text)
    count = len(reference.split())
    lost = count - len(text.split())
    assert (found.words, found.errors) == (count, lost)
    assert found.dropped == found.wer == pytest.approx(lost / count)


@pytest.mark.parametrize("text", ["", "something else", " "])
def test_a_reference_without_words_has_undefined_rates(text: str) -> None:
    for reference in ("", " \n"):
        found = measure(reference, text)
        assert np.isnan([found.wer, found.cer, found.dropped]).all()
        assert (found.words, found.errors) == (0, len(text.split()))


def test_a_text_that_is_gone_is_all_error() -> None:
    assert measure("we opened it", "") == Measured(1.0, 1.0, 1.0, 3, 3)


@given(reference=texts, text=texts)
@example(reference=UNUSUAL[-1], text=UNUSUAL[-1][:-6])
def test_any_two_texts_can_be_measured(reference: str, text: str) -> None:
    found = measure(reference, text)
    assert found.words == len(reference.split())
    assert found.errors >= abs(len(reference.split()) - len(text.split()))
    assert math.isnan(found.wer) == (not reference.split())


@given(pairs=st.lists(st.tuples(plain, plain), min_size=1, max_size=12))
def test_measured_has_a_row_for_each_pair_in_their_order(pairs: list[tuple[str, str]]) -> None:
    references, noisy = ([pair[i] for pair in pairs] for i in (0, 1))
    expected = pd.DataFrame([vars(measure(*pair)) for pair in pairs])
    pd.testing.assert_frame_equal(measured(references, noisy), expected)
    assert list(expected.columns) == ["wer", "cer", "dropped", "words", "errors"]


def test_measured_refuses_lists_of_different_length() -> None:
    with pytest.raises(ValueError, match="shorter"):
        measured(["a", "b"], ["a"])
