"""Files that are too large, too deep, or swell: refused in a sentence, and what is large but honest is read."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from calling import invoke, refused
from made_run import Made, write
from media import numbered
from media import write as write_media
from scipy.io import wavfile

from dual_bench import limits
from dual_bench.datasets import iemocap, manifest
from dual_bench.datasets.table import read_table
from dual_bench.features import media, weights
from dual_bench.features.media import Clip, MediaError, Picture, frames, sound
from dual_bench.plan import read_plan
from dual_bench.report import foreign
from dual_bench.store import read_run
from dual_bench.types import UserError

GREY = Picture(64, 128, colour=False)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set bounds lower, everywhere they were imported to, so that no test has to write a gigabyte."""

    def lower(**bounds: int) -> None:
        modules = [m for name, m in list(sys.modules.items()) if name.startswith("dual_bench")]
        for module in modules:
            for name, value in bounds.items():
                if getattr(module, name, None) == getattr(limits, name, media) and module is not limits:
                    monkeypatch.setattr(module, name, value)
        for name, value in bounds.items():
            monkeypatch.setattr(limits, name, value)

    return lower


def sparse(path: Path, size: int) -> Path:
    """A file of that many zero bytes, which takes no room."""
    path.touch()
    os.truncate(path, size)
    return path


# --------------------------------------------------------------------------------------------- TOML, JSON


def test_a_study_or_preset_of_more_than_a_megabyte_is_refused_before_it_is_read(tmp_path: Path) -> None:
    large = sparse(tmp_path / "large.toml", 2**40)
    assert f"study {large} has more than the 1,048,576 bytes that are read" in refused("run", large)
    called = ["run", "--dataset", "synthetic:utterances=48", "--models", "concat", "--presets", large]
    assert f"presets {large} has more than the 1,048,576 bytes" in refused(*called)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a = " + "[" * 100_000, "nested deeper than any that is read"),
        ("a = " + "{ b = " * 100_000, "nested deeper than any that is read"),
        (".".join("a" * 500_000) + " = 1", "a key of more than 16 parts"),
        ('"a"  .  ' * 20 + "a = 1", "a key of more than 16 parts"),
        (f"[{'.'.join('a' * 20)}]", "a key of more than 16 parts"),
        (f"a = {{ b = 'it', {'.'.join('a' * 20)} = 1 }}", "a key of more than 16 parts"),
        (r"a = 'c:\' # it's" + f"\n{'.'.join('a' * 20)} = 1", "a key of more than 16 parts"),
        (r'a = "\\" # "' + f"\n{'.'.join('a' * 20)} = 1", "a key of more than 16 parts"),
        (r'a = """\"""""' + f"\n{'.'.join('a' * 20)} = 1", "a key of more than 16 parts"),
        (f"a = ''''''\n{'.'.join('a' * 20)} = ''''''", "a key of more than 16 parts"),
        ('a = "' + r"\"" * 400_000, "is not TOML"),
        ('a = """' + r'\"""' * 200_000, "is not TOML"),
    ],
    ids=[
        *("arrays", "tables", "dotted", "quoted", "headings", "inline", "behind a literal", "behind a text"),
        *("behind lines", "behind literal lines", "quotes", "more quotes"),
    ],
)
def test_toml_that_is_deep_is_refused_at_once(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "deep.toml").write_text(text)
    assert says in refused("run", tmp_path / "deep.toml")


@pytest.mark.parametrize(
    "text",
    [
        f'a = "{"no. " * 30}"',
        f"a = '{'no.' * 30}'",
        f'a = """\n"it" {"no. " * 30}\n""" # {"a." * 30}a = 1',
        f"a = '''\n'it' {'no.' * 30}\n'''",
        f"a = 1 # {'a.' * 30}a",
        f"# it's {'a.' * 30}a\na = 1",
        f'a = ["\\"{"no." * 30}\\"", {"0.5, " * 30}]',
        f"{'.'.join('a' * 16)} = 1",
    ],
)
def test_dots_in_texts_and_comments_make_no_key_deep(text: str) -> None:
    assert limits.toml(text, "study") == tomllib.loads(text)


def test_a_study_of_a_million_cells_is_read(tmp_path: Path) -> None:
    models = ", ".join(f'"concat:width={8 * (i + 1)}"' for i in range(200))
    (tmp_path / "many.toml").write_text(
        f'name = "many"\nquestion = "{"why? " * 1000}"\ndataset = "synthetic"\nseeds = 5000\nmodels = [{models}]\n'
    )
    plan = read_plan(str(tmp_path / "many.toml"), {"regimes": ["clean"]})
    assert len(plan.models) * plan.seeds == 1_000_000


