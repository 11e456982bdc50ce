"""Tables as CSV, the format that this library writes."""

import csv
import gzip
import io
import re
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from zcpt_jax.tables import _reading
from zcpt_jax.tables._columns import (
    PERCENT,
    Column,
    Numbers,
    Rows,
    is_unnamed,
    sort_columns,
    tells_other,
)
from zcpt_jax.tables._long_form import DATASET, as_columns
from zcpt_jax.tables._table import Table, build_table
from zcpt_jax.types import InputError

_KEY = "arch_str"
_KEYS = (_KEY, "arch", "genotype", "architecture")
_SEPARATORS = ",;\t"
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


def parse_csv(path: str, text: str) -> Table:
    """Parse a table in the format of ``nasbench201.csv.gz``, or as others write it.

    Args:
      path: path of the file, for error messages.
      text: content of the file: a column ``arch_str``, ``arch``, ``genotype`` or
        ``architecture``, and columns of accuracies, in percent or as fractions; see
        :func:`load_table`.

    Raises:
      InputError: if the text is truncated or has another format.
    """
    separator, text, first = _separator(text)
    reader = _lines(path, text, separator, first)
    header = [name.strip() for name in next(reader, (first, []))[1]]
    key = _key(path, header)
    lower = [name.lower() for name in header]
    dataset = lower.index(DATASET) if DATASET in lower else -1
    comma = separator != ","
    columns = {
        i: Column.of(name, comma)
        for i, name in enumerate(header)
        if i not in (key, dataset)
    }
    _check_names(path, list(columns.values()))
    keys: list[str] = []
    datasets: list[str] = []
    lines = array("q")
    for number, fields in reader:
        if len(keys) == _reading.MOST_ROWS:
            raise InputError(
                f"table {path} has more than {_reading.MOST_ROWS:,} rows; it is not a "
                "table of trained networks, and the rest was not read"
            )
        if len(fields) != len(header) or not fields[key].strip():
            raise InputError(_misfit(path, number, fields, header, key))
        keys.append(fields[key])
        lines.append(number)
        if dataset >= 0:
            datasets.append(fields[dataset].strip())
        for i, column in columns.items():
            column.add(fields[i])
    if not keys:
        raise InputError(f"table {path} has a header and no rows")
    rows = Rows(path, keys, lines)
    accuracies, others = sort_columns(rows, list(columns.values()))
    if dataset >= 0:
        keys, accuracies, others = as_columns(rows, datasets, accuracies, others)
    else:
        _check_keys(rows)
    table = build_table(path, keys, accuracies)
    return Table(table.rows, table.columns, others)


def _separator(text: str) -> tuple[str, str, int]:
    """Return the separator, the text from the header on, and the header's line."""
    head = text[:16].partition("\n")[0]
    said = head.strip().strip('"')
    # Excel's way to say it.
    if len(said) == 5 and said.startswith("sep="):
        return said[4], text[len(head) + 1 :], 2
    start, number = 0, 1
    line = ""
    for match in _LINE.finditer(text):
        line = match[0].strip()
        if line.strip(_SEPARATORS + " "):
            start = match.start()
            break
        number += 1

    def fit(separator: str) -> tuple[bool, int]:
        names = [name.strip().strip('"').lower() for name in line.split(separator)]
        return len(names) > 1 and any(key in names for key in _KEYS), len(names)

    return max(_SEPARATORS, key=fit), text[start:], number


