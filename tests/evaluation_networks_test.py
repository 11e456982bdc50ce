"""The networks that are trained from scratch in the end, and how they are named."""

import json

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import helpers
from tests.own_space import Chain
from zcpt_jax.io.genotype_file import GenotypeFile, dump_genotype, resolve_genotype
from zcpt_jax.nn import capture
from zcpt_jax.nn.size import count_flops, count_params
from zcpt_jax.spaces import SPACES, get_space
from zcpt_jax.types import AUXILIARY, NOISE, InputError

CIFAR, IMAGENET = (32, 32, 3), (224, 224, 3)
CIFAR_SIZE = {"channels": 36, "cells": 20}
IMAGENET_SIZE = {"channels": 48, "cells": 14, "stem": "imagenet"}
SMALL = {"channels": 2, "cells": 3}
CELLS = get_space("darts").published()
ALL_3X3 = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|"
    "+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
)


def darts(name, classes=10, auxiliary=False, **options):
    space = get_space("darts", **options)
    return space, space.evaluation_network(CELLS[name], classes, auxiliary)


def images(image_size, count=2):
    return jnp.asarray(helpers.batch(count, image_size).images)


def fresh(space, network, image_shape):
    return space.init_variables(network, jax.random.key(0), image_shape)


def shapes(tree):
    return jax.tree.map(jnp.shape, tree)


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


# Parameters


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("DARTS_V1", 3_169_414),
        ("DARTS_V2", 3_349_342),
        ("PDARTS", 3_433_798),  # published as 3.4 M
        ("PC_DARTS_cifar", 3_634_678),  # published as 3.6 M
    ],
)
def test_cifar_networks_have_as_many_parameters_as_published(name, expected):
    _, network = darts(name, **CIFAR_SIZE)
    assert count_params(network, CIFAR) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("DARTS_V2", 4_718_752),
        ("PDARTS", 4_944_352),  # published as 4.9 M
        ("PC_DARTS_image", 5_342_464),  # published as 5.3 M
    ],
)
def test_imagenet_networks_have_as_many_parameters_as_published(name, expected):
    _, network = darts(name, 1000, **IMAGENET_SIZE)
    assert count_params(network, IMAGENET) == expected


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("nor_conv_3x3", 1_531_546),
        ("nor_conv_1x1", 241_306),
        ("skip_connect", 73_306),
    ],
)
def test_nasbench201_networks_have_as_many_parameters_as_published(operation, expected):
    space = get_space("nasbench201")
    genotype = space.parse(ALL_3X3.replace("nor_conv_3x3", operation))
    assert count_params(space.evaluation_network(genotype, 10), CIFAR) == expected


# The auxiliary head


@pytest.mark.parametrize(
    ("options", "classes", "image_shape", "last_norm"),
    [(CIFAR_SIZE, 10, CIFAR, 2 * 768), (IMAGENET_SIZE, 1000, IMAGENET, 0)],
)
def test_the_auxiliary_head_has_these_parameters(
    options, classes, image_shape, last_norm
):
    space, network = darts("DARTS_V2", classes, True, **options)
    variables = fresh(space, network, image_shape)
    assert set(variables) == {"params", "batch_stats"}
    params = dict(variables["params"])
    head = params.pop("auxiliary_head")
    # Four nodes of four times the channels of the first cell.
    squeeze = 4 * 4 * options["channels"] * 128 + 2 * 128
    square = 2 * 2 * 128 * 768 + last_norm
    assert size(head) == squeeze + square + 768 * classes + classes
    _, without = darts("DARTS_V2", classes, **options)
    rest = fresh(space, without, image_shape)["params"]
    chex.assert_trees_all_equal_shapes(params, rest)


