"""Features by content: what has been encoded once is never encoded again.

A store is a folder with one growing file of float32 rows and an index of (key, first row, rows). The key is a hash of
the content and of every setting of the encoder, so nothing in a store is ever stale. The index is replaced after the
rows it names are on disk; rows past its end come from an interrupted run and are overwritten.
"""

from __future__ import annotations

import hashlib
import os
import time
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from dual_bench.types import Ragged, UserError

EncodeRows = Callable[[list[int]], Iterable[tuple[int, NDArray[np.float32]]]]
"""Positions still to encode -> (position, rows (T, width)) in any order; those that are known already are ignored."""

_FLUSH_ROWS = 200_000
_FLUSH_SECONDS = 10.0
"""What may be lost when a run is killed."""


def default_folder() -> Path:
    """``$DUAL_BENCH_CACHE``, else ``dual-bench`` in the user's cache folder."""
    named = os.environ.get("DUAL_BENCH_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dual-bench"


def content_key(*parts: str | bytes | NDArray[np.generic]) -> str:
    """sha256 over strings, bytes and arrays (with their shape and type), each told apart from its neighbours."""
    return key_of(parts)


def key_of(parts: Iterable[str | bytes | NDArray[np.generic]]) -> str:
    """The same of parts that come one after another, and need not be in memory together."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            head, data = f"{part.dtype.str}{part.shape}", np.ascontiguousarray(part).tobytes()
        else:
            head, data = type(part).__name__, part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass")
        digest.update(f"{head}:{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()


class FeatureStore:
    """Sequences of ``width`` float32 features by key, in ``folder``."""

    def __init__(self, folder: Path, width: int) -> None:
        self.folder = folder
        self.width = width
        self._values = folder / "rows.f32"
        self._index = folder / "index.npz"

    def ensure(self, keys: Sequence[str], encode: EncodeRows) -> tuple[Ragged, int]:
        """The sequences of ``keys``, memory-mapped, and how many had to be encoded now."""
        index, encoded = self._filled(keys, encode)
        return self._rows(index, keys), encoded

    def fill(self, keys: Sequence[str], encode: EncodeRows) -> int:
        """Store what ``encode`` gives of those ``keys`` that are not here yet, and say how many these are."""
        return self._filled(keys, encode)[1]

    def find(self, keys: Sequence[str]) -> Ragged:
        """The sequences of ``keys``, memory-mapped; KeyError where one was never stored."""
        return self._rows(self._read_index(), keys)

    def _filled(self, keys: Sequence[str], encode: EncodeRows) -> tuple[dict[str, tuple[int, int]], int]:
        """The index with all that ``encode`` gives, read once where nothing is to do, and how many were stored now."""
        index = self._read_index()
        if all(key in index for key in keys):
            return index, 0
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "lock"):
            index = self._read_index()
            return index, self._append(index, keys, encode)

    def _rows(self, index: dict[str, tuple[int, int]], keys: Sequence[str]) -> Ragged:
        starts, lengths = np.array([index[key] for key in keys], np.int64).reshape(-1, 2).T
        return Ragged.map(self._values, self.width, starts, lengths)

    def _append(self, index: dict[str, tuple[int, int]], keys: Sequence[str], encode: EncodeRows) -> int:
        first: dict[str, int] = {}
        for i, key in enumerate(keys):
            if key not in index:
                first.setdefault(key, i)
        end = max((start + length for start, length in index.values()), default=0)
        flushed, when, encoded = end, time.monotonic(), 0
        with open(self._values, "r+b" if self._values.exists() else "w+b") as file:
            file.truncate(end * self.width * 4)
            file.seek(0, os.SEEK_END)
            for position, rows in encode(list(first.values())):
                if keys[position] in index:
                    continue
                if rows.ndim != 2 or rows.shape[1] != self.width or not np.isfinite(rows).all():
                    raise UserError(
                        f"features of item {position}: expected finite numbers of shape (steps, {self.width}), "
                        f"found shape {rows.shape}{'' if np.isfinite(rows).all() else ' with NaN or infinity'}"
                    )
                file.write(np.ascontiguousarray(rows, np.float32).tobytes())
                index[keys[position]] = (end, len(rows))
                end += len(rows)
                encoded += 1
                if end - flushed > _FLUSH_ROWS or time.monotonic() - when > _FLUSH_SECONDS:
                    self._commit(file.fileno(), file.flush, index)
                    flushed, when = end, time.monotonic()
            self._commit(file.fileno(), file.flush, index)
        return encoded

    def _commit(self, descriptor: int, flush: Callable[[], None], index: dict[str, tuple[int, int]]) -> None:
        flush()
        os.fsync(descriptor)
        temporary = self._index.with_name(f".index.{os.getpid()}.tmp.npz")
        digests = np.frombuffer(bytes.fromhex("".join(index)), np.uint8).reshape(-1, 32)
        with temporary.open("wb") as file:
            np.savez(file, keys=digests, places=np.array(list(index.values()), np.int64).reshape(-1, 2))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._index)

    def _read_index(self) -> dict[str, tuple[int, int]]:
        try:
            with self._index.open("rb") as file, np.load(file, allow_pickle=False) as saved:
                digests, places = saved["keys"], saved["places"]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"the feature cache {self.folder} is damaged ({error}); remove that folder") from error
        size = self._values.stat().st_size if self._values.exists() else 0
        if len(places) and int(places.sum(axis=1).max()) * self.width * 4 > size:
            raise UserError(
                f"the feature cache {self.folder} is damaged ({self._values.name} is too short); remove that folder"
            )
        return {key.tobytes().hex(): (int(s), int(n)) for key, (s, n) in zip(digests, places, strict=True)}
