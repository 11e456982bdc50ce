"""NAS-Bench-Macro's published JSON."""

import json
import math
import re

import numpy as np

from zcpt_jax.tables._table import Table, build_table
from zcpt_jax.types import InputError

_KEY = re.compile(r"[0-2]{8}")


def parse_macro(path: str, text: str) -> Table:
    """Reads the results on CIFAR-10 of github.com/xiusu/NAS-Bench-Macro.

    Eight digits, the operation of every layer, to ``test_acc`` of three runs, their
    mean ``mean_acc`` in percent, ``std``, ``params`` and ``flops``.

    Args:
      path: the file, for messages.
      text: its content.

    Returns:
      A table with the column ``cifar10_test``, ``mean_acc``.

    Raises:
      InputError: if the text is cut off or of another form.
    """
    try:
        entries = json.loads(text)
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
