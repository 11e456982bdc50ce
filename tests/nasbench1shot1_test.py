import ast
import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from tests import helpers
from zcpt_jax import masks as mask_algebra
from zcpt_jax.nn import capture
from zcpt_jax.spaces._nasbench1shot1 import (
    NasBench1Shot1Space1,
    NasBench1Shot1Space2,
    NasBench1Shot1Space3,
)
from zcpt_jax.spaces._nasbench1shot1_genotype import OPS
from zcpt_jax.spaces._nasbench1shot1_network import Cell
from zcpt_jax.types import InputError

pytestmark = pytest.mark.slow

SPACES = (NasBench1Shot1Space1, NasBench1Shot1Space2, NasBench1Shot1Space3)
POOL, CONV3, CONV1 = OPS
TINY = {"channels": 2, "cells_per_stage": 1}
IMAGE = (8, 8, 3)


def genotype_of(ops, parents):
    size = len(ops) + 2
    matrix = [
        [int(r in parents[c - 1]) if c else 0 for c in range(size)] for r in range(size)
    ]
    ops = ["input", *ops, "output"]
    return json.dumps({"matrix": matrix, "ops": ops}, separators=(",", ":"))


def random_genotype(space, rng):
    counts = space.num_parents
    ops = rng.choice(OPS, size=len(counts) - 1).tolist()
    parents = [
        rng.choice(target, size=count, replace=False).tolist()
        for target, count in enumerate(counts, start=1)
    ]
    return genotype_of(ops, parents)


# Node 1 leads nowhere; neither node 3 nor the output reads the input.
SPACE2 = genotype_of([CONV1, POOL, CONV3, CONV1], [[0], [0], [1, 2], [0, 3], [2, 3, 4]])


@pytest.mark.parametrize(
    ("space", "params", "relus"),
    # As many as the published classes have; ReLUs with one wrapper that counts too.
    [(SPACES[0](), 1_101_402, 119 + 1), (SPACES[2](), 1_509_594, 146 + 1)],
    ids=["space1", "space3"],
)
def test_the_published_supernet(space, params, relus):
    net = space.supernet(10)
    image = (32, 32, 3)
    counts, states = [], []

    def run(variables, images, masks):
        capture.forward(
            net.apply,
            variables,
            images,
            masks,
            norm="running",
            on_relu=lambda z, live, dead: counts.append((live, dead)),
            on_cut=lambda cut: states.append([x.shape for x in cut]) or cut,
        )
        return jnp.array(counts).sum(axis=0)

    images = jnp.zeros((1, *image))
    shapes = jax.eval_shape(net.init, jax.random.key(0), images)
    leaves = jax.tree.leaves(shapes["params"])
    assert sum(math.prod(leaf.shape) for leaf in leaves) == params
    variables = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    # Nothing but the counts is compiled, as nothing else is returned.
    live, dead = jax.jit(run)(variables, images, space.init_masks())
    assert live == relus
    assert dead == 0
    width = 16 * (len(space.num_parents) - 1)
    sizes = [32] * 3 + [17] * 3 + [9] * 3
    channels = [16] + [width] * 3 + [2 * width] * 3 + [4 * width] * 2
    assert states == [[(1, s, s, c)] for s, c in zip(sizes, channels, strict=True)]


def slow_cell(variables, x, masks, features):
    """Space 3's cell in NumPy, written out for each node."""
    params, stats = variables["params"], variables["batch_stats"]

    def norm(z, scope, stat):
        z = (z - stat["mean"]) / np.sqrt(stat["var"] + 1e-5)
        return z * scope.get("scale", 1) + scope.get("bias", 0)

    def windows(z, fill):
        padded = np.pad(z, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=fill)
        height, width = z.shape[1:3]
        return {
            (i, j): padded[:, i : i + height, j : j + width]
            for i in range(3)
            for j in range(3)
        }

    def conv(z, name):
        kernel = np.asarray(params[name]["conv"]["kernel"])
        if kernel.shape[0] == 1:
            z = z @ kernel[0, 0]
        else:
            z = sum(view @ kernel[ij] for ij, view in windows(z, 0).items())
        return np.maximum(norm(z, params[name]["norm"], stats[name]["norm"]), 0)

    def mixed(z, node):
        pooled = np.max(list(windows(z, -np.inf).values()), axis=0)
        w = masks["op"][node - 1]
        name = f"node{node}_maxpool3x3"
        return (
            w[0] * norm(pooled, {}, stats[name])
            + w[1] * conv(z, f"node{node}_conv3x3")
            + w[2] * conv(z, f"node{node}_conv1x1")
        )

    n1 = mixed(conv(x, "projection1"), 1)
    w = masks["input_2"]
    n2 = mixed(w[0] * conv(x, "projection2") + w[1] * n1, 2)
    w = masks["input_3"]
    n3 = mixed(w[0] * conv(x, "projection3") + w[1] * n1 + w[2] * n2, 3)
    w = masks["input_4"]
    n4 = w[0] * conv(x, "projection4") + w[1] * n1 + w[2] * n2 + w[3] * n3
    n4 = mixed(n4, 4)
    w = masks["input_5"]
    n5 = w[0] * conv(x, "projection5") + w[1] * n1 + w[2] * n2 + w[3] * n3 + w[4] * n4
    n5 = mixed(n5, 5)
    w = masks["output"]
    nodes = [w[1] * n1, w[2] * n2, w[3] * n3, w[4] * n4, w[5] * n5]
    assert all(node.shape[-1] == features for node in nodes)
    return w[0] * conv(x, "projection6") + np.concatenate(nodes, axis=-1)