def spoilt(file: Path) -> Iterator[Path]:
    """The same record deep, then huge."""
    file.write_text("[" * 100_000)
    yield file
    yield sparse(file, 2**40)


@pytest.mark.parametrize("command", ["report", "status"])
def test_a_record_of_a_run_that_is_huge_or_deep_is_refused(tmp_path: Path, command: str) -> None:
    write(tmp_path, Made(regimes=("clean",), models=("concat",), rates=(0.5,)))
    for file in spoilt(tmp_path / "run.json"):
        assert str(file) in refused(command, tmp_path)


def test_a_record_of_a_cell_that_is_huge_or_deep_counts_as_damaged(tmp_path: Path) -> None:
    write(tmp_path, Made(regimes=("clean",), models=("concat",), rates=(0.5,)))
    assert re.search(r"^concat +clean +3 +0 +0$", invoke("status", tmp_path).stdout, re.MULTILINE)
    for _ in spoilt(next((tmp_path / "cells").glob("*.json"))):
        assert re.search(r"^concat +clean +2 +0 +1$", invoke("status", tmp_path).stdout, re.MULTILINE)
        assert sum(cell.model == "concat" for cell in read_run(tmp_path).cells) == 2


# ----------------------------------------------------------------------------------------------- CSV, text


def test_a_table_of_utterances_beyond_the_bound_is_refused_before_it_is_read(tmp_path: Path) -> None:
    large = sparse(tmp_path / "large.csv", 2**40)
    with pytest.raises(UserError, match=r"manifest .*large\.csv has more than the 536,870,912 bytes that are read"):
        read_table(large, "manifest")
    folder = tmp_path / "Session1" / "dialog" / "EmoEvaluation"
    folder.mkdir(parents=True)
    sparse(folder / "Ses01F_impro01.txt", 2**40)
    with pytest.raises(UserError, match=r"Ses01F_impro01\.txt has more than the 536,870,912 bytes"):
        iemocap.read(tmp_path)
    (tmp_path / "line").mkdir()
    sparse(tmp_path / "line" / "a.csv", 2**40)
    assert "arranged like no corpus that is known" in refused("data", "check", tmp_path / "line")


@pytest.mark.parametrize("content", ["," * 20_000 + "\n", "a" + ",a" * 9_000 + "\n" + "1\n" * 10_000])
def test_a_csv_whose_short_rows_swell_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "wide.csv").write_text(content)
    with pytest.raises(UserError, match="has more than the 10,000 columns, or 67,108,864 cells, that are read"):
        read_table(tmp_path / "wide.csv", "manifest")


# ----------------------------------------------------------------------------------------------- features


def corpus(folder: Path, features: str) -> Path:
    rows = [f"u{i},{'abc'[i % 3]},c{i},s,hi,{'xy'[i % 2]},{features},{i}" for i in range(6)]
    path = folder / "own.csv"
    path.write_text("\n".join(["id,fold,cluster,speaker,text,label,audio_file,audio_row", *rows]))
    return path


def test_features_that_swell_beyond_the_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "f.npz", values=np.zeros((6, 2**20), np.int8))
    assert (tmp_path / "f.npz").stat().st_size < 2**14
    monkeypatch.setattr(limits, "memory", lambda: 8 * 6 * 2**20)
    with pytest.raises(
        UserError, match=r"f\.npz is not a feature file: it unpacks to 6,291,\d+ bytes, more than an eig"
    ):
        manifest.load(Path(), path=str(corpus(tmp_path, "f.npz")))
    monkeypatch.setattr(limits, "memory", lambda: 8 * 7 * 2**20)
    assert manifest.load(Path(), path=str(corpus(tmp_path, "f.npz"))).signals["audio"].items


@pytest.mark.parametrize("name", ["f.npy", "f.npz"])
def test_a_header_that_claims_more_than_any_memory_is_refused(tmp_path: Path, name: str) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 10000000), }"
    array = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header.ljust(117) + b"\n" + bytes(64)
    if name == "f.npy":
        (tmp_path / name).write_bytes(array)
    else:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("values.npy", array)
    with pytest.raises(UserError, match="is not a feature file"):
        manifest.load(Path(), path=str(corpus(tmp_path, name)))


