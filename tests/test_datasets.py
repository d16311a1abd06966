"""Corpora: folds that leak nothing, fingerprints, and the real ones."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dual_bench.corruptions.measure import measure
from dual_bench.datasets.assemble import assemble, cross_validation, official
from dual_bench.datasets.composite import CLASSES, NOTE
from dual_bench.plan import load_corpus
from dual_bench.types import SPLITS, Corpus, Fold, Modality, Signal, Task, UserError, Utterance

# ------------------------------------------------------------------------------------------ folds


@st.composite
def clustered(draw: st.DrawFn) -> tuple[list[Utterance], list[str]]:
    """Utterances in any order, and the fold of each; folds share no cluster."""
    clusters = draw(st.integers(4, 14))
    count = draw(st.integers(2, clusters // 2))
    fold_of = draw(st.permutations([f"f{i % count}" for i in range(clusters)]))
    order = draw(st.permutations([c for c in range(clusters) for _ in range(1 + c % 3)]))
    utterances = [Utterance(f"u{i}", "test", f"c{c}", "s", "t", float(i % 2)) for i, c in enumerate(order)]
    return utterances, [fold_of[c] for c in order]


@given(clustered())
def test_cross_validation_tests_each_utterance_once_and_no_cluster_on_two_sides(
    made: tuple[list[Utterance], list[str]],
) -> None:
    utterances, fold_of = made
    folds = cross_validation(utterances, fold_of)
    tested = np.concatenate([fold.test for fold in folds])
    assert sorted(tested.tolist()) == list(range(len(utterances)))
    for fold in folds:
        assert {fold_of[i] for i in fold.test} == {fold.name}
        parts = [fold.train, fold.validation, fold.test]
        assert all(len(part) for part in parts)
        assert sorted(np.concatenate(parts).tolist()) == list(range(len(utterances)))
        clusters = [{utterances[i].cluster for i in part} for part in parts]
        assert sum(map(len, clusters)) == len(set().union(*clusters))


@given(clustered())
def test_who_chooses_depends_on_cluster_names_alone(made: tuple[list[Utterance], list[str]]) -> None:
    utterances, fold_of = made
    backwards = cross_validation([replace(u, target=9.0) for u in reversed(utterances)], fold_of[::-1])
    for fold, other in zip(cross_validation(utterances, fold_of), backwards, strict=True):
        assert fold.name == other.name
        assert {utterances[i].cluster for i in fold.validation} == {
            utterances[::-1][i].cluster for i in other.validation
        }


def test_too_few_folds_or_clusters_are_refused() -> None:
    utterances = [Utterance(f"u{i}", "test", f"c{i}", "s", "t", 0.0) for i in range(3)]
    with pytest.raises(UserError, match="at least 2 folds, found 1"):
        cross_validation(utterances, ["a"] * 3)
    with pytest.raises(UserError, match="fold 'a' leaves 1 cluster to train and choose on"):
        cross_validation(utterances, ["a", "a", "b"])


# -------------------------------------------------------------------------------------------- assemble

TASK = Task("classification", ("a", "b"))
ITEMS = [np.full((1 + i % 2, 2), i, np.float32) for i in range(6)]
MADE = [
    Utterance(f"u{i}", split, f"c{i}", "s", f"t{i}", float(i % 2), {"r": "t"}) for i, split in enumerate(SPLITS * 2)
]


def assembled(
    utterances: list[Utterance] = MADE,
    task: Task = TASK,
    items: list[NDArray[np.float32]] = ITEMS,
    folds: tuple[Fold, ...] | None = None,
    modality: Modality = "audio",
    rate: float = 25.0,
    **more: Any,
) -> str:
    signals = {modality: Signal("features", items, rate)}
    return assemble(
        "n", task, utterances, signals, folds or official(utterances), **{"licence": "l", **more}
    ).fingerprint


def changed(**fields: Any) -> list[Utterance]:
    return [*MADE[:-1], replace(MADE[-1], **fields)]


MOVED = Fold("official", np.array([0]), np.array([1, 4]), np.array([2, 5, 3]))
OTHERWISE: list[dict[str, Any]] = [
    *({"utterances": changed(**{k: v})} for k, v in {
        "id": "x", "text": "x", "target": 0.0, "cluster": "x", "speaker": "x", "transcripts": {"r": "x"}
    }.items()),
    {"utterances": MADE[::-1], "folds": official(MADE)},
    {"task": Task("classification", ("a", "c"))},
    {"items": [*ITEMS[:-1], ITEMS[-1] + 1]},
    {"items": [ITEMS[0], ITEMS[1][:1], np.concatenate([ITEMS[1][1:], ITEMS[2]]), *ITEMS[3:]]},
    {"modality": "vision"},
    {"rate": 50.0},
    {"folds": (replace(official(MADE)[0], name="other"),)},
    {"folds": (MOVED,)},
]  # fmt: skip


def test_the_fingerprint_changes_with_everything_that_can_change_a_result() -> None:
    assert len({assembled(), *(assembled(**change) for change in OTHERWISE)}) == 1 + len(OTHERWISE)


def test_the_fingerprint_changes_with_nothing_else() -> None:
    scattered = [np.asfortranarray(item) for item in ITEMS]
    same = [{"licence": "other"}, {"notes": ("n",)}, {"ceiling": lambda m, c, r: 1.0}, {"items": scattered}]
    assert {assembled(**change) for change in same} == {assembled()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"utterances": changed(target=2.0)}, r"utterance 'u5': class 2\.0 is outside 0\.\.1"),
        ({"utterances": changed(target=0.5)}, "utterance 'u5': class 0.5"),
        ({"utterances": changed(target=np.nan), "task": Task("regression")}, "utterance 'u5': value nan"),
        ({"utterances": changed(id="u0")}, "utterance id 'u0' stands twice"),
        ({"items": ITEMS[1:]}, "audio: expected 6 items, one for each utterance, found 5"),
    ],
)
def test_a_corpus_that_does_not_hold_together_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        assembled(**change)


# ------------------------------------------------------------------------------------------ real corpora


def assert_disjoint(corpus: Corpus) -> None:
    assert sorted(np.concatenate([fold.test for fold in corpus.folds])) == list(range(len(corpus)))
    for fold in corpus.folds:
        clusters = [{corpus.utterances[i].cluster for i in part} for part in (fold.train, fold.validation, fold.test)]
        assert sum(map(len, clusters)) == len(set().union(*clusters))


def test_mosi_is_752_clips_in_five_folds_of_videos(shared_data: Path) -> None:
    corpus = load_corpus("mosi-752", shared_data)
    assert (len(corpus), len(corpus.folds), len({u.cluster for u in corpus.utterances})) == (752, 5, 31)
    assert corpus.task == Task("regression", low=-3.0, high=3.0)
    assert {m: s.items[0].shape for m, s in corpus.signals.items()} == {"audio": (1, 73), "vision": (1, 100)}
    assert_disjoint(corpus)
    targets = np.array([u.target for u in corpus.utterances])
    assert max((targets >= 0).mean(), (targets < 0).mean()) == pytest.approx(0.621, abs=5e-4)


@pytest.mark.parametrize(("recogniser", "published"), [("iflytek", 0.245), ("speechbrain", 0.379)])
def test_mosi_transcripts_err_about_as_often_as_published(shared_data: Path, recogniser: str, published: float) -> None:
    corpus = load_corpus("mosi-752", shared_data)
    assert recogniser in corpus.transcripts
    found = [measure(u.text, u.transcripts[recogniser]) for u in corpus.utterances]
    assert sum(m.errors for m in found) / sum(m.words for m in found) == pytest.approx(published, abs=0.05)


def test_ravdess_is_divided_by_actors(shared_data: Path) -> None:
    corpus = load_corpus("ravdess", shared_data)
    (fold,) = corpus.folds
    parts = (fold.train, fold.validation, fold.test)
    assert [len(part) for part in parts] == [720, 180, 180]
    actors = [sorted({u.cluster for u in (corpus.utterances[i] for i in part)}) for part in parts]
    numbers = [[f"actor{n:02d}" for n in r] for r in (range(1, 13), range(13, 16), range(16, 19))]
    assert actors == numbers
    assert sorted(Counter(u.target for u in corpus.utterances).values()) == [72] + [144] * 7
    crossed = load_corpus("ravdess:folds=6", shared_data)
    assert [len({crossed.utterances[i].cluster for i in fold.test}) for fold in crossed.folds] == [3] * 6
    assert_disjoint(crossed)


def meld(shared_data: Path) -> list[tuple[str, str, str, str]]:
    """(file, dialogue, emotion, line) of every line."""
    found = []
    for part in ("train", "dev", "test"):
        with (shared_data / "meld_text" / f"{part}_sent_emo.csv").open(encoding="utf-8", newline="") as file:
            found += [(part, f"{part} {r['Dialogue_ID']}", r["Emotion"], r["Utterance"]) for r in csv.DictReader(file)]
    return found


@pytest.mark.parametrize("spec", ["composite", "composite:folds=0", "composite:folds=3,seed=1"])
def test_composite_pairs_each_clip_with_a_line_of_its_emotion_and_part(shared_data: Path, spec: str) -> None:
    corpus, clips = load_corpus(spec, shared_data), load_corpus("ravdess", shared_data)
    assert (len(corpus), corpus.task.classes, corpus.notes) == (936, CLASSES, (NOTE,))
    names = {"happy": "joy", "sad": "sadness", "angry": "anger", "fearful": "fear", "surprised": "surprise"}
    label = {u.id: clips.task.classes[int(u.target)] for u in clips.utterances}
    voice = {u.id: item for u, item in zip(clips.utterances, clips.signals["audio"].items, strict=True)}
    available = Counter((emotion, line) for _, _, emotion, line in meld(shared_data))
    used = Counter((CLASSES[int(u.target)], u.text) for u in corpus.utterances)
    for u, item in zip(corpus.utterances, corpus.signals["audio"].items, strict=True):
        assert names.get(label[u.id], label[u.id]) == CLASSES[int(u.target)]
        np.testing.assert_array_equal(item, voice[u.id])
    assert not (used.keys() - available.keys())
    assert (used - available).total() == (2 if spec.endswith("folds=0") else 0)


def test_composite_folds_share_no_actor_and_no_dialogue(shared_data: Path) -> None:
    corpus = load_corpus("composite", shared_data)
    assert len(corpus.folds) == 6
    assert_disjoint(corpus)
    times = Counter(line for *_, line in meld(shared_data))
    dialogue = {line: where for _, where, _, line in meld(shared_data) if times[line] == 1}
    folds_of = defaultdict(set)
    for fold in corpus.folds:
        for i in fold.test:
            folds_of[dialogue.get(corpus.utterances[i].text)].add(fold.name)
    del folds_of[None]
    assert len(folds_of) > 400
    assert {len(folds) for folds in folds_of.values()} == {1}


def test_composite_with_official_splits_keeps_both_corpora_apart(shared_data: Path) -> None:
    corpus = load_corpus("composite:folds=0", shared_data)
    home = defaultdict(set)
    for part, _, emotion, line in meld(shared_data):
        home[emotion, line].add({"dev": "validation"}.get(part, part))
    assert all(u.split in home[CLASSES[int(u.target)], u.text] for u in corpus.utterances)
    assert [len(part) for part in (corpus.folds[0].train, corpus.folds[0].validation, corpus.folds[0].test)] == [
        624, 156, 156,
    ]  # fmt: skip


def test_composite_is_the_same_each_time_and_another_with_another_seed(shared_data: Path) -> None:
    first, again, other = (load_corpus(s, shared_data) for s in ("composite", "composite", "composite:seed=1"))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert [u.text for u in first.utterances] != [u.text for u in other.utterances]
