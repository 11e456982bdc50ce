"""NAS-Bench-101 as a NumPy archive."""

import zipfile
import zlib

import numpy as np

from zcpt_jax.tables import _reading
from zcpt_jax.tables._table import Table, build_table
from zcpt_jax.types import InputError

_HASHES, _ACCURACIES = "module_hash", "test_accuracy"
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    KeyError,
    ValueError,
    SyntaxError,
    OSError,
    MemoryError,
    NotImplementedError,
)


def load_npz(path: str) -> Table:
    """Load NAS-Bench-101's results at 108 epochs from a NumPy archive.

    Args:
      path: path of an ``.npz`` file with ``module_hash``, uint8 ``[rows, 16]``, and
        ``test_accuracy``, fractions ``[rows]``. Other arrays are not read.

    Returns:
      A table with the column ``cifar10_test``; keys are NAS-Bench-101's module hashes,
      32 hexadecimal digits.

    Raises:
      InputError: if the file is truncated, damaged or of another format.
    """
    try:
        _check_size(path)
        with np.load(path, allow_pickle=False) as arrays:
            hashes, accuracies = arrays[_HASHES], arrays[_ACCURACIES]
    except InputError:
        raise
    # KeyError: an array is missing. ValueError, SyntaxError: an array's header is
    # malformed or declares objects. MemoryError: a header declares an absurd shape.
    except _DAMAGE as error:
        raise InputError(
            f"table {path} is not a NumPy archive with arrays {_HASHES} and "
            f"{_ACCURACIES} ({error}); it may be cut off or of another benchmark"
        ) from error
    _check_arrays(path, hashes, accuracies)
    digits = hashes.tobytes().hex()
    keys = [digits[i : i + 32] for i in range(0, len(digits), 32)]
    return build_table(path, keys, {"cifar10_test": 100.0 * accuracies.astype(float)})


def _check_size(path: str) -> None:
    with zipfile.ZipFile(path) as archive:
        size = sum(info.file_size for info in archive.infolist())
    if size > _reading.MOST_ARRAY_BYTES:
        raise InputError(
            f"table {path} unpacks to {size:,} bytes; it is not a table of accuracies"
        )


def _check_arrays(path: str, hashes: np.ndarray, accuracies: np.ndarray) -> None:
    rows = len(accuracies) if accuracies.ndim else 0
    fits = hashes.dtype == np.uint8 and hashes.shape == (rows, 16)
    if not fits or accuracies.ndim != 1 or accuracies.dtype.kind != "f":
        raise InputError(
            f"table {path} needs {_HASHES}, uint8 [rows, 16], and {_ACCURACIES}, "
            f"fractions [rows]; it has {hashes.dtype} {list(hashes.shape)} and "
            f"{accuracies.dtype} {list(accuracies.shape)}"
        )
