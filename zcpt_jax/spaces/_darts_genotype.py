"""DARTS genotypes: JSON, and the Python literal that papers print."""

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Any

from zcpt_jax.json_text import parse_json
from zcpt_jax.spaces import _literals
from zcpt_jax.types import InputError

GROUPS = ("normal", "reduce")
EDGES = tuple((node, source) for node in range(2, 6) for source in range(node))
"""The 14 edges ``(node, input)``, in the order of mask rows."""

Cell = tuple[tuple[int, int, str], ...]
"""The 8 edges ``(node, input, operation)`` of a discrete cell, sorted."""

Genotype = Mapping[str, Cell]
"""Both cells: ``{'normal': Cell, 'reduce': Cell}``."""

_CONCAT = [2, 3, 4, 5]
_FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")
_FORM = (
    "expected {'normal': [[operation, input] x 8], 'normal_concat': [2, 3, 4, 5], "
    "'reduce': ..., 'reduce_concat': ...} as JSON, or "
    "Genotype(normal=[('operation', input), ...], normal_concat=range(2, 6), ...)"
)


def dump(genotype: Genotype) -> str:
    """Format a genotype as compact JSON with the fields of the DARTS code base."""
    fields: dict[str, Any] = {}
    for group in GROUPS:
        fields[group] = [[op, source] for _, source, op in genotype[group]]
        fields[f"{group}_concat"] = _CONCAT
    return json.dumps(fields, separators=(",", ":"))


def literal(genotype: Genotype) -> str:
    """Format a genotype as the Python literal that the DARTS code base reads."""
    parts = []
    for group in GROUPS:
        pairs = ", ".join(f"('{op}', {source})" for _, source, op in genotype[group])
        parts += [f"{group}=[{pairs}]", f"{group}_concat=range(2, 6)"]
    return f"Genotype({', '.join(parts)})"


def parse_genotype(
    text: str, space: str, candidates: Mapping[str, Sequence[Sequence[str]]]
) -> Genotype:
    """Parse a genotype in either form without executing any of the text.

    Args:
      text: JSON, or ``Genotype(...)`` with or without ``NAME =`` before it.
      space: name of the space, for error messages.
      candidates: operations allowed on each of the 14 edges of each cell.

    Raises:
      InputError: if the genotype is malformed, or not in the space.
    """
    fields = _read(text, space)
    if not isinstance(fields, dict) or set(fields) != set(_FIELDS):
        raise _malformed(space, text, f"fields must be {', '.join(_FIELDS)}")
    for group in GROUPS:
        concat = fields[f"{group}_concat"]
        if not isinstance(concat, list | tuple | range) or list(concat) != _CONCAT:
            raise _malformed(
                space, text, f"{group}_concat must be {_CONCAT}, got {concat}"
            )
    return {g: _cell(g, fields[g], space, candidates[g], text) for g in GROUPS}


def _cell(
    group: str,
    pairs: Any,
    space: str,
    candidates: Sequence[Sequence[str]],
    text: str,
) -> Cell:
    if isinstance(pairs, list | tuple) and all(
        isinstance(two, list | tuple)
        and len(two) == 2
        and all(isinstance(edge, list | tuple) for edge in two)
        for two in pairs
    ):
        # Some code bases nest the two edges of a node.
        pairs = [edge for two in pairs for edge in two]
    if not isinstance(pairs, list | tuple) or len(pairs) != 8:
        raise _malformed(space, text, f"{group} must list 8 edges, two a node")
    edges = []
    for number, pair in enumerate(pairs):
        node = 2 + number // 2
        match pair:
            case [str(op), int(source)] if not isinstance(source, bool):
                pass
            case _:
                raise _malformed(
                    space, text, f"{group}: {pair!r} is not (operation, input)"
                )
        if not 0 <= source < node:
            raise _malformed(
                space, text, f"{group}: node {node} cannot read node {source}"
            )
        allowed = candidates[EDGES.index((node, source))]
        if op not in allowed:
            raise InputError(
                f"{op!r} is not an operation of edge {node}<-{source} of the {group} "
                f"cell in {space}; allowed: {', '.join(allowed)}"
            )
        edges.append((node, source, op))
    if len({edge[:2] for edge in edges}) != 8:
        raise _malformed(space, text, f"{group}: a node reads the same input twice")
    return tuple(sorted(edges))


def _read(text: str, space: str) -> Any:
    try:
        if text.lstrip().startswith("{"):
            fields = _read_dict(text)
        else:
            fields = _read_literal(_literals.find_call(text, "Genotype") or text)
    except (ValueError, RecursionError) as error:
        raise _malformed(space, text, str(error)) from error
    # GDAS's record has fields that are None for a cell of DARTS's kind.
    return {k: v for k, v in fields.items() if k in _FIELDS or v is not None}


def _read_dict(text: str) -> dict[str, Any]:
    """Read a JSON object or a Python dict."""
    try:
        fields = parse_json(text)
    except json.JSONDecodeError as error:
        try:
            node = _literals.parse_expression(text)
        except ValueError:
            node = None
        if not isinstance(node, ast.Dict) or None in node.keys:
            raise ValueError(str(error)) from error
        keys = [_literals.literal(key) for key in node.keys if key is not None]
        fields = dict(zip(keys, map(_value, node.values), strict=True))
    if not isinstance(fields, dict):
        raise ValueError("it is no object")
    return fields


def _read_literal(text: str) -> dict[str, Any]:
    call = _literals.parse_expression(text)
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise ValueError("not a call of Genotype")
    if call.func.id != "Genotype":
        raise ValueError("not a call of Genotype")
    if len(call.args) > len(_FIELDS):
        raise ValueError(f"it has {len(call.args)} arguments without a name")
    fields = dict(zip(_FIELDS, map(_value, call.args), strict=False))
    for keyword in call.keywords:
        if keyword.arg is None or keyword.arg in fields:
            raise ValueError(f"unexpected argument {keyword.arg}")
        fields[keyword.arg] = _value(keyword.value)
    return fields


def _value(node: ast.expr) -> Any:
    """Value of a literal, or of a ``range`` of literal integers from 0 to 99."""
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("list", "tuple")
        and len(node.args) == 1
        and not node.keywords
    ):
        return list(_value(node.args[0]))
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "range"
        and not node.keywords
    ):
        bounds = [_literals.literal(arg) for arg in node.args]
        if len(bounds) in (1, 2) and all(
            type(b) is int and 0 <= b < 100 for b in bounds
        ):
            return list(range(*bounds))
        raise ValueError("not a range of small integers")
    return _literals.literal(node)


def _malformed(space: str, text: str, why: str) -> InputError:
    text = text if len(text) <= 2000 else text[:60] + "..."
    return InputError(f"malformed {space} genotype {text!r}: {why}; {_FORM}")
