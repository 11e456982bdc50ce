"""The blocks of the spaces: both forms of sliding windows, stacks, taps on them."""

import itertools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zcpt_jax.lowering import CPU, GPU, using
from zcpt_jax.nn import capture, layers, torch_init, windows

EPS_GAIN = 1 / np.sqrt(np.float32(1 + 1e-5))  # BatchNorm on fresh statistics
WINDOWS = list(itertools.product((3, 5), (1, 2), (1, 2)))  # size, stride, dilation
FEWER = [(3, 1, 1), (3, 2, 2), (5, 1, 2), (5, 2, 1)]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def both_forms(fn, *args):
    """Value and gradients of ``fn`` with shifted windows and with XLA's own.

    Every output has a weight of its own, so that a gradient in the wrong place shows.
    """

    def run(*args):
        out = fn(*args)
        weights = jnp.asarray(normal(*out.shape, seed=9))
        return (out * weights).sum(), out

    results = []
    for use in (True, False):
        with using(CPU if use else GPU):
            # A function of its own, as jit remembers what it traced.
            traced = jax.jit(
                jax.value_and_grad(
                    lambda *a: run(*a), tuple(range(len(args))), has_aux=True
                )
            )
            (_, out), grads = traced(*args)
        results.append((out, *grads))
    return results


def assert_equal_forms(forms):
    shifted, own = forms
    for a, b in zip(shifted, own, strict=True):
        assert a.shape == b.shape and np.abs(b).max() > 0
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def primitives(fn, *args):
    return str(jax.make_jaxpr(fn)(*args))


@pytest.mark.cpu_only
def test_the_two_forms_are_written_differently():
    x, module = jnp.zeros((1, 8, 8, 2)), windows.DepthwiseConv(3)
    variables = module.init(jax.random.key(0), x)
    for use in (True, False):
        with using(CPU if use else GPU):
            conv = primitives(lambda x: module.apply(variables, x), x)
            pool = primitives(lambda x: windows.max_pool(x, 3), x)
        assert ("conv_general_dilated" in conv) == (not use)
        assert ("reduce_window_max" in pool) == (not use)
    # On CPU, where the tests run, shifted is what one gets without asking.
    assert "conv_general" not in primitives(lambda x: module.apply(variables, x), x)


@pytest.mark.parametrize(("size", "stride", "dilation"), WINDOWS)
def test_depthwise_convolutions_are_the_same_in_both_forms(size, stride, dilation):
    module = windows.DepthwiseConv(size, stride, dilation)
    kernel, x = normal(size, size, 1, 3), normal(2, 10, 8, 3, seed=1)
    forms = both_forms(
        lambda k, x: module.apply({"params": {"kernel": k}}, x), kernel, x
    )
    assert_equal_forms(forms)
    assert forms[0][0].shape == (2, 10 // stride, 8 // stride, 3)


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize(("size", "stride", "dilation"), FEWER)
def test_depthwise_stacks_are_the_same_in_both_forms(size, stride, dilation, stacked):
    module = windows.DepthwiseStack(2, size, stride, dilation)
    kernels = normal(2, size, size, 1, 3)
    x = normal(*([2] if stacked else []), 2, 8, 10, 3, seed=1)
    forms = both_forms(
        lambda k, x: module.apply({"params": {"kernels": k}}, x), kernels, x
    )
    assert_equal_forms(forms)
    one = windows.DepthwiseConv(size, stride, dilation)
    for index in range(2):
        z = x[index] if stacked else x
        with using(GPU):
            expected = one.apply({"params": {"kernel": kernels[index]}}, z)
        np.testing.assert_allclose(forms[0][0][index], expected, rtol=1e-5, atol=1e-5)


def test_gradients_of_depthwise_convolutions_keep_their_input_alone():
    module, x = windows.DepthwiseConv(5), normal(2, 8, 8, 3)
    variables = {"params": {"kernel": normal(5, 5, 1, 3)}}
    _, backward = jax.vjp(module.apply, variables, x)
    kept = sum(leaf.size for leaf in jax.tree.leaves(backward))
    assert kept <= x.size + 5 * 5 * 3


def test_a_depthwise_convolution_by_hand():
    kernel, x = normal(3, 3, 1, 2), normal(1, 6, 6, 2, seed=1)
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
    expected = np.zeros((1, 3, 3, 2))
    for row, column, i, j in itertools.product(range(3), repeat=4):
        pixel = padded[:, 2 * row + 2 * i, 2 * column + 2 * j]
        expected[:, row, column] += pixel * kernel[i, j, 0]
    module = windows.DepthwiseConv(3, 2, 2)
    out = module.apply({"params": {"kernel": kernel}}, x)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (2, 2)])
