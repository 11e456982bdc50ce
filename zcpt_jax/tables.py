"""Tabular benchmarks: what a found genotype is worth once trained."""

import csv
import gzip
import io
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zcpt_jax.types import InputError

_KEY = "arch_str"


@dataclass(frozen=True)
class Standing:
    """How a genotype does in one column of a table.

    Attributes:
      column: name of the column, such as ``cifar10_test``.
      accuracy: percent.
      regret: percent below the best of the table.
      rank: 1 for the best; equal accuracies share the better rank.
      count: genotypes in the table.
    """

    column: str
    accuracy: float
    regret: float
    rank: int
    count: int


@dataclass(frozen=True)
class Table:
    """Accuracies of every genotype of a space.

    Attributes:
      rows: genotype to its row number.
      columns: name to accuracies in percent, ``[rows]``.
    """

    rows: Mapping[str, int]
    columns: Mapping[str, np.ndarray]

    def standing(self, genotype: str) -> tuple[Standing, ...]:
        """The genotype's standing in every column.

        Raises:
          InputError: if the table has no such genotype.
        """
        if genotype not in self.rows:
            raise InputError(
                f"the table has no row for {genotype}; it has {len(self.rows)} rows, "
                f"such as {next(iter(self.rows))}"
            )
        row = self.rows[genotype]
        result = []
        for name, values in self.columns.items():
            value, best = values[row], values.max()
            rank = 1 + int((values > value).sum())
            result.append(
                Standing(name, float(value), float(best - value), rank, len(values))
            )
        return tuple(result)


def load_table(path: str) -> Table:
    """Reads a table of the form of ``nasbench201.csv.gz``.

    Args:
      path: CSV, gzipped or not, with a column ``arch_str`` of genotypes; every other
        column holds accuracies in percent.

    Raises:
      InputError: if the file is missing, cut off, or of another form.
    """
    text = _read_text(path)
    reader = csv.reader(io.StringIO(text))
    header = next(reader, [])
    if _KEY not in header or len(header) < 2:
        raise InputError(
            f"table {path} needs a column {_KEY!r} and at least one column of "
            f"accuracies; its columns are {header}"
        )
    key = header.index(_KEY)
    rows: dict[str, int] = {}
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
        rows[line[key]] = len(values)
        values.append(numbers)
    if not values:
        raise InputError(f"table {path} has a header and no rows")
    names = [name for name in header if name != _KEY]
    matrix = np.asarray(values)
    return Table(rows, {name: matrix[:, i] for i, name in enumerate(names)})


def _read_text(path: str) -> str:
    if not Path(path).is_file():
        raise InputError(f"table {path} does not exist")
    data = Path(path).read_bytes()
    try:
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        return data.decode()
    except (EOFError, OSError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(
            f"table {path} is not a (gzipped) CSV file ({error}); it may be cut off"
        ) from error
