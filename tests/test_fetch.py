"""Downloads over a connection that breaks from a server that errs, and archives that mean harm."""

from __future__ import annotations

import gzip
import hashlib
import io
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pooch
import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from dual_bench.datasets.fetch import ELSEWHERE, REMOTES, Remote, fetch, find
from dual_bench.seeding import generator
from dual_bench.types import UserError

Members = Mapping[str, bytes]


def tar_gz(members: Members, *more: tarfile.TarInfo) -> bytes:
    made = io.BytesIO()
    # a time in its head would make another archive of another length, and tests of other names, in every process
    with gzip.GzipFile(fileobj=made, mode="wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in more:
            tar.addfile(info)
    return made.getvalue()


CLIP = generator(0, "clip").bytes(300_000)
FILES: Members = {
    "train_splits/dia0_utt0.mp4": CLIP,
    "train_sent_emo.csv": b"train",
    "dev_splits_complete/dia0_utt0.mp4": b"dev clip",
    "output_repeated_splits_test/dia0_utt0.mp4": b"test clip",
    "dev_sent_emo.csv": b"dev",
}
NESTED: Members = {
    "train.tar.gz": tar_gz({name: FILES[name] for name in FILES if name.startswith("train")}),
    "dev.tar.gz": tar_gz(
        {"dev_splits_complete/dia0_utt0.mp4": b"dev clip", "dev_splits_complete/._dia0_utt0.mp4": b"of macOS"}
    ),
    "test.tar.gz": tar_gz({"output_repeated_splits_test/dia0_utt0.mp4": b"test clip"}),
    "dev_sent_emo.csv": FILES["dev_sent_emo.csv"],
}


def like_meld(members: Members, *more: tarfile.TarInfo) -> bytes:
    return tar_gz({f"MELD.Raw/{name}": content for name, content in members.items()}, *more)


ARCHIVE = like_meld(NESTED)
OTHER = bytes(len(ARCHIVE))


# ------------------------------------------------------------------------------------------- server


@dataclass(frozen=True)
class Answer:
    """What the server does with a request."""

    body: bytes = ARCHIVE
    status: int = 200
    etag: str = '"one"'
    ranges: bool = True
    breaks_after: int | None = None
    """Bytes of this answer, after which the connection is closed."""
    says: Mapping[str, str | None] = field(default_factory=dict)
    """Headers in place of the right ones; None leaves one out."""


@dataclass
class Server:
    """Gives its answers in their order, and the last one ever after; ``seen`` has (path, Range, If-Range)."""

    url: str
    answers: list[Answer]
    seen: list[tuple[str, str | None, str | None]] = field(default_factory=list)

    @property
    def starts(self) -> list[int]:
        """The first byte that each request asked for."""
        return [int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0 for _, asked, _ in self.seen]

    def remote(self, archive: bytes = ARCHIVE, *urls: str) -> Remote:
        digest = hashlib.sha256(archive).hexdigest()
        return replace(
            REMOTES["meld"],
            urls=urls or (f"{self.url}/MELD.Raw.tar.gz",),
            size=len(archive),
            sha256=digest,
        )


def respond(handler: BaseHTTPRequestHandler, answer: Answer) -> None:
    asked, condition = handler.headers["Range"], handler.headers["If-Range"]
    start, status = 0, answer.status
    headers: dict[str, str | None] = {"ETag": answer.etag or None}
    if asked and answer.ranges and status == 200 and condition in (None, answer.etag):
        start, status = int(asked.removeprefix("bytes=").rstrip("-")), 206
        headers["Content-Range"] = f"bytes {start}-{len(answer.body) - 1}/{len(answer.body)}"
    rest = answer.body[start:] if status < 300 else b""
    headers["Content-Length"] = str(len(rest))
    handler.send_response(status)
    for name, value in {**headers, **answer.says}.items():
        if value is not None:
            handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(rest[: answer.breaks_after])


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


class serving:
    """A server on a port of its own, in a thread."""

    def __enter__(self) -> Server:
        state = Server("", [Answer()])

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                state.seen.append((self.path, self.headers["Range"], self.headers["If-Range"]))
                answer = state.answers.pop(0) if len(state.answers) > 1 else state.answers[0]
                try:
                    respond(self, answer)
                except ConnectionError:  # the client had enough
                    self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=lambda: self._server.serve_forever(0.01))
        self._thread.start()
        state.url = f"http://127.0.0.1:{self._server.server_port}"
        return state

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def never(seconds: float) -> None:
    raise AssertionError(f"waits {seconds} s")


