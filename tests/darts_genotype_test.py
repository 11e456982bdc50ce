"""Decisions, genotypes and drawings of DARTS, of which nothing is compiled."""

import builtins
import json
import os
import re

import numpy as np
import pytest

from zcpt_jax.io import genotype_svg
from zcpt_jax.search.edge_orders import ORDERS, get_order
from zcpt_jax.search.memory import NoMemory
from zcpt_jax.search.proposal import propose
from zcpt_jax.spaces import get_space
from zcpt_jax.spaces._darts import SUBSPACES, Darts, DartsS2
from zcpt_jax.spaces._darts_genotype import EDGES, GROUPS
from zcpt_jax.types import InputError

pytestmark = pytest.mark.unit

DARTS_V2 = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), "
    "('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0), "
    "('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=[2, 3, 4, 5], "
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
    "('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2), "
    "('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=[2, 3, 4, 5])"
)


# Decisions


def test_28_operations_then_three_nodes_a_cell():
    operations, topology = Darts().phases()
    assert [len(track) for track in operations.tracks] == [14, 14]
    assert [len(track) for track in topology.tracks] == [3, 3]
    for group, track in zip(GROUPS, operations.tracks, strict=True):
        names = [f"{group} {node}<-{source}" for node, source in EDGES]
        assert [d.name for d in track] == names
        assert all(len(d.candidates) == 7 and d.keep == 1 for d in track)
        assert all(set(d.regions) == {group} for d in track)
        for row, decision in enumerate(track):
            expected = np.zeros((7, 14, 7), bool)
            expected[np.arange(7), row, np.arange(7)] = True
            np.testing.assert_array_equal(decision.regions[group], expected)
    for group, track in zip(GROUPS, topology.tracks, strict=True):
        assert [d.name for d in track] == [f"inputs of {group} {n}" for n in (3, 4, 5)]
        assert [d.keep for d in track] == [2, 2, 2]
        assert [d.candidates for d in track] == [
            tuple("012"),
            tuple("0123"),
            (*"01234",),
        ]
        rows = [d.regions[group].any(-1).argmax(-1).tolist() for d in track]
        assert rows == [[2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12, 13]]
        assert all(d.regions[group].sum() == 7 * len(d.candidates) for d in track)
        assert all(d.one_by_one for d in track)
    published = Darts(topology="published").phases()[1]
    assert not any(d.one_by_one for track in published.tracks for d in track)


class Log(NoMemory):
    def __init__(self):
        self.steps = []

    def keep(self, steps):
        self.steps += steps


def made_up_search(space, order="random", score=None, proposals=1, seed=0):
    """A search whose scores a formula makes up; also its steps and calls."""
    calls, log = [], Log()
    rng = np.random.default_rng(seed)
    weight = {g: rng.random(m.shape) for g, m in space.init_masks().items()}

    def made_up(masks):
        return sum((masks[g] * weight[g]).sum((1, 2)) for g in GROUPS)

    def count(step, masks, owners):
        calls.append((step, len(owners)))
        return (score or made_up)(masks)

    found = propose(
        space.init_masks(),
        space.phases(),
        count,
        get_order(order),
        num_proposals=proposals,
        seed=seed,
        memory=log,
    )
    return found, log.steps, calls


@pytest.mark.parametrize("topology", ["one_by_one", "published"])
@pytest.mark.parametrize("order", ORDERS)
def test_every_order_ends_in_two_inputs_a_node(order, topology):
    space = DartsS2(topology=topology)
    found, steps, _ = made_up_search(space, order, proposals=2)
    for masks in found:
        genotype = space.genotype(masks)
        cells = json.loads(genotype)
        for group in GROUPS:
            pairs = cells[group]
            assert len(pairs) == 8 and cells[f"{group}_concat"] == [2, 3, 4, 5]
            for node in range(2, 6):
                first, second = (pairs[2 * node - 4 + i][1] for i in (0, 1))
                assert 0 <= first < second < node
        again = space.masks_of(genotype)
        for group in GROUPS:
            np.testing.assert_array_equal(again[group], masks[group])
    edges = [s.edge for s in steps if s.proposal == 0 and s.edge is not None]
    firsts = [edge for edge in edges if " left)" not in edge]
    assert len(firsts) == len(set(firsts)) == 28 + 6
    assert len(edges) == 28 + (12 if topology == "one_by_one" else 6)


