"""The synthetic corpus holds what it promises: splits, cues, media, probes, and an exact ceiling."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from itertools import chain, combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dual_bench.datasets import faces, voices
from dual_bench.datasets import synthetic_text as grammar
from dual_bench.datasets.synthetic import (
    CONFUSION,
    EMOTIONS,
    PRIOR,
    WORLDS,
    Cues,
    Latent,
    Settings,
    World,
    ceiling,
    draw,
    load,
)
from dual_bench.features.audio import LogMel
from dual_bench.features.vision import FrameDCT
from dual_bench.seeding import generator
from dual_bench.types import MODALITIES, SPLITS, Corpus, IntArray, Modality, UserError

SUBSETS = [frozenset(s) for s in chain.from_iterable(combinations(MODALITIES, n) for n in range(4))]
WITH_TEXT = [s for s in SUBSETS if "text" in s]
PLANTED: tuple[Cues, ...] = ("motion", "voice-motion", "face-motion", "static")
SE = 4
"""Standard errors within which a simulation has to agree."""


def subset_name(subset: frozenset[Modality]) -> str:
    return "+".join(sorted(subset)) or "nothing"


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return load(Path())


@pytest.fixture(scope="module")
def latent() -> Latent:
    return draw(Settings())


# ------------------------------------------------------------------------------------------- generation


def test_another_process_makes_the_same_corpus() -> None:
    code = """
