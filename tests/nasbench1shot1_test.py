import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from tests import helpers
from tests.nasbench1shot1_genotype_test import SPACE2, random_genotype
from zcpt_jax.nn import capture
from zcpt_jax.spaces._nasbench1shot1 import (
    NasBench1Shot1Space1,
    NasBench1Shot1Space2,
    NasBench1Shot1Space3,
)
from zcpt_jax.spaces._nasbench1shot1_genotype import OPS
from zcpt_jax.spaces._nasbench1shot1_network import Cell
from zcpt_jax.types import InputError

SPACES = (NasBench1Shot1Space1, NasBench1Shot1Space2, NasBench1Shot1Space3)
TINY = {"channels": 2, "cells_per_stage": 1}
IMAGE = (8, 8, 3)


@pytest.mark.parametrize(
    ("space", "params", "relus"),
    # As many as the published classes have; ReLUs with one wrapper that counts too.
    [(SPACES[0](), 1_101_402, 119 + 1), (SPACES[2](), 1_509_594, 146 + 1)],
    ids=["space1", "space3"],
)
def test_the_published_supernet(space, params, relus):
    net = space.supernet(10)
    image = (32, 32, 3)
    counts, states = [], []

    def run(variables, images, masks):
        capture.forward(
            net.apply,
            variables,
            images,
            masks,
            norm="running",
            on_relu=lambda z, live, dead: counts.append((live, dead)),
            on_cut=lambda cut: states.append([x.shape for x in cut]) or cut,
        )
        return jnp.array(counts).sum(axis=0)

    images = jnp.zeros((1, *image))
    shapes = jax.eval_shape(net.init, jax.random.key(0), images)
    leaves = jax.tree.leaves(shapes["params"])
    assert sum(math.prod(leaf.shape) for leaf in leaves) == params
    variables = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    # Nothing but the counts is compiled, as nothing else is returned.
    live, dead = jax.jit(run)(variables, images, space.init_masks())
    assert live == relus
    assert dead == 0
    width = 16 * (len(space.num_parents) - 1)
    sizes = [32] * 3 + [17] * 3 + [9] * 3
    channels = [16] + [width] * 3 + [2 * width] * 3 + [4 * width] * 2
    assert states == [[(1, s, s, c)] for s, c in zip(sizes, channels, strict=True)]


def slow_cell(variables, x, masks, features):
    """Space 3's cell in NumPy, written out for each node."""
    params, stats = variables["params"], variables["batch_stats"]

    def norm(z, scope, stat):
        z = (z - stat["mean"]) / np.sqrt(stat["var"] + 1e-5)
        return z * scope.get("scale", 1) + scope.get("bias", 0)

    def windows(z, fill):
        padded = np.pad(z, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=fill)
        height, width = z.shape[1:3]
        return {
            (i, j): padded[:, i : i + height, j : j + width]
            for i in range(3)
            for j in range(3)
        }

    def conv(z, name):
        kernel = np.asarray(params[name]["conv"]["kernel"])
        if kernel.shape[0] == 1:
            z = z @ kernel[0, 0]
        else:
            z = sum(view @ kernel[ij] for ij, view in windows(z, 0).items())
        return np.maximum(norm(z, params[name]["norm"], stats[name]["norm"]), 0)

    def mixed(z, node):
        pooled = np.max(list(windows(z, -np.inf).values()), axis=0)
        w = masks["op"][node - 1]
        name = f"node{node}_maxpool3x3"
        return (
            w[0] * norm(pooled, {}, stats[name])
            + w[1] * conv(z, f"node{node}_conv3x3")
            + w[2] * conv(z, f"node{node}_conv1x1")
        )

    n1 = mixed(conv(x, "projection1"), 1)
    w = masks["input_2"]
    n2 = mixed(w[0] * conv(x, "projection2") + w[1] * n1, 2)
    w = masks["input_3"]
    n3 = mixed(w[0] * conv(x, "projection3") + w[1] * n1 + w[2] * n2, 3)
    w = masks["input_4"]
    n4 = w[0] * conv(x, "projection4") + w[1] * n1 + w[2] * n2 + w[3] * n3
    n4 = mixed(n4, 4)
    w = masks["input_5"]
    n5 = w[0] * conv(x, "projection5") + w[1] * n1 + w[2] * n2 + w[3] * n3 + w[4] * n4
    n5 = mixed(n5, 5)
    w = masks["output"]
    nodes = [w[1] * n1, w[2] * n2, w[3] * n3, w[4] * n4, w[5] * n5]
    assert all(node.shape[-1] == features for node in nodes)
    return w[0] * conv(x, "projection6") + np.concatenate(nodes, axis=-1)


