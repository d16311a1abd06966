"""Files of bytes that strangers make: pickles, archives, media, records and logs."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import pickle
import shutil
import tarfile
import wave
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fuzz.base import Target, damaged, place, refusing, text
from hypothesis import strategies as st
from made_run import Made
from made_run import write as write_run

from dual_bench import journal
from dual_bench.corruptions import asr_estimate, speech
from dual_bench.datasets import fetch, meld, mmsa, safe_pickle
from dual_bench.durable import sha256_of
from dual_bench.features import decode, media
from dual_bench.store import RunFolder, read_run

# ----------------------------------------------------------------------------------------------- pickles

_PLAIN = (type(None), bool, int, float, complex, str, bytes, bytearray, np.generic)


def _plain(value: Any, depth: int = 0) -> bool:
    """Whether a value holds nothing that can run; looked at four levels deep."""
    if isinstance(value, _PLAIN):
        return True
    if isinstance(value, dict):
        parts: Any = [*value, *value.values()]
    elif isinstance(value, np.ndarray):
        parts = value.ravel()[:50].tolist() if value.dtype.hasobject else []
    elif isinstance(value, list | tuple | set | frozenset):
        parts = value
    else:
        return False
    return depth == 4 or all(_plain(part, depth + 1) for part in list(parts)[:50])


def read_pickle(content: bytes) -> None:
    path = place() / "x.pkl"
    path.write_bytes(content)
    with refusing():
        assert _plain(safe_pickle.load(path)), "something that is not plain came through"


_THINGS = [
    {"train": [1, 2.5, None, True, "é", b"\x00\xff", (1, (2,)), {3}, frozenset([4]), 10**30]},
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.array(["a", "é"]),
        np.array([b"a"]),
        np.float32(1.5),
        np.array(2.0),
    ],
    np.array(["text", [1, {"a": 2.5}], None], object),
    [bytearray(b"abc"), np.asfortranarray(np.ones((2, 2)))],
]
PICKLES = (
    *(pickle.dumps(thing, protocol) for thing in _THINGS for protocol in (0, 2, 4, 5)),
    pickle.dumps(print),
    b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntU\x01btR(I1\n(I2\ntcnumpy\ndtype\n(U\x02f4I0\nI1"
    b"\ntR(I3\nU\x01<NNNI-1\nI-1\nI0\ntbI00\nU\x08abcdefghtb.",
)
_OPERATIONS = st.sampled_from(
    (
        b"(",
        b")",
        b"]",
        b"}",
        b"t",
        b"l",
        b"d",
        b"0",
        b"1",
        b"2",
        b"N",
        b"\x88",
        b"R",
        b"b",
        b"\x81",
        b"\x92",
        b"\x93",
        b"e",
        b"a",
        b"s",
        b"u",
        b"\x90",
        b"\x91",
        b"\x8f",
        b"\x85",
        b"\x86",
        b"\x87",
        b"q\x00",
        b"h\x00",
        b"h\x01",
        b"\x94",
        b"K\x05",
        b"cbuiltins\nset\n",
        b"c__builtin__\nbytes\n",
        b"ccollections\nOrderedDict\n",
        b"c_codecs\nencode\n",
        b"cnumpy\ndtype\n",
        b"cnumpy\nndarray\n",
        b"cnumpy.core.multiarray\n_reconstruct\n",
        b"cnumpy._core.multiarray\nscalar\n",
        b"cnumpy._core.numeric\n_frombuffer\n",
        b"U\x02f4",
        b"U\x02O8",
        b"U\x04U999",
        b"U\x01|",
        b"I0\n",
        b"I-1\n",
        b"C\x04abcd",
        b"X\x06\x00\x00\x00latin1",
        b"M\xff\xff",
        b"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01",
        b"I3\n",
        b"I01\n",
    )
)
pickles = st.lists(_OPERATIONS, max_size=25).map(lambda parts: b"\x80\x04" + b"".join(parts) + b".")

# --------------------------------------------------------------------------------------------------- MMSA

_number = st.floats(allow_nan=True) | st.integers(-3, 3) | st.just(10**400)
_array = st.sampled_from(
    (
        np.ones((2, 3, 2)),
        np.ones((2, 3, 2), np.float32),
        np.full((2, 1, 1), np.inf),
        np.zeros((2, 0, 2)),
        np.ones(2),
        np.array(1.0),
        np.array(["a", "b"]),
        np.array([None, [1.0]], object),
        np.ones((2, 3, 2), complex),
        np.full((2, 2, 2), 1e300),
    )
)
_odd = st.one_of(
    _array, _number, text, st.none(), st.lists(_number, max_size=3), st.lists(text, max_size=3), st.binary(max_size=3)
)
_SPLIT: Mapping[str, st.SearchStrategy[Any]] = {
    "id": st.sampled_from((["v$_$1", "v$_$2"], np.array(["v$_$1", "w$_$1"])))
    | st.lists(text.map("v$_${}".format), min_size=2, max_size=2),
    "raw_text": st.just(["so", "be"]) | st.lists(text, max_size=2),
    "regression_labels": st.just(np.array([0.5, -1.0])) | st.lists(_number, min_size=2, max_size=2),
    "annotations": st.just(["Negative", "Positive"]) | st.lists(text, max_size=2),
    "audio": _array | st.just([np.ones((3, 2)), np.ones((1, 2))]),
    "vision": _array,
    "audio_lengths": st.just([3, 1]) | st.lists(_number, min_size=2, max_size=2),
    "text_bert": st.just(np.ones((2, 3, 3))) | _array,
}


@st.composite
def _split(draw: st.DrawFn) -> Any:
    names = ["id", "raw_text", "regression_labels", "audio", *draw(st.lists(st.sampled_from(list(_SPLIT)), max_size=4))]
    made = {name: draw(_SPLIT[name] if draw(st.integers(0, 9)) else _odd) for name in names}
    if not draw(st.integers(0, 9)):
        made.pop(draw(st.sampled_from(list(made))))
    return made if draw(st.integers(0, 19)) else draw(_odd)


_mmsa = st.fixed_dictionaries({name: _split() for name in ("train", "valid", "test")}) | _odd


def read_mmsa(content: Any) -> None:
    path = place() / "mmsa.pkl"
    path.write_bytes(pickle.dumps(content))
    for settings in ({"low": -3.0, "high": 3.0}, {"labels": "annotation"}, {}):
        with refusing():
            mmsa.read(path, **settings)


# ---------------------------------------------------------------------------------------------- archives


def _member(tar: tarfile.TarFile, name: str, kind: bytes, content: bytes, target: str) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(content), target
    tar.addfile(info, io.BytesIO(content))


def _tar(members: list[tuple[str, bytes, bytes, str]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member in members:
            _member(tar, *member)
    return file.getvalue()


_TAR = _tar([("root/a.txt", tarfile.REGTYPE, b"abc", ""), ("root/b", tarfile.DIRTYPE, b"", "")])
_INNER = _tar(
    [("root/in.tar.gz", tarfile.REGTYPE, gzip.compress(_TAR, 1, mtime=0), ""), ("root/._x", tarfile.REGTYPE, b"", "")]
)
_path = st.sampled_from(
    (
        "root",
        "root/a",
        "../out",
        "/tmp/out",
        "root/../../out",
        "root/in.tar.gz",
        "root/a/b",
        "./root",
        "",
        ".",
        "root/x" * 60,
    )
) | text.map(lambda one: one.replace("\x00", "") or "a")
_kinds = st.sampled_from(
    (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, b"S")
)
archives = st.lists(
    st.tuples(_path, _kinds, st.just(b"") | st.binary(max_size=40) | st.just(gzip.compress(_TAR, 1, mtime=0)), _path),
    max_size=4,
).map(_tar)
_REMOTE = fetch.Remote("x", ("http://x/x.tar.gz",), 1, "", "root", ("a.txt",), "none")


def unpack(content: bytes) -> None:
    """The bytes, compressed, as an archive: nothing is left but what was meant, and nothing outside."""
    outer = place() / "archives"
    outer.mkdir(exist_ok=True)
    archive, target = outer / "x.tar.gz", outer / "root"
    archive.write_bytes(content if content[:2] == b"\x1f\x8b" else gzip.compress(content, 1, mtime=0))
    try:
        with refusing():
            fetch._unpack(_REMOTE, archive, target, lambda done, total, what: None)
        assert {path.name for path in outer.iterdir()} <= {"x.tar.gz", "root"}
        assert not any(path.is_symlink() for path in outer.rglob("*"))
    finally:
        shutil.rmtree(outer, ignore_errors=True)


# ------------------------------------------------------------------------------------------------ media


def _wav() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        sound.writeframes(bytes(1600))
    return file.getvalue()


@cache
def films() -> tuple[bytes, ...]:
    """Small files of the formats that are read most."""
    import media as made

    found = [_wav()]
    for suffix, codec, sound in (("mp4", "mpeg4", "aac"), ("avi", "mpeg4", "pcm_s16le"), ("mkv", "mpeg4", "flac")):
        path = place() / f"made.{suffix}"
        made.write(
            path, made.numbered(3, 16, 16), made.tone(440, 0.1, 16_000), codec=codec, rate=16_000, sound_codec=sound
        )
        found.append(path.read_bytes())
    return tuple(found)


def read_media(content: bytes) -> None:
    import av

    av.logging.set_level(None)
    path = place() / "clip"
    path.write_bytes(content)
    with refusing(media.MediaError):
        media.probe(path)
    assert isinstance(decode.write_sound(media.Clip(path, 0.0, 0.05), place() / "heard.wav"), str)
    shown = decode.pictures(media.Clip(path, 0.0, 0.2), 10.0, media.Picture(8, 8, False))
    assert isinstance(shown, str) or shown.nbytes < 2**16


# ----------------------------------------------------------------------------------------------- records


@cache
def _run() -> tuple[RunFolder, dict[str, bytes]]:
    """A run folder of one cell, and the content of its files as they were."""
    made = Made(
        models=("dual",),
        regimes=("clean",),
        corruptions=("word-drop",),
        rates=(0.5,),
        draws=1,
        seeds=1,
        clusters=2,
        utterances=4,
        transcripts=(),
    )
    run = write_run(place() / "run", made)
    return run, {str(p.relative_to(run.path)): p.read_bytes() for p in run.path.rglob("*") if p.is_file()}


@cache
def _records() -> tuple[bytes, ...]:
    return tuple(content for name, content in sorted(_run()[1].items()) if name.endswith(".json"))


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)


@st.composite
def records(draw: st.DrawFn) -> bytes:
    """A record of a run with some fields of anything."""
    record = json.loads(draw(st.sampled_from(_records())))
    for _ in range(draw(st.integers(1, 3))):
        inner = record
        while isinstance(inner, dict) and inner:
            key = draw(st.sampled_from(list(inner)))
            if isinstance(inner[key], dict) and draw(st.booleans()):
                inner = inner[key]
                continue
            inner[key] = draw(
                st.lists(text, max_size=2) if isinstance(inner[key], list) and draw(st.booleans()) else _json
            )
            break
    return json.dumps(record).encode()


def _read_back(folder: Path) -> None:
    with refusing():
        run = read_run(folder)
        run.first()
        _ = run.predictions, run.task, run.chosen()
        list(run.each(len))


def read_records(content: bytes) -> None:
    """The bytes as the record of a run, or of its cell, whose rows are sound."""
    run, files = _run()
    cell = next(name for name in files if name.startswith("cells/") and name.endswith(".json"))
    for name in ("run.json", cell):
        (run.path / name).write_bytes(content)
        _read_back(run.path)
        (run.path / name).write_bytes(files[name])


@st.composite
def rows(draw: st.DrawFn) -> bytes:
    """The rows of a cell with columns lost, added, or of another type."""
    table = pq.read_table(pa.BufferReader(_run()[1][_rows_name()]))
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(table.column_names))
        at = table.column_names.index(name)
        match draw(st.integers(0, 3)):
            case 0:
                table = table.remove_column(at)
            case 1:
                table = table.slice(draw(st.integers(0, table.num_rows)))
            case 2:
                kind = draw(
                    st.sampled_from((pa.null(), pa.string(), pa.float64(), pa.int64(), pa.bool_(), pa.list_(pa.int8())))
                )
                table = table.set_column(at, name, pa.nulls(table.num_rows, kind))
            case _:
                table = table.append_column(draw(st.sampled_from((name, "score_9")) | text), table[name])
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


def _rows_name() -> str:
    return next(name for name in _run()[1] if name.startswith("cells/") and name.endswith(".parquet"))


def read_rows(content: bytes) -> None:
    """The bytes as the rows of a cell, which its record names, and as the texts of the run."""
    run, files = _run()
    digest = Path(_rows_name()).stem
    record = json.loads(files[f"cells/{digest}.json"]) | {"sha256": hashlib.sha256(content).hexdigest()}
    run.rows_file(digest).write_bytes(content)
    run.cell_file(digest).write_text(json.dumps(record))
    _read_back(run.path)
    run.rows_file(digest).write_bytes(files[_rows_name()])
    run.cell_file(digest).write_bytes(files[f"cells/{digest}.json"])
    assert sha256_of(run.rows_file(digest)) == json.loads(files[f"cells/{digest}.json"])["sha256"]
    run.texts_file.write_bytes(content)
    _read_back(run.path)
    run.texts_file.write_bytes(files["texts.parquet"])


# --------------------------------------------------------------------------------------------------- JSON

_LOG = (
    b'{"when":"2026-01-01T00:00:00.000+00:00","event":"stage","stage":"words"}\n'
    b'{"when":"2026-01-01T00:00:00Z","event":"ended","status":"complete","seconds":1.0}\n{"when"'
)


def read_log(content: bytes) -> None:
    path = place() / "log.jsonl"
    path.write_bytes(content)
    assert len(journal.read(path)) <= content.count(b"\n") + 1
    assert len(journal.read_sitting(path)) <= content.count(b"\n") + 1


_EXPORT = b'{"corpus": "x", "licence": "CC0", "notes": [], "classes": ["joy"]}'
_NUMBERS = json.dumps(
    dict.fromkeys(
        ("losing", "lost_short", "lost_long", "inserted", "clumping", "per_phone", "commonness", "unrelated"), 0.4
    )
).encode()
_PAIRS = b'{"reference": "so be it", "hypotheses": ["so be"]}\n{"reference": "a", "hypotheses": ["b", "c"]}\n'


def read_json(content: bytes) -> None:
    """The other small files: of an export, of a recogniser, of pairs of texts."""
    folder = place() / "export"
    folder.mkdir(exist_ok=True)
    (folder / meld.EXPORT).write_bytes(content)
    with refusing():
        meld._export(folder)
    with refusing():
        speech.read_recogniser(folder / meld.EXPORT)
    with refusing():
        asr_estimate.read_pairs(folder / meld.EXPORT)


_DEEP = b"[" * 200_000

TARGETS = (
    Target("pickles", pickles | damaged(PICKLES), read_pickle, 12_000, 210_000, PICKLES),
    Target("MMSA", _mmsa, read_mmsa, 4_000, 4_000),
    Target("archives", archives | damaged([_TAR, _INNER]), unpack, 3_000, 36_000, (_TAR, _INNER)),
    Target("media", st.deferred(lambda: damaged(films())), read_media, 3_000, 2_000),
    Target("records of runs", st.deferred(records) | damaged([_DEEP]), read_records, 3_000, 0),
    Target("rows of runs", st.deferred(rows), read_rows, 600, 0),
    Target("log", damaged([_LOG, _DEEP]), read_log, 4_000, 90_000, (_LOG,)),
    Target("JSON", damaged([_EXPORT, _NUMBERS, _PAIRS, _DEEP]), read_json, 4_000, 80_000, (_EXPORT, _NUMBERS, _PAIRS)),
)
