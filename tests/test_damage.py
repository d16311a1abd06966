"""Damage in the feature cache: found, named, and made good; what comes out is what an undamaged cache gives."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dual_bench.features import text
from dual_bench.features.cache import content_key
from dual_bench.features.rows import FeatureStore
from dual_bench.features.text import MiniLM, encode_texts
from dual_bench.plan import read_plan
from dual_bench.prepare import Encoded, ask, encode_all
from dual_bench.types import DAMAGED, Ragged, UserError

WIDTH = 5
KEYS = [content_key(f"item {i}") for i in range(12)]
LENGTHS = [i % 4 for i in range(12)]
STARTS = [sum(LENGTHS[:i]) for i in range(12)]


def rows_of(position: int) -> NDArray[np.float32]:
    return np.full((LENGTHS[position], WIDTH), position + 0.5, np.float32)


class Encoder:
    """Remembers what it was asked for; fails after ``limit`` items."""

    def __init__(self, limit: int = 10**9) -> None:
        self.limit = limit
        self.asked: list[int] = []

    def __call__(self, positions: list[int]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        for position in positions:
            if len(self.asked) == self.limit:
                raise InterruptedError("the lights went out")
            self.asked.append(position)
            yield position, rows_of(position)


def assert_whole(found: Ragged) -> None:
    assert [item.tobytes() for item in found] == [rows_of(i).tobytes() for i in range(len(KEYS))]


def flip(path: Path, *places: int) -> None:
    """Invert some bytes of a file, where it lies."""
    with path.open("r+b") as file:
        for place in places:
            file.seek(place)
            (byte,) = file.read(1)
            file.seek(place)
            file.write(bytes([byte ^ 255]))


def cut(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


def without_sums(folder: Path) -> None:
    """Leave an index as it was before there were sums in it."""
    with np.load(folder / "index.npz") as saved:
        old = {"keys": saved["keys"], "places": saved["places"]}
    np.savez(folder / "index.npz", **old)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store with the twelve items, end to end."""
    FeatureStore(tmp_path / "store", WIDTH).ensure(KEYS, Encoder())
    return tmp_path / "store"


def byte_of(position: int) -> int:
    """A byte in the last row of an item."""
    return (STARTS[position] + LENGTHS[position]) * WIDTH * 4 - 3


ROWS = {
    "a flipped byte": (lambda f: flip(f / "rows.f32", byte_of(5)), {5}, "1 of 12 sequences in rows.f32"),
    "two": (lambda f: flip(f / "rows.f32", byte_of(1), byte_of(11)), {1, 11}, "2 of 12 sequences in rows.f32"),
    "cut by a byte": (lambda f: cut(f / "rows.f32", 18 * 20 - 1), {11}, "1 of 12 sequences in rows.f32"),
    "cut in half": (lambda f: cut(f / "rows.f32", 9 * 20), {7, 9, 10, 11}, "4 of 12 sequences in rows.f32"),
    "gone": (lambda f: (f / "rows.f32").unlink(), {i for i in range(12) if i % 4}, "9 of 12 sequences in rows.f32"),
}
INDEX = {
    "empty": lambda f: (f / "index.npz").write_bytes(b""),
    "something else": lambda f: (f / "index.npz").write_bytes(b"PK no more"),
    "cut": lambda f: cut(f / "index.npz", 500),
    "cut by a byte": lambda f: cut(f / "index.npz", (f / "index.npz").stat().st_size - 1),
    "a flipped byte": lambda f: flip(f / "index.npz", 150),
}


