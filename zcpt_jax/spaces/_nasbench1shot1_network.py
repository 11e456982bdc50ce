"""The NAS-Bench-1Shot1 networks: one module for supernet and discrete network."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from zcpt_jax.nn import layers, windows
from zcpt_jax.nn.capture import CutPoint, GlobalAverage, ReLU
from zcpt_jax.nn.zero_weights import on_images, weighted_sum, where_used
from zcpt_jax.spaces._nasbench1shot1_genotype import OPS, Parents
from zcpt_jax.types import AS_NETWORK, InputError, Masks

Candidates = tuple[tuple[str, ...], ...]
"""Operations at each choice node."""

OP_GROUP = "op"
SHORT = {op: op.split("-")[0] for op in OPS}
"""Short name of each operation, used in the names of parameters."""

_KERNEL_SIZE = {"conv3x3-bn-relu": 3, "conv1x1-bn-relu": 1}


class ConvNormReLU(nn.Module):
    """Convolution, affine BatchNorm and ReLU.

    Attributes:
      features: number of output channels.
      size: height and width of the kernel.
    """

    features: int
    size: int

    @nn.compact
    def __call__(self, x: jax.Array, used: Any = None) -> jax.Array:
        """Map ``[B, H, W, C]`` to ``[B, H, W, features]``.

        Args:
          x: input feature map.
          used: zero if the layer is not part of the network; None if it always is.
        """
        live = 1.0 if used is None else jnp.float32(used != 0)
        y = layers.Conv(self.features, self.size, name="conv")(x, used)
        return ReLU(name="relu")(layers.batch_norm(name="norm")(y), live)


class Cell(nn.Module):
    """Cell of a supernet or discrete network.

    Unlike in the other spaces, an operation of weight zero runs in the supernet and its
    ReLU counts, as in the published code.

    Attributes:
      candidates: operations at each choice node.
      parents: parents of each choice node, and then of the output; 0 is the input.
      features: number of channels of a node.
    """

    candidates: Candidates
    parents: Parents
    features: int

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        ops: Sequence[Any],
        inputs: Sequence[Any],
        blocked: Any = 1.0,
    ) -> jax.Array:
        """Map ``[B, H, W, C]`` to ``[B, H, W, nodes * features]``.

        Args:
          x: input of the cell.
          ops: architecture weights of the candidates of each choice node.
          inputs: architecture weights of the parents of each choice node, and then of
            the output.
          blocked: 1 if operations of weight zero run, 0 if they do not exist.
        """
        nodes: list[jax.Array] = []
        for index, candidates in enumerate(self.candidates):
            z = self._input(x, nodes, inputs[index], blocked)
            results = [
                self._operation(op, z, index + 1, weight + blocked)
                for op, weight in zip(candidates, ops[index], strict=True)
            ]
            nodes.append(weighted_sum(ops[index], results))
        return self._output(x, nodes, inputs[-1], blocked)

    def _input(
        self, x: jax.Array, nodes: list[jax.Array], weights: Any, blocked: Any
    ) -> jax.Array:
        """Input of the choice node that follows ``nodes``."""
        number = len(nodes) + 1
        terms = []
        for parent, weight in zip(self.parents[number - 1], weights, strict=True):
            if parent:
                z = nodes[parent - 1]
            else:
                z = self._project(x, number, weight + blocked)
            terms.append(z)
        return weighted_sum(weights, terms)

    def _output(
        self, x: jax.Array, nodes: list[jax.Array], inputs: Any, blocked: Any
    ) -> jax.Array:
        weights = dict(zip(self.parents[-1], inputs, strict=True))
        joined = jnp.concatenate(
            [
                weighted_sum([weights[number]], [node])
                if number in weights
                else jnp.zeros_like(node)
                for number, node in enumerate(nodes, start=1)
            ],
            axis=-1,
        )
        if 0 not in weights:
            return joined
        projected = self._project(x, len(nodes) + 1, weights[0] + blocked)
        return weighted_sum([weights[0]], [projected]) + joined

    def _project(self, x: jax.Array, target: int, used: Any) -> jax.Array:
        """Projection of the cell's input for a choice node or the output."""
        nodes = len(self.candidates)
        features = self.features if target <= nodes else nodes * self.features
        return ConvNormReLU(features, 1, name=f"projection{target}")(x, used)

    def _operation(self, op: str, z: jax.Array, number: int, used: Any) -> jax.Array:
        name = f"node{number}_{SHORT[op]}"
        if op in _KERNEL_SIZE:
            return ConvNormReLU(self.features, _KERNEL_SIZE[op], name=name)(z, used)
        pooled = where_used(used, windows.maximum_pool(3), z)
        return layers.batch_norm(affine=False, name=name)(pooled)


class Network(nn.Module):
    """Supernet or discrete network: stem, three stages of cells and classifier.

    Attributes:
      candidates: operations at each choice node, the same in every cell.
      parents: parents of each choice node, and then of the output; 0 is the input.
      groups: mask group that weighs the parents of each choice node, and then of the
        output; None if no group does.
      channels: number of channels of a node in the first stage.
      cells_per_stage: number of cells in each stage.
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
        """Compute the logits ``[B, num_classes]`` of images ``[B, H, W, 3]``.

        Args:
          images: normalised images of any height and width.
          masks: masks in the shapes of ``init_masks``, or None for weight one on every
            candidate.

        Raises:
          InputError: if the masks have other groups or shapes.
        """
        ops, inputs = self._weights(masks)
        blocked = layers.blocked(masks)
        x = ConvNormReLU(self.channels, 3, name="stem")(images)
        for stage in range(3):
            if stage:
                # One pixel of padding, as in the published code: 32 -> 17 -> 9.
                x = on_images(windows.maximum_pool(2, 2), x)
            features = self.channels * 2**stage
            for index in range(self.cells_per_stage):
                (x,) = CutPoint()(x)
                name = f"stage{stage}_cell{index}"
                cell = Cell(self.candidates, self.parents, features, name=name)
                x = cell(x, ops, inputs, blocked)
        # The published code counts this ReLU and its wrapper.
        x = ReLU(name="last_relu")(x, count=2.0)
        x = layers.Conv(4 * self.channels, 1, name="last_conv")(x)
        x = layers.batch_norm(affine=False, name="last_norm")(x)
        pooled = GlobalAverage()(x)
        return layers.Linear(self.num_classes, name="classifier")(pooled)

    def _weights(self, masks: Masks | None) -> tuple[Any, Any]:
        ones = [[1.0] * len(parents) for parents in self.parents]
        if not masks:
            return [[1.0] * len(ops) for ops in self.candidates], ones
        shapes: dict[str, tuple[int, ...]]
        shapes = {OP_GROUP: (len(self.candidates), len(self.candidates[0]))}
        for group, parents in zip(self.groups, self.parents, strict=True):
            if group is not None:
                shapes[group] = (len(parents),)
        found = {g: jnp.shape(w) for g, w in masks.items() if g != AS_NETWORK}
        if found != shapes:
            raise InputError(
                f"the masks must have the shapes {shapes}, got the shapes {found}"
            )
        inputs = [
            equal if group is None else layers.scalars(jnp.asarray(masks[group]))
            for group, equal in zip(self.groups, ones, strict=True)
        ]
        return layers.scalars(jnp.asarray(masks[OP_GROUP])), inputs