@pytest.mark.parametrize(
    ("topology", "inputs"), [("one_by_one", 22), ("published", 12)]
)
def test_perturbations_of_a_proposal(topology, inputs):
    _, _, calls = made_up_search(Darts(topology=topology), "fixed")
    operations = [count for step, count in calls if step < 14]
    assert operations == [7] * 28
    assert sum(count for step, count in calls if step >= 14) == 2 * inputs
    # A node's rounds share a minibatch, and the two cells theirs.
    assert sorted({step for step, _ in calls}) == list(range(17))


def interaction(masks):
    """Scores with which it matters that a removed input stays away.

    Inputs 3 and 4 of node 5 stand in for each other: without one of them nothing is
    lost, without both much is. Of the others 2 counts least, then 1, then 0.
    """
    live = masks["normal"].any(-1)
    row = {source: EDGES.index((5, source)) for source in range(5)}
    gain = 1.0 * live[:, row[0]] + 0.6 * live[:, row[1]] + 0.5 * live[:, row[2]]
    gain = gain + 10.0 * (live[:, row[3]] | live[:, row[4]])
    for node in (3, 4):  # makes the other nodes definite, without ties
        for source in range(node):
            gain = gain + (source + 1) * 0.01 * live[:, EDGES.index((node, source))]
    return gain


def test_one_by_one_scores_without_what_was_removed():
    """Published: 3 and 4 both go, as each seems to be without effect."""
    kept = {}
    for topology in ("one_by_one", "published"):
        space = DartsS2(topology=topology)
        found, steps, _ = made_up_search(space, "fixed", interaction)
        live = found[0]["normal"].any(-1)
        kept[topology] = [
            [s for s in range(node) if live[EDGES.index((node, s))]]
            for node in range(2, 6)
        ]
        if topology == "one_by_one":
            rounds = [
                s for s in steps if (s.edge or "").startswith("inputs of normal 5")
            ]
    assert kept["published"] == [[0, 1], [1, 2], [2, 3], [0, 1]]
    # 4 goes first (3 and 4 tie, the last of a tie goes), then 3 has become vital.
    assert kept["one_by_one"] == [[0, 1], [1, 2], [2, 3], [0, 3]]
    assert [(s.edge, s.kept) for s in rounds] == [
        ("inputs of normal 5", ("0", "1", "2", "3")),
        ("inputs of normal 5 (4 left)", ("0", "1", "3")),
        ("inputs of normal 5 (3 left)", ("0", "3")),
    ]
    scores = [s.scores[s.edge] for s in rounds]
    assert [len(values) for values in scores] == [5, 4, 3]
    assert scores[0][3] - scores[0][2] == pytest.approx(0.5)  # 3 is spare
    assert scores[1][3] - scores[1][2] == pytest.approx(0.5 - 10)  # and no more


# Genotypes


def random_genotype(space, seed):
    rng = np.random.default_rng(seed)
    masks = {}
    for group, rows in space.candidates.items():
        masks[group] = np.zeros((14, len(rows[0])), np.float32)
        for node in range(2, 6):
            for source in rng.choice(node, 2, replace=False):
                op = rng.integers(len(rows[0]))
                masks[group][EDGES.index((node, source)), op] = 1
    return space.genotype(masks), masks


@pytest.mark.parametrize("space", [cls() for cls in SUBSPACES], ids=lambda s: s.name)
def test_genotypes_go_round(space):
    for seed in range(5):
        genotype, masks = random_genotype(space, seed)
        assert space.parse(genotype) == genotype
        assert space.parse(f" \n{json.dumps(json.loads(genotype), indent=2)}\n") == (
            genotype
        )
        python = space.forms(genotype)["as Python"]
        assert space.parse(python) == genotype
        assert space.parse(f"MINE = {python}") == genotype
        for group, weights in space.masks_of(genotype).items():
            np.testing.assert_array_equal(weights, masks[group])


