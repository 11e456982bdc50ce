import numpy as np
import pytest

from zcpt_jax import masks as m
from zcpt_jax.search.edge_orders import ORDERS, get_order
from zcpt_jax.search.memory import NoMemory
from zcpt_jax.search.proposal import propose
from zcpt_jax.types import InputError, Phase

pytestmark = pytest.mark.unit

EDGES, OPS = ("e0", "e1", "e2"), ("a", "b")
# Score of the supernet without each candidate; edge e1 has the lowest mean, e2 the
# lowest single score, and the best candidate differs from edge to edge.
TABLE = np.array([[5.0, 4.0], [2.5, 2.0], [1.0, 9.0]])


class Log(NoMemory):
    def __init__(self):
        self.steps = []

    def keep(self, steps):
        self.steps += steps


def search(order, seed=0, proposals=1, table=TABLE):
    """A search whose scores depend on nothing but what is removed."""
    calls = []

    def score(step, masks, owners):
        calls.append((step, len(owners)))
        uniform = np.full((3, 2), 0.5)
        scores = []
        for weights in masks["g"]:
            removed = (weights == 0) & (weights.max(-1, keepdims=True) != 1)
            edge, op = np.argwhere(removed & (uniform > 0))[0]
            scores.append(table[edge, op])
        return np.array(scores)

    log = Log()
    phases = (Phase("p", (m.edge_decisions("g", EDGES, (OPS,) * len(EDGES)),)),)
    decided = propose(
        {"g": m.undecided(3, 2)},
        phases,
        score,
        get_order(order),
        num_proposals=proposals,
        seed=seed,
        memory=log,
    )
    return decided, log.steps, calls


def taken(steps, proposal=0):
    return [s.edge for s in steps if s.edge is not None and s.proposal == proposal]


@pytest.mark.parametrize(
    ("order", "expected", "scored"),
    [
        ("fixed", ["e0", "e1", "e2"], [2, 2, 2]),
        ("reverse", ["e2", "e1", "e0"], [2, 2, 2]),
        ("global-op-iter", ["e2", "e1", "e0"], [6, 4, 2]),
        ("global-op-once", ["e2", "e1", "e0"], [6, 2, 2, 2]),
        ("global-edge-iter", ["e1", "e0", "e2"], [6, 4, 2]),
        ("global-edge-once", ["e1", "e0", "e2"], [6, 2, 2, 2]),
    ],
)
def test_each_order_takes_edges_as_defined(order, expected, scored):
    decided, steps, calls = search(order)
    assert taken(steps) == expected
    assert [count for _, count in calls] == scored
    assert len({step for step, _ in calls}) == len(calls)  # a fresh minibatch each
    np.testing.assert_array_equal(decided[0]["g"], [[0, 1], [0, 1], [1, 0]])


def test_random_is_a_permutation_that_depends_on_seed_and_proposal_only():
    _, steps, calls = search("random", seed=3, proposals=6)
    orders = [tuple(taken(steps, p)) for p in range(6)]
    assert all(sorted(order) == list(EDGES) for order in orders)
    assert len(set(orders)) > 1
    assert [count for _, count in calls] == [12, 12, 12]  # all proposals in one call
    _, fewer, _ = search("random", seed=3, proposals=2)
    assert [tuple(taken(fewer, p)) for p in range(2)] == orders[:2]
    _, other, _ = search("random", seed=4, proposals=6)
    assert [tuple(taken(other, p)) for p in range(6)] != orders


def test_an_edge_of_nan_comes_last():
    table = TABLE.copy()
    table[2, 1] = np.nan
    with pytest.warns(UserWarning, match="without b is NaN for edge e2, proposal 0"):
        assert taken(search("global-edge-once", table=table)[1]) == ["e2", "e1", "e0"]
    order = ORDERS["global-op-iter"]
    assert order.rank([np.array([np.nan, np.nan]), np.array([1.0, 2.0])]) == [1, 0]


def test_an_unknown_order_is_refused():
    with pytest.raises(
        InputError, match="unknown edge order 'sideways'; known: random"
    ):
        get_order("sideways")