def at_once(seconds: float) -> None:
    pass


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(folder: Path) -> set[str]:
    """What lies in a folder, but for the lock."""
    return {path.name for path in folder.iterdir()} - {".MELD.Raw.tar.gz.lock"}


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------------ download


def test_a_corpus_is_downloaded_and_unpacked_as_its_reader_expects(server: Server, tmp_path: Path) -> None:
    folder = fetch(server.remote(), tmp_path / "new" / "data", wait=never)
    assert folder == tmp_path / "new" / "data" / "MELD.Raw"
    assert content(folder) == FILES
    assert names(folder.parent) == {"MELD.Raw", "MELD.Raw.tar.gz"}
    assert (folder.parent / "MELD.Raw.tar.gz").read_bytes() == ARCHIVE


def test_what_is_there_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    fetch(server.remote(), tmp_path)
    fetch(server.remote(), tmp_path)
    shutil.rmtree(tmp_path / "MELD.Raw")
    assert content(fetch(server.remote(), tmp_path)) == FILES
    assert len(server.seen) == 1


def test_a_damaged_archive_is_downloaded_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "MELD.Raw.tar.gz").write_bytes(OTHER)
    assert content(fetch(server.remote(), tmp_path)) == FILES
    assert (tmp_path / "MELD.Raw.tar.gz").read_bytes() == ARCHIVE


def test_a_folder_of_that_name_that_lacks_the_clips_is_left_alone(server: Server, tmp_path: Path) -> None:
    (tmp_path / "MELD.Raw").mkdir()
    (tmp_path / "MELD.Raw" / "train.tar.gz").write_bytes(b"mine")
    assert "lacks 'train_splits'" in refused(lambda: fetch(server.remote(), tmp_path))
    assert content(tmp_path / "MELD.Raw") == {"train.tar.gz": b"mine"}
    assert not server.seen


@settings(max_examples=25)
@given(st.lists(st.integers(1, 200_000), max_size=12))
def test_however_the_connection_breaks_only_what_is_missing_is_asked_for(sent: list[int]) -> None:
    with serving() as server, tempfile.TemporaryDirectory() as folder:
        server.answers = [*(Answer(breaks_after=count) for count in sent), Answer()]
        assert content(fetch(server.remote(), Path(folder), wait=at_once)) == FILES
        held = 0
        for place, (start, (_, _, condition)) in enumerate(zip(server.starts, server.seen, strict=True)):
            assert start == held
            assert condition == ('"one"' if held else None)
            held += sent[place] if place < len(sent) else len(ARCHIVE)


def test_waits_grow_until_something_new_arrives(server: Server, tmp_path: Path) -> None:
    down = Answer(status=503)
    server.answers = [down, down, Answer(breaks_after=1000), down, Answer(status=429), Answer(status=500), Answer()]
    waits: list[float] = []
    assert content(fetch(server.remote(), tmp_path, wait=waits.append)) == FILES
    assert waits == [2, 4, 2, 4, 8, 16]


def test_a_server_that_brings_nothing_new_is_given_up(server: Server, tmp_path: Path) -> None:
    server.answers = [Answer(breaks_after=1000), Answer(status=503)]
    waits: list[float] = []
    message = refused(lambda: fetch(server.remote(), tmp_path, wait=waits.append))
    assert "the server answered 503; the same command goes on from the 1,000 bytes in MELD.Raw.tar.gz.part" in message
    assert waits == [2, 4, 8, 16]
    server.answers = [Answer()]
    assert content(fetch(server.remote(), tmp_path, wait=never)) == FILES
    assert server.starts[-1] == 1000