@pytest.mark.parametrize("ties", [False, True])
def test_max_pooling_is_the_same_in_both_forms(size, stride, ties):
    x = normal(2, 8, 6, 3)
    if ties:  # as after a ReLU: the first of equal pixels has the gradient
        x = np.maximum(np.round(x), 0)
    forms = both_forms(lambda x: windows.max_pool(x, size, stride), x)
    assert_equal_forms(forms)
    padded = np.pad(
        x, ((0, 0), *[(size // 2,) * 2] * 2, (0, 0)), constant_values=-np.inf
    )
    out = forms[0][0]
    for row, column in itertools.product(range(out.shape[1]), range(out.shape[2])):
        top, left = row * stride, column * stride
        window = padded[:, top : top + size, left : left + size]
        np.testing.assert_array_equal(out[:, row, column], window.max((1, 2)))


def test_of_equal_pixels_the_first_has_the_gradient():
    for use in (True, False):
        with using(CPU if use else GPU):
            grad = jax.grad(lambda x: windows.max_pool(x, 3)[0, 1, 1, 0])
            np.testing.assert_array_equal(
                grad(jnp.ones((1, 3, 3, 1)))[0, :, :, 0], np.eye(3) * [[1], [0], [0]]
            )


@pytest.mark.parametrize(
    ("height", "width", "stride"),
    [(6, 8, 1), (6, 8, 2), (5, 7, 2), (2, 2, 1), (2, 4, 2), (1, 3, 1)],
)
def test_average_pooling_counts_the_pixels_that_exist(height, width, stride):
    x = normal(2, height, width, 3)
    out = np.asarray(windows.avg_pool_3x3(x, stride))
    assert out.shape == (2, -(-height // stride), -(-width // stride), 3)
    for row, column in itertools.product(range(out.shape[1]), range(out.shape[2])):
        top, left = row * stride - 1, column * stride - 1
        window = x[:, max(top, 0) : top + 3, max(left, 0) : left + 3]
        np.testing.assert_allclose(
            out[:, row, column], window.mean((1, 2)), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("stride", [1, 2])
def test_average_pooling_is_the_same_in_both_forms(stride):
    forms = both_forms(lambda x: windows.avg_pool_3x3(x, stride), normal(2, 8, 6, 3))
    assert_equal_forms(forms)
    counts = []
    for use in (True, False):
        with using(CPU if use else GPU):
            text = primitives(lambda x: windows.avg_pool_3x3(x, stride), forms[0][1])
        counts.append(text.count("reduce_window_sum"))
    assert counts == [2, 1]


def test_pointwise_stacks_are_convolutions_side_by_side():
    kernels, x = normal(3, 1, 1, 4, 5), normal(3, 2, 4, 4, 4, seed=1)
    out = layers.PointwiseStack(5).apply({"params": {"kernels": kernels}}, x)
    conv = layers.Conv(5, 1)
    for index in range(3):
        expected = conv.apply({"params": {"kernel": kernels[index]}}, x[index])
        np.testing.assert_allclose(out[index], expected, rtol=1e-5, atol=1e-6)


def test_a_factorized_reduction_by_hand():
    module, x = layers.FactorizedReduce(5, affine=True), normal(2, 6, 8, 3)
    variables = module.init(jax.random.key(0), x)
    params = variables["params"]
    first = x[:, ::2, ::2] @ params["conv_1"]["kernel"][0, 0]
    second = x[:, 1::2, 1::2] @ params["conv_2"]["kernel"][0, 0]
    assert (first.shape[-1], second.shape[-1]) == (2, 3)
    expected = np.concatenate([first, second], -1) * EPS_GAIN
    np.testing.assert_allclose(
        module.apply(variables, x), expected, rtol=1e-5, atol=1e-6
    )
    assert set(params["norm"]) == {"scale", "bias"}
    plain = layers.FactorizedReduce(5, affine=False).init(jax.random.key(0), x)
    assert "norm" not in plain["params"]


@pytest.mark.parametrize("cap", [None, 6.0])
def test_a_capped_relu_is_flat_above_its_cap(cap):
    x = jnp.array([-7.0, -0.5, 0.5, 5.5, 6.5, 70.0])
    relu = capture.ReLU(cap)
    np.testing.assert_array_equal(relu.apply({}, x), np.clip(x, 0, cap))
    grad = jax.grad(lambda x: relu.apply({}, x, count=3.0, zero_count=2.0).sum())(x)
    top = 0 if cap else 1
    np.testing.assert_array_equal(grad, [0, 0, 1, 1, top, top])


class Stacked(nn.Module):
    """A plain layer, then stacks of two."""

    @nn.compact
    def __call__(self, x, masks=None):
        x = layers.Conv(3, 1, name="first")(x)
        y = windows.DepthwiseStack(2, 3, name="depthwise")(x)
        y = layers.PointwiseStack(4, name="pointwise")(y)
        return y.sum(0).mean((1, 2))


@pytest.fixture(scope="module")
def stacked():
    x = normal(2, 4, 4, 3)
    return Stacked(), Stacked().init(jax.random.key(0), x), x


def test_kernels_of_stacks_are_layers_of_their_own(stacked):
    _, variables, _ = stacked
    found = capture.kernels(variables)
    names = [("depthwise", "0"), ("depthwise", "1"), ("first",)]
    assert sorted(found) == [*names, ("pointwise", "0"), ("pointwise", "1")]
    params = variables["params"]
    np.testing.assert_array_equal(
        found["depthwise", "1"], params["depthwise"]["kernels"][1]
    )
    assert found["pointwise", "0"].shape == (1, 1, 3, 4)
    same = capture.with_kernels(variables, found)
    chex.assert_trees_all_equal(same, variables)
    doubled = capture.with_kernels(
        variables, {("depthwise", "1"): 2 * found["depthwise", "1"]}
    )
    expected = params["depthwise"]["kernels"] * np.float32([1, 2]).reshape(
        2, 1, 1, 1, 1
    )
    np.testing.assert_array_equal(doubled["params"]["depthwise"]["kernels"], expected)
    for name, leaf in (("first", "kernel"), ("pointwise", "kernels")):
        np.testing.assert_array_equal(doubled["params"][name][leaf], params[name][leaf])


def test_a_layer_tap_sees_and_replaces_each_slice_of_a_stack(stacked):
    module, variables, x = stacked
    seen = {}

    def on_layer(path, out):
        seen[path] = out
        return out * 0 if path == ("pointwise", "0") else out

    logits = capture.forward(
        module.apply, variables, x, None, norm="running", on_layer=on_layer
    )
    assert sorted(seen) == sorted(capture.kernels(variables))
    assert seen["first",].shape == seen["depthwise", "1"].shape == (2, 4, 4, 3)
    silent = {("pointwise", "0"): jnp.zeros((1, 1, 3, 4))}
    expected = module.apply(capture.with_kernels(variables, silent), x)
    np.testing.assert_allclose(logits, expected, rtol=1e-6)
    whole = module.apply(variables, x)
    assert np.abs(logits - whole).max() > 1e-3
    np.testing.assert_allclose(
        whole - logits, seen["pointwise", "0"].mean((1, 2)), rtol=1e-4, atol=1e-6
    )


def test_fresh_stacks_have_the_bounds_of_single_layers(stacked):
    module, variables, _ = stacked
    drawn = torch_init.torch_init(module, jax.random.key(0), (4, 4, 3))
    for tree in (variables, drawn):
        for path, kernel in capture.kernels(tree).items():
            bound = np.prod(kernel.shape[:-1]) ** -0.5
            assert 0.7 * bound < np.abs(kernel).max() <= bound, path
