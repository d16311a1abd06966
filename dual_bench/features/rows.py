"""A store of features: a folder with one growing file of float32 rows, and an index of what lies where.

The index has (key, first row, rows, their CRC-32). The key is a hash of the content and of every setting of the
encoder, so nothing in a store is ever stale. The index is replaced after the rows it names are on disk; rows past its
end come from an interrupted run and are overwritten.

Whatever is asked for is first checked, once by every ``FeatureStore``: a sequence that is not what was written is made
again, and so is everything where the index cannot be read. What is made again is appended, for others may have mapped
what was there. The index itself is a zip archive, which has such sums of its own.
"""

from __future__ import annotations

import errno
import io
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from dual_bench.durable import sync_folder
from dual_bench.types import IntArray, Ragged, UserError

EncodeRows = Callable[[list[int]], Iterable[tuple[int, NDArray[np.float32]]]]
"""Positions still to encode -> (position, rows (T, width)) in any order; those that are known already are ignored."""

Told = Callable[[str], None]
"""Is told in a sentence what was found damaged, and what was done about it."""


def unheard(what: str) -> None:
    """A sentence to nobody."""


_FLUSH_ROWS = 200_000
_FLUSH_SECONDS = 10.0
"""What may be lost when a run is killed."""
ROWS, INDEX = "rows.f32", "index.npz"
LOCKS = 0o666
"""Mode of files that everybody who shares a cache must be able to lock."""
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_BLOCK = 1 << 20
"""Bytes that are read or written at a time."""
_ABSENT, _DAMAGED = -1, -2
"""In place of the first row of a sequence."""
_UNSUMMED, _LOST = -1, -2
"""In place of a CRC-32: in an index from before there were any, and where the file of rows ends too early."""


@dataclass(frozen=True)
class _Index:
    """Of each key, 32 bytes, its first row, how many there are and their CRC-32: ``keys`` (n,), ``places`` (n, 3).

    Of a key that was stored again, as its rows had been damaged, the last place counts. ``fault`` says why an index
    could not be read.
    """

    keys: NDArray[np.bytes_]
    places: IntArray
    fault: str = ""

    @classmethod
    def lost(cls, rows: int, fault: str) -> _Index:
        """One that knows nothing but that ``rows`` rows are there, which somebody may read."""
        return cls(_bytes_of(["00" * 32]), np.array([[0, rows, _LOST]], np.int64), fault)

    def find(self, keys: Sequence[str]) -> IntArray:
        """Places (m, 3) of ``keys``; all of it is -1 where one is not here."""
        wanted = _bytes_of(keys)
        if not len(self.keys):
            return np.full((len(wanted), 3), _ABSENT, np.int64)
        order = np.argsort(self.keys, kind="stable")
        at = np.searchsorted(self.keys, wanted, side="right", sorter=order) - 1
        at = order[np.maximum(at, 0)]
        return np.where((self.keys[at] == wanted)[:, None], self.places[at], _ABSENT)

    def with_more(self, more: dict[str, tuple[int, int, int]]) -> _Index:
        places = np.array(list(more.values()), np.int64).reshape(-1, 3)
        return _Index(np.concatenate([self.keys, _bytes_of(list(more))]), np.concatenate([self.places, places]))

    @property
    def ends(self) -> IntArray:
        """Of each place (n,), the row after it."""
        return self.places[:, 0] + self.places[:, 1]

    @property
    def end(self) -> int:
        """The first row that is free."""
        return int(self.ends.max(initial=0))


def _bytes_of(keys: Sequence[str]) -> NDArray[np.bytes_]:
    return np.frombuffer(bytes.fromhex("".join(keys)), "S32")


