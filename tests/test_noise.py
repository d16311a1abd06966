"""What the seeds of noise promise, for every corruption that does not depend on a model."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise, product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from unusual import UNUSUAL, is_subsequence, rates, seeds, texts

from dual_bench.catalog import CORRUPTIONS
from dual_bench.corruptions import noise
from dual_bench.corruptions.measure import measure
from dual_bench.corruptions.missing import other_side
from dual_bench.corruptions.noise import Reading, Spoken, TokenNoise, corrupted, load, matched, mixed
from dual_bench.seeding import generator, seed_of
from dual_bench.types import (
    CLEAN,
    Condition,
    Context,
    Corruption,
    DualBenchError,
    Task,
    TrainingText,
    UserError,
    Utterance,
)

LOSSES = ("word-drop", "utterance-drop")
"""Corruptions that only take words away."""

ON_WORDS = tuple(name for name in CORRUPTIONS.entries if load(name).needs in ("nothing", "training"))
ON_TOKENS = tuple(name for name in CORRUPTIONS.entries if load(name).needs == "tokens")
TRAINING = TrainingText(
    Task("classification", ("calm", "glad", "grim")),
    ("so be it", "what a day", "never again, please", "what a day"),
    np.array([0.0, 1.0, 2.0, 1.0]),
)
every_loss = pytest.mark.parametrize("name", LOSSES)


def spoken(name: str = "u", text: str = "we opened the letter after lunch") -> Spoken:
    return Spoken(Utterance(name, "test", "c", "s", text, 0.0, {"whisper": "we opened a ladder"}), TRAINING)


def text_of(one: Spoken, condition: Condition, root_seed: int = 0) -> str:
    return corrupted(one, condition, root_seed).text


@every_loss
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_that_is_lost_is_the_nominal_rate(name: str, rate: float) -> None:
    n = 4000
    lost = sum(text_of(spoken(f"u{i}", "one"), Condition(name, rate)) == "" for i in range(n)) / n
    assert lost == pytest.approx(rate, abs=4 * math.sqrt(rate * (1 - rate) / n))
    if name == "word-drop":
        dropped = measure(UNUSUAL[-1], text_of(spoken("long", UNUSUAL[-1]), Condition(name, rate))).dropped
        assert dropped == pytest.approx(rate, abs=4 * math.sqrt(rate * (1 - rate) / 5000))


# ---------------------------------------------------------------------------------------- what seeds promise

CONDITIONS = [Condition(name, rate, draw) for name in ON_WORDS for rate in (0.3, 0.7) for draw in range(2)]
SPOKEN = [spoken(f"u{i}", " ".join(f"w{j}" for j in range(30))) for i in range(5)]


def test_clean_and_transcripts_are_given_as_they_are() -> None:
    assert text_of(spoken(), CLEAN) == "we opened the letter after lunch"
    assert text_of(spoken(), Condition("transcript:whisper", 1.0)) == "we opened a ladder"


@pytest.mark.parametrize("name", [*ON_WORDS, *ON_TOKENS])
@given(text=texts)
def test_rate_zero_of_every_draw_is_the_clean_reading(name: str, text: str) -> None:
    assert {corrupted(spoken("u", text), Condition(name, 0.0, draw), 5) for draw in range(3)} == {Reading(text)}


def everything() -> list[str]:
    """One text of every stream of every corruption on words, and of every regime."""
    said = "We opened the letter, after lunch in the hall; nobody knew why it had come so late."
    one = spoken("u-é", said)
    noisy = [
        text_of(one, Condition(name, rate, draw), 3) for name in ON_WORDS for rate in (0.3, 0.7) for draw in (0, 1)
    ]
    noisy += [mixed(one, dict.fromkeys(ON_WORDS, 0.8), number, 3).text for number in range(40)]
    return noisy + [matched(one, Condition(name, 0.5), 1, 3).text for name in ON_WORDS]


def test_another_process_makes_the_same_noise(another_process: Callable[[str], str]) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(__file__).rpartition("/")[0]!r})
from test_noise import everything
print(everything())
"""
    assert ast.literal_eval(another_process(code)) == everything()


def test_noise_depends_neither_on_the_order_of_work_nor_on_global_generators() -> None:
    asked = [(one, c) for one in SPOKEN for c in CONDITIONS]
    forwards = {(one.utterance.id, c): text_of(one, c) for one, c in asked}
    torch.rand(3)
    generator("anything").random(7)
    backwards = {(one.utterance.id, c): text_of(one, c) for one, c in reversed(asked)}
    assert forwards == backwards