from pathlib import Path
from dual_bench.datasets.synthetic import load
print(load(Path(), utterances=48).fingerprint)
"""
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert found.stdout.strip() == load(Path(), utterances=48).fingerprint


def test_all_cues_are_the_default() -> None:
    assert load(Path(), utterances=48).fingerprint == load(Path(), utterances=48, cues="all").fingerprint


@pytest.mark.parametrize("cues", WORLDS)
def test_a_smaller_corpus_is_the_beginning_of_a_larger_one(cues: Cues) -> None:
    small, large = load(Path(), utterances=30, cues=cues), load(Path(), utterances=60, cues=cues)
    assert small.utterances == large.utterances[:30]
    for modality, signal in small.signals.items():
        for one, other in zip(signal.items, large.signals[modality].items[:30], strict=True):
            np.testing.assert_array_equal(one, other)


def test_another_seed_makes_another_corpus() -> None:
    one, other = load(Path(), utterances=24), load(Path(), utterances=24, seed=1)
    assert one.fingerprint != other.fingerprint
    assert [u.text for u in one.utterances] != [u.text for u in other.utterances]


@pytest.mark.parametrize("settings", [{"utterance": 48}, {"utterances": 23}, {"utterances": True}, {"seed": -1}])
def test_a_setting_that_is_unknown_or_out_of_range_is_refused(settings: Mapping[str, object]) -> None:
    with pytest.raises(UserError):
        load(Path(), **settings)


def test_cues_that_do_not_exist_are_refused_with_those_that_do() -> None:
    with pytest.raises(UserError, match=r"cues: .*'all', 'motion', .* or 'static'.*'movement'"):
        load(Path(), cues="movement")


def test_splits_have_their_sizes_and_share_no_dialogue_and_no_speaker(corpus: Corpus) -> None:
    assert len(corpus) == 2400
    fold = corpus.folds[0]
    rows = {"train": fold.train, "validation": fold.validation, "test": fold.test}
    assert [len(rows[split]) for split in SPLITS] == [1400, 400, 600]
    for split in SPLITS:
        assert {corpus.utterances[i].split for i in rows[split]} == {split}
    for attribute in ("cluster", "speaker", "id"):
        groups = [{getattr(corpus.utterances[i], attribute) for i in rows[split]} for split in SPLITS]
        assert len(set().union(*groups)) == sum(len(group) for group in groups)
    assert load(Path(), utterances=24).folds[0].test.size > 0


def test_each_dialogue_has_two_speakers_of_its_own(corpus: Corpus) -> None:
    dialogues: dict[str, set[str]] = {}
    for u in corpus.utterances:
        dialogues.setdefault(u.cluster, set()).add(u.speaker)
    assert {len(speakers) for speakers in dialogues.values()} == {2}
    assert len(set().union(*dialogues.values())) == 2 * len(dialogues)


def test_true_and_expressed_emotions_follow_their_distributions(corpus: Corpus, latent: Latent) -> None:
    assert [u.target for u in corpus.utterances] == latent.truth.tolist()
    assert PRIOR.sum() == pytest.approx(1)
    n = len(latent.truth)
    assert (np.abs(np.bincount(latent.truth) / n - PRIOR) < SE * np.sqrt(PRIOR * (1 - PRIOR) / n)).all()
    for modality in MODALITIES:
        assert CONFUSION[modality].sum(axis=1) == pytest.approx(np.ones(6))
        joint = PRIOR[:, None] * CONFUSION[modality]
        counts = np.zeros((6, 6))
        np.add.at(counts, (latent.truth, latent.expressed[modality]), 1)
        assert (np.abs(counts / n - joint) < SE * np.sqrt(joint * (1 - joint) / n)).all()


def test_given_the_truth_the_modalities_express_independently(latent: Latent) -> None:
    hits = [(latent.expressed[m] == latent.truth).astype(float) for m in MODALITIES]
    for one, other in combinations(hits, 2):
        centred = [h - np.array([h[latent.truth == y].mean() for y in range(6)])[latent.truth] for h in (one, other)]
        assert abs(np.corrcoef(*centred)[0, 1]) < SE / math.sqrt(len(latent.truth))


def test_voices_and_faces_last_one_to_three_seconds_together(corpus: Corpus) -> None:
    audio, vision = corpus.signals["audio"], corpus.signals["vision"]
    assert (audio.kind, audio.rate, vision.kind, vision.rate) == ("waveform", 16_000, "frames", 10)
    for wave, run in zip(audio.items, vision.items, strict=True):
        assert wave.dtype == np.float32
        assert np.abs(wave).max() < 1
        assert run.dtype == np.uint8
        assert run.shape[1:] == (32, 32)
        assert 10 <= len(run) <= 30
        assert len(wave) == len(run) * 1600


def test_the_corpus_says_that_it_is_artificial(corpus: Corpus) -> None:
    assert any("artificial" in note for note in corpus.notes)
    assert corpus.licence == "MIT (generated)"


# ------------------------------------------------------------------------------------------------ words


def words(text: str) -> list[str]:
    return [word.strip(".,").lower() for word in text.split()]


def cue_words(novel_only: bool = False) -> dict[str, set[str]]:
    """The cue words of each emotion."""
    return {
        emotion: {
            word
            for cues in slots.values()
            for phrase in (cues.novel if novel_only else cues.known + cues.novel)
            for word in words(phrase)
        }
        for emotion, slots in grammar.CUES.items()
    }


def test_a_cue_word_belongs_to_one_emotion_and_to_no_carrier() -> None:
    cues = cue_words()
    assert set(cues) == set(EMOTIONS) - {"neutral"}
    assert len(set().union(*cues.values())) == sum(len(group) for group in cues.values())
    parts = (grammar.DETERMINERS, grammar.SUBJECTS, grammar.ACTIONS, grammar.PLACES, grammar.TIMES)
    carriers = {word for phrase in chain.from_iterable(parts) for word in words(phrase)}
    assert not carriers & set().union(*cues.values())


def test_novel_cue_words_are_those_of_no_known_phrase() -> None:
    known = {w for slots in grammar.CUES.values() for c in slots.values() for phrase in c.known for w in words(phrase)}
    assert not known & set().union(*cue_words(novel_only=True).values())


def test_novel_cues_occur_in_test_and_nowhere_else(corpus: Corpus) -> None:
    novel = set().union(*cue_words(novel_only=True).values())
    texts = {split: {w for u in corpus.utterances if u.split == split for w in words(u.text)} for split in SPLITS}
    assert texts["test"] & novel == novel
    assert not (texts["train"] | texts["validation"]) & novel


def test_without_its_cue_words_a_sentence_is_a_carrier(corpus: Corpus, latent: Latent) -> None:
    cues = cue_words()
    everything = set().union(*cues.values())
    for u, expressed in zip(corpus.utterances, latent.expressed["text"], strict=True):
        found = set(words(u.text)) & everything
        assert found <= cues.get(EMOTIONS[expressed], set())
        assert bool(found) == (EMOTIONS[expressed] != "neutral")
        carrier = " ".join(word for word in u.text.split() if word.strip(".,") not in everything)
        determiner, subject, rest = carrier.split(" ", 2)
        assert determiner in grammar.DETERMINERS
        assert subject in grammar.SUBJECTS
        action = next(a for a in grammar.ACTIONS if rest.startswith(a))
        assert any(rest == " ".join(f"{action} {p} {t}.".split()) for p in grammar.PLACES for t in grammar.TIMES)


# ---------------------------------------------------------------------------------------------- ceiling


def sample(probabilities: NDArray[np.float64], rng: np.random.Generator) -> IntArray:
    """One outcome of each row."""
    return (
        (probabilities.cumsum(axis=1) < rng.random((len(probabilities), 1)))
        .sum(axis=1)
        .clip(max=probabilities.shape[1] - 1)
    )


def perceive(
    expressed: Mapping[Modality, IntArray], erased: NDArray[np.float64], world: World = WORLDS["all"]
) -> IntArray:
    """The most probable class given what each modality expresses; -1 where no cue of a text is left, and where it is
    not the turn of a voice or a face.

    ``erased`` (K,) is the probability that a text that expresses c shows no cue.
    """
    log_posterior = np.log(world.prior)[None, :]
    for modality, seen in expressed.items():
        channel = world.confusion[modality]
        # whose turn it is has nothing to do with the class
        silent = channel @ erased if modality == "text" else np.ones(len(world.classes))
        likelihood = np.where((seen < 0)[:, None], silent, channel[:, seen].T)
        log_posterior = log_posterior + np.log(likelihood)
    return log_posterior.argmax(axis=1)


def agrees(right: NDArray[np.bool_], exact: float) -> bool:
    return abs(right.mean() - exact) <= SE * math.sqrt(exact * (1 - exact) / len(right))


@cache
def population(cues: Cues) -> Latent:
    """Drawn from the definition of a world, by other means than ``draw``."""
    world, rng = WORLDS[cues], generator("test", "population")
    truth = sample(np.tile(world.prior, (250_000, 1)), rng)
    expressed = {m: sample(world.confusion[m][truth], rng) for m in MODALITIES}
    turn = rng.integers(len(world.turns), size=len(truth))
    for modality in ("audio", "vision"):
        for place, speaking in enumerate(world.turns):
            if modality not in speaking:
                expressed[modality][turn == place] = -1
    return Latent(truth, expressed)


@pytest.mark.parametrize("cues", WORLDS)
@pytest.mark.parametrize("subset", SUBSETS, ids=subset_name)
@pytest.mark.parametrize("corruption", ["clean", "word-drop", "utterance-drop"])
def test_the_ceiling_is_the_accuracy_of_a_simulated_perfect_perceiver(
    cues: Cues, subset: frozenset[Modality], corruption: str
) -> None:
    world, latent, rng = WORLDS[cues], population(cues), generator("test", "erasure")
    for rate in (0.0, 0.2, 0.5, 0.85, 1.0):
        erased = {
            "clean": np.zeros(len(world.classes)),
            "utterance-drop": np.full(len(world.classes), rate),
            "word-drop": np.array([grammar.silence(e, rate) for e in world.rendered["text"]]),
        }[corruption]
        seen = {m: latent.expressed[m] for m in MODALITIES if m in subset}
        if "text" in seen:
            lost = rng.random(len(latent.truth)) < erased[seen["text"]]
            seen["text"] = np.where(lost, -1, seen["text"])
        with np.errstate(divide="ignore"):  # where nothing is ever erased, the likelihood of an erased text is 0
            guess = perceive(seen, erased, world)
        assert agrees(guess == latent.truth, ceiling(subset, corruption, rate, cues)), rate


CEILINGS: Mapping[Cues, dict[str, float]] = {
    "all": {"A": 0.5556, "V": 0.5502, "T": 0.7104, "AV": 0.745764, "AT": 0.79082, "VT": 0.797188, "AVT": 0.87066616},
    # one of voice and face at a time: AV = .9, A = (.9 + .5) / 2, AT = (.9 + .7) / 2; words never outvote a .9
    "motion": {"A": 0.7, "V": 0.7, "T": 0.7, "AV": 0.9, "AT": 0.8, "VT": 0.8, "AVT": 0.9},
    "voice-motion": {"A": 0.9, "V": 0.5, "T": 0.7, "AV": 0.9, "AT": 0.9, "VT": 0.7, "AVT": 0.9},
    "face-motion": {"A": 0.5, "V": 0.9, "T": 0.7, "AV": 0.9, "AT": 0.7, "VT": 0.9, "AVT": 0.9},
    # two of three right; of two that disagree the better is believed
    "static": {"A": 0.9, "V": 0.9, "T": 0.7, "AV": 0.9, "AT": 0.9, "VT": 0.9, "AVT": 0.936},
}


@pytest.mark.parametrize("cues", WORLDS)
def test_ceilings_without_corruption_stay_what_they_are(cues: Cues) -> None:
    initials: dict[str, Modality] = {"A": "audio", "V": "vision", "T": "text"}
    for names, exact in CEILINGS[cues].items():
        assert ceiling(frozenset(initials[n] for n in names), "clean", 0.0, cues) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_silence_is_the_share_of_test_sentences_whose_cue_words_are_all_lost(emotion: str) -> None:
    rng = generator("test", "silence", emotion)
    cues = cue_words().get(emotion, set())
    counts = np.array([len(cues & set(words(grammar.sentence(emotion, True, rng)))) for _ in range(10_000)])
    for rate in (0.1, 0.5, 0.9):
        lost = rate**counts
        assert abs(lost.mean() - grammar.silence(emotion, rate)) <= SE * lost.std() / 100


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.7])
def test_the_ceiling_is_the_accuracy_of_spotting_cues_in_real_sentences_that_lost_words(rate: float) -> None:
    rng = generator("test", "sentences", str(rate))
    owner = {word: EMOTIONS.index(emotion) for emotion, group in cue_words().items() for word in group}
    truth = sample(np.tile(PRIOR, (20_000, 1)), rng)
    expressed = {m: sample(CONFUSION[m][truth], rng) for m in MODALITIES}
    spotted = []
    for emotion in expressed["text"]:
        spoken = grammar.sentence(EMOTIONS[emotion], True, rng).split()
        left = " ".join(word for word, lost in zip(spoken, rng.random(len(spoken)) < rate, strict=True) if not lost)
        found = {owner[word] for word in words(left) if word in owner}
        assert found <= {emotion}
        spotted.append(found.pop() if found else -1)
    erased = np.array([grammar.silence(e, rate) for e in EMOTIONS])
    seen: dict[Modality, IntArray] = {**expressed, "text": np.array(spotted)}
    for subset in WITH_TEXT:
        guess = perceive({m: seen[m] for m in MODALITIES if m in subset}, erased)
        assert agrees(guess == truth, ceiling(subset, "word-drop", rate))


@pytest.mark.parametrize("subset", SUBSETS, ids=subset_name)
@pytest.mark.parametrize("corruption", ["word-drop", "utterance-drop"])
def test_the_ceiling_falls_with_the_rate_from_clean_to_no_text(subset: frozenset[Modality], corruption: str) -> None:
    curve = [ceiling(subset, corruption, rate) for rate in np.linspace(0, 1, 41)]
    assert curve[0] == pytest.approx(ceiling(subset, "clean", 0.0), abs=1e-12)
    assert curve[-1] == pytest.approx(ceiling(subset - {"text"}, "clean", 0.0), abs=1e-12)
    assert (np.diff(curve) <= 1e-12).all()


def test_utterance_drop_mixes_the_ceilings_with_and_without_text() -> None:
    for subset in WITH_TEXT:
        mixed = 0.7 * ceiling(subset, "clean", 0.0) + 0.3 * ceiling(subset - {"text"}, "clean", 0.0)
        assert ceiling(subset, "utterance-drop", 0.3) == pytest.approx(mixed, abs=1e-12)


def test_every_modality_adds_to_every_set_of_others() -> None:
    assert ceiling(frozenset(), "clean", 0.0) == PRIOR.max()
    for subset in SUBSETS:
        for modality in set(MODALITIES) - subset:
            assert ceiling(subset | {modality}, "clean", 0.0) > ceiling(subset, "clean", 0.0) + 0.04


def test_the_ceiling_of_another_corruption_or_of_an_impossible_rate_is_unknown() -> None:
    everything = frozenset(MODALITIES)
    assert math.isnan(ceiling(everything, "typos", 0.1))
    assert math.isnan(ceiling(everything, "word-drop", 1.1))
    assert math.isnan(ceiling(everything, "word-drop", math.nan))


# ----------------------------------------------------------------------------------------------- probes


@pytest.fixture(scope="module")
def features(corpus: Corpus) -> dict[Modality, list[NDArray[np.float32]]]:
    encoders: dict[Modality, LogMel | FrameDCT] = {"audio": LogMel(), "vision": FrameDCT()}
    return {m: [encode(x, corpus.signals[m].rate) for x in corpus.signals[m].items] for m, encode in encoders.items()}


def average(sequences: list[NDArray[np.float32]]) -> NDArray[np.float64]:
    return np.array([s.mean(axis=0, dtype=float) for s in sequences])


def mean_difference(sequences: list[NDArray[np.float32]]) -> NDArray[np.float64]:
    return np.array([np.diff(s, axis=0).mean(axis=0, dtype=float) for s in sequences])


def probe(x: NDArray[np.float64], y: IntArray, train: IntArray, test: IntArray) -> float:
    """Balanced accuracy (chance: one in the number of classes) of a linear probe on test speakers."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced"))
    return float(balanced_accuracy_score(y[test], classifier.fit(x[train], y[train]).predict(x[test])))