def test_a_server_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    server.answers = [Answer(breaks_after=100_000, ranges=False), Answer(ranges=False)]
    assert content(fetch(server.remote(), tmp_path, wait=at_once)) == FILES
    assert server.starts == [0, 100_000]


def test_a_server_without_ranges_that_gets_no_further_is_given_up(server: Server, tmp_path: Path) -> None:
    server.answers = [Answer(breaks_after=count, ranges=False) for count in (100_000, 50_000) * 3]
    assert "cannot be downloaded" in refused(lambda: fetch(server.remote(), tmp_path, wait=at_once))
    assert len(server.seen) == 5


def test_a_file_that_changes_on_the_way_is_not_glued(server: Server, tmp_path: Path) -> None:
    server.answers = [Answer(OTHER, etag='"old"', breaks_after=100_000), Answer(etag='"new"')]
    assert content(fetch(server.remote(), tmp_path, wait=at_once)) == FILES
    assert [condition for _, _, condition in server.seen] == [None, '"old"']


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_a_change_that_the_server_does_not_tell_is_found_and_the_download_repeated(
    server: Server, tmp_path: Path, etag: str
) -> None:
    server.answers = [Answer(OTHER, etag=etag, breaks_after=100_000), Answer(etag=etag)]
    assert content(fetch(server.remote(), tmp_path, wait=at_once)) == FILES
    assert server.starts == [0, 100_000, 0]
    assert {condition for _, _, condition in server.seen} == {None}


def test_damage_on_the_disk_is_found_and_the_download_repeated(server: Server, tmp_path: Path) -> None:
    (tmp_path / "MELD.Raw.tar.gz.part").write_bytes(OTHER)
    assert content(fetch(server.remote(), tmp_path, wait=never)) == FILES
    assert server.starts == [0]


def test_a_wrong_sha256_gets_no_name_and_is_not_kept(server: Server, tmp_path: Path) -> None:
    server.answers = [Answer(OTHER)]
    message = refused(lambda: fetch(server.remote(), tmp_path, wait=never))
    assert hashlib.sha256(ARCHIVE).hexdigest() in message
    assert hashlib.sha256(OTHER).hexdigest() in message
    assert message.endswith(f"; try again later, or put MELD.Raw.tar.gz into {tmp_path} yourself")
    assert names(tmp_path) == set()
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("says", "found"),
    [
        ({"Content-Length": str(len(ARCHIVE) + 5)}, f"{len(ARCHIVE) + 5:,}"),
        ({"Content-Length": str(len(ARCHIVE) - 5)}, f"{len(ARCHIVE) - 5:,}"),
    ],
)
def test_a_file_of_another_length_is_refused_before_it_is_read(
    server: Server, tmp_path: Path, says: dict[str, str | None], found: str
) -> None:
    server.answers = [Answer(says=says)]
    message = refused(lambda: fetch(server.remote(), tmp_path, wait=never))
    assert f"expected {len(ARCHIVE):,} bytes, found {found}" in message
    assert names(tmp_path) == set()


