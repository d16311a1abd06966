"""Predictions that another toolkit made: a table with ``schema.PREDICTION_COLUMNS``, read and checked row by row.

Every fault is a ``UserError`` of one sentence. The columns ``REQUIRED`` and ``score_0`` must be there, all others have
a default; ``dataset`` names the corpus of a row where a table holds several.
"""

from __future__ import annotations

import difflib
import re
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from dual_bench.catalog import did_you_mean
from dual_bench.limits import CORPORA, HEADER, PREDICTIONS, ROWS, check_columns, check_size, parquet
from dual_bench.schema import MEASURED, PREDICTION_COLUMNS
from dual_bench.types import (
    ABSENT_PREFIX,
    ANY_TEXT,
    CLEAN,
    MODALITIES,
    PERMUTED_PREFIX,
    TRANSCRIPT_PREFIX,
    UserError,
    is_probe,
)

REQUIRED = ("model", "seed", "utterance", "truth")
DEFAULTS = {"variant": "", "regime": "unknown", "fold": "official", "corruption": CLEAN.corruption}
DATASET = "dataset"

_NAMES = ("model", "utterance", "cluster", "text", DATASET, *DEFAULTS)
_NUMBERS = ("seed", "truth", "rate", "draw", *MEASURED)
_UNUSED = ("cell", "severity", "certified")
"""Columns of the schema that say nothing without the rest of a run."""
_NOTHING = ("", "NaN", "nan", "NA", "N/A", "null", "None")
"""What stands for no number in a CSV file."""
_SCORE = re.compile(r"score_\d+")
_NEAR = 0.8
"""How alike two names are, of 1, that one is taken for a slip of the other."""


@dataclass(frozen=True)
class Foreign:
    """The rows of one corpus, with the columns of a run's predictions; ``notes`` say what was assumed or left out."""

    name: str
    rows: pd.DataFrame
    outputs: int
    """K, how many scores a row has."""
    notes: tuple[str, ...]


def read(path: Path) -> list[Foreign]:
    """The corpora of a .parquet or .csv file, by the column ``dataset`` or else the name of the file."""
    frame, extra = _table(path)
    notes = (
        [f"Columns of {path.name} that are not used: {', '.join(n or 'one without a name' for n in extra)}."]
        if extra
        else []
    )
    if frame.empty:
        raise UserError(f"{path}: expected prediction rows, found none below the header; write one row a prediction")
    frame = _filled(frame, path)
    parts = [(path.stem, frame)]
    if DATASET in frame:
        _printable(frame[DATASET], path)
        if (count := frame[DATASET].nunique()) > CORPORA:
            raise UserError(
                f"{path} names {count:,} corpora in its column '{DATASET}', more than the {CORPORA:,} that are read"
            )
        parts = [(str(name), part) for name, part in frame.groupby(DATASET, sort=False, observed=True)]
    return [_corpus(name, part, path, notes) for name, part in parts]


# ------------------------------------------------------------------------------------------ the columns


