"""The emulation of lower precision: which operands it rounds, and which it does not."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

from benchmarks.emulation import ROUNDINGS, bfloat16, emulated, two_bfloat16
from tests import helpers
from zcpt_jax.lowering import CPU, GPU
from zcpt_jax.proxies import PROXIES
from zcpt_jax.scoring.scorer import Scorer
from zcpt_jax.types import Batch, InputError

# bfloat16 has 8 significant bits: halfway between 1 and 1 + 2**-7, ties to even.
BETWEEN = 1 + 2**-8
TF32_BETWEEN = 1 + 2**-11
PLACES = ("plain", "jit", "cond", "scan", "while", "remat", "custom_jvp", "custom_vjp")
WEIGHTS = {"w": jnp.float32([[BETWEEN]])}


def rounded(function, rounding):
    """A function of weights and images, its products rounded."""
    score = emulated(lambda apply_fn, v, batch, _: function(v, batch.images), rounding)
    return lambda v, images: score(None, v, Batch(images, np.zeros(1, np.int32)), {})


def wrapped(place, product):
    """The product of two arrays inside a call, a condition or a loop."""
    if place == "jit":
        return jax.jit(product)
    if place == "cond":
        return lambda x, w: jax.lax.cond(x.sum() > 0, product, lambda x, w: x, x, w)
    if place == "scan":
        return lambda x, w: jax.lax.scan(lambda c, w: (product(c, w), 0), x, w[None])[0]
    if place == "while":
        body = lambda s, w: (s[0] + 1, product(s[1], w))  # noqa: E731
        return lambda x, w: jax.lax.while_loop(
            lambda s: s[0] < 1, lambda s: body(s, w), (0, x)
        )[1]
    if place == "remat":
        return jax.checkpoint(product)
    if place == "custom_jvp":
        found = jax.custom_jvp(product)
        found.defjvp(lambda args, tangents: (product(*args), tangents[0]))
        return found
    if place == "custom_vjp":
        found = jax.custom_vjp(product)
        found.defvjp(lambda *args: (product(*args), None), lambda _, g: (g, g))
        return found
    return product


class OperandsOfProductsTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(*((place,) for place in PLACES))
    def test_they_are_rounded_wherever_they_are(self, place):
        product = wrapped(place, jnp.matmul)

        def run(rounding):
            score = rounded(lambda v, x: product(x, v["w"])[0, 0], rounding)
            return self.variant(score)(WEIGHTS, jnp.float32([[3]]))

        assert run(None) == 3 * BETWEEN
        assert run(bfloat16) == 3
        # The sum of two bfloat16 numbers holds it.
        assert run(two_bfloat16) == 3 * BETWEEN


def test_each_rounding_keeps_its_bits():
    x = jnp.float32([BETWEEN, TF32_BETWEEN, 1 + 2**-9 + 2**-20, 1e30, -3.25, 0])
    half = jnp.float32(2**-9)
    expected = {
        "bfloat16": [1, 1, 1, jnp.bfloat16(1e30), -3.25, 0],
        "TF32": [BETWEEN, 1, 1 + half, None, -3.25, 0],
        "3 x bfloat16": [BETWEEN, TF32_BETWEEN, 1 + half, None, -3.25, 0],
    }
    assert set(expected) == set(ROUNDINGS) - {"float32"}
    for name, values in expected.items():
        found = ROUNDINGS[name](x)
        assert found.dtype == jnp.float32
        for value, wanted in zip(found, values, strict=True):
            assert wanted is None or value == jnp.float32(wanted), name


def test_gradients_of_convolutions_are_rounded():
    images, kernel = jnp.full((1, 1, 1, 1), BETWEEN), jnp.full((1, 1, 1, 1), 3.0)

    def loss(kernel, images):
        out = jax.lax.conv_general_dilated(
            images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return (out * BETWEEN).sum()

    def gradient(v, images):
        return jax.grad(loss)(v["w"], images)[0, 0, 0, 0]

    # dL/dw = image * cotangent, a convolution of numbers that are both rounded to 1.
    run = lambda rounding: rounded(gradient, rounding)({"w": kernel}, images)  # noqa: E731
    assert run(None) == jnp.float32(BETWEEN) * BETWEEN
    assert run(bfloat16) == 1


def test_elementwise_operations_and_decompositions_stay_float32():
    def score(v, images):
        return (v["w"] * images).sum() + jnp.linalg.slogdet(v["w"])[1]

    plain = rounded(score, None)(WEIGHTS, WEIGHTS["w"])
    assert rounded(score, bfloat16)(WEIGHTS, WEIGHTS["w"]) == plain
    assert plain != 1


def test_without_rounding_the_score_is_the_same_function():
    assert emulated(PROXIES["nwot"].score, None) is PROXIES["nwot"].score


def test_products_where_they_cannot_be_rounded_are_refused():
    def score(v, images):
        run = lambda x: x @ v["w"]  # noqa: E731
        shared = jax.shard_map(run, mesh=mesh, in_specs=spec, out_specs=spec)
        return shared(images).sum()

    mesh = jax.make_mesh((1,), ("x",))
    spec = jax.sharding.PartitionSpec()
    with pytest.raises(InputError, match="inside a shard_map"):
        rounded(score, bfloat16)(WEIGHTS, jnp.float32([[3]]))


def test_one_program_takes_the_number_of_a_rounding():
    """As the golden scores are measured; the rounding is known when it runs."""

    @jax.jit
    def run(number, images):
        choose = lambda x: jax.lax.select_n(number, x, bfloat16(x))  # noqa: E731
        return rounded(lambda v, x: (x @ v["w"])[0, 0], choose)(WEIGHTS, images)

    three = jnp.float32([[3]])
    assert [run(number, three) for number in (0, 1)] == [3 * BETWEEN, 3]


@pytest.mark.parametrize(
    ("proxy", "form"),
    [
        pytest.param("nwot", CPU, id="nwot-cpu"),
        pytest.param("nwot", GPU, id="nwot-gpu"),
        pytest.param("snip", CPU, id="snip-cpu"),
        pytest.param("snip", GPU, id="snip-gpu", marks=pytest.mark.slow),
        pytest.param("log_synflow", CPU, id="log_synflow-cpu"),
        pytest.param("log_synflow", GPU, id="log_synflow-gpu"),
    ],
)
def test_a_rounding_that_changes_nothing_leaves_scores(proxy, form):
    _, net, variables = helpers.tiny_supernet()
    masks = {"cell": helpers.all_removals(helpers.tiny_space())["cell"][:3]}
    score, forward_only = PROXIES[proxy].score, PROXIES[proxy].forward_only

    def scores(rounding):
        scorer = Scorer(
            emulated(score, rounding), net.apply, form=form, forward_only=forward_only
        )
        return scorer(variables, helpers.batch(), masks)

    seen = []

    def nothing(x):
        seen.append(x)
        return x

    plain = scores(None)
    np.testing.assert_allclose(scores(nothing), plain, rtol=1e-5)
    assert len(seen) > 20
    different = scores(bfloat16)
    assert np.all(np.abs(different / plain - 1) < 0.1)
    assert np.all(different != plain)
