"""NAS-Bench-1Shot1: three spaces of cells that NAS-Bench-101 knows the accuracy of.

Zela, Siems and Hutter, NAS-Bench-1Shot1, ICLR 2020; the supernet as Zero-Cost-PT
scores it (Xiang et al. 2023, appendix, and the authors' published code).

A cell is a graph of choice nodes 1, 2, ... between the input, node 0, and the output.
What is searched is the operation at each node and, for each node and the output, which
of the earlier nodes it reads.
"""

import ast
import functools
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from zcpt_jax import masks as mask_algebra
from zcpt_jax import nasbench101
from zcpt_jax.nasbench101 import INPUT, OUTPUT
from zcpt_jax.spaces import _ops
from zcpt_jax.taps import CutPoint, ReLU
from zcpt_jax.types import (
    Decision,
    Drawing,
    InputError,
    Masks,
    Owner,
    Phase,
    Space,
    Variables,
)

OPS = ("maxpool3x3", "conv3x3-bn-relu", "conv1x1-bn-relu")
OP_GROUP = "op"
OUTPUT_GROUP = "output"
_KERNEL_SIZE = {"conv3x3-bn-relu": 3, "conv1x1-bn-relu": 1}
_SHORT = {op: op.split("-")[0] for op in OPS}  # in names of parameters
_FORM = (
    'the form {"matrix": [[0, 1, ...], ...], "ops": ["input", ..., "output"]} of '
    "NAS-Bench-101"
)

Candidates = tuple[tuple[str, ...], ...]
Parents = tuple[tuple[int, ...], ...]


class Graph(NamedTuple):
    """A cell.

    Attributes:
      ops: the operation at each choice node.
      parents: what each choice node, and then the output, reads; 0 is the input.
    """

    ops: tuple[str, ...]
    parents: Parents

    def matrix(self) -> list[list[int]]:
        """The adjacency matrix of input, choice nodes and output."""
        size = len(self.ops) + 2
        matrix = [[0] * size for _ in range(size)]
        for target, parents in enumerate(self.parents, start=1):
            for parent in parents:
                matrix[parent][target] = 1
        return matrix

    def vertices(self) -> list[str]:
        """The operations as NAS-Bench-101 lists them, ends included."""
        return [INPUT, *self.ops, OUTPUT]


