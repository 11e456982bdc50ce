"""Reports as text: the numbers, the targets, and what changed since an older one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

_STEP = (
    ("space", "space", "{}"),
    ("proxy", "proxy", "{}"),
    ("chunk", "chunk", "{}"),
    ("compile s", "compile_seconds", "{:.1f}"),
    ("ours ms", "ours_ms", "{:.1f}"),
    ("PyTorch ms", "reference_ms", "{:.1f}"),
    ("ratio", "ratio", "{:.2f}"),
    ("ours MB", "ours_peak_mb", "{:,.0f}"),
    ("PyTorch MB", "reference_peak_mb", "{:,.0f}"),
)
_PROPOSAL = (
    ("space", "space", "{}"),
    ("proxy", "proxy", "{}"),
    ("masks", "masks", "{}"),
    ("sampled", "sampled", "{}"),
    ("ours ms", "ours_ms", "{:.1f}"),
    ("PyTorch ms", "reference_ms", "{:.1f}"),
    ("ratio", "ratio", "{:.2f}"),
)
_SEARCH = (
    ("space", "space", "{}"),
    ("proxy", "proxy", "{}"),
    ("dataset", "dataset", "{}"),
    ("cold cache s", "cold_seconds", "{:.1f}"),
    ("warm cache s", "warm_seconds", "{:.1f}"),
)
TARGET = (
    ("target", "target", "{}"),
    ("measured", "value", "{:.2f}"),
    ("met", "met", "{}"),
)
Sections = Mapping[str, tuple[str, Sequence[tuple[str, str, str]]]]
"""Name of a section to its title and columns: heading, key, format."""

SECTIONS: Sections = {
    "steps": ("one step of the undecided supernet, a perturbation", _STEP),
    "proposals": ("one whole proposal, a perturbation on average", _PROPOSAL),
    "searches": ("a whole search", _SEARCH),
    "targets": ("targets", TARGET),
}
"""The tables of ``benchmarks/run.py``."""

_COMPARED = (
    "compile_seconds",
    "ours_ms",
    "reference_ms",
    "ratio",
    "ours_peak_mb",
    "reference_peak_mb",
    "cold_seconds",
    "warm_seconds",
)


def render(report: Mapping[str, Any], sections: Sections = SECTIONS) -> str:
    """All tables of a report, and what could not be measured.

    Args:
      report: its environment, and rows by section.
      sections: the tables.
    """
    parts = [_environment(report["environment"])]
    for name, (title, columns) in sections.items():
        rows = report.get(name, ())
        if rows:
            texts = [
                [_cell(row, key, form) for _, key, form in columns] for row in rows
            ]
            parts.append(f"{title}\n{_table([head for head, _, _ in columns], texts)}")
    errors = [
        f"{' '.join(_name(row))}: {row['error']}"
        for name in sections
        for row in report.get(name, ())
        if "error" in row
    ]
    return "\n\n".join([*parts, *errors])


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """New / old of every number that both reports have; below 1 is less."""
    headings = ["section", "space", "proxy", *_COMPARED]
    texts = []
    for name in ("steps", "proposals", "searches"):
        before = {(row["space"], row["proxy"]): row for row in old.get(name, ())}
        for row in new.get(name, ()):
            earlier = before.get((row["space"], row["proxy"]))
            if earlier:
                numbers = [_quotient(row, earlier, key) for key in _COMPARED]
                texts.append([name, row["space"], row["proxy"], *numbers])
    if not texts:
        return "the two reports have no row in common"
    changed = [
        f"{key}: {old.get('environment', {}).get(key)} there, {value} here"
        for key, value in new["environment"].items()
        if old.get("environment", {}).get(key) != value
    ]
    return "\n".join(["new / old", _table(headings, texts), *changed])


def _name(row: Mapping[str, Any]) -> list[str]:
    parts = (row["space"], row["proxy"], row.get("variant"))
    return [part for part in parts if part]


def _environment(environment: Mapping[str, Any]) -> str:
    return "\n".join(f"{key:<10} {value}" for key, value in environment.items())


def _cell(row: Mapping[str, Any], key: str, form: str) -> str:
    value = row.get(key)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else form.format(value)


def _quotient(new: Mapping[str, Any], old: Mapping[str, Any], key: str) -> str:
    if not new.get(key) or not old.get(key):
        return "-"
    return f"{new[key] / old[key]:.2f}"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width, numbers to the right."""
    lines = [list(headings), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(
            _side(column, rows)(cell, width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()

    return "\n".join(line(cells) for cells in lines)


def _side(column: int, rows: Sequence[Sequence[str]]) -> Callable[[str, int], str]:
    numbers = all(not row[column][:1].isalpha() for row in rows)
    return str.rjust if numbers else str.ljust
