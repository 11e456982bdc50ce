"""NAS-Bench-101's graphs: what counts of them, and the hash its tables go by.

Ying et al., NAS-Bench-101, ICML 2019. A graph is an upper triangular adjacency matrix
``matrix[source][target]`` with an operation at each vertex, the first being the input
and the last the output. Two graphs have the same hash if they differ in the order of
their vertices, or in vertices off every path from input to output.
"""

import hashlib
import itertools
from collections.abc import Iterable, Sequence

from zcpt_jax.types import InputError

OPS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
"""The operations in the order of their labels in the hash."""

INPUT = "input"
OUTPUT = "output"
_INPUT_LABEL, _OUTPUT_LABEL = -1, -2

Matrix = tuple[tuple[int, ...], ...]


def prune(
    matrix: Sequence[Sequence[int]], ops: Sequence[str]
) -> tuple[Matrix, tuple[str, ...]]:
    """A graph without the vertices that lie on no path from input to output.

    Args:
      matrix: ``[V][V]`` of 0 and 1, upper triangular.
      ops: the V vertices' operations; those of the ends are ignored.

    Returns:
      Matrix and operations of the vertices that stay, in their order.

    Raises:
      InputError: if no path leads from the input to the output.
    """
    kept = _on_a_path(matrix)
    if not kept:
        raise InputError(
            "a NAS-Bench-101 graph needs a path from its first to its last vertex, "
            f"got the matrix {[list(row) for row in matrix]}"
        )
    return _part(matrix, kept), tuple(ops[vertex] for vertex in kept)


def module_hash(matrix: Sequence[Sequence[int]], ops: Sequence[str]) -> str:
    """The hash that NAS-Bench-101 files a graph under: 32 hexadecimal digits.

    That of ``hash_module`` in the published library, after its pruning, so that it
    finds the rows of published tables.

    Args:
      matrix: ``[V][V]`` of 0 and 1, upper triangular.
      ops: ``'input'``, names of :data:`OPS`, ``'output'``; V of them.

    Raises:
      InputError: if an operation on a path is unknown, or no path leads from the
        input to the output.
    """
    matrix, ops = prune(matrix, ops)
    for op in ops[1:-1]:
        if op not in OPS:
            raise InputError(
                f"unknown NAS-Bench-101 operation {op!r}; known: {', '.join(OPS)}"
            )
    return _hash(matrix, [OPS.index(op) for op in ops[1:-1]])


def all_hashes(matrices: Iterable[Sequence[Sequence[int]]]) -> frozenset[str]:
    """The hashes of graphs under every choice of operations.

    Isomorphic graphs are hashed once, which makes the 5,400 matrices of
    NAS-Bench-1Shot1's third space, 1.3 million graphs, a matter of seconds.

    Args:
      matrices: adjacency matrices, each with a path from input to output.

    Raises:
      InputError: if one has none.
    """
    distinct = {prune(matrix, [""] * len(matrix))[0] for matrix in matrices}
    hashes: set[str] = set()
    for matrix in {_canonical(matrix) for matrix in distinct}:
        choices = itertools.product(range(len(OPS)), repeat=len(matrix) - 2)
        hashes.update(_hash(matrix, labels) for labels in choices)
    return frozenset(hashes)


def _on_a_path(matrix: Sequence[Sequence[int]]) -> list[int]:
    size = len(matrix)
    reached = {0}
    for vertex in range(1, size):
        if any(matrix[source][vertex] for source in reached):
            reached.add(vertex)
    leads = {size - 1}
    for vertex in reversed(range(size - 1)):
        if any(matrix[vertex][target] for target in leads):
            leads.add(vertex)
    return sorted(reached & leads)


def _part(matrix: Sequence[Sequence[int]], kept: Sequence[int]) -> Matrix:
    return tuple(tuple(matrix[row][column] for column in kept) for row in kept)


def _canonical(matrix: Matrix) -> Matrix:
    """The same for all orders of the inner vertices; not always upper triangular."""
    last = len(matrix) - 1
    orders = [(0, *inner, last) for inner in itertools.permutations(range(1, last))]
    return min(_part(matrix, order) for order in orders)


def _hash(matrix: Matrix, labels: Sequence[int]) -> str:
    """Colour refinement with MD5 as the colours, as many rounds as vertices."""
    vertices = range(len(matrix))
    sources = [[v for v in vertices if matrix[v][own]] for own in vertices]
    targets = [[v for v in vertices if matrix[own][v]] for own in vertices]
    # The text of these tuples enters the hash: plain integers, in this order.
    starts = zip(
        map(len, targets),
        map(len, sources),
        (_INPUT_LABEL, *labels, _OUTPUT_LABEL),
        strict=True,
    )
    colours = [_md5(str(start)) for start in starts]
    for _ in vertices:
        colours = [
            _md5(
                f"{_joined(colours, sources[own])}|{_joined(colours, targets[own])}|"
                f"{colours[own]}"
            )
            for own in vertices
        ]
    return _md5(str(sorted(colours)))


def _joined(colours: Sequence[str], vertices: Sequence[int]) -> str:
    return "".join(sorted([colours[vertex] for vertex in vertices]))


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
