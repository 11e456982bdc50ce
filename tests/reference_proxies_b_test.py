"""ZiCo, MeCo, AZ-NAS and sizes against slow re-computations; which layers count."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import helpers
from tests.own_space import SIZES as CHAIN_OPS
from tests.own_space import Chain
from zcpt_jax import masks as mask_algebra
from zcpt_jax.nn.capture import CutPoint, GlobalAverage, ReLU
from zcpt_jax.nn.size import count_flops, param_counts
from zcpt_jax.proxies._az_nas import (
    _fold,
    az_expressivity,
    az_progressivity,
    az_trainability,
)
from zcpt_jax.proxies._inputs import noise_images
from zcpt_jax.proxies._meco import meco
from zcpt_jax.proxies._reach import reach
from zcpt_jax.proxies._size import flops, params
from zcpt_jax.proxies._zico import zico
from zcpt_jax.spaces import get_space
from zcpt_jax.types import Batch, InputError

DATA = helpers.batch(size=6, image_size=8, classes=5)._replace(key=jax.random.key(3))
NET, VARIABLES, MASK = helpers.plain_net(DATA)
NOISE = noise_images(DATA, 32)
IMAGE = DATA.images.shape[1:]
WITHOUT = jnp.array([0.5, 0.0])


def az_nas(*args):
    parts = (az_expressivity, az_progressivity, az_trainability)
    return jnp.stack([part(*args) for part in parts])


@functools.cache
def compiled(fn, net):
    return jax.jit(lambda v, b, m: fn(net.apply, v, b, m))


def score(fn, mask=MASK, data=DATA, variables=VARIABLES, net=NET):
    return float(compiled(fn, net)(variables, data, mask))


def az_scores(mask=MASK, data=DATA, variables=VARIABLES, net=NET):
    return np.asarray(compiled(az_nas, net)(variables, data, mask))


def conv(kernel, x, stride=1):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def batch_norm(x):
    mean, var = x.mean((0, 1, 2), keepdims=True), x.var((0, 1, 2), keepdims=True)
    return (x - mean) / jnp.sqrt(var + 1e-5)


# ZiCo


@jax.jit
def gradients(images, labels, mask):
    def loss(params):
        variables = {**VARIABLES, "params": params}
        logits, _ = NET.apply(variables, images, mask, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    grads = jax.grad(loss)(VARIABLES["params"])
    return {name: g["kernel"].ravel() for name, g in grads.items() if "kernel" in g}


def zico_terms(mask):
    first = gradients(DATA.images[:3], DATA.labels[:3], mask)
    second = gradients(DATA.images[3:], DATA.labels[3:], mask)
    terms = {}
    for layer in first:
        ratios = []
        for pair in zip(first[layer], second[layer], strict=True):
            g = np.array(pair, np.float64)
            if g.std() > 0:
                ratios.append(np.abs(g).mean() / g.std())
        terms[layer] = np.log(np.sum(ratios)) if ratios else 0.0
    return terms


def test_zico_is_its_definition_weight_by_weight():
    """Conv_2, switched off, has no gradient."""
    terms = zico_terms(MASK)
    np.testing.assert_allclose(score(zico), sum(terms.values()), rtol=1e-3)
    without = zico_terms(WITHOUT)
    assert without["Conv_2"] == 0 < terms["Conv_2"]
    np.testing.assert_allclose(score(zico, WITHOUT), sum(without.values()), rtol=1e-3)


def test_zico_depends_on_the_halves_and_not_on_the_order_within():
    def turned(order):
        return DATA._replace(images=DATA.images[order], labels=DATA.labels[order])

    base = score(zico)
    for order in ([2, 0, 1, 4, 5, 3], [3, 4, 5, 0, 1, 2]):
        np.testing.assert_allclose(score(zico, data=turned(order)), base, rtol=1e-3)
    assert abs(score(zico, data=turned([0, 1, 5, 3, 4, 2])) - base) > 0.05
    with pytest.raises(InputError, match="2 or more images"):
        zico(NET.apply, VARIABLES, turned([0]), MASK)


# MeCo


def test_meco_is_its_definition_layer_by_layer():
    kernels = {n: p["kernel"] for n, p in VARIABLES["params"].items() if "kernel" in p}
    image = jax.random.normal(DATA.key, (1, 8, 8, 3))
    first = conv(kernels["Conv_0"], image)
    x = batch_norm(first)
    maps = [first, conv(kernels["Conv_1"], x), conv(kernels["Conv_2"], x)]
    smallest = []
    for one in maps:
        channels = np.asarray(one[0], np.float64).reshape(64, 6).T
        smallest.append(np.linalg.eigvals(np.corrcoef(channels)).real.min())
    assert min(smallest) > 1e-3
    np.testing.assert_allclose(score(meco), sum(smallest), rtol=1e-4)
    np.testing.assert_allclose(score(meco, WITHOUT), sum(smallest[:2]), rtol=1e-4)


def test_meco_of_a_constant_channel_is_zero():
    """Each layer then has an eigenvalue of zero."""
    dead = jax.tree.map(lambda leaf: leaf.at[..., 0].set(0), VARIABLES["params"])
    value = score(meco, variables={**VARIABLES, "params": dead})
    np.testing.assert_allclose(value, 0, atol=1e-5)


def test_meco_refuses_images_too_small_for_it():
    tiny = Batch(DATA.images[:, :2, :2], DATA.labels)
    with pytest.raises(InputError, match="none for images of 2x2"):
        meco(NET.apply, VARIABLES, tiny, MASK)


# AZ-NAS


class Marked(nn.Module):
    """Three blocks: a stem, one that may be the identity, and one of half resolution.

    The last reads the stem too, which is not the block before it.
    """

    @nn.compact
    def __call__(self, x, mask):
        def conv_bn(x, channels, name, stride=1):
            layer = nn.Conv(channels, (3, 3), stride, use_bias=False, name=name)
            norm = nn.BatchNorm(use_running_average=False, name=f"{name}_norm")
            return norm(layer(x))

        stem = conv_bn(x, 4, "stem")
        (first,) = CutPoint()(stem)
        second = mask[0] * first + mask[1] * conv_bn(ReLU()(first), 4, "middle")
        first, second = CutPoint(newest=1)(first, second)
        last = conv_bn(ReLU()(second), 6, "last", 2) + conv_bn(first, 6, "skip", 2)
        return nn.Dense(5)(GlobalAverage()(last))


MARKED = Marked()
MARKED_VARIABLES = MARKED.init(jax.random.key(2), jnp.asarray(DATA.images), MASK)


@jax.jit
def marked_blocks(mask):
    """Outputs of the blocks, and what :func:`pulled_back` gives for each but the first.

    From the definition of the network, a block at a time.
    """
    kernels = {n: p.get("kernel") for n, p in MARKED_VARIABLES["params"].items()}
    stem = batch_norm(conv(kernels["stem"], NOISE))

    def middle(x):
        return mask[0] * x + mask[1] * batch_norm(conv(kernels["middle"], nn.relu(x)))

    def last(x):
        read = batch_norm(conv(kernels["last"], nn.relu(x), 2))
        return read + batch_norm(conv(kernels["skip"], stem, 2))

    second = middle(stem)
    pulled = [pulled_back(middle, stem, 1), pulled_back(last, second, 2)]
    return [stem, second, last(second)], pulled


def entropy(x):
    rows = np.asarray(x, np.float64).reshape(-1, x.shape[-1])
    rows = rows - rows.mean(0, keepdims=True)
    values = np.linalg.svd(rows, compute_uv=False) ** 2
    share = values / values.sum()
    return -(share * np.log(share)).sum()


def pulled_back(block, x, number):
    """Random signs at the output of a block, and the gradient at its input."""
    out, pull = jax.vjp(block, x)
    key = jax.random.fold_in(DATA.key, number)
    signs = jax.random.rademacher(key, out.shape, jnp.float32)
    return signs, pull(signs)[0]


def trainability(signs, gradient):
    """From the mean over images and positions of g v^T, one at a time."""
    v, g = np.asarray(signs, np.float64), np.asarray(gradient, np.float64)
    step = g.shape[1] // v.shape[1]
    products = []
    for image in range(v.shape[0]):
        for i in range(v.shape[1]):
            for j in range(v.shape[2]):
                rows = slice(i * step, (i + 1) * step)
                columns = slice(j * step, (j + 1) * step)
                patch = g[image, rows, columns].ravel()
                products.append(np.outer(patch, v[image, i, j]))
    s = np.linalg.norm(np.mean(products, axis=0), 2)
    return 2 - s - 1 / s


def test_az_nas_is_its_definition_block_by_block():
    mask = jnp.array([0.3, 0.7])
    features, pulled = marked_blocks(mask)
    entropies = [entropy(x) for x in features]
    scores = [trainability(*one) for one in pulled]
    expected = [sum(entropies), min(np.diff(entropies)), np.mean(scores)]
    found = az_scores(mask, DATA, MARKED_VARIABLES, MARKED)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_az_nas_of_blocks_that_are_the_identity_or_nothing():
    run = functools.partial(az_scores, variables=MARKED_VARIABLES, net=MARKED)
    same, nothing = jnp.array([1.0, 0.0]), jnp.array([0.0, 0.0])
    stem, _, last = (entropy(x) for x in marked_blocks(same)[0])
    expressivity, progressivity, trainable = run(same)
    np.testing.assert_allclose(expressivity, 2 * stem + last, rtol=1e-4)
    np.testing.assert_allclose(progressivity, min(0, last - stem), atol=1e-5)
    np.testing.assert_allclose(trainable, -5e5, rtol=0.01)
    expressivity, progressivity, trainable = run(nothing)
    assert expressivity < stem + last
    np.testing.assert_allclose(progressivity, -stem, rtol=1e-4)
    np.testing.assert_allclose(trainable, -1e6, rtol=0.01)


@jax.jit
def layers_as_blocks():
    kernels = {n: p.get("kernel") for n, p in VARIABLES["params"].items()}
    first = conv(kernels["Conv_0"], NOISE)
    blocks = [
        lambda x, name=name: conv(kernels[name], batch_norm(x))
        for name in ("Conv_1", "Conv_2")
    ]
    pulled = [pulled_back(block, first, n) for n, block in enumerate(blocks, 1)]
    return [first, *(block(first) for block in blocks)], pulled


@pytest.mark.slow
def test_az_nas_without_marks_takes_layers_for_blocks():
    features, pulled = layers_as_blocks()
    entropies = [entropy(x) for x in features]
    scores = [trainability(*one) for one in pulled]
    expected = [sum(entropies), min(entropies[1:]) - entropies[0], np.mean(scores)]
    np.testing.assert_allclose(az_scores(), expected, rtol=1e-4, atol=1e-5)
    expected = [sum(entropies[:2]), entropies[1] - entropies[0], scores[0]]
    np.testing.assert_allclose(az_scores(WITHOUT), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size, out, first", [(8, 4, 0), (8, 5, -1), (8, 6, 1)])
def test_gradients_are_matched_to_the_positions_of_the_next_block(size, out, first):
    """Halved; by pooling that pads a pixel, as NAS-Bench-1Shot1's; by VALID."""
    grads = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    step = round(size / out)
    padded = np.pad(grads, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = []
    for image in padded:
        for i in range(out):
            for j in range(out):
                top, left = 1 + first + i * step, 1 + first + j * step
                rows.append(image[top : top + step, left : left + step].ravel())
    np.testing.assert_array_equal(_fold(jnp.asarray(grads), (2, out, out, 7)), rows)


@pytest.mark.parametrize("fn", [meco, az_nas])
def test_the_key_of_the_batch_is_what_is_drawn_from(fn):
    def run(data):
        return compiled(fn, NET)(VARIABLES, data, MASK)

    base = run(DATA)
    np.testing.assert_array_equal(run(DATA._replace(images=DATA.images + 1)), base)
    assert (run(DATA._replace(key=jax.random.key(4))) != base).all()


class Layers(nn.Module):
    kinds: tuple[type, ...] = ()

    @nn.compact
    def __call__(self, x, mask):
        for kind in self.kinds:
            x = kind(2, (3, 3), (2, 2))(x)
        return nn.Dense(5)(x.mean((1, 2)))


@pytest.mark.parametrize(
    "fn, net, message",
    [
        (az_expressivity, Layers(), "no layer of this network gives one"),
        (
            az_progressivity,
            Layers((nn.Conv,)),
            "az_progressivity compares successive blocks",
        ),
        (
            az_trainability,
            Layers((nn.Conv,)),
            "az_trainability compares successive blocks",
        ),
        (
            az_trainability,
            Layers((nn.Conv, nn.ConvTranspose)),
            "here 4x4 is followed by 8x8",
        ),
    ],
)
def test_az_nas_says_what_it_cannot_score(fn, net, message):
    variables = net.init(jax.random.key(0), jnp.asarray(DATA.images), None)
    with pytest.raises(InputError, match=message):
        jax.eval_shape(lambda: fn(net.apply, variables, DATA, None))


# Layers that are part of the network


class Maze(nn.Module):
    """What makes it hard to see which layers reach the output."""

    @nn.compact
    def __call__(self, x, mask):
        x = nn.Conv(4, (3, 3), name="stem")(x)
        a = nn.relu6(nn.Conv(4, (1, 1), name="a1")(x))
        a = nn.Conv(4, (3, 3), name="a2")(a)
        b = nn.Conv(4, (1, 1), name="b", use_bias=False)(x)
        x = nn.relu6(nn.LayerNorm()(mask[0] * a + mask[1] * b))
        c = nn.Conv(4, (1, 1), name="c", use_bias=False)(mask[2] * x)
        return nn.Dense(5, name="last")((x + mask[3] * c).mean((1, 2)))


def test_layers_count_that_are_on_a_path_of_nonzero_weight():
    """With weights that saturate a ReLU6, and others that are zero."""
    net = Maze()
    variables = net.init(jax.random.key(0), jnp.asarray(DATA.images), jnp.ones(4))
    weights = variables["params"]
    for name, factor in (("stem", 1000), ("a1", 1000), ("a2", 1000), ("b", 0)):
        weights[name]["kernel"] *= factor
    masks = {
        (1, 1, 1, 1): {"stem", "a1", "a2", "b", "c", "last"},
        (0, 1, 1, 1): {"stem", "b", "c", "last"},
        (1, 0, 1, 1): {"stem", "a1", "a2", "c", "last"},
        (1, 1, 0, 1): {"stem", "a1", "a2", "b", "last"},
        (1, 1, 1, 0): {"stem", "a1", "a2", "b", "last"},
    }
    run = jax.jit(jax.vmap(lambda m: reach(net.apply, {"params": weights}, DATA, m)))
    found = run(jnp.array(list(masks), jnp.float32))
    for row, expected in enumerate(masks.values()):
        assert {path[0] for path, on in found.items() if on[row]} == expected


SIZES = {
    "nasbench201": (
        helpers.tiny_space(),
        [
            "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|"
            "+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|",
            "|none~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|",
        ],
    ),
    "chain": (Chain(layers=2), ["conv3x3 conv1x1", "skip skip"]),
    "nasbench_macro": (
        get_space("nasbench_macro", channels=2),
        ["22212220", "10201120"],
    ),
}


@functools.cache
def sizes(name):
    """Parameters and multiply-adds of one-hot masks of a supernet, whatever weights."""
    space, _ = SIZES[name]
    net = space.supernet(10)
    shapes = jax.eval_shape(lambda key: net.init(key, DATA.images), jax.random.key(0))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    run = jax.jit(
        lambda v, m: jnp.stack([f(net.apply, v, DATA, m) for f in (params, flops)])
    )
    return lambda genotype: run(variables, one_hot(space, genotype))


def one_hot(space, genotype):
    if space.name != "chain":
        return jax.tree.map(jnp.asarray, space.masks_of(genotype))
    ops = [list(CHAIN_OPS).index(op) for op in genotype.split()]
    return {"layers": jnp.asarray(mask_algebra.one_hot(np.array(ops), len(CHAIN_OPS)))}


def counts(space, genotype):
    net = space.network(genotype, 10)
    sizes = param_counts(net, IMAGE)
    weights = sum(size for path, size in sizes.items() if path[-1] == "kernel")
    return [weights, count_flops(net, IMAGE)]


@pytest.mark.parametrize(
    "name",
    ["nasbench201", "chain", pytest.param("nasbench_macro", marks=pytest.mark.slow)],
)
def test_sizes_of_one_hot_masks_are_those_of_the_network(name):
    space, genotypes = SIZES[name]
    for genotype in genotypes:
        np.testing.assert_array_equal(sizes(name)(genotype), counts(space, genotype))


def test_sizes_leave_out_operations_that_lead_nowhere():
    """The same network but for a convolution into a node that nobody reads."""
    space, genotypes = SIZES["nasbench201"]
    stray = genotypes[1].replace("|none~0|+", "|nor_conv_3x3~0|+")
    run = sizes("nasbench201")
    np.testing.assert_array_equal(run(stray), run(genotypes[1]))
    assert count_flops(space.network(stray, 10), IMAGE) > run(stray)[1]