@every_loss
def test_within_one_draw_what_is_lost_at_a_rate_is_lost_at_every_higher_one(name: str) -> None:
    for one, draw in product(SPOKEN, range(4)):
        noisy = [text_of(one, Condition(name, rate / 10, draw)).split() for rate in range(11)]
        assert (noisy[0], noisy[-1]) == (one.utterance.text.split(), [])
        assert all(is_subsequence(heavier, lighter) for lighter, heavier in pairwise(noisy))


@pytest.mark.parametrize(
    ("key", "seed"),
    [
        (("noise", 0, "word-drop", 3, "d1_u2"), 1938806240885654830),
        (("a\x1fb",), 7953841751942768966),
        (("\ud83d",), 2323603685334671697),  # half of a character, as a broken transcript may hold
    ],
)
def test_a_key_has_the_seed_that_it_had_in_every_version(key: tuple[str | int, ...], seed: int) -> None:
    assert seed_of(*key) == seed
    assert generator(*key).random() == np.random.Generator(np.random.PCG64(seed)).random()


def test_no_name_makes_one_key_look_like_another() -> None:
    keys = [("a", "b"), ("a\x1fstr:b",), ("a\x1f", "b"), ("a", "\x1fb"), ("ab",), ("a", 1), ("a", "1"), ("a1",)]
    assert len({seed_of(*key) for key in keys}) == len(keys)


def test_noise_differs_between_draws_utterances_seeds_and_corruptions() -> None:
    made = [text_of(one, Condition("word-drop", 0.5, d), s) for one in SPOKEN for d in range(3) for s in range(3)]
    assert len(set(made)) == len(made)
    gone = [text_of(one, Condition("utterance-drop", 0.5, d)) == "" for one in SPOKEN for d in range(8)]
    assert 0 < sum(gone) < len(gone)
    lost = [text_of(one, Condition("utterance-drop", 0.5, d)) != "" for one in SPOKEN for d in range(8)]
    wrong = [text_of(one, Condition("mismatch", 0.5, d)) == one.utterance.text for one in SPOKEN for d in range(8)]
    assert lost != wrong


def test_training_noise_comes_from_no_test_stream_at_rates_all_over_the_range(monkeypatch: pytest.MonkeyPatch) -> None:
    streams: list[int] = []
    applied: list[tuple[str, float]] = []

    def opened(*key: str | int) -> np.random.Generator:
        streams.append(seed_of(*key))
        return generator(*key)

    def spied(name: str) -> Corruption:
        def spy(text: str, rate: float, rng: np.random.Generator) -> str:
            applied.append((name, rate))
            return text

        return Corruption(name, 1, spy, "nothing")

    monkeypatch.setattr(noise, "generator", opened)
    monkeypatch.setattr(noise, "CORRUPTIONS", SimpleNamespace(load=spied))
    for one, number in product(SPOKEN, range(60)):
        mixed(one, {"word-drop": 1.0, "utterance-drop": 0.5}, number, 0)
    drawn = [np.array([rate for name, rate in applied if name == wanted]) for wanted in LOSSES]
    assert 110 < len(drawn[0]) < 190
    for found, largest in zip(drawn, (1.0, 0.5), strict=True):
        assert (found >= 0).all()
        assert (found < largest).all()
        assert np.histogram(found, bins=5, range=(0, largest))[0].min() >= 12
    for one, number, name in product(SPOKEN, range(60), LOSSES):
        corrupted(one, Condition(name, 0.5, number), 0)
        matched(one, Condition(name, 0.5), number, 0)
    mixtures, tests, matches = 2 * 300, 600, 600  # a mixture draws what it applies, and then applies it
    assert len(set(streams)) == len(streams) == mixtures + tests + matches
    assert {rate for _, rate in applied[300:]} == {0.5}


@given(text=texts, number=st.integers(0, 50))
def test_mixed_texts_only_lose_words_and_are_the_same_each_time(text: str, number: int) -> None:
    found = mixed(spoken("u", text), dict.fromkeys(LOSSES, 1.0), number, 0)
    assert is_subsequence(found.text.split(), text.split())
    assert mixed(spoken("u", text), dict.fromkeys(LOSSES, 1.0), number, 0) == found


def test_each_use_of_noise_has_a_stream_of_its_own_known_by_all_that_tells_it_apart() -> None:
    """Longhand: a stream that changes changes every stored result, and has to come with a new version of its own."""
    one, drop = spoken("u7"), load("typo")
    text = one.utterance.text

    def by(purpose: str, number: int, rate: float) -> str:
        return drop.apply(text, rate, generator(purpose, 5, "typo", drop.version, number, "u7"))

    assert text_of(one, Condition("typo", 0.4, 3), 5) == by("noise", 3, 0.4) != text
    assert matched(one, Condition("typo", 0.4, 3), 2, 5).text == by("matched", 2, 0.4)
    largest = {"typo": 0.5}
    rng = generator("mixed", 5, "typo", 2, "u7")
    assert rng.integers(1) == 0
    assert mixed(one, largest, 2, 5).text == by("mixed noise", 2, float(rng.random()) * 0.5)


