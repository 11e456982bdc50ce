"""``scores.csv``: one row per network, written incrementally so that runs resume."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zcpt_jax.io.files import append, complete_lines
from zcpt_jax.types import InputError


class ScoreFile:
    """Genotypes and their scores in a CSV file.

    Attributes:
      path: path of the CSV file.
      columns: names of the scores.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        """Open the file to continue it, or create it.

        Args:
          path: path of the CSV file.
          columns: names of the scores.

        Raises:
          InputError: if the file has other columns, or a damaged row.
        """
        self.path, self.columns = path, list(columns)
        self.scores: dict[str, list[float]] = {}
        rows = csv.reader(complete_lines(path))
        header = next(rows, None)
        if header is None:
            append(path, _text([["genotype", *columns]]))
        elif header != ["genotype", *columns]:
            raise InputError(
                f"{path} has the columns {header}, these scores would have "
                f"{['genotype', *columns]}; use another --output_dir, or --overwrite"
            )
        for number, row in enumerate(rows, 2):
            try:
                genotype, *values = row
                self.scores[genotype] = [float(value) for value in values]
                if len(values) != len(columns):
                    raise ValueError(f"{len(values)} scores")
            except ValueError as error:
                raise InputError(
                    f"{path}, row {number} is damaged ({error}); delete that row and "
                    "run again: its network is scored anew"
                ) from error

    def add(self, genotypes: Sequence[str], scores: np.ndarray) -> None:
        """Append the scores ``[n, columns]`` of n genotypes."""
        table = [
            [genotype, *(repr(float(value)) for value in row)]
            for genotype, row in zip(genotypes, scores, strict=True)
        ]
        append(self.path, _text(table))
        for genotype, row in zip(genotypes, scores, strict=True):
            self.scores[genotype] = [float(value) for value in row]


def _text(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
