"""Proxies over kernels, patterns, noise and labels against slow re-computations."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from tests import helpers
from zcpt_jax.nn import capture, layers
from zcpt_jax.proxies import _ntk, _patterns
from zcpt_jax.proxies._epe_nas import EPE_NAS, epe_nas
from zcpt_jax.proxies._inputs import noise_images
from zcpt_jax.proxies._ntk import NTK_COND, NTK_TRACE, ntk_cond, ntk_trace
from zcpt_jax.proxies._patterns import LINEAR_REGIONS, SWAP, linear_regions, swap
from zcpt_jax.proxies._zen import ZEN, zen
from zcpt_jax.scoring.scorer import Scorer
from zcpt_jax.types import Batch, InputError

DATA = helpers.batch(size=6, image_size=8, classes=3)
NET, VARIABLES, MASK = helpers.plain_net(DATA)
ALL = (NTK_COND, NTK_TRACE, LINEAR_REGIONS, SWAP, ZEN, EPE_NAS)


def apply(variables, images, mask, rngs=None):
    return NET.apply(variables, images, mask)


def jitted(fn, *args, apply_fn=apply):
    return float(jax.jit(lambda *a: fn(apply_fn, *a))(*args))


def logits_of(params, images, net=NET):
    """With BatchNorm on the statistics of the batch, by Flax."""
    variables = {**VARIABLES, "params": params}
    return net.apply(variables, images, MASK, mutable=["batch_stats"])[0]


def smooth_images(size=6, side=6):
    """Of so little variety that crops share regions."""
    y, x = np.mgrid[:side, :side] / side
    rng = np.random.default_rng(3)
    a, b, c = rng.integers(-1, 2, size=(3, size, 1, 1, 3))
    images = a + 0.5 * b * x[None, ..., None] + 0.5 * c * y[None, ..., None]
    return images.astype(np.float32)


def conv(number, x, params=VARIABLES["params"]):
    kernel = params[f"Conv_{number}"]["kernel"]
    kernel = kernel.sum(axis=2, keepdims=True) if x.shape[-1] == 1 else kernel
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def relu_inputs(x):
    """The three ReLUs of the plain network, from the output of its BatchNorm."""
    a, b = conv(1, x), conv(2, x)
    return a, b, MASK[0] * nn.relu(a) + MASK[1] * nn.relu6(b)


def batch_normalised(x):
    centred = x - x.mean((0, 1, 2), keepdims=True)
    var = jnp.square(centred).mean((0, 1, 2), keepdims=True)
    return centred / jnp.sqrt(var + 1e-5)


@pytest.mark.parametrize("proxy", ALL, ids=lambda p: p.name)
def test_fused_calls_see_masks_and_not_the_order_of_images(proxy):
    # Few images have so few patterns that units of any network show them all.
    data = helpers.batch(size=10, image_size=8, classes=3)
    scorer = Scorer(proxy.score, apply)
    masks = np.array([[0.5, 0.5], [0.5, 0.0]], np.float32)
    scores = scorer(VARIABLES, data, masks)
    assert np.isfinite(scores).all()
    order = np.random.default_rng(0).permutation(10)
    turned = Batch(data.images[order], data.labels[order])
    again = scorer(VARIABLES, turned, masks)
    np.testing.assert_allclose(again, scores, rtol=1e-4)
    # The ReLU of a plain network does not know that its output is multiplied by zero,
    # and one that sees a sum of positive numbers adds no region.
    assert (scores[0] != scores[1]) == (proxy is not LINEAR_REGIONS)


def jacobian():
    """Gradients of each image's summed logits, one image at a time."""
    gradient = jax.jit(jax.grad(lambda p, i: logits_of(p, DATA.images)[i].sum()))
    rows = []
    for i in range(len(DATA.images)):
        flat = traverse_util.flatten_dict(gradient(VARIABLES["params"], i))
        weights = [np.ravel(g) for p, g in flat.items() if p[-1] != "bias"]
        assert len(weights) == 5  # three convolutions, a linear layer, BatchNorm
        rows.append(np.concatenate(weights))
    return np.stack(rows).astype(np.float64)


