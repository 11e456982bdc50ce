"""The operations of the DARTS spaces, those that read one node side by side."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from zcpt_jax.nn import layers, windows
from zcpt_jax.nn.capture import ReLU


class Separable(nn.Module):
    """Twice: ReLU, depthwise, 1x1 convolution, BatchNorm. The first ReLU is outside.

    A stack of E of them that read the same node.

    Attributes:
      count: E.
      size: of the depthwise kernels.
      stride: of the first ones.
      affine: of the BatchNorms.
    """

    count: int
    size: int
    stride: int
    affine: bool

    @nn.compact
    def __call__(self, activated: jax.Array, counts: Sequence[Any]) -> jax.Array:
        """Maps ``[B, H, W, C]`` to ``[E, B, H/stride, W/stride, C]``.

        Args:
          activated: the input, ReLU applied.
          counts: how often the ReLU inside each counts, zero if it is not used.
        """
        features, count, size = activated.shape[-1], self.count, self.size
        y = windows.DepthwiseStack(count, size, self.stride, name="depthwise_1")(
            activated, counts
        )
        y = layers.PointwiseStack(features, name="pointwise_1")(y, counts)
        y = layers.batch_norm(self.affine, name="norm_1", stack=True)(y)
        y = ReLU(name="relu")(y, jnp.stack(counts))
        y = windows.DepthwiseStack(count, size, name="depthwise_2")(y, counts)
        y = layers.PointwiseStack(features, name="pointwise_2")(y, counts)
        return layers.batch_norm(self.affine, name="norm_2", stack=True)(y)


class Dilated(nn.Module):
    """Depthwise convolution of dilation 2, 1x1 convolution, BatchNorm.

    A stack of E of them that read the same node.

    Attributes:
      count: E.
      size: of the depthwise kernels.
      stride: of them.
      affine: of the BatchNorms.
    """

    count: int
    size: int
    stride: int
    affine: bool

    @nn.compact
    def __call__(self, activated: jax.Array, counts: Sequence[Any]) -> jax.Array:
        """Maps ``[B, H, W, C]``, ReLU applied, to ``[E, B, H/stride, W/stride, C]``."""
        depthwise = windows.DepthwiseStack(
            self.count, self.size, self.stride, 2, name="depthwise"
        )
        pointwise = layers.PointwiseStack(activated.shape[-1], name="pointwise")
        y = pointwise(depthwise(activated, counts), counts)
        return layers.batch_norm(self.affine, name="norm", stack=True)(y)


class Reduce(nn.Module):
    """A stack of E factorized reductions that read the same node: ``skip_connect``.

    Attributes:
      count: E.
      affine: of the BatchNorms.
    """

    count: int
    affine: bool

    @nn.compact
    def __call__(self, activated: jax.Array, counts: Sequence[Any]) -> jax.Array:
        """Maps ``[B, H, W, C]``, ReLU applied, to ``[E, B, H/2, W/2, C]``."""
        del counts  # no ReLU inside
        half = activated.shape[-1] // 2
        parts = []
        for number, x in ((1, activated), (2, activated[:, 1:, 1:])):
            x = x[:, ::2, ::2]
            stacked = jnp.broadcast_to(x, (self.count, *x.shape))
            parts.append(layers.PointwiseStack(half, name=f"conv_{number}")(stacked))
        y = jnp.concatenate(parts, axis=-1)
        return layers.batch_norm(self.affine, name="norm", stack=True)(y)


class Preprocess(nn.Module):
    """Brings a cell's input to its channels, and to its resolution after a reduction.

    Attributes:
      features: output channels.
      halve: whether the input has twice the resolution.
      affine: of the BatchNorm.
    """

    features: int
    halve: bool
    affine: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[B, H, W, C]`` to ``[B, H', W', features]``."""
        if self.halve:
            reduce = layers.FactorizedReduce(self.features, self.affine, name="reduce")
            return reduce(ReLU(name="relu")(x))
        # The published hooks see this ReLU twice: its wrapper's name has ReLU in it.
        activated = ReLU(name="relu")(x, count=2.0)
        y = layers.Conv(self.features, 1, name="conv")(activated)
        return layers.batch_norm(self.affine, name="norm")(y)
