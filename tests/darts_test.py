import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import helpers
from tests.darts_genotype_test import DARTS_V2, random_genotype
from zcpt_jax.lowering import CPU, GPU, using
from zcpt_jax.nn import capture, layers
from zcpt_jax.nn.size import count_params
from zcpt_jax.proxies import nwot
from zcpt_jax.scoring.scorer import Scorer
from zcpt_jax.spaces import get_space
from zcpt_jax.spaces._darts import Darts, DartsS2, DartsS4
from zcpt_jax.spaces._darts_ops import Reduce
from zcpt_jax.types import NOISE, Batch, InputError

CIFAR, IMAGENET = (32, 32, 3), (224, 224, 3)
SMALL = {"channels": 4, "cells": 3}
IMAGE = (16, 16, 3)


# Parameters


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("darts", 1_930_618),
        ("darts_s1", 405_146),
        ("darts_s2", 665_466),
        ("darts_s3", 665_466),
        ("darts_s4", 624_506),
    ],
)
def test_published_supernets_have_as_many_parameters(name, expected):
    assert count_params(get_space(name).supernet(10), CIFAR) == expected


def test_published_imagenet_supernet_has_as_many_parameters():
    space = Darts(stem="imagenet")
    assert count_params(space.supernet(1000), IMAGENET) == 2_215_648


@pytest.mark.parametrize(
    ("options", "classes", "image", "expected"),
    [
        ({"channels": 36, "cells": 20}, 10, CIFAR, 3_349_342),
        (
            {"channels": 48, "cells": 14, "stem": "imagenet"},
            1000,
            IMAGENET,
            4_718_752,
        ),
    ],
)
def test_the_published_network_of_darts_has_as_many_parameters(
    options, classes, image, expected
):
    space = Darts(**options)
    assert count_params(space.network(space.parse(DARTS_V2), classes), image) == (
        expected
    )


# Networks


def fresh(space, module, seed=0, shape=IMAGE):
    return space.init_variables(module, jax.random.key(seed), shape)


def compiled(fn, *args):
    """``fn`` for arguments of these shapes, compiled in half the time."""
    with using(helpers.QUICK_TO_COMPILE):
        lowered = jax.jit(fn).lower(*args)
    return lowered.compile(compiler_options={"xla_backend_optimization_level": 0})


def copy_kernels(space, genotype, supernet_variables, network_variables):
    """The network's variables with the supernet's kernels in them."""
    masks = space.masks_of(genotype)
    theirs, copied = capture.kernels(supernet_variables), {}
    for path in capture.kernels(network_variables):
        owners = space.owner(path)
        source = path
        if owners is not None:
            kept = [i for i, (g, entry) in enumerate(owners) if masks[g][entry]]
            source = (*path[:-1], str(kept[int(path[-1])]))
        copied[path] = theirs[source]
    variables = capture.with_kernels(network_variables, copied)
    params = {**variables["params"]}
    params["classifier"] = supernet_variables["params"]["classifier"]
    return {**variables, "params": params}


DISCRETE = {
    "darts_s1": (
        [("dil_conv_3x3", 0), ("dil_conv_5x5", 1), ("skip_connect", 0)]
        + [("sep_conv_3x3", 1), ("max_pool_3x3", 0), ("sep_conv_3x3", 1)]
        + [("skip_connect", 1), ("dil_conv_5x5", 4)],
        [("avg_pool_3x3", 0), ("dil_conv_3x3", 1), ("max_pool_3x3", 0)]
        + [("skip_connect", 2), ("sep_conv_3x3", 1), ("dil_conv_5x5", 3)]
        + [("avg_pool_3x3", 1), ("skip_connect", 4)],
    ),
    "darts_s3": (
        [("none", 0), ("sep_conv_3x3", 1), ("none", 1), ("skip_connect", 2)]
        + [("sep_conv_3x3", 0), ("none", 3), ("none", 0), ("none", 4)],
        [("none", 0), ("none", 1), ("sep_conv_3x3", 0), ("skip_connect", 1)]
        + [("skip_connect", 2), ("none", 3), ("sep_conv_3x3", 2), ("none", 4)],
    ),
}


