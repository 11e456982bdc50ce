"""NAS-Bench-101's published TFRecord files."""

import base64
import re
import struct
from collections.abc import Iterator

import numpy as np

from zcpt_jax.json_text import parse_json
from zcpt_jax.tables._reading import Progress, open_counted
from zcpt_jax.tables._table import Table, build_table
from zcpt_jax.tables._tfrecord import read_records
from zcpt_jax.types import InputError

_EPOCHS = 108
# Index of the final evaluation; a run has one at the start, half way and at the end.
_FINAL = 2
_EVALUATION = 1
_VALIDATION, _TEST = 4, 5
_HASH = re.compile(r"[0-9a-f]{32}")


def load_records(path: str, progress: Progress | None) -> Table:
    """Load ``nasbench_only108.tfrecord`` or ``nasbench_full.tfrecord``.

    The format is that of github.com/google-research/nasbench: each record is one run, a
    JSON list of module hash, epochs, adjacency, operations and a ``ModelMetrics``
    message in base64. Runs of other than 108 epochs are skipped.

    Args:
      path: path of the file.
      progress: callback with the bytes read and the size of the file.

    Returns:
      A table with columns ``cifar10_test`` and ``cifar10_validation``, means of the
      final accuracies of the runs of 108 epochs; keys are module hashes, 32 hexadecimal
      digits.

    Raises:
      InputError: if the file is truncated, damaged or of another format.
    """
    totals: dict[str, list[float]] = {}
    with open_counted(path, progress) as file:
        for number, record in enumerate(read_records(path, file)):
            try:
                _add(record, totals)
            # Every kind of malformed record raises one of these.
            except (ValueError, TypeError, LookupError, RecursionError) as error:
                raise InputError(
                    f"table {path}: record {number} is not one of NAS-Bench-101 "
                    f"({error}); the file is damaged or of another benchmark"
                ) from error
    if not totals:
        raise InputError(f"table {path} has no run of {_EPOCHS} epochs")
    runs, test, validation = np.asarray(list(totals.values())).T
    columns = {
        "cifar10_test": 100.0 * test / runs,
        "cifar10_validation": 100.0 * validation / runs,
    }
    return build_table(path, list(totals), columns)


def _add(record: bytes, totals: dict[str, list[float]]) -> None:
    """Add 1, the test and the validation accuracy of a run to its hash's totals."""
    module_hash, epochs, _, _, metrics = parse_json(record)
    if not isinstance(module_hash, str) or not _HASH.fullmatch(module_hash):
        raise ValueError(f"{str(module_hash)[:40]!r} is no module hash")
    if epochs != _EPOCHS:
        return
    message = base64.b64decode(metrics, validate=True)
    evaluations = [value for field, value in _fields(message) if field == _EVALUATION]
    final = dict(_fields(evaluations[_FINAL]))
    run = (1.0, _fraction(final[_TEST]), _fraction(final[_VALIDATION]))
    total = totals.get(module_hash, (0.0, 0.0, 0.0))
    totals[module_hash] = [a + b for a, b in zip(total, run, strict=True)]


def _fraction(data: bytes) -> float:
    value: float
    (value,) = struct.unpack("<d", data) if len(data) == 8 else (-1.0,)
    if not 0 <= value <= 1:
        raise ValueError("an accuracy is no fraction of 1")
    return value


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Field numbers and raw values of a protobuf message, empty for integers."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        field, kind = tag >> 3, tag & 7
        if kind == 0:
            length, at = 0, _varint(message, at)[1]
        elif kind == 2:
            length, at = _varint(message, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a message has a field of unknown kind {kind}")
        if at + length > len(message):
            raise ValueError("a message is cut off")
        yield field, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Decode an integer in groups of seven bits; return it and its end offset."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("an integer of a message has no end")