def test_without_a_length_the_bytes_are_counted(server: Server, tmp_path: Path) -> None:
    unsaid: dict[str, str | None] = {"Content-Length": None}
    server.answers = [Answer(ARCHIVE + b"more", says=unsaid)]
    read: list[int] = []
    message = refused(lambda: fetch(server.remote(), tmp_path, lambda done, *_: read.append(done), never))
    assert "found more" in message
    assert max(read) <= len(ARCHIVE)
    assert names(tmp_path) == set()
    server.answers = [Answer(says=unsaid, breaks_after=150_000), Answer(says=unsaid)]
    assert content(fetch(server.remote(), tmp_path, wait=at_once)) == FILES
    assert server.starts == [0, 0, 150_000]


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (f"bytes 0-{len(ARCHIVE) - 1}/{len(ARCHIVE) + 1}", f"found {len(ARCHIVE) + 1:,}"),
        (f"bytes 7-{len(ARCHIVE) - 1}/{len(ARCHIVE)}", "gives the bytes from 7 on, where those from 1,000 on"),
        ("some", "does not say which"),
        (None, "does not say which"),
    ],
)
def test_a_part_that_was_not_asked_for_is_not_glued(server: Server, tmp_path: Path, says: str | None, why: str) -> None:
    server.answers = [Answer(breaks_after=1000), Answer(says={"Content-Range": says})]
    assert why in refused(lambda: fetch(server.remote(), tmp_path, wait=at_once))
    assert (tmp_path / "MELD.Raw.tar.gz.part").read_bytes() == ARCHIVE[:1000]


def test_compression_that_is_the_archives_own_is_kept(server: Server, tmp_path: Path) -> None:
    server.answers = [Answer(says={"Content-Encoding": "x-gzip", "Content-Type": "application/x-tar"})]
    assert content(fetch(server.remote(), tmp_path)) == FILES


def test_another_address_goes_on_where_the_first_stopped(server: Server, tmp_path: Path) -> None:
    remote = server.remote(ARCHIVE, f"{server.url}/one/MELD.Raw.tar.gz", f"{server.url}/two/MELD.Raw.tar.gz")
    server.answers = [Answer(breaks_after=100_000), Answer(status=404), Answer()]
    assert content(fetch(remote, tmp_path, wait=at_once)) == FILES
    assert server.seen == [
        ("/one/MELD.Raw.tar.gz", None, None),
        ("/one/MELD.Raw.tar.gz", "bytes=100000-", '"one"'),
        ("/two/MELD.Raw.tar.gz", "bytes=100000-", None),
    ]


def test_where_addresses_disagree_the_second_is_read_from_its_start(server: Server, tmp_path: Path) -> None:
    remote = server.remote(ARCHIVE, f"{server.url}/one/MELD.Raw.tar.gz", f"{server.url}/two/MELD.Raw.tar.gz")
    server.answers = [Answer(OTHER, breaks_after=100_000), Answer(status=404), Answer()]
    assert content(fetch(remote, tmp_path, wait=at_once)) == FILES
    assert [path[:4] for path, _, _ in server.seen] == ["/one", "/one", "/two", "/two"]
    assert server.starts == [0, 100_000, 100_000, 0]


def test_every_address_that_fails_is_named(server: Server, tmp_path: Path) -> None:
    gone = "http://127.0.0.1:1/MELD.Raw.tar.gz"
    remote = server.remote(ARCHIVE, f"{server.url}/MELD.Raw.tar.gz", gone)
    server.answers = [Answer(status=404)]
    waits: list[float] = []
    message = refused(lambda: fetch(remote, tmp_path, wait=waits.append))
    assert f"{remote.urls[0]} answered 404 Not Found; {gone}: 5 attempts failed" in message
    assert waits == [2, 4, 8, 16]


def test_progress_tells_bytes_and_nothing_is_printed(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooch.get_logger(), "handlers", [logging.StreamHandler()])  # to the stderr of now
    pooch.get_logger().setLevel("INFO")
    told: list[tuple[int, int, str]] = []
    server.answers = [Answer(breaks_after=100_000), Answer()]
    fetch(server.remote(), tmp_path, lambda *each: told.append(each), at_once)
    assert {total for _, total, _ in told} == {len(ARCHIVE)}
    assert list(dict.fromkeys(what for _, _, what in told)) == [
        "downloading",
        "interrupted; trying again in 2 s",
        "checking",
        "unpacking",
    ]
    for what in ("downloading", "unpacking"):
        done = [done for done, _, of in told if of == what]
        assert done == sorted(done)
        assert done[-1] == len(ARCHIVE)
    assert capfd.readouterr() == ("", "")


# --------------------------------------------------------------------------- interrupts, disk, neighbours


