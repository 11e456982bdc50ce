"""Tables of accuracies, and the ranks of genotypes in them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from zcpt_jax.types import InputError


@dataclass(frozen=True)
class TableRank:
    """Accuracy and rank of a genotype in one column of a table.

    Attributes:
      column: name of the column, such as ``cifar10_test``.
      accuracy: accuracy of the genotype in percent.
      regret: percentage points below the best of the compared rows.
      rank: rank among the compared rows, 1 for the best; ties share the better rank.
      count: number of compared rows.
      mean: mean accuracy of the compared rows in percent, the expected accuracy of a
        random genotype.
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
      rows: row index of each genotype.
      columns: accuracies in percent, ``[rows]``, by column name.
      others: numbers that are no accuracies, such as ``params``, ``[rows]``, by column
        name. They have no ranks, and serve only those who ask for them by name.
    """

    rows: Mapping[str, int]
    columns: Mapping[str, np.ndarray]
    others: Mapping[str, np.ndarray] = field(default_factory=dict)

    def accuracies(self, column: str | None = None) -> tuple[str, np.ndarray]:
        """Return a column's name and its accuracies in percent, ``[rows]``.

        Args:
          column: name of the column; by default the first.

        Raises:
          InputError: if the table has no such column, or it holds no accuracies.
        """
        name = column or next(iter(self.columns))
        if name in self.columns:
            return name, self.columns[name]
        listed = ", ".join(self.columns)
        if name in self.others:
            raise InputError(
                f"the table's column {name!r} holds no accuracies in percent; columns "
                f"that do: {listed}"
            )
        raise InputError(f"the table has no column {name!r}; it has {listed}")

    def ranks(
        self, genotype: str, among: Collection[str] | None = None
    ) -> tuple[TableRank, ...]:
        """Compute the genotype's accuracy and rank in every column.

        Args:
          genotype: a key of the table.
          among: keys of the rows to compare with, each counted once; by default all
            rows. A genotype that is not one of them can have a negative regret.

        Raises:
          InputError: if one of these keys is not in the table, or ``among`` is empty.
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
) -> Table:
    """Check the content of a file and build a table from it.

    Args:
      path: path of the file, for error messages.
      keys: genotype of each row.
      columns: accuracies in percent, ``[rows]``, by column name.

    Raises:
      InputError: if there are no rows, a key occurs twice, or a value is not a number
        from 0 to 100.
    """
    if not keys:
        raise InputError(f"table {path} has no rows")
    rows = {key: row for row, key in enumerate(keys)}
    if len(rows) < len(keys):
        twice = next(key for row, key in enumerate(keys) if rows[key] != row)
        raise InputError(f"table {path} has more than one row for {twice}")
    for name, values in columns.items():
        bad = ~((values >= 0) & (values <= 100))
        if bad.any():
            row = int(bad.argmax())
            raise InputError(
                f"table {path}: {name} of {keys[row]} is {values[row]}, not an "
                "accuracy in percent; the file is damaged, fetch it anew"
            )
    return Table(rows, columns)
