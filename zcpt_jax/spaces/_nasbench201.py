"""NAS-Bench-201: one cell of 4 nodes and 6 edges, with 5 operations per edge.

Dong and Yang, NAS-Bench-201, ICLR 2020. The supernet is the one that Zero-Cost-PT
scores (Xiang et al. 2023, appendix, and the authors' published code).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from zcpt_jax import masks as mask_algebra
from zcpt_jax.nn import layers, torch_init, windows
from zcpt_jax.nn.capture import CutPoint, GlobalAverage, ReLU
from zcpt_jax.nn.zero_weights import apart, on_images, weighted_sum, where_used
from zcpt_jax.types import (
    Drawing,
    InputError,
    Masks,
    Owner,
    Phase,
)

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2))  # (node, input)
EDGE_NAMES = tuple(f"{node}<-{source}" for node, source in EDGES)
GROUP = "cell"
_LONGEST = 1000  # Characters of a genotype, with all that may be around it.

# NASLib's numbers of operations, in its order of edges.
_NASLIB_OPS = (
    "skip_connect",
    "none",
    "nor_conv_3x3",
    "nor_conv_1x1",
    "avg_pool_3x3",
)
_NASLIB_EDGES = ((1, 0), (2, 0), (3, 0), (2, 1), (3, 1), (3, 2))
_NASLIB_FORM = re.compile(
    r"\s*(?:naslib:)?\s*[(\[]?\s*([0-4](?:\s?,\s?[0-4]){5})\s*[)\]]?\s*"
)
_KERNEL_SIZE = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}

Candidates = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class NasBench201(torch_init.TorchDefault):
    """The space NAS-Bench-201.

    Attributes:
      channels: number of channels of the first stage, doubled twice.
      cells_per_stage: number of cells in each of the three stages.
    """

    channels: int = 16
    cells_per_stage: int = 5
    name: str = "nasbench201"

    def init_masks(self) -> Masks:
        """Masks ``{'cell': [6, 5]}``, every entry 1/5."""
        return {GROUP: mask_algebra.undecided(len(EDGES), len(OPS))}

    def phases(self) -> tuple[Phase, ...]:
        """One phase of six edge decisions."""
        edges = mask_algebra.edge_decisions(GROUP, EDGE_NAMES, (OPS,) * len(EDGES))
        return (Phase("operations", (edges,)),)

    def supernet(self, num_classes: int) -> nn.Module:
        """Supernet: all operations on all edges, non-affine BatchNorm in the cells."""
        return self._build((OPS,) * len(EDGES), num_classes, affine=False)

    def whole(self, num_classes: int) -> nn.Module:
        """All operations on all edges, with affine BatchNorm as in the networks."""
        return self._build((OPS,) * len(EDGES), num_classes, affine=True)

    def masked_network(self, num_classes: int, scales: bool) -> nn.Module:
        """Return the supernet, or :meth:`whole` if scales are needed."""
        return self.whole(num_classes) if scales else self.supernet(num_classes)

    def network(self, genotype: str, num_classes: int) -> nn.Module:
        """Discrete network of a genotype, with affine BatchNorm."""
        candidates = tuple((op,) for op in _parse_ops(genotype))
        return self._build(candidates, num_classes, affine=True)

    def _build(
        self, candidates: Candidates, num_classes: int, affine: bool
    ) -> nn.Module:
        return Network(
            candidates, self.channels, self.cells_per_stage, num_classes, affine
        )

    def genotype(self, masks: Masks) -> str:
        """Genotype ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`` of discretised masks."""
        chosen = mask_algebra.chosen(masks[GROUP], GROUP)
        return _format_ops([OPS[index] for index in chosen])

    def parse(self, text: str) -> str:
        """Convert an architecture string to its canonical form.

        Raises:
          InputError: if the string is malformed.
        """
        return _format_ops(_parse_ops(text))

    def masks_of(self, genotype: str) -> Masks:
        """The one-hot masks ``{'cell': [6, 5]}`` of a genotype."""
        choices = np.array([OPS.index(op) for op in _parse_ops(genotype)])
        return {GROUP: mask_algebra.one_hot(choices, len(OPS))}

    def owner(self, path: tuple[str, ...]) -> Owner | None:
        """Mask entry of a cell's convolution, None for a layer of all networks."""
        found = re.match(r"(\d)_(\d)_(nor_conv_\dx\d)_", path[-1])
        if not found:
            return None
        edge = EDGES.index((int(found[1]), int(found[2])))
        return Owner(GROUP, (edge, OPS.index(found[3])))

    def drawings(self, genotype: str) -> tuple[Drawing, ...]:
        """Drawing of the cell, with muted ``none`` edges."""
        ops = _parse_ops(genotype)
        nodes = {"0": (0.0, 0.0), "1": (1.0, 0.8), "2": (2.0, -0.8), "3": (3.0, 0.0)}
        edges = tuple(
            (str(source), str(node), op)
            for (node, source), op in zip(EDGES, ops, strict=True)
        )
        return (Drawing("cell", nodes, edges, frozenset({"none"})),)