@pytest.mark.parametrize(("damage", "lost", "said"), ROWS.values(), ids=ROWS)
def test_damaged_rows_are_named_and_made_again_and_no_others(
    folder: Path, damage: Callable[[Path], object], lost: set[int], said: str
) -> None:
    damage(folder)
    there = (folder / "rows.f32").read_bytes() if (folder / "rows.f32").exists() else b""
    told: list[str] = []
    encoder = Encoder()
    found, encoded = FeatureStore(folder, WIDTH, told.append).ensure(KEYS, encoder)
    assert_whole(found)
    assert (set(encoder.asked), encoded) == (lost, len(lost))
    assert told == [f"{folder} is damaged ({said}): that is made again"]
    # what others have mapped stays as it was, and what they may yet map is nothing that could pass for features
    now = np.fromfile(folder / "rows.f32", np.uint8)
    assert now[: len(there)].tobytes() == there
    assert np.isnan(now[-(-len(there) // 4) * 4 : 18 * 20].view(np.float32)).all()
    again = FeatureStore(folder, WIDTH, told.append)
    assert_whole(again.ensure(KEYS, Encoder(0))[0])
    assert_whole(again.find(KEYS))
    assert len(told) == 1


@pytest.mark.parametrize("damage", INDEX.values(), ids=INDEX)
def test_a_damaged_index_is_named_and_everything_made_again(folder: Path, damage: Callable[[Path], object]) -> None:
    mapped = FeatureStore(folder, WIDTH).find(KEYS)
    damage(folder)
    told: list[str] = []
    found, encoded = FeatureStore(folder, WIDTH, told.append).ensure(KEYS, Encoder())
    assert_whole(found)
    assert encoded == 12
    (said,) = told
    assert said.startswith(f"{folder} is damaged (index.npz: ")
    assert said.endswith("): that is made again, beside rows that nobody knows any more")
    assert_whole(mapped)
    assert found.starts.min() >= 18
    assert_whole(FeatureStore(folder, WIDTH, told.append).ensure(KEYS, Encoder(0))[0])
    assert len(told) == 1


def test_no_byte_of_an_index_can_be_flipped_to_the_harm_of_anybody(folder: Path) -> None:
    index, rows = folder / "index.npz", folder / "rows.f32"
    content, values = index.read_bytes(), rows.read_bytes()
    noticed = 0
    for place in range(0, len(content), 23):
        flip(index, place)
        found, encoded = FeatureStore(folder, WIDTH).ensure(KEYS, Encoder())
        assert_whole(found)
        assert encoded in (0, 12)
        noticed += encoded == 12
        index.write_bytes(content)
        rows.write_bytes(values)
    assert noticed > len(content) // 23 / 2


def test_what_is_damaged_is_never_given_where_nothing_can_be_made(folder: Path) -> None:
    flip(folder / "rows.f32", byte_of(6))
    with pytest.raises(UserError, match=r"is damaged \(1 of 12 sequences in rows\.f32\); remove that folder"):
        FeatureStore(folder, WIDTH).find(KEYS)
    others = [5, 7]
    found = FeatureStore(folder, WIDTH).find([KEYS[i] for i in others])
    assert [item.tobytes() for item in found] == [rows_of(i).tobytes() for i in others]
    with pytest.raises(KeyError):  # an encoder that has nothing to give either
        FeatureStore(folder, WIDTH).ensure(KEYS, lambda positions: iter(()))
    (folder / "index.npz").write_bytes(b"")
    with pytest.raises(UserError, match=r"is damaged \(index\.npz: .*\); remove that folder"):
        FeatureStore(folder, WIDTH).find(KEYS)


def test_an_index_without_sums_is_read_and_what_is_added_has_some(folder: Path) -> None:
    without_sums(folder)
    more = content_key("one more")
    store = FeatureStore(folder, WIDTH)
    assert_whole(store.ensure(KEYS, Encoder(0))[0])
    store.ensure([*KEYS, more], lambda positions: ((p, np.ones((2, WIDTH), np.float32)) for p in positions))
    flip(folder / "rows.f32", byte_of(3), 18 * 20)  # the first cannot be known, the second can
    told: list[str] = []
    one = FeatureStore(folder, WIDTH, told.append)
    _, encoded = one.ensure([*KEYS, more], lambda positions: ((p, np.ones((2, WIDTH), np.float32)) for p in positions))
    assert encoded == len(told) == 1


@pytest.mark.parametrize("sums", [True, False])
def test_rows_that_were_lost_stay_lost_when_the_repair_is_interrupted(folder: Path, sums: bool) -> None:
    if not sums:
        without_sums(folder)
    cut(folder / "rows.f32", 9 * 20)
    with pytest.raises(InterruptedError):
        FeatureStore(folder, WIDTH).ensure(KEYS, Encoder(0))
    assert (folder / "rows.f32").stat().st_size == 18 * 20
    encoder = Encoder()
    assert_whole(FeatureStore(folder, WIDTH).ensure(KEYS, encoder)[0])
    assert encoder.asked == [7, 9, 10, 11]


def test_a_store_checks_its_rows_once(folder: Path) -> None:
    store = FeatureStore(folder, WIDTH)
    store.ensure(KEYS, Encoder(0))
    (folder / "rows.f32").rename(folder / "elsewhere")
    (folder / "rows.f32").write_bytes(bytes(18 * 20))
    assert (np.concatenate(list(store.find(KEYS))) == 0).all()  # not read again
    with pytest.raises(UserError, match="9 of 12"):
        FeatureStore(folder, WIDTH).find(KEYS)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
@pytest.mark.parametrize("damaged", [True, False])
def test_where_the_cache_can_only_be_read_what_it_lacks_is_said(
    folder: Path, code: int, damaged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def refuse(path: str, flags: int, *rest: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(code, os.strerror(code), str(path))
        return opened(path, flags, *rest)

    if damaged:
        flip(folder / "rows.f32", byte_of(6))
    monkeypatch.setattr(os, "open", refuse)
    keys = KEYS if damaged else [*KEYS, content_key("one more")]
    what = r"is damaged \(1 of 12 sequences in rows.f32\)" if damaged else "lacks what is asked for"
    with pytest.raises(UserError, match=f"{folder} {what} and cannot be written to; make it writable, or choose"):
        FeatureStore(folder, WIDTH).ensure(keys, Encoder(0))
    sound = FeatureStore(folder, WIDTH).ensure(KEYS[:6], Encoder(0))[0]  # none of which is damaged
    assert [item.tobytes() for item in sound] == [rows_of(i).tobytes() for i in range(6)]


# ----------------------------------------------------------------------------------------- a full disk


def test_a_full_disk_loses_nothing_that_was_stored_and_the_same_call_goes_on(
    small_disk: Callable[[float], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dual_bench.features.rows._FLUSH_ROWS", 50)
    disk = small_disk(1)
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(1 << 19))
    keys = [content_key(f"long {i}") for i in range(8)]
    asked: list[int] = []

    def encode(positions: list[int]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        for position in positions:
            asked.append(position)
            yield position, np.full((100, 256), position, np.float32)  # 100 KiB

    with pytest.raises(OSError, match="No space left") as caught:
        FeatureStore(disk / "store", 256).ensure(keys, encode)
    assert caught.value.errno == errno.ENOSPC
    stored = len(asked) - 1
    assert stored >= 2
    assert sorted(path.name for path in (disk / "store").iterdir()) == ["index.npz", "lock", "rows.f32"]
    ballast.unlink()
    asked.clear()
    told: list[str] = []
    found, _ = FeatureStore(disk / "store", 256, told.append).ensure(keys, encode)
    assert asked[0] >= stored - 1
    assert [float(item.mean()) for item in found] == [float(i) for i in range(8)]
    assert all(len(item) == 100 for item in found)
    assert told == []


# ------------------------------------------------------------------------------------ words, voice, bins


def test_words_made_again_have_the_bytes_of_their_first_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_TOKENS", 40)
    said = [f"{word} {'very ' * n}late" for n in range(6) for word in ("they were", "nobody was", "she is")]
    encoder = MiniLM()
    fresh = [item.tobytes() for item in encode_texts(said, encoder, tmp_path)[0]]
    (values,) = tmp_path.rglob("rows.f32")
    flip(values, 9, values.stat().st_size // 2, values.stat().st_size - 1)
    told: list[str] = []
    found, encoded = encode_texts(said, encoder, tmp_path, told=told.append)
    assert [item.tobytes() for item in found] == fresh
    assert encoded == 3
    assert told == [f"{values.parent} is damaged (3 of 18 sequences in rows.f32): that is made again"]


def test_a_study_whose_cache_is_damaged_everywhere_reads_what_it_read_before(tmp_path: Path) -> None:
    fields = {"models": ["dual:width=8"], "corruptions": ["word-drop", "token-unk"], "rates": [0.5], "draws": 1}
    plan = read_plan("default", {"dataset": "synthetic:utterances=40", **fields})
    cache = tmp_path / "cache"

    def read(told: list[str]) -> Encoded:
        def report(stage: str, done: int, total: int, detail: str) -> None:
            if stage == DAMAGED:
                told.append(detail)

        return encode_all(ask(plan, None, tmp_path, cache, "cpu"), cache, report)

    def content(encoded: Encoded) -> list[list[bytes]]:
        return [
            [item.tobytes() for item in getattr(inputs, modality)]
            for inputs in encoded.inputs.values()
            for modality in ("audio", "vision", "text")
        ]

    told: list[str] = []
    fresh = content(read(told))
    stores = sorted(path.parent for path in cache.rglob("rows.f32"))
    assert {folder.parent.name for folder in stores} == {"audio", "vision", "text", "bins"}
    assert told == []
    for folder in stores:
        flip(folder / "rows.f32", 1)
    assert content(read(told)) == fresh
    assert sorted(said.split(" is damaged (1 of ")[0] for said in told) == [str(folder) for folder in stores]
    told.clear()
    for folder in stores:
        flip(folder / "index.npz", 150)
    assert content(read(told)) == fresh
    assert len(told) == len(stores)
    told.clear()
    assert content(read(told)) == fresh
    assert told == []
