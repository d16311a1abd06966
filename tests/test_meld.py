"""The reader of MELD.Raw: on made trees, and on the real tables and clips where they are."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import trees
from hypothesis import given
from hypothesis import strategies as st

from dual_bench.datasets import meld
from dual_bench.datasets.source import Source, find_layout
from dual_bench.features.media import Clip
from dual_bench.types import Task, UserError

COLUMNS = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID"
TEST = "output_repeated_splits_test"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return trees.meld(tmp_path / "MELD", utterances=6, turns=3, film=trees.touched)


def rewrite(tree: Path, split: str, *lines: str, encoding: str = "utf-8") -> None:
    (tree / f"{split}_sent_emo.csv").write_text("\n".join([COLUMNS, *lines]) + "\n", encoding=encoding)


def clips(source: Source) -> list[Clip]:
    found = source.media["audio"]
    assert found == source.media["vision"]
    assert isinstance(found, list)
    return found


# ------------------------------------------------------------------------------------------ as published


def test_utterances_are_those_of_the_tables_with_ids_and_clusters_of_their_split(tree: Path) -> None:
    source = meld.LAYOUT.read(tree)
    assert source.name == "meld"
    assert source.folds is None
    assert "GPL-3.0" in source.licence
    assert Counter(u.split for u in source.utterances) == {"train": 6, "validation": 6, "test": 6}
    assert len({u.id for u in source.utterances}) == 18
    said = trees.said(6, 1, other=128)
    dev = [u for u in source.utterances if u.split == "validation"]
    assert [u.id for u in dev] == [f"dev_dia{i // 3}_utt{i % 3}" for i in range(6)]
    assert [u.cluster for u in dev] == [f"dev_dia{i // 3}" for i in range(6)]
    assert [u.text for u in dev] == [one.text for one in said]
    assert [u.speaker for u in dev] == ["Ann", "Bob", "Cleo"] * 2
    assert [source.task.classes[int(u.target)] for u in dev] == [trees.MELD_LABELS[one.label][0] for one in said]


def test_every_clip_is_the_file_of_its_dialogue_and_utterance(tree: Path) -> None:
    source = meld.LAYOUT.read(tree)
    for utterance, clip in zip(source.utterances, clips(source), strict=True):
        split, dialogue, number = utterance.id.split("_")
        assert clip == Clip(tree / trees.MELD_CLIPS[split] / f"{dialogue}_{number}.mp4")
        assert clip.path.is_file()


def test_classes_are_the_official_ones_in_the_official_order_whatever_occurs(tree: Path) -> None:
    emotions = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
    assert meld.LAYOUT.read(tree).task == Task("classification", emotions)
    source = meld.LAYOUT.read(tree, labels="sentiment")
    assert source.task == Task("classification", ("neutral", "positive", "negative"))
    assert [u.target for u in source.utterances[:4]] == [0, 1, 2, 2]


@pytest.mark.parametrize("inner", ["MELD.Raw", "."])
def test_tables_and_clips_are_found_where_the_archives_put_them(tree: Path, inner: str) -> None:
    plain = meld.LAYOUT.read(tree)
    home = tree.parent / "unpacked" / inner
    for split, name in trees.MELD_CLIPS.items():
        (home / split).mkdir(parents=True)
        (tree / name).rename(home / split / name)
    (tree / "train_sent_emo.csv").rename(home / "train" / "train_sent_emo.csv")
    for split in ("dev", "test"):
        (tree / f"{split}_sent_emo.csv").rename(home / f"{split}_sent_emo.csv")
    moved = tree.parent / "unpacked"
    assert find_layout(moved)[0].name == "meld"
    source = meld.LAYOUT.read(moved)
    assert source.utterances == plain.utterances
    assert all(clip.path.is_file() for clip in clips(source))


# --------------------------------------------------------------------------------- otherwise than published


def test_counts_that_differ_from_the_published_ones_are_told_per_split(tree: Path) -> None:
    assert meld.LAYOUT.read(tree).deviations == (
        "train: 6 utterances in 2 dialogues; published are 9,989 in 1,038",
        "dev: 6 utterances in 2 dialogues; published are 1,109 in 114",
        "test: 6 utterances in 2 dialogues; published are 2,610 in 280",
    )


def test_a_row_without_a_file_keeps_its_clip_and_is_told(tree: Path) -> None:
    before = meld.LAYOUT.read(tree)
    (tree / "train_splits" / "dia1_utt2.mp4").unlink()
    source = meld.LAYOUT.read(tree)
    assert (source.utterances, clips(source)) == (before.utterances, clips(before))
    assert "train: 1 clip missing from train_splits: dia1_utt2.mp4" in source.deviations


def test_a_long_list_of_missing_clips_is_cut(tree: Path) -> None:
    for file in (tree / TEST).glob("*.mp4"):
        file.unlink()
    told = meld.LAYOUT.read(tree).deviations[-1]
    assert told == (
        f"test: 6 clips missing from {TEST}: dia0_utt0.mp4, dia0_utt1.mp4, dia0_utt2.mp4, dia1_utt0.mp4, "
        "dia1_utt1.mp4 and 1 more"
    )


def test_a_clip_folder_that_is_not_there_or_still_packed_is_told(tree: Path) -> None:
    for file in (tree / "dev_splits_complete").glob("*"):
        file.unlink()
    (tree / "dev_splits_complete").rmdir()
    said = "dev: the clip folder dev_splits_complete is missing"
    nothing = ": no utterance has sound or pictures"
    assert said + nothing in meld.LAYOUT.read(tree).deviations
    (tree / "dev.tar.gz").touch()
    assert f"{said}; unpack dev.tar.gz{nothing}" in meld.LAYOUT.read(tree).deviations


def test_a_file_without_a_row_is_unused_and_told(tree: Path) -> None:
    stray = tree / "train_splits" / "dia7_utt7.mp4"
    stray.touch()
    (tree / "train_splits" / "._dia0_utt0.mp4").touch()
    source = meld.LAYOUT.read(tree)
    assert source.unused == (stray,)
    assert "train: 1 clip that no row names: dia7_utt7.mp4" in source.deviations


def test_what_is_known_of_the_archives_is_called_known(tree: Path) -> None:
    rewrite(tree, "train", "1,a line,Ann,neutral,neutral,125,3")
    rewrite(tree, "dev", "1,a line,Ann,neutral,neutral,110,7")
    for file in (*(tree / "train_splits").glob("*"), *(tree / "dev_splits_complete").glob("*")):
        file.unlink()
    (tree / "train_splits" / "dia125_utt3.mp4").touch()
    for name in ("dia49_utt4.mp4", "dia66_utt10.mp4"):
        (tree / "dev_splits_complete" / name).touch()
    (tree / TEST / "final_videos_testdia0_utt1.mp4").touch()
    (tree / TEST / "dia108_utt2.mp4").touch()
    source = meld.LAYOUT.read(tree)
    told = [sentence for sentence in source.deviations if "published are" not in sentence]
    assert told[:3] == [
        "known: dia125_utt3.mp4 of train, as published, cannot be decoded",
        "known: dia110_utt7.mp4 of dev is missing",
        "known: 2 clips of dev that no row names: dia49_utt4.mp4, dia66_utt10.mp4",
    ]
    assert told[3].startswith("known: 1 clip of test called final_videos_test… not read")
    assert told[3].endswith("meld:final=on reads them instead")
    assert told[4:] == ["known: 1 clip of test that no row names: dia108_utt2.mp4"]
    assert {path.name for path in source.unused} == {
        "dia49_utt4.mp4", "dia66_utt10.mp4", "final_videos_testdia0_utt1.mp4", "dia108_utt2.mp4"
    }  # fmt: skip
    (tree / "train_splits" / "dia125_utt3.mp4").unlink()
    assert "known: dia125_utt3.mp4 of train is missing" in meld.LAYOUT.read(tree).deviations


def test_final_clips_are_read_where_asked_for_and_only_where_there_are_some(tree: Path) -> None:
    for split in ("train_splits", TEST):
        (tree / split / "final_videos_testdia0_utt1.mp4").touch()
    asked = meld.LAYOUT.read(tree, final=True)
    names = {u.id: clip.path.name for u, clip in zip(asked.utterances, clips(asked), strict=True)}
    assert names["test_dia0_utt1"] == "final_videos_testdia0_utt1.mp4"
    assert names["test_dia0_utt0"] == "dia0_utt0.mp4"
    assert names["train_dia0_utt1"] == "dia0_utt1.mp4"
    assert [path.parent.name for path in asked.unused] == ["train_splits"]
    assert "train: 1 clip that no row names: final_videos_testdia0_utt1.mp4" in asked.deviations
    assert "test: 1 clip read from final_videos_test…, as asked for" in asked.deviations
    assert clips(meld.LAYOUT.read(tree))[13].path.name == "dia0_utt1.mp4"


# ----------------------------------------------------------------------------------------- quotes, encodings


def test_typographic_quotes_are_kept_unless_asked_otherwise(tree: Path) -> None:
    rewrite(tree, "train", '1,"‘I’m “here”…— é",Ann,neutral,neutral,0,0')
    assert meld.LAYOUT.read(tree).utterances[0].text == "‘I’m “here”…— é"
    assert meld.LAYOUT.read(tree, quotes="plain").utterances[0].text == "'I'm \"here\"…— é"


@pytest.mark.parametrize(("encoding", "text", "byte"), [("cp1252", "it’s", "92"), ("latin-1", "café", "e9")])
def test_a_table_in_another_encoding_is_refused_with_its_line_and_read_where_it_is_named(
    tree: Path, encoding: str, text: str, byte: str
) -> None:
    lines = ("1,plain,Ann,joy,positive,0,0", f"2,{text},Bob,joy,positive,0,1")
    rewrite(tree, "dev", *lines, encoding=encoding)
    with pytest.raises(UserError) as caught:
        meld.LAYOUT.read(tree)
    assert f"dev_sent_emo.csv is not a UTF-8 CSV: line 3 holds the byte 0x{byte}" in str(caught.value)
    assert f"meld:encoding={encoding}" in str(caught.value)
    source = meld.LAYOUT.read(tree, encoding=encoding)
    assert [u.text for u in source.utterances if u.split == "validation"] == ["plain", text]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tree: Path) -> None:
    path = tree / "test_sent_emo.csv"
    path.write_text(COLUMNS.removeprefix("Sr No.,") + "\na line,Ann,fear,negative,0,0\n", encoding="utf-8-sig")
    assert meld.LAYOUT.read(tree).utterances[-1].text == "a line"


def test_rows_that_a_stray_quote_swallows_are_told_with_their_line(tree: Path) -> None:
    rewrite(tree, "dev", "1,a,Ann,joy,positive,0,0", '2,"b,Bob,joy,positive,0,1', '3,c",Ann,joy,positive,0,2')
    told = meld.LAYOUT.read(tree).deviations
    assert told[1] == "dev: 1 cell with a line break: line 3 (Utterance); is a quote missing?"
    rewrite(tree, "dev", '2,"b,Bob,joy,positive,0,1', '3,c",Ann,joy,positive,0,2', "4,d,Ann,jy,positive,0,3")
    with pytest.raises(UserError, match="line 4: Emotion 'jy'; did you mean 'joy'"):
        meld.LAYOUT.read(tree)


# -------------------------------------------------------------------------------------------------- at fault


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,a,Ann,neutrl,neutral,0,0", "line 2: Emotion 'neutrl'; did you mean 'neutral'"),
        ("1,a,Ann,,neutral,0,0", "line 2: Emotion ''"),
        ("1,a,Ann,joy,positive,x,0", "line 2: expected whole numbers as Dialogue_ID and Utterance_ID, found 'x'"),
        ("1,a,Ann,joy,positive,0,../../etc", "line 2: expected whole numbers"),
        ("1,a,Ann,joy,positive,0,0\n2,b,Bob,joy,positive,0,0", "line 3: dialogue 0 has an utterance 0 already"),
        ("1,a,Ann,joy,positive,0,0\n2,b,Bob,joy,positive,00,0", "line 3: dialogue 00 has an utterance 0 already"),
        ("1,a, b,Ann,joy,positive,0,0", "line 2: the row has 8 fields, but the header 7"),
    ],
)
def test_a_row_at_fault_is_named(tree: Path, line: str, message: str) -> None:
    rewrite(tree, "train", line)
    with pytest.raises(UserError, match=r"train_sent_emo\.csv") as caught:
        meld.LAYOUT.read(tree)
    assert message in str(caught.value)


def test_a_table_or_column_that_is_missing_is_named(tree: Path) -> None:
    (tree / "dev_sent_emo.csv").write_text("Utterance,Speakr,Emotion,Dialogue_ID,Utterance_ID\n")
    with pytest.raises(UserError, match=r"dev_sent_emo\.csv: column 'Speaker' is missing; did you mean 'Speakr'"):
        meld.LAYOUT.read(tree)
    (tree / "dev_sent_emo.csv").unlink()
    with pytest.raises(UserError, match=r"dev_sent_emo\.csv is missing; expected it there, in MELD\.Raw or in dev"):
        meld.LAYOUT.read(tree)


def test_a_wrong_setting_is_named(tree: Path) -> None:
    for settings, message in (
        ({"quote": "plain"}, "meld: unknown setting 'quote'; did you mean 'quotes'"),
        ({"labels": "valence"}, "meld: labels: .*'emotion' or 'sentiment'"),
        ({"encoding": "klingon"}, "'klingon' is no encoding"),
        ({"encoding": "hex"}, "'hex' is no encoding"),
    ):
        with pytest.raises(UserError, match=message):
            meld.LAYOUT.read(tree, **settings)


@given(st.sets(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1, max_size=20))
def test_ids_are_unique_and_tell_split_dialogue_and_utterance(
    tmp_path_factory: pytest.TempPathFactory, numbers: set[tuple[int, int]]
) -> None:
    tree = tmp_path_factory.mktemp("ids")
    for split in trees.MELD_CLIPS:
        rewrite(tree, split, *(f"1,a,Ann,joy,positive,{d},{u}" for d, u in numbers))
    source = meld.LAYOUT.read(tree)
    expected = {f"{split}_dia{d}_utt{u}" for split in trees.MELD_CLIPS for d, u in numbers}
    assert {u.id for u in source.utterances} == expected
    assert all(u.id.startswith(f"{u.cluster}_utt") for u in source.utterances)


# ---------------------------------------------------------------------------------------------------- export


def test_an_export_brings_its_own_name_licence_notes_and_classes(tree: Path) -> None:
    told = {"corpus": "synthetic", "licence": "CC0", "notes": ["Generated."], "classes": ["calm", "glad"]}
    (tree / meld.EXPORT).write_text(json.dumps(told))
    rewrite(tree, "train", "1,a,Ann,glad,positive,125,3")
    rewrite(tree, "dev", "1,a,Ann,calm,positive,110,7")
    rewrite(tree, "test", "1,a,Ann,calm,positive,0,0")
    for name in trees.MELD_CLIPS.values():
        for file in (tree / name).glob("*.mp4"):
            file.unlink()
    (tree / "train_splits" / "dia125_utt3.mp4").touch()
    (tree / TEST / "dia0_utt0.mp4").touch()
    source = meld.LAYOUT.read(tree)
    assert (source.name, source.licence, source.notes) == ("synthetic", "CC0", ("Generated.",))
    assert source.task.classes == ("calm", "glad")
    assert [u.target for u in source.utterances] == [1, 0, 0]
    assert meld.LAYOUT.read(tree, labels="sentiment").task.classes == ("neutral", "positive", "negative")
    assert source.deviations == ("dev: 1 clip missing from dev_splits_complete: dia110_utt7.mp4",)


@pytest.mark.parametrize(
    ("content", "message"), [("{", "is not JSON"), ('{"corpus": "x"}', "the setting 'licence' is missing"), ("3", "")]
)
def test_an_export_that_is_not_as_written_is_named(tree: Path, content: str, message: str) -> None:
    (tree / meld.EXPORT).write_text(content)
    with pytest.raises(UserError, match=rf"dual-bench-export\.json.*{message}"):
        meld.LAYOUT.read(tree)


# ------------------------------------------------------------------------------------------------- real data


@pytest.fixture
def real(shared_data: Path, tmp_path: Path) -> Path:
    """The real tables, and the eleven test clips there are, under their names."""
    for table in (shared_data / "meld_text").glob("*.csv"):
        (tmp_path / table.name).symlink_to(table)
    (tmp_path / TEST).mkdir()
    for clip in (shared_data / "meld_clips").glob("*.mp4"):
        (tmp_path / TEST / clip.name).symlink_to(clip)
    return tmp_path


def test_the_real_tables_have_the_published_counts(real: Path) -> None:
    source = meld.LAYOUT.read(real)
    assert Counter(u.split for u in source.utterances) == {"train": 9989, "validation": 1109, "test": 2610}
    assert not [sentence for sentence in source.deviations if "published are" in sentence]
    emotions = Counter(source.task.classes[int(u.target)] for u in source.utterances if u.split == "test")
    assert emotions == {"anger": 345, "disgust": 68, "fear": 50, "joy": 402, "neutral": 1256, "sadness": 208,
                        "surprise": 281}  # fmt: skip
    plain = meld.LAYOUT.read(real, quotes="plain")
    assert sum("’" in u.text for u in source.utterances) > 3000
    assert not any(set(u.text) & set("‘’“”") for u in plain.utterances)


def test_real_clips_are_those_of_their_lines(real: Path, shared_data: Path) -> None:
    rows = (shared_data / "meld_clips" / "labels.csv").read_text(encoding="utf-8").splitlines()
    source = meld.LAYOUT.read(real)
    there = {c.path.name: u for u, c in zip(source.utterances, clips(source), strict=True) if c.path.is_file()}
    assert len(there) == len(rows) - 1 == 11
    for row in rows[1:]:
        name, split, dialogue, number, speaker, emotion = row.split(",")[:6]
        found = there[name]
        assert (found.id, found.speaker) == (f"{split}_dia{dialogue}_utt{number}", speaker)
        assert source.task.classes[int(found.target)] == emotion
    assert f"test: 2,599 clips missing from {TEST}" in source.deviations[-1]
