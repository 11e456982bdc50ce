import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import helpers
from zcpt_jax import masks as mask_algebra
from zcpt_jax.nn import capture
from zcpt_jax.nn.size import count_flops, count_params
from zcpt_jax.spaces._mobilenet import LAYERS, OPS, MobileNet, Network
from zcpt_jax.types import InputError

TINY = MobileNet(width_multiplier=0.125)
IMAGE = (32, 32, 3)
FIRST_LAYERS = (0, 4, 8, 12, 16, 20)
MIXED = "5 -1 0 1 2 3 4 -1 0 1 2 -1 4 -1 -1 5 1 3 5 -1 2"
ALL_IDENTITY = " ".join("0" if i in FIRST_LAYERS else "-1" for i in range(21))


def test_the_published_supernet_has_as_many_parameters():
    supernet = MobileNet().supernet(1000)
    assert count_params(supernet, IMAGE) == 27_684_320


def test_parameters_and_flops_by_hand():
    """Stem, one k3e3 a stage, head, at full width."""

    def conv(size, fan_in, features):  # with BatchNorm
        return size**2 * fan_in * features + 2 * features

    params = conv(3, 3, 40) + conv(3, 1, 40) + conv(1, 40, 24)
    macs = 16 * 16 * (27 * 40 + 9 * 40 + 40 * 24)  # images of 32x32
    source, side = 24, 16
    for features, out in ((32, 8), (56, 4), (112, 2), (128, 2), (256, 1), (432, 1)):
        inner = 3 * source
        params += conv(1, source, inner) + conv(3, 1, inner) + conv(1, inner, features)
        macs += source * inner * side**2 + (9 + features) * inner * out**2
        source, side = features, out
    params += conv(1, 432, 1728) + 1729 * 1000
    macs += 432 * 1728 + 1728 * 1000
    network = MobileNet().network(ALL_IDENTITY, 1000)
    assert count_params(network, IMAGE) == params
    assert count_flops(network, IMAGE) == macs


def random_genotype(seed):
    rng = np.random.default_rng(seed)
    return " ".join(
        str(rng.integers(0 if i in FIRST_LAYERS else -1, 6)) for i in range(21)
    )


def test_owners_count_what_each_network_holds():
    genotypes = [ALL_IDENTITY, random_genotype(0)]
    by_owner, by_network = helpers.costs_and_counts(TINY, genotypes, IMAGE)
    assert by_owner == by_network


def test_operations_of_weight_zero_are_absent_and_the_others_summed():
    """Against networks that never had them; two layers stand for all."""
    supernet = Network(tuple(layer.ops for layer in LAYERS[:2]), 0.125, 10)
    variables = TINY.init_variables(supernet, jax.random.key(0), IMAGE)
    images = jnp.asarray(helpers.batch(size=4, image_size=32).images)
    run = helpers.agreement(supernet)
    everything, _ = run(variables, images, TINY.init_masks())
    for chosen in (
        (("k5e3",), ("k3e6", "identity")),
        (("k3e3",), ("k3e3",)),
    ):
        own = {
            kind: {
                name: leaves
                for name, leaves in tree.items()
                if not name.startswith("layer") or name[7:] in chosen[int(name[5])]
            }
            for kind, tree in variables.items()
        }
        masks = {"layers": np.zeros((21, 7), "f4")}
        for layer, ops in enumerate(chosen):
            for op in ops:
                masks["layers"][layer, OPS.index(op)] = 1
        logits, kernel = run(variables, images, masks)
        network = Network(chosen, 0.125, 10)
        expected, own_kernel = helpers.agreement(network)(own, images, None)
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(kernel, own_kernel)
        assert np.abs(everything - expected).max() > 1e-3


def test_every_relu_is_cut_off_at_six():
    caps = []

    def note(next_fun, args, kwargs, context):
        if isinstance(context.module, capture.ReLU):
            caps.append(context.module.cap)
        return next_fun(*args, **kwargs)

    network = TINY.network(MIXED.replace("-1", "0"), 10)
    with capture.nn.intercept_methods(note):
        jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *IMAGE)))
    # Stem, depthwise of the first block, two a layer, head.
    assert caps == [6] * (1 + 1 + 2 * 21 + 1)


