"""A search is one program, or two; nothing in its hot loop goes through the host."""

import jax
import numpy as np
import pytest
from flax import traverse_util

from tests import helpers
from zcpt_jax import get_space, proxies
from zcpt_jax import masks as mask_algebra
from zcpt_jax.data import load_dataset
from zcpt_jax.lowering import CPU, GPU, TPU
from zcpt_jax.scoring import Evaluator, Execution, ScoringConfig
from zcpt_jax.scoring.scorer import Scorer
from zcpt_jax.search.enumeration import Enumeration
from zcpt_jax.sharding import make_mesh
from zcpt_jax.stopwatch import Stopwatch
from zcpt_jax.types import AS_NETWORK

FORMS = {"cpu": CPU, "gpu": GPU, "tpu": TPU}
TINY = {
    "nasbench201": {"channels": 4, "cells_per_stage": 1},
    "darts_s2": {"channels": 4, "cells": 3},
    "darts": {"channels": 4, "cells": 3},
    "nasbench1shot1_1": {"channels": 4, "cells_per_stage": 1},
    "nasbench_macro": {"channels": 4},
    "mobilenet": {"width_multiplier": 0.1},
}
# What divides by, or takes the logarithm of, a difference; eigenvalues.
RTOL = {"zico": 1e-3, "zen": 1e-4, "ntk_cond": 1e-3, "jacob_cov": 1e-3, "grasp": 1e-3}
DIGITS = load_dataset("digits", image_size=8)


def search(space, form, **settings):
    stopwatch = Stopwatch()
    settings = {"num_proposals": 3, "num_validation_batches": 12, **settings}
    result = helpers.search(
        space,
        proxies.PROXIES["nwot"],
        DIGITS,
        batch_size=6,
        form=form,
        stopwatch=stopwatch,
        **settings,
    )
    return result, [program.name for program in stopwatch.programs]


SLOW = pytest.mark.slow


@pytest.mark.parametrize("initialisations", [pytest.param("one", marks=SLOW), "each"])
def test_every_form_finds_the_same_by_one_program(initialisations):
    space = get_space("nasbench201", **TINY["nasbench201"])
    found = {}
    for name, form in FORMS.items():
        result, programs = search(space, form, initialisations=initialisations)
        assert programs == ["nwot, supernet"]
        found[name] = result
    for result in found.values():
        assert result.proposals == found["cpu"].proposals
        assert result.genotype == found["cpu"].genotype
        for genotype, scores in result.validation.items():
            np.testing.assert_allclose(
                scores, found["cpu"].validation[genotype], rtol=helpers.CHUNK_RTOL
            )


@pytest.mark.parametrize(
    "form", [CPU, pytest.param(GPU, marks=SLOW)], ids=["cpu", "gpu"]
)
def test_a_darts_search_compiles_the_supernet_and_the_networks(form):
    space = get_space("darts_s2", **TINY["darts_s2"])
    result, programs = search(space, form)
    assert sorted(programs) == ["nwot, networks", "nwot, supernet"]
    assert len(set(result.proposals)) > 1


@pytest.mark.parametrize(
    ("devices", "initialisations"),
    [
        (1, "one"),
        pytest.param(1, "each", marks=SLOW),
        pytest.param(8, "one", marks=[SLOW, pytest.mark.cpu_only]),
        pytest.param(8, "each", marks=pytest.mark.cpu_only),
    ],
)
def test_nothing_in_the_hot_loop_goes_through_the_host(devices, initialisations):
    """Arrays are put on the devices on purpose, and scores are read on purpose."""
    space = get_space("nasbench201", **TINY["nasbench201"])
    mesh = make_mesh(devices) if devices > 1 else None
    evaluator = Evaluator(
        space,
        proxies.PROXIES["nwot"],
        DIGITS,
        ScoringConfig(batch_size=6, seed=1, initialisations=initialisations),
        together=2,
        execution=Execution(GPU, mesh),
    )
    masks = helpers.all_removals(space)
    masks = {"cell": masks["cell"][:10]}
    owners = np.repeat([0, 1], 5)
    decided = [Enumeration(space).masks(number) for number in (7, 9000)]
    names = [space.genotype(one) for one in decided]
    first = evaluator.score_masks(0, masks, owners)
    with jax.transfer_guard("disallow"):
        again = evaluator.score_masks(0, masks, owners)
        evaluator.score_masks(1, masks, owners)
        evaluator.score_networks(names, decided, 0, 3)
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize(
    "name",
    ["nasbench201"] + [pytest.param(n, marks=SLOW) for n in TINY if n != "nasbench201"],
)
def test_a_masked_network_scores_as_the_network_does(name):
    check_networks(name, ["nwot"])


