import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import helpers
from zcpt_jax.lowering import CPU, GPU, TPU, of_platform
from zcpt_jax.nn.zero_weights import on_images, weighted_sum, where_used
from zcpt_jax.proxies import PROXIES
from zcpt_jax.scoring import memory
from zcpt_jax.scoring.scorer import Scorer, score_masks
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


@pytest.mark.optimised
@pytest.mark.cpu_only
def test_fused_equals_one_by_one_bit_for_bit_on_the_supernet():
    space, net, variables = helpers.tiny_supernet()
    masks = {"cell": helpers.all_removals(space)["cell"][:7]}
    fn = PROXIES["nwot"].score
    expected = one_by_one(fn, net.apply, variables, DATA, masks)
    for chunk in (1, 3, 7):
        scores = Scorer(fn, net.apply, form=CPU.replace(chunk=chunk))(
            variables, DATA, masks
        )
        np.testing.assert_array_equal(scores, expected)


@pytest.mark.parametrize("name", helpers.proxies())
def test_fused_equals_one_by_one_for_every_proxy(name):
    data = helpers.batch(size=6, image_size=8, classes=5)
    net, variables, _ = helpers.plain_net(data)
    masks = np.random.default_rng(0).uniform(0, 1, (5, 2)).astype(np.float32)
    fn = PROXIES[name].score
    expected = one_by_one(fn, net.apply, variables, data, masks)
    for chunk in (2, 5):
        scores = Scorer(fn, net.apply, form=CPU.replace(chunk=chunk))(
            variables, data, masks
        )
        # zico divides by the difference of two gradients. Where they agree to one part
        # in a thousand, as some of a few hundred weights do, that difference has a
        # thousand times the relative rounding of a gradient, and the term is large.
        # zen takes the logarithm of the difference of two feature maps that are one
        # hundredth apart, which has a hundred times the rounding of either.
        rtol = {"zico": 1e-3, "zen": 1e-4}.get(name, helpers.CHUNK_RTOL)
        np.testing.assert_allclose(scores, expected, rtol=rtol)


def test_compiles_once_for_all_edges_and_stack_sizes():
    space, net, variables = helpers.tiny_supernet()
    masks = helpers.all_removals(space)["cell"]
    chex.clear_trace_counter()
    once = chex.assert_max_traces(PROXIES["nwot"].score, n=1)
    scorer = Scorer(once, net.apply, form=CPU.replace(chunk=5))
    scores = [
        scorer(variables, DATA, {"cell": masks[i : i + 5]}) for i in range(0, 30, 5)
    ]
    scorer(variables, DATA, {"cell": masks[:3]})
    assert scorer.compilations == 1
    assert scorer.compile_seconds > 0
    together = scorer(variables, DATA, {"cell": masks})
    np.testing.assert_array_equal(np.concatenate(scores), together)


@pytest.mark.optimised
def test_removing_none_scores_the_whole_supernet():
    space, net, variables = helpers.tiny_supernet()
    whole = {"cell": space.init_masks()["cell"][None]}
    fn = PROXIES["nwot"].score
    base = score_masks(fn, net.apply, variables, DATA, whole)
    removed = score_masks(fn, net.apply, variables, DATA, helpers.all_removals(space))
    np.testing.assert_array_equal(removed[::5], np.repeat(base, 6))


@pytest.mark.optimised
def test_each_mask_can_have_its_own_batch():
    space, net, variables = helpers.tiny_supernet()
    other = helpers.batch(seed=3)
    both = jax.tree.map(lambda *pair: np.stack(pair), DATA, other)
    masks = {"cell": helpers.all_removals(space)["cell"][:4]}
    fn = PROXIES["nwot"].score
    scorer = Scorer(fn, net.apply, form=CPU.replace(chunk=4))
    mixed = scorer(variables, both, masks, np.array([0, 1, 1, 0]))
    first, second = (scorer(variables, b, masks) for b in (DATA, other))
    np.testing.assert_array_equal(mixed, [first[0], second[1], second[2], first[3]])


def test_every_form_gives_the_scores_one_by_one():
    space, net, variables = helpers.tiny_supernet()
    masks = {"cell": helpers.all_removals(space)["cell"][:12]}
    fn = PROXIES["nwot"].score
    expected = one_by_one(fn, net.apply, variables, DATA, masks)
    for form in (GPU, TPU, GPU.replace(chunk=5), TPU.replace(chunk=1)):
        scorer = Scorer(fn, net.apply, form=form, forward_only=True, sizes=[5, 5])
        found = scorer(variables, DATA, masks)
        np.testing.assert_allclose(found, expected, rtol=helpers.CHUNK_RTOL)
        assert scorer.chunk_size == (form.chunk or 5)
        assert scorer.compilations == 1


@pytest.mark.optimised
def test_masks_whose_score_has_a_derivative_follow_one_another():
    space, net, variables = helpers.tiny_supernet()
    masks = {"cell": helpers.all_removals(space)["cell"][5:8]}
    fn = PROXIES["grad_norm"].score
    scorer = Scorer(fn, net.apply, form=GPU)
    found = scorer(variables, DATA, masks)
    assert scorer.chunk_size == 1
    expected = one_by_one(fn, net.apply, variables, DATA, masks)
    np.testing.assert_allclose(found, expected, rtol=helpers.CHUNK_RTOL)