def test_compressed_weights_are_refused_and_plain_ones_read(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1000)}, tmp_path / "plain.pth")
    assert weights.read(tmp_path / "plain.pth", "x")["w"].shape == (1000,)
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for part in plain.namelist():
            bomb.writestr(part, plain.read(part))
    with pytest.raises(UserError, match=r"expected tensors by name in .*bomb\.pth"):
        weights.read(tmp_path / "bomb.pth", "x")


# ------------------------------------------------------------------------------------------- predictions


def predictions(rows: int) -> pd.DataFrame:
    n = np.arange(rows)
    frame = pd.DataFrame({"model": "m", "seed": 0, "utterance": n, "truth": n % 2})
    return frame.assign(score_0=0.25, score_1=0.75)


def test_a_table_of_predictions_beyond_the_bounds_is_refused(tmp_path: Path, small: Callable[..., None]) -> None:
    predictions(2000).to_csv(tmp_path / "p.csv", index=False)
    predictions(2000).to_parquet(tmp_path / "p.parquet")
    with pytest.raises(UserError, match=r"has 1,099,511,627,776 bytes, more than the 8,589,934,592 that"):
        foreign.read(sparse(tmp_path / "large.csv", 2**40))
    (tmp_path / "wide.csv").write_text(",".join(f"c{i}" for i in range(20_000)) + "\n")
    with pytest.raises(UserError, match="has 20,000 columns, more than the 10,000 that are read"):
        foreign.read(tmp_path / "wide.csv")
    predictions(2000).assign(dataset=np.arange(2000)).to_csv(tmp_path / "many.csv", index=False)
    with pytest.raises(
        UserError, match=r"names 2,000 corpora in its column 'dataset', more than the 200 that are read"
    ):
        foreign.read(tmp_path / "many.csv")
    small(ROWS=1000)
    for name in ("p.csv", "p.parquet"):
        with pytest.raises(UserError, match="expected at most 1,000 rows"):
            foreign.read(tmp_path / name)


def test_a_million_predictions_are_read(tmp_path: Path) -> None:
    predictions(1_000_000).to_parquet(tmp_path / "p.parquet")
    assert limits.parquet(tmp_path / "p.parquet", "p").num_rows == 1_000_000


def test_a_parquet_file_that_says_of_a_number_how_often_it_comes_counts_as_written_out(
    tmp_path: Path, small: Callable[..., None]
) -> None:
    table = pa.table({f"c{i}": np.zeros(10_000) for i in range(20)})
    pq.write_table(table, tmp_path / "bomb.parquet", data_page_size=2**20)
    stored = pq.ParquetFile(tmp_path / "bomb.parquet").metadata.row_group(0).total_byte_size
    assert stored < 2**14
    small(PREDICTIONS=10_000 * 20 * 8)
    assert limits.parquet(tmp_path / "bomb.parquet", "bomb").num_columns == 20
    small(PREDICTIONS=10_000 * 20 * 8 - 1)
    with pytest.raises(UserError, match=r"bomb: expected at most .* and 1,599,999 bytes, found 10,000 and 1,600,000"):
        limits.parquet(tmp_path / "bomb.parquet", "bomb")
    assert limits.parquet(tmp_path / "bomb.parquet", "bomb", ["c0", "c1"]).num_columns == 2


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.struct([("a", pa.float64())]), pa.binary(2)])
def test_a_parquet_file_with_more_than_a_number_or_text_in_a_cell_is_refused(tmp_path: Path, kind: pa.DataType) -> None:
    pq.write_table(pa.table({"n": [1.0, 2.0], "deep": pa.nulls(2, kind)}), tmp_path / "deep.parquet")
    with pytest.raises(UserError, match="deep: expected a number or a text in each cell of 'deep', found"):
        limits.parquet(tmp_path / "deep.parquet", "deep")
    assert limits.parquet(tmp_path / "deep.parquet", "deep", ["n"]).num_columns == 1


def test_a_parquet_file_of_a_megabyte_that_says_the_same_text_in_every_row_stays_small(tmp_path: Path) -> None:
    """Written out it would be 300 GB; the process may have 6."""
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(300_000, np.int32)), pa.array(["x" * 2**20]))
    table = pa.table({"text": text, "n": np.zeros(300_000)})
    pq.write_table(table, tmp_path / "bomb.parquet", store_schema=False)
    code = (
        "import sys; from pathlib import Path; from dual_bench.limits import parquet\n"
        "frame = parquet(Path(sys.argv[1]), 'x').to_pandas(); print(len(frame), frame['text'].nunique())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "bomb.parquet")], capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30,) * 2),
    )  # fmt: skip
    assert done.stdout == "300000 1\n", done.stderr


