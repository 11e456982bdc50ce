"""Lines of a run's files: their text, and what a good one is."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zcpt_jax.json_text import parse_json

_NUMBERS = ("nan", "inf", "-inf")
"""Numbers that JSON has no form for, as text."""

_DECISION: dict[str, Any] = {
    "proposal": int,
    "step": int,
    "phase": str,
    "edge": (str, type(None)),
    "kept": list,
    "candidates": list,
    "scores": dict,
}
_VALIDATION: dict[str, Any] = {"genotype": str, "start": int, "scores": list}


def to_text(lines: Sequence[Mapping[str, Any]]) -> str:
    """Format records as JSON lines."""
    return "".join(json.dumps(line) + "\n" for line in lines)


def to_json(values: Any) -> Any:
    """Convert numbers to JSON values; NaN and infinities, which JSON lacks, to text."""
    if isinstance(values, Sequence | np.ndarray):
        return [to_json(value) for value in values]
    return float(values) if math.isfinite(values) else str(float(values))


def to_floats(values: Any) -> Any:
    """Inverse of :func:`to_json`."""
    if isinstance(values, list):
        return [to_floats(value) for value in values]
    return float(values)


def decision_problem(line: str) -> str | None:
    """Say what is wrong with a line of decisions, None if it is good."""
    record, problem = _parse(line, _DECISION)
    if problem is not None:
        return problem
    candidates, kept, edge = record["candidates"], record["kept"], record["edge"]
    for name, values in (("candidates", candidates), ("kept", kept)):
        if not all(isinstance(value, str) for value in values):
            return f"{name} must be names, got {values}"
    if not set(kept) <= set(candidates):
        return f"kept must be some of {candidates}, got {kept}"
    for name, row in record["scores"].items():
        if not isinstance(row, list) or not _are_scores(row):
            return f"the scores of {name} are not numbers"
    if edge is not None and len(record["scores"].get(edge, ())) != len(candidates):
        return f"{edge} needs a score for each of {candidates}"
    return None


def validation_problem(line: str, block: int, num_batches: int | None) -> str | None:
    """Say what is wrong with a line of validation scores, None if it is good.

    Args:
      line: the line.
      block: number of minibatches of a line, but for the last.
      num_batches: number of minibatches of a network, None if it is not known.
    """
    record, problem = _parse(line, _VALIDATION)
    if problem is not None:
        return problem
    start, scores = record["start"], record["scores"]
    if not scores or not _are_scores(scores):
        return "the scores are not numbers"
    if num_batches is None:
        return None
    expected = min(block, num_batches - start)
    if start % block or expected < 1:
        return f"no minibatches begin at {start}"
    if len(scores) != expected:
        return f"it has {len(scores)} scores of {expected} minibatches"
    return None


def _parse(line: str, kinds: Mapping[str, Any]) -> tuple[Any, str | None]:
    try:
        record = parse_json(line)
    except json.JSONDecodeError as error:
        return None, f"not a complete JSON object ({error})"
    if not isinstance(record, dict) or set(record) != set(kinds):
        return None, f"expected an object with {sorted(kinds)}"
    for name, kind in kinds.items():
        value = record[name]
        good = isinstance(value, kind)
        if kind is int:
            good = type(value) is int and value >= 0
        if not good:
            return None, f"{name} has another type: {str(value)[:60]!r}"
    return record, None


def _are_scores(row: list[Any]) -> bool:
    """Whether all entries are numbers, or all are equally long lists of numbers."""
    if all(isinstance(entry, list) for entry in row):
        lengths = {len(entry) for entry in row}
        return len(lengths) == 1 and all(map(_is_number, sum(row, [])))
    return all(map(_is_number, row))


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return value in _NUMBERS
    return isinstance(value, int | float) and not isinstance(value, bool)
