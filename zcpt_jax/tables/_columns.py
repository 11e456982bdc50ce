"""Columns of a CSV file, sorted into accuracies, other numbers, and text."""

import math
import re
import warnings
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from zcpt_jax.types import InputError

PERCENT = " [%]"
"""End of a column's name which says that it holds accuracies in percent."""

_PERCENT = re.compile(r"\s*(\[%\]|\(%\))$")
_MISSING = {"", "nan", "na", "n/a", "<na>", "null", "none", "-", "?"}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+")
_ACCURACY = re.compile(
    r".*acc(s|uracy|uracies)?|top|test|testing|val|valid(ation)?|eval"
)
_DATASET = re.compile(r"cifar|imagenet|svhn|.*mnist")
# "test_loss" is no accuracy, whatever else the name says; "acc_seed0" is one.
_NEVER_PART = re.compile(r"param|flop|latenc|loss|madd")
_NEVER = re.compile(
    r".*times?|macs?|errors?|err|std|stdev|stddev|deviation|variance|var|size|memory"
    r"|energy|intensity|ranks?|regret|seconds|secs?|ms|lr"
)
_ALONE = re.compile(
    r"epochs?|seeds?|steps?|index|idx|id|runs?|number|layers|depth|width"
)
_COUNTED = re.compile(r"\d+(epochs?|ep)(?![a-z])")


def tells_other(name: str) -> bool:
    """Return whether a column's name says that it holds no accuracies."""
    words = _words(_COUNTED.sub("", name))
    if _NEVER_PART.search(name.lower()) or any(map(_NEVER.fullmatch, words)):
        return True
    alone = any(map(_ALONE.fullmatch, words))
    return alone and not any(map(_ACCURACY.fullmatch, words))


def tells_accuracy(name: str) -> bool:
    """Return whether a column's name says that it holds accuracies."""
    return not tells_other(name) and any(
        _ACCURACY.fullmatch(word) or _DATASET.fullmatch(word) for word in _words(name)
    )


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name)]


def is_unnamed(name: str) -> bool:
    """Return whether a header is empty or what pandas makes of an empty one."""
    return not name or bool(re.fullmatch(r"Unnamed: \d+", name))


@dataclass
class Column:
    """Fields of one column, as numbers.

    Attributes:
      name: header, without a mark of percent.
      marked: whether the header is marked as percent.
      comma: whether numbers have a decimal comma.
      signed: whether a number has a percent sign.
      values: numbers, NaN where there is none.
      text: row and field of the first that is neither a number nor missing.
      gap: row and field of the first that is missing.
    """

    name: str
    marked: bool = False
    comma: bool = False
    signed: bool = False
    values: array = field(default_factory=lambda: array("d"))
    text: tuple[int, str] | None = None
    gap: tuple[int, str] | None = None

    @classmethod
    def of(cls, header: str, comma: bool) -> "Column":
        """Make an empty column from its header."""
        name = _PERCENT.sub("", header.strip())
        return cls(name, marked=name != header.strip(), comma=comma)

    def add(self, text: str) -> None:
        """Append a field."""
        value = math.nan
        try:
            value = self._number(text)
        except ValueError:
            if self.text is None and text.strip().lower() not in _MISSING:
                self.text = (len(self.values), text)
        if self.gap is None and math.isnan(value):
            self.gap = (len(self.values), text)
        self.values.append(value)

    def _number(self, text: str) -> float:
        if text.endswith("%"):
            text, self.signed = text[:-1], True
        if "_" in text:  # Python's own way to group digits.
            raise ValueError("digits are grouped")
        return float(text.replace(",", ".") if self.comma else text)

    def is_index(self) -> bool:
        """Return whether the column numbers the rows, or is empty."""
        return self.text is None and all(v.is_integer() or v != v for v in self.values)


@dataclass(frozen=True)
class Rows:
    """Where the rows are, for messages.

    Attributes:
      path: path of the file.
      keys: genotype of each row.
      lines: line number of each row.
    """

    path: str
    keys: Sequence[str]
    lines: Sequence[int]

    def error(self, row: int, message: str) -> InputError:
        """Return an error about a row."""
        return InputError(f"table {self.path}, line {self.lines[row]}: {message}")


Numbers = dict[str, np.ndarray]


