"""Features by content: what has been encoded once is not encoded again while there is room for it.

The stores of the cache are CACHE/MODALITY/NAME: one for each encoder of voice or face, and one for the words of each
study; CACHE/bins/NAME is for voices or faces averaged onto the time bins of a model. Words and bins are soon made
again, so ``cached`` keeps these together under a limit by removing whole stores, the least recently used first, and
never one that a living process has used: no row that somebody reads is ever moved or changed. So the limit is exceeded
where the studies that are running need more. Voices and faces may have taken days: they neither count nor are removed.

What is there can be read where the cache cannot be written to; then nothing is removed either.

A store is a folder with one growing file of float32 rows and an index of (key, first row, rows). The key is a hash of
the content and of every setting of the encoder, so nothing in a store is ever stale. The index is replaced after the
rows it names are on disk; rows past its end come from an interrupted run and are overwritten.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from pydantic import ByteSize, TypeAdapter, ValidationError

from dual_bench.types import IntArray, Ragged, UserError

EncodeRows = Callable[[list[int]], Iterable[tuple[int, NDArray[np.float32]]]]
"""Positions still to encode -> (position, rows (T, width)) in any order; those that are known already are ignored."""

_FLUSH_ROWS = 200_000
_FLUSH_SECONDS = 10.0
"""What may be lost when a run is killed."""
_ROWS, _INDEX, _USED, _USER = "rows.f32", "index.npz", "used", ".user"
_GONE = ".gone-"
"""How the name of a store begins that is being removed."""
_LIMIT = "20 GB"
BINS = "bins"
_LIMITED = ("text", BINS)
"""The kinds of stores that the limit is for."""
_LOCKS = 0o666
"""Of files that everybody who shares a cache must be able to lock."""


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


@dataclass(frozen=True)
class _Index:
    """Of each key, 32 bytes, its first row and how many there are: ``keys`` (n,), ``places`` (n, 2)."""

    keys: NDArray[np.bytes_]
    places: IntArray

    def find(self, keys: Sequence[str]) -> IntArray:
        """Places (m, 2) of ``keys``; the first row is -1 where one is not here."""
        wanted = _bytes_of(keys)
        if not len(self.keys):
            return np.full((len(wanted), 2), -1, np.int64)
        order = np.argsort(self.keys)
        at = np.searchsorted(self.keys, wanted, sorter=order)
        at = order[np.minimum(at, len(order) - 1)]
        return np.where((self.keys[at] == wanted)[:, None], self.places[at], -1)

    def with_more(self, more: dict[str, tuple[int, int]]) -> _Index:
        places = np.array(list(more.values()), np.int64).reshape(-1, 2)
        return _Index(np.concatenate([self.keys, _bytes_of(list(more))]), np.concatenate([self.places, places]))

    @property
    def end(self) -> int:
        """The first row that is free."""
        return int(self.places.sum(axis=1).max(initial=0))


def _bytes_of(keys: Sequence[str]) -> NDArray[np.bytes_]:
    return np.frombuffer(bytes.fromhex("".join(keys)), "S32")


class FeatureStore:
    """Sequences of ``width`` float32 features by key, in ``folder``."""

    def __init__(self, folder: Path, width: int) -> None:
        self.folder = folder
        self.width = width
        self._values = folder / _ROWS
        self._index = folder / _INDEX

    def ensure(self, keys: Sequence[str], encode: EncodeRows) -> tuple[Ragged, int]:
        """The sequences of ``keys``, memory-mapped, and how many had to be encoded now."""
        places, encoded = self._filled(keys, encode)
        return self._rows(places, keys), encoded

    def fill(self, keys: Sequence[str], encode: EncodeRows) -> int:
        """Store what ``encode`` gives of those ``keys`` that are not here yet, and say how many these are."""
        return self._filled(keys, encode)[1]

    def find(self, keys: Sequence[str]) -> Ragged:
        """The sequences of ``keys``, memory-mapped; KeyError where one was never stored."""
        return self._rows(self._read_index().find(keys), keys)

    def _filled(self, keys: Sequence[str], encode: EncodeRows) -> tuple[IntArray, int]:
        """The places of ``keys`` with all that ``encode`` gives, and how many were stored now."""
        places = self._read_index().find(keys)
        if (places[:, 0] >= 0).all():
            return places, 0
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "lock", mode=_LOCKS):
            index = self._read_index()
            index, encoded = self._append(index, keys, index.find(keys)[:, 0] < 0, encode)
            return index.find(keys), encoded

    def _rows(self, places: IntArray, keys: Sequence[str]) -> Ragged:
        missing = np.flatnonzero(places[:, 0] < 0)
        if len(missing):
            raise KeyError(keys[missing[0]])
        return Ragged.map(self._values, self.width, *np.ascontiguousarray(places.T))

    def _append(
        self, index: _Index, keys: Sequence[str], missing: NDArray[np.bool_], encode: EncodeRows
    ) -> tuple[_Index, int]:
        first: dict[str, int] = {}
        for i in np.flatnonzero(missing).tolist():
            first.setdefault(keys[i], i)
        more: dict[str, tuple[int, int]] = {}
        end = flushed = index.end
        when = time.monotonic()
        with open(self._values, "r+b" if self._values.exists() else "w+b") as file:
            file.truncate(end * self.width * 4)
            file.seek(0, os.SEEK_END)
            for position, rows in encode(list(first.values())):
                key = keys[position]
                if key in more or key not in first:
                    continue
                if rows.ndim != 2 or rows.shape[1] != self.width or not np.isfinite(rows).all():
                    raise UserError(
                        f"features of item {position}: expected finite numbers of shape (steps, {self.width}), "
                        f"found shape {rows.shape}{'' if np.isfinite(rows).all() else ' with NaN or infinity'}"
                    )
                file.write(np.ascontiguousarray(rows, np.float32).tobytes())
                more[key] = (end, len(rows))
                end += len(rows)
                if end - flushed > _FLUSH_ROWS or time.monotonic() - when > _FLUSH_SECONDS:
                    self._commit(file.fileno(), file.flush, index.with_more(more))
                    flushed, when = end, time.monotonic()
            index = index.with_more(more)
            self._commit(file.fileno(), file.flush, index)
        return index, len(more)

    def _commit(self, descriptor: int, flush: Callable[[], None], index: _Index) -> None:
        flush()
        os.fsync(descriptor)
        temporary = self._index.with_name(f".index.{os.getpid()}.tmp.npz")
        with temporary.open("wb") as file:
            np.savez(file, keys=index.keys.view(np.uint8).reshape(-1, 32), places=index.places)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._index)

    def _read_index(self) -> _Index:
        try:
            with self._index.open("rb") as file, np.load(file, allow_pickle=False) as saved:
                index = _Index(np.ascontiguousarray(saved["keys"]).view("S32").reshape(-1), saved["places"])
        except FileNotFoundError:
            return _Index(np.empty(0, "S32"), np.empty((0, 2), np.int64))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"the feature cache {self.folder} is damaged ({error}); remove that folder") from error
        size = self._values.stat().st_size if self._values.exists() else 0
        if index.end * self.width * 4 > size:
            raise UserError(
                f"the feature cache {self.folder} is damaged ({self._values.name} is too short); remove that folder"
            )
        return index


# ------------------------------------------------------------------------------------- the cache and its limit


def cached(folder: Path, width: int, keys: Sequence[str], encode: EncodeRows) -> tuple[Ragged, int]:
    """``FeatureStore.ensure`` in the store ``folder``, CACHE/MODALITY/NAME, which stays as long as this process lives.

    Then stores of words and bins that nobody uses are removed, the least recently used first, until what is left of
    these is within ``$DUAL_BENCH_CACHE_LIMIT``. UserError where that is no size.
    """
    limit, cache = _limit(), folder.parents[1]
    marked = folder.parent.name in _LIMITED and _use(folder)
    found = FeatureStore(folder, width).ensure(keys, encode)
    if marked:
        with suppress(OSError):  # it is only housekeeping
            _evict(cache, limit)
    return found


def _limit() -> int:
    """Bytes that the stores of the cache may take."""
    named = os.environ.get("DUAL_BENCH_CACHE_LIMIT") or _LIMIT
    try:
        return int(TypeAdapter(ByteSize).validate_python(named))
    except ValidationError:
        raise UserError(f"DUAL_BENCH_CACHE_LIMIT: expected a size such as '{_LIMIT}', found '{named}'") from None


def _use(folder: Path) -> bool:
    """Keep the store ``folder`` while this process lives; False where one may read the cache at most."""
    cache = folder.parents[1]
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _stores_lock(cache):
            folder.mkdir(parents=True, exist_ok=True)
            _in_use(cache, folder)
            (folder / f"{_user(cache).name}{_USER}").touch()
            used = folder / _USED
            used.touch()
            now = time.time_ns()  # finer than the clock of the file system
            os.utime(used, ns=(now, now))
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return False
    return True


def _stores_lock(cache: Path) -> FileLock:
    """What everything below is done under."""
    return FileLock(cache / "stores.lock", mode=_LOCKS)


@dataclass(frozen=True)
class _User:
    """This process, to others: alive as long as it holds its lock."""

    name: str
    lock: FileLock


@functools.cache
def _user(cache: Path) -> _User:
    name = uuid4().hex
    path = _lock_of(cache, name)
    path.parent.mkdir(exist_ok=True)
    lock = FileLock(path, mode=_LOCKS)
    lock.acquire()
    return _User(name, lock)


def _lock_of(cache: Path, user: str) -> Path:
    return cache / "users" / f"{user}.lock"


def _alive(cache: Path, user: str) -> bool:
    """Whether a process lives, or nobody can say; the lock of one that does not is removed."""
    path = _lock_of(cache, user)
    if user == _user(cache).name:
        return True
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0, mode=_LOCKS):
            pass
    except OSError:  # a Timeout is one
        return True
    with suppress(OSError):
        path.unlink()  # not while it is open, which not every system allows
    return False


def _evict(cache: Path, limit: int) -> None:
    """Remove stores until ``limit`` bytes are left, or what is in use."""
    with _stores_lock(cache):
        for lock in list((cache / "users").glob("*.lock")):
            _alive(cache, lock.stem)
        stores = sorted(_stores(cache))
        total = sum(size for _, _, size in stores)
        for _, folder, size in stores:
            if total <= limit:
                return
            with suppress(OSError):  # that of another user, or open elsewhere: perhaps the next can be removed
                if not _in_use(cache, folder):
                    # by its new name nobody finds it, whenever this process is killed
                    shutil.rmtree(folder.rename(folder.with_name(f"{_GONE}{folder.name}")))
                    total -= size


def _stores(cache: Path) -> Iterator[tuple[int, Path, int]]:
    """When each store was used last, its folder and its size in bytes; what was half removed is removed."""
    for kind in _LIMITED:
        for folder in (cache / kind).glob("*"):
            if folder.name.startswith(_GONE):
                shutil.rmtree(folder, ignore_errors=True)
                continue
            found = {name: folder / name for name in (_USED, _INDEX, _ROWS) if (folder / name).is_file()}
            if found:
                facts = {name: path.stat() for name, path in found.items()}
                when = facts.get(_USED) or max(facts.values(), key=lambda fact: fact.st_mtime_ns)
                yield when.st_mtime_ns, folder, sum(fact.st_size for fact in facts.values())


def _in_use(cache: Path, folder: Path) -> bool:
    """Whether a process that has used the store still lives; the marks of those that do not are removed."""
    living = False
    for mark in list(folder.glob(f"*{_USER}")):
        if _alive(cache, mark.name.removesuffix(_USER)):
            living = True
        else:
            mark.unlink()
    return living