@dataclass(frozen=True)
class NasBench1Shot1(Space):
    """What the three spaces share.

    The published script joins operations in the order in which they were decided and
    looks up the number of parents by the place in a shuffled list, so that operations
    change nodes and cells leave the space. Here each decision is about its own node.
    The script also lets a supernet with decided parents run on their softmax, and
    starts the second proposal where the first one ended; here masks enter as they are,
    and each proposal starts undecided.

    Attributes:
      channels: channels of a node in the first stage, doubled twice.
      cells_per_stage: cells in each of the three stages.
      num_parents: how many nodes each choice node, and then the output, reads.
    """

    num_parents: ClassVar[tuple[int, ...]] = ()

    channels: int = 16
    cells_per_stage: int = 3
    name: str = ""

    def init_masks(self) -> Masks:
        """``{'op': [nodes, 3], 'input_k': [k], ..., 'output': [nodes + 1]}``.

        Each entry is one over the length of its row. ``input_k`` belongs to node k,
        which has k possible parents; a node that reads all of them has no group.
        """
        groups = {OP_GROUP: mask_algebra.undecided(self._nodes, len(OPS))}
        for target, group in enumerate(self._groups, start=1):
            if group is not None:
                groups[group] = mask_algebra.undecided(1, target)[0]
        return groups

    def phases(self) -> tuple[Phase, ...]:
        """The operation of each node, the parents of each node, the output's parents.

        Parents are kept all at once: those whose removal scores worst, as published.
        """
        nodes = [f"node {node}" for node in range(1, self._nodes + 1)]
        ops = mask_algebra.edge_decisions(OP_GROUP, nodes, OPS)
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
        """The mask group of each node's parents, then of the output's."""
        counts = enumerate(self.num_parents[:-1], start=1)
        inputs = (f"input_{k}" if count < k else None for k, count in counts)
        return (*inputs, OUTPUT_GROUP)

    def supernet(self, num_classes: int) -> nn.Module:
        """All operations at all nodes, which read all earlier nodes."""
        parents = tuple(tuple(range(k)) for k in range(1, self._nodes + 2))
        return self._build((OPS,) * self._nodes, parents, num_classes)

    def network(self, genotype: str, num_classes: int) -> nn.Module:
        """The network of a genotype, with the chosen operations and parents only.

        Nodes that lead nowhere stay: published validation scores them too. In the
        graph that tables are asked for they are pruned.
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

    def init_variables(
        self, module: nn.Module, key: jax.Array, image_shape: tuple[int, ...]
    ) -> Variables:
        """PyTorch's default initialisation, which the published scores rest on."""
        return _ops.torch_init(module, key, image_shape)

    def owner(self, path: tuple[str, ...]) -> Owner | None:
        """The operation or the edge from the input that a layer of a cell is for."""
        if len(path) < 2:
            return None
        projection = re.fullmatch(r"projection(\d+)", path[1])
        if projection:
            group = self._groups[int(projection[1]) - 1]
            return None if group is None else Owner(group, (0,))
        operation = re.fullmatch(r"node(\d+)_(\w+)", path[1])
        if operation:
            column = list(_SHORT.values()).index(operation[2])
            return Owner(OP_GROUP, (int(operation[1]) - 1, column))
        return None

    def genotype(self, masks: Masks) -> str:
        """``{"matrix":[[0,1,...],...],"ops":["input",...,"output"]}``.

        The matrix is that of NAS-Bench-101, upper triangular, without the vertex that
        the published code adds to make seven and never connects.

        Raises:
          InputError: if a node has not one operation, or it or the output not as many
            parents as the space gives it.
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
        return _format(Graph(tuple(OPS[index] for index in ops), tuple(parents)))

    def parse(self, text: str) -> str:
        """The canonical form of a genotype.

        Args:
          text: JSON as :meth:`genotype` writes it, or the same as a Python literal:
            a dictionary, or ``ModelSpec(matrix=..., ops=...)``. Spaces 1 and 2 accept
            a seventh vertex without edges, as the published code writes it.

        Raises:
          InputError: if it is malformed or not a member of the space.
        """
        return _format(self._read(text))

    def masks_of(self, genotype: str) -> Masks:
        """The decided masks of a genotype, in the shapes of :meth:`init_masks`."""
        graph = self._read(genotype)
        choices = np.array([OPS.index(op) for op in graph.ops])
        masks = {OP_GROUP: mask_algebra.one_hot(choices, len(OPS))}
        for target, group in enumerate(self._groups, start=1):
            if group is not None:
                chosen = np.isin(np.arange(target), graph.parents[target - 1])
                masks[group] = chosen.astype(np.float32)
        return masks

    def drawings(self, genotype: str) -> tuple[Drawing, ...]:
        """The cell, its operations below the nodes."""
        graph = self._read(genotype)
        last = len(graph.ops) + 1
        names = [INPUT, *(str(node) for node in range(1, last)), OUTPUT]
        nodes = {}
        for index, name in enumerate(names):
            # On an ellipse: no edge runs through a third node.
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
        """The hash that NAS-Bench-101 files the cell under."""
        return {"NAS-Bench-101 hash": self.table_key(genotype)}

    def table_key(self, genotype: str) -> str:
        """The NAS-Bench-101 hash of the cell without what leads nowhere."""
        graph = self._read(genotype)
        return nasbench101.module_hash(graph.matrix(), graph.vertices())

    def table_keys(self) -> frozenset[str]:
        """The hashes of all genotypes: 2,685, 7,773 and 55,854 in spaces 1, 2 and 3.

        The paper's 2,487, 3,609 and 24,066 are what the authors' code enumerates:
        pairs of a graph and its operations, isomorphic ones more than once, but only
        some of the graphs.
        """
        return _all_keys(self.num_parents)

    def _read(self, text: str) -> Graph:
        matrix, ops = _literal(text)
        matrix, ops = _without_seventh(matrix, ops, self._nodes + 2)
        size = self._nodes + 2
        if len(ops) != size:
            raise InputError(
                f"{self.name} has {size} vertices, input and output included, but the "
                f"genotype {text!r} has {len(ops)}"
            )
        parents = tuple(
            tuple(row for row in range(target) if matrix[row][target])
            for target in range(1, size)
        )
        counts = tuple(len(rows) for rows in parents)
        if counts != self.num_parents:
            raise InputError(
                f"in {self.name} the nodes and the output read "
                f"{_listed(self.num_parents)} earlier nodes, but in the genotype "
                f"{text!r} they read {_listed(counts)}"
            )
        return Graph(tuple(ops[1:-1]), parents)


@dataclass(frozen=True)
class NasBench1Shot1Space1(NasBench1Shot1):
    """Space 1 of NAS-Bench-1Shot1: 4 choice nodes, 2 parents of the output.

    Attributes:
      channels: channels of a node in the first stage, doubled twice.
      cells_per_stage: cells in each of the three stages.
    """

    num_parents: ClassVar[tuple[int, ...]] = (1, 2, 2, 2, 2)
    name: str = "nasbench1shot1_1"


@dataclass(frozen=True)
class NasBench1Shot1Space2(NasBench1Shot1):
    """Space 2 of NAS-Bench-1Shot1: 4 choice nodes, 3 parents of the output.

    Attributes:
      channels: channels of a node in the first stage, doubled twice.
      cells_per_stage: cells in each of the three stages.
    """

    num_parents: ClassVar[tuple[int, ...]] = (1, 1, 2, 2, 3)
    name: str = "nasbench1shot1_2"


@dataclass(frozen=True)
class NasBench1Shot1Space3(NasBench1Shot1):
    """Space 3 of NAS-Bench-1Shot1: 5 choice nodes, 2 parents of the output.

    Attributes:
      channels: channels of a node in the first stage, doubled twice.
      cells_per_stage: cells in each of the three stages.
    """

    num_parents: ClassVar[tuple[int, ...]] = (1, 1, 1, 2, 2, 2)
    name: str = "nasbench1shot1_3"


def _matrices(num_parents: Sequence[int]) -> Iterator[list[list[int]]]:
    """The adjacency matrices of a space."""
    choices = (
        itertools.combinations(range(target), count)
        for target, count in enumerate(num_parents, start=1)
    )
    blank = ("",) * (len(num_parents) - 1)
    for parents in itertools.product(*choices):
        yield Graph(blank, parents).matrix()


@functools.cache
def _all_keys(num_parents: tuple[int, ...]) -> frozenset[str]:
    return nasbench101.all_hashes(_matrices(num_parents))


def _format(graph: Graph) -> str:
    value = {"matrix": graph.matrix(), "ops": graph.vertices()}
    return json.dumps(value, separators=(",", ":"))


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _literal(text: str) -> tuple[list[list[int]], list[str]]:
    """Matrix and operations of a well-formed text."""
    value = _json_or_python(text)
    if not isinstance(value, dict) or set(value) != {"matrix", "ops"}:
        raise InputError(
            f"malformed NAS-Bench-1Shot1 genotype {text!r}; expected {_FORM}"
        )
    matrix, ops = value["matrix"], value["ops"]
    if (
        not isinstance(ops, list | tuple)
        or len(ops) < 2
        or (ops[0], ops[-1]) != (INPUT, OUTPUT)
    ):
        raise InputError(
            f"the ops of the NAS-Bench-1Shot1 genotype {text!r} must be a list that "
            f"starts with {INPUT!r} and ends with {OUTPUT!r}"
        )
    for op in ops[1:-1]:
        if op not in OPS:
            raise InputError(
                f"unknown operation {op!r} in the NAS-Bench-1Shot1 genotype {text!r}; "
                f"known: {', '.join(OPS)}"
            )
    if not _is_upper_triangular(matrix, len(ops)):
        raise InputError(
            f"the matrix of the NAS-Bench-1Shot1 genotype {text!r} must have "
            f"{len(ops)} rows of {len(ops)} entries, one an operation: 0 or 1 above "
            "the diagonal, 0 elsewhere"
        )
    return [list(row) for row in matrix], list(ops)


def _json_or_python(text: str) -> Any:
    """The value of a JSON text, Python literal or ``ModelSpec`` call; else None."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        node = ast.parse(text.strip(), mode="eval").body
        if not isinstance(node, ast.Call):
            return ast.literal_eval(node)
        named = isinstance(node.func, ast.Name) and node.func.id == "ModelSpec"
        dotted = isinstance(node.func, ast.Attribute) and node.func.attr == "ModelSpec"
        if not named and not dotted:
            return None
        names = ("matrix", "ops")
        value = dict(zip(names, map(ast.literal_eval, node.args), strict=False))
        for keyword in node.keywords:
            value[str(keyword.arg)] = ast.literal_eval(keyword.value)
        return value
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def _is_upper_triangular(matrix: Any, size: int) -> bool:
    if not isinstance(matrix, list | tuple) or len(matrix) != size:
        return False
    for index, row in enumerate(matrix):
        if not isinstance(row, list | tuple) or len(row) != size:
            return False
        if any(type(entry) is not int or entry not in (0, 1) for entry in row):
            return False
        if any(row[: index + 1]):
            return False
    return True