@pytest.mark.slow
def test_a_masked_network_scores_as_the_network_does_by_every_proxy():
    # The crops of linear_regions would all lie in regions of their own.
    left_out = {"tenas", "az_nas", "linear_regions"}
    check_networks("nasbench201", sorted(set(proxies.PROXIES) - left_out))


@pytest.mark.slow
def test_a_masked_network_of_darts_scores_as_the_network_does():
    check_networks("darts_s2", ["swap", "log_synflow", "l2_norm", "params", "flops"])


def check_networks(name, names):
    space = get_space(name, **TINY[name])
    rng = helpers.rng(3)
    size = 32 if name == "mobilenet" else 8
    data = helpers.batch(size=6, image_size=size)
    joined = proxies.jointly([proxies.PROXIES[one] for one in names])
    masked = space.masked_network(10, joined.over_scales)
    shape = (size, size, 3)
    variables = space.init_networks(masked, jax.random.key(0), shape)
    enumeration = Enumeration(space)
    scorer = Scorer(joined.score, masked.apply, forward_only=joined.forward_only)
    for _ in range(2):
        number = int(rng.integers(min(enumeration.size, 2**60)))
        masks = enumeration.masks(number)
        network = space.network(space.genotype(masks), 10)
        own = variables_of(space, network, variables, masks, shape)
        entries = {**masks, AS_NETWORK: np.float32(1)}
        stack = jax.tree.map(lambda leaf: np.asarray(leaf)[None], entries)
        found = scorer(variables, data, stack)
        alone = Scorer(
            joined.score,
            lambda v, x, _, net=network, **rngs: net.apply(v, x, **rngs),
            forward_only=joined.forward_only,
        )
        stacked = jax.tree.map(lambda leaf: leaf[None], data)
        expected = alone(own, stacked, {}, np.zeros(1, int))
        wrong = [
            (proxy, a, b)
            for proxy, a, b in zip(names, found[0], expected[0], strict=True)
            # Differences of numbers of order one: az_progressivity.
            if not np.isclose(a, b, rtol=RTOL.get(proxy, 1e-5), atol=1e-6)
        ]
        assert not wrong


def variables_of(space, network, variables, masks, image_shape):
    """The network's variables: those of the masked network that the masks keep."""
    flat = traverse_util.flatten_dict(dict(variables))
    like = traverse_util.flatten_dict(
        dict(space.init_networks(network, jax.random.key(1), image_shape))
    )
    found = {}
    for path, leaf in like.items():
        if path not in flat:  # a scale or a bias that masked networks may leave out
            assert path[-1] in ("scale", "bias")
            found[path] = leaf
            continue
        whole = np.asarray(flat[path])
        if whole.shape != leaf.shape:
            owners = space.owner(path[1:-1])
            kept = [masks[o.group][o.entry] != 0 for o in owners]
            whole = whole[np.array(kept)]
        assert whole.shape == leaf.shape, path
        found[path] = whole
    return traverse_util.unflatten_dict(found)


@pytest.mark.optimised
def test_what_absent_operations_count_is_an_argument():
    """In a supernet the published hooks count what is blocked, in a network not."""
    space = get_space("nasbench201", **TINY["nasbench201"])
    net = space.supernet(10)
    variables = space.init_variables(net, jax.random.key(0), (8, 8, 3))
    masks = space.masks_of("|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|")
    stack = mask_algebra.stack([{g: m[None] for g, m in masks.items()}] * 3)
    stack[AS_NETWORK] = np.array([0, 1, 0], np.float32)
    scorer = Scorer(proxies.PROXIES["nwot"].score, net.apply)
    scores = scorer(variables, helpers.batch(6, 8), stack)
    del stack[AS_NETWORK]
    plain = scorer(variables, helpers.batch(6, 8), stack)
    assert scores[0] == scores[2] == plain[0] and scores[1] != scores[0]