MOTION_PAIRS = [("audio", pair) for pair in voices.MOTION_PAIRS] + [("vision", pair) for pair in faces.MOTION_PAIRS]


@pytest.mark.parametrize(("modality", "pair"), MOTION_PAIRS)
def test_on_motion_only_pairs_static_averages_are_at_chance_and_differences_are_not(
    corpus: Corpus,
    latent: Latent,
    features: dict[Modality, list[NDArray[np.float32]]],
    modality: Modality,
    pair: tuple[str, str],
) -> None:
    y = latent.expressed[modality]
    codes = [EMOTIONS.index(emotion) for emotion in pair]
    fold = corpus.folds[0]
    train, test = (rows[np.isin(y[rows], codes)] for rows in (fold.train, fold.test))
    spread = math.sqrt(sum(0.25 / (y[test] == code).sum() for code in codes)) / 2
    assert abs(probe(average(features[modality]), y, train, test) - 0.5) < 2.6 * spread
    assert probe(mean_difference(features[modality]), y, train, test) >= 0.9


def test_the_pairs_of_voices_are_not_those_of_faces() -> None:
    assert not {frozenset(p) for p in voices.MOTION_PAIRS} & {frozenset(p) for p in faces.MOTION_PAIRS}


@pytest.mark.parametrize("modality", ["audio", "vision"])
def test_the_expressed_emotion_is_legible_from_unknown_speakers(
    corpus: Corpus, latent: Latent, features: dict[Modality, list[NDArray[np.float32]]], modality: Modality
) -> None:
    x = np.hstack([average(features[modality]), mean_difference(features[modality])])
    fold = corpus.folds[0]
    assert probe(x, latent.expressed[modality], fold.train, fold.test) >= 0.98


