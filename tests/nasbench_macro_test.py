import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import helpers
from zcpt_jax import masks as mask_algebra
from zcpt_jax.nn.size import count_flops, count_params
from zcpt_jax.spaces._nasbench_macro import OPS, NasBenchMacro, Network
from zcpt_jax.types import InputError

BEST = "22212220"
IMAGE = (32, 32, 3)
TINY = NasBenchMacro(channels=4)
KEYS = ["".join(digits) for digits in itertools.product("012", repeat=8)]


def random_keys(count, seed=0):
    return np.random.default_rng(seed).choice(KEYS, count, replace=False).tolist()


def test_parameters_are_those_of_the_published_networks():
    space = NasBenchMacro()
    assert count_params(space.supernet(10), IMAGE) == 4_221_386
    assert count_params(space.network(BEST, 10), IMAGE) == 1_985_514


@pytest.fixture
def table(tables_dir):
    path = tables_dir / "nasbench_macro_cifar10.json"
    if not path.is_file():
        pytest.skip(f"no {path.name} in {tables_dir} (--tables_dir)")
    return json.loads(path.read_text())


@pytest.mark.parametrize("key", ["00000000", "11111111", BEST, *random_keys(3)])
def test_parameters_and_flops_are_the_tables(table, key):
    """Its flops are the multiply-adds of convolutions and the linear layer."""
    network = NasBenchMacro().network(key, 10)
    assert count_params(network, IMAGE) == table[key]["params"]
    assert count_flops(network, IMAGE) == table[key]["flops"]


def test_the_table_has_every_key_and_counts_equal_networks_alike(table):
    assert set(table) == set(KEYS)
    for key in KEYS:
        same = table[TINY.canonical(key)]
        assert all(table[key][what] == same[what] for what in ("params", "flops"))


def test_there_are_3969_networks():
    canonical = {key: TINY.canonical(key) for key in KEYS}
    assert len(set(canonical.values())) == 3_969
    assert canonical["02001010"] == "02010010"
    assert all(TINY.canonical(key) == key for key in canonical.values())


def test_equal_keys_are_one_network():
    """The same layers in the same order, so one seed draws the same weights."""
    key, images = "10201102", jnp.asarray(helpers.batch().images)
    assert TINY.canonical(key) == "10210120"
    outputs = []
    for same in (key, "10210120", "10210102", "10210210"):
        network = TINY.network(same, 10)
        variables = TINY.init_variables(network, jax.random.key(0), (16, 16, 3))
        outputs.append(jax.jit(network.apply)(variables, images))
    for equal in outputs[1:3]:
        np.testing.assert_allclose(equal, outputs[0], rtol=1e-5)
    assert np.abs(outputs[3] - outputs[0]).max() > 1e-4


def test_owners_count_what_each_network_holds():
    keys = ["00000000", *random_keys(3, seed=1)]
    by_owner, by_network = helpers.costs_and_counts(TINY, keys, (16, 16, 3))
    assert by_owner == by_network


def test_a_one_hot_mask_is_the_discrete_network():
    """In logits; all images agree on the ReLUs of blocked operations."""
    chosen = ("mb6_k5", "identity", "mb3_k3")  # three layers: two stages begin
    supernet = Network((OPS,) * 3, 4, 10)
    network = Network(tuple((op,) for op in chosen), 4, 10)
    variables = TINY.init_variables(supernet, jax.random.key(0), (16, 16, 3))
    rng = np.random.default_rng(0)
    # As after training: biases are not zero, so that blocks make something of zeros.
    variables = jax.tree_util.tree_map_with_path(
        lambda path, x: (
            x + 0.3 * rng.normal(size=x.shape).astype("f4")
            if path[-1].key == "bias"
            else x
        ),
        variables,
    )
    own = {
        kind: {
            name: leaves
            for name, leaves in tree.items()
            if not name.startswith("layer") or name[7:] in chosen[int(name[5])]
        }
        for kind, tree in variables.items()
    }
    masks = {"layers": np.zeros((8, 3), "f4")}
    for layer, op in enumerate(chosen):
        masks["layers"][layer, OPS.index(op)] = 1
    images = jnp.asarray(helpers.batch().images)
    logits, kernel = helpers.agreement(supernet)(variables, images, masks)
    expected, own_kernel = helpers.agreement(network)(own, images, None)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    blocked = 12 * (16**2 + 8**2)  # layer 0, 4 channels: mb3_k3
    blocked += 2 * (24 + 48) * 8**2  # layer 1, 8 channels: both
    blocked += 48 * (8**2 + 4**2)  # layer 2: mb6_k5
    np.testing.assert_array_equal(kernel, own_kernel + blocked)


def test_fresh_variables_have_pytorchs_bounds():
    net = Network((OPS,), 32, 10)
    params = TINY.init_variables(net, jax.random.key(0), (8, 8, 3))["params"]
    block = params["layer0_mb6_k5"]
    for layer, fan_in in (("expand", 32), ("depthwise", 25), ("project", 192)):
        kernel = np.abs(block[layer]["kernel"])
        assert 0.98 < kernel.max() * fan_in**0.5 <= 1.000001, layer


def test_decisions_lead_to_a_genotype():
    ((track,),) = [phase.tracks for phase in TINY.phases()]
    masks = TINY.init_masks()
    np.testing.assert_array_equal(masks["layers"], np.full((8, 3), np.float32(1 / 3)))
    assert [decision.candidates for decision in track] == [OPS] * 8
    for decision, digit in reversed(list(zip(track, BEST, strict=True))):
        removed = mask_algebra.removals(masks, decision)["layers"]
        assert [(masks["layers"] != r).sum() for r in removed] == [1, 1, 1]
        masks = mask_algebra.apply_decision(masks, decision, [int(digit)])
    assert TINY.genotype(masks) == BEST
    np.testing.assert_array_equal(masks["layers"], TINY.masks_of(BEST)["layers"])


def test_genotypes_keep_their_notation():
    assert TINY.parse(" 20012001\n") == "20012001"
    assert list(TINY.forms("20012001").values()) == ["20012010"]


@pytest.mark.parametrize("text", ["", "2221222", BEST + "0", "22212223", "2 212220"])
def test_malformed_genotypes_are_refused(text):
    with pytest.raises(InputError, match=f"{text!r}; expected 8 digits, one a layer"):
        TINY.parse(text)


def test_wrong_masks_and_sizes_are_refused():
    net = Network((OPS,), 4, 10)
    key = jax.random.key(0)
    with pytest.raises(InputError, match=r"\[layers, O\] = \[8, 3\], got \[3, 8\]"):
        net.init(key, jnp.zeros((1, 8, 8, 3)), {"layers": jnp.zeros((3, 8))})
    with pytest.raises(InputError, match="divisible by 8, got 32x28"):
        net.init(key, jnp.zeros((1, 32, 28, 3)))


def test_the_drawing_is_a_chain_of_operations():
    (drawing,) = TINY.drawings("20112220")
    nodes = list(drawing.nodes)
    assert list(drawing.labels.values()) == [OPS[int(digit)] for digit in "20112220"]
    assert [edge[:2] for edge in drawing.edges] == list(itertools.pairwise(nodes))
    assert drawing.muted == {"identity"}
    gaps = np.diff([x for x, _ in drawing.nodes.values()])
    assert np.flatnonzero(gaps > gaps.min()).tolist() == [1, 4]