@pytest.mark.parametrize("name", DISCRETE)
def test_one_hot_masks_are_the_discrete_network(name):
    """Only the supernet has a BatchNorm after pools, which changes them by 5e-6."""
    space = get_space(name, **SMALL)
    normal, reduce = DISCRETE[name]
    genotype = space.parse(f"Genotype({normal}, range(2, 6), {reduce}, range(2, 6))")
    network, supernet = space.network(genotype, 5), space.supernet(5)
    theirs = fresh(space, supernet)
    # As drawn, signals fade from layer to layer and nothing would be compared.
    louder = {path: 3 * kernel for path, kernel in capture.kernels(theirs).items()}
    theirs = capture.with_kernels(theirs, louder)
    own = copy_kernels(space, genotype, theirs, fresh(space, network, 1))
    images = jnp.asarray(helpers.batch(4).images)
    args = (theirs, images, space.masks_of(genotype))
    expected = compiled(supernet.apply, *args)(*args)
    logits = compiled(network.apply, own, images)(own, images)
    assert np.ptp(expected, axis=0).min() > 0.01
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_none_is_kept_in_genotypes_and_costs_nothing():
    space = get_space("darts_s3", **SMALL)
    normal, reduce = DISCRETE["darts_s3"]
    genotype = space.parse(f"Genotype({normal}, range(2, 6), {reduce}, range(2, 6))")
    assert json.loads(genotype)["normal"][0] == ["none", 0]
    assert space.genotype(space.masks_of(genotype)) == genotype
    assert space.masks_of(genotype)["normal"][0].tolist() == [1, 0, 0]
    # Where a node reads nothing makes no difference.
    elsewhere = [*normal[:5], ("none", 2), ("none", 1), ("none", 2)]
    other = f"Genotype({elsewhere}, range(2, 6), {reduce}, range(2, 6))"
    assert space.parse(other) != genotype
    counts = [
        count_params(space.network(text, 5), IMAGE)
        for text in (genotype, other, genotype.replace("none", "skip_connect"))
    ]
    assert counts[0] == counts[1] < counts[2]  # skips of stride 2 have weights


TINY = (8, 8, 3)


@pytest.fixture(scope="module")
def noisy():
    """An S4 supernet of one reduction cell."""
    space = DartsS4(channels=4, cells=1)
    net = space.supernet(5)
    return space, net, fresh(space, net, shape=TINY)


def test_noise_needs_a_key(noisy):
    space, net, variables = noisy
    data = helpers.batch(2, 8)
    images = jnp.asarray(data.images)
    with pytest.raises(
        InputError, match=r"give it a key, rngs=.*Batch\(images, labels"
    ):
        jax.eval_shape(net.apply, variables, images, space.init_masks())
    scorer = Scorer(nwot, net.apply)
    stack = {g: m[None] for g, m in space.init_masks().items()}
    with pytest.raises(InputError, match="this network draws noise"):
        scorer(variables, data, stack)
    genotype, masks = random_genotype(space, 0)
    assert masks["reduce"][:, 0].any()
    for text, refused in ((genotype, True), (genotype.replace("noise", _SEP), False)):
        network = space.network(text, 5)
        own = fresh(space, network, shape=TINY)
        if refused:
            with pytest.raises(InputError, match="this network draws noise"):
                jax.eval_shape(network.apply, own, images)
        else:
            assert jax.eval_shape(network.apply, own, images).shape == (2, 5)


_SEP = "sep_conv_3x3"


def test_noise_is_a_function_of_its_key(noisy):
    space, net, variables = noisy
    images, masks = jnp.asarray(helpers.batch(2, 8).images), space.init_masks()
    only = {g: np.zeros_like(m) for g, m in masks.items()}
    for weights in only.values():
        weights[:, 0] = 1  # noise everywhere
    first, other = jax.random.key(1), jax.random.key(2)
    logits = compiled(
        lambda images, masks, key: net.apply(
            variables, images, masks, rngs={NOISE: key}
        ),
        *(images, masks, first),
    )
    once = logits(images, masks, first)
    np.testing.assert_array_equal(once, logits(images, masks, first))
    assert np.abs(once - logits(images, masks, other)).max() > 1e-3
    assert np.abs(once - logits(images + 1, masks, first)).max() > 1e-6
    # Noise does not read its input: with nothing else the images do not matter, and
    # each image and each edge has noise of its own.
    alone = logits(images, only, first)
    np.testing.assert_array_equal(alone, logits(images + 1, only, first))
    assert np.abs(alone[0] - alone[1]).max() > 1e-3
    moved = {g: m.copy() for g, m in only.items()}
    moved["reduce"][:2, 0] = (0, 2)
    assert np.abs(alone - logits(images, moved, first)).max() > 1e-3


