"""A corpus of the user's own: a CSV beside media files."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import trees
from hypothesis import given
from hypothesis import strategies as st

from dual_bench.catalog import LAYOUTS
from dual_bench.datasets import folder
from dual_bench.datasets.source import find_layout
from dual_bench.features.media import Clip
from dual_bench.types import Task, UserError

Row = dict[str, str]
Change = Callable[[list[Row]], object]


def rows() -> list[Row]:
    return [
        {"id": f"u{i}", "split": split, "cluster": f"c{i}", "speaker": f"s{i}", "text": f"line {i}",
         "label": ("sad", "glad")[i % 2], "file": f"media/{i}.mp4"}
        for i, split in enumerate(("train", "train", "validation", "validation", "test", "test"))
    ]  # fmt: skip


def write(path: Path, made: list[Row], encoding: str = "utf-8") -> Path:
    (path / "media").mkdir(exist_ok=True)
    for i in range(6):
        (path / "media" / f"{i}.mp4").touch()
    return trees.table(path / "own.csv", made, encoding)


def refused(path: Path, change: Change) -> str:
    made = rows()
    change(made)
    with pytest.raises(UserError) as caught:
        folder.LAYOUT.read(write(path, made))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def set_in(line: int, **cells: str) -> Change:
    return lambda made: [row.update(cells if i == line else dict.fromkeys(cells.keys() - row.keys(), ""))
                         for i, row in enumerate(made)]  # fmt: skip


# --------------------------------------------------------------------------------------------- well formed


def test_rows_and_clips_are_read_as_written(tmp_path: Path) -> None:
    source = folder.LAYOUT.read(write(tmp_path, rows()), licence="mine")
    assert (source.name, source.licence, source.folds, source.deviations) == ("own", "mine", None, ())
    assert source.task == Task("classification", ("glad", "sad"))
    assert [(u.id, u.split, u.cluster, u.speaker, u.text) for u in source.utterances] == [
        (row["id"], row["split"], row["cluster"], row["speaker"], row["text"]) for row in rows()
    ]
    assert [u.target for u in source.utterances] == [1, 0] * 3
    expected = [Clip(tmp_path / "media" / f"{i}.mp4") for i in range(6)]
    assert source.media == {"audio": expected, "vision": expected}


def test_a_folder_with_one_such_csv_is_as_good_as_the_csv(tmp_path: Path) -> None:
    path = write(tmp_path, rows())
    (tmp_path / "other.csv").write_text("id,text\n1,2\n")
    assert folder.LAYOUT.read(tmp_path) == folder.LAYOUT.read(path)
    (tmp_path / "copy.csv").write_bytes(path.read_bytes())
    with pytest.raises(UserError, match=r"holds 2 CSVs .*\(copy\.csv, own\.csv\); name one of them"):
        folder.LAYOUT.read(tmp_path)


def test_audio_and_video_may_be_files_of_their_own_or_absent(tmp_path: Path) -> None:
    made = rows()
    for i, row in enumerate(made):
        del row["file"]
        row["audio"] = f"media/{i}.wav" if i else ""
        row["video"] = f"media/{i}.mp4"
    source = folder.LAYOUT.read(write(tmp_path, made))
    assert source.media["audio"] == [None, *(Clip(tmp_path / "media" / f"{i}.wav") for i in range(1, 6))]
    assert source.media["vision"] == [Clip(tmp_path / "media" / f"{i}.mp4") for i in range(6)]
    for row in made:
        del row["audio"]
    assert set(folder.LAYOUT.read(write(tmp_path, made)).media) == {"vision"}


def test_start_end_and_half_cut_the_clip(tmp_path: Path) -> None:
    made = [row | {"start": "", "end": "", "half": ""} for row in rows()]
    made[1] |= {"start": "1.5", "end": "2.25", "half": "left"}
    made[2] |= {"start": "3"}
    made[3] |= {"end": "1e1", "half": "whole"}
    clips = folder.LAYOUT.read(write(tmp_path, made)).media["audio"]
    files = [tmp_path / "media" / f"{i}.mp4" for i in range(4)]
    assert clips[:4] == [
        Clip(files[0]),
        Clip(files[1], 1.5, 2.25, "left"),
        Clip(files[2], 3.0),
        Clip(files[3], 0.0, 10.0),
    ]


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_times_come_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, start: float, length: float
) -> None:
    path = tmp_path_factory.mktemp("times")
    end = start + length
    made = [row | {"start": repr(start), "end": repr(end)} for row in rows()]
    if start < end:
        clip = folder.LAYOUT.read(write(path, made)).media["audio"][0]
        assert (clip.start, clip.end) == (start, end)
    else:
        with pytest.raises(UserError, match="line 2: the clip starts at"):
            folder.LAYOUT.read(write(path, made))


def test_folds_values_and_transcripts_are_those_of_a_manifest(tmp_path: Path) -> None:
    made = []
    for i, row in enumerate(rows()):
        del row["split"], row["label"]
        made.append(row | {"fold": "ab"[i % 2], "value": str(i - 3), "text_asr": f"heard {i}"})
    source = folder.LAYOUT.read(write(tmp_path, made), low=-3, high=3)
    assert source.folds == ("a", "b") * 3
    assert source.task == Task("regression", low=-3.0, high=3.0)
    assert [u.target for u in source.utterances] == [-3, -2, -1, 0, 1, 2]
    assert source.utterances[2].transcripts == {"asr": "heard 2"}
    with pytest.raises(UserError, match=r"name it with folder:low=…,high=…"):
        folder.LAYOUT.read(tmp_path)


@pytest.mark.parametrize("bound", ["low", "high"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_bound_that_is_not_finite_is_refused(tmp_path: Path, bound: str, value: str) -> None:
    made = [row | {"value": "1"} for row in rows()]
    for row in made:
        del row["label"]
    with pytest.raises(UserError, match=f"folder: {bound}: .*finite number"):
        folder.LAYOUT.read(write(tmp_path, made), **{bound: float(value)})


def test_a_missing_file_is_told_and_its_utterance_stays(tmp_path: Path) -> None:
    path = write(tmp_path, rows())
    (tmp_path / "media" / "4.mp4").unlink()
    source = folder.LAYOUT.read(path)
    assert source.deviations == ("1 media file missing: media/4.mp4",)
    assert source.media["audio"][4] == Clip(tmp_path / "media" / "4.mp4")


def test_media_that_no_row_names_are_unused(tmp_path: Path) -> None:
    path = write(tmp_path, rows())
    (tmp_path / "more").mkdir()
    for name in ("more/x.WAV", "more/notes.txt", "more/._x.wav", "y.mkv"):
        (tmp_path / name).touch()
    source = folder.LAYOUT.read(path)
    assert source.unused == (tmp_path / "more" / "x.WAV", tmp_path / "y.mkv")
    assert source.deviations == ("2 media files that no row names: more/x.WAV, y.mkv",)


def test_rows_that_a_stray_quote_swallows_are_told_with_their_line(tmp_path: Path) -> None:
    path = write(tmp_path, rows())
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[2] = lines[2].replace("line 1", '"line 1')
    lines[3] = lines[3].replace("line 2", 'line 2"')
    path.write_text("\n".join(lines), encoding="utf-8")
    source = folder.LAYOUT.read(path, classes="glad|sad")
    assert [u.id for u in source.utterances] == ["u0", "u1", "u3", "u4", "u5"]
    assert source.deviations[0] == "1 cell with a line break: line 3 (text); is a quote missing?"
    path.write_text("\n".join(lines).replace("u4,test", "u4,tset"), encoding="utf-8")
    with pytest.raises(UserError, match="line 6: split 'tset'"):
        folder.LAYOUT.read(path)


def test_the_sound_of_a_corpus_extracted_into_the_folder_is_not_unused(tmp_path: Path) -> None:
    path = write(tmp_path, rows())
    made = tmp_path / "more" / "own-features"
    (made / "sound").mkdir(parents=True)
    for name in ("corpus.json", "sound/0.wav", "z.wav"):
        (made / name).touch()
    assert folder.LAYOUT.read(path).unused == (made / "sound" / "0.wav", made / "z.wav")
    (made / "utterances.parquet").touch()
    assert folder.LAYOUT.read(path).unused == (made / "z.wav",)


def test_rows_that_name_the_same_stretch_are_told_with_their_lines(tmp_path: Path) -> None:
    made = [row | {"start": "", "end": ""} for row in rows()]
    made[2]["file"] = "./media/0.mp4"
    made[3] |= {"file": "media/0.mp4", "start": "1", "end": "2"}
    made[4] |= {"file": "media/0.mp4", "start": "1.0", "end": "2"}
    made[5] |= {"file": "media/0.mp4", "start": "2", "end": "3"}
    told = "2 stretches of files that several rows name: 0.mp4 (lines 2, 4), 0.mp4 (lines 5, 6)"
    assert folder.LAYOUT.read(write(tmp_path, made)).deviations[0] == told
    for row in made:
        row["audio"] = row["video"] = row.pop("file")
    assert folder.LAYOUT.read(write(tmp_path, made)).deviations[0] == told


# ------------------------------------------------------------------------------------------------ at fault


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_in(1, file="../outside.mp4"), "line 3: ../outside.mp4 leaves the manifest's folder"),
        (set_in(1, file="media/../media/1.mp4"), "line 3: media/../media/1.mp4 leaves the manifest's folder"),
        (set_in(1, file="/etc/hostname"), "line 3: /etc/hostname leaves the manifest's folder"),
        (set_in(1, file="media/link.mp4"), "line 3: media/link.mp4 is outside the manifest's folder"),
        (set_in(1, file="elsewhere/outside.mp4"), "line 3: elsewhere/outside.mp4 is outside the manifest's folder"),
        (set_in(1, file="x" * 300), "line 3: 'xxx"),
        (set_in(1, start="soon"), "line 3: expected seconds in 'start', found 'soon'"),
        (set_in(1, start="-1"), "line 3: expected seconds in 'start', found '-1'"),
        (set_in(1, end="inf"), "line 3: expected seconds in 'end', found 'inf'"),
        (set_in(1, start="nan"), "line 3: expected seconds in 'start', found 'nan'"),
        (set_in(1, start="2", end="2"), "line 3: the clip starts at 2 s and ends at 2 s"),
        (set_in(1, half="lft"), "line 3: half 'lft'; did you mean 'left'"),
        (set_in(1, audio="media/1.mp4"), "expected either a column 'file' or columns 'audio' and 'video'"),
        (lambda made: [row.pop("file") for row in made], "expected either a column 'file' or columns 'audio'"),
        (lambda made: [row.update(file="") for row in made], "the column 'file' names no file"),
        (lambda made: [row.pop("speaker") for row in made], "column 'speaker' is missing"),
        (set_in(3, id="u1"), "line 5: utterance id 'u1' stands twice, first in line 3"),
        (set_in(1, split="trian"), "line 3: split 'trian'; did you mean 'train'"),
    ],
)  # fmt: skip
def test_a_wrong_cell_or_column_is_named(tmp_path: Path, change: Change, message: str) -> None:
    home = tmp_path / "own"
    (home / "media").mkdir(parents=True)
    (tmp_path / "outside.mp4").touch()
    (home / "media" / "link.mp4").symlink_to(tmp_path / "outside.mp4")
    (home / "elsewhere").symlink_to(tmp_path)
    assert message in refused(home, change)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("Start", "start"), (" start", "start"), ("start_time", "start"), ("strat", "start"), ("clip start (s)", "start"),
     ("END", "end"), ("end_time", "end"), ("EndTime", "end"), ("Half", "half"), ("hlaf", "half")],
)  # fmt: skip
def test_a_mistyped_column_is_refused_and_not_left_unread(tmp_path: Path, name: str, meant: str) -> None:
    assert f"unknown column '{name}'; did you mean '{meant}'" in refused(tmp_path, set_in(1, **{name: "1"}))
    written = write(tmp_path, [row | {meant: "", name: "1"} for row in rows()])
    assert folder.LAYOUT.read(written).utterances[1].id == "u1"  # where the column is there, the other is one's own


@pytest.mark.parametrize(("name", "meant"), [("Video", "video"), ("vidoe", "video"), ("video_file", "video")])
def test_a_mistyped_column_of_media_is_refused(tmp_path: Path, name: str, meant: str) -> None:
    made = [{"audio": f"media/{i}.mp4", name: f"media/{i}.mp4"} | row for i, row in enumerate(rows())]
    for row in made:
        del row["file"]
    with pytest.raises(UserError, match=f"unknown column '{name}'; did you mean '{meant}'"):
        folder.LAYOUT.read(write(tmp_path, made))
    with pytest.raises(UserError, match="unknown column 'File'; did you mean 'file'"):
        folder.LAYOUT.read(write(tmp_path, [row | {"File": row.pop("file")} for row in rows()]))


@pytest.mark.parametrize("name", ["gender", "age", "video_id", "comment", "season", "speaker_id", "text_end", "value2"])
def test_columns_of_ones_own_change_nothing(tmp_path: Path, name: str) -> None:
    plain = folder.LAYOUT.read(write(tmp_path, rows()))
    source = folder.LAYOUT.read(write(tmp_path, [row | {name: "1"} for row in rows()]))
    assert (source.media, source.task) == (plain.media, plain.task)
    assert [u.id for u in source.utterances] == [u.id for u in plain.utterances]


def test_a_link_that_stays_inside_is_followed(tmp_path: Path) -> None:
    made = rows()
    made[1]["file"] = "media/link.mp4"
    path = write(tmp_path, made)
    (tmp_path / "media" / "link.mp4").symlink_to(tmp_path / "media" / "1.mp4")
    assert folder.LAYOUT.read(path).media["audio"][1] == Clip(tmp_path / "media" / "link.mp4")


def test_a_csv_in_latin1_is_named_with_its_line_and_read_where_that_is_said(tmp_path: Path) -> None:
    made = rows()
    made[3]["text"] = "café"
    path = write(tmp_path, made, "latin-1")
    with pytest.raises(UserError, match=r"own\.csv is not a UTF-8 CSV: line 5 holds the byte 0xe9; .*folder:encoding"):
        folder.LAYOUT.read(path)
    assert folder.LAYOUT.read(path, encoding="latin-1").utterances[3].text == "café"


# ------------------------------------------------------------------------------------- which layout it is


def test_each_layout_recognises_its_own_tree_and_no_other(tmp_path: Path) -> None:
    made = {
        "meld": trees.meld(tmp_path / "meld", 4, film=trees.touched),
        "iemocap": trees.iemocap(tmp_path / "iemocap", 2, film=trees.touched),
        "mmsa": trees.mmsa(tmp_path / "unaligned_50.pkl", 4),
        "folder": trees.folder(tmp_path / "folder", 4, film=trees.touched),
    }
    assert list(made) == list(LAYOUTS.entries)
    for name, path in made.items():
        layout, settings = find_layout(path)
        assert (layout.name, settings) == (name, {})
        assert [n for n in made if LAYOUTS.load(n).recognises(path)] == [name]
    assert find_layout(made["folder"] / "own.csv")[0].name == "folder"


def test_a_layout_may_be_named_with_its_settings(tmp_path: Path) -> None:
    layout, settings = find_layout(tmp_path, "meld:quotes=plain,final=on")
    assert (layout.name, settings) == ("meld", {"quotes": "plain", "final": True})
    with pytest.raises(UserError, match="unknown layout 'meldd'; did you mean 'meld'"):
        find_layout(tmp_path, "meldd")


def test_a_path_that_no_layout_recognises_is_told_what_each_looks_for(tmp_path: Path) -> None:
    (tmp_path / "notes.csv").write_text("id,text\n")
    for path in (tmp_path, tmp_path / "notes.csv"):
        with pytest.raises(UserError) as caught:
            find_layout(path)
        for name, entry in LAYOUTS.entries.items():
            assert f"{name}: {entry.summary}" in str(caught.value)
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'gone'} is missing")):
        find_layout(tmp_path / "gone")


@pytest.mark.parametrize("content", [b"", b"\n", b"\x00\x01", b"id;file\n", b"\xff\xfe"])
def test_a_csv_that_is_none_is_not_recognised(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "own.csv").write_bytes(content)
    assert not folder.LAYOUT.recognises(tmp_path)
    assert not folder.LAYOUT.recognises(tmp_path / "own.csv")
