"""Operation scores against what they mean, and searches with each of them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import helpers
from tests.own_space import SIZES, Chain
from zcpt_jax import masks as m
from zcpt_jax.data import load_dataset
from zcpt_jax.proxies import PROXIES
from zcpt_jax.search import NoMemory
from zcpt_jax.search.operation_scores import (
    OPERATION_SCORES,
    Accuracies,
    Setting,
    Trained,
    accuracy,
    get_operation_score,
    mixture,
)
from zcpt_jax.spaces import get_space
from zcpt_jax.tables import Table
from zcpt_jax.types import Batch, InputError

SPACE = Chain(layers=2, channels=4)
DATA = load_dataset("digits", image_size=8)
OPS = tuple(SIZES)
NAMES = [" ".join(pair) for pair in itertools.product(OPS, OPS)]
PERCENT = np.array([50.0, 40, 30, 90, 20, 10, 60, 70, 80])
TABLE = Table(
    {name: row for row, name in enumerate(NAMES)},
    {"test": PERCENT, "other": PERCENT[::-1]},
)
ACCURACIES = Accuracies(SPACE, TABLE)
ALPHAS = {"layers": np.array([[0.0, 1.0, 2.0], [3.0, 0.0, -1.0]], np.float32)}
SMALL = {"num_proposals": 2, "num_validation_batches": 1, "batch_size": 8}


def trained():
    variables = SPACE.init_variables(
        SPACE.supernet(10), jax.random.key(3), DATA.image_shape
    )
    return Trained(variables, ALPHAS)


def by_hand(layer, op, chosen, how):
    """Statistic of the networks with an operation on a layer and those chosen."""
    wanted = {**chosen, layer: op}
    values = [
        TABLE.columns["test"][row]
        for name, row in TABLE.rows.items()
        if all(name.split()[where] == what for where, what in wanted.items())
    ]
    return how(values)


@pytest.mark.parametrize(("name", "how"), [("best-acc", max), ("avg-acc", np.mean)])
def test_scores_from_tables_are_statistics_of_the_networks_left(name, how):
    operation = OPERATION_SCORES[name]
    score = operation.scores(Setting(SPACE, 0, None, None, accuracies=ACCURACIES))
    first, second = SPACE.phases()[0].tracks[0]
    masks = SPACE.init_masks()
    for decision, layer, chosen in ((first, 0, {}), (second, 1, {0: "conv1x1"})):
        if chosen:
            masks = m.apply_decision(masks, first, [OPS.index(chosen[0])])
        stack = operation.perturbation.apply(masks, decision)
        expected = [by_hand(layer, op, chosen, how) for op in OPS]
        np.testing.assert_allclose(score(0, stack, np.zeros(3, int)), expected)


def test_the_search_with_best_acc_finds_the_best_network():
    found = helpers.search(
        SPACE,
        PROXIES["nwot"],
        DATA,
        operation_score="best-acc",
        evidence=ACCURACIES,
        **SMALL,
    )
    assert found.genotype == NAMES[int(PERCENT.argmax())]


def test_a_column_can_be_chosen_and_gaps_are_refused():
    assert Accuracies(SPACE, TABLE, "other").values[0] == PERCENT[-1]
    with pytest.raises(InputError, match="no column 'x'; it has test, other"):
        Accuracies(SPACE, TABLE, "x")
    few = Table({NAMES[0]: 0}, {"test": PERCENT[:1]})
    with pytest.raises(InputError, match=f"no row for {NAMES[1]} of chain"):
        Accuracies(SPACE, few)
    with pytest.raises(InputError, match="look all of them up and take spaces of"):
        Accuracies(get_space("darts"), TABLE)


def test_darts_takes_the_largest_alpha():
    found = helpers.search(
        SPACE,
        PROXIES["nwot"],
        DATA,
        operation_score="darts",
        evidence=trained(),
        **SMALL,
    )
    assert set(found.proposals) == {f"{OPS[2]} {OPS[0]}"}


def test_mixture_is_the_softmax_over_what_there_is():
    undecided = {"a": np.array([[1.0, 1, 0], [1, 1, 1]]), "b": np.full(2, 0.5)}
    alphas = {"a": np.array([[1.0, 2, 9], [0, 0, 0]]), "b": np.array([0.0, 1.0])}
    weights = mixture(alphas, undecided)
    e = np.e
    np.testing.assert_allclose(weights["a"][0], [1 / (1 + e), e / (1 + e), 0], 1e-6)
    np.testing.assert_allclose(weights["a"][1], [1 / 3] * 3, 1e-6)
    np.testing.assert_allclose(weights["b"], [1 / (1 + e), e / (1 + e)], 1e-6)
    gradient = jax.grad(lambda a: mixture({"a": a}, undecided)["a"][0, 0])
    assert np.isfinite(gradient(jnp.asarray(alphas["a"]))).all()


@pytest.mark.parametrize("name", ["darts-pt", "disc-acc"])
def test_trained_accuracy_is_that_of_the_perturbed_mixture(name):
    """Asked mask by mask, on the same minibatch, without the evaluator."""
    steps = []

    class Memory(NoMemory):
        def keep(self, new):
            steps.extend(new)

    net = trained()
    helpers.search(
        SPACE,
        PROXIES["nwot"],
        DATA,
        operation_score=name,
        evidence=net,
        edge_order="fixed",
        memory=Memory(),
        num_proposals=1,
        num_validation_batches=1,
        batch_size=32,
    )
    batch = DATA.batch(np.random.default_rng([0, 1, 0, 0]), 32)
    weights = np.asarray(mixture(ALPHAS, SPACE.init_masks())["layers"])
    for index in range(3):
        mask = weights.copy()
        if name == "darts-pt":
            mask[0, index] = 0
        else:
            mask[0] = np.eye(3)[index]
        logits = SPACE.supernet(10).apply(net.variables, batch.images, {"layers": mask})
        right = float((np.argmax(logits, 1) == batch.labels).mean())
        assert steps[0].scores["layer 0"][index] == pytest.approx(right)


def test_accuracy_counts_right_answers():
    logits = np.eye(4, dtype=np.float32)
    batch = Batch(np.zeros((4, 1)), np.array([0, 1, 0, 0]))
    assert accuracy(lambda v, x, m: jnp.asarray(logits), {}, batch, None) == 0.5


@pytest.mark.parametrize("name", OPERATION_SCORES)
def test_what_is_missing_is_named(name):
    operation = get_operation_score(name)
    setting = Setting(SPACE, 0, lambda proxy, variables: None, None)
    needs = {"supernet": "needs a trained supernet", "table": "needs a table"}
    if operation.needs in needs:
        with pytest.raises(InputError, match=f"{name} {needs[operation.needs]}"):
            operation.scores(setting)
    with pytest.raises(InputError, match="unknown operation score 'x'; known: zc-pt"):
        get_operation_score("x")
