"""CSV files in long form, with a row for each genotype and dataset."""

from collections.abc import Sequence

import numpy as np

from zcpt_jax.tables._columns import Numbers, Rows
from zcpt_jax.types import InputError

DATASET = "dataset"


def as_columns(
    rows: Rows, datasets: Sequence[str], accuracies: Numbers, others: Numbers
) -> tuple[list[str], Numbers, Numbers]:
    """Turn rows of genotype and dataset to a row per genotype, a column per dataset.

    A column is named as the dataset, or, where there are several columns of accuracies,
    ``dataset_column``. Other numbers become ``dataset_column`` too.

    Args:
      rows: the rows, for messages.
      datasets: dataset of each row.
      accuracies: accuracies in percent by column, ``[rows]``.
      others: other numbers by column, ``[rows]``.

    Returns:
      The genotypes, and the new accuracies and other numbers.

    Raises:
      InputError: if a genotype has no row or two rows for a dataset.
    """
    keys = list(dict.fromkeys(rows.keys))
    found: dict[str, dict[str, int]] = {}
    for row, (key, dataset) in enumerate(zip(rows.keys, datasets, strict=True)):
        if not dataset:
            raise rows.error(row, f"{key} has no dataset; fill it in")
        first = found.setdefault(dataset, {}).setdefault(key, row)
        if first != row:
            raise InputError(
                f"table {rows.path} has more than one row for {key} on {dataset}, in "
                f"lines {rows.lines[first]} and {rows.lines[row]}; keep one, or their "
                "mean"
            )
    for dataset, places in found.items():
        missing = next((key for key in keys if key not in places), None)
        if missing is not None:
            raise InputError(
                f"table {rows.path} has no row for {missing} on {dataset}, which "
                f"{len(places):,} of {len(keys):,} genotypes have; add it, or delete "
                "that dataset's rows"
            )
    order = {d: np.array([places[key] for key in keys]) for d, places in found.items()}
    single = len(accuracies) == 1
    new = {
        dataset if single else f"{dataset}_{name}": values[order[dataset]]
        for dataset in order
        for name, values in accuracies.items()
    }
    more = {f"{d}_{name}": v[order[d]] for d in order for name, v in others.items()}
    return keys, new, {name: v for name, v in more.items() if name not in new}