def test_played_backwards_a_voice_and_a_face_have_the_same_static_average(corpus: Corpus) -> None:
    for i in range(10):
        wave, run = corpus.signals["audio"].items[i], corpus.signals["vision"].items[i]
        forth, back = (LogMel()(x, 16_000).mean(axis=0) for x in (wave, wave[::-1]))
        np.testing.assert_allclose(forth, back, atol=0.05)
        forth, back = (FrameDCT()(x, 10).mean(axis=0) for x in (run, run[::-1]))
        np.testing.assert_allclose(forth, back, atol=1e-4)


# ----------------------------------------------------------------------------------------- planted truth


@cache
def planted(cues: Cues) -> Corpus:
    return load(Path(), utterances=960, cues=cues)


def test_worlds_differ_in_fingerprint_and_name() -> None:
    corpora = [load(Path(), utterances=24, cues=cues) for cues in WORLDS]
    assert len({corpus.fingerprint for corpus in corpora}) == len(WORLDS)
    assert [corpus.name for corpus in corpora] == ["synthetic", *(f"synthetic ({cues})" for cues in PLANTED)]


@pytest.mark.parametrize("cues", PLANTED)
def test_a_planted_corpus_says_that_it_is_artificial_and_what_was_planted(cues: Cues) -> None:
    assert any("artificial" in note and WORLDS[cues].told_by in note for note in planted(cues).notes)
    assert WORLDS[cues].told_by
    assert planted(cues).task.classes == WORLDS[cues].classes


