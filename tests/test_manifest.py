"""A manifest, well formed and at fault."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dual_bench.datasets import manifest
from dual_bench.types import Corpus, Task, UserError

SPLIT = ["train", "train", "validation", "validation", "test", "test"]
LENGTHS = np.array([3, 1, 2, 0, 3, 2])
VALUES = np.arange(36, dtype=np.float32).reshape(6, 3, 2)
SEQUENCES = [row[:n] for row, n in zip(VALUES, LENGTHS, strict=True)]
OFFSETS = np.concatenate([[0], np.cumsum(LENGTHS)])
TEXTS = ["plain", 'a "quoted", comma', "two\nlines", "", "emoji 👍🏽 我", "NA"]

Row = dict[str, str]
Change = Callable[[list[Row]], object]


def rows() -> list[Row]:
    """Six utterances of two classes in six clusters, with audio features."""
    return [
        {"id": f"u{i}", "split": split, "cluster": f"c{i}", "speaker": f"s{i}", "text": TEXTS[i],
         "label": ("sad", "happy")[i % 2], "audio_file": "audio.npz", "audio_row": str(i)}
        for i, split in enumerate(SPLIT)
    ]  # fmt: skip


def with_folds(made: list[Row]) -> None:
    for i, row in enumerate(made):
        del row["split"]
        row["fold"] = "abc"[i % 3]


def with_values(made: list[Row]) -> None:
    for row, value in zip(made, ["-3", "3", "0.5", "-1e0", "2", " 1"], strict=True):
        del row["label"]
        row["value"] = value


def write(folder: Path, made: list[Row], **arrays: NDArray[np.generic]) -> Path:
    np.savez(folder / "audio.npz", **(arrays or {"values": VALUES, "lengths": LENGTHS}))
    path = folder / "own.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(made[0]))
        writer.writeheader()
        writer.writerows(made)
    return path


def read(path: Path, **settings: object) -> Corpus:
    return manifest.load(Path("nowhere"), path=str(path), **settings)


def refused(folder: Path, change: Change, **settings: object) -> str:
    """The one line that a manifest, so changed, is refused with."""
    made = rows()
    change(made)
    with pytest.raises(UserError) as caught:
        read(write(folder, made), **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def set_in(line: int, **cells: str) -> Change:
    return lambda made: made[line].update(cells)


def renamed(old: str, new: str) -> Change:
    def change(made: list[Row]) -> None:
        for row in made:
            row[new] = row.pop(old)

    return change


# ----------------------------------------------------------------------------------- manifest, well formed


def test_a_manifest_is_read_as_written(tmp_path: Path) -> None:
    corpus = read(write(tmp_path, rows()), licence="mine")
    assert (corpus.name, corpus.licence, len(corpus)) == ("own", "mine", 6)
    assert corpus.task == Task("classification", ("happy", "sad"))
    assert [u.target for u in corpus.utterances] == [1, 0, 1, 0, 1, 0]
    assert [u.text for u in corpus.utterances] == TEXTS
    assert [(u.id, u.split, u.cluster, u.speaker) for u in corpus.utterances] == [
        (f"u{i}", split, f"c{i}", f"s{i}") for i, split in enumerate(SPLIT)
    ]
    (fold,) = corpus.folds
    assert [part.tolist() for part in (fold.train, fold.validation, fold.test)] == [[0, 1], [2, 3], [4, 5]]
    assert set(corpus.signals) == {"audio"}


@pytest.mark.parametrize(
    ("name", "arrays", "expected"),
    [
        ("f.npy", VALUES[:, 0], [row[None, 0] for row in VALUES]),
        ("f.npy", VALUES, list(VALUES)),
        ("f.npy", VALUES.astype(np.float64), list(VALUES)),
        ("f.npz", {"values": VALUES[:, 0]}, [row[None, 0] for row in VALUES]),
        ("f.npz", {"values": VALUES, "lengths": LENGTHS}, SEQUENCES),
        ("f.npz", {"values": np.concatenate(SEQUENCES), "offsets": OFFSETS}, SEQUENCES),
    ],
)
def test_features_come_in_every_documented_layout(
    tmp_path: Path, name: str, arrays: NDArray[np.generic] | Mapping[str, NDArray[np.generic]], expected: list[Any]
) -> None:
    if isinstance(arrays, np.ndarray):
        np.save(tmp_path / name, arrays)
    else:
        np.savez(tmp_path / name, **arrays)
    made = [row | {"audio_file": name, "audio_row": str(5 - i)} for i, row in enumerate(rows())]
    signal = read(write(tmp_path, made)).signals["audio"]
    assert signal.kind == "features"
    for item, one in zip(signal.items, expected[::-1], strict=True):
        assert item.dtype == np.float32
        np.testing.assert_array_equal(item, one)


def test_an_empty_feature_cell_is_an_absent_modality(tmp_path: Path) -> None:
    made = rows()
    made[2].update(audio_file="", audio_row="")
    items = read(write(tmp_path, made)).signals["audio"].items
    assert items[2].shape == (0, 2)
    np.testing.assert_array_equal(items[4], SEQUENCES[4])


def test_a_manifest_without_feature_columns_is_a_corpus_of_text(tmp_path: Path) -> None:
    made = [{k: v for k, v in row.items() if not k.startswith("audio")} for row in rows()]
    assert read(write(tmp_path, made)).signals == {}


def test_values_make_a_regression_in_the_range_of_the_training_split_or_the_stated_one(tmp_path: Path) -> None:
    made = rows()
    with_values(made)
    corpus = read(write(tmp_path, made))
    assert corpus.task == Task("regression", low=-3.0, high=3.0)
    assert [u.target for u in corpus.utterances] == [-3, 3, 0.5, -1, 2, 1]
    assert read(tmp_path / "own.csv", low=-4, high=5).task == Task("regression", low=-4.0, high=5.0)


def test_classes_may_be_named_in_an_order_of_ones_own(tmp_path: Path) -> None:
    corpus = read(write(tmp_path, rows()), classes="sad|calm|happy")
    assert corpus.task.classes == ("sad", "calm", "happy")
    assert [u.target for u in corpus.utterances] == [0, 2, 0, 2, 0, 2]


def test_folds_make_a_cross_validation(tmp_path: Path) -> None:
    made = rows()
    with_folds(made)
    corpus = read(write(tmp_path, made))
    assert [fold.name for fold in corpus.folds] == ["a", "b", "c"]
    assert [fold.test.tolist() for fold in corpus.folds] == [[0, 3], [1, 4], [2, 5]]


def test_text_columns_are_transcripts(tmp_path: Path) -> None:
    made = [row | {"text_b": f"b {i}", "text_a": ""} for i, row in enumerate(rows())]
    corpus = read(write(tmp_path, made))
    assert corpus.transcripts == ("a", "b")
    assert [u.transcripts for u in corpus.utterances] == [{"a": "", "b": f"b {i}"} for i in range(6)]


# --------------------------------------------------------------------------------------- manifest, at fault


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed("cluster", "clustr"), "column 'cluster' is missing; did you mean 'clustr'"),
        (renamed("audio_row", "audiorow"), "column 'audio_row' is missing; did you mean 'audiorow'"),
        (renamed("audio_file", "Audio_file"), "unknown column 'Audio_file'; did you mean 'audio_file'"),
        (renamed("label", "emotion"), "expected either a column 'label' or a column 'value'"),
        (renamed("split", "part"), "expected either a column 'split' or a column 'fold'"),
        (set_in(5, label="hapy"), "line 8: label 'hapy' is outside the task; did you mean 'happy'"),
        (set_in(2, split="valdation"), "line 4: split 'valdation'; did you mean 'validation'"),
        (set_in(3, id="u1"), "utterance id 'u1' stands twice"),
        (set_in(1, audio_file="gone.npy"), r"line 3: feature file .*gone\.npy is missing"),
        (set_in(1, audio_row="6"), r"line 3: audio_row '6' is not in audio\.npz, which has rows 0\.\.5"),
        (set_in(1, audio_row="-1"), "line 3: audio_row '-1' is not in"),
        (set_in(1, audio_row="1.0"), r"line 3: audio_row '1\.0' is not in"),
        (set_in(1, audio_file="../outside.npy"), r"line 3: \.\./outside\.npy is outside the manifest's folder"),
        (set_in(1, audio_file="/etc/hostname"), "line 3: /etc/hostname is outside the manifest's folder"),
        (set_in(1, audio_file="own.csv"), r"line 3: .*own\.csv is not a feature file"),
        (set_in(1, audio_file="x" * 300), "line 3: .*xxx"),
        (lambda made: [row.update(audio_file="") for row in made], "names no audio features"),
        *((lambda made, s=s: [row.update(split="train") for row in made if row["split"] == s],
           f"the {s} split is empty") for s in ("validation", "test")),
        (lambda made: [row.update(split="test") for row in made[:2]], "outside the task|train split is empty"),
    ],
)  # fmt: skip
def test_a_wrong_cell_or_column_is_named(tmp_path: Path, change: Change, message: str) -> None:
    np.save(tmp_path.parent / "outside.npy", VALUES)
    assert re.search(message, refused(tmp_path, change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_in(1, value="high"), "line 3: expected a number, found 'high'"),
        (set_in(1, value=""), "line 3: expected a number, found ''"),
        (set_in(1, value="inf"), "line 3: expected a number, found 'inf'"),
        (set_in(4, value="3.5"), r"line 7: value 3\.5 is outside the task's \[-3, 3\]; .* manifest:low="),
        (lambda made: [row.update(split="test") for row in made[:2]], "train split is empty"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, change: Change, message: str) -> None:
    assert re.search(message, refused(tmp_path, lambda made: (with_values(made), change(made))))


def test_a_cluster_in_two_folds_is_named(tmp_path: Path) -> None:
    said = refused(tmp_path, lambda m: (with_folds(m), m[1].update(cluster="c0")))
    assert "cluster 'c0' lies in folds" in said


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"values": np.where(VALUES == 14, np.nan, VALUES)}, "audio of utterance 'u2' holds NaN or infinity"),
        ({"values": np.where(VALUES == 14, np.inf, VALUES)}, "audio of utterance 'u2' holds NaN or infinity"),
        ({"features": VALUES}, "not a feature file"),
        ({"values": VALUES[0, 0]}, r"values have shape \(2,\)"),
        ({"values": np.array([{}] * 6, object)}, "Object arrays cannot be loaded"),
        ({"values": VALUES, "lengths": LENGTHS[1:]}, "not a feature file"),
        ({"values": VALUES, "lengths": LENGTHS - 1}, "not a feature file"),
        ({"values": VALUES, "lengths": LENGTHS + 1}, "not a feature file"),
        ({"values": VALUES[:, 0], "offsets": np.array([0, 3, 2, 6])}, "offsets do not divide"),
        ({"values": VALUES[:, 0], "offsets": np.array([0, 3, 7])}, "offsets do not divide"),
    ],
)
def test_features_that_cannot_be_used_are_named(
    tmp_path: Path, arrays: dict[str, NDArray[np.generic]], message: str
) -> None:
    path = write(tmp_path, rows(), **arrays)
    with pytest.raises(UserError, match=message):
        read(path)


@pytest.mark.parametrize("name", ["audio.npy", "audio.npz"])
@pytest.mark.parametrize("keep", [0, 4, 100])
def test_a_feature_file_that_was_cut_short_is_named(tmp_path: Path, name: str, keep: int) -> None:
    path = write(tmp_path, [row | {"audio_file": name} for row in rows()])
    np.save(tmp_path / "audio.npy", VALUES)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:keep])
    with pytest.raises(UserError, match=rf"{name} is not a feature file"):
        read(path)


def test_an_array_of_python_objects_is_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "audio.npy", np.array([{}] * 6, object), allow_pickle=True)
    with pytest.raises(UserError, match=r"audio\.npy is not a feature file: Object arrays cannot be loaded"):
        read(write(tmp_path, [row | {"audio_file": "audio.npy"} for row in rows()]))


def test_features_of_different_width_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "wide.npy", np.zeros((6, 3)))
    said = refused(tmp_path, set_in(3, audio_file="wide.npy"))
    assert "audio features have different widths [2, 3]" in said


@pytest.mark.parametrize("content", [b"", b"\n", "id,text\nu,h\u00e9\n".encode("latin-1"), b'id\n"1"2\n', b'id\n"1\n'])
def test_a_file_that_is_no_utf8_csv_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "own.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"own\.csv is not a UTF-8 CSV"):
        read(tmp_path / "own.csv")


def test_a_manifest_that_is_not_there_or_is_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.csv is missing"):
        read(tmp_path / "nothing.csv")
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        read(tmp_path)


def test_rows_longer_than_the_header_are_refused_and_not_shifted(tmp_path: Path) -> None:
    lines = [f"u{i},f{i % 2},c{i},s{i},hello, you,{i}" for i in range(6)]
    (tmp_path / "own.csv").write_text("\n".join(["id,fold,cluster,speaker,text,value", *lines]))
    with pytest.raises(UserError, match=r"own\.csv, line 2: the row has 7 fields, but the header 6"):
        read(tmp_path / "own.csv")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_row_is_named_by_its_line_of_the_file_after_blank_lines_and_texts_of_several_lines(
    tmp_path: Path, end: str
) -> None:
    lines = ["", "id,split,cluster,speaker,text,label", "", 'a,train,a,s,"one', "", 'two",x', "b,tset,b,s,hi,x"]
    (tmp_path / "own.csv").write_bytes(end.join(lines).encode())
    with pytest.raises(UserError, match="line 7: split 'tset'; did you mean 'test'"):
        read(tmp_path / "own.csv")


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("id,split,cluster,speaker,text,label,text\na,train,a,s,one,x,two\n")
    with pytest.raises(UserError, match=r"own\.csv: column 'text' stands twice"):
        read(tmp_path / "own.csv")


def test_commas_at_the_end_of_every_line_change_nothing(tmp_path: Path) -> None:
    plain = read(write(tmp_path, rows()))
    made = [row | {"": "", " ": ""} for row in rows()]
    path = write(tmp_path, made)
    path.write_text(path.read_text(encoding="utf-8").replace(", \n", ",\n", 1), encoding="utf-8")
    assert read(path).utterances == plain.utterances


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clases": "a|b"}, "manifest: unknown setting 'clases'; did you mean 'classes'"),
        ({"low": "deep"}, "manifest: low: .*number"),
        ({"high": float("nan")}, "manifest: high: .*finite number"),
        ({"classes": "sad|calm"}, "line 3: label 'happy' is outside the task; known: calm, sad"),
    ],
)
def test_a_wrong_setting_of_a_manifest_is_named(tmp_path: Path, settings: dict[str, object], message: str) -> None:
    assert re.search(message, refused(tmp_path, lambda made: None, **settings))


@pytest.mark.parametrize("column", ["id", "cluster", "label"])
def test_an_empty_cell_where_a_name_belongs_is_named(tmp_path: Path, column: str) -> None:
    assert f"line 4: '{column}' is empty" in refused(tmp_path, set_in(2, **{column: ""}))


def test_a_cluster_on_both_sides_of_an_official_split_is_said_in_every_report(tmp_path: Path) -> None:
    made = rows()
    assert read(write(tmp_path, made)).notes == ()
    for row in made:
        row["cluster"] = "one talk"
        row["speaker"] = "ann"
    clusters, speakers = read(write(tmp_path, made)).notes
    assert clusters.startswith("Clusters of the test part (1, such as 'one talk') are in training")
    assert speakers.startswith("Speakers of the test part (1, such as 'ann') are in training")