def test_the_forms_in_which_people_keep_genotypes():
    space = Darts()
    canonical = space.parse(DARTS_V2)
    fields = json.loads(canonical)
    assert fields["normal"][4:6] == [["skip_connect", 0], ["sep_conv_3x3", 1]]  # sorted
    body = re.fullmatch(r"Genotype\((.*)\)", DARTS_V2)[1]
    ranges = body.replace("[2, 3, 4, 5]", "range(2, 6)")
    positional = re.sub(r"\w+=", "", body)
    for text in (
        f"DARTS_V2 = {DARTS_V2}",
        f"Genotype({ranges})",
        f"x = Genotype({ranges})",
        f"Genotype({positional})",
        f"Genotype({body.replace('(', '[').replace(')', ']')})",
        DARTS_V2.replace(", ", ",\n    "),
    ):
        assert space.parse(text) == canonical, text
    mixed = f"Genotype({re.sub('normal=', '', body, count=1)})"
    assert space.parse(mixed) == canonical
    assert space.forms(canonical)["as Python"].count("range(2, 6)") == 2


GOOD = Darts().parse(DARTS_V2)


def changed(**changes):
    return json.dumps({**json.loads(GOOD), **changes})


def with_pair(index, pair, group="normal"):
    fields = json.loads(GOOD)
    fields[group][index] = pair
    return json.dumps(fields)


def without(field):
    fields = json.loads(GOOD)
    del fields[field]
    return json.dumps(fields)


