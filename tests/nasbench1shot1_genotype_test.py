"""Decisions, genotypes and table keys, of which nothing is compiled."""

import ast
import itertools
import json

import numpy as np
import pytest

from zcpt_jax import masks as mask_algebra
from zcpt_jax.spaces._nasbench1shot1 import (
    NasBench1Shot1Space1,
    NasBench1Shot1Space2,
    NasBench1Shot1Space3,
)
from zcpt_jax.spaces._nasbench1shot1_genotype import OPS
from zcpt_jax.types import InputError

SPACES = (NasBench1Shot1Space1, NasBench1Shot1Space2, NasBench1Shot1Space3)
POOL, CONV3, CONV1 = OPS

pytestmark = pytest.mark.unit


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
