"""The reader of IEMOCAP_full_release, on made trees with invented sentences."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import trees
from hypothesis import given
from hypothesis import strategies as st

from dual_bench.datasets import iemocap
from dual_bench.datasets.assemble import cross_validation
from dual_bench.datasets.source import Source
from dual_bench.features.media import Clip
from dual_bench.types import Modality, Task, UserError

FOUR = ("angry", "happy", "sad", "neutral")
SIX = ("happy", "sad", "neutral", "angry", "excited", "frustrated")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return trees.iemocap(tmp_path / "IEMOCAP_full_release", dialogues=2, turns=4, film=trees.touched)


def clips(source: Source, modality: Modality) -> list[Clip]:
    found = source.media[modality]
    assert isinstance(found, list)
    return found


def labels(tree: Path, *lines: str, dialogue: str = "Ses01F_impro01") -> Path:
    path = tree / f"Session{dialogue[4]}" / "dialog" / "EmoEvaluation" / f"{dialogue}.txt"
    path.write_text("\n".join(["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", "", *lines, ""]))
    return path


def label(number: int, code: str, times: str = "[1.0000 - 2.5000]") -> str:
    return f"{times}\tSes01F_impro01_F{number:03d}\t{code}\t[2.5000, 2.5000, 2.5000]"


# --------------------------------------------------------------------------------------------- as published


@pytest.mark.parametrize("given", ["itself", "its parent"])
def test_utterances_have_their_words_speakers_and_dialogues(tree: Path, given: str) -> None:
    source = iemocap.LAYOUT.read(tree if given == "itself" else tree.parent)
    assert source.name == "iemocap"
    assert "USC SAIL" in source.licence
    assert source.task == Task("classification", FOUR)
    assert len(source.utterances) == 40
    first = source.utterances[:4]
    assert [u.id for u in first] == [f"Ses01F_impro01_{'FM'[i % 2]}{i:03d}" for i in range(4)]
    assert {u.cluster for u in first} == {"Ses01F_impro01"}
    assert [u.speaker for u in first] == ["Ses01_F", "Ses01_M"] * 2
    assert [u.text for u in first] == [one.text for one in trees.said(4, 10)]
    assert [source.task.classes[int(u.target)] for u in first] == ["neutral", "happy", "sad", "angry"]


def test_each_session_is_a_fold_that_shares_no_actor_with_another(tree: Path) -> None:
    source = iemocap.LAYOUT.read(tree)
    assert source.folds is not None
    assert Counter(source.folds) == {f"Session{i}": 8 for i in range(1, 6)}
    for fold in cross_validation(source.utterances, source.folds):
        assert {source.utterances[i].id[:5] for i in fold.test} == {f"Ses0{fold.name[-1]}"}
        trained = {source.utterances[i].speaker for i in np.concatenate([fold.train, fold.validation])}
        assert not trained & {source.utterances[i].speaker for i in fold.test}


def test_sound_is_the_sentence_and_the_face_a_stretch_of_the_dialogue(tree: Path) -> None:
    source = iemocap.LAYOUT.read(tree)
    for i, utterance in enumerate(source.utterances):
        session = tree / source.folds[i] if source.folds else tree
        sound, face = clips(source, "audio")[i], clips(source, "vision")[i]
        assert sound == Clip(session / "sentences" / "wav" / utterance.cluster / f"{utterance.id}.wav")
        assert sound.path.is_file()
        turn = int(utterance.id[-3:])
        assert face.path == session / "dialog" / "avi" / "DivX" / f"{utterance.cluster}.avi"
        assert face.path.is_file()
        assert (face.start, face.end) == (turn, turn + 1)


def test_who_wears_the_markers_is_at_the_left_and_the_other_at_the_right(tree: Path) -> None:
    source = iemocap.LAYOUT.read(tree)
    halves = {u.id: clip.half for u, clip in zip(source.utterances, clips(source, "vision"), strict=True)}
    assert halves["Ses01F_impro01_F000"] == "left"
    assert halves["Ses01F_impro01_M001"] == "right"
    assert halves["Ses01M_impro02_M001"] == "left"
    assert halves["Ses01M_impro02_F000"] == "right"
    assert Counter(halves.values()) == {"left": 20, "right": 20}


def test_four_classes_join_excited_to_happy_and_six_keep_them_apart(tree: Path) -> None:
    labels(tree, *(label(i, code) for i, code in enumerate(("ang", "hap", "exc", "sad", "neu", "fru", "xxx"))))
    four, six = iemocap.LAYOUT.read(tree, classes=4), iemocap.LAYOUT.read(tree, classes=6)
    for source, classes, expected in (
        (four, FOUR, ["angry", "happy", "happy", "sad", "neutral"]),
        (six, SIX, ["angry", "happy", "excited", "sad", "neutral", "frustrated"]),
    ):
        assert source.task.classes == classes
        found = [u for u in source.utterances if u.cluster == "Ses01F_impro01"]
        assert [classes[int(u.target)] for u in found] == expected


def test_published_counts_add_up_to_those_of_both_protocols() -> None:
    assert sum(iemocap.PUBLISHED[4].values()) == 5531
    assert sum(iemocap.PUBLISHED[6].values()) == 7380
    assert iemocap.PUBLISHED[4]["happy"] == iemocap.PUBLISHED[6]["happy"] + iemocap.PUBLISHED[6]["excited"]
    for classes, names in ((4, FOUR), (6, SIX)):
        assert set(iemocap.PUBLISHED[classes]) == set(names)


@pytest.mark.parametrize(
    ("classes", "left"), [(6, "2,507 utterances with a label outside the 6 classes left out: 2,507 xxx"),
                          (4, "4,356 utterances with a label outside the 4 classes left out: 2,507 xxx, 1,849 fru")]
)  # fmt: skip
def test_a_corpus_of_the_published_counts_is_not_told_to_differ(tmp_path: Path, classes: int, left: str) -> None:
    codes = {"ang": 1103, "hap": 595, "exc": 1041, "sad": 1084, "neu": 1708, "fru": 1849, "xxx": 2507}
    spread = [code for code, number in codes.items() for _ in range(number)]
    for session in range(1, 6):
        name = f"Ses0{session}F_script01"
        folder = tmp_path / f"Session{session}" / "dialog" / "EmoEvaluation"
        folder.mkdir(parents=True)
        rows = [f"[0.5 - 1.5]\t{name}_F{i:04d}\t{code}\t[1, 1, 1]" for i, code in enumerate(spread[session - 1 :: 5])]
        (folder / f"{name}.txt").write_text("\n".join(rows))
    told = iemocap.LAYOUT.read(tmp_path, classes=classes).deviations
    assert [sentence for sentence in told if "missing" not in sentence] == [left]


# ------------------------------------------------------------------------------------ otherwise than published


def test_counts_labels_left_out_and_missing_sessions_are_told(tree: Path) -> None:
    labels(tree, label(0, "xxx"), label(1, "oth"), label(2, "xxx"), label(3, "ang"))
    for file in sorted((tree / "Session5").rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    (tree / "Session5").rmdir()
    told = iemocap.LAYOUT.read(tree).deviations
    assert told[:3] == (
        "Session5 is missing",
        "3 utterances with a label outside the 4 classes left out: 2 xxx, 1 oth",
        "counts differ from the published ones, in brackets: 8 angry (1,103), 7 happy (1,636), 7 sad (1,084), "
        "7 neutral (1,708)",
    )


def test_missing_words_sounds_and_films_are_counted_and_their_utterances_stay(tree: Path) -> None:
    dialog = tree / "Session2" / "dialog"
    (dialog / "avi" / "DivX" / "Ses02M_impro02.avi").unlink()
    (tree / "Session2" / "sentences" / "wav" / "Ses02F_impro01" / "Ses02F_impro01_F000.wav").unlink()
    words = dialog / "transcriptions" / "Ses02F_impro01.txt"
    words.write_text("\n".join(words.read_text().splitlines()[1:]))
    source = iemocap.LAYOUT.read(tree)
    assert len(source.utterances) == 40
    assert source.deviations[1:] == (
        "1 transcription missing: Ses02F_impro01_F000",
        "1 sound file missing: Ses02F_impro01_F000.wav",
        "1 film missing: Ses02M_impro02.avi",
    )
    assert next(u for u in source.utterances if u.id == "Ses02F_impro01_F000").text == ""


def test_files_of_another_file_system_are_passed_over_and_sounds_without_a_label_are_unused(tree: Path) -> None:
    before = iemocap.LAYOUT.read(tree)
    dialog, voices = tree / "Session1" / "dialog", tree / "Session1" / "sentences" / "wav" / "Ses01F_impro01"
    for inner in ("EmoEvaluation", "transcriptions"):
        (dialog / inner / "._Ses01F_impro01.txt").write_bytes(b"\x00\x05\x16\x07\n[\n")
    (voices / "._Ses01F_impro01_F000.wav").touch()
    assert iemocap.LAYOUT.read(tree) == before
    (dialog / "EmoEvaluation" / "Attribute").mkdir()
    (voices / "Ses01F_impro01_FXX0.wav").touch()
    source = iemocap.LAYOUT.read(tree)
    assert source.unused == (voices / "Ses01F_impro01_FXX0.wav",)
    assert source.deviations[-1] == "1 sound file without a label: Ses01F_impro01_FXX0.wav"


def test_a_sound_whose_label_is_left_out_is_not_called_unused(tree: Path) -> None:
    labels(tree, *(label(i, "xxx").replace("_F0", f"_{'FM'[i % 2]}0") for i in range(4)))
    assert iemocap.LAYOUT.read(tree).unused == ()


def test_words_in_latin1_and_lines_of_windows_are_read(tree: Path) -> None:
    words = tree / "Session1" / "dialog" / "transcriptions" / "Ses01F_impro01.txt"
    words.write_bytes("Ses01F_impro01_F000 [000.0000-001.0000]: a caf\xe9: yes\r\nM: hm\r\n".encode("latin-1"))
    path = labels(tree, label(0, "neu"))
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert iemocap.LAYOUT.read(tree).utterances[0].text == "a café: yes"


# ------------------------------------------------------------------------------------------------- at fault


@pytest.mark.parametrize(
    "line",
    [
        "[1.0 - 2.0] Ses01F_impro01_F000 neu [1, 1, 1]",
        "[x - 2.0]\tSes01F_impro01_F000\tneu\t[1, 1, 1]",
        "[1.0 - 2.0]\tSes01F_impro02_F000\tneu\t[1, 1, 1]",
        "[1.0 - 2.0]\tSes01F_impro01_X000\tneu\t[1, 1, 1]",
        "[1.0 - 2.0]\tSes01F_impro01/../F000\tneu\t[1, 1, 1]",
        "[1.0 - 2.0]\tSes01F_impro01_F000",
    ],
)
def test_a_line_that_cannot_be_understood_is_named(tree: Path, line: str) -> None:
    labels(tree, label(7, "neu"), line)
    with pytest.raises(
        UserError, match=r"Ses01F_impro01\.txt, line 4: expected '\[start - end\]', an utterance of Ses"
    ):
        iemocap.LAYOUT.read(tree)


def test_times_and_labels_that_contradict_are_named(tree: Path) -> None:
    labels(tree, label(0, "neu", "[2.5 - 2.5]"))
    with pytest.raises(UserError, match=r"line 3: Ses01F_impro01_F000 starts at 2\.5 s and ends at 2\.5 s"):
        iemocap.LAYOUT.read(tree)
    labels(tree, label(0, "neu"), label(0, "sad"))
    with pytest.raises(UserError, match="line 4: Ses01F_impro01_F000 has a label already"):
        iemocap.LAYOUT.read(tree)


def test_a_folder_that_is_none_and_a_wrong_setting_are_named(tmp_path: Path, tree: Path) -> None:
    with pytest.raises(UserError, match="holds no Session1/dialog/EmoEvaluation"):
        iemocap.LAYOUT.read(tree / "Session1")
    with pytest.raises(UserError, match=r"iemocap: classes: .*4 or 6"):
        iemocap.LAYOUT.read(tree, classes=5)


@given(st.integers(0, 10**7), st.integers(1, 10**6))
def test_times_come_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, start: int, length: int
) -> None:
    tree = tmp_path_factory.getbasetemp() / "times"
    (tree / "Session1" / "dialog" / "EmoEvaluation").mkdir(parents=True, exist_ok=True)
    written = [f"{n // 10**4}.{n % 10**4:04d}" for n in (start, start + length)]
    labels(tree, label(0, "neu", f"[{written[0]} - {written[1]}]"))
    (clip,) = clips(iemocap.LAYOUT.read(tree), "vision")
    assert (clip.start, clip.end) == (float(written[0]), float(written[1]))
