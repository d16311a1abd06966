"""Pickles of strangers: arrays and plain containers come through, everything else is refused before it runs."""

from __future__ import annotations

import copyreg
import functools
import io
import os
import pickle
import struct
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from dual_bench.datasets import safe_pickle
from dual_bench.types import UserError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
ARRAYS = [
    np.arange(12, dtype=np.float32).reshape(3, 4),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(24).reshape(2, 3, 4).transpose(1, 2, 0),
    np.arange(4, dtype=">i2"),
    np.array([True, False]),
    np.array([1 + 2j]),
    np.array(["a", "é我", ""]),
    np.array([b"a", b"\xff"]),
    np.empty((0, 5), np.float32),
    np.array(3.5),
]


def read(folder: Path, content: bytes) -> Any:
    path = folder / "x.pkl"
    path.write_bytes(content)
    return safe_pickle.load(path)


def plain_or_refused(folder: Path, content: bytes) -> bool:
    """Whether a pickle gives a plain thing, or is refused in a sentence; else something escapes."""
    try:
        found = read(folder, content)
    except UserError as error:
        return str(error).startswith(f"{folder / 'x.pkl'} is not ")
    plain = (
        bool,
        int,
        float,
        complex,
        str,
        bytes,
        bytearray,
        list,
        tuple,
        dict,
        set,
        frozenset,
        np.ndarray,
        np.generic,
    )
    return found is None or isinstance(found, plain)


def native(kind: np.dtype) -> np.dtype:
    """In this machine's order of bytes, to which numpy turns some of what it loads."""
    return kind.newbyteorder("=")


def refused(folder: Path, content: bytes) -> str:
    with pytest.raises(UserError) as caught:
        read(folder, content)
    assert "\n" not in str(caught.value)
    assert str(folder / "x.pkl") in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_arrays_come_back_in_every_protocol_and_by_both_names_of_numpys_core(
    tmp_path: Path, protocol: int, core: bytes
) -> None:
    content = pickle.dumps(ARRAYS, protocol)
    for name in (b"multiarray", b"numeric"):  # a text's length stands before it from protocol 4 on
        whole, wanted = b"numpy._core." + name, core + b"." + name
        content = content.replace(b"\x8c" + bytes([len(whole)]) + whole, b"\x8c" + bytes([len(wanted)]) + wanted)
        content = content.replace(b"c" + whole + b"\n", b"c" + wanted + b"\n")
    if protocol >= 4:
        content = content[:2] + content[11:] if content[2:3] == pickle.FRAME else content
    for found, expected in zip(read(tmp_path, content), ARRAYS, strict=True):
        np.testing.assert_array_equal(found, expected)
        assert (native(found.dtype), found.shape) == (native(expected.dtype), expected.shape)