def sort_columns(rows: Rows, columns: Sequence[Column]) -> tuple[Numbers, Numbers]:
    """Sort columns into accuracies in percent and other numbers; text is left out.

    Warns of columns that are taken as fractions, and of those that are set aside for
    some of their values only.

    Raises:
      InputError: if a column of accuracies has a field that is none, or there is no
        column of accuracies.
    """
    accuracies: Numbers = {}
    others: Numbers = {}
    aside: list[tuple[Column, int]] = []
    for column in columns:
        values, named = np.asarray(column.values), tells_accuracy(column.name)
        outside = (values < 0) | (values > 100)
        if is_unnamed(column.name) and not column.marked:
            _check_index(rows, column)
        elif tells_other(column.name) and not column.marked:
            if column.text is None:
                others[column.name] = values
        elif column.text and np.isnan(values).all() and not named and not column.marked:
            continue
        elif outside.any() and not (named or column.marked or column.text):
            others[column.name] = values
            aside.append((column, int(outside.argmax())))
        else:
            _check_accuracies(rows, column, values, outside)
            accuracies[column.name] = values
    if not accuracies:
        raise _without_accuracies(rows, aside, others)
    _warn_of(rows, aside)
    return _as_percent(rows.path, accuracies, columns), others


def _check_index(rows: Rows, column: Column) -> None:
    if not column.is_index():
        raise InputError(
            f"table {rows.path} has a column without a name that does not number the "
            f"rows, with {_shown(column, 0)} in line {rows.lines[0]}; name or delete it"
        )


def _check_accuracies(
    rows: Rows, column: Column, values: np.ndarray, outside: np.ndarray
) -> None:
    name = column.name
    if np.isnan(values).all() and not column.text:
        raise InputError(
            f"table {rows.path}: column {name!r} has no numbers in lines "
            f"{rows.lines[0]} to {rows.lines[-1]}; delete the column"
        )
    if column.text:
        row, text = column.text
        raise rows.error(
            row,
            f"{name} of {rows.keys[row]} is {text[:40]!r}, not a number; write it as "
            "one, or delete the column",
        )
    if column.gap:
        row, text = column.gap
        what = f"{text.strip()}, not a number" if text.strip() else "missing"
        raise rows.error(
            row,
            f"{name} of {rows.keys[row]} is {what}; fill in the accuracy, or delete "
            "the row",
        )
    if outside.any():
        row = int(outside.argmax())
        raise rows.error(
            row,
            f"{name} of {rows.keys[row]} is {values[row]}, not an accuracy in percent, "
            "from 0 to 100; correct it, or delete the column if it holds others",
        )


def _without_accuracies(
    rows: Rows, aside: list[tuple[Column, int]], others: Numbers
) -> InputError:
    if aside:
        column, row = aside[0]
        return rows.error(
            row,
            f"{column.name} of {rows.keys[row]} is {column.values[row]}, not an "
            "accuracy in percent, from 0 to 100, and no other column holds accuracies",
        )
    found = f"; {', '.join(others)} are none by their names" if others else ""
    example = next(iter(others), "acc")
    return InputError(
        f"table {rows.path} needs at least one column of accuracies{found} (a name "
        f"that ends in{PERCENT}, as {example + PERCENT!r}, says that it is one)"
    )


def _as_percent(path: str, accuracies: Numbers, columns: Sequence[Column]) -> Numbers:
    percent = {column.name for column in columns if column.marked or column.signed}
    fractions = [n for n, v in accuracies.items() if n not in percent and v.max() <= 1]
    if fractions:
        warnings.warn(
            f"table {path}: {', '.join(fractions)}: all values lie in 0 to 1 and are "
            f"taken as fractions, 0.5 as 50 % (if they are percent, name the column "
            f"{fractions[0] + PERCENT!r})",
            stacklevel=2,
        )
    scaled = {name: 100.0 * accuracies[name] for name in fractions}
    return {name: scaled.get(name, values) for name, values in accuracies.items()}


def _warn_of(rows: Rows, aside: list[tuple[Column, int]]) -> None:
    """Warn of columns that may be accuracies with a few mistakes."""
    listed = ", ".join(
        f"{column.name} ({column.values[row]} in line {rows.lines[row]})"
        for column, row in aside
        if 2 * sum(0 <= value <= 100 for value in column.values) > len(rows.lines)
    )
    if listed:
        warnings.warn(
            f"table {rows.path}: not taken as accuracies in percent, since values lie "
            f"outside 0 to 100: {listed}",
            stacklevel=2,
        )


def _shown(column: Column, row: int) -> str:
    text = column.text[1][:40] if column.text and column.text[0] == row else None
    return repr(text) if text is not None else str(column.values[row])