def _lines(
    path: str, text: str, separator: str, first: int
) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and fields of each line that is not blank."""
    # Line by line, since io.StringIO would hold four bytes for each character.
    split = (match[0] for match in _LINE.finditer(text))
    reader = csv.reader(split, delimiter=separator, strict=True)
    number = first
    try:
        for fields in reader:
            if any(map(str.strip, fields)):
                yield number, fields
            number = first + reader.line_num
    except csv.Error as error:
        raise InputError(f"table {path}, line {number}: {_reason(error)}") from error


def _reason(error: csv.Error) -> str:
    if "field larger" in str(error):
        return (
            f"a field has more than {csv.field_size_limit():,} characters, which no "
            "genotype has; a quotation mark may not be closed"
        )
    if "end of data" in str(error):
        return "a quotation mark is opened and not closed; the file may be cut off"
    return f"not CSV ({error})"


def _key(path: str, header: Sequence[str]) -> int:
    """Return the index of the column of genotypes."""
    found = [i for i, name in enumerate(header) if name.lower() in _KEYS]
    if len(header) > _reading.MOST_COLUMNS:
        raise InputError(
            f"table {path} has {len(header):,} columns, more than the "
            f"{_reading.MOST_COLUMNS:,} that a table may have"
        )
    if len(found) > 1:
        listed = ", ".join(header[i] for i in found)
        raise InputError(
            f"table {path} has several columns of genotypes, {listed}; keep one"
        )
    if not found or len(header) < 2:
        shown = ", ".join(map(repr, header))[:200] or "none"
        if "" in header:
            shown += f"; if the one without a name holds genotypes, name it {_KEY}"
        raise InputError(
            f"table {path} needs a column {_KEY!r} (or {', '.join(_KEYS[1:])}) and at "
            f"least one column of accuracies; its columns are {shown}"
        )
    return found[0]


def _check_names(path: str, columns: Sequence[Column]) -> None:
    names = [column.name for column in columns if not is_unnamed(column.name)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(
            f"table {path} has {names.count(twice)} columns named {twice!r}; rename or "
            "delete all but one"
        )


def _check_keys(rows: Rows) -> None:
    seen: dict[str, int] = {}
    for row, key in enumerate(rows.keys):
        if seen.setdefault(key, row) != row:
            raise InputError(
                f"table {rows.path} has more than one row for {key}, in lines "
                f"{rows.lines[seen[key]]} and {rows.lines[row]}; keep one"
            )


def _misfit(
    path: str, number: int, fields: Sequence[str], header: Sequence[str], key: int
) -> str:
    where = f"table {path}, line {number}"
    if len(fields) == len(header):
        return f"{where} has no {header[key]}; fill it in, or delete the line"
    end = (
        "the file may be cut off"
        if len(fields) < len(header)
        else "a field that contains the separator needs quotation marks"
    )
    return f"{where} has {len(fields)} columns, the header has {len(header)}; {end}"


def save_table(table: Table, path: str) -> None:
    """Write a table as gzipped CSV that :func:`load_table` reads.

    The file appears only once it is complete. The same table gives the same bytes.
    Names of accuracies that would be read as something else, as all lie in 0 to 1, end
    in ``[%]`` in the file.

    Args:
      table: table to write; every number is stored exactly.
      path: path of the file, ending in ``.csv.gz``.

    Raises:
      InputError: if the path has another ending.
      OSError: if the file cannot be written.
    """
    if not path.endswith(".csv.gz"):
        raise InputError(f"tables are written as .csv.gz, got {path}")
    data = gzip.compress(_text(table).encode(), mtime=0)
    with tempfile.NamedTemporaryFile(dir=Path(path).parent, delete=False) as file:
        temporary = Path(file.name)
    try:
        temporary.write_bytes(data)
        # Temporary files are private; the table must be readable by everyone.
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _text(table: Table) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    marked = [_marked(name, values) for name, values in table.columns.items()]
    writer.writerow([_KEY, *marked, *table.others])
    numbers: Numbers = {**table.others, **table.columns}
    names = [*table.columns, *table.others]
    columns = [np.asarray(numbers[name]).tolist() for name in names]
    for key, row in table.rows.items():
        writer.writerow([key, *(values[row] for values in columns)])
    return text.getvalue()


def _marked(name: str, values: np.ndarray) -> str:
    """Return the header under which a column is read back as accuracies in percent."""
    clear = not tells_other(name) and not is_unnamed(name) and bool((values > 1).any())
    taken = name.lower() in (*_KEYS, DATASET)
    plain = clear and not taken and Column.of(name, False).name == name
    return name if plain else name + PERCENT
