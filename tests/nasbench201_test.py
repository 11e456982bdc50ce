import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import helpers
from zcpt_jax.nn.size import count_flops, count_params
from zcpt_jax.proxies import nwot, synflow
from zcpt_jax.scoring.scorer import score_masks
from zcpt_jax.spaces import get_space
from zcpt_jax.spaces._nasbench201 import EDGES, OPS
from zcpt_jax.types import InputError

MIXED = (
    "|nor_conv_3x3~0|+|none~0|skip_connect~1|+"
    "|avg_pool_3x3~0|nor_conv_1x1~1|nor_conv_3x3~2|"
)
NONE = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
IMAGE = (32, 32, 3)


def test_the_published_supernet_has_as_many_parameters():
    assert count_params(get_space("nasbench201").supernet(10), IMAGE) == 1_686_106


@pytest.mark.parametrize(
    ("op", "params", "conv"),
    # 73,306 of stem, reductions, head; 15 cells add 6 edges of weights and BatchNorm.
    [("none", 73_306, 0), ("nor_conv_1x1", None, 1), ("nor_conv_3x3", None, 3)],
)
def test_parameters_and_flops_by_hand(op, params, conv):
    space = get_space("nasbench201")
    genotype = NONE.replace("none", op)
    net = space.network(genotype, 10)
    edges = 5 * 6
    stages = ((16, 32), (32, 16), (64, 8))
    weights = sum(edges * (conv**2 * c * c + 2 * c) for c, _ in stages)
    expected = 73_306 + (weights if conv else 0)
    assert count_params(net, IMAGE) == (params or expected)
    macs = sum(edges * conv**2 * c * c * s * s for c, s in stages)
    base = count_flops(space.network(NONE, 10), IMAGE)
    assert count_flops(net, IMAGE) - base == macs
    stem = 27 * 16 * 32**2
    first = (9 * 16 * 32 + 9 * 32 * 32 + 16 * 32) * 16**2
    second = (9 * 32 * 64 + 9 * 64 * 64 + 32 * 64) * 8**2
    assert base == stem + first + second + 64 * 10


def copy_weights(space, genotype, supernet_variables, network_variables):
    """The network's variables with the supernet's weights in them."""

    def merge(own, other):
        return {
            key: merge(value, other.get(key, {}))
            if isinstance(value, dict)
            else other.get(key, value)
            for key, value in own.items()
        }

    return merge(network_variables, supernet_variables)


def test_a_one_hot_mask_is_the_discrete_network():
    """In logits; synflow too. nwot differs by what absent operations add."""
    space, supernet, variables = helpers.tiny_supernet()
    network = space.network(MIXED, 10)
    own = space.init_variables(network, jax.random.key(1), (16, 16, 3))
    own = copy_weights(space, MIXED, variables, own)
    data, masks = helpers.batch(), space.masks_of(MIXED)
    expected = supernet.apply(variables, jnp.asarray(data.images), masks)
    logits = network.apply(own, jnp.asarray(data.images))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        synflow(network.apply, own, data, None),
        synflow(supernet.apply, variables, data, masks),
        rtol=1e-5,
    )