def _table(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """The columns that are used, numbers as floats and names as strings, and the names of the others."""
    kinds = {".csv": (_csv_header, _csv), ".parquet": (_parquet_header, _parquet)}
    if path.suffix not in kinds:
        raise UserError(f"{path}: expected a name that ends in .csv or .parquet, found '{path.suffix}'; rename it")
    if not path.stem.isprintable():
        raise UserError(f"{path}: expected a file name of printable characters, as it names the corpus; rename it")
    if not path.is_file():
        raise UserError(f"{path} is {'a folder' if path.is_dir() else 'missing'}; expected a table of predictions")
    header, rows = kinds[path.suffix]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # pandas would drop the cells beyond the header
            names = header(path)
            used, extra = _chosen(names, path)
            frame = rows(path, used)
    except (
        OSError,
        pa.ArrowException,
        pd.errors.ParserError,
        pd.errors.EmptyDataError,
        pd.errors.ParserWarning,
    ) as error:
        raise UserError(f"{path} cannot be read as {path.suffix[1:]}: {_line(error)}; write it again") from None
    except UnicodeError as error:
        raise UserError(f"{path} cannot be read as csv: it is not UTF-8 ({_line(error)}); write it again") from None
    if len(frame) > ROWS:
        raise UserError(f"{path}: expected at most {ROWS:,} rows, found more; split it by corpus")
    return frame, extra


def _line(error: Exception) -> str:
    """What went wrong, on one line and not too long."""
    return " ".join(str(error).split()).removesuffix(".")[:160]


def _csv_header(path: Path) -> list[str]:
    check_size(path, PREDICTIONS, str(path))
    with path.open("rb") as file:
        check_columns(file.readline(HEADER).count(b",") + 1, str(path))
    # no header: pandas would rename columns of one name
    first = pd.read_csv(path, header=None, nrows=1, dtype=str, encoding="utf-8-sig", keep_default_na=False)
    return [str(name) for name in first.iloc[0]]


def _csv(path: Path, used: Sequence[str]) -> pd.DataFrame:
    numbers = [name for name in used if name not in _NAMES]
    settings: dict[str, Any] = {"nrows": ROWS + 1, "encoding": "utf-8-sig", "keep_default_na": False}
    settings |= {"index_col": False, "low_memory": False}
    # not only the columns that are used: then pandas would not see that a row is too long
    kinds = defaultdict(lambda: "category", dict.fromkeys(numbers, "float64"))
    absent = {name: list(_NOTHING) for name in numbers}
    try:
        frame: pd.DataFrame = pd.read_csv(path, dtype=kinds, na_values=absent, **settings)
        return frame[list(used)]
    except ValueError as error:
        if isinstance(error, pd.errors.ParserError | pd.errors.EmptyDataError | UnicodeError):
            raise
        raw = pd.read_csv(path, dtype=str, **settings)
        for name in numbers:
            _number(raw[name].mask(raw[name].isin(_NOTHING)), path)
        raise UserError(f"{path} cannot be read as csv: {_line(error)}; write it again") from None


def _parquet_header(path: Path) -> list[str]:
    names = [str(name) for name in pq.ParquetFile(path).schema_arrow.names]
    check_columns(len(names), str(path))
    return names


def _parquet(path: Path, used: Sequence[str]) -> pd.DataFrame:
    schema = pq.ParquetFile(path).schema_arrow
    for name in used:
        kind = schema.field(name).type
        if pa.types.is_nested(kind):
            raise UserError(f"{path}: expected one value in each cell of '{name}', found {kind}; write a column each")
    frame: pd.DataFrame = parquet(path, str(path), used).to_pandas(ignore_metadata=True)
    for name in used:
        if name in _NAMES:
            column = frame[name].astype(object)
            frame[name] = column.where(column.isna(), column.astype(str)).astype("category")
        else:
            frame[name] = _number(frame[name], path)
    return frame


def _number(column: pd.Series[Any], path: Path) -> pd.Series[Any]:
    """The column as numbers; those of float32 stay so."""
    found = pd.to_numeric(column, errors="coerce")
    if (wrong := found.isna() & column.notna()).any():
        row = int(wrong.to_numpy().argmax())
        raise UserError(
            f"{path}: expected numbers in the column '{column.name}', found '{column.iloc[row]}' in row {row + 1}; "
            "correct it, or leave the cell empty"
        )
    return found.astype("float32" if found.dtype == np.float32 else "float64")


def _chosen(names: Sequence[str], path: Path) -> tuple[list[str], list[str]]:
    """Which columns are used, and which are not; UserError where one is missing, double or misspelt."""
    if twice := [name for name in names if name and names.count(name) > 1]:
        raise UserError(f"{path}: expected every column once, found '{twice[0]}' more than once; remove one")
    scores = sorted((name for name in names if _SCORE.fullmatch(name)), key=lambda name: (len(name), name))
    known = [*PREDICTION_COLUMNS, DATASET, *scores]
    unknown = [name for name in names if name not in known]
    absent = [name for name in (*PREDICTION_COLUMNS, DATASET, "score_0") if name not in names]
    for name in unknown:
        near = difflib.get_close_matches(name.strip().lower(), absent, n=1, cutoff=_NEAR)
        if near:
            raise UserError(
                f"{path}: expected a column of the schema, found '{name}'{did_you_mean(near[0], absent)} Rename or "
                "remove it"
            )
    for name in (*REQUIRED, "score_0"):
        if name not in names:
            raise UserError(f"{path}: expected a column '{name}', found {', '.join(names)[:160]}; add it")
    if scores != [f"score_{i}" for i in range(len(scores))]:
        raise UserError(
            f"{path}: expected score_0 to score_{len(scores) - 1}, found {', '.join(scores)}; renumber them"
        )
    used = [name for name in names if name in known and name not in _UNUSED]
    return used, unknown


# ------------------------------------------------------------------------------------------- the values


def _filled(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """All columns of a run's predictions, with defaults where there is nothing."""
    for name in ("model", "utterance", "cluster", DATASET):
        if name in frame and (empty := _empty(frame[name])).any():
            raise UserError(f"{path}: expected a name in the column '{name}', found nothing in {_row(frame, empty)}")
    found = frame.copy()
    for name, default in DEFAULTS.items():
        column = frame[name] if name in frame else pd.Series(default, frame.index)
        found[name] = column.astype(object).mask(_empty(column), default).astype("category")
    for name in (*DEFAULTS, "model", "utterance", *(["cluster"] if "cluster" in frame else [])):
        _printable(found[name], path)
    if "cluster" not in frame:
        found["cluster"] = found["utterance"]
    for name in ("draw", "rate", *MEASURED):
        if name not in frame:
            found[name] = np.nan
    found["draw"] = found["draw"].fillna(0)
    for name in ("seed", "draw"):
        value = found[name]
        # 2^53: beyond it neighbouring whole numbers are one float
        if (wrong := ~(np.isfinite(value) & (value == np.floor(value)) & (value >= 0) & (value < 2**53))).any():
            raise UserError(
                f"{path}: expected whole numbers from 0 on in the column '{name}', found "
                f"{value[wrong].iloc[0]:g} in {_row(frame, wrong)}"
            )
        found[name] = value.astype(np.int64)
    text = frame["text"] if "text" in frame else pd.Series(pd.NA, frame.index)
    found["text"] = text.astype(object).mask(_empty(text), None)
    return _conditions(found, path)


def _empty(column: pd.Series[Any]) -> pd.Series[Any]:
    return column.isna() | (column.astype(object) == "")


def _row(frame: pd.DataFrame, wrong: pd.Series[Any]) -> str:
    """Where the first fault is, for people."""
    place = int(np.asarray(wrong).argmax())
    row = frame.iloc[place]
    return f"row {frame.index[place] + 1} ({row['model']}, utterance '{row['utterance']}')"


def _printable(column: pd.Series[Any], path: Path) -> None:
    """UserError where a name has characters that no page can show."""
    wrong = [name for name in column.cat.categories if not str(name).isprintable()]
    if wrong:
        raise UserError(f"{path}: expected printable characters in the column '{column.name}', found {wrong[0]!r}")


def _conditions(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Names and rates of the conditions as the rest of dual-bench writes them."""
    names = {name: _condition(str(name), path) for name in frame["corruption"].cat.categories}
    corruption, rate = frame["corruption"].astype(object).map(names), frame["rate"].astype(float)
    clean = corruption == CLEAN.corruption
    unrated = [n for n in names.values() if n.startswith(TRANSCRIPT_PREFIX) or is_probe(n) or n == ANY_TEXT.corruption]
    fixed = corruption.isin(unrated)
    if (wrong := clean & ~rate.isin([0]) & rate.notna()).any():
        raise UserError(f"{path}: expected rate 0 of clean text, found {rate[wrong].iloc[0]:g} in {_row(frame, wrong)}")
    if (wrong := fixed & ~rate.isin([1]) & rate.notna()).any():
        raise UserError(
            f"{path}: expected rate 1, or none, of '{corruption[wrong].iloc[0]}', found {rate[wrong].iloc[0]:g} in "
            f"{_row(frame, wrong)}"
        )
    if (wrong := ~clean & ~fixed & ~((rate > 0) & (rate <= 1))).any():
        found = rate[wrong].iloc[0]
        what = "none" if np.isnan(found) else f"{found:g}"
        raise UserError(
            f"{path}: expected a rate above 0, to 1, of '{corruption[wrong].iloc[0]}', found {what} in "
            f"{_row(frame, wrong)}; rate 0 is the corruption 'clean'"
        )
    rate = rate.mask(clean, 0.0).mask(fixed, 1.0)
    return frame.assign(corruption=corruption.astype("category"), rate=rate)


def _condition(name: str, path: Path) -> str:
    """``absent:`` and ``permuted:`` with their modalities in the usual order; other names as they are."""
    for prefix in (ABSENT_PREFIX, PERMUTED_PREFIX):
        if name.startswith(prefix):
            parts = name.removeprefix(prefix).split("+")
            for part in parts:
                if part not in MODALITIES:
                    raise UserError(
                        f"{path}: expected modalities after '{prefix}', found '{part}'{did_you_mean(part, MODALITIES)}"
                    )
            return prefix + "+".join(m for m in MODALITIES if m in parts)
    return name


# --------------------------------------------------------------------------------------------- a corpus


def _corpus(name: str, frame: pd.DataFrame, path: Path, notes: Sequence[str]) -> Foreign:
    """The rows of one corpus, checked."""
    scores = [c for c in frame.columns if _SCORE.fullmatch(c)]
    while len(scores) > 1 and frame[scores[-1]].isna().all():  # a corpus of fewer classes than another in the file
        scores.pop()
    outputs = len(scores)
    finite = np.isfinite(frame[scores].to_numpy()).all(axis=1)
    if (wrong := pd.Series(~finite)).any():
        raise UserError(
            f"{path}: expected finite numbers in {_span(scores)}, found NaN or infinity in {_row(frame, wrong)}"
        )
    _check_truth(frame, outputs, path)
    said = list(notes)
    if (frame["cluster"].astype(object) == frame["utterance"].astype(object)).all():
        said.append(
            f"Every utterance of {name} counts as a cluster of its own, as the file names none: where utterances share "
            "a speaker or a dialogue, intervals are then too narrow."
        )
    if bounded := int((frame["corruption"] == ANY_TEXT.corruption).sum()):
        said.append(f"{bounded:,} rows of {name} under {ANY_TEXT.corruption} are not used.")
    keep = frame["corruption"] != ANY_TEXT.corruption
    columns = [c for c in PREDICTION_COLUMNS if c not in _UNUSED]
    rows = frame.loc[keep, [*columns, *scores]]
    _check_rows(rows, path)
    return Foreign(name, rows.reset_index(drop=True), outputs, tuple(said))


def _span(scores: Sequence[str]) -> str:
    return scores[0] if len(scores) == 1 else f"{scores[0]} to {scores[-1]}"


def _check_truth(frame: pd.DataFrame, outputs: int, path: Path) -> None:
    truth = frame["truth"]
    if outputs == 1:
        wrong, what = ~truth.abs().lt(np.inf), "a finite number"
    else:
        wrong = ~truth.isin(np.arange(outputs, dtype=float))
        what = f"a class, 0 to {outputs - 1} as there are {outputs} scores,"
    if wrong.any():
        raise UserError(
            f"{path}: expected {what} in the column 'truth', found {truth[wrong].iloc[0]:g} in {_row(frame, wrong)}"
        )


def _check_rows(rows: pd.DataFrame, path: Path) -> None:
    """UserError where a prediction stands twice, clean text is missing, or no seed has every prediction."""
    who, where = ["model", "variant", "regime", "seed"], ["corruption", "rate", "draw"]
    if (twice := rows.duplicated([*who, *where, "utterance"])).any():
        row = rows[twice].iloc[0]
        raise UserError(
            f"{path}: expected one prediction of an utterance by each model under each condition, found two: "
            f"{_row(rows, twice)}, seed {row['seed']}, {row['corruption']} {row['rate']:g}, draw {row['draw']}; "
            "remove one"
        )
    if not (rows["corruption"] == CLEAN.corruption).any():
        raise UserError(f"{path}: expected rows of the corruption 'clean', found none; every comparison starts there")
    probed = rows["corruption"].isin([n for n in rows["corruption"].cat.categories if is_probe(n)])
    # each system needs every ordinary row; where it was probed, it needs every row of the probes as well
    for asked, systems in ((rows[~probed], rows), (rows[probed], rows[probed])):
        if asked.empty:
            continue
        expected = len(asked[where].drop_duplicates()) * asked["utterance"].nunique()
        counts = asked.groupby(who, observed=True, sort=False).size()
        # no table of systems and seeds: where every row has one of its own, it would have the square of the rows
        those = systems.set_index(who[:3]).index.unique()
        if (counts[counts == expected].groupby(level="seed").size() == len(those)).any():
            continue
        told = (
            counts.groupby(level=who[:3], sort=False, observed=True).agg(["min", "size"]).reindex(those, fill_value=0)
        )
        least = told["min"].where(told["size"] == counts.index.get_level_values("seed").nunique(), 0).to_numpy()
        model, _, regime = those[int(least.argmin())]
        raise UserError(
            f"{path}: expected, in at least one seed, every utterance by every model under every condition and "
            f"draw, {expected:,} rows each; found {least.min():,} by '{model}' trained '{regime}'; add what is "
            "missing, or remove that model"
        )
