"""Read a file and check its content, so that any honest mirror serves and nothing else does."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainwell.datasets.dataset import DataError
from trainwell.datasets.manifest import Entry

if TYPE_CHECKING:
    import pandas as pd


# What was read and checked in this process: experiments load the same files many times over.
_read: dict[tuple[Path, int, int, str], Any] = {}


def read_files(entry: Entry, folder: Path) -> dict[str, Any]:
    """Return the checked content of every file of the set in `folder`, by name of the file."""
    return {name: read_file(entry, name, folder / name) for name in entry.files}


def read_file(entry: Entry, name: str, path: Path) -> Any:
    """Return the checked content of `path`, which holds the file `name` of the set.

    Returns:
        An array of uint8 for images and labels, a DataFrame for a table.

    Raises:
        DataError: If the file can't be read, or its content is not the set's.
    """
    try:
        status = path.stat()
        if status.st_size == 0:
            raise DataError(f"{path} is empty.")
        # A download has another name beside its own while it is checked: that is the same file.
        key = (path.with_name(name), status.st_size, status.st_mtime_ns, entry.files[name])
        if key not in _read:
            read = _read_table if entry.rows else _read_idx
            _read[key] = read(entry, name, path)
        return _read[key]
    except OSError as error:
        raise DataError(f"{path} can't be read: {error}.") from error


def _read_idx(entry: Entry, name: str, path: Path) -> NDArray[np.uint8]:
    """Read a gzipped file of bytes in MNIST's format, IDX."""
    try:
        with gzip.open(path) as file:
            data = file.read()
    except EOFError as error:
        raise DataError(f"{path} is cut off: the end of the compressed data is missing.") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is not a sound gzip file: {error}.") from error
    found = hashlib.sha256(data).hexdigest()
    _check_hash(path, found, entry.files[name])
    # IDX: two zeros, the type (8: bytes), the number of axes, then each axis's length.
    axes = data[3]
    shape = np.frombuffer(data, ">i4", count=axes, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _read_table(entry: Entry, name: str, path: Path) -> pd.DataFrame:
    """Read the set's columns of a CSV file; rows with a missing value are dropped."""
    table = _parse_csv(path)
    columns = [*entry.texts, *entry.numbers]
    missing = [column for column in columns if column not in table]
    if missing:
        raise DataError(f"{path} lacks the columns {missing}; it has {list(table.columns)}.")
    table = table[columns].dropna()
    for column in entry.numbers:  # first, while the index still says the row of the file
        table[column] = _as_numbers(path, table[column])
    table = table.reset_index(drop=True)
    if len(table) != entry.rows:
        raise DataError(f"{path} has {len(table):,} complete rows, expected {entry.rows:,}.")
    _check_hash(path, table_fingerprint(table), entry.files[name])
    return table


def _parse_csv(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        with path.open(encoding="utf-8") as file:
            header = file.readline()
        # UCI separates its own copy of the wines with semicolons.
        separator = ";" if header.count(";") > header.count(",") else ","
        table = pd.read_csv(path, sep=separator, low_memory=False)
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{path} is not a sound CSV file: {error}.") from error
    if not isinstance(table.index, pd.RangeIndex):  # pandas took the first cells for an index
        raise DataError(f"{path} is not a sound CSV file: rows have more cells than the header.")
    return table


def _as_numbers(path: Path, column: pd.Series[Any]) -> pd.Series[float]:
    import pandas as pd

    numbers = pd.to_numeric(column, errors="coerce").astype("float64")
    wrong = column[~np.isfinite(numbers)]
    if len(wrong):
        raise DataError(
            f"{path}: column {column.name!r} must hold numbers, "
            f"got '{wrong.iloc[0]}' in row {wrong.index[0] + 1}."
        )
    return numbers


def table_fingerprint(table: pd.DataFrame) -> str:
    """Return a SHA-256 of the values of a table, column by column in order of their names.

    Line endings, the order of the columns and the way a number is written make no difference:
    numbers count as float32, which is what the loaders return. The order of the rows does make
    one, since the splits depend on it.
    """
    digest = hashlib.sha256()
    for column in sorted(table.columns):
        values = table[column].to_numpy()
        if values.dtype.kind in "iuf":
            data = (values.astype("<f4") + np.float32(0)).tobytes()  # + 0 turns -0 into 0
        else:
            data = "\n".join(values).encode()
        digest.update(f"{column}\n".encode() + data)
    return digest.hexdigest()


def _check_hash(path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise DataError(
            f"{path} is sound but holds other data: the SHA-256 of its content must be "
            f"{expected}, got {found}."
        )
