"""Cells that papers report, as facts: to be retrained beside what a search finds."""

from zcpt_jax.spaces._darts_genotype import Cell, dump

_SHORT = {
    "sep3": "sep_conv_3x3",
    "dil3": "dil_conv_3x3",
    "skip": "skip_connect",
    "max": "max_pool_3x3",
    "avg": "avg_pool_3x3",
}
_NODES = (2, 2, 3, 3, 4, 4, 5, 5)


def _cell(text: str) -> Cell:
    """A cell in the order in which papers list it: two inputs for each node."""
    pairs = [pair.split() for pair in text.split(",")]
    return tuple(
        (node, int(source), _SHORT[op])
        for node, (op, source) in zip(_NODES, pairs, strict=True)
    )


_CELLS = {
    # Liu et al., DARTS, ICLR 2019, first and second order.
    "DARTS_V1": (
        "sep3 1, sep3 0, skip 0, sep3 1, skip 0, sep3 1, sep3 0, skip 2",
        "max 0, max 1, skip 2, max 0, max 0, skip 2, skip 2, avg 0",
    ),
    "DARTS_V2": (
        "sep3 0, sep3 1, sep3 0, sep3 1, sep3 1, skip 0, skip 0, dil3 2",
        "max 0, max 1, skip 2, max 1, max 0, skip 2, skip 2, max 1",
    ),
}

PUBLISHED = {
    name: dump({"normal": _cell(normal), "reduce": _cell(reduce)})
    for name, (normal, reduce) in _CELLS.items()
}
"""Genotypes by the names under which papers and code bases know them."""
