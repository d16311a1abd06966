"""Pickles of strangers: plain containers and numpy arrays, and nothing that runs.

A pickle is a program that may call whatever it names. Here it may name only what rebuilds arrays of numbers, texts or
plain things, in the spellings of numpy 1 and 2 and of protocols 0 to 5 of Python 3 (of Python 2: protocol 2), and none
of numpy's own code sees a type of element that the file made up: arrays are rebuilt here, from types that are checked.
"""

from __future__ import annotations

import math
import pickle
import pickletools
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from dual_bench.types import UserError

_ELEMENT = re.compile(r"[<>=|]?[biufcSUO][1-9]\d*")
"""Numbers, byte strings, texts, and references to plain things; no records, dates or raw memory."""


def load(path: Path) -> Any:
    """What a pickle holds; UserError where it wants more than plain containers and arrays, holds itself, or is
    damaged."""
    try:
        with path.open("rb") as file:
            _check_numbers(file)
            file.seek(0)
            content = _Reader(file, encoding="latin1").load()
            if not isinstance(content, _PLAIN) and _size(content, {}) > 16 * file.tell() + 2**20:
                raise UserError("holds itself, or the same parts over and over; written out, they would never end")
            return content
    except UserError as error:
        raise UserError(f"{path} is not read: it {error}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except MemoryError:
        raise UserError(f"{path} is not read: it asks for more memory than there is") from None
    except Exception as error:  # of a damaged pickle, anything may come
        raise UserError(f"{path} is not a pickle, or damaged: {error or type(error).__name__}") from None


def _check_numbers(file: IO[bytes]) -> None:
    """UserError where a memo number is beyond what so many operations can fill: the reader would allocate up to it
    (https://github.com/python/cpython/issues/115952)."""
    for count, (operation, value, _) in enumerate(pickletools.genops(file)):
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and isinstance(value, int) and value > 2 * count + 256:
            raise UserError(f"numbers its parts up to {value:,}, which is more than it has")


def _held(value: Any) -> Collection[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    if isinstance(value, np.ndarray):
        return value.ravel().tolist() if value.dtype.hasobject else ()
    return value if isinstance(value, list | tuple | set | frozenset) else ()


_PLAIN = (type(None), bool, int, float, complex, str, bytes, bytearray, np.generic)
_CONTAINERS = (dict, list, tuple, set, frozenset, np.ndarray)


def _size(value: Any, known: dict[int, float]) -> float:
    """How many plain things ``value`` holds, those that it holds twice counted twice; infinite where it holds itself.
    UserError where one is not plain: a pickle may keep for itself what the reader gives out to rebuild arrays with.

    ``known`` are the sizes of what was met before, by its id, and is filled here. A file of a kilobyte may hold more
    than can ever be looped over (https://en.wikipedia.org/wiki/Billion_laughs_attack).
    """
    if not isinstance(value, _CONTAINERS):
        raise UserError(f"holds a {type(value).__name__}; only plain containers and numpy arrays are read")
    if id(value) not in known:
        known[id(value)] = math.inf
        held = _held(value)
        inner = (one for one in held if not isinstance(one, _PLAIN))
        known[id(value)] = len(held) + sum(_size(one, known) for one in inner)
    return known[id(value)]


class _Element:
    """The type of an array's elements, on its way to one."""

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or not _ELEMENT.fullmatch(code):
            raise UserError(f"holds an array of elements '{str(code)[:40]}'; numbers, texts and plain things are read")
        self.type = np.dtype(code)

    def __setstate__(self, state: Sequence[Any]) -> None:
        _, order, *record = state[:5]
        if any(part is not None for part in record):
            raise UserError("holds an array of records; numbers, texts and plain things are read")
        if order in ("<", ">"):
            self.type = self.type.newbyteorder(order)


class _Array(np.ndarray[Any, Any]):
    """An array whose content is yet to come."""

    def __setstate__(self, state: Sequence[Any]) -> None:
        shape, element, by_column, content = state[-4:]
        if not isinstance(element, _Element) or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise UserError("holds an array whose elements have no type, or whose shape is none")
        if isinstance(content, str):
            content = content.encode("latin-1")  # so Python 2 wrote bytes
        if element.type.hasobject and not (isinstance(content, list) and len(content) == math.prod(shape)):
            raise UserError("holds an array with more elements than it has")  # numpy would read on behind the list
        super().__setstate__((1, tuple(shape), element.type, bool(by_column), content))  # type: ignore[arg-type] # np.bool


class _Reader(pickle.Unpickler):
    """Gives out bound methods and types of C alone, whose working no pickle can change."""

    def find_class(self, module: str, name: str, /) -> Any:
        known: dict[str, object] = {
            "numpy.dtype": self._element,
            "numpy.ndarray": "ndarray",
            "_codecs.encode": self._encode,
            "__builtin__.bytes": self._no_bytes,
            "collections.OrderedDict": dict,  # whose methods no attribute can hide
        }
        for core in ("numpy.core", "numpy._core"):
            known[f"{core}.multiarray._reconstruct"] = self._empty
            known[f"{core}.multiarray.scalar"] = self._scalar
            known[f"{core}.numeric._frombuffer"] = self._from_buffer
        for builtins in ("builtins", "__builtin__"):
            known |= {f"{builtins}.set": set, f"{builtins}.frozenset": frozenset}
        wanted = f"{module}.{name}"
        if wanted not in known:
            raise UserError(f"wants {wanted[:80]}; only plain containers and numpy arrays are read")
        return known[wanted]

    def persistent_load(self, pid: Any, /) -> Any:
        raise UserError("refers to things outside the file")

    def _empty(self, kind: object, shape: object, code: object) -> NDArray[Any]:
        return _Array((0,), np.uint8)

    def _element(self, code: object, align: object = False, copy: object = True) -> _Element:
        return _Element(code)

    def _scalar(self, element: _Element, content: bytes | str) -> Any:
        data = content.encode("latin-1") if isinstance(content, str) else content
        return np.frombuffer(data, element.type, 1)[0]

    def _from_buffer(
        self, content: object, element: _Element, shape: Any, order: Any, axes: Any = None
    ) -> NDArray[Any]:
        if not isinstance(content, bytes | bytearray):  # of a number, bytes() would make that many
            raise UserError("holds an array without content")
        flat = np.frombuffer(content, element.type).copy()
        if order == "K" and axes is not None:
            return flat.reshape(shape).transpose(axes).view(_Array)
        return flat.reshape(shape, order=order).view(_Array)

    def _no_bytes(self) -> bytes:
        return b""

    def _encode(self, text: str, encoding: str) -> bytes:
        if encoding not in ("latin1", "latin-1"):
            raise UserError(f"wants to encode a text as '{encoding}'; only bytes in latin-1 are read")
        return text.encode("latin-1")
