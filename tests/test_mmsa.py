"""The reader of MMSA's feature files, on made ones."""

from __future__ import annotations

import os
import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trees
from hypothesis import example, given
from hypothesis import strategies as st

from dual_bench.datasets import mmsa
from dual_bench.datasets.source import Source
from dual_bench.types import Signal, Task, UserError

Content = dict[str, Any]
Change = Callable[[Content], object]
RANGE = {"low": -3, "high": 3}


def write(folder: Path, content: object) -> Path:
    path = folder / "unaligned_50.pkl"
    path.write_bytes(pickle.dumps(content))
    return path


def signal(source: Source, modality: Any) -> Signal:
    found = source.media[modality]
    assert isinstance(found, Signal)
    assert found.kind == "features"
    return found


def small(**settings: Any) -> Content:
    return trees.mmsa_content(6, steps=5, **settings)


# --------------------------------------------------------------------------------------------- as published


def test_utterances_keep_ids_texts_values_and_official_splits(tmp_path: Path) -> None:
    content = small()
    source = mmsa.LAYOUT.read(write(tmp_path, content), **RANGE)
    assert source.task == Task("regression", low=-3.0, high=3.0)
    assert source.folds is None
    assert Counter(u.split for u in source.utterances) == {"train": 6, "validation": 6, "test": 6}
    for split, part in zip(("train", "valid", "test"), (0, 6, 12), strict=True):
        found = source.utterances[part : part + 6]
        assert [u.id for u in found] == content[split]["id"]
        assert [u.text for u in found] == content[split]["raw_text"]
        assert [u.target for u in found] == content[split]["regression_labels"].astype(float).tolist()
        assert [u.cluster for u in found] == [f"{split}{i // 3}" for i in range(6)]
    assert source.name == "unaligned_50"


@pytest.mark.parametrize("aligned", [True, False])
def test_padding_is_cut_by_the_lengths_or_by_the_mask_of_the_words(tmp_path: Path, aligned: bool) -> None:
    content = small(aligned=aligned)
    content["train"]["audio"][0, 0] = 0  # silence is no padding
    lengths = [int(mask.sum()) for mask in content["train"]["text_bert"][:, 1]]
    assert min(lengths) < 5
    for modality in ("audio", "vision"):
        items = signal(mmsa.LAYOUT.read(write(tmp_path, content), **RANGE), modality).items
        assert [len(item) for item in items[:6]] == lengths
        for item, padded, length in zip(items, content["train"][modality], lengths, strict=False):
            assert item.dtype == np.float32
            np.testing.assert_array_equal(item, padded[:length])


def test_a_length_of_nothing_is_an_absent_modality(tmp_path: Path) -> None:
    content = small()
    content["test"]["audio"][2] = 0
    content["test"]["audio_lengths"][2] = 0
    source = mmsa.LAYOUT.read(write(tmp_path, content), **RANGE)
    assert signal(source, "audio").items[14].shape == (0, 5)


def test_a_sequence_beyond_its_length_is_kept_and_told(tmp_path: Path) -> None:
    """As where zeros stand in front."""
    content = small()
    content["valid"]["vision"][1] = 0
    content["valid"]["vision"][1, 3:] = 7
    content["valid"]["vision_lengths"][1] = 2
    source = mmsa.LAYOUT.read(write(tmp_path, content), **RANGE)
    np.testing.assert_array_equal(signal(source, "vision").items[7], np.full((2, 6), 7))
    assert "vision: 1 sequence kept whole, longer than said" in source.deviations


def test_without_lengths_zeros_are_taken_off_at_both_ends(tmp_path: Path) -> None:
    content = small(aligned=True)
    for split in content.values():
        del split["text_bert"]
    content["train"]["audio"][0] = [[0] * 5, [1] * 5, [0] * 5, [2] * 5, [0] * 5]
    content["train"]["audio"][1] = 0
    source = mmsa.LAYOUT.read(write(tmp_path, content), **RANGE)
    items = signal(source, "audio").items
    assert not [sentence for sentence in source.deviations if "longer" in sentence]
    np.testing.assert_array_equal(items[0][:, 0], [1, 0, 2])
    assert items[1].shape == (0, 5)


def test_numbers_that_are_not_finite_become_0_and_are_counted(tmp_path: Path) -> None:
    content = small()
    content["train"]["audio"][0, 0, :2] = -np.inf
    content["test"]["audio"][0, 1, 4] = np.nan
    content["test"]["vision"] = content["test"]["vision"].astype(np.float64)
    content["test"]["vision"][3, 0, 0] = 1e300
    source = mmsa.LAYOUT.read(write(tmp_path, content), **RANGE)
    assert "audio: 3 values made 0 from NaN or infinity" in source.deviations
    assert "vision: 1 value made 0 from NaN or infinity" in source.deviations
    assert all(np.isfinite(item).all() for m in ("audio", "vision") for item in signal(source, m).items)
    assert signal(source, "audio").items[0][0, :2].tolist() == [0, 0]