@pytest.mark.parametrize(
    ("options", "image_size"),
    [(SMALL, 32), (SMALL, 64), ({**SMALL, "channels": 4, "stem": "imagenet"}, 224)],
)
def test_the_logits_are_those_of_the_network_without_the_head(options, image_size):
    space, network = darts("DARTS_V2", 5, True, **options)
    _, without = darts("DARTS_V2", 5, **options)
    shape = (image_size, image_size, 3)
    variables = fresh(space, network, shape)
    assert set(variables) == {"params", "batch_stats"}
    pruned = {
        kind: {k: v for k, v in tree.items() if k != "auxiliary_head"}
        for kind, tree in variables.items()
    }
    x = images(image_size)
    alone = jax.jit(without.apply)(pruned, x)
    # Without the head's parameters: it does not run unless it is asked for.
    np.testing.assert_array_equal(jax.jit(network.apply)(pruned, x), alone)
    both = jax.jit(lambda v, x: network.apply(v, x, mutable=[AUXILIARY]))
    logits, out = both(variables, x)
    np.testing.assert_allclose(logits, alone, rtol=1e-5, atol=1e-6)
    assert set(out) == {AUXILIARY} and set(out[AUXILIARY]) == {"logits"}
    auxiliary = out[AUXILIARY]["logits"]
    assert auxiliary.shape == logits.shape == (2, 5)
    assert np.isfinite(auxiliary).all() and np.ptp(auxiliary, axis=0).all()


def test_the_head_is_what_it_says():
    """Worked out again in NumPy, on an 8x8 feature map."""
    from zcpt_jax.spaces._darts_auxiliary import AuxiliaryHead

    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    head = AuxiliaryHead(4, imagenet=False)
    variables = head.init(jax.random.key(0), x)
    params = jax.tree.map(np.asarray, variables["params"])
    relu = np.maximum(x, 0)
    pooled = np.stack(
        [relu[:, i : i + 5, j : j + 5].mean((1, 2)) for i in (0, 3) for j in (0, 3)], 1
    )
    unit = np.float32(1 / np.sqrt(1 + 1e-5))  # BatchNorm on fresh statistics
    squeezed = np.maximum(pooled @ params["conv_1"]["kernel"][0, 0] * unit, 0)
    kernel = params["conv_2"]["kernel"].reshape(4 * 128, 768)
    features = np.maximum(squeezed.reshape(2, -1) @ kernel * unit, 0)
    last = params["classifier"]["linear"]
    expected = features @ last["kernel"] + last["bias"]
    np.testing.assert_allclose(head.apply(variables, x), expected, rtol=1e-4, atol=1e-5)


def test_the_head_reads_the_cell_at_two_thirds():
    seen = []

    def watch(next_fun, args, kwargs, context):
        if context.method_name == "__call__":
            seen.append(context.module.name)
        return next_fun(*args, **kwargs)

    space, network = darts("DARTS_V2", auxiliary=True, channels=2, cells=5)
    with nn.intercept_methods(watch):
        fresh(space, network, CIFAR)
    parts = [n for n in seen if n and (n.startswith("cell") or n == "auxiliary_head")]
    expected = ["cell0", "cell1", "cell2", "cell3", "auxiliary_head", "cell4"]
    assert parts == expected


def test_the_gradient_of_the_auxiliary_logits_ends_at_two_thirds():
    space, network = darts("DARTS_V2", auxiliary=True, **SMALL)
    variables = fresh(space, network, CIFAR)

    @jax.jit
    @jax.grad
    def slope(params):
        loaded = {**variables, "params": params}
        _, out = network.apply(loaded, images(32), mutable=[AUXILIARY])
        return jnp.square(out[AUXILIARY]["logits"]).sum()

    found = slope(variables["params"])
    reached = {
        name: any(leaf.any() for leaf in jax.tree.leaves(tree))
        for name, tree in found.items()
    }
    assert not reached.pop("classifier")
    assert all(reached.values())