def test_sound_is_handed_over_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.arange(4.0)
    given: list[object] = []

    def listens(text: str, rate: float, rng: np.random.Generator, *sound: object) -> str:
        given.extend(sound)
        return "heard"

    monkeypatch.setattr(noise, "load", lambda name: Corruption("mine", 1, listens, "power", needs="sound"))
    assert text_of(replace(spoken(), sound=lambda: (samples, 8_000)), Condition("my.own:MINE", 0.5)) == "heard"
    assert given == [samples, 8_000]


def test_training_matched_to_clean_text_or_a_recogniser_reads_just_that() -> None:
    assert matched(spoken(), CLEAN, 0, 0) == corrupted(spoken(), CLEAN, 0)
    assert matched(spoken(), Condition("transcript:whisper", 1.0), 3, 0).text == "we opened a ladder"


@pytest.mark.parametrize(
    ("apply", "says"),
    [
        (lambda text, rate, rng: 1 / 0, "failed on 'we opened the letter after lunch': ZeroDivisionError"),
        (lambda text, rate: text, "failed on .*: TypeError"),
        (lambda text, rate, rng: None, "gave NoneType for .*; expected a text"),
        (lambda text, rate, rng: 7, "gave int for 'we opened the letter after lunch'; expected a text"),
    ],
)
def test_a_corruption_of_ones_own_that_fails_is_named(
    apply: Callable[..., str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noise, "load", lambda name: Corruption("mine", 1, apply, "words"))
    with pytest.raises(DualBenchError, match=f"'my.own:MINE' {says}"):
        corrupted(spoken(), Condition("my.own:MINE", 0.5), 0)


def test_a_corruption_that_needs_what_there_is_not_is_refused() -> None:
    with pytest.raises(UserError, match="needs one of nothing, training, sound, tokens, model; found 'trainin'"):
        Corruption("mine", 1, str, "words", needs="trainin")  # type: ignore[arg-type]


def test_what_is_no_corruption_is_refused() -> None:
    with pytest.raises(UserError, match=r"expected a dual_bench\.types\.Corruption, found function"):
        load("dual_bench.corruptions.words:drop_words")
    with pytest.raises(UserError, match="needs the sound"):
        corrupted(spoken(), Condition("asr-loop", 0.5), 0)


# ------------------------------------------------------------------------------------- missing and wrong


@pytest.mark.parametrize("name", ["mismatch", "contradiction"])
@given(text=st.sampled_from(TRAINING.texts), rate=rates, seed=seeds, target=st.sampled_from([0.0, 1.0, 2.0, math.nan]))
def test_other_words_are_of_the_training_part_and_never_ones_own(
    name: str, text: str, rate: float, seed: int, target: float
) -> None:
    found = load(name).apply(text, rate, np.random.default_rng(seed), Context(TRAINING, target))
    hit = np.random.default_rng(seed).random(2)[0] < rate
    assert found in TRAINING.texts
    assert (found != text) == hit
    if name == "contradiction" and hit and not (target == 0.0 and text != "so be it"):
        labels = {TRAINING.targets[i] for i, t in enumerate(TRAINING.texts) if t == found}
        assert target not in labels


def test_words_contradict_a_value_from_the_other_side_of_the_middle() -> None:
    values = np.array([-3.0, -0.5, 0.0, 0.5, 3.0])
    task = Task("regression", low=-3, high=3)
    assert other_side(values, 1.0, task).tolist() == [True, True, False, False, False]
    assert other_side(values, -1.0, task).tolist() == [False, False, False, True, True]
    assert other_side(values, 0.0, task).tolist() == [True, True, False, True, True]
    assert other_side(values[3:], 2.0, task).all()  # nothing contradicts it: any other words
    marks = Task("regression", low=1, high=5)
    assert other_side(np.array([1.0, 3.0, 4.0, 5.0]), 2.0, marks).tolist() == [False, False, True, True]
    assert other_side(np.array([1.0, 3.0, 4.0]), 3.5, marks).tolist() == [True, False, False]


@pytest.mark.parametrize("name", ["mismatch", "contradiction"])
def test_a_text_that_is_the_only_one_stays(name: str) -> None:
    alone = Context(TrainingText(TRAINING.task, ("so be it",), np.array([1.0])), 0.0)
    assert load(name).apply("so be it", 1.0, np.random.default_rng(0), alone) == "so be it"


# ---------------------------------------------------------------------------------------- representation


def tokens(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32) + 1


UNKNOWN = np.full(6, 9.0)


@pytest.mark.parametrize("name", ON_TOKENS)
@given(count=st.integers(0, 9), seed=seeds)
def test_token_noise_at_rate_zero_is_the_identity_and_keeps_shape_and_type(name: str, count: int, seed: int) -> None:
    clean = tokens(count)
    apply = load(name).apply
    assert apply(clean, 0.0, np.random.default_rng(seed), UNKNOWN).tobytes() == clean.tobytes()
    for rate in (0.4, 1.0):
        found = apply(clean, rate, np.random.default_rng(seed), UNKNOWN)
        assert (found.shape, found.dtype) == (clean.shape, np.float32)


@pytest.mark.parametrize(("name", "value"), [("token-zero", 0.0), ("token-unk", 9.0)])
def test_replaced_tokens_have_their_rate_and_are_nested(name: str, value: float) -> None:
    clean, hit = tokens(4000), []
    for rate in (0.1, 0.3, 0.5, 0.7, 0.9, 1.0):
        found = load(name).apply(clean, rate, np.random.default_rng(3), UNKNOWN)
        hit.append((found == value).all(axis=1))
        np.testing.assert_array_equal(found[~hit[-1]], clean[~hit[-1]])
        assert hit[-1].mean() == pytest.approx(rate, abs=0.02)
    assert all((heavier | ~lighter).all() for lighter, heavier in pairwise(hit))


@pytest.mark.parametrize(("rate", "db"), [(0.5, 0.0), (1 / 11, 10.0), (10 / 11, -10.0)])
def test_gaussian_noise_has_the_stated_ratio_and_keeps_the_power(rate: float, db: float) -> None:
    clean = tokens(2000).astype(np.float64)
    found = load("token-noise").apply(clean.astype(np.float32), rate, np.random.default_rng(1), UNKNOWN)
    signal, rest = np.sqrt(1 - rate) * clean, found - np.sqrt(1 - rate) * clean
    assert 10 * np.log10((signal**2).mean() / (rest**2).mean()) == pytest.approx(db, abs=0.2)
    assert (found.astype(float) ** 2).mean() == pytest.approx((clean**2).mean(), rel=0.03)


def test_token_noise_of_a_reading_comes_from_its_stream_alone() -> None:
    one = corrupted(spoken(), Condition("token-zero", 0.5, 1), 0)
    assert one.text == spoken().utterance.text
    assert isinstance(one.noise, TokenNoise)
    again = corrupted(spoken(), Condition("token-zero", 0.5, 1), 0)
    np.testing.assert_array_equal(one.noise(tokens(20), UNKNOWN), again.noise(tokens(20), UNKNOWN))  # type: ignore[misc]
    assert corrupted(spoken(), Condition("token-zero", 0.5, 2), 0) != one


# ------------------------------------------------------------------------------------------- worst case


def harm_of(weights: dict[str, float]) -> Callable[..., np.ndarray]:
    """A model that is hurt by the absence of words, each by its own weight."""

    def harm(which: list[int], said: list[str]) -> np.ndarray:
        return np.array([-sum(weights.get(word, 0.0) for word in text.split()) for text in said])

    return harm


def test_the_worst_case_drops_the_words_that_hurt_most_one_by_one() -> None:
    weights = {"not": 5.0, "angry": 3.0, "very": -1.0}
    said = ["I am not very angry", "very well", ""]
    rngs = [np.random.default_rng(seed) for seed in range(3)]
    found = load("worst-case").apply(said, [0.0, 0.2, 0.4, 1.0], harm_of(weights), rngs)
    assert found[0] == said
    assert [texts[0] for texts in found] == ["I am not very angry", "I am very angry", "I am very", ""]
    assert [texts[2] for texts in found] == [""] * 4
    spaced = load("worst-case").apply([" two  words "], [0.0, 1.0], harm_of({}), rngs[:1])
    assert spaced == [[" two  words "], [""]]
    assert load("worst-case").apply(said, [], harm_of(weights), rngs) == []


@given(said=st.lists(texts, max_size=4), seed=seeds)
def test_worse_contains_bad_and_the_share_is_right(said: list[str], seed: int) -> None:
    said = [" ".join(text.split()[:12]) for text in said]
    weights = {word: float(i % 7) for i, word in enumerate(sorted({w for text in said for w in text.split()}))}
    rngs = [np.random.default_rng(seed + i) for i in range(len(said))]
    levels = load("worst-case").apply(said, [0.25, 0.5, 0.75], harm_of(weights), rngs)
    for lighter, heavier in pairwise(levels):
        assert all(is_subsequence(b.split(), a.split()) for a, b in zip(lighter, heavier, strict=True))
    for text, half in zip(said, levels[1], strict=True):
        assert abs(len(text.split()) - len(half.split()) - 0.5 * len(text.split())) < 1