def test_ntk_is_that_of_gradients_one_image_at_a_time(monkeypatch):
    rows = jacobian()
    values = np.linalg.eigvalsh(rows @ rows.T)
    monkeypatch.setattr(_ntk, "_SLICE", 4)
    for backend in ("cpu", "gpu"):  # slices side by side, and a loop
        monkeypatch.setattr(jax, "default_backend", lambda name=backend: name)
        found = jax.jit(lambda *a: [fn(apply, *a) for fn in (ntk_cond, ntk_trace)])
        condition, trace = found(VARIABLES, DATA, MASK)
        np.testing.assert_allclose(condition, values[-1] / values[0], rtol=1e-4)
        np.testing.assert_allclose(trace, (rows**2).sum(), rtol=1e-5)


def test_a_singular_kernel_has_an_infinite_condition():
    twice = DATA.images[[0, 1, 2, 3, 4, 4]]
    assert jitted(ntk_cond, VARIABLES, Batch(twice, DATA.labels), MASK) == np.inf


def test_ntk_takes_apart_stacks_of_kernels():
    """E kernels in one parameter count as E layers do."""

    class Stacked(nn.Module):
        @nn.compact
        def __call__(self, x, masks):
            kernels = self.param("kernels", nn.initializers.normal(), (2, 4, 3))
            return jnp.tanh(x @ kernels[0]) + x @ kernels[1]

    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    variables = Stacked().init(jax.random.key(0), x, None)
    slope = 1 - np.tanh(x @ variables["params"]["kernels"][0]) ** 2
    rows = [
        [np.outer(a, s), np.outer(a, np.ones(3))] for a, s in zip(x, slope, strict=True)
    ]
    expected = np.square(rows).sum()
    value = ntk_trace(Stacked().apply, variables, Batch(x, np.zeros(3)), None)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_linear_regions_is_the_count_with_a_one_channel_stem():
    images = smooth_images()
    crops = [
        image[top : top + 4, left : left + 4, channel, None]
        for image in images
        for top in range(3)
        for left in range(3)
        for channel in range(3)
    ]
    x = conv(0, jnp.stack(crops)) / np.sqrt(1 + 1e-5)
    signs = [np.reshape(z > 0, (len(crops), -1)) for z in relu_inputs(x)]
    expected = len(np.unique(np.concatenate(signs, axis=1), axis=0))
    assert 10 < expected < len(crops) / 2
    data = Batch(images, DATA.labels)
    assert jitted(linear_regions, VARIABLES, data, MASK) == expected


def test_linear_regions_sees_masks_that_relus_are_told():
    class Told(nn.Module):
        @nn.compact
        def __call__(self, x, mask):
            x = x[:, :2, :2].reshape(len(x), -1)
            outs = [capture.ReLU()(nn.Dense(3)(x), count=m != 0) for m in mask]
            return mask[0] * outs[0] + mask[1] * outs[1]

    both, one = np.ones(2, np.float32), np.array([1, 0], np.float32)
    variables = Told().init(jax.random.key(0), DATA.images, both)
    regions = jax.jit(lambda mask: linear_regions(Told().apply, variables, DATA, mask))
    assert 1 < regions(one) <= 2**3 < regions(both)


@pytest.mark.parametrize("count", [1, 2, 11, 3000])
def test_crops_lie_on_a_grid_within_the_image(count):
    places = _patterns._grid(29, 13, 3, count)
    assert len(set(zip(*places, strict=True))) == min(count, 29 * 13 * 3)
    for place, limit in zip(places, (29, 13, 3), strict=True):
        assert place.min() >= 0
        assert place.max() < limit
    if count > 10:
        assert {0, 28} <= set(places[0])
        assert set(places[2]) == {0, 1, 2}