@pytest.mark.parametrize(
    ("options", "image_size", "message"),
    [
        (SMALL, 16, "at least 8x8, got 4x4: use larger images"),
        ({**SMALL, "stem": "imagenet"}, 192, "at least 7x7, got 6x6"),
    ],
)
def test_images_too_small_for_the_head_say_so(options, image_size, message):
    space, network = darts("DARTS_V2", auxiliary=True, **options)
    with pytest.raises(InputError, match=message):
        fresh(space, network, (image_size, image_size, 3))


def test_proxies_and_flops_see_no_head():
    space, network = darts("DARTS_V2", auxiliary=True, **SMALL)
    _, without = darts("DARTS_V2", **SMALL)
    assert count_flops(network, CIFAR) == count_flops(without, CIFAR)
    variables = fresh(space, network, CIFAR)
    layers = []

    def add(path, out):
        layers.append(path)
        return out

    def run(variables, x):
        apply = lambda v, x, _: network.apply(v, x)  # noqa: E731
        return capture.forward(apply, variables, x, None, norm="batch", on_layer=add)

    jax.eval_shape(run, variables, images(32))
    assert layers and not any(path[0] == "auxiliary_head" for path in layers)


# Drop path


def drop_paths(space, module, image_size=32, **rngs):
    """Names of the markers that are called, each with its cell; and their shapes."""
    variables = fresh(space, module, (image_size, image_size, 3))
    assert "drop" not in str(shapes(variables))
    seen = {}

    def watch(next_fun, args, kwargs, context):
        module = context.module
        if isinstance(module, capture.DropPath):
            assert module.path not in seen
            seen[module.path] = args[0].shape
        return next_fun(*args, **kwargs)

    with nn.intercept_methods(watch):
        jax.eval_shape(
            lambda v, x: module.apply(v, x, rngs=rngs), variables, images(image_size)
        )
    return seen


def dropped(genotype, cells, reductions):
    """How many edges drop their path, counted from the genotype."""
    fields, count = json.loads(genotype), 0
    for index in range(cells):
        group = "reduce" if index in reductions else "normal"
        for op, source in fields[group]:
            strided = group == "reduce" and source < 2
            count += op != "none" and (op != "skip_connect" or strided)
    return count


@pytest.mark.parametrize("name", ["DARTS_V2", "PC_DARTS_image"])
def test_all_but_identities_can_drop_their_path(name):
    space, network = darts(name, channels=2, cells=6)
    seen = drop_paths(space, network)
    assert len(seen) == dropped(CELLS[name], 6, {2, 4})
    spatial = {2: 16, 4: 8}
    for path, shape in seen.items():
        cell = int(path[0].removeprefix("cell"))
        side = 32 if cell < 2 else spatial[2 if cell < 4 else 4]
        features = 2 * 32 // side
        assert shape == (2, side, side, features), path


def test_factorized_reductions_and_noise_are_dropped_and_none_is_absent():
    s3 = get_space("darts_s3", **SMALL)
    normal = [["none", 0], ["sep_conv_3x3", 1], ["skip_connect", 0], ["none", 1]] * 2
    reduce = [["skip_connect", 0], ["skip_connect", 1], ["none", 0]]
    reduce += [["skip_connect", 2], ["sep_conv_3x3", 0], ["skip_connect", 2]]
    reduce += [["skip_connect", 1], ["skip_connect", 4]]
    concat = [2, 3, 4, 5]
    fields = {"normal": normal, "normal_concat": concat}
    genotype = s3.parse(
        json.dumps({**fields, "reduce": reduce, "reduce_concat": concat})
    )
    seen = drop_paths(s3, s3.evaluation_network(genotype, 5))
    assert len(seen) == dropped(genotype, 3, {1, 2}) == 2 + 2 * 4
    s4 = get_space("darts_s4", **SMALL)
    pairs = [["noise", 0], ["sep_conv_3x3", 1]] * 4
    both = {"normal": pairs, "reduce": pairs}
    both |= {f"{group}_concat": concat for group in both}
    network = s4.evaluation_network(s4.parse(json.dumps(both)), 5)
    seen = drop_paths(s4, network, **{NOISE: jax.random.key(0)})
    assert len(seen) == 3 * 8


