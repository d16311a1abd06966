"""A folder that ``dual-bench data extract`` wrote: raw media turned, once, into features that a run can read.

* ``corpus.json``: what the corpus is, and what made its features (``Extracted``);
* ``utterances.parquet``: a row for each utterance of the tables it came from, whatever became of its clip
  (``COLUMNS``);
* ``audio-…/`` and ``vision-…/``: features (``features.cache.FeatureStore``), a folder for each encoder;
* ``sound/``: what was said, mono wav files of 16 kHz, which the corruption ``asr-loop`` gives to a recogniser;
* ``problems.csv``: a line for each clip that gives no sound or no pictures.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, cast, overload

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from scipy.io import wavfile

from dual_bench.catalog import validated
from dual_bench.datasets.assemble import assemble, folds_of
from dual_bench.features.mixing import SAMPLE_RATE
from dual_bench.limits import RECORD as RECORD_SIZE
from dual_bench.limits import parquet, read_bytes
from dual_bench.types import SPLITS, Corpus, Modality, Ragged, Signal, Split, Task, UserError, Utterance

RECORD, TABLE, PROBLEMS = "corpus.json", "utterances.parquet", "problems.csv"
VERSION = 1
MEDIA: tuple[Modality, ...] = ("audio", "vision")

COLUMNS = {
    "id": "of the utterance",
    "split": "train, validation or test",
    "fold": "where it tests, in a cross-validation; else empty",
    "cluster": "dialogue, session or video",
    "speaker": "who says it",
    "target": "index of the class, or the value",
    "text": "what is said; a column text_NAME for the transcript of each recogniser",
    "audio_start": "its first row of features, and so for vision",
    "audio_steps": "how many; 0 where there are none",
    "sound": "file in sound/, empty where there is none",
    "sound_sha256": "of that file",
}


class Features(BaseModel):
    """One modality of the corpus: the folder of its rows, how wide they are, and what made them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Annotated[str, Field(pattern=r"^[\w-]+$")]
    encoder: str
    width: Annotated[int, Field(ge=1)]
    rate: float | None
    """Steps a second; None where nobody knows."""