@pytest.mark.parametrize("kind", ["list", "objects"])
def test_sequences_may_come_one_by_one(tmp_path: Path, kind: str) -> None:
    content = small()
    for split in content.values():
        for m in ("audio", "vision"):
            cut = [item[:n] for item, n in zip(split[m], split[f"{m}_lengths"], strict=True)]
            ragged = np.empty(len(cut), object)
            ragged[:] = cut
            split[m] = cut if kind == "list" else ragged
    whole = mmsa.LAYOUT.read(write(tmp_path, small()), **RANGE)
    for m in ("audio", "vision"):
        items = signal(mmsa.LAYOUT.read(write(tmp_path, content), **RANGE), m).items
        for one, other in zip(items, signal(whole, m).items, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_file_with_one_modality_is_a_corpus_of_one(tmp_path: Path) -> None:
    content = small()
    for split in content.values():
        del split["vision"]
    assert set(mmsa.LAYOUT.read(write(tmp_path, content), **RANGE).media) == {"audio"}


def test_annotations_make_classes_where_asked_for(tmp_path: Path) -> None:
    source = mmsa.LAYOUT.read(write(tmp_path, small()), labels="annotation")
    assert source.task == Task("classification", ("Negative", "Neutral", "Positive"))
    assert [u.target for u in source.utterances[:4]] == [1, 2, 0, 0]


# ---------------------------------------------------------------------------------- which corpus, what range


def counted(train: int, valid: int, test: int, scale: float = 1.0) -> Content:
    """A file of so many utterances, with audio of a step."""
    made = {}
    for split, count in (("train", train), ("valid", valid), ("test", test)):
        values = scale * np.linspace(-1, 1, count)
        made[split] = {
            "id": [f"{split}{i}$_$0" for i in range(count)], "raw_text": ["a line"] * count,
            "audio": np.ones((count, 1, 1), np.float32), "audio_lengths": [1] * count, "regression_labels": values,
        }  # fmt: skip
    return made


@pytest.mark.parametrize(
    ("name", "counts", "limit"),
    [("mosi", (1284, 229, 686), 3), ("mosei", (16326, 1871, 4659), 3), ("sims", (1368, 456, 457), 1)],
)
def test_a_published_corpus_is_told_by_its_counts(
    tmp_path: Path, name: str, counts: tuple[int, int, int], limit: float
) -> None:
    source = mmsa.LAYOUT.read(write(tmp_path, counted(*counts)))
    assert (source.name, source.deviations) == (name, ())
    assert source.task == Task("regression", low=-limit, high=limit)
    assert "MMSA (MIT)" in source.licence


def test_the_range_of_another_file_has_to_be_named(tmp_path: Path) -> None:
    path = write(tmp_path, counted(1284, 229, 685, 0.5))
    with pytest.raises(UserError, match=r"counts of no corpus of MMSA.* mmsa:low=-3,high=3 .* mmsa:low=-1,high=1"):
        mmsa.LAYOUT.read(path)
    with pytest.raises(UserError, match="nobody knows the range"):
        mmsa.LAYOUT.read(path, low=-3)
    source = mmsa.LAYOUT.read(path, low=-1, high=1)
    assert (source.task.low, source.task.high) == (-1, 1)
    assert source.deviations == (
        "1,284/229/685 utterances in train/valid/test are those of no corpus of MMSA (mosi 1,284/229/686, "
        "mosei 16,326/1,871/4,659, sims 1,368/456/457)",
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_bound_that_is_not_finite_is_refused(tmp_path: Path, value: float) -> None:
    with pytest.raises(UserError, match=r"mmsa: high: .*finite number"):
        mmsa.LAYOUT.read(write(tmp_path, small()), low=-3, high=value)


def test_a_value_beyond_the_range_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, counted(1368, 456, 457, 2.0))
    with pytest.raises(UserError, match=r"value -2 of 'train0\$_\$0' is outside \[-1, 1\]; .*mmsa:low"):
        mmsa.LAYOUT.read(path)


# ------------------------------------------------------------------------------------------------ at fault


def set_in(split: str, key: str, value: Any) -> Change:
    return lambda content: content[split].update({key: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("valid"), "has no split 'valid'; expected train, valid and test, found test, train"),
        (lambda c: c.update(test=[1]), "has no split 'test'"),
        (lambda c: c["test"].pop("raw_text"), "test has no 'raw_text'"),
        (lambda c: c["train"].pop("regression_labels"), "train has no 'regression_labels'"),
        (lambda c: [s.pop(m) for s in c.values() for m in ("audio", "vision")], "holds neither 'audio' nor 'vision'"),
        (set_in("test", "raw_text", ["a"]), "test has 6 ids, but 'raw_text' is of another length"),
        (set_in("test", "audio", 3), "test has 6 ids, but 'audio' is of another length"),
        (set_in("test", "audio", np.zeros((6, 5))), "audio 0 of test is no sequence of numbers (steps, width)"),
        (set_in("test", "audio", [["a"]] * 6), "audio 0 of test is no sequence of numbers"),
        (set_in("test", "audio_lengths", [-1] * 6), "'audio_lengths' of test holds a negative length"),
        (set_in("test", "audio_lengths", ["x"] * 6), "'audio_lengths' of test tells no lengths"),
        (set_in("test", "audio_lengths", [float("nan")] * 6), "'audio_lengths' of test tells no lengths"),
        (set_in("test", "id", [f"a{i}" for i in range(6)]), "id 'a0' of test; expected video$_$clip"),
        (
            set_in("test", "id", ["v$_$1", "v$_$1", *(f"w$_${i}" for i in range(4))]),
            "ids that stand twice: v$_$1; expected",
        ),
        (lambda c: c["test"].update(id=c["train"]["id"]), "ids that stand twice: train0$_$0, train0$_$1"),
        (set_in("test", "regression_labels", [0, 0, 0, 0, 0, float("nan")]), "value nan of 'test1$_$2' is outside"),
        (set_in("test", "id", [["v$_$1"], *(f"w$_${i}" for i in range(5))]), "id 0 of test is a list; expected a text"),
        (set_in("test", "raw_text", [*"abcde", None]), "raw_text 5 of test is a NoneType; expected a text or a number"),
        (lambda c: c.update({("valid", 1): c.pop("valid")}), "no split 'valid'; expected train, valid and test, found"),
        (set_in("test", "regression_labels", ["x"] * 6), "value nan of 'test0$_$0' is outside"),
    ],
)
def test_what_is_at_fault_is_named(tmp_path: Path, change: Change, message: str) -> None:
    content = small()
    change(content)
    with pytest.raises(UserError) as caught:
        mmsa.LAYOUT.read(write(tmp_path, content), **RANGE)
    assert message in str(caught.value)
    assert "unaligned_50.pkl" in str(caught.value)


