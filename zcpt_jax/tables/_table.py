"""A table and how a genotype stands in it, whatever file it came from."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from zcpt_jax.types import InputError


@dataclass(frozen=True)
class TableRank:
    """How a genotype does in one column of a table.

    Attributes:
      column: name of the column, such as ``cifar10_test``.
      accuracy: percent.
      regret: percent below the best of the rows compared with.
      rank: 1 for the best; equal accuracies share the better rank.
      count: genotypes compared with.
      mean: percent, of the genotypes compared with: what one drawn at random is worth.
    """

    column: str
    accuracy: float
    regret: float
    rank: int
    count: int
    mean: float


@dataclass(frozen=True)
class Table:
    """Accuracies of every genotype of a space.

    Attributes:
      rows: genotype to its row number.
      columns: name to accuracies in percent, ``[rows]``.
    """

    rows: Mapping[str, int]
    columns: Mapping[str, np.ndarray]

    def ranks(
        self, genotype: str, among: Collection[str] | None = None
    ) -> tuple[TableRank, ...]:
        """The genotype's standing in every column.

        Args:
          genotype: a key of the table.
          among: keys of the rows to compare with, each counted once; by default every
            row. A genotype that is not one of them can have a negative regret.

        Raises:
          InputError: if the table lacks one of these keys, or ``among`` is empty.
        """
        row = self._row(genotype)
        pool = None if among is None else self._pool(among)
        result = []
        for name, values in self.columns.items():
            others = values if pool is None else values[pool]
            regret = float(others.max() - values[row])
            rank = 1 + int((others > values[row]).sum())
            accuracy, mean = float(values[row]), float(others.mean())
            result.append(TableRank(name, accuracy, regret, rank, len(others), mean))
        return tuple(result)

    def _row(self, genotype: str) -> int:
        if genotype not in self.rows:
            raise InputError(
                f"the table has no row for {genotype}; it has {len(self.rows)} rows, "
                f"such as {next(iter(self.rows))}"
            )
        return self.rows[genotype]

    def _pool(self, among: Collection[str]) -> np.ndarray:
        if not among:
            raise InputError("there are no genotypes to compare with: among is empty")
        return np.unique([self._row(key) for key in among])


def build_table(
    path: str,
    keys: Sequence[str],
    columns: Mapping[str, np.ndarray],
    bounds: tuple[float, float] = (0.0, 100.0),
) -> Table:
    """Checks what a file held and makes it a table.

    Args:
      path: the file, for messages.
      keys: genotypes, one a row.
      columns: name to accuracies in percent, ``[rows]``.
      bounds: lowest and highest value that is allowed.

    Raises:
      InputError: if there are no rows, a key occurs twice, or a value is not a number
        within ``bounds``.
    """
    if not keys:
        raise InputError(f"table {path} has no rows")
    rows = {key: row for row, key in enumerate(keys)}
    if len(rows) < len(keys):
        twice = next(key for row, key in enumerate(keys) if rows[key] != row)
        raise InputError(f"table {path} has more than one row for {twice}")
    for name, values in columns.items():
        bad = ~np.isfinite(values) | (values < bounds[0]) | (values > bounds[1])
        if bad.any():
            row = int(bad.argmax())
            raise InputError(
                f"table {path}: {name} of {keys[row]} is {values[row]}, not an "
                "accuracy in percent; the file is damaged, fetch it anew"
            )
    return Table(rows, columns)