@pytest.mark.parametrize("smallest", [8, 16])
def test_linear_regions_refuses_networks_of_large_images(smallest):
    class Picky(nn.Module):
        @nn.compact
        def __call__(self, x, masks):
            if x.shape[1] < smallest:
                raise InputError(f"no images below {smallest}")
            return nn.relu(x[:, 0, :, 0])

    data = helpers.batch(size=2, image_size=16)
    if smallest == 8:
        assert 1 <= linear_regions(Picky().apply, {}, data, None) <= 2 * 81 * 3
    else:
        with pytest.raises(InputError, match="use another proxy"):
            linear_regions(Picky().apply, {}, data, None)


def test_swap_counts_distinct_columns():
    data = helpers.batch(size=9, image_size=8, seed=1)
    x = batch_normalised(conv(0, jnp.asarray(data.images)))
    signs = [np.reshape(z > 0, (9, -1)) for z in relu_inputs(x)]
    expected = len(np.unique(np.concatenate(signs, axis=1), axis=1).T)
    assert 100 < expected < 500
    value = jitted(swap, VARIABLES, data, MASK)
    # A unit at zero can fall on either side.
    assert abs(value - expected) <= 2


class Counted(nn.Module):
    """A ReLU and a stack of two."""

    @nn.compact
    def __call__(self, x, live):
        capture.ReLU()(x[:, :2], live[0])
        return capture.ReLU()(jnp.stack([x[:, 2:4], x[:, 4:]]), live[1:]).sum((0, 2))


@pytest.mark.parametrize("live", [(1, 1, 1), (0, 1, 1), (1, 0, 2), (1, 1, 0)])
def test_patterns_leave_out_what_is_not_live(live):
    x = np.random.default_rng(1).normal(size=(5, 6)).astype(np.float32)
    kept = (x > 0)[:, np.repeat(np.array(live) > 0, 2)]
    live = np.array(live, np.float32)
    args = ("test", Counted().apply, {}, x, live)
    patterns = _patterns._patterns(*args, norm="batch")
    found = [active[:, np.asarray(counts)] for active, counts in patterns]
    np.testing.assert_array_equal(np.concatenate(found, axis=1), kept)
    value = swap(Counted().apply, {}, Batch(x, np.zeros(5)), live)
    assert value == len(np.unique(kept, axis=1).T)


def test_pattern_proxies_refuse_a_network_without_relu():
    data = helpers.batch(size=2, image_size=8)
    for fn in (swap, linear_regions):
        with pytest.raises(InputError, match=f"{fn.__name__} found no ReLU"):
            fn(lambda v, x, m: x.mean((1, 2)), {}, data, None)


def test_zen_is_the_definition_on_a_plain_network():
    """Of two convolutions and a linear layer, at unit scale, feature map by hand."""
    unit = jax.tree.map(lambda w: w / jnp.sqrt((w**2).mean()), VARIABLES["params"])
    noise = noise_images(DATA, 32)
    images, moved = noise[:16], noise[:16] + 0.01 * noise[16:]
    x = conv(0, images, unit)
    scale = 0.5 * np.log(np.mean(np.var(np.asarray(x), axis=(0, 1, 2))))

    @jax.jit
    def features(images):
        x = batch_normalised(conv(0, images, unit))
        a, b = nn.relu(conv(1, x, unit)), nn.relu6(conv(2, x, unit))
        return (0.5 * a + 0.5 * b).mean((1, 2)) @ unit["Dense_0"]["kernel"]

    distance = np.abs(features(moved) - features(images)).sum(axis=1).mean()
    value = jitted(zen, VARIABLES, DATA, MASK)
    np.testing.assert_allclose(value, np.log(distance) + scale, rtol=1e-4)


def test_zen_draws_from_the_key_and_ignores_the_scale_of_kernels():
    score = jax.jit(lambda v, key: zen(apply, v, DATA._replace(key=key), MASK))
    one, two = (score(VARIABLES, jax.random.key(seed)) for seed in (1, 2))
    assert one != two
    params = jax.tree.map(lambda w: w, VARIABLES["params"])
    params["Conv_1"] = {"kernel": 4 * params["Conv_1"]["kernel"]}
    scaled = score({**VARIABLES, "params": params}, jax.random.key(1))
    np.testing.assert_allclose(scaled, one, rtol=1e-5)