def test_the_cell_weighs_operations_and_inputs_as_described():
    space = SPACES[2](**TINY)
    rng = np.random.default_rng(0)
    masks = {
        group: rng.uniform(size=weights.shape).astype(np.float32)
        for group, weights in space.init_masks().items()
    }
    inputs = [[1.0], *(masks[f"input_{k}"] for k in range(2, 6)), masks["output"]]
    cell = Cell((OPS,) * 5, tuple(tuple(range(k)) for k in range(1, 7)), features=2)
    x = rng.normal(size=(2, 5, 5, 3)).astype(np.float32)
    shapes = jax.eval_shape(cell.init, jax.random.key(0), x, masks["op"], inputs)
    draw = lambda leaf: rng.uniform(0.2, 1, leaf.shape).astype(np.float32)  # noqa: E731
    variables = jax.tree.map(draw, shapes)
    variables["params"] = jax.tree.map(lambda v: v - 0.6, variables["params"])
    out = jax.jit(cell.apply)(variables, x, masks["op"], inputs)
    expected = slow_cell(variables, x, masks, features=2)
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)


def test_a_decided_mask_is_the_discrete_network():
    """In logits, for parents of every kind; nwot differs by the absent operations."""
    space = SPACES[1](**TINY)
    supernet, network = space.supernet(10), space.network(SPACE2, 10)
    variables = space.init_variables(supernet, jax.random.key(0), IMAGE)
    names = traverse_util.flatten_dict(
        jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *IMAGE)))
    )
    flat = traverse_util.flatten_dict(dict(variables))
    own = traverse_util.unflatten_dict({name: flat[name] for name in names})
    images = jnp.asarray(helpers.batch(size=4, image_size=8).images)
    run = jax.jit(supernet.apply)
    logits = jax.jit(network.apply)(own, images)
    np.testing.assert_allclose(
        logits, run(variables, images, space.masks_of(SPACE2)), rtol=1e-4, atol=1e-6
    )
    undecided = run(variables, images, space.init_masks())
    assert np.abs(logits - undecided).max() > 1e-3


@pytest.mark.parametrize("cls", SPACES)
def test_owners_count_what_a_network_has(cls):
    space, rng = cls(**TINY), np.random.default_rng(0)
    genotypes = [random_genotype(space, rng) for _ in range(3)]
    by_owner, by_network = helpers.costs_and_counts(space, genotypes, IMAGE)
    assert by_owner == by_network
    assert len(np.unique(by_owner, axis=0)) > 1


def test_wrong_masks_are_refused():
    space = SPACES[0](**TINY)
    net = space.supernet(10)
    masks = space.init_masks()
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, *IMAGE)))

    def run(masks):
        return jax.eval_shape(net.apply, shapes, jnp.zeros((1, *IMAGE)), masks)

    assert run(masks).shape == (1, 10)
    with pytest.raises(InputError, match=r"'output': \(5,\)}, got .*'output': \(4,\)}"):
        run({**masks, "output": np.ones(4, np.float32)})
    with pytest.raises(InputError, match="the masks must have the shapes"):
        run({**masks, "input_2": np.ones(2, np.float32)})