@given(
    arrays.arrays(
        st.sampled_from([np.float32, np.float64, np.int8, np.uint16, np.dtype(">f8"), np.dtype("U3"), np.bool_]),
        arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
    st.sampled_from(PROTOCOLS),
)
def test_any_plain_array_comes_back(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, protocol: int) -> None:
    found = read(tmp_path_factory.getbasetemp(), pickle.dumps(array, protocol))
    assert (native(found.dtype), found.shape) == (native(array.dtype), array.shape)
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_things_scalars_and_arrays_of_plain_things_come_back(tmp_path: Path, protocol: int) -> None:
    ragged = np.empty(3, object)
    ragged[:] = ["text", [1, {"a": 2.5}], np.arange(3)]
    plain = {"train": [1, 2.5, None, True, "é", b"\x00\xff", b"", (1, (2,)), {3}, frozenset([4]), 10**30],
             "valid": OrderedDict(a=1), "test": [np.float32(1.5), np.int64(7), np.str_("s")]}  # fmt: skip
    assert read(tmp_path, pickle.dumps(plain, protocol)) == plain
    found = read(tmp_path, pickle.dumps(ragged, protocol))
    assert found.dtype == object
    assert found[0] == "text"
    assert found[1] == [1, {"a": 2.5}]
    np.testing.assert_array_equal(found[2], np.arange(3))


def test_a_file_of_python_2_comes_back(tmp_path: Path) -> None:
    """Protocol 2, whose byte strings may hold any byte."""
    element = b"cnumpy\ndtype\n(U\x02f4I0\nI1\ntR(I3\nU\x01<NNNI-1\nI-1\nI0\ntb"
    array = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntU\x01btR(I1\n(I2\nt" + element
    np.testing.assert_array_equal(
        read(tmp_path, array + b"I00\nU\x08" + struct.pack("<2f", 1, -2) + b"tb."), np.array([1, -2], np.float32)
    )
    assert read(tmp_path, b"\x80\x02}U\x02id]U\x04caf\xe9as.") == {"id": ["café"]}


def test_parts_that_are_shared_stay_shared(tmp_path: Path) -> None:
    shared: list[Any] = [1]
    found = read(tmp_path, pickle.dumps([shared, shared]))
    assert found[0] is found[1]


# ---------------------------------------------------------------------------------------- what is refused


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def touch(folder: Path) -> str:
    return f"touch {folder / 'ran'}"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda f: Calls(os.system, touch(f)), f"{os.system.__module__}.system"),
        (lambda f: Calls(eval, f"open({str(f / 'ran')!r}, 'w')"), "eval"),
        (lambda f: Calls(exec, f"open({str(f / 'ran')!r}, 'w')"), "exec"),
        (lambda f: Calls(open, str(f / "ran"), "w"), "open"),
        (lambda f: Calls(subprocess.check_call, ["touch", str(f / "ran")]), "check_call"),
        (lambda f: Calls(functools.partial(os.system), touch(f)), "functools.partial"),
        (lambda f: Calls(np.load, str(f / "evil.npy"), None, True), "numpy.load"),
        (lambda f: Calls(np.save, str(f / "ran.npy"), 1), "numpy.save"),
        (lambda f: Calls(getattr, "a", "upper"), "getattr"),
        (lambda f: Calls(__import__, "antigravity"), "__import__"),
        (lambda f: Path(f), "Path"),
        (lambda f: np.random.default_rng(1), "numpy.random"),
    ],
    ids=["system", "eval", "exec", "open", "subprocess", "partial", "load", "save", "getattr", "import", "path", "rng"],
)  # fmt: skip
def test_a_pickle_that_wants_to_run_something_is_refused_by_name_and_does_not_run(
    tmp_path: Path, make: Callable[[Path], object], name: str, protocol: int
) -> None:
    np.save(tmp_path / "evil.npy", np.array([Calls(os.system, touch(tmp_path))], object), allow_pickle=True)
    nested = np.empty(2, object)
    nested[:] = ["plain", make(tmp_path)]
    for content in (make(tmp_path), {"train": {"audio": nested}}, [np.arange(3), (make(tmp_path),)]):
        said = refused(tmp_path, pickle.dumps(content, protocol))
        assert "wants " in said
        assert name in said
    assert not list(tmp_path.glob("ran*"))