def test_noise_is_standard_normal(noisy):
    """The classifier reads the mean of a node over its pixels."""
    space, net, variables = noisy
    images, masks = jnp.zeros((64, *TINY)), space.init_masks()
    masks = {g: np.zeros_like(m) for g, m in masks.items()}
    masks["reduce"][[0, 2, 5, 9], 0] = 1  # one edge of noise at each node
    read = {**variables["params"]}
    read["classifier"] = {
        "linear": {"kernel": jnp.eye(32)[:, ::7], "bias": jnp.zeros(5)}
    }
    args = ({**variables, "params": read}, images, masks, jax.random.key(0))
    run = compiled(
        lambda v, x, m, key: net.apply(v, x, m, rngs={NOISE: key}),
        *args,
    )
    means = np.asarray(run(*args))  # each of 4 x 4 pixels
    assert means.std() * 4 == pytest.approx(1, abs=0.15)
    assert abs(means.mean()) < 0.06


def test_noise_is_scored_with_the_key_of_the_batch(noisy):
    space, net, variables = noisy
    data = helpers.batch(4, 8)
    stack = {g: np.stack([m] * 2) for g, m in space.init_masks().items()}
    stack["reduce"][1, 3, 1] = 0
    scorer = Scorer(nwot, net.apply, form=GPU.replace(loops=False, chunk=2))
    scores = [
        scorer(variables, Batch(data.images, data.labels, key), stack)
        for key in map(jax.random.key, (1, 1, 2))
    ]
    assert scorer.compilations == 1 and np.isfinite(scores).all()
    np.testing.assert_array_equal(scores[0], scores[1])
    assert (scores[0] != scores[2]).all()


def test_masks_of_one_minibatch_are_scored_under_the_same_noise():
    def draw(variables, images, masks, rngs):
        return variables + masks + jax.random.normal(rngs[NOISE], images.shape[:1])

    def score(apply_fn, variables, batch, masks):
        return apply_fn(variables, batch.images, masks).sum()

    keys = jnp.stack([jax.random.key(k) for k in (1, 2)])
    batches = Batch(np.zeros((2, 3, 4)), np.zeros((2, 3), np.int32), keys)
    which = np.array([0, 1, 1, 0, 0])
    found = Scorer(score, draw, form=CPU.replace(chunk=2))(
        np.float32(5), batches, np.zeros((5, 1), np.float32), which
    )
    expected = [15 + jax.random.normal(key, (3,)).sum() for key in keys[which]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found[0] != found[1]


def test_images_and_masks_of_a_wrong_shape_are_refused():
    space = DartsS2(**SMALL)
    masks = space.init_masks()
    for stem, size, message in (
        ("cifar", (30, 30), "the CIFAR stem needs .* divisible by 4, got 30x30"),
        ("cifar", (32, 18), "divisible by 4, got 32x18"),
        ("imagenet", (48, 64), "ImageNet stem needs .* divisible by 32, got 48x64"),
    ):
        net = DartsS2(stem=stem, **SMALL).supernet(5)
        with pytest.raises(InputError, match=message):
            jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, *size, 3)))
    net, images = space.supernet(5), jnp.zeros((1, *IMAGE))
    variables = jax.eval_shape(net.init, jax.random.key(0), images)
    wrong = {**masks, "reduce": jnp.zeros((14, 3))}
    with pytest.raises(InputError, match=r"'reduce' must .* \[14, 2\], got \[14, 3\]"):
        jax.eval_shape(net.apply, variables, images, wrong)
    for options, message in (
        ({"stem": "mnist"}, "stem must be one of cifar, imagenet, got 'mnist'"),
        ({"topology": "both"}, "topology must be one of one_by_one, published"),
        ({"cells": 0}, "cells must be a positive integer, got 0"),
    ):
        with pytest.raises(InputError, match=message):
            get_space("darts", **options)


def test_skips_of_stride_two_are_factorized_reductions_side_by_side():
    x = np.random.default_rng(0).normal(size=(2, 6, 4, 8)).astype(np.float32)
    stack, one = Reduce(3, affine=True), layers.FactorizedReduce(8, affine=True)
    variables = stack.init(jax.random.key(0), x, jnp.ones(3))
    out = stack.apply(variables, x, jnp.ones(3))
    single = one.init(jax.random.key(1), x)
    names = [("conv_1",), ("conv_2",)]
    for index in range(3):
        kernels = capture.kernels(variables)
        slices = {name: kernels[(*name, str(index))] for name in names}
        expected = one.apply(capture.with_kernels(single, slices), x)
        np.testing.assert_allclose(out[index], expected, rtol=1e-5, atol=1e-6)
