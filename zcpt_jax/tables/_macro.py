"""NAS-Bench-Macro's published JSON."""

import math
import re

import numpy as np

from zcpt_jax.json_text import parse_json
from zcpt_jax.tables._table import Table, build_table
from zcpt_jax.types import InputError

_KEY = re.compile(r"[0-2]{8}")


def parse_macro(path: str, text: str) -> Table:
    """Parse the results on CIFAR-10 of github.com/xiusu/NAS-Bench-Macro.

    The JSON maps eight digits, the operations of the layers, to ``test_acc`` of three
    runs, their mean ``mean_acc`` in percent, ``std``, ``params`` and ``flops``.

    Args:
      path: path of the file, for error messages.
      text: content of the file.

    Returns:
      A table with one column, ``cifar10_test``, which is ``mean_acc``.

    Raises:
      InputError: if the text is truncated or has another format.
    """
    try:
        entries = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"table {path} starts like NAS-Bench-Macro's JSON and is not valid JSON "
            f"({error}); it may be cut off, fetch it anew"
        ) from error
    keys = list(entries)
    values = [_accuracy(path, key, entries[key]) for key in keys]
    return build_table(path, keys, {"cifar10_test": np.asarray(values)})


def _accuracy(path: str, key: str, entry: object) -> float:
    value = entry.get("mean_acc") if isinstance(entry, dict) else None
    if not _KEY.fullmatch(key) or not isinstance(value, int | float):
        raise InputError(
            f"table {path} is JSON and not that of NAS-Bench-Macro, whose keys are 8 "
            f"digits 0 to 2 with a mean_acc each; it has {key!r}: {str(entry)[:80]}"
        )
    try:
        return float(value)
    except OverflowError:
        return math.inf