def _without_seventh(
    matrix: list[list[int]], ops: list[str], size: int
) -> tuple[list[list[int]], list[str]]:
    """Leaves out the vertex without edges that published code fills up with."""
    if (len(ops), size) != (7, 6):
        return matrix, ops
    loose = [
        v for v in range(7) if not any(matrix[v]) and not any(r[v] for r in matrix)
    ]
    if len(loose) != 1:
        return matrix, ops
    kept = [vertex for vertex in range(7) if vertex != loose[0]]
    return [[matrix[r][c] for c in kept] for r in kept], [ops[v] for v in kept]


class ConvNormReLU(nn.Module):
    """Convolution, BatchNorm (affine), ReLU.

    Attributes:
      features: output channels.
      size: height and width of the kernel.
    """

    features: int
    size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[B, H, W, C]`` to ``[B, H, W, features]``."""
        y = _ops.Conv(self.features, self.size, name="conv")(x)
        return ReLU(name="relu")(_ops.batch_norm(name="norm")(y))


class Cell(nn.Module):
    """One cell.

    Unlike in the other spaces nothing is blocked: an operation of weight zero runs,
    and its ReLU counts, as in the published code.

    Attributes:
      candidates: the operations at each choice node.
      parents: what each choice node, and then the output, reads; 0 is the input.
      features: channels of a node.
    """

    candidates: Candidates
    parents: Parents
    features: int

    @nn.compact
    def __call__(
        self, x: jax.Array, ops: Sequence[Any], inputs: Sequence[Any]
    ) -> jax.Array:
        """Maps ``[B, H, W, C]`` to ``[B, H, W, nodes * features]``.

        Args:
          x: the cell's input.
          ops: for each choice node the weights of its candidates.
          inputs: for each choice node, and then the output, the weights of its
            parents.
        """
        nodes: list[jax.Array] = []
        for index, candidates in enumerate(self.candidates):
            number = index + 1
            terms = [
                weight * (nodes[parent - 1] if parent else self._project(x, number))
                for parent, weight in zip(
                    self.parents[index], inputs[index], strict=True
                )
            ]
            z = sum(terms[1:], terms[0])
            results = [
                weight * self._operation(op, z, number)
                for op, weight in zip(candidates, ops[index], strict=True)
            ]
            nodes.append(sum(results[1:], results[0]))
        weights = dict(zip(self.parents[-1], inputs[-1], strict=True))
        joined = jnp.concatenate(
            [
                weights[number] * node if number in weights else jnp.zeros_like(node)
                for number, node in enumerate(nodes, start=1)
            ],
            axis=-1,
        )
        if 0 not in weights:
            return joined
        return weights[0] * self._project(x, len(nodes) + 1) + joined

    def _project(self, x: jax.Array, target: int) -> jax.Array:
        """The cell's input as a choice node, or the output, reads it."""
        nodes = len(self.candidates)
        features = self.features if target <= nodes else nodes * self.features
        return ConvNormReLU(features, 1, name=f"projection{target}")(x)

    def _operation(self, op: str, z: jax.Array, number: int) -> jax.Array:
        name = f"node{number}_{_SHORT[op]}"
        if op in _KERNEL_SIZE:
            return ConvNormReLU(self.features, _KERNEL_SIZE[op], name=name)(z)
        return _ops.batch_norm(affine=False, name=name)(_ops.max_pool(z, 3))


