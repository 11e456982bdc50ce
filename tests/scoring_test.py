import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import helpers
from zcpt_jax.proxies import PROXIES
from zcpt_jax.scoring import Scorer, default_chunk, score_masks
from zcpt_jax.types import InputError

DATA = helpers.batch()


def one_by_one(fn, apply_fn, variables, data, masks):
    @jax.jit
    def one(mask):
        with jax.default_matmul_precision("highest"):
            return fn(apply_fn, variables, data, mask)

    count = len(jax.tree.leaves(masks)[0])
    return [
        one(jax.tree.map(lambda m, k=k: jnp.asarray(m[k]), masks)) for k in range(count)
    ]


@pytest.mark.cpu_only
def test_fused_equals_one_by_one_bit_for_bit_on_the_supernet():
    space, net, variables = helpers.tiny_supernet()
    masks = {"cell": helpers.all_removals(space)["cell"][:7]}
    fn = PROXIES["nwot"].score
    expected = one_by_one(fn, net.apply, variables, DATA, masks)
    for chunk in (1, 3, 7):
        scores = Scorer(fn, net.apply, chunk_size=chunk)(variables, DATA, masks)
        np.testing.assert_array_equal(scores, expected)


@pytest.mark.parametrize("name", helpers.proxies())
def test_fused_equals_one_by_one_for_every_proxy(name):
    data = helpers.batch(size=6, image_size=8, classes=5)
    net, variables, _ = helpers.plain_net(data)
    masks = np.random.default_rng(0).uniform(0, 1, (5, 2)).astype(np.float32)
    fn = PROXIES[name].score
    expected = one_by_one(fn, net.apply, variables, data, masks)
    for chunk in (2, 5):
        scores = Scorer(fn, net.apply, chunk_size=chunk)(variables, data, masks)
        # zico divides by the difference of two gradients. Where they agree to one part
        # in a thousand, as some of a few hundred weights do, that difference has a
        # thousand times the relative rounding of a gradient, and the term is large.
        rtol = 1e-3 if name == "zico" else helpers.CHUNK_RTOL
        np.testing.assert_allclose(scores, expected, rtol=rtol)


def test_compiles_once_for_all_edges_and_stack_sizes():
    space, net, variables = helpers.tiny_supernet()
    masks = helpers.all_removals(space)["cell"]
    traced = 0

    def count(*args):
        nonlocal traced
        traced += 1
        return PROXIES["nwot"].score(*args)

    scorer = Scorer(count, net.apply, chunk_size=5)
    scores = [
        scorer(variables, DATA, {"cell": masks[i : i + 5]}) for i in range(0, 30, 5)
    ]
    scorer(variables, DATA, {"cell": masks[:3]})
    assert scorer.compilations == 1 and traced == 1
    assert scorer.compile_seconds > 0
    together = scorer(variables, DATA, {"cell": masks})
    np.testing.assert_array_equal(np.concatenate(scores), together)


def test_removing_none_scores_the_whole_supernet():
    space, net, variables = helpers.tiny_supernet()
    whole = {"cell": space.init_masks()["cell"][None]}
    fn = PROXIES["nwot"].score
    base = score_masks(fn, net.apply, variables, DATA, whole)
    removed = score_masks(fn, net.apply, variables, DATA, helpers.all_removals(space))
    np.testing.assert_array_equal(removed[::5], np.repeat(base, 6))


def test_each_mask_can_have_its_own_batch():
    space, net, variables = helpers.tiny_supernet()
    other = helpers.batch(seed=3)
    both = jax.tree.map(lambda *pair: np.stack(pair), DATA, other)
    masks = {"cell": helpers.all_removals(space)["cell"][:4]}
    fn = PROXIES["nwot"].score
    scorer = Scorer(fn, net.apply, chunk_size=4)
    mixed = scorer(variables, both, masks, np.array([0, 1, 1, 0]))
    first, second = (scorer(variables, b, masks) for b in (DATA, other))
    np.testing.assert_array_equal(mixed, [first[0], second[1], second[2], first[3]])


def test_a_chunk_that_does_not_fit_is_halved_and_scoring_goes_on(monkeypatch):
    sizes = []

    def run(self, variables, batches, masks, index):
        sizes.append(len(masks["cell"]))
        if len(masks["cell"]) > 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return masks["cell"][:, 0, 0]

    monkeypatch.setattr(Scorer, "_run", run)
    masks = {"cell": np.arange(5, dtype=np.float32).reshape(5, 1, 1)}
    scorer = Scorer(PROXIES["nwot"].score, lambda v, x, m: x, chunk_size=5)
    np.testing.assert_array_equal(scorer({}, DATA, masks), np.arange(5))
    assert sizes == [5, 2, 2, 2] and scorer.chunk_size == 2


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("RESOURCE_EXHAUSTED: x", MemoryError),
        ("INTERNAL: x", jax.errors.JaxRuntimeError),
    ],
)
def test_errors_that_halving_cannot_mend_come_through(monkeypatch, message, error):
    def run(self, *args):
        raise jax.errors.JaxRuntimeError(message)

    monkeypatch.setattr(Scorer, "_run", run)
    masks = {"cell": np.ones((2, 1, 1))}
    with pytest.raises(error):
        Scorer(PROXIES["nwot"].score, lambda v, x, m: x)({}, DATA, masks)


def test_bad_arguments_are_refused():
    with pytest.raises(InputError, match="chunk_size must be at least 1, got 0"):
        Scorer(PROXIES["nwot"].score, lambda v, x, m: x, chunk_size=0)
    for masks in ({"a": np.ones((2, 1)), "b": np.ones((3, 1))}, {"a": np.ones((0, 1))}):
        with pytest.raises(InputError, match="masks must be a stack"):
            score_masks(PROXIES["nwot"].score, lambda v, x, m: x, {}, DATA, masks)


@pytest.mark.cpu_only
def test_masks_go_one_by_one_on_cpu():
    assert [default_chunk(n) for n in (5, 50)] == [1, 1]
