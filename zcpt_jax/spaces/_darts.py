"""The DARTS space and its subspaces S1 to S4: a normal and a reduction cell.

Liu et al., DARTS, ICLR 2019; Zela et al., Understanding and Robustifying
Differentiable Architecture Search, ICLR 2020 (S1 to S4). The supernets are those that
Zero-Cost-PT scores (Xiang et al. 2023, appendix, and the authors' published code). The
networks are in ``_darts_network.py``, the genotypes in ``_darts_genotype.py``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import numpy as np

from zcpt_jax import masks as mask_algebra
from zcpt_jax.nn import torch_init
from zcpt_jax.spaces._darts_genotype import (
    EDGES,
    GROUPS,
    Cell,
    dump,
    literal,
    parse_genotype,
)
from zcpt_jax.spaces._darts_network import Candidates, Network, reductions
from zcpt_jax.spaces._darts_published import published_cells
from zcpt_jax.types import (
    Decision,
    Drawing,
    InputError,
    Masks,
    Owner,
    Phase,
)

_FULL = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
_SKIP, _MAX, _AVG = "skip_connect", "max_pool_3x3", "avg_pool_3x3"
_SEP3, _DIL3, _DIL5 = "sep_conv_3x3", "dil_conv_3x3", "dil_conv_5x5"
_NODES = (2, 3, 4, 5)


@dataclass(frozen=True)
class Darts(torch_init.TorchDefault):
    """The full space: seven operations on each of the 14 edges of both cells.

    Nodes 0 and 1 of a cell are the outputs of the two previous cells; nodes 2 to 5
    keep two inputs each. There is no operation ``none``.

    Attributes:
      channels: number of channels of the first cell's nodes, doubled at each reduction.
      cells: number of cells; those at one and two thirds of the depth are reductions.
      stem: ``cifar`` is one convolution, ``imagenet`` three of stride 2.
      topology: how the inputs of a node are chosen after the operations.
        ``one_by_one`` scores each removal without the inputs removed before.
        ``published`` puts a removed input back before it scores the next, as the
        published code does, and keeps the two whose removal gives the lowest scores.
    """

    candidates: ClassVar[dict[str, Candidates]] = {
        "normal": (_FULL,) * 14,
        "reduce": (_FULL,) * 14,
    }

    channels: int = 16
    cells: int = 8
    stem: Literal["cifar", "imagenet"] = "cifar"
    topology: Literal["one_by_one", "published"] = "one_by_one"
    name: str = "darts"

    def init_masks(self) -> Masks:
        """Masks ``{'normal': [14, O], 'reduce': [14, O]}``, every entry ``1/O``."""
        return {
            group: mask_algebra.undecided(len(rows), len(rows[0]))
            for group, rows in self.candidates.items()
        }

    def phases(self) -> tuple[Phase, ...]:
        """Operations of 14 edges, then inputs of 3 nodes; both cells in lockstep.

        Node 2 has only two inputs and keeps both.
        """
        operations = tuple(
            mask_algebra.edge_decisions(
                group,
                [f"{group} {node}<-{source}" for node, source in EDGES],
                self.candidates[group],
            )
            for group in GROUPS
        )
        inputs = tuple(self._inputs(group) for group in GROUPS)
        return Phase("operations", operations), Phase("topology", inputs)

    def _inputs(self, group: str) -> tuple[Decision, ...]:
        decisions = []
        ops = len(self.candidates[group][0])
        for node in _NODES[1:]:
            rows = [row for row, edge in enumerate(EDGES) if edge[0] == node]
            region = np.zeros((len(rows), 14, ops), bool)
            region[np.arange(len(rows)), rows] = True
            decisions.append(
                Decision(
                    f"inputs of {group} {node}",
                    tuple(str(EDGES[row][1]) for row in rows),
                    {group: region},
                    keep=2,
                    one_by_one=self.topology == "one_by_one",
                )
            )
        return tuple(decisions)

    def supernet(self, num_classes: int) -> nn.Module:
        """Supernet: all operations on all edges, non-affine BatchNorm in the cells."""
        return self._build(self.candidates, num_classes, discrete=False)

    def whole(self, num_classes: int) -> nn.Module:
        """All operations on all edges, with affine BatchNorm as in the networks."""
        return self._build(self.candidates, num_classes, discrete=True)

    def network(self, genotype: str, num_classes: int) -> nn.Module:
        """Discrete network with affine BatchNorm, and none after pools."""
        found = parse_genotype(genotype, self.name, self.candidates)
        candidates: dict[str, Candidates] = {}
        for group in GROUPS:
            kept = {(node, source): op for node, source, op in found[group]}
            candidates[group] = tuple(
                (kept[edge],) if edge in kept else () for edge in EDGES
            )
        return self._build(candidates, num_classes, discrete=True)

    def masked_network(self, num_classes: int, scales: bool) -> nn.Module:
        """Return :meth:`whole`, because only supernets have BatchNorm after pools."""
        del scales
        return self.whole(num_classes)

    def evaluation_network(
        self, genotype: str, num_classes: int, auxiliary: bool = False
    ) -> nn.Module:
        """Discrete network of a genotype, optionally with an auxiliary head."""
        return self.network(genotype, num_classes).clone(auxiliary=auxiliary)

    def published(self) -> Mapping[str, str]:
        """Cells of DARTS, P-DARTS, PC-DARTS and Zero-Cost-PT; none for S1 to S4."""
        return published_cells() if self.candidates is Darts.candidates else {}

    def _build(
        self, candidates: Mapping[str, Candidates], num_classes: int, discrete: bool
    ) -> nn.Module:
        return Network(
            candidates["normal"],
            candidates["reduce"],
            self.channels,
            self.cells,
            num_classes,
            self.stem == "imagenet",
            discrete,
        )

    def genotype(self, masks: Masks) -> str:
        """JSON genotype of discretised masks.

        A kept edge on which ``none`` was chosen (S3) is written as ``none``. The
        published code turns it into ``skip_connect`` by an off-by-one index.
        """
        return dump({group: self._cell(masks[group], group) for group in GROUPS})

    def _cell(self, weights: np.ndarray | jax.Array, group: str) -> Cell:
        weights = np.asarray(weights)
        rows = np.flatnonzero(weights.any(axis=-1))
        chosen = mask_algebra.chosen(weights[rows], group)
        nodes = [EDGES[row][0] for row in rows]
        if nodes != [node for node in _NODES for _ in range(2)]:
            raise InputError(
                f"mask group {group!r} keeps {len(rows)} edges; a genotype needs "
                "exactly two inputs at each of the nodes 2 to 5"
            )
        return tuple(
            (*EDGES[row], self.candidates[group][row][op])
            for row, op in zip(rows, chosen, strict=True)
        )

    def masks_of(self, genotype: str) -> Masks:
        """Discretised masks ``{'normal': [14, O], 'reduce': [14, O]}``."""
        found = parse_genotype(genotype, self.name, self.candidates)
        masks = {}
        for group in GROUPS:
            ops = self.candidates[group]
            weights = np.zeros((14, len(ops[0])), np.float32)
            for node, source, op in found[group]:
                row = EDGES.index((node, source))
                weights[row, ops[row].index(op)] = 1
            masks[group] = weights
        return masks

    def parse(self, text: str) -> str:
        """Convert a genotype in JSON or as a Python literal to canonical JSON.

        Raises:
          InputError: if the genotype is malformed or not in this space.
        """
        return dump(parse_genotype(text, self.name, self.candidates))

    def forms(self, genotype: str) -> dict[str, str]:
        """Python literal that the DARTS code base reads."""
        return {
            "as Python": literal(parse_genotype(genotype, self.name, self.candidates))
        }

    def owner(self, path: tuple[str, ...]) -> tuple[Owner, ...] | None:
        """Owners of a layer: one for each edge of an operation stack, else None."""
        if len(path) < 2 or not path[0].startswith("cell") or not path[1][0].isdigit():
            return None
        reduction = int(path[0].removeprefix("cell")) in reductions(self.cells)
        group = "reduce" if reduction else "normal"
        source, op = path[1].split("_", 1)
        return tuple(
            Owner(group, (row, ops.index(op)))
            for row, ops in enumerate(self.candidates[group])
            if EDGES[row][1] == int(source) and op in ops
        )

    def drawings(self, genotype: str) -> tuple[Drawing, ...]:
        """Drawings of the normal and the reduction cell."""
        found = parse_genotype(genotype, self.name, self.candidates)
        return tuple(_draw(group, found[group]) for group in GROUPS)


def _draw(group: str, cell: Cell) -> Drawing:
    names = {0: "c(k-2)", 1: "c(k-1)", **{node: str(node) for node in _NODES}}
    places = {
        "c(k-2)": (0.0, 1.0),
        "c(k-1)": (0.0, -1.0),
        "2": (1.4, 0.45),
        "3": (2.5, -1.25),
        "4": (3.7, 1.35),
        "5": (4.7, -0.35),
        "c(k)": (5.9, 0.4),
    }
    edges = [(names[source], names[node], op) for node, source, op in cell]
    edges += [(names[node], "c(k)", "") for node in _NODES]
    return Drawing(f"{group} cell", places, tuple(edges), frozenset({"none", ""}))


def _everywhere(*ops: str) -> dict[str, Candidates]:
    return {group: (ops,) * 14 for group in GROUPS}


@dataclass(frozen=True)
class DartsS1(Darts):
    """S1: two operations on each edge, a different pair for each edge."""

    candidates: ClassVar[dict[str, Candidates]] = {
        "normal": (
            (_SKIP, _DIL3),
            (_SKIP, _DIL5),
            (_SKIP, _DIL5),
            (_SKIP, _SEP3),
            (_SKIP, _DIL3),
            (_MAX, _SKIP),
            (_SKIP, _SEP3),
            (_SKIP, _SEP3),
            (_SKIP, _DIL3),
            (_SKIP, _SEP3),
            (_MAX, _SKIP),
            (_SKIP, _DIL3),
            (_DIL3, _DIL5),
            (_DIL3, _DIL5),
        ),
        "reduce": (
            (_MAX, _AVG),
            (_MAX, _DIL3),
            (_MAX, _AVG),
            (_MAX, _AVG),
            (_SKIP, _DIL5),
            (_MAX, _AVG),
            (_MAX, _SEP3),
            (_SKIP, _DIL3),
            (_SKIP, _DIL5),
            (_MAX, _AVG),
            (_MAX, _AVG),
            (_SKIP, _DIL5),
            (_SKIP, _DIL5),
            (_SKIP, _DIL5),
        ),
    }
    name: str = "darts_s1"


@dataclass(frozen=True)
class DartsS2(Darts):
    """S2: ``skip_connect`` or ``sep_conv_3x3`` on every edge."""

    candidates: ClassVar[dict[str, Candidates]] = _everywhere(_SKIP, _SEP3)
    name: str = "darts_s2"


@dataclass(frozen=True)
class DartsS3(Darts):
    """S3: ``none``, ``skip_connect`` or ``sep_conv_3x3`` on every edge."""

    candidates: ClassVar[dict[str, Candidates]] = _everywhere("none", _SKIP, _SEP3)
    name: str = "darts_s3"


@dataclass(frozen=True)
class DartsS4(Darts):
    """S4: ``noise`` or ``sep_conv_3x3`` on every edge.

    ``noise`` ignores its input and returns N(0, 1) samples of the input's shape, drawn
    again at every call: pass ``rngs={NOISE: key}``, or a batch with a key. All
    candidates of a step are compared under the same noise, just as on the same
    minibatch; the published code draws new noise for each.
    """

    candidates: ClassVar[dict[str, Candidates]] = _everywhere("noise", _SEP3)
    name: str = "darts_s4"


SUBSPACES: tuple[type[Darts], ...] = (Darts, DartsS1, DartsS2, DartsS3, DartsS4)
