"""NAS-Bench-1Shot1: three spaces of cells whose accuracies are in NAS-Bench-101.

Zela, Siems and Hutter, NAS-Bench-1Shot1, ICLR 2020. The supernet is the one that
Zero-Cost-PT scores (Xiang et al. 2023, appendix, and the authors' published code). The
networks are in ``_nasbench1shot1_network.py``, the genotypes in
``_nasbench1shot1_genotype.py``.

A cell is a graph of choice nodes 1, 2, ... between the input, node 0, and the output.
The search chooses the operation of each node and the earlier nodes (parents) that each
node and the output read.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import flax.linen as nn
import numpy as np

from zcpt_jax import masks as mask_algebra
from zcpt_jax.nn import torch_init
from zcpt_jax.spaces import _nasbench101_graph as graph101
from zcpt_jax.spaces._nasbench1shot1_genotype import (
    OPS,
    Graph,
    Parents,
    all_keys,
    dump,
    parse_graph,
)
from zcpt_jax.spaces._nasbench1shot1_network import (
    OP_GROUP,
    SHORT,
    Candidates,
    Network,
)
from zcpt_jax.spaces._nasbench101_graph import INPUT, OUTPUT
from zcpt_jax.types import (
    Decision,
    Drawing,
    InputError,
    Masks,
    Owner,
    Phase,
)

OUTPUT_GROUP = "output"


@dataclass(frozen=True)
class NasBench1Shot1(torch_init.TorchDefault):
    """Base class of the three spaces.

    The published script joins operations in the order in which they were decided and
    looks up the number of parents by the position in a shuffled list, so that
    operations change nodes and cells leave the space. Here each decision applies to its
    own node. The script also applies softmax to the discretised weights of parents, and
    starts the second proposal from the end of the first; here masks are used as they
    are, and each proposal starts from uniform masks.

    Attributes:
      channels: number of channels of a node in the first stage, doubled twice.
      cells_per_stage: number of cells in each of the three stages.
      num_parents: number of parents of each choice node, and then of the output.
    """

    num_parents: ClassVar[tuple[int, ...]] = ()

    channels: int = 16
    cells_per_stage: int = 3
    name: str = ""

    def init_masks(self) -> Masks:
        """Masks ``{'op': [nodes, 3], 'input_k': [k], ..., 'output': [nodes + 1]}``.

        Each entry is one over the length of its row. ``input_k`` belongs to node k,
        which has k possible parents; a node that reads all of them has no group.
        """
        groups = {OP_GROUP: mask_algebra.undecided(self._nodes, len(OPS))}
        for target, group in enumerate(self._groups, start=1):
            if group is not None:
                groups[group] = mask_algebra.undecided(1, target)[0]
        return groups

    def phases(self) -> tuple[Phase, ...]:
        """Operations of the nodes, parents of the nodes, then parents of the output.

        The parents of a node are chosen all at once: as published, those whose removal
        scores worst are kept.
        """
        nodes = [f"node {node}" for node in range(1, self._nodes + 1)]
        ops = mask_algebra.edge_decisions(OP_GROUP, nodes, (OPS,) * self._nodes)
        inputs = tuple(
            self._parent_decision(target)
            for target in range(1, self._nodes + 1)
            if self._groups[target - 1] is not None
        )
        output = self._parent_decision(self._nodes + 1)
        return (
            Phase("operations", (ops,)),
            Phase("inputs", (inputs,)),
            Phase("output", ((output,),)),
        )

    def _parent_decision(self, target: int) -> Decision:
        group = self._groups[target - 1]
        assert group is not None
        name = OUTPUT if target > self._nodes else str(target)
        candidates = (INPUT, *(str(node) for node in range(1, target)))
        region = np.eye(target, dtype=bool)
        keep = self.num_parents[target - 1]
        return Decision(f"inputs of {name}", candidates, {group: region}, keep)

    @property
    def _nodes(self) -> int:
        return len(self.num_parents) - 1

    @property
    def _groups(self) -> tuple[str | None, ...]:
        """Mask group of each node's parents, then of the output's parents."""
        counts = enumerate(self.num_parents[:-1], start=1)
        inputs = (f"input_{k}" if count < k else None for k, count in counts)
        return (*inputs, OUTPUT_GROUP)

    def supernet(self, num_classes: int) -> nn.Module:
        """All operations at all nodes; each node reads all earlier nodes."""
        parents = tuple(tuple(range(k)) for k in range(1, self._nodes + 2))
        return self._build((OPS,) * self._nodes, parents, num_classes)

    def masked_network(self, num_classes: int, scales: bool) -> nn.Module:
        """Return the supernet."""
        del scales
        return self.supernet(num_classes)

    def network(self, genotype: str, num_classes: int) -> nn.Module:
        """Discrete network with only the chosen operations and parents.

        Nodes without a path to the output stay, because the published validation scores
        them too. :meth:`table_key` prunes them.
        """
        graph = self._read(genotype)
        return self._build(tuple((op,) for op in graph.ops), graph.parents, num_classes)

    def _build(
        self, candidates: Candidates, parents: Parents, num_classes: int
    ) -> nn.Module:
        return Network(
            candidates,
            parents,
            self._groups,
            self.channels,
            self.cells_per_stage,
            num_classes,
        )

    def owner(self, path: tuple[str, ...]) -> Owner | None:
        """Operation, or edge from the input, that owns a layer of a cell."""
        if len(path) < 2:
            return None
        projection = re.fullmatch(r"projection(\d+)", path[1])
        if projection:
            group = self._groups[int(projection[1]) - 1]
            return None if group is None else Owner(group, (0,))
        operation = re.fullmatch(r"node(\d+)_(\w+)", path[1])
        if operation:
            column = list(SHORT.values()).index(operation[2])
            return Owner(OP_GROUP, (int(operation[1]) - 1, column))
        return None

    def genotype(self, masks: Masks) -> str:
        """Genotype ``{"matrix":[[0,1,...],...],"ops":["input",...,"output"]}``.

        The matrix is upper triangular as in NAS-Bench-101, without the unconnected
        vertex that the published code adds to make seven.

        Raises:
          InputError: if a node has not exactly one operation, or a node or the output
            has not the number of parents that the space prescribes.
        """
        ops = mask_algebra.chosen(masks[OP_GROUP], OP_GROUP)
        parents = []
        for target, group in enumerate(self._groups, start=1):
            if group is None:
                parents.append(tuple(range(target)))
                continue
            weights, count = np.asarray(masks[group]), self.num_parents[target - 1]
            if not np.isin(weights, (0, 1)).all() or weights.sum() != count:
                raise InputError(
                    f"mask group {group!r} is not decided: {weights}; a genotype needs "
                    f"exactly {count} parents of weight 1 and the others 0"
                )
            parents.append(tuple(np.flatnonzero(weights).tolist()))
        return dump(Graph(tuple(OPS[index] for index in ops), tuple(parents)))

    def parse(self, text: str) -> str:
        """Convert a genotype to its canonical form.

        Args:
          text: JSON as :meth:`genotype` writes it, or the same as a Python literal:
            a dictionary, or ``ModelSpec(matrix=..., ops=...)``. Spaces 1 and 2 accept
            a seventh vertex without edges, as the published code writes it.

        Raises:
          InputError: if the genotype is malformed or not in the space.
        """
        return dump(self._read(text))

    def masks_of(self, genotype: str) -> Masks:
        """Discretised masks of a genotype, in the shapes of :meth:`init_masks`."""
        graph = self._read(genotype)
        choices = np.array([OPS.index(op) for op in graph.ops])
        masks = {OP_GROUP: mask_algebra.one_hot(choices, len(OPS))}
        for target, group in enumerate(self._groups, start=1):
            if group is not None:
                chosen = np.isin(np.arange(target), graph.parents[target - 1])
                masks[group] = chosen.astype(np.float32)
        return masks

    def drawings(self, genotype: str) -> tuple[Drawing, ...]:
        """Drawing of the cell, with the operations below the nodes."""
        graph = self._read(genotype)
        last = len(graph.ops) + 1
        names = [INPUT, *(str(node) for node in range(1, last)), OUTPUT]
        nodes = {}
        for index, name in enumerate(names):
            # Nodes lie on an ellipse so that no edge passes through a third node.
            height = 1.2 * (1 - (2 * index / last - 1) ** 2) ** 0.5
            nodes[name] = (float(index), height if index % 2 else -height)
        edges = tuple(
            (names[parent], names[target], "")
            for target, parents in enumerate(graph.parents, start=1)
            for parent in parents
        )
        labels = dict(zip(names[1:-1], graph.ops, strict=True))
        return (Drawing("cell", nodes, edges, labels=labels),)

    def forms(self, genotype: str) -> Mapping[str, str]:
        """NAS-Bench-101 hash of the cell."""
        return {"NAS-Bench-101 hash": self.table_key(genotype)}

    def table_key(self, genotype: str) -> str:
        """NAS-Bench-101 hash of the cell, pruned of nodes on no input-output path."""
        graph = self._read(genotype)
        return graph101.module_hash(graph.matrix(), graph.vertices())

    def table_keys(self) -> frozenset[str]:
        """Hashes of all genotypes: 2,685, 7,773 and 55,854 in spaces 1, 2 and 3.

        The paper's 2,487, 3,609 and 24,066 are the pairs of a graph and its operations
        that the authors' code enumerates: isomorphic ones more than once, but only some
        of the graphs.
        """
        return all_keys(self.num_parents)

    def _read(self, text: str) -> Graph:
        return parse_graph(text, self.name, self.num_parents)


@dataclass(frozen=True)
class NasBench1Shot1Space1(NasBench1Shot1):
    """Space 1 of NAS-Bench-1Shot1: 4 choice nodes, 2 parents of the output.

    Attributes:
      channels: number of channels of a node in the first stage, doubled twice.
      cells_per_stage: number of cells in each of the three stages.
    """

    num_parents: ClassVar[tuple[int, ...]] = (1, 2, 2, 2, 2)
    name: str = "nasbench1shot1_1"


@dataclass(frozen=True)
class NasBench1Shot1Space2(NasBench1Shot1):
    """Space 2 of NAS-Bench-1Shot1: 4 choice nodes, 3 parents of the output.

    Attributes:
      channels: number of channels of a node in the first stage, doubled twice.
      cells_per_stage: number of cells in each of the three stages.
    """

    num_parents: ClassVar[tuple[int, ...]] = (1, 1, 2, 2, 3)
    name: str = "nasbench1shot1_2"


@dataclass(frozen=True)
class NasBench1Shot1Space3(NasBench1Shot1):
    """Space 3 of NAS-Bench-1Shot1: 5 choice nodes, 2 parents of the output.

    Attributes:
      channels: number of channels of a node in the first stage, doubled twice.
      cells_per_stage: number of cells in each of the three stages.
    """

    num_parents: ClassVar[tuple[int, ...]] = (1, 1, 1, 2, 2, 2)
    name: str = "nasbench1shot1_3"