MARKER = "BAD_GENOTYPE_WAS_EXECUTED"
CODE = f"__import__('os').system('touch {MARKER}')"
MALFORMED = {
    "empty": ("", "not one expression"),
    "blank": (" \n", "not one expression"),
    "number": ("3", "not a call of Genotype"),
    "list": (GOOD[GOOD.index("[") :], "malformed darts genotype"),
    "half JSON": (GOOD[:-5], "malformed darts genotype"),
    "half Python": (DARTS_V2[:-5], "malformed darts genotype"),
    "JSON and more": (GOOD + "x", "Extra data"),
    "no field": ("{}", "fields must be normal, normal_concat, reduce, reduce_concat"),
    "field missing": (without("reduce"), "fields must be normal"),
    "concat missing": (without("normal_concat"), "fields must be normal"),
    "field too many": (changed(colour=1), "fields must be normal"),
    "field null": (changed(normal=None), "normal must list 8 edges"),
    "field a text": (changed(normal="sep_conv"), "normal must list 8 edges"),
    "field an object": (changed(normal={"0": 1}), "normal must list 8 edges"),
    "seven edges": (
        changed(reduce=json.loads(GOOD)["reduce"][:7]),
        "reduce must list 8 edges",
    ),
    "nine edges": (
        changed(reduce=[*json.loads(GOOD)["reduce"], ["skip_connect", 0]]),
        "reduce must list 8 edges",
    ),
    "concat short": (changed(normal_concat=[2, 3, 4]), r"got \[2, 3, 4\]"),
    "concat in disorder": (changed(reduce_concat=[3, 2, 4, 5]), r"\[3, 2, 4, 5\]"),
    "concat a number": (changed(normal_concat=5), "normal_concat must be .* got 5"),
    "concat a text": (changed(normal_concat="2345"), "normal_concat must be"),
    "concat false": (changed(normal_concat=[True, 3, 4, 5]), "normal_concat must be"),
    "concat a range": (
        DARTS_V2.replace("[2, 3, 4, 5]", "range(2, 5)"),
        "normal_concat must be",
    ),
    "operation unknown": (
        with_pair(0, ["conv_7x1_1x7", 0]),
        r"'conv_7x1_1x7' is not an operation of edge 2<-0 of the normal cell in darts; "
        "allowed: max_pool_3x3, avg_pool_3x3",
    ),
    "operation none": (with_pair(0, ["none", 0]), "'none' is not an operation of edge"),
    "operation a number": (with_pair(0, [3, 0]), r"\[3, 0\] is not \(operation, input"),
    "operation a list": (with_pair(0, [["sep"], 0]), r"is not \(operation, input"),
    "input too deep": (with_pair(0, ["skip_connect", 2]), "2 cannot read node 2"),
    "input far too deep": (with_pair(7, ["skip_connect", 5]), "5 cannot read node 5"),
    "input negative": (with_pair(2, ["skip_connect", -1]), "3 cannot read node -1"),
    "input twice": (
        with_pair(1, ["skip_connect", 0]),
        "normal: a node reads the same input twice",
    ),
    "input twice in reduce": (
        with_pair(7, ["max_pool_3x3", 1], "reduce"),
        "reduce: a node reads the same input twice",
    ),
    "input true": (with_pair(1, ["skip_connect", True]), r"\['skip_connect', True\]"),
    "input a float": (with_pair(1, ["skip_connect", 1.0]), r"\['skip_connect', 1.0\]"),
    "input a text": (with_pair(1, ["skip_connect", "1"]), r"\['skip_connect', '1'\]"),
    "input null": (with_pair(1, ["skip_connect", None]), r"\['skip_connect', None\]"),
    "input NaN": (with_pair(1, ["skip_connect", float("nan")]), "nan"),
    "input huge": (with_pair(1, ["skip_connect", 10**30]), "cannot read node 1000"),
    "pair of one": (with_pair(1, ["skip_connect"]), r"\['skip_connect'\] is not"),
    "pair of three": (with_pair(1, ["skip_connect", 1, 2]), r"1, 2\] is not"),
    "pair a text": (with_pair(1, "skip_connect"), "'skip_connect' is not"),
    "code": (CODE, "not a call of Genotype"),
    "code assigned": (f"x = {CODE}", "not a call of Genotype"),
    "code as argument": (f"Genotype({CODE}, [2, 3, 4, 5], [], [])", "malformed"),
    "code as keyword": (f"Genotype(normal={CODE})", "malformed"),
    "code in a list": (DARTS_V2.replace("'max_pool_3x3'", CODE, 1), "malformed"),
    "code as input": (DARTS_V2.replace(" 0)", f" {CODE})", 1), "malformed"),
    "code in a range": (
        DARTS_V2.replace("[2, 3, 4, 5]", f"range({CODE})"),
        "malformed",
    ),
    "code as starred": (f"Genotype(*[{CODE}])", "malformed"),
    "code as function": (f"({CODE}).Genotype()", "fields must be normal"),
    "code after": (f"{DARTS_V2}; {CODE}", "not one expression"),
    "code in a comprehension": (f"Genotype([{CODE} for x in [1]])", "malformed"),
    "code in a default": (f"Genotype(lambda x={CODE}: x)", "malformed"),
    "code in an f-string": (f'Genotype(f"{{{CODE}}}")', "malformed"),
    "code by a walrus": (f"Genotype((Genotype := {CODE}))", "malformed"),
    "an import": ("import os", "not one expression"),
    "another function": (DARTS_V2.replace("Genotype", "print"), "not a call"),
    "keywords unpacked": ("Genotype(**{'normal': 1})", "unexpected argument None"),
    "argument twice": (
        f"Genotype([], normal=[], {'x=1'})",
        "unexpected argument normal",
    ),
    "arguments too many": ("Genotype(1, 2, 3, 4, 5)", "5 arguments without a name"),
    "no argument": ("Genotype()", "fields must be normal"),
    "a huge range": (
        DARTS_V2.replace("[2, 3, 4, 5]", "range(10**12)"),
        "malformed",
    ),
    "a huge literal range": (
        DARTS_V2.replace("[2, 3, 4, 5]", "range(1000000000000)"),
        "not a range of small integers",
    ),
    "a range from far below": (
        DARTS_V2.replace("[2, 3, 4, 5]", "range(-1000000000000, 6)"),
        "not a range of small integers",
    ),
    "a step": (
        DARTS_V2.replace("[2, 3, 4, 5]", "range(2, 6, 1)"),
        "not a range of small integers",
    ),
    "a power": (f"Genotype({'9**' * 50}9)", "malformed"),
    "deep JSON": ('{"normal": ' + "[" * 9000 + "]" * 9000 + "}", "malformed"),
    "deep Python": ("Genotype(" + "(" * 900 + ")" * 900 + ")", "malformed"),
    "deep names": ("Genotype(" + "a" + ".a" * 9000 + ")", "malformed"),
    "deep sums": ("Genotype(" + "1+" * 9000 + "1)", "malformed"),
    "digits": ('{"normal": ' + "9" * 9000 + "}", "malformed"),
    "deep signs": ("Genotype(" + "-" * 9000 + "1)", "malformed"),
    "huge": ("Genotype(" + "1," * 10**6 + ")", "it has 2000010 characters"),
    "huge JSON": (changed(normal=[0] * 10**5), "normal must list 8 edges"),
    "null byte": (DARTS_V2 + "\0", "malformed"),
    "surrogate": ("\ud800", "malformed"),
    "another space's": ("|none~0|+|none~0|none~1|", "malformed"),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_genotypes_give_one_message_and_run_nothing(
    what, tmp_path, monkeypatch
):
    text, message = MALFORMED[what]
    monkeypatch.chdir(tmp_path)

    def never(*args, **kwargs):
        raise AssertionError("executed")

    monkeypatch.setattr(os, "system", never)
    monkeypatch.setattr(builtins, "eval", never)
    monkeypatch.setattr(builtins, "exec", never)
    with pytest.raises(InputError, match=message) as error:
        Darts().parse(text)
    told = str(error.value)
    assert not list(tmp_path.iterdir())
    if "is not an operation of edge" not in told:
        assert told.startswith("malformed darts genotype ")
        assert repr(text)[1:40] in told and "Genotype(normal=[('operation'" in told
    assert len(told) < 30_000


def test_operations_are_those_of_the_edge_in_s1():
    space = get_space("darts_s1")
    genotype, _ = random_genotype(space, 0)
    fields = json.loads(genotype)
    fields["reduce"][0] = ["skip_connect", 0]
    message = (
        "'skip_connect' is not an operation of edge 2<-0 of the reduce cell in "
        "darts_s1; allowed: max_pool_3x3, avg_pool_3x3"
    )
    with pytest.raises(InputError, match=message):
        space.parse(json.dumps(fields))
    for method in (space.masks_of, space.drawings, space.forms):
        with pytest.raises(InputError, match=message):
            method(json.dumps(fields))
    with pytest.raises(InputError, match=message):
        space.network(json.dumps(fields), 10)


def test_published_genotypes_are_in_their_spaces(tables_dir):
    file = tables_dir / "published_genotypes.json"
    if not file.exists():
        pytest.skip(f"no {file}")
    published = json.loads(file.read_text())
    seen = set()
    for name, fields in published.items():
        found = re.search(r"_s([1-5])_", name)
        if not found:
            continue  # samples of other studies, whose names give no space
        number = int(found[1])
        space = SUBSPACES[number % 5]()  # s5 is the full space
        parsed = json.loads(space.parse(json.dumps(fields)))
        for group in GROUPS:
            for start in range(0, 8, 2):
                pairs = fields[group][start : start + 2]
                assert parsed[group][start : start + 2] == sorted(
                    pairs, key=lambda pair: pair[1]
                ), name
        seen.add(number)
    assert seen == {1, 2, 3, 4, 5}


def test_masks_that_keep_too_much_or_too_little_have_no_genotype():
    space = DartsS2()
    _, masks = random_genotype(space, 0)
    with pytest.raises(InputError, match="not decided"):
        space.genotype(space.init_masks())
    for row, keeps in ((EDGES.index((2, 0)), 7), (None, 9)):
        other = {group: weights.copy() for group, weights in masks.items()}
        if row is None:
            row = int(np.flatnonzero(~other["reduce"].any(-1))[0])
            other["reduce"][row, 0] = 1
        else:
            other["reduce"][row] = 0
        with pytest.raises(InputError, match=f"'reduce' keeps {keeps} edges"):
            space.genotype(other)


def test_drawings_have_eight_edges_and_four_to_the_output():
    drawings = Darts().drawings(GOOD)
    assert [drawing.title for drawing in drawings] == ["normal cell", "reduce cell"]
    fields = json.loads(GOOD)
    for group, drawing in zip(GROUPS, drawings, strict=True):
        to_output = [edge for edge in drawing.edges if edge[1] == "c(k)"]
        assert to_output == [(str(node), "c(k)", "") for node in range(2, 6)]
        named = [edge for edge in drawing.edges if edge[1] != "c(k)"]
        places = ["c(k-2)", "c(k-1)", "2", "3", "4", "5"]
        assert named == [
            (places[source], places[2 + number // 2], op)
            for number, (op, source) in enumerate(fields[group])
        ]
        assert {node for edge in drawing.edges for node in edge[:2]} == set(
            drawing.nodes
        )
        svg = genotype_svg.draw(drawing)
        assert svg.count('class="arrow ') == 12
        assert svg.count("skip_connect") == sum(
            op == "skip_connect" for *_, op in named
        )