def test_supernets_and_other_spaces_drop_nothing():
    space = get_space("darts", **SMALL)
    assert not drop_paths(space, space.supernet(5))
    other = get_space("nasbench201", channels=2, cells_per_stage=1)
    assert not drop_paths(other, other.evaluation_network(ALL_3X3, 5))


def test_training_can_drop_each_edge_by_itself():
    """As training will: an interceptor that zeroes paths of whole images."""
    space, network = darts("DARTS_V1", 5, **SMALL)
    variables = fresh(space, network, CIFAR)
    x = images(32, 4)

    def drop(next_fun, args, kwargs, context):
        module, out = context.module, next_fun(*args, **kwargs)
        if not isinstance(module, capture.DropPath):
            return out
        kept = jax.random.bernoulli(module.make_rng("drop_path"), 0.5, (len(out),))
        return out * (kept[:, None, None, None] / 0.5)

    @jax.jit
    def run(key):
        with nn.intercept_methods(drop):
            return network.apply(variables, x, rngs={"drop_path": key})

    one, again, other = (run(jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any(axis=1).all()


# All spaces

GENOTYPES = {
    "nasbench201": (ALL_3X3, {"channels": 2, "cells_per_stage": 1}, 8),
    "nasbench_macro": ("22212220", {"channels": 2}, 16),
    "mobilenet": (" ".join(["0"] * 21), {"width_multiplier": 0.1}, 32),
}
OPTIONS = {"darts": SMALL, "nasbench1shot1": {"channels": 2, "cells_per_stage": 1}}


def small_case(name):
    """A space with a genotype and the side of its images."""
    if name in GENOTYPES:
        genotype, options, side = GENOTYPES[name]
        space = get_space(name, **options)
        return space, space.parse(genotype), side
    space = get_space(name, **OPTIONS[name.split("_")[0]])
    masks = {group: np.zeros_like(m) for group, m in space.init_masks().items()}
    if name.startswith("darts"):
        for mask in masks.values():
            mask[[0, 1, 2, 3, 5, 6, 9, 10], -1] = 1
        return space, space.genotype(masks), 16
    return space, first_of_each(space), 16


def first_of_each(space):
    """The genotype of a search that always keeps the first candidates."""
    masks = {group: np.array(m) for group, m in space.init_masks().items()}
    for phase in space.phases():
        for decision in (d for track in phase.tracks for d in track):
            for index in range(decision.keep, len(decision.candidates)):
                for group, region in decision.regions.items():
                    masks[group][region[index]] = 0
    return space.genotype({group: (m > 0) * 1.0 for group, m in masks.items()})


@pytest.mark.parametrize("name", SPACES)
def test_every_space_has_evaluation_networks(name):
    space, genotype, side = small_case(name)
    network = space.evaluation_network(genotype, 5)
    assert network == space.network(genotype, 5)
    variables = fresh(space, network, (side, side, 3))
    rngs = {NOISE: jax.random.key(1)}
    logits = jax.jit(lambda v, x: network.apply(v, x, rngs=rngs))(
        variables, images(side)
    )
    assert logits.shape == (2, 5) and np.isfinite(logits).all()


@pytest.mark.parametrize("name", [n for n in SPACES if not n.startswith("darts")])
def test_networks_without_an_auxiliary_head_say_so(name):
    space, genotype, _ = small_case(name)
    message = f"the networks of {name} have no auxiliary head; train without one"
    with pytest.raises(InputError, match=message):
        space.evaluation_network(genotype, 5, auxiliary=True)


def test_a_space_of_ones_own_inherits_all_that():
    space = Chain()
    genotype = " ".join(["skip"] * space.layers)
    assert space.evaluation_network(genotype, 5) == space.network(genotype, 5)
    assert space.published() == {}
    variables = fresh(space, space.network(genotype, 5), (8, 8, 3))
    assert set(variables) == {"params"}
    with pytest.raises(InputError, match="of chain have no auxiliary head"):
        space.evaluation_network(genotype, 5, True)


# Genotypes by name


def test_published_cells_are_canonical_and_known_by_name():
    space = get_space("darts")
    assert {"DARTS_V1", "DARTS_V2", "PDARTS", "PC_DARTS_cifar"} <= set(CELLS)
    assert len(set(CELLS.values())) == len(CELLS)
    for name, genotype in CELLS.items():
        assert space.parse(genotype) == genotype
        assert resolve_genotype(name, space) == genotype
        assert resolve_genotype(f" {name}\n", space) == genotype
        with pytest.raises(InputError, match="malformed darts genotype"):
            space.parse(name)
    for name in set(SPACES) - {"darts"}:
        assert get_space(name).published() == {}


def test_cells_of_the_paper_are_as_its_authors_published_them(tables_dir):
    file = tables_dir / "published_genotypes.json"
    if not file.exists():
        pytest.skip(f"no {file}")
    theirs, space = json.loads(file.read_text()), get_space("darts")
    ours = {name: text for name, text in CELLS.items() if "_pt_s5_" in name}
    assert len(ours) == 12
    for name, genotype in ours.items():
        assert space.parse(json.dumps(theirs[name])) == genotype


def write_run(folder, space="darts", genotype=CELLS["PDARTS"]):
    record = GenotypeFile(space, {"channels": 16}, genotype, "cifar10", 10)
    folder.mkdir()
    (folder / "genotype.json").write_text(dump_genotype(record))
    return folder


def test_genotypes_from_files_directories_and_literals(tmp_path, monkeypatch):
    space = get_space("darts", channels=36)
    run = write_run(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    canonical = CELLS["PDARTS"]
    literal = space.forms(canonical)["as Python"]
    for text in (
        "run",
        "run/genotype.json",
        str(run),
        canonical,
        literal,
        f"MINE = {literal}\n",
    ):
        assert resolve_genotype(text, space) == canonical
    # A name goes before a directory of that name, which has a path as well.
    write_run(tmp_path / "DARTS_V2")
    assert resolve_genotype("DARTS_V2", space) == CELLS["DARTS_V2"]
    assert resolve_genotype("./DARTS_V2", space) == canonical
    cell = get_space("nasbench201")
    write_run(tmp_path / "cell", "nasbench201", ALL_3X3)
    assert resolve_genotype("cell", cell) == resolve_genotype(ALL_3X3, cell) == ALL_3X3


def test_what_is_no_genotype_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space, cell = get_space("darts"), get_space("nasbench201")
    write_run(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("hello")
    for text, where, message in (
        ("run", cell, r"holds a genotype of the space darts, not of nasbench201"),
        ("empty", space, "the directory empty has no genotype.json"),
        ("text", space, "the genotype file text is not JSON"),
        ("DARTS_V3", space, r"'DARTS_V3' is no genotype .* \(DARTS_V1, DARTS_V2, "),
        ("DARTS_V2", cell, r"the space nasbench201 \(it has none\)"),
        ("runs/absent.json", space, "'runs/absent.json' is no genotype file"),
        ("", space, "'' is no genotype file"),
        ("a\0b", space, "is no genotype file"),
        ("\ud800", space, "is no genotype file"),
        ("x" * 5000, space, r"'x{60}\.\.\.' is no genotype file"),
    ):
        with pytest.raises(InputError, match=message):
            resolve_genotype(text, where)
    write_run(tmp_path / "bad", "darts", "Genotype()")
    with pytest.raises(InputError, match="malformed darts genotype"):
        resolve_genotype("bad", space)
