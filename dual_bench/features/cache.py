"""Features by content: what has been encoded once is not encoded again while there is room for it.

The stores of the cache (``features.rows``) are CACHE/MODALITY/NAME: one for each encoder of voice or face, and one for
the words of each study; CACHE/bins/NAME is for voices or faces averaged onto the time bins of a model. Words and bins
are soon made again, so ``cached`` keeps these together under a limit by removing whole stores, the least recently used
first, and never one that a living process has used: no row that somebody reads is ever moved or changed. So the limit
is exceeded where the studies that are running need more. Voices and faces may have taken days: they neither count nor
are removed.

What is there can be read where the cache cannot be written to; then nothing is removed either.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from pydantic import ByteSize, TypeAdapter, ValidationError

from dual_bench.features.rows import FORBIDDEN, INDEX, LOCKS, ROWS, EncodeRows, FeatureStore, Told, unheard
from dual_bench.types import Ragged, UserError

_USED, _USER = "used", ".user"
_GONE = ".gone-"
"""How the name of a store begins that is being removed."""
_LIMIT = "20 GB"
BINS = "bins"
_LIMITED = ("text", BINS)
"""The kinds of stores that the limit is for."""


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


def cached(
    folder: Path, width: int, keys: Sequence[str], encode: EncodeRows, told: Told = unheard
) -> tuple[Ragged, int]:
    """``FeatureStore.ensure`` in the store ``folder``, CACHE/MODALITY/NAME, which stays as long as this process lives.

    Then stores of words and bins that nobody uses are removed, the least recently used first, until what is left of
    these is within ``$DUAL_BENCH_CACHE_LIMIT``. UserError where that is no size.
    """
    limit, cache = _limit(), folder.parents[1]
    marked = folder.parent.name in _LIMITED and _use(folder)
    found = FeatureStore(folder, width, told).ensure(keys, encode)
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
        if error.errno not in FORBIDDEN:
            raise
        return False
    return True


def _stores_lock(cache: Path) -> FileLock:
    """What everything below is done under."""
    return FileLock(cache / "stores.lock", mode=LOCKS)


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
    lock = FileLock(path, mode=LOCKS)
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
        with FileLock(path, timeout=0, mode=LOCKS):
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
            found = {name: folder / name for name in (_USED, INDEX, ROWS) if (folder / name).is_file()}
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
