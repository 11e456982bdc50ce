"""Published cells of the DARTS space, as they are commonly retrained.

``sep3~1`` is a ``sep_conv_3x3`` that reads node 1. Each text lists two inputs for each
of the nodes 2 to 5, in order. The first is the normal cell, the second the reduction
cell.
"""

from collections.abc import Mapping

from zcpt_jax.spaces._darts_genotype import GROUPS, Genotype, dump

_OPS = {
    "max": "max_pool_3x3",
    "avg": "avg_pool_3x3",
    "skip": "skip_connect",
    "sep3": "sep_conv_3x3",
    "sep5": "sep_conv_5x5",
    "dil3": "dil_conv_3x3",
    "dil5": "dil_conv_5x5",
}
_CELLS = {
    # Liu et al., DARTS, ICLR 2019: first and second order, found on CIFAR-10.
    "DARTS_V1": (
        "sep3~0 sep3~1 skip~0 sep3~1 skip~0 sep3~1 sep3~0 skip~2",
        "max~0 max~1 max~0 skip~2 max~0 skip~2 avg~0 skip~2",
    ),
    "DARTS_V2": (
        "sep3~0 sep3~1 sep3~0 sep3~1 skip~0 sep3~1 skip~0 dil3~2",
        "max~0 max~1 max~1 skip~2 max~0 skip~2 max~1 skip~2",
    ),
    # Chen et al., Progressive Differentiable Architecture Search, ICCV 2019: CIFAR-10.
    "PDARTS": (
        "skip~0 dil3~1 skip~0 sep3~1 sep3~1 sep3~3 sep3~0 dil5~4",
        "avg~0 sep5~1 sep3~0 dil5~2 max~0 dil3~1 dil3~1 dil5~3",
    ),
    # Xu et al., PC-DARTS, ICLR 2020: found on CIFAR-10 and on ImageNet.
    "PC_DARTS_cifar": (
        "skip~0 sep3~1 sep3~0 dil3~1 sep5~0 sep3~1 avg~0 dil3~1",
        "max~0 sep5~1 sep5~1 sep5~2 sep3~0 sep3~3 sep3~1 sep3~2",
    ),
    "PC_DARTS_image": (
        "sep3~0 skip~1 sep3~0 skip~1 sep3~1 sep3~3 sep3~1 dil5~4",
        "sep3~0 skip~1 max~1 dil5~2 sep3~1 sep3~2 sep5~0 sep3~3",
    ),
    # Xiang et al., Zero-Cost Operation Scoring, AAAI 2023, under their names in the
    # authors' repository (MIT): N = 10, V = 100, seeds 0 to 3; "C10" cells were found
    # on CIFAR-10 and "in" cells on ImageNet.
    "init_pt_s5_C10_0_100_N10": (
        "sep5~0 sep5~1 sep3~1 sep5~2 sep3~0 sep3~2 sep5~2 sep3~4",
        "sep5~0 sep3~1 sep5~0 sep3~1 sep5~1 sep3~3 sep3~0 sep5~1",
    ),
    "init_pt_s5_C10_1_100_N10": (
        "skip~0 sep5~1 sep3~1 sep5~2 sep5~1 sep5~2 sep3~0 sep5~4",
        "sep3~0 sep5~1 skip~0 sep5~1 sep3~0 sep5~1 sep5~0 sep3~1",
    ),
    "init_pt_s5_C10_2_100_N10": (
        "skip~0 sep5~1 sep5~0 sep5~2 sep5~0 sep5~2 sep3~0 sep5~3",
        "sep5~0 sep3~1 sep3~0 skip~1 sep5~0 sep5~2 sep3~0 sep5~1",
    ),
    "init_pt_s5_C10_3_100_N10": (
        "skip~0 sep5~1 sep3~0 sep5~1 sep3~0 sep5~3 sep3~0 sep3~1",
        "sep5~0 sep5~1 sep3~0 sep5~1 sep5~0 sep3~1 sep3~0 sep5~1",
    ),
    "global_pt_s5_C10_0_100_N10": (
        "sep5~0 sep5~1 sep3~1 sep5~2 sep3~0 sep5~1 sep3~0 sep3~1",
        "sep5~0 sep3~1 sep5~0 sep3~1 sep3~0 sep5~1 sep5~1 sep5~4",
    ),
    "global_pt_s5_C10_1_100_N10": (
        "skip~0 sep5~1 sep3~1 sep5~2 sep5~1 sep5~2 sep3~0 sep3~4",
        "sep3~0 sep5~1 sep5~1 sep3~2 sep3~1 sep5~3 sep5~0 sep3~1",
    ),
    "global_pt_s5_C10_2_100_N10": (
        "skip~0 sep5~1 sep5~0 sep5~2 sep5~0 sep5~3 sep3~0 sep3~3",
        "sep3~0 sep3~1 skip~0 skip~1 sep5~0 dil5~1 sep3~0 sep5~1",
    ),
    "global_pt_s5_C10_3_100_N10": (
        "skip~0 sep5~1 sep3~0 sep5~1 sep3~0 sep3~2 sep3~0 sep3~3",
        "dil3~0 sep3~1 sep3~0 sep5~1 sep5~0 sep3~1 sep3~0 sep3~1",
    ),
    "init_pt_s5_in_0_100_N10": (
        "sep5~0 sep5~1 sep3~1 sep3~2 sep5~2 sep5~3 sep3~0 sep5~3",
        "sep3~0 sep5~1 sep5~0 dil5~1 sep3~0 sep5~1 skip~0 sep5~1",
    ),
    "init_pt_s5_in_1_100_N10": (
        "skip~0 sep3~1 sep5~0 sep5~1 sep5~0 sep3~3 sep3~3 sep5~4",
        "avg~0 sep3~1 sep5~0 sep5~1 sep5~0 sep3~1 sep5~0 sep5~1",
    ),
    "init_pt_s5_in_2_100_N10": (
        "sep3~0 sep5~1 sep3~0 sep5~1 sep3~0 sep3~3 sep3~3 sep5~4",
        "sep5~0 sep5~1 sep5~0 sep5~1 skip~0 dil5~1 sep3~0 sep5~1",
    ),
    "init_pt_s5_in_3_100_N10": (
        "sep5~0 sep3~1 sep5~0 sep3~2 sep5~2 sep3~3 sep5~0 sep5~3",
        "dil3~0 skip~1 sep5~0 sep5~1 sep5~0 sep5~1 sep5~0 sep3~1",
    ),
}


def published_cells() -> Mapping[str, str]:
    """Return the canonical genotypes by their published names."""
    return {name: dump(_read(cells)) for name, cells in _CELLS.items()}


def _read(cells: tuple[str, str]) -> Genotype:
    read = {}
    for group, text in zip(GROUPS, cells, strict=True):
        pairs = [pair.split("~") for pair in text.split()]
        read[group] = tuple(
            (2 + number // 2, int(source), _OPS[op])
            for number, (op, source) in enumerate(pairs)
        )
    return read