def slow_nwot(space, variables, data, mask):
    """The published hooks one by one: each operation on its own, both products."""
    net = space.supernet(10)
    total = np.zeros((len(data.images),) * 2)

    def add(z):
        nonlocal total
        c = (np.asarray(z) > 0).astype(np.float64).reshape(len(total), -1)
        total = total + c @ c.T + (1 - c) @ (1 - c).T

    def conv(path, x, size):
        scope = variables["params"]
        for name in path:
            scope = scope[name]
        return jax.lax.conv_general_dilated(
            x,
            scope["kernel"],
            (1, 1),
            [(size // 2,) * 2] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        ) / np.float32(np.sqrt(1 + 1e-5))

    _, state = net.apply(
        variables,
        jnp.asarray(data.images),
        {"cell": mask},
        capture_intermediates=True,
        mutable=["intermediates"],
    )
    outputs = state["intermediates"]
    for stage in range(3):
        before = "stem_norm" if stage == 0 else f"reduction{stage - 1}"
        x = outputs[before]["__call__"][0]
        cell = f"stage{stage}_cell0"
        nodes = [x, 0, 0, 0]
        for edge, (node, source) in enumerate(EDGES):
            z, w = nodes[source], mask[edge]
            out = w[1] * z
            for index, size in ((2, 1), (3, 3)):
                add(z)  # the wrapper sees the true input
                inner = z if w[index] != 0 else jnp.zeros_like(z)
                add(inner)
                name = f"{node}_{source}_{OPS[index]}_conv"
                out += w[index] * conv((cell, name), jnp.maximum(inner, 0), size)
            pooled = np.zeros_like(z)
            padded = np.pad(z, ((0, 0), (1, 1), (1, 1), (0, 0)))
            ones = np.pad(np.ones_like(z), ((0, 0), (1, 1), (1, 1), (0, 0)))
            count = np.zeros_like(z)
            h = z.shape[1]
            for i in range(3):
                for j in range(3):
                    pooled += padded[:, i : i + h, j : j + h]
                    count += ones[:, i : i + h, j : j + h]
            nodes[node] = nodes[node] + out + w[4] * pooled / count
        if stage < 2:
            add(nodes[3])
            add(nodes[3])
            y = outputs[f"reduction{stage}"]["norm_a"]["__call__"][0]
            add(y)
            add(y)
    add(outputs["last_norm"]["__call__"][0])
    return np.linalg.slogdet(total)[1]


def test_nwot_counts_as_the_published_hooks_do():
    space, net, variables = helpers.tiny_supernet()
    data = helpers.batch()
    masks = helpers.all_removals(space)["cell"][[0, 3, 12]]
    masks = np.concatenate([masks, space.masks_of(MIXED)["cell"][None]])
    scores = score_masks(nwot, net.apply, variables, data, {"cell": masks})
    expected = [slow_nwot(space, variables, data, mask) for mask in masks]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_fresh_variables_have_the_distribution_of_module_init():
    space, net, drawn = helpers.tiny_supernet()
    images = jnp.zeros((1, 16, 16, 3))
    own = net.init(jax.random.key(0), images)
    chex.assert_trees_all_equal_shapes_and_dtypes(drawn, own)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(drawn), jax.tree.leaves(own), strict=True
    ):
        name = jax.tree_util.keystr(path)
        if "kernel" in name:
            bound = np.prod(a.shape[:-1]) ** -0.5
            for leaf in (a, b):
                assert 0.8 * bound < np.abs(leaf).max() <= bound, name
            if a.size > 100:
                np.testing.assert_allclose(a.std(), bound / 3**0.5, rtol=0.15)
        elif "classifier" not in name:
            np.testing.assert_array_equal(a, b, err_msg=name)
    again = space.init_variables(net, jax.random.key(0), (16, 16, 3))
    other = space.init_variables(net, jax.random.key(1), (16, 16, 3))
    kernel = lambda v: v["params"]["stem_conv"]["kernel"]  # noqa: E731
    np.testing.assert_array_equal(kernel(again), kernel(drawn))
    assert (kernel(other) != kernel(drawn)).all()


def test_genotypes_go_round():
    space = helpers.tiny_space()
    assert space.genotype(space.masks_of(MIXED)) == MIXED
    assert space.parse(f" {MIXED}\n") == MIXED


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "malformed"),
        (MIXED[:-1], "malformed"),
        (MIXED.replace("~1", "~0"), "malformed"),
        (MIXED + "+|none~0|", "malformed"),
        (MIXED.replace("none", "sep_conv_3x3"), "unknown operation 'sep_conv_3x3'"),
    ],
)
def test_malformed_genotypes_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        helpers.tiny_space().parse(text)


def test_wrong_masks_sizes_and_names_are_refused():
    space, net, variables = helpers.tiny_supernet()
    with pytest.raises(InputError, match=r"\[E, O\] = \[6, 5\], got \[5, 6\]"):
        net.apply(variables, jnp.zeros((1, 16, 16, 3)), {"cell": jnp.zeros((5, 6))})
    with pytest.raises(
        InputError, match="unknown space 'nasbench'; known: nasbench201"
    ):
        get_space("nasbench")
    with pytest.raises(InputError, match="has no option 'layers'; it has channels=16"):
        get_space("nasbench201", layers=3)
    with pytest.raises(InputError, match="channels must be a positive integer, got 0"):
        get_space("nasbench201", channels=0)