@pytest.mark.parametrize("cues", PLANTED)
def test_a_planted_corpus_has_the_ceiling_of_its_world_in_another_process_too(cues: Cues) -> None:
    travelled = pickle.loads(pickle.dumps(planted(cues).ceiling))
    for subset in SUBSETS:
        assert travelled(subset, "word-drop", 0.3) == ceiling(subset, "word-drop", 0.3, cues)


@pytest.mark.parametrize("cues", PLANTED)
def test_true_and_expressed_classes_follow_the_distributions_of_their_world(cues: Cues) -> None:
    world, latent = WORLDS[cues], draw(Settings(cues=cues))
    assert [u.target for u in planted(cues).utterances] == latent.truth[:960].tolist()
    for modality in MODALITIES:
        speaks = latent.expressed[modality] >= 0
        n = speaks.sum()
        if not n:
            assert not any(modality in speaking for speaking in world.turns)
            continue
        joint = world.prior[:, None] * world.confusion[modality]
        counts = np.zeros(joint.shape)
        np.add.at(counts, (latent.truth[speaks], latent.expressed[modality][speaks]), 1)
        assert (np.abs(counts / n - joint) < SE * np.sqrt(joint * (1 - joint) / n)).all()


def test_in_motion_either_the_voice_or_the_face_has_its_turn_and_evenly_whatever_the_class() -> None:
    latent = draw(Settings(cues="motion"))
    voice, face = (latent.expressed[m] >= 0 for m in ("audio", "vision"))
    assert (voice != face).all()
    assert (latent.expressed["text"] >= 0).all()
    for y in (0, 1):
        turns = voice[latent.truth == y]
        assert abs(turns.mean() - 0.5) < SE * 0.5 / math.sqrt(len(turns))