def test_supernets_and_networks_are_initialised_differently():
    supernet = Network((LAYERS[0].ops,), 1.0, 10)
    network = Network((("k7e6",),), 1.0, 10)
    drawn = {}
    for net in (supernet, network):
        variables = TINY.init_variables(net, jax.random.key(0), IMAGE)
        drawn[net] = variables["params"]["layer0_k7e6"]
    for layer, size, fan_in, features in (
        ("expand", 1, 24, 144),
        ("depthwise", 7, 49, 144),
        ("project", 1, 144, 32),
    ):
        normal = np.asarray(drawn[supernet][layer]["kernel"])
        std = (2 / (size**2 * features)) ** 0.5
        np.testing.assert_allclose(normal.std(), std, rtol=0.06)
        assert np.abs(normal).max() > 3 * std
        uniform = np.abs(drawn[network][layer]["kernel"])
        assert 0.98 < uniform.max() * fan_in**0.5 <= 1.000001


def test_decisions_lead_to_a_genotype():
    ((track,),) = [phase.tracks for phase in TINY.phases()]
    masks = TINY.init_masks()
    identity = [0.0 if i in FIRST_LAYERS else 1.0 for i in range(21)]
    np.testing.assert_array_equal(masks["layers"][:, 6], identity)
    assert (masks["layers"][:, :6] == 1).all()
    codes = [int(code) for code in MIXED.split()]
    for layer, (decision, code) in enumerate(zip(track, codes, strict=True)):
        assert decision.candidates == (OPS[:6] if layer in FIRST_LAYERS else OPS)
        removed = mask_algebra.removals(masks, decision)["layers"]
        assert [(masks["layers"] != r).sum() for r in removed] == [1] * len(removed)
        masks = mask_algebra.apply_decision(masks, decision, [code % 7])
    assert TINY.genotype(masks) == MIXED
    np.testing.assert_array_equal(masks["layers"], TINY.masks_of(MIXED)["layers"])


def test_genotypes_go_round():
    assert TINY.parse(f"  {MIXED.replace(' ', '  ')}\n") == MIXED


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it has 0 layers; expected 21 integers"),
        (MIXED + " 0", "it has 22 layers"),
        (MIXED[:-1] + "6", r"it has '6'; .* from -1 \(identity\) to 5"),
        (MIXED.replace("5", "5.0", 1), "it has '5.0'"),
        (MIXED[:-1] + "-1", r"-1 \(identity\) in layer 20, which begins a stage"),
    ],
)
def test_malformed_genotypes_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        TINY.parse(text)


def test_wrong_masks_sizes_and_widths_are_refused():
    net = Network((LAYERS[0].ops,), 0.125, 10)
    key = jax.random.key(0)
    with pytest.raises(InputError, match=r"\[layers, O\] = \[21, 7\], got \[7, 21\]"):
        net.init(key, jnp.zeros((1, *IMAGE)), {"layers": jnp.zeros((7, 21))})
    with pytest.raises(InputError, match="divisible by 32, got 64x48"):
        net.init(key, jnp.zeros((1, 64, 48, 3)))
    with pytest.raises(InputError, match="width_multiplier=0.04 leaves no channel"):
        MobileNet(width_multiplier=0.04).supernet(10)


def test_the_drawing_has_a_row_for_each_stage():
    (drawing,) = TINY.drawings(MIXED)
    rows = itertools.groupby(y for _, y in drawing.nodes.values())
    assert [len(list(row)) for _, row in rows] == [4, 4, 4, 4, 4, 1]
    assert drawing.labels["0"] == "k7e6" and drawing.labels["1"] == "identity"
    edges = [edge[:2] for edge in drawing.edges]
    assert edges == list(itertools.pairwise(drawing.nodes))
    assert drawing.muted == {"identity"}