class FeatureStore:
    """Sequences of ``width`` float32 features by key, in ``folder``; ``told`` hears of damage that was made good."""

    def __init__(self, folder: Path, width: int, told: Told = unheard) -> None:
        self.folder = folder
        self.width = width
        self._told = told
        self._values = folder / ROWS
        self._index = folder / INDEX
        self._whole = np.empty(0, np.int64)
        """The first rows of sequences that need not be checked any more."""

    def ensure(self, keys: Sequence[str], encode: EncodeRows) -> tuple[Ragged, int]:
        """The sequences of ``keys``, memory-mapped, and how many had to be encoded now.

        UserError where something has to be, and the folder can only be read.
        """
        places, encoded = self._filled(keys, encode)
        return self._rows(places, keys), encoded

    def fill(self, keys: Sequence[str], encode: EncodeRows) -> int:
        """Store what ``encode`` gives of those ``keys`` that are not here yet, and say how many these are."""
        return self._filled(keys, encode)[1]

    def find(self, keys: Sequence[str]) -> Ragged:
        """The sequences of ``keys``, memory-mapped; KeyError where one was never stored, UserError where one is
        damaged."""
        index = self._read_index()
        places = self._checked(index, keys)
        if wrong := self._wrong(index, places, keys):
            raise UserError(f"the feature cache {self.folder} is damaged ({wrong}); remove that folder")
        return self._rows(places, keys)

    def missing(self, keys: Sequence[str]) -> NDArray[np.bool_]:
        """Which of ``keys`` (n,) are not stored; whether the others are whole is seen when they are used."""
        found: NDArray[np.bool_] = self._read_index().find(keys)[:, 0] < 0
        return found

    def _filled(self, keys: Sequence[str], encode: EncodeRows) -> tuple[IntArray, int]:
        """The places of ``keys`` with all that ``encode`` gives, and how many were stored now."""
        index = self._read_index()
        places = self._checked(index, keys)
        if (places[:, 0] >= 0).all():
            return places, 0
        with self._locked(self._wrong(index, places, keys)):
            index = self._read_index()
            places = self._checked(index, keys)
            if wrong := self._wrong(index, places, keys):
                beside = ", beside rows that nobody knows any more" if index.fault else ""
                self._told(f"{self.folder} is damaged ({wrong}): that is made again{beside}")
            index, encoded = self._append(index, keys, places[:, 0] < 0, encode)
            return self._checked(index, keys), encoded

    @contextmanager
    def _locked(self, wrong: str) -> Iterator[None]:
        """Alone with the store; UserError with what is ``wrong`` with it, if anything, where it can only be read."""
        lock = FileLock(self.folder / "lock", mode=LOCKS)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            if error.errno not in FORBIDDEN:
                raise
            raise UserError(
                f"the feature cache {self.folder} {f'is damaged ({wrong})' if wrong else 'lacks what is asked for'} "
                "and cannot be written to; make it writable, or choose another folder"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _checked(self, index: _Index, keys: Sequence[str]) -> IntArray:
        """Places (m, 3) of ``keys``; the first row is negative where a sequence is not here, or not as it was
        written."""
        places = index.find(keys)
        asked = places[places[:, 1] > 0]
        asked = asked[np.unique(asked[:, 0], return_index=True)[1]]
        asked = asked[~np.isin(asked[:, 0], self._whole)]
        damaged = self._damaged(asked)
        self._whole = np.union1d(self._whole, np.setdiff1d(asked[:, 0], damaged))
        places[np.isin(places[:, 0], damaged) & (places[:, 1] > 0), 0] = _DAMAGED
        return places

    def _damaged(self, places: IntArray) -> list[int]:
        """The first rows of ``places`` (n, 3), in the order of rows, that hold something else than was written.

        Read, not mapped: memory for a sequence at a time is enough, and a file that another process cuts short does
        not end this one.
        """
        stride = 4 * self.width
        found: list[int] = places[places[:, 2] == _LOST, 0].tolist()
        summed = places[places[:, 2] >= 0]
        if len(summed):
            with self._values.open("rb", buffering=_BLOCK) as file:
                for start, length, check in summed.tolist():
                    file.seek(start * stride)
                    if zlib.crc32(file.read(length * stride)) != check:
                        found.append(start)
        return found

    def _wrong(self, index: _Index, places: IntArray, keys: Sequence[str]) -> str:
        """What is damaged; empty where nothing is."""
        if index.fault:
            return f"{self._index.name}: {index.fault}"
        damaged = len({keys[i] for i in np.flatnonzero(places[:, 0] == _DAMAGED).tolist()})
        return f"{damaged} of {len(set(keys))} sequences in {self._values.name}" if damaged else ""

    def _rows(self, places: IntArray, keys: Sequence[str]) -> Ragged:
        missing = np.flatnonzero(places[:, 0] < 0)
        if len(missing):
            raise KeyError(keys[missing[0]])
        return Ragged.map(self._values, self.width, *np.ascontiguousarray(places[:, :2].T))

    def _append(
        self, index: _Index, keys: Sequence[str], missing: NDArray[np.bool_], encode: EncodeRows
    ) -> tuple[_Index, int]:
        first: dict[str, int] = {}
        for i in np.flatnonzero(missing).tolist():
            first.setdefault(keys[i], i)
        more: dict[str, tuple[int, int, int]] = {}
        end = flushed = index.end
        when = time.monotonic()
        with open(self._values, "r+b" if self._values.exists() else "w+b") as file:
            if file.seek(0, os.SEEK_END) < end * self.width * 4:  # as long as it was again, it shall not seem whole
                self._commit(file.fileno(), file.flush, index)
            self._cut(file, end * self.width * 4)
            for position, rows in encode(list(first.values())):
                key = keys[position]
                if key in more or key not in first:
                    continue
                if rows.ndim != 2 or rows.shape[1] != self.width or not np.isfinite(rows).all():
                    raise UserError(
                        f"features of item {position}: expected finite numbers of shape (steps, {self.width}), "
                        f"found shape {rows.shape}{'' if np.isfinite(rows).all() else ' with NaN or infinity'}"
                    )
                content = np.ascontiguousarray(rows, np.float32).tobytes()
                file.write(content)
                more[key] = (end, len(rows), zlib.crc32(content))
                end += len(rows)
                if end - flushed > _FLUSH_ROWS or time.monotonic() - when > _FLUSH_SECONDS:
                    self._commit(file.fileno(), file.flush, index.with_more(more))
                    flushed, when = end, time.monotonic()
            index = index.with_more(more)
            self._commit(file.fileno(), file.flush, index)
        written = np.array([start for start, length, _ in more.values() if length], np.int64)
        self._whole = np.union1d(self._whole, written)
        return index, len(more)

    @staticmethod
    def _cut(file: BinaryIO, end: int) -> None:
        """Go to byte ``end``, which is then the end of the file.

        Where it ended before that, rows were lost: who still believes in them shall find NaN, never zeros.
        """
        size = file.seek(0, os.SEEK_END)
        file.truncate(min(size, end))
        file.seek(0, os.SEEK_END)
        for start in range(size, end, _BLOCK):
            file.write(b"\xff" * min(_BLOCK, end - start))

    def _commit(self, descriptor: int, flush: Callable[[], None], index: _Index) -> None:
        flush()
        os.fsync(descriptor)
        temporary = self._index.with_name(".index.tmp.npz")  # one for all: a killed process leaves no more than that
        try:
            with temporary.open("wb") as file:
                keys = index.keys.view(np.uint8).reshape(-1, 32)
                np.savez(file, keys=keys, places=index.places[:, :2], sums=index.places[:, 2])
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._index)
            sync_folder(self.folder)
        finally:
            temporary.unlink(missing_ok=True)

    def _read_index(self) -> _Index:
        try:
            content = self._index.read_bytes()
        except FileNotFoundError:
            return _Index(np.empty(0, "S32"), np.empty((0, 3), np.int64))
        size = self._values.stat().st_size if self._values.exists() else 0
        stride = 4 * self.width
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as saved:
                keys = np.ascontiguousarray(saved["keys"]).view("S32").reshape(-1)
                sums = saved["sums"] if "sums" in saved else np.full(len(keys), _UNSUMMED)
                index = _Index(keys, np.column_stack([saved["places"], sums]))
        except Exception as error:  # of damaged bytes anything may come
            return _Index.lost(-(-size // stride), " ".join(str(error).split()) or type(error).__name__)
        index.places[(index.ends * stride > size) & (index.places[:, 1] > 0), 2] = _LOST
        return index