def test_the_cell_weighs_operations_and_inputs_as_described():
    space = SPACES[2](**TINY)
    rng = np.random.default_rng(0)
    masks = {
        group: rng.uniform(size=weights.shape).astype(np.float32)
        for group, weights in space.init_masks().items()
    }
    inputs = [[1.0], *(masks[f"input_{k}"] for k in range(2, 6)), masks["output"]]
    cell = Cell((OPS,) * 5, tuple(tuple(range(k)) for k in range(1, 7)), features=2)
    x = rng.normal(size=(2, 5, 5, 3)).astype(np.float32)
    shapes = jax.eval_shape(cell.init, jax.random.key(0), x, masks["op"], inputs)
    draw = lambda leaf: rng.uniform(0.2, 1, leaf.shape).astype(np.float32)  # noqa: E731
    variables = jax.tree.map(draw, shapes)
    variables["params"] = jax.tree.map(lambda v: v - 0.6, variables["params"])
    out = jax.jit(cell.apply)(variables, x, masks["op"], inputs)
    expected = slow_cell(variables, x, masks, features=2)
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)


def test_a_decided_mask_is_the_discrete_network():
    """In logits, for parents of every kind; nwot differs by the absent operations."""
    space = SPACES[1](**TINY)
    supernet, network = space.supernet(10), space.network(SPACE2, 10)
    variables = space.init_variables(supernet, jax.random.key(0), IMAGE)
    names = traverse_util.flatten_dict(
        jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *IMAGE)))
    )
    flat = traverse_util.flatten_dict(dict(variables))
    own = traverse_util.unflatten_dict({name: flat[name] for name in names})
    images = jnp.asarray(helpers.batch(size=4, image_size=8).images)
    run = jax.jit(supernet.apply)
    logits = jax.jit(network.apply)(own, images)
    np.testing.assert_allclose(
        logits, run(variables, images, space.masks_of(SPACE2)), rtol=1e-4, atol=1e-6
    )
    undecided = run(variables, images, space.init_masks())
    assert np.abs(logits - undecided).max() > 1e-3


@pytest.mark.parametrize("cls", SPACES)
def test_owners_count_what_a_network_has(cls):
    space, rng = cls(**TINY), np.random.default_rng(0)
    genotypes = [random_genotype(space, rng) for _ in range(3)]
    by_owner, by_network = helpers.costs_and_counts(space, genotypes, IMAGE)
    assert by_owner == by_network
    assert len(np.unique(by_owner, axis=0)) > 1


def test_undecided_masks():
    masks = SPACES[0]().init_masks()
    assert {group: w.shape for group, w in masks.items()} == {
        "op": (4, 3),
        "input_3": (3,),
        "input_4": (4,),
        "output": (5,),
    }
    for weights in masks.values():
        np.testing.assert_allclose(weights, 1 / weights.shape[-1])
    assert list(SPACES[1]().init_masks()) == [
        "op",
        "input_2",
        "input_3",
        "input_4",
        "output",
    ]
    assert list(SPACES[2]().init_masks())[1:5] == [f"input_{k}" for k in (2, 3, 4, 5)]


