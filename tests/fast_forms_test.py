"""Every faster way of computing something equals the plain one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import helpers
from zcpt_jax import get_space, masks
from zcpt_jax.lowering import CPU, using
from zcpt_jax.nn.zero_weights import apart, each_where_used, where_used
from zcpt_jax.proxies import PROXIES, _nwot
from zcpt_jax.scoring.scorer import Scorer


def plain_kernel(z):
    c = (np.asarray(z) > 0).reshape(len(z), -1).astype(np.float64)
    return c @ c.T + (1 - c) @ (1 - c).T


@pytest.mark.parametrize("units", [1, 31, 32, 33, 700])
@pytest.mark.parametrize(
    "form", [_nwot._agreements_by_bits, _nwot._agreements_by_product]
)
def test_both_forms_count_the_units_on_which_images_agree(units, form):
    z = np.random.default_rng(units).normal(size=(5, units)).astype(np.float32)
    np.testing.assert_array_equal(form(jnp.asarray(z) > 0), plain_kernel(z))


def test_kernels_of_a_stack_and_of_feature_maps():
    z = np.random.default_rng(0).normal(size=(3, 4, 5, 5, 7)).astype(np.float32)
    found = jax.vmap(_nwot.pattern_kernel)(jnp.asarray(z))
    np.testing.assert_array_equal(found, [plain_kernel(one) for one in z])


def twice_sine(x, kernel):
    return 2 * jnp.sin(x) * kernel


@pytest.mark.optimised
def test_an_operation_runs_where_its_weight_is_not_zero_and_gives_zeros_elsewhere():
    x, kernel = jnp.arange(6.0).reshape(2, 3), jnp.float32(3)

    @jax.jit
    def run(used):
        with using(CPU.replace(skip=True)):
            return where_used(used, twice_sine, x, kernel)

    np.testing.assert_array_equal(run(0.5), jax.jit(twice_sine)(x, kernel))
    np.testing.assert_array_equal(run(0.0), np.zeros((2, 3)))
    np.testing.assert_array_equal(jax.vmap(run)(jnp.array([0.0, 1.0]))[0], run(0.0))
    assert "cond" in str(jax.make_jaxpr(run)(0.5))


def test_plain_weights_need_no_condition_and_by_default_nothing_is_skipped():
    for used in (None, 1.0, True):
        with using(CPU.replace(skip=True)):
            jaxpr = jax.make_jaxpr(lambda x, u=used: where_used(u, jnp.sin, x))(1.0)
        assert "cond" not in str(jaxpr)
    outside = jax.make_jaxpr(lambda used, x: where_used(used, jnp.sin, x))(0.0, 1.0)
    assert "cond" not in str(outside)


@pytest.mark.optimised
@pytest.mark.parametrize(
    "name", ["nasbench201", pytest.param("darts_s2", marks=pytest.mark.slow)]
)
def test_skipping_changes_no_score(name):
    options = {"cells_per_stage": 1} if name == "nasbench201" else {"cells": 3}
    space = get_space(name, channels=4, **options)
    net = space.supernet(10)
    variables = space.init_variables(net, jax.random.key(0), (8, 8, 3))
    data = helpers.batch(size=6, image_size=8)
    decision = space.phases()[0].tracks[0][0]
    decided = masks.apply_decision(space.init_masks(), decision, [1])
    stack = masks.removals(decided, space.phases()[0].tracks[0][1])
    scores = [
        Scorer(PROXIES["nwot"].score, net.apply, forward_only=forward_only)(
            variables, data, stack
        )
        for forward_only in (False, True)
    ]
    np.testing.assert_array_equal(*scores)


@pytest.mark.parametrize("shape", [(2, 4, 4, 3), (3, 2, 4, 4, 3)])
def test_each_slice_of_a_stack_is_skipped_by_itself(shape):
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    kernels = jnp.arange(1.0, 4.0)
    with using(CPU.replace(skip=True)):
        used = jnp.array([1.0, 0.0, 2.0])
        out = each_where_used(used, jnp.multiply, x, kernels)
    full = each_where_used(None, jnp.multiply, x, kernels)
    np.testing.assert_array_equal(out[1], np.zeros(out[1].shape))
    np.testing.assert_array_equal(out[::2], full[::2])
    inputs = np.broadcast_to(x, (3, *shape[-4:]))
    np.testing.assert_array_equal(full, inputs * np.reshape(kernels, (3, 1, 1, 1, 1)))


@pytest.mark.cpu_only
def test_a_network_without_a_path_compiles_without_working_it_out():
    """XLA would otherwise fold its zeros for minutes."""
    space = get_space("nasbench201", channels=4, cells_per_stage=1)
    net = space.network("|none~0|+|none~0|none~1|+|none~0|none~1|avg_pool_3x3~2|", 10)
    variables = space.init_variables(net, jax.random.key(0), (8, 8, 3))
    images = jnp.ones((2, 8, 8, 3))
    text = jax.jit(net.apply).lower(variables, images).compile().as_text()
    assert "reduce-window" in text  # still there: it was not folded
    logits = net.apply(variables, images)
    np.testing.assert_array_equal(logits[0], logits[1])


@pytest.mark.cpu_only
def test_keeping_fusions_apart_changes_neither_values_nor_derivatives():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3)), jnp.float32)

    def value(x, weights):
        return (weights[0][1] * apart(jnp.sin(x), weights) ** 2).sum()

    weights = jnp.array([[0.0, 0.5], [-1.0, 0.0]])
    plain = jax.jit(lambda x: (0.5 * jnp.sin(x) ** 2).sum())
    np.testing.assert_allclose(jax.jit(value)(x, weights), plain(x), rtol=1e-6)
    found, expected = jax.jit(jax.grad(value))(x, weights), jax.grad(plain)(x)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert "cond" in str(jax.make_jaxpr(value)(x, weights))
    assert np.isnan(value(x, weights * jnp.nan))