def test_in_static_no_modality_waits_for_a_turn() -> None:
    assert all((seen >= 0).all() for seen in draw(Settings(cues="static")).expressed.values())


@cache
def planted_features(cues: Cues, modality: Modality) -> list[NDArray[np.float32]]:
    encode: LogMel | FrameDCT = LogMel() if modality == "audio" else FrameDCT()
    signal = planted(cues).signals[modality]
    return [encode(item, signal.rate) for item in signal.items]


def known_times(sequences: list[NDArray[np.float32]]) -> NDArray[np.float64]:
    """The first frame, and those after one, two and three sixteenths: none is the mirror image of another."""
    return np.array([np.hstack([s[len(s) * k // 16] for k in range(4)]) for s in sequences], np.float64)


def halves(sequences: list[NDArray[np.float32]]) -> NDArray[np.float64]:
    """The average of the first half less that of the second."""
    return average([s[: len(s) // 2] for s in sequences]) - average([s[-(len(s) // 2) :] for s in sequences])


def rises(sequences: list[NDArray[np.float32]]) -> NDArray[np.float64]:
    """The share of steps from one frame to the next in which a feature rises."""
    return np.array([(np.diff(s, axis=0) > 0).mean(axis=0) for s in sequences])


View = Callable[[list[NDArray[np.float32]]], NDArray[np.float64]]
"""T frames of D features each to (N, D)."""


def told(cues: Cues, modality: Modality, view: View) -> tuple[float, float]:
    """How well a probe of ``view`` tells which class a modality expresses where it does, and the standard error of a
    guess."""
    fold, y = planted(cues).folds[0], draw(Settings(utterances=960, cues=cues)).expressed[modality]
    train, test = (rows[y[rows] >= 0] for rows in (fold.train, fold.test))
    spread = math.sqrt(sum(0.25 / (y[test] == code).sum() for code in (0, 1))) / 2
    return probe(view(planted_features(cues, modality)), y, train, test), spread


@pytest.mark.parametrize("modality", ["audio", "vision"])
@pytest.mark.parametrize("view", [average, known_times, mean_difference, halves])
def test_in_motion_neither_levels_at_known_times_nor_the_way_from_start_to_end_tell_the_classes_apart(
    modality: Modality, view: View
) -> None:
    accuracy, spread = told("motion", modality, view)
    assert abs(accuracy - 0.5) < 2.6 * spread


@pytest.mark.parametrize("modality", ["audio", "vision"])
def test_in_motion_differences_between_neighbouring_frames_tell_the_classes_apart(modality: Modality) -> None:
    assert told("motion", modality, rises)[0] >= 0.95


@pytest.mark.parametrize("modality", ["audio", "vision"])
def test_in_motion_it_is_plain_whose_turn_it_is(modality: Modality) -> None:
    fold, y = planted("motion").folds[0], draw(Settings(utterances=960, cues="motion")).expressed[modality] >= 0
    sequences = planted_features("motion", modality)
    x = np.hstack([average(sequences), [s.std(axis=0) for s in sequences]])
    assert probe(x, y.astype(np.int64), fold.train, fold.test) >= 0.98


@pytest.mark.parametrize("modality", ["audio", "vision"])
def test_in_static_averages_tell_the_classes_apart(modality: Modality) -> None:
    assert told("static", modality, average)[0] >= 0.98


@pytest.mark.parametrize("modality", ["audio", "vision"])
@pytest.mark.parametrize("view", [mean_difference, halves, rises])
def test_in_static_the_direction_of_change_does_not_tell_the_classes_apart(modality: Modality, view: View) -> None:
    accuracy, spread = told("static", modality, view)
    assert abs(accuracy - 0.5) < 2.6 * spread