class Network(nn.Module):
    """Stem, three stages of cells, classifier: supernet and discrete network alike.

    Attributes:
      candidates: the operations at each choice node, the same in every cell.
      parents: what each choice node, and then the output, reads; 0 is the input.
      groups: for each choice node, and then the output, the mask group that weighs
        its parents, None if nothing does.
      channels: channels of a node in the first stage.
      cells_per_stage: cells in each stage.
      num_classes: number of logits.
    """

    candidates: Candidates
    parents: Parents
    groups: tuple[str | None, ...]
    channels: int
    cells_per_stage: int
    num_classes: int

    @nn.compact
    def __call__(self, images: jax.Array, masks: Masks | None = None) -> jax.Array:
        """Logits ``[B, num_classes]`` of images ``[B, H, W, 3]``.

        Args:
          images: normalised images of any height and width.
          masks: in the shapes of ``init_masks``, or None for weight one on every
            candidate.

        Raises:
          InputError: if the masks have other groups or shapes.
        """
        ops, inputs = self._weights(masks)
        x = ConvNormReLU(self.channels, 3, name="stem")(images)
        for stage in range(3):
            if stage:
                # One pixel of padding, as published: 32 -> 17 -> 9.
                x = _ops.max_pool(x, 2, 2)
            features = self.channels * 2**stage
            for index in range(self.cells_per_stage):
                (x,) = CutPoint()(x)
                name = f"stage{stage}_cell{index}"
                cell = Cell(self.candidates, self.parents, features, name=name)
                x = cell(x, ops, inputs)
        # Counts twice, wrapper included, as in the published code.
        x = ReLU(name="last_relu")(x, live=2.0)
        x = _ops.Conv(4 * self.channels, 1, name="last_conv")(x)
        x = _ops.batch_norm(affine=False, name="last_norm")(x)
        return _ops.Linear(self.num_classes, name="classifier")(x.mean(axis=(1, 2)))

    def _weights(self, masks: Masks | None) -> tuple[Any, Any]:
        ones = [[1.0] * len(parents) for parents in self.parents]
        if not masks:
            return [[1.0] * len(ops) for ops in self.candidates], ones
        shapes: dict[str, tuple[int, ...]]
        shapes = {OP_GROUP: (len(self.candidates), len(self.candidates[0]))}
        for group, parents in zip(self.groups, self.parents, strict=True):
            if group is not None:
                shapes[group] = (len(parents),)
        found = {group: jnp.shape(weights) for group, weights in masks.items()}
        if found != shapes:
            raise InputError(
                f"the masks must have the shapes {shapes}, got the shapes {found}"
            )
        inputs = [
            equal if group is None else jnp.asarray(masks[group])
            for group, equal in zip(self.groups, ones, strict=True)
        ]
        return jnp.asarray(masks[OP_GROUP]), inputs