COMMAND = b"echo 1 > ran"


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'" + COMMAND + b"'\ntR.",
        b"(S'" + COMMAND + b"'\nios\nsystem\n.",
        b"(cos\nsystem\nS'" + COMMAND + b"'\no.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c" + bytes([len(COMMAND)]) + COMMAND + b"\x85R.",
        b"\x80\x02cos\nsystem\n(X\x0c\x00\x00\x00" + COMMAND + b"t\x81.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93)}\x92.",
    ],
    ids=["GLOBAL", "INST", "OBJ", "STACK_GLOBAL", "NEWOBJ", "NEWOBJ_EX"],
)
def test_every_operation_that_names_something_is_watched(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "wants os.system; only plain containers and numpy arrays are read" in refused(tmp_path, content)
    assert not (tmp_path / "ran").exists()


def test_dotted_names_reach_nothing(tmp_path: Path) -> None:
    for module, name in (("numpy", "ndarray.__class__"), ("builtins", "set.__base__.__subclasses__"), ("", "set")):
        content = b"\x80\x04" + b"".join(b"\x8c" + bytes([len(t)]) + t.encode() for t in (module, name)) + b"\x93."
        assert f"wants {module}.{name}" in refused(tmp_path, content)


def test_extensions_and_outside_references_are_refused(tmp_path: Path) -> None:
    copyreg.add_extension("os", "system", 0x77)
    try:
        assert "wants os.system" in refused(tmp_path, b"\x80\x02\x82\x77.")
    finally:
        copyreg.remove_extension("os", "system", 0x77)

    class Outside(pickle.Pickler):
        def persistent_id(self, thing: object) -> str | None:
            return "1" if thing == "x" else None

    buffer = io.BytesIO()
    Outside(buffer).dump(["x"])
    assert "refers to things outside the file" in refused(tmp_path, buffer.getvalue())


def test_texts_are_made_bytes_in_latin1_alone(tmp_path: Path) -> None:
    assert read(tmp_path, b"c_codecs\nencode\n(V\\u00e9\nVlatin1\ntR.") == b"\xe9"
    assert "as 'rot13'" in refused(tmp_path, b"c_codecs\nencode\n(Va\nVrot13\ntR.")


def rebuilt(element: bytes, state: bytes, shape: bytes, content: bytes) -> bytes:
    """An array of made-up parts, in protocol 0."""
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(" + shape + b"tcnumpy\ndtype\n(S'"
        + element + b"'\nI0\nI1\ntR" + state + b"I00\n" + content + b"tb."
    )  # fmt: skip


PLAIN = b"(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (rebuilt(b"O8", PLAIN, b"I9999\n", b"(lI1\na"), "more elements than it has"),
        (rebuilt(b"O8", PLAIN, b"I1\n", b"S'\\x10\\x00\\x00\\x00\\x00\\x00\\x00\\x00'\n"), "more elements than it has"),
        (rebuilt(b"V8", b"(I3\nS'|'\nN(S'a'\nt(dI8\nI1\nI0\ntb", b"I1\n", b"S'12345678'\n"), "elements 'V8'"),
        (rebuilt(b"f4", b"(I3\nS'<'\nN(S'a'\nt(dI8\nI1\nI0\ntb", b"I1\n", b"S'1234'\n"), "array of records"),
        (rebuilt(b"f4,O", PLAIN, b"I1\n", b"S'1234'\n"), "elements 'f4,O'"),
        (rebuilt(b"U0", PLAIN, b"I999999999999\n", b"S''\n"), "elements 'U0'"),
        (rebuilt(b"M8[s]", PLAIN, b"I1\n", b"S'12345678'\n"), "elements 'M8"),
        (rebuilt(b"f4", PLAIN, b"I9999\n", b"S'1234'\n"), "damaged: buffer size does not match"),
        (rebuilt(b"f4", PLAIN, b"I-1\nI-1\n", b"S'1234'\n"), "shape is none"),
        (rebuilt(b"f4", PLAIN, b"I1\n", b"S'1234'\n").replace(b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR" + PLAIN, b"N"),
         "have no type"),
    ],
)  # fmt: skip
def test_arrays_whose_parts_do_not_fit_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    assert message in refused(tmp_path, content)


def test_a_number_in_place_of_an_arrays_content_is_refused_at_once(tmp_path: Path) -> None:
    element = b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR"
    content = b"cnumpy.core.numeric\n_frombuffer\n(I99999999999\n" + element + b"(I1\ntS'C'\ntR."
    assert "array without content" in refused(tmp_path, content)


def test_made_up_arrays_are_read_where_their_parts_fit(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(tmp_path, rebuilt(b"O8", PLAIN, b"I1\n", b"(lI1\na")), [1])
    np.testing.assert_array_equal(read(tmp_path, rebuilt(b"S4", PLAIN, b"I1\n", b"S'abcd'\n")), [b"abcd"])


def test_records_and_dates_are_refused(tmp_path: Path) -> None:
    for array in (np.zeros(2, "f4,i8"), np.zeros(2, "M8[s]"), np.zeros(2, "V8"), np.zeros(2, np.dtype((np.void, 3)))):
        for protocol in PROTOCOLS:
            assert "numbers, texts and plain things are read" in refused(tmp_path, pickle.dumps(array, protocol))


# ------------------------------------------------------------------------------------- damaged, and bombs


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pickle_cut_short_anywhere_is_refused(tmp_path: Path, protocol: int) -> None:
    content = pickle.dumps({"a": [np.arange(5.0), "text"]}, protocol)
    for end in range(0, len(content), 5):
        assert "is not a pickle, or damaged" in refused(tmp_path, content[:end])


@given(st.binary(max_size=60))
def test_no_bytes_whatever_do_anything_but_load_or_be_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    assert plain_or_refused(tmp_path_factory.getbasetemp(), content)


@given(st.integers(0, 400), st.integers(0, 255))
def test_no_changed_byte_does_anything_but_load_or_be_refused(
    tmp_path_factory: pytest.TempPathFactory, place: int, byte: int
) -> None:
    content = bytearray(
        pickle.dumps({"id": ["a"], "audio": np.ones((2, 2)), "ragged": np.array([[1], "b"], object)}, 2)
    )
    content[place % len(content)] = byte
    assert plain_or_refused(tmp_path_factory.getbasetemp(), bytes(content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02]r\xff\xff\xff\xff.", "numbers its parts up to 4,294,967,295"),
        (b"]p99999999999\n.", "numbers its parts up to 99,999,999,999"),
        (b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"a.", "x.pkl is not"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"a.", "x.pkl is not"),
        (b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"].", "x.pkl is not"),
        (b"", "damaged"),
        (b"PK\x03\x04", "damaged"),
    ],
)
def test_what_asks_for_more_than_it_holds_is_refused_at_once(tmp_path: Path, content: bytes, message: str) -> None:
    assert message in refused(tmp_path, content)


def test_a_deep_pickle_is_refused(tmp_path: Path) -> None:
    assert "maximum recursion depth" in refused(tmp_path, b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".")


def laughs() -> list[Any]:
    """Forty lists, each of which holds the next one twice."""
    held: list[Any] = ["ha"]
    for _ in range(40):
        held = [held, held]
    return held


def itself() -> list[Any]:
    held: list[Any] = []
    held.append({"a": held})
    return held


def in_an_array() -> NDArray[np.object_]:
    found = np.empty(2, object)
    found[:] = [{"a": laughs()}, None]
    return found


@pytest.mark.parametrize("make", [laughs, itself, in_an_array, lambda: {"a": (laughs(),)}])
def test_what_never_ends_when_written_out_is_refused_at_once(tmp_path: Path, make: Callable[[], object]) -> None:
    assert "holds itself, or the same parts over and over" in refused(tmp_path, pickle.dumps(make()))


def test_attributes_cannot_hide_the_methods_of_an_ordered_dictionary(tmp_path: Path) -> None:
    plain = OrderedDict(a=1)
    assert type(read(tmp_path, pickle.dumps(plain))) is dict
    plain.get = 5  # type: ignore[assignment,method-assign]
    assert "damaged" in refused(tmp_path, pickle.dumps(plain))


def test_a_file_that_is_not_there_or_a_folder_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.pkl", tmp_path):
        with pytest.raises(UserError, match=r"cannot be read: "):
            safe_pickle.load(path)


def test_a_pickle_can_change_nothing_for_the_next_one(tmp_path: Path) -> None:
    change = b"cnumpy.core.multiarray\n_reconstruct\n(N(dS'__defaults__'\n(I1\ntstb."
    assert "damaged" in refused(tmp_path, change)
    np.testing.assert_array_equal(read(tmp_path, pickle.dumps(np.arange(3))), np.arange(3))


def test_this_process_has_loaded_no_module_for_a_pickle(tmp_path: Path) -> None:
    refused(tmp_path, b"cantigravity\nfly_softly\n.")
    assert "antigravity" not in sys.modules