@pytest.mark.parametrize("cls", SPACES)
def test_decisions_lead_to_a_genotype(cls):
    """Every decision taken at random, each candidate removed in turn on the way."""
    space = cls()
    rng = np.random.default_rng(0)
    masks = space.init_masks()
    names = []
    for phase in space.phases():
        (track,) = phase.tracks
        for decision in track:
            names.append((phase.name, decision.name))
            removed = mask_algebra.removals(masks, decision)
            count = len(decision.candidates)
            off = [
                np.count_nonzero(masks[g]) - np.count_nonzero(w[i])
                for g, w in removed.items()
                if g in decision.regions
                for i in range(count)
            ]
            assert off == [1] * count
            kept = rng.choice(count, decision.keep, replace=False)
            masks = mask_algebra.apply_decision(masks, decision, kept.tolist())
    genotype = space.genotype(masks)
    for group, weights in space.masks_of(genotype).items():
        np.testing.assert_array_equal(weights, masks[group])
    nodes = len(space.num_parents) - 1
    chosen = [k for k in range(1, nodes + 1) if space.num_parents[k - 1] < k]
    assert names == [
        *(("operations", f"node {k}") for k in range(1, nodes + 1)),
        *(("inputs", f"inputs of {k}") for k in chosen),
        ("output", "inputs of output"),
    ]
    last = space.phases()[2].tracks[0][0]
    assert last.candidates == ("input", *(str(k) for k in range(1, nodes + 1)))
    assert last.keep == space.num_parents[-1]


def test_genotypes_are_the_graphs_of_nasbench101():
    space = SPACES[1]()
    matrix = [
        [0, 1, 1, 0, 1, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 1, 0, 1],
        [0, 0, 0, 0, 1, 1],
        [0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0],
    ]
    value = json.loads(SPACE2)
    assert value["matrix"] == matrix
    assert space.genotype(space.masks_of(SPACE2)) == SPACE2
    masks = space.masks_of(SPACE2)
    np.testing.assert_array_equal(masks["input_3"], [0, 1, 1])
    np.testing.assert_array_equal(masks["input_4"], [1, 0, 0, 1])
    np.testing.assert_array_equal(masks["output"], [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(masks["op"].argmax(1), [2, 0, 1, 2])


def seven(text):
    """The same with a vertex without edges before the output, as in published files."""
    value = json.loads(text)
    matrix = np.insert(np.insert(value["matrix"], 5, 0, axis=0), 5, 0, axis=1)
    ops = [*value["ops"][:5], CONV1, value["ops"][5]]
    return {"matrix": matrix.tolist(), "ops": ops}


def test_other_notations_are_understood():
    space = SPACES[1]()
    value = json.loads(SPACE2)
    matrix, ops = value["matrix"], value["ops"]
    for text in (
        json.dumps(value, indent=2),
        json.dumps(seven(SPACE2)),
        repr(value),
        repr(seven(SPACE2)),
        f" ModelSpec(matrix={matrix}, ops={ops})\n",
        f"api.ModelSpec(\n  {matrix},\n  {tuple(ops)})",
        "ModelSpec(ops={ops}, matrix={matrix})".format(**seven(SPACE2)),
    ):
        assert space.parse(text) == SPACE2
    assert ast.literal_eval(space.parse(SPACE2)) == value


def edited(**changes):
    return json.dumps(json.loads(SPACE2) | changes)


def moved(row, column, other):
    matrix = json.loads(SPACE2)["matrix"]
    matrix[row][column], matrix[row][other] = matrix[row][other], matrix[row][column]
    return edited(matrix=matrix)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "malformed"),
        ("[1, 2]", "malformed"),
        ("__import__('os').getcwd()", "malformed"),
        ("ModelSpec(matrix=open('x'), ops=[])", "malformed"),
        ("[" * 100_000, "malformed"),
        (edited(ops=["input", CONV3, "output"]), "must have 3 rows of 3 entries"),
        (edited(ops=[CONV3] * 6), "starts with 'input' and ends with 'output'"),
        (SPACE2.replace(POOL, "maxpool5x5"), "unknown operation 'maxpool5x5'"),
        (edited(ops=["input", [], *[CONV3] * 3, "output"]), r"unknown operation \[\]"),
        (edited(matrix=None), "must have 6 rows of 6 entries"),
        (moved(1, 1, 3), "0 or 1 above the diagonal"),
        (edited(matrix=[[0, 2] + [0] * 4] * 6), "0 or 1 above the diagonal"),
        (moved(0, 1, 3), "read 1, 1, 2, 2, 3 earlier nodes, but .* read 0, 1, 3, 2, 3"),
        (genotype_of([CONV3] * 5, [[0]] * 6), "has 6 vertices, .* has 7"),
        (genotype_of([CONV3], [[0], [0, 1]]), "has 6 vertices, .* has 3"),
    ],
)
def test_malformed_genotypes_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        SPACES[1]().parse(text)


