"""NAS-Bench-101 graphs: pruning, and the hash that indexes the published tables.

Ying et al., NAS-Bench-101, ICML 2019. A graph is an upper triangular adjacency matrix
``matrix[source][target]`` with an operation at each vertex; the first is the input and
the last the output. Two graphs have the same hash if they differ only in the order of
their vertices, or in vertices on no path from input to output.
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
    """Remove the vertices that lie on no path from input to output.

    Args:
      matrix: adjacency matrix ``[V][V]`` of 0 and 1, upper triangular.
      ops: operations of the V vertices; those of input and output are ignored.

    Returns:
      Matrix and operations of the remaining vertices, in their order.

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
    """Compute the NAS-Bench-101 hash of a graph: 32 hexadecimal digits.

    Equals ``hash_module`` of the published library, after its pruning, so that it
    finds the rows of published tables.

    Args:
      matrix: adjacency matrix ``[V][V]`` of 0 and 1, upper triangular.
      ops: V operations: ``'input'``, names of :data:`OPS`, ``'output'``.

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
    """Compute the hashes of graphs under every choice of operations.

    Isomorphic graphs are hashed once, so that the 5,400 matrices of NAS-Bench-1Shot1's
    third space, 1.3 million graphs, take only seconds.

    Args:
      matrices: adjacency matrices, each with a path from input to output.

    Raises:
      InputError: if a matrix has no such path.
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
    """Canonical matrix under reordering of inner vertices; may not be triangular."""
    last = len(matrix) - 1
    orders = [(0, *inner, last) for inner in itertools.permutations(range(1, last))]
    return min(_part(matrix, order) for order in orders)


def _hash(matrix: Matrix, labels: Sequence[int]) -> str:
    """Colour refinement with MD5 hashes as colours, one round per vertex."""
    vertices = range(len(matrix))
    sources = [[v for v in vertices if matrix[v][own]] for own in vertices]
    targets = [[v for v in vertices if matrix[own][v]] for own in vertices]
    # The text of these tuples enters the hash, so order and type (int) matter.
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
