"""Raw corpora that anyone may download: the archive, checked and unpacked.

The download goes on where an earlier one stopped, and the archive gets its name once its length and sha256 are right.
What it holds is unpacked beside it and gets its name once all of it is there. So whatever carries its final name is
whole, however a process ended, and the same command goes on from there.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import tarfile
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

import pooch  # type: ignore[import-untyped]
import requests
import urllib3
from filelock import FileLock, Timeout

from dual_bench.catalog import did_you_mean
from dual_bench.types import UserError

Progress = Callable[[int, int, str], None]
"""(bytes done, bytes in all, what is being done)."""

_CHUNK = 1 << 16
_TRIES = 5
"""Attempts in a row that bring nothing new, before the next address is tried."""
_TIMEOUT = (20.0, 60.0)
"""Seconds until a connection, and until the next bytes."""


@dataclass(frozen=True)
class Remote:
    """A corpus that anyone may download: an archive (.tar.gz) with one folder."""

    name: str
    urls: tuple[str, ...]
    """Addresses of the same bytes; the first that works is used."""
    size: int
    """Bytes of the archive."""
    sha256: str
    root: str
    """The folder in the archive."""
    holds: tuple[str, ...]
    """What is in that folder once all is unpacked, archives in the archive too."""
    licence: str

    @property
    def archive(self) -> str:
        """Its file name."""
        return self.urls[0].rpartition("/")[2]


REMOTES: Mapping[str, Remote] = {
    # The first address: README of https://github.com/declare-lab/MELD; the second: the same group on Hugging Face. The
    # README names no digest. Size and sha256 are what those report who downloaded it: GZXiaoBai/BIMER on GitHub
    # (scripts/prepare_meld_autodl.sh, from the second) and Starryyu77/AutoFusion-bench (results of exp-001).
    "meld": Remote(
        name="meld",
        urls=(
            "https://web.eecs.umich.edu/~mihalcea/downloads/MELD.Raw.tar.gz",
            "https://huggingface.co/datasets/declare-lab/MELD/resolve/main/MELD.Raw.tar.gz",
        ),
        size=10_878_146_150,
        sha256="a56b4407d574195cbce470d86f9c9d72fcfea59b0e34502ecd4babee4a5c613e",
        root="MELD.Raw",
        holds=("train_splits", "dev_splits_complete", "output_repeated_splits_test"),
        licence="MELD: GPL-3.0 for the annotations; the clips are from the TV series Friends and stay its owners'",
    )
}

_MMSA = (
    "is behind links to Google Drive and Baidu at https://github.com/thuiar/MMSA, which take a browser; then name the "
    "file to `dual-bench data extract`"
)
ELSEWHERE: Mapping[str, str] = {
    "iemocap": "is given by its owners to those who ask at https://sail.usc.edu/iemocap/; then name the folder to "
    "`dual-bench data extract`",
    **dict.fromkeys(("mmsa", "mosi", "mosei", "ch-sims"), _MMSA),
}
"""Corpora that cannot be downloaded here, and the end of the sentence that says where they are."""


def find(name: str) -> Remote:
    """The downloadable corpus of that name; UserError says where another is to be had, or the nearest name."""
    if name in ELSEWHERE:
        raise UserError(f"{name} cannot be downloaded by dual-bench: it {ELSEWHERE[name]}")
    if name not in REMOTES:
        raise UserError(f"unknown corpus '{name}'{did_you_mean(name, [*REMOTES, *ELSEWHERE])}")
    return REMOTES[name]


def fetch(
    remote: Remote,
    folder: Path,
    progress: Progress = lambda done, total, what: None,
    wait: Callable[[float], object] = time.sleep,
) -> Path:
    """Download and unpack into ``folder``, and give the unpacked folder; nothing is done where that is there already.

    ``wait`` is given the seconds between attempts. The archive is kept. UserError where no address gives the right
    bytes, the disk is too small, or the archive would write outside of its folder.
    """
    target = folder / remote.root
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{remote.archive}.lock", timeout=0):
            if target.exists():
                if lacking := _lacking(remote, target):
                    raise UserError(
                        f"{target} lacks '{lacking}', so it is not what this command unpacks: move it away, or name "
                        "another folder"
                    )
                return target
            archive = _download(remote, folder, progress, wait)
            _unpack(remote, archive, target, progress)
    except Timeout:
        raise UserError(f"another process is fetching {remote.name} into {folder}; wait until it ends") from None
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}; make room, or name another") from None
    return target


def _lacking(remote: Remote, folder: Path) -> str | None:
    return next((name for name in remote.holds if not (folder / name).exists()), None)


# ------------------------------------------------------------------------------------------ download


class _Interrupted(Exception):
    """The connection or the server failed in a way that may pass."""


class _Refused(Exception):
    """This address will not give the archive."""


def _download(remote: Remote, folder: Path, progress: Progress, wait: Callable[[float], object]) -> Path:
    """The archive, with the length and sha256 that it has to have."""
    downloader = _Resuming(remote, folder, progress, wait)
    archive = folder / remote.archive
    _check_space(remote, folder, 0 if archive.exists() else remote.size - downloader.have)
    downloader.forget_links()
    pooch.get_logger().setLevel("WARNING")  # pooch tells stderr what it does
    if archive.exists():
        progress(0, remote.size, "checking")
    problems: list[str] = []
    for url in remote.urls:
        for _ in range(2):
            try:
                pooch.retrieve(url, remote.sha256, remote.archive, folder, downloader=downloader)
            except _Refused as error:
                problems.append(str(error))
            except ValueError as error:
                problems.append(f"{url}: {str(error).partition('. Deleted')[0]}")
                downloader.forget()
                if downloader.glued:  # what was there before may be what is wrong
                    continue
            else:
                downloader.forget()
                return archive
            break
    advice = f"try again later, or put {remote.archive} into {folder} yourself"
    if downloader.have:
        advice = f"the same command goes on from the {downloader.have:,} bytes in {downloader.part.name}"
    raise UserError(f"{remote.name} cannot be downloaded: {'; '.join(problems)}; {advice}")


def _check_space(remote: Remote, folder: Path, download: int) -> None:
    """Clips hardly compress: the unpacked corpus is taken to be as large as the archive."""
    needed, free = download + remote.size, shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder} has {free / 1e9:.1f} GB free; {remote.name} needs {needed / 1e9:.1f} GB, of which "
            f"{remote.size / 1e9:.1f} GB unpacked: make room, or name a folder on another disk"
        )


@dataclass
class _Resuming:
    """A downloader for pooch that keeps what it has in a file of its own, ``.part``, until the sha256 is right."""

    remote: Remote
    folder: Path
    progress: Progress
    wait: Callable[[float], object]
    glued: bool = False
    """Whether the end of ``part`` came in another answer than its beginning."""

    @property
    def part(self) -> Path:
        return self.folder / f"{self.remote.archive}.part"

    @property
    def origin(self) -> Path:
        """Two lines: where the first byte of ``part`` came from, and the ETag that the file had there."""
        return self.folder / f"{self.remote.archive}.part.origin"

    @property
    def have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.origin.unlink(missing_ok=True)

    def forget_links(self) -> None:
        """Remove what a process left that was killed while pooch computed the sha256."""
        for path in self.folder.glob("tmp*"):
            if self.part.exists() and path.samefile(self.part):
                path.unlink()

    def __call__(self, url: str, output_file: str, manager: object) -> None:
        """Called by pooch, which then compares the sha256 of ``output_file`` and renames it."""
        os.unlink(output_file)  # empty; a killed process would leave it
        self.glued = True  # unless the attempt that completes it starts at 0
        self._complete(url)
        self.progress(self.remote.size, self.remote.size, "checking")
        try:
            os.link(self.part, output_file)  # pooch removes its file when interrupted, and hours of download with it
        except OSError:  # a disk without links
            os.replace(self.part, output_file)

    def _complete(self, url: str) -> None:
        """Fill ``part`` up, in as many attempts as it takes while each brings something new."""
        furthest, failures = self.have, 0
        while True:
            try:
                return self._attempt(url)
            except (_Interrupted, requests.RequestException, urllib3.exceptions.HTTPError) as error:
                failures = failures + 1 if self.have <= furthest else 1
                furthest = max(furthest, self.have)
                if failures == _TRIES:
                    raise _Refused(f"{url}: {failures} attempts failed, the last with: {error}") from None
                seconds = 2.0**failures
                self.progress(self.have, self.remote.size, f"interrupted; trying again in {seconds:.0f} s")
                self.wait(seconds)

    def _attempt(self, url: str) -> None:
        have = self.have
        if have == self.remote.size:
            return
        if have > self.remote.size:
            have = 0
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            origin, _, tag = (
                self.origin.read_text("utf-8", "replace").partition("\n") if self.origin.exists() else ("", "", "")
            )
            if origin == url and tag:
                headers["If-Range"] = tag
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            start = self._start(url, response)
            if start not in (0, have):
                raise _Refused(f"{url} gives the bytes from {start:,} on, where those from {have:,} on were asked for")
            self.glued = start > 0
            if not start:
                tag = response.headers.get("ETag") or ""
                self.origin.write_text(f"{url}\n{'' if tag.startswith('W/') else tag}", "utf-8")  # weak tags may not do
            self._write(url, response, start)

    def _start(self, url: str, response: requests.Response) -> int:
        """The place of the first byte of an answer; raises where it is not an answer with the right file."""
        status = response.status_code
        if status >= 500 or status in (408, 425, 429):
            raise _Interrupted(f"the server answered {status}")
        if status not in (200, 206):
            raise _Refused(f"{url} answered {status} {response.reason}")
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if status == 206 and not found:
            raise _Refused(f"{url} gives a part of the file, and does not say which")
        start, total = (
            (found[1], found[2]) if status == 206 and found else ("0", response.headers.get("Content-Length"))
        )
        if total and total.isdecimal() and int(total) != self.remote.size:
            raise _Refused(f"{url} has another file: expected {self.remote.size:,} bytes, found {int(total):,}")
        return int(start)

    def _write(self, url: str, response: requests.Response, start: int) -> None:
        done = start
        with self.part.open("ab" if start else "wb") as file:
            # Not decoded: some servers call the compression of the archive itself a Content-Encoding.
            for block in cast(urllib3.HTTPResponse, response.raw).stream(_CHUNK, decode_content=False):
                done += len(block)
                if done > self.remote.size:
                    break
                file.write(block)
                self.progress(done, self.remote.size, "downloading")
        if done > self.remote.size:
            self.forget()
            raise _Refused(f"{url} has another file: expected {self.remote.size:,} bytes, found more")
        if done < self.remote.size:
            raise _Interrupted(f"the answer ended after {done:,} bytes")


# ----------------------------------------------------------------------------------------- unpacking


def _unpack(remote: Remote, archive: Path, target: Path, progress: Progress) -> None:
    """Make ``target`` of the archive, whole or not at all."""
    fresh = target.with_name(f"{target.name}.unpacking")
    shutil.rmtree(fresh, ignore_errors=True)  # of a process that was killed
    try:
        fresh.mkdir()
        with archive.open("rb") as file:
            _extract(file, fresh, lambda: progress(file.tell(), remote.size, "unpacking"))
        if lacking := _lacking(remote, fresh / remote.root):
            raise tarfile.ReadError(f"expected '{remote.root}/{lacking}' in it, found none")
        os.rename(fresh / remote.root, target)
    except (OSError, EOFError, ValueError, OverflowError, tarfile.TarError, zlib.error) as error:
        raise UserError(f"{archive} cannot be unpacked, and nothing of it was: {error}") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _extract(file: IO[bytes], folder: Path, report: Callable[[], None], within: bool = False) -> None:
    """Unpack a .tar.gz into ``folder``, and what archives it has into the folder that they lie in (but not those in
    them, ``within``). An archive in the archive is never written: it is as large as what it holds."""
    with gzip.GzipFile(fileobj=file) as plain:
        with tarfile.open(fileobj=plain, mode="r|") as tar:
            for member in tar:
                _check(member, folder)
                path = folder / member.name
                if path.name.startswith("._"):  # written by the tar of macOS, beside each file
                    continue
                inner = tar.extractfile(member) if path.name.endswith(".tar.gz") and not within else None
                if inner:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    _extract(inner, path.parent, report, within=True)
                else:
                    tar.extract(member, folder, filter="data")
                report()
        while plain.read(_CHUNK):  # to the end, where gzip finds out whether all was right
            pass


def _check(member: tarfile.TarInfo, folder: Path) -> None:
    """Raise where a member would be written elsewhere, is no plain file or folder, or has no room.

    Links are refused altogether: a corpus needs none, and before Python 3.11.13 a chain of them gets round the filter
    of tarfile (CVE-2025-4517).
    """
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        raise tarfile.ReadError(f"its member {member.name!r} leads out of the folder")
    if not (member.isreg() or member.isdir()):
        raise tarfile.ReadError(f"its member {member.name!r} is neither a file nor a folder")
    free = shutil.disk_usage(folder).free
    if member.size > free:
        raise tarfile.ReadError(f"its member {member.name!r} needs {member.size:,} bytes, {free:,} are free; make room")
