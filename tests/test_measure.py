"""How much noise is said to be there: error rates after jiwer, severities, distances of sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import jiwer
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from unusual import UNUSUAL, rates, seeds, sentences, texts

from dual_bench.corruptions import noise, severity
from dual_bench.corruptions.measure import Measured, measure, word_errors
from dual_bench.corruptions.noise import Reading, Spoken, TokenNoise, corrupted, load, measured
from dual_bench.corruptions.severity import TARGETS, Found, find, search
from dual_bench.features.text import sentence_distances
from dual_bench.seeding import generator
from dual_bench.types import Condition, Corruption, Ragged, Task, TrainingText, UserError, Utterance

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
    text = load("word-drop").apply(reference, rate, np.random.default_rng(seed))
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
    pd.testing.assert_frame_equal(measured(references, [Reading(text) for text in noisy]), expected)
    assert list(expected.columns) == ["wer", "cer", "dropped", "words", "errors"]


def test_measured_refuses_lists_of_different_length() -> None:
    with pytest.raises(ValueError, match="shorter"):
        measured(["a", "b"], [Reading("a")])


def test_noise_behind_the_words_has_no_word_error_rate() -> None:
    found = measured(["a b", "a b"], [Reading("a b"), Reading("a b", TokenNoise("token-zero", 0.5, ("s",)))])
    assert found["wer"].tolist()[0] == 0.0
    assert found.loc[1, ["wer", "cer", "dropped"]].isna().all()


@given(reference=plain.filter(bool), text=plain)
def test_substitutions_deletions_and_insertions_are_those_of_jiwer(reference: str, text: str) -> None:
    found, theirs = word_errors(reference.split(), text.split()), jiwer.process_words(reference, text)
    assert (found.substituted, found.deleted, found.inserted) == (
        theirs.substitutions, theirs.deletions, theirs.insertions,
    )  # fmt: skip


# -------------------------------------------------------------------------------------------- severity


def spoken(count: int = 300) -> list[Spoken]:
    rng = np.random.default_rng(1)
    said = [
        " ".join(rng.choice(["tea", "rain", "house", "we", "saw", "Tom,"], rng.integers(1, 12))) for _ in range(count)
    ]
    training = TrainingText(Task("classification", ("a", "b")), tuple(said), rng.integers(2, size=count).astype(float))
    return [Spoken(Utterance(f"u{i}", "train", "c", "s", t, training.targets[i]), training) for i, t in enumerate(said)]


@pytest.mark.parametrize(
    "name",
    [
        *("stutter", "utterance-drop", "word-drop"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("char-delete", "mismatch", "truncation", "typo")),
    ],
)
def test_a_severity_hits_its_word_error_rate_with_noise_of_another_draw(name: str) -> None:
    said = spoken()
    for found in find(name, said, (1, 3, 5), 0):
        assert found.reached
        noisy = [
            measured([s.utterance.text], [corrupted(s, Condition(name, found.rate, d), 0)])
            for s in said
            for d in range(5)
        ]
        together = pd.concat(noisy)
        assert together["errors"].sum() / together["words"].sum() == pytest.approx(TARGETS[found.severity], abs=0.04)


def test_a_severity_is_found_on_all_utterances_in_turn_each_time_with_other_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(severity, "_FEWEST", 25)
    monkeypatch.setattr(severity, "_MOST", 25)
    said = spoken(10)
    order = generator("severity sample", 3).permutation(10)
    for found in find("word-replace", said, (2, 4), 3):
        assert (found.severity in (2, 4), found.target) == (True, TARGETS[found.severity])
        wrong = words = 0
        for i in range(25):
            one = said[order[i % 10]]
            reference = one.utterance.text.split()
            noisy = corrupted(one, Condition("word-replace", found.rate, -1 - i // 10), 3).text
            wrong, words = wrong + distance(reference, noisy.split()), words + len(reference)
        assert found.wer == wrong / words
        assert found.wer == pytest.approx(found.target, abs=0.03)
        assert round(found.rate, 4) == found.rate


def test_the_more_error_rates_vary_the_more_texts_a_severity_is_found_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counted(one: Spoken, condition: Condition, root_seed: int) -> Reading:
        asked.append(condition.draw)
        return Reading("" if rng.random() < shares[-1] else one.utterance.text)

    monkeypatch.setattr(severity, "corrupted", counted)
    monkeypatch.setattr(severity, "search", lambda wer, severities: [wer(1.0)])
    monkeypatch.setattr(severity, "_FEWEST", 40)
    said = [replace(one, utterance=replace(one.utterance, text="a b c d")) for one in spoken(10)]
    counts, shares = [], list[float]()
    for share in (0.0, 0.1, 0.5):
        shares.append(share)
        rng = np.random.default_rng(1)
        asked.clear()
        find("word-drop", said, (1,), 0)
        trial, rest = asked[:40], asked[40:]
        assert trial == rest[:40] == [-1 - i // 10 for i in range(40)]
        counts.append(len(rest))
    half = np.random.default_rng(1).random(40) < 0.5
    assert counts[0] == 40 < counts[1] < counts[2]
    assert counts[2] == min(int((half.std() / severity._PRECISION) ** 2), severity._MOST)


def test_sounds_are_few_and_need_no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []

    def half(text: str, rate: float, rng: np.random.Generator, samples: object, sample_rate: int) -> str:
        heard.append(text)
        return text if rate < 0.5 else ""

    by_sound = Corruption("mine", 1, half, "power", needs="sound")
    monkeypatch.setattr(severity, "load", lambda name: by_sound)
    monkeypatch.setattr(noise, "load", lambda name: by_sound)
    said = [replace(one, sound=lambda: (np.zeros(9), 16_000)) for one in spoken(60)]
    for count, few in ((60, 40), (7, 7)):
        heard.clear()
        (found,) = find("my.own:MINE", said[:count], (3,), 0)
        assert found.rate == pytest.approx(0.5, abs=1e-3)
        assert len(heard) % few == 0
        assert len(set(heard)) <= few


def test_what_a_corruption_cannot_reach_is_said_to_be_unreached() -> None:
    found = find("case-punctuation", spoken(), (1, 5), 0)
    assert not found[1].reached
    assert found[1].rate == 1.0
    assert found[1].wer < TARGETS[5]


def test_a_corruption_too_strong_at_its_lightest_is_unreached_from_above() -> None:
    assert [(f.rate, f.reached) for f in search(lambda rate: 0.4 + rate / 2, (1, 4))] == [(0.001, False), (0.2, True)]


def test_the_worst_case_loses_words_at_its_rate() -> None:
    assert find("worst-case", spoken(3), (4, 2), 0) == [Found(s, TARGETS[s], TARGETS[s], TARGETS[s]) for s in (4, 2)]


def test_severity_is_refused_behind_the_words_and_without_words() -> None:
    with pytest.raises(UserError, match="behind the words"):
        find("token-noise", spoken(3), (1,), 0)
    silent = [Spoken(Utterance("u", "train", "c", "s", " ", 0.0), spoken(2)[0].training)]
    with pytest.raises(UserError, match="give --rates"):
        find("word-drop", silent, (1,), 0)


# ------------------------------------------------------------------------------------ sentence distances


def test_distances_are_those_of_mean_embeddings_longhand() -> None:
    rng = np.random.default_rng(0)
    items = [rng.normal(size=(t, 4)).astype(np.float32) for t in (3, 1, 5)] + [np.zeros((0, 4), np.float32)]
    text = Ragged.pack(items)
    items.append(np.zeros((0, 4), np.float32))
    text = Ragged.pack(items)
    one, other = np.array([0, 0, 0, 0, 3, 3, 4]), np.array([0, 1, 2, 3, 3, 4, 0])
    mean = [item.mean(axis=0, dtype=float) if len(item) else np.zeros(4) for item in items]

    def longhand(a: int, b: int) -> float:
        if a == b or not (len(items[a]) or len(items[b])):
            return 0.0
        norms = np.linalg.norm(mean[a]) * np.linalg.norm(mean[b])
        return 1 - float(mean[a] @ mean[b] / norms) if norms else 1.0

    expected = [longhand(a, b) for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(sentence_distances(text, one, other), expected, atol=1e-6)