class Paths(nn.Module):
    """Convolutions side by side, normalised as a stack."""

    numbers: tuple[int, ...]

    @nn.compact
    def __call__(self, x, mask):
        x = nn.Conv(4, (3, 3), use_bias=False, name="stem")(x)
        outs = [
            nn.Conv(4, (1, 1), use_bias=False, name=f"{i}")(x) for i in self.numbers
        ]
        y = layers.batch_norm(affine=False, stack=True, name="norm")(jnp.stack(outs))
        y = (mask[:, None, None, None, None] * y).sum(0)
        return nn.Dense(3, name="last")(capture.GlobalAverage()(nn.relu(y)))


def test_zen_leaves_out_the_norm_of_what_is_removed():
    both, one = Paths((0, 1)), Paths((1,))
    variables = jax.jit(both.init)(jax.random.key(0), DATA.images, np.ones(2))
    alone = {**variables["params"]}
    del alone["0"]
    stats = jax.tree.map(lambda leaf: leaf[1:], variables["batch_stats"])
    alone = {"params": alone, "batch_stats": stats}
    expected = jitted(zen, alone, DATA, np.float32([0.5]), apply_fn=one.apply)
    score = jax.jit(lambda mask: zen(both.apply, variables, DATA, mask))
    np.testing.assert_allclose(score(np.float32([0, 0.5])), expected, rtol=1e-5)
    assert abs(score(np.float32([1e-6, 0.5])) - expected) > 0.1


def test_a_supernet_of_single_operations_has_the_patterns_of_the_discrete_network():
    """Its ReLU is gone where no convolution is left that reads the node."""
    cell = ("|nor_conv_3x3~0|", "|none~0|skip_connect~1|")
    genotype = "+".join((*cell, "|avg_pool_3x3~0|none~1|nor_conv_1x1~2|"))
    space, supernet, variables = helpers.tiny_supernet(image_size=8)
    network = space.network(genotype, 10)
    own = space.init_variables(network, jax.random.key(1), (8, 8, 3))
    shared = traverse_util.flatten_dict(dict(variables))
    own = {
        p: shared.get(p, w) for p, w in traverse_util.flatten_dict(dict(own)).items()
    }
    own = traverse_util.unflatten_dict(own)
    data = helpers.batch(size=12, image_size=8)
    masks = space.masks_of(genotype)
    expected = jitted(swap, own, data, None, apply_fn=network.apply)
    found = jitted(swap, variables, data, masks, apply_fn=supernet.apply)
    assert found == expected


@pytest.mark.parametrize("classes", [5, 101])
def test_epe_nas_is_the_definition_class_by_class(classes):
    net = helpers.PlainNet(classes)
    variables = net.init(jax.random.key(1), jnp.asarray(DATA.images), MASK)
    data = Batch(
        helpers.batch(size=9, image_size=8).images,
        np.array([0, 1, 0, 1, 2, 1, 3, 0, 3], np.int32),
    )

    def total(images):
        out = net.apply(variables, images, MASK, mutable=["batch_stats"])
        return out[0].sum()

    rows = np.asarray(jax.jit(jax.grad(total))(data.images), np.float64)
    sums, sizes = [], []
    for label in np.unique(data.labels):
        of_class = rows[data.labels == label].reshape(sum(data.labels == label), -1)
        correlations = np.atleast_2d(np.corrcoef(of_class))
        sums.append(np.log(np.abs(correlations) + 1e-5).sum())
        sizes.append(len(of_class))
    if classes <= 100:
        expected = np.abs(sums).sum()
    else:
        means = [s / n for s, n in zip(sums, sizes, strict=True) if n > 1]
        assert len(means) == 3
        expected = sum(abs(a - b) for a in means for b in means) / 3
    value = jitted(epe_nas, variables, data, MASK, apply_fn=net.apply)
    np.testing.assert_allclose(value, expected, rtol=1e-3)
