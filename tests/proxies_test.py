"""Every proxy on a network that is not ours, against plain re-computations."""

import functools
import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import helpers
from zcpt_jax.nn import capture
from zcpt_jax.proxies import (
    PROXIES,
    ensemble,
    get_proxy,
    jointly,
    log_rank_sum,
    log_synflow,
    nwot,
    rank_sum,
    synflow,
)
from zcpt_jax.spaces import get_space
from zcpt_jax.types import NOISE, Batch, InputError

SIZE = 10


def smooth_batch(seed):
    """Images of little variety, so that not every pattern is one of its own."""
    noise = helpers.batch(SIZE, 2, classes=5, seed=seed)
    images = np.repeat(np.repeat(noise.images.round(), 4, axis=1), 4, axis=2)
    return noise._replace(images=images)


DATA = smooth_batch(0)
NET, VARIABLES, MASK = helpers.plain_net(DATA)


@functools.cache
def compiled(name):
    fn = PROXIES[name].score
    return jax.jit(lambda v, b, m: fn(apply, v, b, m))


def score(name, mask=MASK, data=DATA, variables=VARIABLES):
    return float(compiled(name)(variables, Batch(*data), mask))


def apply(variables, images, mask):
    return NET.apply(variables, images, mask)


def with_batch_norm(variables, images):
    out, _ = NET.apply(variables, images, MASK, mutable=["batch_stats"])
    return out


def loss(params):
    logits = with_batch_norm({**VARIABLES, "params": params}, DATA.images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, DATA.labels).mean()


def kernels(tree):
    return [layer["kernel"] for layer in tree.values() if "kernel" in layer]


@pytest.mark.parametrize("name", helpers.proxies(all_by_default=True))
def test_finite_jittable_and_blind_to_the_order_of_images(name):
    value = score(name)
    assert np.isfinite(value)
    rng, half = np.random.default_rng(0), SIZE // 2
    order = rng.permutation(SIZE)
    if name == "zico":  # compares the halves of the batch
        order = np.r_[rng.permutation(half), half + rng.permutation(half)]
    turned = Batch(DATA.images[order], DATA.labels[order])
    np.testing.assert_allclose(score(name, data=turned), value, rtol=1e-4, atol=1e-6)


# Of this network the signs of the third ReLU follow from the others', which know
# nothing of the mask; reference_proxies_a_test.py has one that linear_regions sees.
@pytest.mark.parametrize(
    "name", [n for n in helpers.proxies() if n != "linear_regions"]
)
def test_removing_an_operation_changes_the_score(name):
    assert score(name, mask=jnp.array([0.5, 0.0])) != score(name)


@pytest.mark.parametrize("name", helpers.proxies())
def test_declared_conventions_are_true(name):
    proxy = PROXIES[name]
    base = score(name)
    other = smooth_batch(7)
    assert (score(name, data=other) == base) == proxy.data_free
    relabelled = Batch(DATA.images, DATA.labels // 2)
    assert (score(name, data=relabelled) != base) == proxy.needs_labels
    stats = jax.tree.map(lambda leaf: leaf + 1, VARIABLES["batch_stats"])
    moved = score(name, variables={**VARIABLES, "batch_stats": stats})
    assert (moved != base) == (proxy.norm == "running")
    keyed = score(name, data=DATA._replace(key=jax.random.key(5)))
    assert (keyed != base) == proxy.draws
    assert proxy.range and proxy.reference


def test_ensembles_declare_what_their_members_do():
    named = [get_proxy(name) for name in ("nwot+snip", "synflow+plain", "snip+plain")]
    ensembles = [*named, *(proxy for proxy in PROXIES.values() if proxy.members)]
    for proxy in ensembles:
        members = proxy.members
        norms = {member.norm for member in members}
        assert proxy.norm == (norms.pop() if len(norms) == 1 else "mixed")
        assert proxy.needs_labels == any(member.needs_labels for member in members)
        assert proxy.data_free == all(member.data_free for member in members)
        assert proxy.draws == any(member.draws for member in members)
    assert [proxy.name for proxy in named] == [
        "nwot+snip",
        "synflow+plain",
        "snip+plain",
    ]
    assert all(proxy.combine is rank_sum for proxy in named)
    assert {proxy.norm for proxy in ensembles} >= {"mixed", "batch"}


def test_an_ensemble_gives_its_members_scores():
    both = jointly([PROXIES["snip"], PROXIES["plain"], PROXIES["nwot"]])
    run = jax.jit(lambda v, b, m: both.score(apply, v, b, m))
    scores = run(VARIABLES, DATA, MASK)
    alone = [score(name) for name in ("snip", "plain", "nwot")]
    np.testing.assert_allclose(scores, alone, rtol=1e-5)
    assert both.combine is None and both.combined(scores) is scores


def test_ranks_share_and_pass_nan_on():
    nan, inf = np.nan, np.inf
    first = np.array([3.0, 1.0, 1.0, nan, -inf])
    second = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    scores = np.stack([first, second], axis=1)
    ranks = np.array([4, 2.5, 2.5, nan, 1])
    np.testing.assert_array_equal(rank_sum(scores), ranks + second)
    np.testing.assert_allclose(
        log_rank_sum(scores), np.log(ranks / 5) + np.log(second / 5)
    )
    tenas = PROXIES["tenas"]
    raw = np.array([[10.0, 100.0], [20.0, 300.0], [inf, 200.0]])
    # Lower ntk_cond is better, more regions are.
    np.testing.assert_array_equal(tenas.comparable(raw), [3 + 1, 2 + 3, 3])


def test_ensembles_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="unknown proxy 'x'; known: nwot"):
        get_proxy("nwot+x")
    with pytest.raises(InputError, match="two or more different proxies"):
        get_proxy("nwot+nwot")
    with pytest.raises(InputError, match="tenas is an ensemble itself; name its mem"):
        get_proxy("nwot+tenas")
    with pytest.raises(InputError, match="an ensemble needs two or more"):
        ensemble("one", [PROXIES["nwot"]])