class Extracted(BaseModel):
    """What the table of utterances does not say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1]
    name: str
    layout: str
    """With the settings that were asked for, as ``meld:quotes=plain``."""
    kind: Literal["classification", "regression"]
    classes: tuple[str, ...]
    low: float | None
    high: float | None
    licence: str
    notes: tuple[str, ...]
    deviations: tuple[str, ...]
    audio: Features | None
    vision: Features | None
    sound: bool
    table_sha256: str
    """Of the table of utterances."""
    made_by: str
    """dual-bench and the packages that decode and encode, with their versions."""

    @property
    def task(self) -> Task:
        low = -math.inf if self.low is None else self.low
        return Task(self.kind, self.classes, low, math.inf if self.high is None else self.high)


@dataclass(frozen=True)
class Wavs(Sequence[NDArray[np.float32]]):
    """Waveforms (samples,) in [-1, 1] that lie in files, each read and checked when it is asked for; no name, no
    samples."""

    folder: Path
    names: tuple[str, ...]
    sha256: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.float32]: ...
    @overload
    def __getitem__(self, index: slice) -> Wavs: ...
    def __getitem__(self, index: int | slice) -> NDArray[np.float32] | Wavs:
        if isinstance(index, slice):
            return Wavs(self.folder, self.names[index], self.sha256[index])
        if not self.names[index]:
            return np.empty(0, np.float32)
        path = self.folder / self.names[index]
        try:
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != self.sha256[index]:
                raise ValueError("it has changed")
            _, samples = wavfile.read(io.BytesIO(content))
        except (OSError, ValueError) as error:
            raise UserError(f"the sound {path} cannot be read ({error}); extract the corpus again") from None
        return np.asarray(samples, np.float32) / -float(np.iinfo(np.int16).min)


class ExtractedSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str


def load(data: Path, /, **settings: object) -> Corpus:
    """The corpus in the folder at ``path``; ``data`` is not needed. UserError where it is unfinished, of another
    version, or not whole."""
    folder = Path(validated(ExtractedSettings, settings, "extracted").path)
    record = read_record(folder)
    table = read_table(folder)
    if hashlib.sha256((folder / TABLE).read_bytes()).hexdigest() != record.table_sha256:
        raise UserError(f"{folder / TABLE} is not the one that {RECORD} was written with; extract the corpus again")
    transcripts = [str(column) for column in table.columns if str(column).startswith("text_")]
    rows = cast(list[dict[str, object]], table.to_dict("records"))
    utterances = [
        Utterance(
            str(row["id"]),
            cast(Split, row["split"]),
            str(row["cluster"]),
            str(row["speaker"]),
            str(row["text"]),
            float(cast(float, row["target"])),
            {name.removeprefix("text_"): str(row[name]) for name in transcripts},
        )
        for row in rows
    ]
    fold_of = list(table["fold"]) if (table["fold"] != "").any() else None
    signals = {m: _signal(folder, table, m, made) for m, made in features_of(record)}
    sound = None
    if record.sound:
        for name in table["sound"]:
            if Path(name).name != name:
                raise UserError(f"{folder / TABLE}: the sound '{name}' is outside its folder; extract the corpus again")
        wavs = Wavs(folder / "sound", tuple(table["sound"]), tuple(table["sound_sha256"]))
        sound = Signal("waveform", wavs, float(SAMPLE_RATE), wavs.sha256)
    return assemble(
        record.name,
        record.task,
        utterances,
        signals,
        folds_of(utterances, fold_of),
        record.licence,
        (*record.notes, *_deviations(record), *_absences(table, record)),
        sound=sound,
    )


def read_record(folder: Path) -> Extracted:
    """What ``folder`` says of itself; UserError where it says nothing, or something else."""
    path = folder / RECORD
    try:
        return Extracted.model_validate_json(read_bytes(path, RECORD_SIZE, str(path)))
    except FileNotFoundError:
        raise UserError(
            f"{folder} holds no {RECORD}: it holds raw media, or an extraction that was stopped; "
            "`dual-bench data extract` makes a corpus of the one, and goes on with the other"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}, {where}: {first['msg']}; extract the corpus again with this dual-bench") from None


def read_table(folder: Path) -> pd.DataFrame:
    """The utterances, by COLUMNS; UserError where the file is missing or something else."""
    path = folder / TABLE
    try:
        with path.open("rb") as file:  # a path with a colon would be taken for an address
            table: pd.DataFrame = parquet(file, str(path)).to_pandas()
            table = table.astype({str(name): object for name in table.select_dtypes("category")})
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); extract the corpus again") from None
    whole = [f"{m}_{what}" for m in MEDIA for what in ("start", "steps") if f"{m}_{what}" in table]
    strings = [name for name in COLUMNS if name in table and name not in {*whole, "target"}]
    needed = ("id", "split", "fold", "cluster", "speaker", "target", "text")
    if (
        not set(needed) <= set(table)
        or not set(table["split"]) <= set(SPLITS)
        or not all(isinstance(value, str) for name in strings for value in table[name])
        or not all(table[name].dtype.kind == "i" and (table[name] >= 0).all() for name in whole)
    ):
        raise UserError(f"{path} holds something else than utterances; extract the corpus again")
    return table


def features_of(record: Extracted) -> Iterator[tuple[Modality, Features]]:
    """The modalities that the corpus has features of."""
    for modality in MEDIA:
        if (made := getattr(record, modality)) is not None:
            yield modality, made


def _signal(folder: Path, table: pd.DataFrame, modality: Modality, made: Features) -> Signal:
    source = folder / made.folder / "rows.f32"
    starts, lengths = (np.array(table[f"{modality}_{what}"], np.int64) for what in ("start", "steps"))
    found = source.stat().st_size if source.exists() else 0
    rows = found // (4 * made.width)
    if (lengths > rows).any() or (starts > rows - lengths)[lengths > 0].any():  # a sum of both may overflow
        needed = (int(starts.max()) + int(lengths.max())) * made.width * 4
        raise UserError(f"{source} is not whole: expected {needed} bytes, found {found}; extract the corpus again")
    rate = math.nan if made.rate is None else made.rate
    return Signal("features", Ragged.map(source, made.width, starts, lengths), rate, encoder=made.encoder)


def _deviations(record: Extracted) -> list[str]:
    read = [f"Read as {record.layout}."] if ":" in record.layout else []
    return read + ([f"Not as expected of this corpus: {'; '.join(record.deviations)}."] if record.deviations else [])


def _absences(table: pd.DataFrame, record: Extracted) -> list[str]:
    """A sentence for every modality that some utterances have no features of."""
    names = {"audio": "voice", "vision": "face"}
    sentences = []
    for modality, _ in features_of(record):
        absent = (table[f"{modality}_steps"] == 0).to_numpy()
        if absent.any():
            parts = Counter(table["fold"].where(table["fold"] != "", table["split"])[absent])
            where = ", ".join(f"{count} in {part}" for part, count in sorted(parts.items()))
            sentences.append(
                f"{int(absent.sum())} of {len(table)} utterances have no {names[modality]} ({where}); they are trained "
                f"and tested on like the others."
            )
    return sentences
