"""Published files of NAS-Bench-201 and NATS-Bench with their 15,625 cells."""

import bz2
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zcpt_jax.tables._reading import Progress, bounded, open_counted
from zcpt_jax.tables._table import Table, build_table
from zcpt_jax.tables._unpickle import unpickle
from zcpt_jax.types import InputError

META = "meta.pickle.pbz2"

# Column to the training and test images, as the files name them. The test images of
# CIFAR-100 and ImageNet16-120 are halved; "x-test" is the half not used for validation.
_COLUMNS = {
    "cifar10_test": ("cifar10", "ori-test"),
    "cifar100_test": ("cifar100", "x-test"),
    "imagenet16_120_test": ("ImageNet16-120", "x-test"),
    "cifar10_validation": ("cifar10-valid", "x-valid"),
}
_REQUIRED = "cifar10_test"
# Names of the training of 200 epochs in the files of NATS-Bench and NAS-Bench-201.
_TRAININGS = ("200", "full")
_DAMAGE = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError)


def load_archive(path: str, progress: Progress | None) -> Table:
    """Load ``NATS-tss-v1_0-3ffb9.pickle.pbz2``, which holds all cells.

    Raises:
      InputError: if the file is truncated, damaged or of another format.
    """
    with open_counted(path, progress) as file, bz2.open(file) as unpacked:
        return archive_table(path, unpickle(path, bounded(path, unpacked)))


def archive_table(path: str, archive: Any) -> Table:
    """Build the table from the unpickled file of a whole benchmark.

    The layout is that of NAS-Bench-201 (github.com/D-X-Y/NAS-Bench-201,
    ``nas_201_api``) and NATS-Bench (github.com/D-X-Y/NATS-Bench): ``meta_archs``, the
    architecture strings, and ``arch2infos``, which maps indices to the results of each
    training.

    Args:
      path: path of the file, for error messages.
      archive: unpickled content of the file.

    Returns:
      A table of test accuracies after 200 epochs, means over the seeds; see
      :func:`load_table` for its columns.

    Raises:
      InputError: if the object has another layout.
    """
    try:
        names, infos = archive["meta_archs"], archive["arch2infos"]
        pairs = [(names[number], infos[number]) for number in sorted(infos)]
    except _DAMAGE as error:
        raise InputError(
            f"table {path} holds no NAS-Bench-201 or NATS-Bench topology results: "
            f"meta_archs and arch2infos are not there or are damaged ({error!r})"
        ) from error
    return _table(path, pairs)


def load_folder(path: str, progress: Progress | None) -> Table:
    """Load ``NATS-tss-v1_0-3ffb9-simple``, a folder with one file per cell.

    Args:
      path: folder with ``meta.pickle.pbz2``, ``000000.pickle.pbz2`` and so on.
      progress: callback with the number of cells read and their total number.

    Raises:
      InputError: if a file is missing, truncated, damaged or of another format.
    """
    folder = Path(path)
    meta = _unpack(folder / META)
    names = meta.get("meta_archs") if isinstance(meta, dict) else None
    if not isinstance(names, list) or not names:
        raise InputError(f"table {folder / META} has no list meta_archs")
    # Check for missing files before hours of reading.
    files = [folder / f"{number:06d}.pickle.pbz2" for number in range(len(names))]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise InputError(
            f"table {path} lacks {len(missing):,} of {len(names):,} files, such as "
            f"{missing[0]}; unpack the archive anew"
        )
    return _table(path, _read_folder(names, files, progress))


def _read_folder(
    names: list[str], files: list[Path], progress: Progress | None
) -> Iterable[tuple[str, Any]]:
    for done, (name, file) in enumerate(zip(names, files, strict=True), start=1):
        yield name, _unpack(file)
        if progress:
            progress(done, len(names))


def _unpack(file: Path) -> Any:
    with bz2.open(file) as unpacked:
        return unpickle(str(file), bounded(str(file), unpacked))


def _table(path: str, pairs: Iterable[tuple[str, Any]]) -> Table:
    keys, rows = [], []
    for name, trainings in pairs:
        if not isinstance(name, str) or not name.startswith("|"):
            raise InputError(
                f"table {path} is not of the topology space: {str(name)[:80]!r} is no "
                "architecture string such as |nor_conv_3x3~0|+..."
            )
        keys.append(name)
        try:
            rows.append(_accuracies(trainings))
        except _DAMAGE as error:
            raise InputError(
                f"table {path}: the results of {name} are not laid out as those of "
                f"NAS-Bench-201 and NATS-Bench ({error!r})"
            ) from error
    matrix = np.asarray(rows, dtype=float).reshape(len(rows), len(_COLUMNS))
    columns = dict(zip(_COLUMNS, matrix.T, strict=True))
    # A column with only some of the cells would give wrong ranks.
    complete = {n: v for n, v in columns.items() if not np.isnan(v).any()}
    return build_table(path, keys, {_REQUIRED: columns[_REQUIRED], **complete})


def _accuracies(trainings: Mapping[str, Any]) -> list[float]:
    """Accuracy for each column, NaN where there are no results."""
    name = next((name for name in _TRAININGS if name in trainings), _TRAININGS[0])
    seeds, results = trainings[name]["dataset_seed"], trainings[name]["all_results"]
    row = []
    for dataset, images in _COLUMNS.values():
        runs = [results[dataset, seed] for seed in seeds.get(dataset, ())]
        finals = [run["eval_acc1es"][f"{images}@{run['epochs'] - 1}"] for run in runs]
        row.append(sum(map(float, finals)) / len(finals) if finals else np.nan)
    return row