@pytest.mark.parametrize("name", PROXIES)
def test_the_public_function_is_documented(name):
    doc = inspect.getdoc(PROXIES[name].score)
    assert "Returns:" in doc


def test_nwot_counts_every_relu_of_a_plain_network():
    """By the definition, both products, in float64, on relu, relu6 and max."""
    variables = jax.tree.map(np.asarray, VARIABLES)
    images = jnp.asarray(DATA.images)
    conv = lambda i, x: nn.Conv(  # noqa: E731
        6, ((3, 3), (3, 3), (1, 1))[i], use_bias=False
    ).apply({"params": variables["params"][f"Conv_{i}"]}, x)
    x = conv(0, images) / np.sqrt(1 + 1e-5)
    za, zb = conv(1, x), conv(2, x)
    zc = 0.5 * nn.relu(za) + 0.5 * nn.relu6(zb)
    total = np.zeros((SIZE, SIZE))
    for z in (za, zb, zc):
        c = np.asarray(z > 0, np.float64).reshape(SIZE, -1)
        total += c @ c.T + (1 - c) @ (1 - c).T
    np.testing.assert_allclose(score("nwot"), np.linalg.slogdet(total)[1], rtol=1e-5)


def test_nwot_refuses_a_network_without_relu():
    net = nn.Dense(3)
    variables = net.init(jax.random.key(0), jnp.ones((2, 4)))
    with pytest.raises(InputError, match="found no ReLU"):
        nwot(
            lambda v, x, m: net.apply(v, x), variables, Batch(np.ones((2, 4)), 0), None
        )


def test_nwot_counts_live_and_dead_as_told():
    class Counted(nn.Module):
        @nn.compact
        def __call__(self, x, masks):
            return capture.ReLU()(x, count=3.0, zero_count=2.0).sum(1)

    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 10)), jnp.float32)
    c = np.asarray(x > 0, np.float64)
    expected = 3 * (c @ c.T + (1 - c) @ (1 - c).T) + 2 * 10
    value = nwot(Counted().apply, {}, Batch(x, np.zeros(4)), None)
    np.testing.assert_allclose(value, np.linalg.slogdet(expected)[1], rtol=1e-5)


def test_relus_are_found_inside_jit_and_checkpoint():
    def f(x):
        return jax.checkpoint(jax.jit(nn.relu))(x) + jnp.maximum(0.0, 2 * x)

    x = jnp.arange(-2.0, 2.0)
    found = capture.relu_inputs(f, x)
    np.testing.assert_array_equal(jnp.stack(found), jnp.stack([x, 2 * x]))