# ------------------------------------------------------------------------------------------------- media


def test_a_picture_of_more_pixels_than_any_screen_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_media(tmp_path / "a.mkv", numbered(3))
    assert frames(Clip(path), 10, GREY).shape[1:] == (64, 128)
    for module, name in ((media, "PIXELS"), (media, "OPTIONS")):
        value = {**media.OPTIONS, "max_pixels": "8191"} if name == "OPTIONS" else 8191
        monkeypatch.setattr(module, name, value)
    with pytest.raises(MediaError):
        frames(Clip(path), 10, GREY)


@pytest.mark.parametrize(
    ("codec", "found"),
    [("mpeg4", "(1, 8, 8, 3)"), ("rawvideo", "ends at 0.0 s, and what comes 0.0 s and later was as")],
)
def test_a_header_that_claims_a_hundred_thousand_pixels_a_side_gets_no_room_for_them(
    tmp_path: Path, codec: str, found: str
) -> None:
    """Pictures that tell their size themselves are read as they are, others are none; the process may have 4 GB."""
    path = tmp_path / "raw.avi"
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        file.mux([*stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64), np.uint8), "gray").reformat(
            format="yuv420p")), *stream.encode(None)])  # fmt: skip
    content = path.read_bytes()
    wide = (100_000).to_bytes(4, "little")
    small = (64).to_bytes(4, "little") * 2
    assert small in content
    path.write_bytes(content.replace(small, wide * 2))
    limit = (4 * 2**30,) * 2
    code = (
        "import sys; from pathlib import Path; from dual_bench.features.decode import pictures\n"
        "from dual_bench.features.media import Clip, Picture\n"
        "found = pictures(Clip(Path(sys.argv[1])), 10, Picture(8, 8, True))\n"
        "print(found if isinstance(found, str) else found.shape)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limit))  # fmt: skip
    assert done.stdout.startswith(found), done.stderr


def test_pictures_that_never_end_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_media(tmp_path / "a.mkv", numbered(30))
    monkeypatch.setattr(media, "DECODED", 10 * 64 * 128)
    with pytest.raises(MediaError, match=r"has more pictures than are decoded, 81,920 pixels; name a start and an end"):
        frames(Clip(path), 25, GREY)
    assert len(frames(Clip(path, 0, 0.2), 25, GREY)) == 5


@pytest.mark.parametrize("rate", [1, 3_999, 10**9])
def test_a_rate_of_sound_that_is_none_is_refused(tmp_path: Path, rate: int) -> None:
    wavfile.write(tmp_path / "a.wav", rate, np.zeros(1000, np.int16))
    with pytest.raises(MediaError, match=f"has sound at {rate} Hz; expected 4000 to 192000 Hz"):
        sound(Clip(tmp_path / "a.wav"))


@pytest.mark.parametrize("channels", [65, 255])
def test_sound_in_hundreds_of_channels_is_refused(tmp_path: Path, channels: int) -> None:
    wavfile.write(tmp_path / "a.wav", 16_000, np.zeros((20, channels), np.int16))
    with pytest.raises(MediaError, match=f"has sound in {channels} channels; expected 64 at the most"):
        sound(Clip(tmp_path / "a.wav"))


def test_sound_that_takes_more_than_its_room_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long at a high rate, or with times that say of all of it that it comes first."""
    wavfile.write(tmp_path / "a.wav", 96_000, np.zeros(200_000, np.int16))
    assert len(sound(Clip(tmp_path / "a.wav"))) == pytest.approx(33_333, abs=2)
    monkeypatch.setattr(media, "ROOM", 2**18)
    with pytest.raises(MediaError, match=r"is [\d.]+ s long; expected 1 s, 0\.000244\d* GiB of sound, at the most"):
        sound(Clip(tmp_path / "a.wav"))
    wavfile.write(tmp_path / "b.wav", 16_000, np.zeros(200_000, np.int16))
    monkeypatch.setattr(media._Track, "time", lambda track, ticks: 0.0)
    with pytest.raises(MediaError, match="holds more sound than its times have room for"):
        sound(Clip(tmp_path / "b.wav"))
