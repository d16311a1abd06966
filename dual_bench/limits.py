"""How large, and how deep, files of strangers may be, all in one place.

What is larger is refused in a sentence before it is read whole. Where a compressed file says how much it holds, that
counts, not the bytes on the disk: a few of them can swell to more than any memory (https://en.wikipedia.org/wiki/Zip_bomb).
"""

from __future__ import annotations

import os
import re
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from dual_bench.types import UserError

if TYPE_CHECKING:
    import pyarrow as pa

TOML = 2**20
"""Bytes of a study or a preset; those that come along have 5,000 at most. A plan of a million cells has a few lines."""
TOML_KEY = 16
"""Parts of a dotted key: ``tomllib`` takes time by the square of them, so a megabyte could take minutes."""
RECORD = 2**29
"""Bytes of a JSON record, and of tables of trials; that of a run of a million cells has 70,000,000."""
LOG = 2**31
"""Bytes of the log of a run; that of a million cells has about 300,000,000."""
CORPUS = 2**29
"""Bytes of a CSV or text file of utterances; a million of them take about a quarter."""
CELLS = 2**26
"""Rows times columns of such a CSV, as a row may leave its last cells out."""
PREDICTIONS = 2**33
"""Bytes of a CSV of predictions; of a Parquet file, what it says it holds before compression, and 8 for each cell that
is read. 20,000,000 rows take about a half."""
ROWS = 20_000_000
"""Rows of a table of predictions: more would not fit into the memory of most machines."""
CORPORA = 200
"""Of a table of predictions: each becomes a report of its own."""
COLUMNS = 10_000
"""Of any table."""
HEADER = 2**20
"""Bytes of the first line of a CSV."""


_BASIC, _LITERAL, _BARE = r'"(?:[^"\\\n]|\\[^\n])*+', r"'[^'\n]*+", r"[\w-]++"
_TOKEN = re.compile(
    r'"""(?:[^"\\]|\\.?|"{1,2}(?!"))*+(?:"{3,5}|\Z)'
    r"|'''(?:[^']|'{1,2}(?!'))*+(?:'{3,5}|\Z)"
    r"|#[^\n]*+"
    rf"|(?P<deep>(?:(?:{_BASIC}\"|{_LITERAL}'|{_BARE})[ \t]*+\.[ \t]*+){{{TOML_KEY},}}+)"
    rf"|{_BASIC}\"?|{_LITERAL}'?|{_BARE}",
    re.DOTALL,
)
"""Texts, comments, a key that is too ``deep``, and words: dots in the first two are no key's. A text that does not end
goes on to the end of its line, or of the file, so that no character is looked at more often than a key has parts."""


def check_size(path: Path, most: int, what: str) -> None:
    """UserError where ``path``, which is called ``what``, is larger than ``most``; OSError where it is not there."""
    found = path.stat().st_size
    if found > most:
        raise UserError(f"{what} has {found:,} bytes, more than the {most:,} that are read")


def read_bytes(path: Path, most: int, what: str) -> bytes:
    """What a file holds; UserError where that is more than ``most``, OSError where it cannot be read.

    It may grow meanwhile, or be no plain file: no more than ``most`` is read whatever it says of itself.
    """
    content = bytearray()
    with path.open("rb") as file:
        large = os.fstat(file.fileno()).st_size > most
        # in pieces: for one large read, room for all that it may bring would be made first
        while not large and (piece := file.read(2**20)):
            content += piece
            large = len(content) > most
    if large:
        raise UserError(f"{what} has more than the {most:,} bytes that are read")
    return bytes(content)


def read_text(path: Path, most: int, what: str) -> str:
    """The same in UTF-8; UnicodeDecodeError where it is none. Line ends become plain."""
    return read_bytes(path, most, what).decode("utf-8").replace("\r\n", "\n")


def toml(text: str, what: str) -> dict[str, Any]:
    """The tables of a TOML file; UserError where it is none, is built to be slow or deep, or holds more than can be
    shown again."""
    if deep := next(filter(None, (token["deep"] for token in _TOKEN.finditer(text))), None):
        raise UserError(f"{what} has a key of more than {TOML_KEY} parts, '{deep[:20]}…'; no field is so deep")
    try:
        tables = tomllib.loads(text)
        _check_whole(tables)
    except ValueError as error:  # of a number with thousands of digits no TOMLDecodeError
        raise UserError(f"{what} is not TOML: {error}") from None
    except RecursionError:
        raise UserError(f"{what} is nested deeper than any that is read") from None
    return tables


def _check_whole(value: object) -> None:
    """ValueError where a whole number has more than the 64 bits that TOML asks for: Python takes more, but cannot show
    them in every message and record."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("a whole number has more than 64 bits")
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _check_whole(inner)


def check_columns(count: int, what: str) -> None:
    """UserError where a table has more columns than are read."""
    if count > COLUMNS:
        raise UserError(f"{what} has {count:,} columns, more than the {COLUMNS:,} that are read")


def memory() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_zip(path: Path) -> None:
    """ValueError where the parts of a zip file (``.npz``) unpack to more than an eighth of the memory: bytes become
    four times as large where they are read as float32, and lie beside those for a while."""
    with zipfile.ZipFile(path) as archive:
        held = sum(part.file_size for part in archive.infolist())
    if held > memory() // 8:
        raise ValueError(f"it unpacks to {held:,} bytes, more than an eighth of the memory here; divide it")


def parquet(file: Path | BinaryIO, what: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Columns of a Parquet file, by default all; UserError where it says that it holds more than is read, or where one
    has more than a number or text in a cell.

    Numbers count as they are in memory: a file may say of one but how often it comes. Texts stay as they are stored,
    each once: written out, one of a megabyte in a million rows would be a terabyte.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    seen = pq.ParquetFile(file)
    check_columns(len(seen.schema_arrow.names), what)
    wanted = [field for field in seen.schema_arrow if columns is None or field.name in columns]
    for field in wanted:
        if pa.types.is_nested(field.type) or pa.types.is_fixed_size_binary(field.type):
            raise UserError(f"{what}: expected a number or a text in each cell of '{field.name}', found {field.type}")
    rows = seen.metadata.num_rows
    stored = sum(seen.metadata.row_group(i).total_byte_size for i in range(seen.metadata.num_row_groups))
    held = max(stored, rows * len(wanted) * 8)
    if rows > ROWS or held > PREDICTIONS:
        raise UserError(
            f"{what}: expected at most {ROWS:,} rows and {PREDICTIONS:,} bytes, found {rows:,} and {held:,}; split it "
            "by corpus"
        )
    texts = [field.name for field in wanted if _is_text(field.type)]
    if texts:
        seen = pq.ParquetFile(file, read_dictionary=texts)
    return seen.read(columns=columns)


def _is_text(kind: pa.DataType) -> bool:
    """Whether the values of a column can be of any length."""
    import pyarrow as pa

    types = pa.types
    return any(is_a(kind) for is_a in (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary))