def _format_ops(ops: Sequence[str]) -> str:
    nodes: dict[int, str] = {}
    for (node, source), op in zip(EDGES, ops, strict=True):
        nodes[node] = nodes.get(node, "|") + f"{op}~{source}|"
    return "+".join(nodes.values())


def _plain(text: str) -> str:
    """The architecture string within the notations of other code bases.

    These are NASLib's six numbers, and the string in quotes, in a list, with blanks
    around its plus signs, in ``Structure(4 nodes with ...)`` or in a line of a log.
    """
    numbers = _NASLIB_FORM.fullmatch(text)
    if numbers:
        codes = map(int, re.findall(r"\d", numbers[1]))
        ops = dict(zip(_NASLIB_EDGES, codes, strict=True))
        return _format_ops([_NASLIB_OPS[ops[edge]] for edge in EDGES])
    start, end = text.find("|"), text.rfind("|") + 1
    return re.sub(r" *\+ *", "+", text[start:end]) if start >= 0 else text


def _parse_ops(text: str) -> list[str]:
    if len(text) > _LONGEST:
        raise InputError(
            f"a NAS-Bench-201 genotype has fewer than {_LONGEST} characters, got "
            f"{len(text):,}: {text[:60]!r}..."
        )
    given, text = text, _plain(text)
    found = re.findall(r"([a-z0-9_]+)~(\d)", text)
    ops = [op for op, _ in found]
    unknown = [op for op in ops if op not in OPS]
    if unknown:
        raise InputError(
            f"unknown operation {unknown[0]!r} in the NAS-Bench-201 genotype "
            f"{given!r}; known: {', '.join(OPS)}"
        )
    if len(ops) != len(EDGES) or _format_ops(ops) != text.strip():
        raise InputError(
            f"malformed NAS-Bench-201 genotype {given!r}; expected the form "
            "|op~0|+|op~0|op~1|+|op~0|op~1|op~2|"
        )
    return ops


class Cell(nn.Module):
    """Cell of a supernet or discrete network.

    Operations that read the same node share its ReLU. The ReLU counts as often as the
    published hooks count it: a candidate convolution has a wrapper module that counts
    the node once more, and at weight zero it runs on zeros, so that its own ReLU is
    inactive while the wrapper still counts.

    Attributes:
      candidates: operations on each of the six edges.
      affine: whether BatchNorm has a scale and a bias.
    """

    candidates: Candidates
    affine: bool

    @nn.compact
    def __call__(
        self, x: jax.Array, weights: Sequence[Any], blocked: Any = 1.0
    ) -> jax.Array:
        """Map ``[B, H, W, C]`` to the same shape.

        Args:
          x: input of the cell, node 0.
          weights: architecture weights ``[O]`` of the candidates of each edge.
          blocked: 1 if convolutions of weight zero count, 0 if they do not exist.
        """
        nodes = [x]
        inputs: dict[int, list[tuple[Any, jax.Array]]] = {1: [], 2: [], 3: []}
        for source in range(3):
            if source:
                nodes.append(apart(_sum(inputs[source], x), weights))
            outgoing = self._outgoing(source, nodes[source], weights, blocked)
            for node, weight, out in outgoing:
                inputs[node].append((weight, out))
        return apart(_sum(inputs[3], x), weights)

    def _outgoing(
        self, source: int, z: jax.Array, weights: Sequence[Any], blocked: Any
    ) -> list[tuple[int, Any, jax.Array]]:
        """Target, weight and output of each operation that reads node ``source``."""
        uses = [
            (node, op, weights[edge][index])
            for edge, (node, origin) in enumerate(EDGES)
            if origin == source
            for index, op in enumerate(self.candidates[edge])
            if op != "none"
        ]
        on = [w != 0 for _, op, w in uses if op in _KERNEL_SIZE]
        if on:
            used = sum(jnp.float32(w) for w in on)
            dead = (len(on) - used) * blocked
            live = 2 * used + dead
            activated = ReLU(name=f"relu_{source}")(z, live, dead)
        if any(op == "avg_pool_3x3" for _, op, _ in uses):
            used = sum(w for _, op, w in uses if op == "avg_pool_3x3")
            pooled = where_used(used, windows.average_pool(), z)
        terms = []
        for node, op, weight in uses:
            if op == "skip_connect":
                out = z
            elif op == "avg_pool_3x3":
                out = pooled
            else:
                out = self._conv(op, activated, weight, f"{node}_{source}_{op}")
            terms.append((node, weight, out))
        return terms

    def _conv(self, op: str, activated: jax.Array, weight: Any, name: str) -> jax.Array:
        features = activated.shape[-1]
        conv = layers.Conv(features, _KERNEL_SIZE[op], name=f"{name}_conv")
        y = conv(activated, weight)
        return layers.batch_norm(self.affine, name=f"{name}_norm")(y)