def killed(remote: Remote, folder: Path, what: str, after: int) -> None:
    """Fetch in a process that is killed (SIGKILL) once it has done ``after`` bytes of ``what``."""
    code = f"""
import os, signal
from pathlib import Path
from dual_bench.datasets.fetch import Remote, fetch
def progress(done, total, what):
    if what == {what!r} and done >= {after}:
        os.kill(os.getpid(), signal.SIGKILL)
fetch({remote!r}, Path({str(folder)!r}), progress)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL


def test_a_killed_download_goes_on_from_its_bytes(server: Server, tmp_path: Path) -> None:
    killed(server.remote(), tmp_path, "downloading", 100_000)
    assert names(tmp_path) == {"MELD.Raw.tar.gz.part", "MELD.Raw.tar.gz.part.origin"}
    held = (tmp_path / "MELD.Raw.tar.gz.part").stat().st_size
    assert 100_000 <= held < len(ARCHIVE)
    assert content(fetch(server.remote(), tmp_path, wait=never)) == FILES
    assert server.seen[1:] == [("/MELD.Raw.tar.gz", f"bytes={held}-", '"one"')]
    assert names(tmp_path) == {"MELD.Raw", "MELD.Raw.tar.gz"}


def test_a_killed_unpacking_leaves_nothing_under_the_final_name(server: Server, tmp_path: Path) -> None:
    killed(server.remote(), tmp_path, "unpacking", 100_000)
    assert names(tmp_path) == {"MELD.Raw.unpacking", "MELD.Raw.tar.gz"}
    (tmp_path / "MELD.Raw.unpacking" / "MELD.Raw" / "half.mp4").write_bytes(b"half")
    assert content(fetch(server.remote(), tmp_path)) == FILES
    assert names(tmp_path) == {"MELD.Raw", "MELD.Raw.tar.gz"}
    assert len(server.seen) == 1


@pytest.mark.parametrize("what", ["downloading", "checking", "unpacking"])
def test_an_interrupt_loses_no_byte_and_leaves_nothing_half(server: Server, tmp_path: Path, what: str) -> None:
    def progress(done: int, total: int, of: str) -> None:
        if of == what:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server.remote(), tmp_path, progress)
    assert names(tmp_path) == (
        {"MELD.Raw.tar.gz"} if what == "unpacking" else {"MELD.Raw.tar.gz.part", "MELD.Raw.tar.gz.part.origin"}
    )
    held = next(path for path in tmp_path.glob("MELD*") if path.suffix != ".origin").stat().st_size
    assert held > 0
    fetch(server.remote(), tmp_path)
    assert server.starts == ([0, held] if held < len(ARCHIVE) else [0])


def test_an_interrupt_while_pooch_computes_the_sha256_loses_no_byte(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pooch.core, "hash_matches", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fetch(server.remote(), tmp_path)
    assert (tmp_path / "MELD.Raw.tar.gz.part").read_bytes() == ARCHIVE
    assert content(fetch(server.remote(), tmp_path)) == FILES
    assert len(server.seen) == 1


def test_what_a_process_left_that_was_killed_while_it_checked_is_removed(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "MELD.Raw.tar.gz.part"
    part.write_bytes(ARCHIVE)
    os.link(part, tmp_path / "tmp1234")
    (tmp_path / "tmp_of_mine").write_bytes(b"mine")
    fetch(server.remote(), tmp_path)
    assert names(tmp_path) == {"MELD.Raw", "MELD.Raw.tar.gz", "tmp_of_mine"}
    assert not server.seen


def test_a_disk_without_links_does(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", unsupported)
    assert content(fetch(server.remote(), tmp_path)) == FILES
    assert names(tmp_path) == {"MELD.Raw", "MELD.Raw.tar.gz"}


def test_a_partial_file_that_is_too_long_is_dropped(server: Server, tmp_path: Path) -> None:
    (tmp_path / "MELD.Raw.tar.gz.part").write_bytes(ARCHIVE + b"more")
    assert content(fetch(server.remote(), tmp_path)) == FILES
    assert server.starts == [0]


def with_free(patch: pytest.MonkeyPatch, free: int) -> None:
    patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))


def test_a_disk_that_is_too_small_is_told_before_the_download(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meld = replace(REMOTES["meld"], urls=server.remote().urls)
    with_free(monkeypatch, 21_000_000_000)
    message = refused(lambda: fetch(meld, tmp_path))
    assert "has 21.0 GB free; meld needs 21.8 GB, of which 10.9 GB unpacked" in message
    assert not server.seen
    assert names(tmp_path) == set()


def test_what_is_downloaded_already_needs_no_room(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "MELD.Raw.tar.gz.part").write_bytes(ARCHIVE[:200_000])
    with_free(monkeypatch, 2 * len(ARCHIVE) - 200_000)
    assert content(fetch(server.remote(), tmp_path)) == FILES


def test_two_processes_do_not_write_one_file(server: Server, tmp_path: Path) -> None:
    with FileLock(tmp_path / ".MELD.Raw.tar.gz.lock"):
        assert "another process is fetching meld" in refused(lambda: fetch(server.remote(), tmp_path))
    assert not server.seen


def test_a_folder_that_cannot_be_one_is_told(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert "cannot be written" in refused(lambda: fetch(server.remote(), tmp_path / "file"))


# -------------------------------------------------------------------------------------- archives at fault


def made_of(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


HARMFUL = {
    "parent": made_of("../outside"),
    "parent inside": made_of("MELD.Raw/../../outside"),
    "parent that comes back": made_of("MELD.Raw/../MELD.Raw/x"),
    "absolute": made_of("/tmp/outside-dual-bench"),
    "symbolic link to the root": made_of("MELD.Raw/link", tarfile.SYMTYPE, "/"),
    "symbolic link to a parent": made_of("MELD.Raw/link", tarfile.SYMTYPE, "../.."),
    "hard link out": made_of("MELD.Raw/link", tarfile.LNKTYPE, "../outside"),
    "device": made_of("MELD.Raw/null", tarfile.CHRTYPE),
    "block device": made_of("MELD.Raw/disk", tarfile.BLKTYPE),
    "pipe": made_of("MELD.Raw/pipe", tarfile.FIFOTYPE),
    "macOS's parent": made_of("../._outside"),
}


@pytest.mark.parametrize("nested", [False, True], ids=["in the archive", "in the archive within"])
@pytest.mark.parametrize("harm", HARMFUL)
def test_an_archive_that_would_write_elsewhere_is_refused_whole(
    server: Server, tmp_path: Path, harm: str, nested: bool
) -> None:
    member = HARMFUL[harm]
    archive = like_meld({**NESTED, "train.tar.gz": tar_gz({}, member)}) if nested else like_meld(NESTED, member)
    server.answers = [Answer(archive)]
    folder = tmp_path / "data"
    assert f"its member {member.name!r}" in refused(lambda: fetch(server.remote(archive), folder))
    assert names(folder) == {"MELD.Raw.tar.gz"}
    assert names(tmp_path) == {"data"}
    assert not Path("/tmp/outside-dual-bench").exists()


def test_nothing_is_written_through_a_link(server: Server, tmp_path: Path) -> None:
    link = made_of("MELD.Raw/link", tarfile.SYMTYPE, str(tmp_path))
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        tar.addfile(link)
        through = made_of("MELD.Raw/link/outside")
        through.size = 4
        tar.addfile(through, io.BytesIO(b"harm"))
    server.answers = [Answer(made.getvalue())]
    assert "'MELD.Raw/link'" in refused(lambda: fetch(server.remote(made.getvalue()), tmp_path / "data"))
    assert names(tmp_path) == {"data"}


def test_an_archive_that_swells_past_the_disk_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = like_meld({**NESTED, "train.tar.gz": tar_gz({"train_splits/bomb.mp4": bytes(20_000_000)})})
    assert len(archive) < 100_000
    server.answers = [Answer(archive)]
    with_free(monkeypatch, 10_000_000)
    message = refused(lambda: fetch(server.remote(archive), tmp_path))
    assert "'train_splits/bomb.mp4' needs 20,000,000 bytes, 10,000,000 are free" in message
    assert names(tmp_path) == {"MELD.Raw.tar.gz"}


def flipped(packed: bytes) -> bytes:
    """With a wrong check sum at its end."""
    return packed[:-8] + bytes(255 - byte for byte in packed[-8:-4]) + packed[-4:]


def broken_off(packed: bytes) -> bytes:
    """With a block of no kind in the middle of its data."""
    compressor = zlib.compressobj(wbits=31)
    return compressor.compress(gzip.decompress(packed)[:200_000]) + compressor.flush(zlib.Z_FULL_FLUSH) + b"\xff" * 99


def with_header(key: str, value: str) -> bytes:
    info = made_of("x")
    info.pax_headers = {key: value}
    return tar_gz({}, info)


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({**NESTED, "train.tar.gz": NESTED["train.tar.gz"][:200_000]}, "ended before the end-of-stream marker"),
        ({**NESTED, "train.tar.gz": flipped(NESTED["train.tar.gz"])}, "CRC check failed"),
        ({**NESTED, "train.tar.gz": b"no archive"}, "Not a gzipped file"),
        ({**NESTED, "train.tar.gz": gzip.compress(b"no tar" * 1000)}, "invalid header"),
        ({**NESTED, "train.tar.gz": broken_off(NESTED["train.tar.gz"])}, "invalid block type"),
        ({**NESTED, "more.tar.gz": with_header("path", "nu\0ll")}, "null"),
        ({**NESTED, "more.tar.gz": with_header("mtime", "1e300")}, "out of range"),
        ({**NESTED, "train_splits": b"a file where the clips' folder goes"}, "train_splits"),
        ({name: NESTED[name] for name in NESTED if name != "dev.tar.gz"}, "expected 'MELD.Raw/dev_splits_complete'"),
    ],
)
def test_a_damaged_archive_is_refused_whole(server: Server, tmp_path: Path, members: Members, why: str) -> None:
    archive = like_meld(members)
    server.answers = [Answer(archive)]
    message = refused(lambda: fetch(server.remote(archive), tmp_path))
    assert "cannot be unpacked, and nothing of it was" in message
    assert why in message
    assert names(tmp_path) == {"MELD.Raw.tar.gz"}


def test_archives_deeper_down_are_files(server: Server, tmp_path: Path) -> None:
    deep = tar_gz({"deeper": b""})
    archive = like_meld({**NESTED, "more.tar.gz": tar_gz({"deep.tar.gz": deep})})
    server.answers = [Answer(archive)]
    assert content(fetch(server.remote(archive), tmp_path)) == {**FILES, "deep.tar.gz": deep}


# --------------------------------------------------------------------------------------------- names


def test_every_corpus_names_one_archive_and_its_digest() -> None:
    for name, remote in REMOTES.items():
        assert find(name) is remote
        assert remote.name == name
        assert re.fullmatch("[0-9a-f]{64}", remote.sha256)
        assert {url.rpartition("/")[2] for url in remote.urls} == {remote.archive}
        assert all(url.startswith("https://") for url in remote.urls)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_corpus_that_is_not_downloadable_says_where_it_is(name: str) -> None:
    message = refused(lambda: find(name))
    assert message.startswith(f"{name} cannot be downloaded by dual-bench")
    assert "https://sail.usc.edu/iemocap/" in message or "https://github.com/thuiar/MMSA" in message
    assert "`dual-bench data extract`" in message


def test_an_unknown_corpus_gets_the_nearest_name() -> None:
    assert refused(lambda: find("melt")) == "unknown corpus 'melt'; did you mean 'meld'?"
    assert "known: ch-sims, iemocap, meld" in refused(lambda: find("ravdess"))
