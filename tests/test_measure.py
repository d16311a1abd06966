"""How much noise is said to be there: error rates after jiwer, severities, distances of sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jiwer
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from unusual import UNUSUAL, rates, seeds, sentences, texts

from dual_bench.corruptions.measure import Measured, measure, word_errors
from dual_bench.corruptions.noise import Reading, Spoken, TokenNoise, corrupted, load, measured
from dual_bench.corruptions.severity import TARGETS, find, search
from dual_bench.features.text import sentence_distances
from dual_bench.types import Condition, Ragged, Task, TrainingText, UserError, Utterance

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
        *("typo", "char-delete", "word-drop", "stutter", "truncation", "utterance-drop"),
        pytest.param("mismatch", marks=pytest.mark.slow),
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


def test_what_a_corruption_cannot_reach_is_said_to_be_unreached() -> None:
    found = find("case-punctuation", spoken(), (1, 5), 0)
    assert not found[1].reached
    assert found[1].rate == 1.0
    assert found[1].wer < TARGETS[5]


def test_a_corruption_too_strong_at_its_lightest_is_unreached_from_above() -> None:
    assert [(f.rate, f.reached) for f in search(lambda rate: 0.4 + rate / 2, (1, 4))] == [(0.001, False), (0.2, True)]


def test_the_worst_case_loses_words_at_its_rate() -> None:
    assert [(f.rate, f.wer, f.reached) for f in find("worst-case", spoken(3), (2,), 0)] == [(0.2, 0.2, True)]


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
