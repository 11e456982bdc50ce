"""The DARTS networks: one module for supernet and discrete network."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from zcpt_jax.nn import layers, windows
from zcpt_jax.nn.capture import CutPoint, DropPath, GlobalAverage, ReLU
from zcpt_jax.nn.zero_weights import weighted_sum, where_used
from zcpt_jax.spaces._darts_auxiliary import AuxiliaryHead
from zcpt_jax.spaces._darts_genotype import EDGES
from zcpt_jax.spaces._darts_ops import Dilated, Preprocess, Reduce, Separable
from zcpt_jax.types import AUXILIARY, NOISE, InputError, Masks

Candidates = tuple[tuple[str, ...], ...]
"""Operations on each of the 14 edges; an edge without operations is absent."""

_SEPARABLE = {"sep_conv_3x3": 3, "sep_conv_5x5": 5}
_DILATED = {"dil_conv_3x3": 3, "dil_conv_5x5": 5}


def reductions(cells: int) -> frozenset[int]:
    """Return the indices of the reduction cells: one and two thirds of the depth."""
    return frozenset({cells // 3, 2 * cells // 3})


class Cell(nn.Module):
    """One cell: 14 edges between two inputs and four nodes.

    Operations that read the same node share its ReLU and its pooled values. The ReLU
    counts once for each of them whose weight is not zero, because the published
    supernet skips operations of weight zero.

    Attributes:
      candidates: operations on each edge.
      features: number of channels of each node.
      reduction: whether edges from the cell's inputs have stride 2.
      halve: whether the first input has twice the resolution of the second.
      discrete: whether the network is discrete: BatchNorm is affine, and there is none
        after pools.
    """

    candidates: Candidates
    features: int
    reduction: bool
    halve: bool
    discrete: bool

    @nn.compact
    def __call__(
        self,
        s0: jax.Array,
        s1: jax.Array,
        unit: jax.Array,
        weights: Sequence[Any],
        in_use: Sequence[Any],
    ) -> jax.Array:
        """Map the outputs of the two previous cells to the output of this cell.

        Args:
          s0: output of the cell before the previous one, ``[B, H0, W0, C0]``.
          s1: output of the previous cell, ``[B, H, W, C1]``.
          unit: scale of the noise, a scalar.
          weights: architecture weights of the candidates of each edge.
          in_use: for each edge, 1 for each candidate of non-zero weight, else 0.

        Returns:
          Output of the cell, ``[B, H', W', 4 * features]``.
        """
        noise = self._noise(s1, unit)
        for_s0 = Preprocess(self.features, self.halve, self.discrete, name="input_0")
        for_s1 = Preprocess(self.features, False, self.discrete, name="input_1")
        nodes = [for_s0(s0), for_s1(s1)]
        inputs: dict[int, list[tuple[Any, jax.Array]]]
        inputs = {node: [] for node in range(2, 6)}
        for source in range(6):
            if source > 1:
                terms = inputs[source]
                shape = (*_output_shape(s1, self.reduction), self.features)
                zeros = (1.0, jnp.zeros(shape, s1.dtype))
                nodes.append(weighted_sum(*zip(zeros, *terms, strict=True)))
            outgoing = self._outgoing(source, nodes[source], noise, in_use)
            for edge, index, out in outgoing:
                inputs[EDGES[edge][0]].append((weights[edge][index], out))
        return jnp.concatenate(nodes[2:], axis=-1)

    def _outgoing(
        self, source: int, z: jax.Array, noise: Any, in_use: Sequence[Any]
    ) -> list[tuple[int, int, jax.Array]]:
        """Edge, candidate index and output of each operation reading ``source``."""
        stride = 2 if self.reduction and source < 2 else 1
        uses: dict[str, list[tuple[int, int]]] = {}
        for edge, (_, origin) in enumerate(EDGES):
            for index, op in enumerate(self.candidates[edge]):
                if origin == source and op != "none":
                    uses.setdefault(op, []).append((edge, index))
        on = {
            op: [in_use[e][i] for e, i in entries]
            for op, entries in uses.items()
            if "conv" in op or (op == "skip_connect" and stride == 2)
        }
        activated = z
        if on:
            live = sum(sum(count) for count in on.values())
            activated = ReLU(name=f"relu_{source}")(z, live)
        terms = []
        for op, entries in uses.items():
            name = f"{source}_{op}"
            if op == "noise":
                outs = [noise[edge] for edge, _ in entries]
            elif op in on:
                module = self._convolution(op, len(entries), stride, name)
                outs = module(activated, on[op])
            else:
                used = sum(in_use[e][i] for e, i in entries)
                outs = self._pool(op, z, len(entries), stride, name, used)
            # DropPath skips identities, as published, and all paths of a supernet.
            droppable = self.discrete and (op in on or op != "skip_connect")
            for (edge, index), out in zip(entries, outs, strict=True):
                node = EDGES[edge][0]
                out = DropPath(name=f"{name}_drop_{node}")(out) if droppable else out
                terms.append((edge, index, out))
        return terms

    def _convolution(self, op: str, count: int, stride: int, name: str) -> nn.Module:
        if op in _SEPARABLE:
            return Separable(count, _SEPARABLE[op], stride, self.discrete, name=name)
        if op in _DILATED:
            return Dilated(count, _DILATED[op], stride, self.discrete, name=name)
        return Reduce(count, self.discrete, name=name)

    def _pool(
        self, op: str, z: jax.Array, count: int, stride: int, name: str, used: Any
    ) -> list[jax.Array]:
        """Output of a pool or identity for each edge.

        All edges share it, except for the BatchNorm after pools in supernets.
        """
        if op == "skip_connect":
            return [z] * count
        pool = windows.average_pool(stride)
        if op == "max_pool_3x3":
            pool = windows.maximum_pool(3, stride)
        pooled = where_used(used, pool, z)
        if self.discrete:
            return [pooled] * count
        stacked = jnp.broadcast_to(pooled, (count, *pooled.shape))
        return list(layers.batch_norm(False, name=name, stack=True)(stacked))

    def _noise(self, s1: jax.Array, unit: jax.Array) -> dict[int, jax.Array]:
        """Noise for each edge with a ``noise`` candidate, sampled once per cell."""
        edges = [edge for edge, ops in enumerate(self.candidates) if "noise" in ops]
        if not edges:
            return {}
        if not self.is_initializing() and not self.scope.has_rng(NOISE):  # type: ignore
            raise InputError(
                "this network draws noise: give it a key, rngs={'noise': key} or "
                "Batch(images, labels, key)"
            )
        shape = (len(edges), *_output_shape(s1, self.reduction), self.features)
        drawn = unit * jax.random.normal(self.make_rng(NOISE), shape)
        return dict(zip(edges, drawn, strict=True))


def _output_shape(s1: jax.Array, reduction: bool) -> tuple[int, ...]:
    batch, height, width, _ = s1.shape
    return (batch, height // 2, width // 2) if reduction else (batch, height, width)


class Network(nn.Module):
    """DARTS network: stem, cells and classifier.

    Attributes:
      normal: operations on the edges of normal cells.
      reduce: operations on the edges of reduction cells.
      channels: number of channels of the first cell's nodes.
      cells: number of cells.
      num_classes: number of logits.
      imagenet: whether the stem has three convolutions of stride 2.
      discrete: whether the network is discrete rather than a supernet.
      auxiliary: whether a second head reads the cell at two thirds of the depth. It
        runs only if its logits are requested, see :data:`zcpt_jax.types.AUXILIARY`.
    """

    normal: Candidates
    reduce: Candidates
    channels: int
    cells: int
    num_classes: int
    imagenet: bool
    discrete: bool
    auxiliary: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, masks: Masks | None = None) -> jax.Array:
        """Compute the logits ``[B, num_classes]`` of images ``[B, H, W, 3]``.

        Args:
          images: normalised images; H and W divisible by 4, and by 32 with the
            ImageNet stem.
          masks: ``{'normal': [14, O], 'reduce': [14, O]}``, or None for weight one on
            every candidate.

        Raises:
          InputError: if the images or masks have another shape, if the images are too
            small for the auxiliary head, or if the network draws noise without a key.
        """
        self._check(images)
        weights = {
            group: layers.mask_weights(masks, group, candidates, "E")
            for group, candidates in (("normal", self.normal), ("reduce", self.reduce))
        }
        in_use = {group: layers.in_use(rows) for group, rows in weights.items()}
        s0, s1 = self._imagenet_stem(images) if self.imagenet else self._stem(images)
        unit = jnp.float32(1)
        features, halve = self.channels, self.imagenet
        for index in range(self.cells):
            # The unit passes the cut point too, so that noise keeps its relative scale
            # when states are rescaled.
            s0, s1, unit = CutPoint(newest=1)(s0, s1, unit)
            reduction = index in reductions(self.cells)
            features *= 2 if reduction else 1
            cell = Cell(
                self.reduce if reduction else self.normal,
                features,
                reduction,
                halve,
                self.discrete,
                name=f"cell{index}",
            )
            group = "reduce" if reduction else "normal"
            s0, s1 = s1, cell(s0, s1, unit, weights[group], in_use[group])
            halve = reduction
            if self.auxiliary and index == 2 * self.cells // 3:
                self._hand_out_auxiliary_logits(s1)
        pooled = GlobalAverage()(s1)
        return layers.Linear(self.num_classes, name="classifier")(pooled)

    def _hand_out_auxiliary_logits(self, x: jax.Array) -> None:
        if not self.is_mutable_collection(AUXILIARY):
            return
        head = AuxiliaryHead(self.num_classes, self.imagenet, name="auxiliary_head")
        self.sow(
            AUXILIARY,
            "logits",
            head(x),
            reduce_fn=lambda _, logits: logits,  # default: a tuple of all calls
            init_fn=lambda: None,
        )

    def _check(self, images: jax.Array) -> None:
        step = 32 if self.imagenet else 4
        if images.shape[1] % step or images.shape[2] % step:
            stem = "ImageNet" if self.imagenet else "CIFAR"
            raise InputError(
                f"the DARTS network with the {stem} stem needs height and width "
                f"divisible by {step}, got {images.shape[1]}x{images.shape[2]}"
            )

    def _stem(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = layers.Conv(3 * self.channels, 3, name="stem_conv")(images)
        x = layers.batch_norm(name="stem_norm")(x)
        return x, x

    def _imagenet_stem(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        # In the published code, too, the supernet's stem is three times as wide.
        features = self.channels if self.discrete else 3 * self.channels
        x = layers.Conv(features // 2, 3, 2, name="stem_conv_1")(images)
        x = layers.batch_norm(name="stem_norm_1")(x)
        x = ReLU(name="stem_relu_1")(x)
        x = layers.Conv(features, 3, 2, name="stem_conv_2")(x)
        s0 = layers.batch_norm(name="stem_norm_2")(x)
        x = ReLU(name="stem_relu_2")(s0)
        x = layers.Conv(features, 3, 2, name="stem_conv_3")(x)
        return s0, layers.batch_norm(name="stem_norm_3")(x)