def test_weight_proxies_follow_their_equations():
    params = VARIABLES["params"]
    grads = jax.grad(loss)(params)
    ws, gs = kernels(params), kernels(grads)
    expected = {
        "grad_norm": sum(jnp.sqrt((g**2).sum()) for g in gs),
        "snip": sum(jnp.abs(w * g).sum() for w, g in zip(ws, gs, strict=True)),
        "plain": sum((w * g).sum() for w, g in zip(ws, gs, strict=True)),
        "l2_norm": sum(jnp.sqrt((w**2).sum()) for w in ws),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(score(name), value, rtol=2e-4, err_msg=name)


def test_grasp_is_reverse_over_reverse_of_the_definition():
    params = VARIABLES["params"]
    g = jax.grad(loss)(params)

    def inner(params):
        now = kernels(jax.grad(loss)(params))
        return sum((a * b).sum() for a, b in zip(now, kernels(g), strict=True))

    hg = kernels(jax.grad(inner)(params))
    expected = -sum((w * h).sum() for w, h in zip(kernels(params), hg, strict=True))
    np.testing.assert_allclose(score("grasp"), expected, rtol=1e-3)


def test_synflow_is_the_gradient_definition():
    def total(params):
        p = jax.tree.map(jnp.abs, params)
        x = jnp.ones((1, 8, 8, 3))
        conv = lambda i, x: nn.Conv(  # noqa: E731
            6, ((3, 3), (3, 3), (1, 1))[i], use_bias=False
        ).apply({"params": p[f"Conv_{i}"]}, x)
        x = conv(0, x)
        x = 0.5 * nn.relu(conv(1, x)) + 0.5 * nn.relu6(conv(2, x))
        return nn.Dense(5).apply({"params": p["Dense_0"]}, x.mean((1, 2))).sum()

    params = VARIABLES["params"]
    grads = jax.grad(total)(params)
    pairs = zip(kernels(params), kernels(grads), strict=True)
    expected = sum(jnp.abs(w * g).sum() for w, g in pairs)
    np.testing.assert_allclose(score("synflow"), expected, rtol=1e-5)
    np.testing.assert_allclose(score("log_synflow"), np.log(expected), rtol=1e-5)


def test_log_synflow_is_finite_where_synflow_overflows():
    space = get_space("nasbench201", channels=4, cells_per_stage=2)
    net = space.supernet(10)
    variables = space.init_variables(net, jax.random.key(0), (8, 8, 3))
    variables = jax.tree.map(lambda leaf: 100 * leaf, variables)
    data = Batch(np.zeros((1, 8, 8, 3), np.float32), np.zeros(1, np.int32))
    masks = space.init_masks()
    both = jax.jit(
        lambda v: [f(net.apply, v, data, masks) for f in (synflow, log_synflow)]
    )
    plain, logarithm = both(variables)
    assert plain == np.inf
    assert 88 < logarithm < 400  # float32 ends at e^88.7


def test_l2_norm_counts_only_layers_that_reach_the_output():
    full = score("l2_norm")
    without = score("l2_norm", mask=jnp.array([0.5, 0.0]))
    gone = jnp.linalg.norm(VARIABLES["params"]["Conv_2"]["kernel"].ravel())
    np.testing.assert_allclose(full - without, gone, rtol=1e-5)


def test_an_unknown_proxy_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"unknown proxy 'nwto'; known: nwot, synflow"):
        get_proxy("nwto")


SMALL_SPACES = {
    "darts_s1": ({"channels": 4, "cells": 3}, 16),
    "mobilenet": ({"width_multiplier": 0.2}, 32),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL_SPACES)
def test_every_proxy_takes_every_space_or_says_why(name):
    """Traced, not run."""
    options, size = SMALL_SPACES[name]
    space = get_space(name, **options)
    net, shape = space.supernet(10), (size, size, 3)
    variables = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, *shape)))
    data = Batch(jnp.zeros((4, *shape)), jnp.zeros(4, jnp.int32), jax.random.key(0))
    refused = set()
    quick = set(PROXIES) - helpers.SLOW_TO_COMPILE - {"tenas", "az_nas"}
    for proxy in (PROXIES[name] for name in sorted(quick)):

        def run(v, b, m, proxy=proxy):
            keyed = lambda *args: net.apply(*args, rngs={NOISE: b.key})  # noqa: E731
            return proxy.score(keyed, v, b, m)

        try:
            found = jax.eval_shape(run, variables, data, space.init_masks())
            assert found.shape == ((len(proxy.members),) if proxy.members else ())
        except InputError as error:
            assert "\n" not in str(error)
            refused.add(proxy.name)
    assert refused == ({"linear_regions"} if name == "mobilenet" else set())
