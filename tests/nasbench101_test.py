import itertools

import numpy as np
import pytest

from zcpt_jax.spaces import _nasbench101_graph as graph101
from zcpt_jax.types import InputError

pytestmark = pytest.mark.unit

CONV3, CONV1, POOL = graph101.OPS


def matrix_of(vertices, edges):
    matrix = [[0] * vertices for _ in range(vertices)]
    for source, target in edges:
        matrix[source][target] = 1
    return matrix


LAST_EDGES = [(3, 5), (3, 6), (4, 5), (4, 6), (5, 6)]

# Rows of the published table.
PUBLISHED = [
    (matrix_of(2, [(0, 1)]), [], "043721b9c7fe8c5fad811d47d83132ec"),
    (
        matrix_of(3, [(0, 1), (0, 2), (1, 2)]),
        [CONV3],
        "d32d0b26d534203b48d866facd98cc3e",
    ),
    (
        matrix_of(7, [(0, 1), (1, 2), (1, 3), (2, 4), *LAST_EDGES]),
        [CONV1, CONV3, POOL, CONV3, POOL],
        "ffff76fafa7b0cdf545fd7feee9c8bf9",
    ),
]


def hash_of(matrix, inner):
    return graph101.module_hash(matrix, ["input", *inner, "output"])


@pytest.mark.parametrize(("matrix", "inner", "expected"), PUBLISHED)
def test_hashes_are_the_published_ones(matrix, inner, expected):
    assert hash_of(matrix, inner) == expected


def test_hashes_are_those_of_the_table(tables_dir):
    path = tables_dir / "nasbench101_108epochs.npz"
    if not path.is_file():
        pytest.skip(f"no {path.name}")
    with np.load(path, allow_pickle=False) as archive:
        names = ("n_vertices", "out_edges", "ops", "module_hash")
        sizes, edges, ops, hashes = (archive[name] for name in names)
    rows = np.random.default_rng(0).choice(len(sizes), 500, replace=False)
    for row in rows:
        size = int(sizes[row])
        matrix = [[int(bits) >> j & 1 for j in range(size)] for bits in edges[row]]
        inner = [graph101.OPS[int(c)] for c in ops[row].decode()[: size - 2]]
        expected = hashes[row].tobytes().hex()
        assert hash_of(matrix[:size], inner) == expected


def test_vertices_off_every_path_do_not_count():
    # 2 leads nowhere, 3 comes from nowhere, 5 comes from 3 alone.
    edges = [(0, 1), (0, 2), (1, 4), (0, 4), (3, 4), (3, 5), (4, 6), (5, 6)]
    inner = [CONV3, POOL, CONV1, CONV1, POOL]
    matrix, ops = graph101.prune(matrix_of(7, edges), ["input", *inner, "output"])
    assert ops == ("input", CONV3, CONV1, "output")
    assert list(map(list, matrix)) == matrix_of(4, [(0, 1), (0, 2), (1, 2), (2, 3)])
    assert hash_of(matrix_of(7, edges), inner) == hash_of(matrix, [CONV3, CONV1])


def test_hashes_tell_graphs_apart_up_to_the_order_of_vertices():
    two_branches = matrix_of(4, [(0, 1), (0, 2), (1, 3), (2, 3)])
    chain = matrix_of(4, [(0, 1), (1, 2), (2, 3)])
    assert hash_of(two_branches, [CONV3, POOL]) == hash_of(two_branches, [POOL, CONV3])
    assert hash_of(chain, [CONV3, POOL]) != hash_of(chain, [POOL, CONV3])
    assert hash_of(chain, [CONV3, POOL]) != hash_of(two_branches, [CONV3, POOL])


def test_all_hashes_are_the_hashes_of_all_choices():
    matrices = [
        matrix_of(5, [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4)]),
        matrix_of(5, [(0, 1), (1, 2), (0, 3), (2, 4), (3, 4)]),
        matrix_of(5, [(0, 1), (0, 2), (2, 3), (1, 4), (3, 4)]),  # isomorphic to it
        matrix_of(5, [(0, 1), (1, 2), (1, 3), (3, 4)]),  # 2 leads nowhere
    ]
    one_by_one = {
        hash_of(matrix, inner)
        for matrix in matrices
        for inner in itertools.product(graph101.OPS, repeat=3)
    }
    assert graph101.all_hashes(matrices) == one_by_one
    # Two equal branches; three in a row; the chain of two that the last one leaves.
    assert len(one_by_one) == 3 * 6 + 27 + 9


def test_graphs_that_cannot_be_hashed_are_refused():
    with pytest.raises(InputError, match="a path from its first to its last vertex"):
        hash_of(matrix_of(4, [(0, 1), (2, 3)]), [CONV3, POOL])
    with pytest.raises(InputError, match="unknown NAS-Bench-101 operation 'conv5x5'"):
        hash_of(matrix_of(3, [(0, 1), (1, 2)]), ["conv5x5"])
