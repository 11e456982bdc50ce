"""Genotypes in the forms in which people have them."""

import json

import pytest

from zcpt_jax.io.genotype_file import resolve_genotype
from zcpt_jax.spaces import get_space
from zcpt_jax.types import InputError

pytestmark = pytest.mark.unit

EDGES = {
    "normal": "s0 s1 s0 s1 s1 k0 k0 d2",
    "reduce": "m0 m1 k2 m1 m0 k2 k2 m1",
}
OPS = {"s": "sep_conv_3x3", "k": "skip_connect", "d": "dil_conv_3x3"}
OPS["m"] = "max_pool_3x3"


def pairs(group):
    return [(OPS[edge[0]], int(edge[1])) for edge in EDGES[group].split()]


def nested(group):
    flat = pairs(group)
    return [(flat[i], flat[i + 1]) for i in range(0, 8, 2)]


def call(make, concat="range(2, 6)", more=""):
    parts = [f"{g}={make(g)}, {g}_concat={concat}" for g in EDGES]
    return f"Genotype({', '.join(parts)}{more})"


CONCAT = {f"{group}_concat": [2, 3, 4, 5] for group in EDGES}
DARTS = {
    "as printed": call(pairs),
    "nested, with fields of None": call(nested, more=", connectN=None, connects=None"),
    "nested JSON": json.dumps({**{g: nested(g) for g in EDGES}, **CONCAT}),
    "a Python dict": str({**{g: pairs(g) for g in EDGES}, **CONCAT}),
    "a dict with ranges": str({**{g: pairs(g) for g in EDGES}, "x": 0}).replace(
        "'x': 0", "'normal_concat': range(2, 6), 'reduce_concat': list(range(2, 6))"
    ),
    "a list of a range": call(pairs, "list(range(2, 6))"),
    "a tuple": call(lambda g: tuple(pairs(g)), "(2, 3, 4, 5)"),
    "module and assignment": f"V2 = genotypes.{call(pairs)}\n",
    "a log line": f"03/14 07:09:31 PM genotype = {call(pairs)}",
    "a log line with an epoch": f"[epoch (3)] best: {call(pairs)} ",
}
CELL = "|nor_conv_3x3~0|+|nor_conv_1x1~0|nor_conv_3x3~1|+|none~0|avg_pool_3x3~1|none~2|"
NASBENCH201 = {
    "as printed": CELL,
    "Structure": f"Structure(4 nodes with {CELL})",
    "a list": f"['{CELL}']",
    "quotes": f'"{CELL}"',
    "blanks": CELL.replace("+", " + "),
    "a log line": f"[0012] the best arch : {CELL} ",
    "NASLib's numbers": "(2, 3, 1, 2, 4, 1)",
    "NASLib's numbers, named": "naslib:2,3,1,2,4,1",
    "NASLib's list": "[2, 3, 1, 2, 4, 1]",
}


@pytest.mark.parametrize("text", DARTS.values(), ids=DARTS)
def test_forms_of_darts(tmp_path, text):
    space = get_space("darts")
    canonical = space.parse(call(pairs))
    assert space.parse(text) == canonical
    for name in ("found.txt", "genotypes.py"):
        (tmp_path / name).write_text(text)
        assert resolve_genotype(str(tmp_path / name), space) == canonical


@pytest.mark.parametrize("text", NASBENCH201.values(), ids=NASBENCH201)
def test_forms_of_nasbench201(tmp_path, text):
    space = get_space("nasbench201")
    assert space.parse(text) == CELL
    (tmp_path / "cell.txt").write_text(text + "\n")
    assert resolve_genotype(str(tmp_path / "cell.txt"), space) == CELL


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (call(pairs, more=", extra=3"), "fields must be"),
        (call(pairs, more=", **{'a': 1}"), "unexpected argument None"),
        (call(pairs) + call(pairs), "malformed"),
        (call(lambda g: nested(g)[:3]), "must list 8 edges"),
        (call(pairs, "list(range(2, 9))"), "concat must be"),
        (call(pairs, "list(open('x'))"), "malformed"),
        ("{'normal': [], **{}}", "malformed"),
        ("[1, 2, 3]", "not a call of Genotype"),
        ("x" * 30_000, "malformed"),
    ],
)
def test_what_is_no_genotype_of_darts_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        get_space("darts").parse(text)


@pytest.mark.parametrize(
    "text",
    [
        f"['{CELL}', '{CELL}']",
        "(2, 3, 1, 2, 4)",
        "(2, 3, 1, 2, 4, 5)",
        CELL.replace("none~2", "none~1"),
        "a" * 100_000,
        f"{CELL}|",
        "",
    ],
)
def test_what_is_no_cell_of_nasbench201_is_refused(text):
    with pytest.raises(InputError, match="NAS-Bench-201 genotype"):
        get_space("nasbench201").parse(text)