def test_an_annotation_that_is_none_is_named(tmp_path: Path) -> None:
    content = small()
    content["valid"]["annotations"][0] = "Positiv"
    with pytest.raises(UserError, match=r"annotation 'Positiv' of 'valid0\$_\$0'; did you mean 'Positive'"):
        mmsa.LAYOUT.read(write(tmp_path, content), labels="annotation")
    content["valid"]["annotations"][0] = ["Positive"]
    with pytest.raises(UserError, match="annotations 0 of valid is a list; expected a text or a number"):
        mmsa.LAYOUT.read(write(tmp_path, content), labels="annotation")


@pytest.mark.parametrize("content", [[1, 2], None, np.zeros(3), "text"])
def test_a_pickle_of_something_else_is_named(tmp_path: Path, content: object) -> None:
    with pytest.raises(UserError, match="expected a dictionary of train, valid and test"):
        mmsa.LAYOUT.read(write(tmp_path, content))


def test_a_file_that_wants_to_run_something_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    content = small()
    content["train"]["annotations"][3] = Evil()
    with pytest.raises(UserError, match=r"wants \w+\.system; only plain containers and numpy arrays are read"):
        mmsa.LAYOUT.read(write(tmp_path, content), **RANGE)
    assert not (tmp_path / "ran").exists()


def test_labels_may_come_in_a_column_and_ids_as_texts_of_numpy(tmp_path: Path) -> None:
    plain = mmsa.LAYOUT.read(write(tmp_path, small()), **RANGE)
    content = small()
    for split in content.values():
        split["regression_labels"] = split["regression_labels"][:, None]
        split["id"], split["annotations"] = np.array(split["id"]), [None] * len(split["id"])
    assert mmsa.LAYOUT.read(write(tmp_path, content), **RANGE).utterances == plain.utterances


@given(st.text(max_size=8), st.integers(0, 10**6))
@example("a$_$b", 1)
def test_the_cluster_is_the_video_of_the_id(tmp_path_factory: pytest.TempPathFactory, video: str, clip: int) -> None:
    content = counted(2, 1, 1)
    content["train"]["id"][0] = f"{video}$_${clip}"
    source = mmsa.LAYOUT.read(write(tmp_path_factory.getbasetemp(), content), **RANGE)
    assert (source.utterances[0].id, source.utterances[0].cluster) == (f"{video}$_${clip}", video)