def _sum(terms: list[tuple[Any, jax.Array]], x: jax.Array) -> jax.Array:
    # XLA must not recognise these zeros as constant: it would fold every computation on
    # them at compile time, which takes minutes.
    return weighted_sum(*zip(*terms, strict=True)) if terms else 0 * x


class Reduction(nn.Module):
    """Residual block between stages: half the resolution, twice the channels.

    Each ReLU counts twice, because the published code also counts its wrapper.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``[B, H, W, C]`` to ``[B, H/2, W/2, 2C]``."""
        features = 2 * x.shape[-1]
        y = ReLU(name="relu_a")(x, count=2.0)
        y = layers.Conv(features, 3, stride=2, name="conv_a")(y)
        y = layers.batch_norm(name="norm_a")(y)
        y = ReLU(name="relu_b")(y, count=2.0)
        y = layers.Conv(features, 3, name="conv_b")(y)
        y = layers.batch_norm(name="norm_b")(y)
        shortcut = on_images(_halve, x)
        return layers.Conv(features, 1, name="shortcut")(shortcut) + y


def _halve(x: jax.Array) -> jax.Array:
    return nn.avg_pool(x, (2, 2), strides=(2, 2))


class Network(nn.Module):
    """Supernet or discrete network: stem, three stages of cells and classifier.

    Attributes:
      candidates: operations on each of the six edges, the same in every cell.
      channels: number of channels of the first stage.
      cells_per_stage: number of cells in each stage.
      num_classes: number of logits.
      affine: whether BatchNorm in the cells has a scale and a bias.
    """

    candidates: Candidates
    channels: int
    cells_per_stage: int
    num_classes: int
    affine: bool

    @nn.compact
    def __call__(self, images: jax.Array, masks: Masks | None = None) -> jax.Array:
        """Compute the logits ``[B, num_classes]`` of images ``[B, H, W, 3]``.

        Args:
          images: normalised images; H and W divisible by 4.
          masks: ``{'cell': [6, O]}``, or None for weight one on every candidate.

        Raises:
          InputError: if the images or masks have another shape.
        """
        if images.shape[1] % 4 or images.shape[2] % 4:
            raise InputError(
                "NAS-Bench-201 halves its images twice: height and width must be "
                f"divisible by 4, got {images.shape[1]}x{images.shape[2]}"
            )
        weights = layers.mask_weights(masks, GROUP, self.candidates, "E")
        blocked = layers.blocked(masks)
        x = layers.Conv(self.channels, 3, name="stem_conv")(images)
        x = layers.batch_norm(name="stem_norm")(x)
        for stage in range(3):
            for index in range(self.cells_per_stage):
                (x,) = CutPoint()(x)
                cell = Cell(
                    self.candidates, self.affine, name=f"stage{stage}_cell{index}"
                )
                x = cell(x, weights, blocked)
            if stage < 2:
                x = Reduction(name=f"reduction{stage}")(x)
        x = ReLU(name="last_relu")(layers.batch_norm(name="last_norm")(x))
        pooled = GlobalAverage()(x)
        return layers.Linear(self.num_classes, name="classifier")(pooled)
