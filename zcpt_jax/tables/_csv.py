"""Tables as CSV, the format that this library writes."""

import csv
import gzip
import io
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from zcpt_jax.tables._table import Table, build_table
from zcpt_jax.types import InputError

_KEY = "arch_str"


def parse_csv(path: str, text: str) -> Table:
    """Parse a table in the format of ``nasbench201.csv.gz``.

    Args:
      path: path of the file, for error messages.
      text: content of the file: a column ``arch_str`` of genotypes; all other columns
        are accuracies in percent.

    Raises:
      InputError: if the text is truncated or has another format.
    """
    reader = _lines(path, text)
    header = next(reader, [])
    if _KEY not in header or len(header) < 2:
        raise InputError(
            f"table {path} needs a column {_KEY!r} and at least one column of "
            f"accuracies; its columns are {header}"
        )
    key = header.index(_KEY)
    keys: list[str] = []
    values: list[list[float]] = []
    for number, line in enumerate(reader, start=2):
        try:
            numbers = [float(v) for i, v in enumerate(line) if i != key]
        except ValueError as error:
            raise InputError(f"table {path}, line {number}: {error}") from error
        if len(line) != len(header):
            raise InputError(
                f"table {path}, line {number} has {len(line)} columns, the header has "
                f"{len(header)}; the file may be cut off"
            )
        keys.append(line[key])
        values.append(numbers)
    if not values:
        raise InputError(f"table {path} has a header and no rows")
    names = [name for name in header if name != _KEY]
    matrix = np.asarray(values)
    columns = {name: matrix[:, i] for i, name in enumerate(names)}
    # A user's own file may contain other numbers besides accuracies.
    return build_table(path, keys, columns, bounds=(-math.inf, math.inf))


def _lines(path: str, text: str) -> Iterator[list[str]]:
    try:
        yield from csv.reader(io.StringIO(text))
    except csv.Error as error:
        raise InputError(f"table {path} is not a CSV file: {error}") from error


def save_table(table: Table, path: str) -> None:
    """Write a table as gzipped CSV that :func:`load_table` reads.

    The file appears only once it is complete. The same table gives the same bytes.

    Args:
      table: table to write; every number is stored exactly.
      path: path of the file, ending in ``.csv.gz``.

    Raises:
      InputError: if the path has another ending.
      OSError: if the file cannot be written.
    """
    if not path.endswith(".csv.gz"):
        raise InputError(f"tables are written as .csv.gz, got {path}")
    data = gzip.compress(_text(table).encode(), mtime=0)
    with tempfile.NamedTemporaryFile(dir=Path(path).parent, delete=False) as file:
        temporary = Path(file.name)
    try:
        temporary.write_bytes(data)
        # Temporary files are private; the table must be readable by everyone.
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _text(table: Table) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_KEY, *table.columns])
    columns = [values.tolist() for values in table.columns.values()]
    for key, row in table.rows.items():
        writer.writerow([key, *(values[row] for values in columns)])
    return text.getvalue()