def test_the_seventh_vertex_of_space_3_is_a_node():
    with pytest.raises(InputError, match="has 7 vertices, .* has 6"):
        SPACES[2]().parse(SPACE2)
    with pytest.raises(InputError, match=r"they read 1, 1, 2, 2, 0, 3$"):
        SPACES[2]().parse(json.dumps(seven(SPACE2)))


@pytest.mark.parametrize(
    ("group", "weights", "message"),
    [
        ("op", np.full((4, 3), 1 / 3), "edge 0 of mask group 'op' is not decided"),
        ("output", [0, 1, 1, 0, 0], "'output' is not decided.* exactly 3 parents"),
        ("input_4", [1.5, 0.5, 0, 0], "'input_4' is not decided.* exactly 2 parents"),
    ],
)
def test_undecided_masks_have_no_genotype(group, weights, message):
    space = SPACES[1]()
    masks = {**space.masks_of(SPACE2), group: np.array(weights, np.float32)}
    with pytest.raises(InputError, match=message):
        space.genotype(masks)


def test_wrong_masks_are_refused():
    space = SPACES[0](**TINY)
    net = space.supernet(10)
    masks = space.init_masks()
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, *IMAGE)))

    def run(masks):
        return jax.eval_shape(net.apply, shapes, jnp.zeros((1, *IMAGE)), masks)

    assert run(masks).shape == (1, 10)
    with pytest.raises(InputError, match=r"'output': \(5,\)}, got .*'output': \(4,\)}"):
        run({**masks, "output": np.ones(4, np.float32)})
    with pytest.raises(InputError, match="the masks must have the shapes"):
        run({**masks, "input_2": np.ones(2, np.float32)})


def test_table_keys_are_the_hashes_of_all_genotypes():
    space = SPACES[0]()
    parents = itertools.product(
        *(
            itertools.combinations(range(k), n)
            for k, n in enumerate(space.num_parents, start=1)
        )
    )
    ops = list(itertools.product(OPS, repeat=4))
    keys = {space.table_key(genotype_of(o, p)) for p in parents for o in ops}
    assert keys == space.table_keys()
    assert len(keys) == 2_685
    assert len(SPACES[1]().table_keys()) == 7_773
    rng = np.random.default_rng(0)
    for _ in range(100):
        key = SPACES[1]().table_key(random_genotype(SPACES[1](), rng))
        assert key in SPACES[1]().table_keys()


def test_what_leads_nowhere_does_not_enter_the_key():
    space = SPACES[1]()
    parents = [[0], [0], [0, 2], [0, 2], [0, 2, 3]]  # nobody reads 1, none reads 4
    keys = {
        space.table_key(genotype_of([one, CONV3, POOL, four], parents))
        for one in OPS
        for four in OPS
    }
    assert len(keys) == 1
    assert space.forms(genotype_of([CONV3, CONV3, POOL, POOL], parents)) == {
        "NAS-Bench-101 hash": keys.pop()
    }


def test_the_table_knows_every_genotype(tables_dir):
    path = tables_dir / "nasbench101_108epochs.npz"
    if not path.is_file():
        pytest.skip(f"no {path.name}")
    with np.load(path, allow_pickle=False) as archive:
        digits = archive["module_hash"].tobytes().hex()
    rows = {digits[i : i + 32] for i in range(0, len(digits), 32)}
    for space, count in zip(SPACES, (2_685, 7_773, 55_854), strict=True):
        keys = space().table_keys()
        assert len(keys) == count
        assert keys <= rows


@pytest.mark.parametrize("cls", SPACES)
def test_drawings_show_the_cell(cls):
    space = cls()
    genotype = random_genotype(space, np.random.default_rng(1))
    value = json.loads(genotype)
    (drawing,) = space.drawings(genotype)
    names = list(drawing.nodes)
    assert names == ["input", *map(str, range(1, len(names) - 1)), "output"]
    assert [drawing.labels[name] for name in names[1:-1]] == value["ops"][1:-1]
    shown = {(names.index(a), names.index(b)) for a, b, label in drawing.edges}
    assert shown == set(
        zip(*map(np.ndarray.tolist, np.nonzero(value["matrix"])), strict=True)
    )
    # No node lies on the line between two others.
    for a, b, c in itertools.combinations(np.array(list(drawing.nodes.values())), 3):
        (ux, uy), (vx, vy) = c - a, b - a
        assert abs(ux * vy - uy * vx) / np.hypot(ux, uy) > 0.2