def test_what_no_member_of_a_group_uses_is_not_computed():
    """A branch that would give NaN is not taken, one that a member uses is."""

    def network(variables, images, masks):
        x = on_images(jnp.sin, images)
        poisoned = where_used(masks[0], _poison, x)
        return weighted_sum([masks[1]], [x]) + jnp.where(masks[0] != 0, poisoned, 0)

    def score(apply_fn, variables, batch, masks):
        return apply_fn(variables, batch.images, masks).sum()

    scorer = Scorer(score, network, form=GPU.replace(chunk=2), forward_only=True)
    masks = np.array([[0, 1], [0, 2], [0, 3], [1, 1]], np.float32)
    owners = np.array([0, 0, 1, 1])
    batches = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), DATA)
    found = scorer({}, batches, masks, owners)
    sines = np.sin(DATA.images.astype(np.float64)).sum()
    np.testing.assert_allclose(found[:3], sines * np.array([1, 2, 3]), rtol=1e-3)
    assert np.isnan(found[3])
    hlo = scorer._compiled.popitem()[1].as_text()
    assert "conditional" in hlo


def _poison(x):
    return x * jnp.nan


class Machine:
    """Stands for a compiled call on a device with room for so many masks."""

    def __init__(self, room, monkeypatch, message="RESOURCE_EXHAUSTED: out of memory"):
        self.room, self.message, self.sizes = room, message, []
        monkeypatch.setattr(Scorer, "_compile", lambda scorer, args: (self, 0))

    def __call__(self, resident, masks, batches, weights, counts):
        self.sizes.append(masks["cell"].shape[1])
        if masks["cell"].shape[1] > self.room:
            raise jax.errors.JaxRuntimeError(self.message)
        return masks["cell"][:, :, 0, 0]


def machine_scores(chunk, count=5):
    masks = {"cell": np.arange(count, dtype=np.float32).reshape(count, 1, 1)}
    form = GPU.replace(chunk=chunk)
    scorer = Scorer(PROXIES["nwot"].score, lambda v, x, m: x, form=form)
    return scorer, scorer({}, DATA, masks)


@pytest.mark.parametrize(
    "message",
    [
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 57982058496 bytes.",
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in "
        "memory space hbm. Used 56.60G of 15.75G hbm. Exceeded hbm capacity by 40.85G.",
    ],
    ids=["h200", "v5e"],
)
def test_a_chunk_that_does_not_fit_is_halved_and_scoring_goes_on(monkeypatch, message):
    machine = Machine(2, monkeypatch, message)
    scorer, scores = machine_scores(5)
    np.testing.assert_array_equal(scores, np.arange(5))
    assert machine.sizes[0] == 5 and scorer.chunk_size == 2


def test_a_program_that_needs_more_than_the_device_has_is_divided_evenly(monkeypatch):
    """DARTS on a TPU v5e: 7 masks need 17 of 14.5 GB, so that 4 and 3 go together."""
    monkeypatch.setattr(memory, "limit", lambda device: int(14.5e9))
    monkeypatch.setattr(memory, "needed", lambda compiled: 17 * 10**9)
    compiled = []

    def compile_once(scorer, args):
        compiled.append(scorer.chunk_size)
        monkeypatch.setattr(memory, "needed", lambda compiled: 10**9)
        return (lambda r, m, b, w, c: m["cell"][:, :, 0, 0]), (
            17 * 10**9 if len(compiled) == 1 else 10**9
        )

    monkeypatch.setattr(Scorer, "_compile", compile_once)
    scorer, scores = machine_scores(7, count=7)
    np.testing.assert_array_equal(scores, np.arange(7))
    assert scorer.chunk_size == 4


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("RESOURCE_EXHAUSTED: x", MemoryError),
        ("INTERNAL: x", jax.errors.JaxRuntimeError),
    ],
)
def test_errors_that_halving_cannot_mend_come_through(monkeypatch, message, error):
    Machine(0, monkeypatch, message)
    with pytest.raises(error):
        machine_scores(2)


def test_bad_arguments_are_refused():
    with pytest.raises(InputError, match="chunk_size must be at least 1, got 0"):
        GPU.replace(chunk=0)
    with pytest.raises(InputError, match="unknown precision 'low'; known: highest"):
        GPU.replace(precision="low")
    with pytest.raises(InputError, match="unknown platform 'metal'; known: cpu"):
        of_platform("metal")
    fn, batches = PROXIES["nwot"].score, jax.tree.map(lambda leaf: leaf[None], DATA)
    with pytest.raises(InputError, match="which must name batches from 0 to 0"):
        Scorer(fn, lambda v, x, m: x)({}, batches, {}, np.array([0, 1]))
    for masks in ({"a": np.ones((2, 1)), "b": np.ones((3, 1))}, {"a": np.ones((0, 1))}):
        with pytest.raises(InputError, match="masks must be a stack"):
            score_masks(PROXIES["nwot"].score, lambda v, x, m: x, {}, DATA, masks)
