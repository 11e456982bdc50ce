"""NAS-Bench-1Shot1 genotypes: cells in the graph notation of NAS-Bench-101."""

import ast
import functools
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from zcpt_jax.json_text import parse_json
from zcpt_jax.spaces import _literals
from zcpt_jax.spaces import _nasbench101_graph as graph101
from zcpt_jax.spaces._nasbench101_graph import INPUT, OUTPUT
from zcpt_jax.types import InputError

OPS = ("maxpool3x3", "conv3x3-bn-relu", "conv1x1-bn-relu")

Parents = tuple[tuple[int, ...], ...]
"""Parents of each choice node, and then of the output; 0 is the input."""

_FORM = (
    'the form {"matrix": [[0, 1, ...], ...], "ops": ["input", ..., "output"]} of '
    "NAS-Bench-101"
)


class Graph(NamedTuple):
    """A discrete cell.

    Attributes:
      ops: operation at each choice node.
      parents: parents of each choice node, and then of the output; 0 is the input.
    """

    ops: tuple[str, ...]
    parents: Parents

    def matrix(self) -> list[list[int]]:
        """Return the adjacency matrix of input, choice nodes and output."""
        size = len(self.ops) + 2
        matrix = [[0] * size for _ in range(size)]
        for target, parents in enumerate(self.parents, start=1):
            for parent in parents:
                matrix[parent][target] = 1
        return matrix

    def vertices(self) -> list[str]:
        """Return the operations as in NAS-Bench-101, with input and output."""
        return [INPUT, *self.ops, OUTPUT]


def dump(graph: Graph) -> str:
    """Format a genotype as canonical compact JSON."""
    value = {"matrix": graph.matrix(), "ops": graph.vertices()}
    return json.dumps(value, separators=(",", ":"))


def parse_graph(text: str, space: str, num_parents: tuple[int, ...]) -> Graph:
    """Parse a genotype without executing any of the text.

    Args:
      text: JSON as :func:`dump` writes it, or the same as a Python literal: a
        dictionary, or ``ModelSpec(matrix=..., ops=...)``. If six vertices are
        expected, a seventh without edges is ignored.
      space: name of the space, for error messages.
      num_parents: number of parents of each choice node, and then of the output.

    Raises:
      InputError: if the genotype is malformed, or not in the space.
    """
    size = len(num_parents) + 1
    matrix, ops = _without_seventh(*_literal(text), size)
    if len(ops) != size:
        raise InputError(
            f"{space} has {size} vertices, input and output included, but the "
            f"genotype {text!r} has {len(ops)}"
        )
    parents = tuple(
        tuple(row for row in range(target) if matrix[row][target])
        for target in range(1, size)
    )
    counts = tuple(len(rows) for rows in parents)
    if counts != num_parents:
        raise InputError(
            f"in {space} the nodes and the output read {_listed(num_parents)} earlier "
            f"nodes, but in the genotype {text!r} they read {_listed(counts)}"
        )
    return Graph(tuple(ops[1:-1]), parents)


@functools.cache
def all_keys(num_parents: tuple[int, ...]) -> frozenset[str]:
    """Compute the NAS-Bench-101 hashes of all genotypes of a space.

    Args:
      num_parents: number of parents of each choice node, and then of the output.
    """
    return graph101.all_hashes(_matrices(num_parents))


def _matrices(num_parents: Sequence[int]) -> Iterator[list[list[int]]]:
    """Adjacency matrices of a space."""
    choices = (
        itertools.combinations(range(target), count)
        for target, count in enumerate(num_parents, start=1)
    )
    blank = ("",) * (len(num_parents) - 1)
    for parents in itertools.product(*choices):
        yield Graph(blank, parents).matrix()


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _literal(text: str) -> tuple[list[list[int]], list[str]]:
    """Matrix and operations of a well-formed text."""
    value = _json_or_python(text)
    if not isinstance(value, dict) or set(value) != {"matrix", "ops"}:
        raise InputError(
            f"malformed NAS-Bench-1Shot1 genotype {text!r}; expected {_FORM}"
        )
    matrix, ops = value["matrix"], value["ops"]
    _check_ops(ops, text)
    if not _is_upper_triangular(matrix, len(ops)):
        raise InputError(
            f"the matrix of the NAS-Bench-1Shot1 genotype {text!r} must have "
            f"{len(ops)} rows of {len(ops)} entries, one an operation: 0 or 1 above "
            "the diagonal, 0 elsewhere"
        )
    return [list(row) for row in matrix], list(ops)


def _json_or_python(text: str) -> Any:
    """Value of a JSON text, Python literal or ``ModelSpec`` call; otherwise None."""
    try:
        return parse_json(text)
    except (ValueError, RecursionError):
        pass
    try:
        return _python(_literals.parse_expression(text))
    except ValueError:
        return None


def _python(node: ast.expr) -> Any:
    if not isinstance(node, ast.Call):
        return _literals.literal(node)
    named = isinstance(node.func, ast.Name) and node.func.id == "ModelSpec"
    dotted = isinstance(node.func, ast.Attribute) and node.func.attr == "ModelSpec"
    if not named and not dotted:
        return None
    names = ("matrix", "ops")
    value = dict(zip(names, map(_literals.literal, node.args), strict=False))
    for keyword in node.keywords:
        value[str(keyword.arg)] = _literals.literal(keyword.value)
    return value


def _check_ops(ops: Any, text: str) -> None:
    if (
        not isinstance(ops, list | tuple)
        or len(ops) < 2
        or (ops[0], ops[-1]) != (INPUT, OUTPUT)
    ):
        raise InputError(
            f"the ops of the NAS-Bench-1Shot1 genotype {text!r} must be a list that "
            f"starts with {INPUT!r} and ends with {OUTPUT!r}"
        )
    for op in ops[1:-1]:
        if op not in OPS:
            raise InputError(
                f"unknown operation {op!r} in the NAS-Bench-1Shot1 genotype {text!r}; "
                f"known: {', '.join(OPS)}"
            )


def _is_upper_triangular(matrix: Any, size: int) -> bool:
    if not isinstance(matrix, list | tuple) or len(matrix) != size:
        return False
    for index, row in enumerate(matrix):
        if not isinstance(row, list | tuple) or len(row) != size:
            return False
        if any(type(entry) is not int or entry not in (0, 1) for entry in row):
            return False
        if any(row[: index + 1]):
            return False
    return True


def _without_seventh(
    matrix: list[list[int]], ops: list[str], size: int
) -> tuple[list[list[int]], list[str]]:
    """Remove the vertex without edges that the published code pads with."""
    if (len(ops), size) != (7, 6):
        return matrix, ops
    loose = [
        v for v in range(7) if not any(matrix[v]) and not any(r[v] for r in matrix)
    ]
    if len(loose) != 1:
        return matrix, ops
    kept = [vertex for vertex in range(7) if vertex != loose[0]]
    return [[matrix[r][c] for c in kept] for r in kept], [ops[v] for v in kept]
