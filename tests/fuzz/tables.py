"""Tables that strangers write: manifests, folders of media, MELD, IEMOCAP, and predictions."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from datetime import timedelta
from decimal import Decimal
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from fuzz.base import Target, damaged, place, refusing, text
from hypothesis import strategies as st

from dual_bench.datasets import folder, iemocap, manifest, meld
from dual_bench.report import foreign
from dual_bench.report.foreign_run import read_predictions

Table = list[list[str]]


@st.composite
def tables(draw: st.DrawFn, columns: dict[str, Sequence[str]], required: Sequence[str], most: int = 6) -> Table:
    """A header and rows: mostly of the ``columns`` that a reader knows, with cells that it takes; some of any text."""
    names = [*required, *draw(st.lists(st.sampled_from(list(columns)), max_size=5, unique=True))]
    names = list(dict.fromkeys(names)) if draw(st.integers(0, 9)) else names
    if not draw(st.integers(0, 9)):
        names = draw(st.lists(st.sampled_from(list(columns)) | text, max_size=8))
    count = draw(st.integers(0, most))
    rows = [
        [
            (columns[name][i % len(columns[name])] if name in columns and draw(st.integers(0, 9)) else draw(text))
            for name in names
        ]
        for i in range(count)
    ]
    if rows and not draw(st.integers(0, 9)):
        rows[draw(st.integers(0, count - 1))] += draw(st.lists(text, max_size=2))
    return [names, *rows]


def written(table: Table) -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file).writerows(table)
    return file.getvalue().encode("utf-8", "surrogatepass")


# -------------------------------------------------------------------------------------------- manifests

_UTTERANCES: dict[str, Sequence[str]] = {
    "id": [f"u{i}" for i in range(9)],
    "split": ["train", "validation", "test"],
    "fold": ["a", "b", "c"],
    "cluster": [f"c{i}" for i in range(9)],
    "speaker": ["s", "t", ""],
    "text": ["so be it", "what a day", ""],
    "label": ["sad", "glad"],
    "value": ["1", "-1", "0.5"],
    "text_asr": ["so", "be"],
}
_MANIFEST = _UTTERANCES | {
    **{f"{m}_file": ["a.npz", "a.npz", ""] for m in ("audio", "vision")},
    **{f"{m}_row": ["0", "1", "2"] for m in ("audio", "vision")},
}
_MEDIA = _UTTERANCES | {
    **dict.fromkeys(("file", "audio", "video"), ("a.wav", "b/c.mp4", "")),
    "start": ["", "0", "1.5"],
    "end": ["2", "", "1e3"],
    "half": ["whole", "left", "", "right"],
}
_NEEDED = ("id", "split", "cluster", "speaker", "text", "label")


@cache
def _features() -> Path:
    """A folder with a feature file, beside which tables are written."""
    path = place() / "corpus"
    path.mkdir()
    np.savez(path / "a.npz", values=np.ones((3, 2, 2), np.float32), lengths=np.array([2, 1, 0]))
    return path


def read_manifest(content: bytes) -> None:
    path = _features() / "own.csv"
    path.write_bytes(content)
    settings = {"low": -1, "high": 1, "classes": "glad|sad"} if len(content) % 2 else {}
    with refusing():
        manifest.load(Path(), path=str(path), **settings)


def read_folder(content: bytes) -> None:
    path = place() / "media"
    path.mkdir(exist_ok=True)
    (path / "own.csv").write_bytes(content)
    with refusing():
        folder.read(path / "own.csv", low=-1, high=1)
    folder.LAYOUT.recognises(path)


def _saved(save: Callable[..., None], *arrays: Any, **named: Any) -> bytes:
    file = io.BytesIO()
    save(file, *arrays, **named)
    return file.getvalue()


_ARRAYS = (
    _saved(np.save, np.ones((3, 2), np.float32)),
    _saved(np.save, np.ones((3, 2, 2))),
    _saved(np.savez, values=np.ones((3, 2, 2)), lengths=np.array([2, 1, 0])),
    _saved(np.savez_compressed, values=np.ones((5, 2), np.int8), offsets=np.array([0, 2, 2, 5])),
    _saved(np.save, np.array([None, {}], object)),
)


def _bare(content: dict[str, tuple[str, Any, bytes]]) -> bytes:
    """A .npz whose arrays say of themselves what they like."""
    import zipfile

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, (kind, shape, data) in content.items():
            head = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape!r}, }}\n".encode("latin-1", "replace")
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + data)
    return file.getvalue()


_SHAPES = st.lists(st.integers(-2, 4) | st.sampled_from((2**31, 2**40, 2**62, 2**64)), max_size=4).map(tuple)
_KINDS = st.sampled_from(("<f4", "<f8", "|b1", "<i8", "<u8", "|S3", "<U9", "|O", "<M8[s]", "<c8", "V4", "<f2", "x", ""))
features = st.dictionaries(
    st.sampled_from(("values", "lengths", "offsets", "other")),
    st.tuples(_KINDS, _SHAPES, st.binary(max_size=64) | st.just(bytes(256))),
    max_size=3,
).map(_bare)


def read_features(content: bytes) -> None:
    """The bytes as a feature file by either name, beside a manifest that is sound."""
    path = place() / "features"
    if not path.is_dir():
        path.mkdir()
        for suffix in ("npy", "npz"):
            rows = [
                [f"u{i}", s, f"c{i}", "", "so", "x", f"a.{suffix}", str(i)] for i, s in enumerate(_UTTERANCES["split"])
            ]
            (path / f"{suffix}.csv").write_bytes(written([[*_NEEDED_IN_ORDER, "audio_file", "audio_row"], *rows]))
    suffix = "npz" if content[:2] == b"PK" else "npy"
    (path / f"a.{suffix}").write_bytes(content)
    with refusing():
        manifest.load(Path(), path=str(path / f"{suffix}.csv"))


_NEEDED_IN_ORDER = ("id", "split", "cluster", "speaker", "text", "label")

# ---------------------------------------------------------------------------------------- published corpora

_MELD: dict[str, Sequence[str]] = {
    "Sr No.": ["1", "2"],
    "Utterance": ["so be it", "what a day", "“no”"],
    "Speaker": ["Ann", "Bob"],
    "Emotion": ["joy", "anger", "neutral"],
    "Sentiment": ["positive", "neutral"],
    "Dialogue_ID": ["0", "1", "2"],
    "Utterance_ID": ["0", "1", "2", "3"],
}


@cache
def _meld() -> Path:
    """MELD with sound tables of train and dev, and none of test yet."""
    path = place() / "meld"
    path.mkdir()
    for split in ("train", "dev"):
        rows = [["1", "so be it", "Ann", "joy", "positive", "0", str(i)] for i in range(3)]
        (path / f"{split}_sent_emo.csv").write_bytes(written([list(_MELD), *rows]))
    (path / meld.CLIPS["test"]).mkdir()
    (path / meld.CLIPS["test"] / "dia0_utt0.mp4").touch()
    return path


def read_meld(content: bytes) -> None:
    path = _meld()
    (path / "test_sent_emo.csv").write_bytes(content)
    more = {"quotes": "plain", "labels": "sentiment", "encoding": "latin-1", "final": True}
    with refusing():
        meld.read(path, **(more if len(content) % 2 else {}))


def read_encoded(drawn: tuple[bytes, str]) -> None:
    """A table in an encoding that the user names."""
    content, encoding = drawn
    (_meld() / "test_sent_emo.csv").write_bytes(content)
    with refusing():
        meld.read(_meld(), encoding=encoding)


ENCODINGS = (
    "utf-8",
    "cp1252",
    "latin-1",
    "utf-16",
    "utf-7",
    "utf-32",
    "idna",
    "punycode",
    "hex",
    "rot13",
    "unicode_escape",
    "raw_unicode_escape",
    "undefined",
    "mbcs",
    "big5",
    "utf-8-sig",
    "",
    "a\x00b",
    "zlib",
    "cp037",
)


@cache
def _iemocap() -> tuple[Path, Path]:
    """The label file and the transcription of a dialogue."""
    inner = place() / "iemocap" / "Session1" / "dialog"
    for name in ("EmoEvaluation", "transcriptions"):
        (inner / name).mkdir(parents=True)
    return inner / "EmoEvaluation" / "Ses01F_impro01.txt", inner / "transcriptions" / "Ses01F_impro01.txt"


def read_iemocap(content: bytes) -> None:
    labels, said = _iemocap()
    before, _, after = content.partition(b"\n--\n")
    labels.write_bytes(before)
    said.write_bytes(after)
    with refusing():
        iemocap.read(place() / "iemocap", classes=6 if len(content) % 2 else 4)


_LABELS = st.builds(
    lambda start, end, key, code, rest: f"[{start} - {end}]\t{key}\t{code}\t{rest}",
    st.sampled_from(("1.0000", "0", "9" * 400, "1e3")) | text,
    st.sampled_from(("2.5", "0.5", "9" * 401)) | text,
    st.sampled_from(("Ses01F_impro01_F000", "Ses01F_impro01_M001", "Ses01F_impro02_F000", "Ses01F_impro01_")) | text,
    st.sampled_from(("neu", "xxx", "fru", "hap")) | text,
    text,
)
_SAID = st.builds("{} [{}-{}]: {}".format, st.just("Ses01F_impro01_F000") | text, st.just("1.0") | text, text, text)
_LINES = st.lists(_LABELS | text, max_size=5).map("\n".join), st.lists(_SAID | text, max_size=3).map("\n".join)
dialogues = st.builds(lambda a, b: f"{a}\n--\n{b}".encode(), *_LINES)
_DIALOGUE = b"[1.0 - 2.5]\tSes01F_impro01_F000\tneu\t[2.5, 2.5, 2.5]\n--\nSes01F_impro01_F000 [001.0-002.5]: so be it"

# ------------------------------------------------------------------------------------------ predictions

_PREDICTIONS: dict[str, Sequence[str]] = {
    "model": ["ours", "theirs"],
    "seed": ["0", "1", "0"],
    "utterance": ["a", "a", "b"],
    "truth": ["0", "1"],
    "score_0": ["0.5", "1"],
    "score_1": ["0.5", "0", "nan"],
    "score_2": ["", "inf"],
    "corruption": [
        "clean",
        "word-drop",
        "absent:text",
        "permuted:audio+vision",
        "any-text",
        "transcript:w",
        "additive",
    ],
    "rate": ["0", "0.5", "", "1"],
    "draw": ["0", "1", "1e300"],
    "dataset": ["x", "y"],
    **dict.fromkeys(("variant", "regime", "fold", "cluster", "text"), ("p", "q", "")),
    **dict.fromkeys(("wer", "cer", "dropped", "cosine", "severity", "certified", "cell"), ("0", "nan", "x")),
}
_SOUND = ("model", "seed", "utterance", "truth", "score_0")


def _predictions(path: Path) -> None:
    with refusing():
        read_predictions([path], None, place())


def read_csv(content: bytes) -> None:
    path = place() / "theirs.csv"
    path.write_bytes(content)
    _predictions(path)


_VALUES: Sequence[st.SearchStrategy[Any]] = (
    st.floats() | st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 2),
    st.booleans(),
    text,
    text | st.none(),
    st.binary(max_size=4),
    st.datetimes(),
    st.dates(),
    st.times(),
    st.timedeltas(timedelta(-(10**5)), timedelta(10**5)),  # Arrow has no more
    st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-99, max_value=99)
    | st.just(Decimal("1E+30")),
    st.none(),
    st.lists(st.integers(0, 2), max_size=2),
)


@st.composite
def columns(draw: st.DrawFn) -> bytes:
    """A Parquet file whose columns are of any type."""
    count = draw(st.integers(0, 4))
    arrays, names = [], []
    for name in (*_SOUND, *draw(st.lists(st.sampled_from(list(_PREDICTIONS)) | text, max_size=4))):
        usual = _PREDICTIONS.get(name)
        if usual and draw(st.integers(0, 5)):
            kind = (
                pa.string()
                if name in (*foreign.DEFAULTS, "model", "utterance", "dataset", "cluster", "text")
                else pa.float64()
            )
            cells = [usual[i % len(usual)] for i in range(count)]
            array = (
                pa.array(cells)
                if kind == pa.string()
                else pa.array(map(_number, cells), draw(st.sampled_from((kind, pa.float32()))))
            )
        else:
            array = pa.array([draw(value) for value in [draw(st.sampled_from(_VALUES))] * count])
        if draw(st.booleans()) and pa.types.is_string(array.type):
            array = array.dictionary_encode()
        arrays.append(array)
        names.append(name)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_arrays(arrays, names), sink)
    return bytes(sink.getvalue())


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")


def _parquet() -> bytes:
    frame = pd.DataFrame(
        {"model": ["a", "b"], "seed": [0, 0], "utterance": ["u", "u"], "truth": [0.0, 0.0], "score_0": [0.5, 1.0]}
    )
    return _saved(lambda file: frame.to_parquet(file, index=False))


def read_parquet(content: bytes) -> None:
    path = place() / "theirs.parquet"
    path.write_bytes(content)
    _predictions(path)


MILLION = 1_000_000


def read_million(drawn: tuple[str, str]) -> None:
    """A table of a million rows, sound or as wide as can be in what tells them apart: read, or refused, in bounds."""
    kind, suffix = drawn
    number = np.arange(MILLION)
    frame = pd.DataFrame(
        {"model": "ours", "seed": 0, "utterance": number, "truth": number % 2, "score_0": 0.5, "score_1": 0.5}
    )
    if kind == "every row of another model and seed":
        frame = frame.assign(model=[f"m{i}" for i in range(MILLION)], seed=number, utterance="u")
    elif kind == "every row twice":
        frame = frame.assign(utterance=number // 2)
    elif kind == "every row of another dataset":
        frame = frame.iloc[: MILLION // 5000].assign(dataset=[f"d{i}" for i in range(MILLION // 5000)])
    path = place() / f"million{suffix}"
    frame.astype({"utterance": str}).to_parquet(path) if suffix == ".parquet" else frame.to_csv(path, index=False)
    with refusing():
        _ = [len(run.predictions) for run in read_predictions([path], None, place())]
    path.unlink()


_MILLIONS = st.tuples(
    st.sampled_from(
        ("sound", "every row of another model and seed", "every row twice", "every row of another dataset")
    ),
    st.sampled_from((".csv", ".parquet")),
)

# -------------------------------------------------------------------------------------------------- all

_CSV = written([list(_SOUND), ["ours", "0", "a", "0", "0.5"], ["theirs", "0", "a", "0", "0.5"]])
_OWN = written(
    [list(_NEEDED_IN_ORDER), *([f"u{i}", s, f"c{i}", "", "so", "x"] for i, s in enumerate(_UTTERANCES["split"]))]
)
_SPLIT = written([list(_MELD), ["1", "so be it", "Ann", "joy", "positive", "0", "0"]])
_tables = partial(st.builds, written)
TARGETS = (
    Target(
        "manifest",
        st.one_of(_tables(tables(_MANIFEST, _NEEDED)), _tables(tables(_MANIFEST, ())), damaged([_OWN])),
        read_manifest,
        4_000,
        35_000,
        (_OWN,),
    ),
    Target("features", features | damaged(_ARRAYS), read_features, 4_000, 16_000, _ARRAYS),
    Target(
        "folder",
        st.one_of(
            _tables(tables(_MEDIA, ("id", "split", "cluster", "speaker", "text", "label", "file"))),
            _tables(tables(_MEDIA, ())),
        ),
        read_folder,
        3_000,
        2_000,
    ),
    Target("meld", _tables(tables(_MELD, list(_MELD))) | damaged([_SPLIT]), read_meld, 2_500, 12_000, (_SPLIT,)),
    Target(
        "encodings",
        st.tuples(damaged([_SPLIT]) | st.binary(max_size=40), st.sampled_from(ENCODINGS) | text),
        read_encoded,
        3_000,
        1_500,
    ),
    Target("iemocap", dialogues | damaged([_DIALOGUE]), read_iemocap, 4_000, 60_000, (_DIALOGUE,)),
    Target(
        "predictions, CSV",
        st.one_of(
            _tables(tables(_PREDICTIONS, _SOUND)),
            _tables(tables(_PREDICTIONS, (*_SOUND, "corruption", "rate", "draw"))),
            damaged([_CSV]),
        ),
        read_csv,
        2_000,
        8_000,
        (_CSV,),
    ),
    Target("predictions, 10^6 rows", _MILLIONS, read_million, 8, 0),
    Target("predictions, Parquet", columns() | damaged([_parquet()]), read_parquet, 2_000, 6_000, (_parquet(),)),
)
