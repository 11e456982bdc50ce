"""The operations of the DARTS spaces, stacked if they read the same node."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from zcpt_jax.nn import layers, windows
from zcpt_jax.nn.capture import ReLU


class Separable(nn.Module):
    """A stack of E separable convolutions that read the same node.

    Each is ReLU, depthwise convolution, 1x1 convolution and BatchNorm, twice. The
    caller applies the first ReLU.

    Attributes:
      count: number E of convolutions.
      size: height and width of the depthwise kernels.
      stride: stride of the first depthwise convolutions.
      affine: whether BatchNorm has a scale and a bias.
    """

    count: int
    size: int
    stride: int
    affine: bool

    @nn.compact
    def __call__(self, activated: jax.Array, counts: Sequence[Any]) -> jax.Array:
        """Map ``[B, H, W, C]`` to ``[E, B, H/stride, W/stride, C]``.

        Args:
          activated: input after ReLU.
          counts: for each convolution, how often its inner ReLU counts; zero if the
            convolution is not used.
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
    """A stack of E dilated convolutions that read the same node.

    Each is a depthwise convolution of dilation 2, a 1x1 convolution and BatchNorm.

    Attributes:
      count: number E of convolutions.
      size: height and width of the depthwise kernels.
      stride: stride of the depthwise convolutions.
      affine: whether BatchNorm has a scale and a bias.
    """

    count: int
    size: int
    stride: int
    affine: bool

    @nn.compact
    def __call__(self, activated: jax.Array, counts: Sequence[Any]) -> jax.Array:
        """Map ReLU outputs ``[B, H, W, C]`` to ``[E, B, H/stride, W/stride, C]``."""
        depthwise = windows.DepthwiseStack(
            self.count, self.size, self.stride, 2, name="depthwise"
        )
        pointwise = layers.PointwiseStack(activated.shape[-1], name="pointwise")
        y = pointwise(depthwise(activated, counts), counts)
        return layers.batch_norm(self.affine, name="norm", stack=True)(y)


class Reduce(nn.Module):
    """A stack of E factorised reductions (``skip_connect``) that read the same node.

    Attributes:
      count: number E of reductions.
      affine: whether BatchNorm has a scale and a bias.
    """

    count: int
    affine: bool

    @nn.compact
    def __call__(self, activated: jax.Array, counts: Sequence[Any]) -> jax.Array:
        """Map ReLU outputs ``[B, H, W, C]`` to ``[E, B, H/2, W/2, C]``."""
        del counts  # There is no inner ReLU.
        half = activated.shape[-1] // 2
        parts = []
        for number, x in ((1, activated), (2, activated[:, 1:, 1:])):
            x = x[:, ::2, ::2]
            stacked = jnp.broadcast_to(x, (self.count, *x.shape))
            parts.append(layers.PointwiseStack(half, name=f"conv_{number}")(stacked))
        y = jnp.concatenate(parts, axis=-1)
        return layers.batch_norm(self.affine, name="norm", stack=True)(y)


class Preprocess(nn.Module):
    """Adapt a cell's input to its channels, and after a reduction to its resolution.

    Attributes:
      features: number of output channels.
      halve: whether the input has twice the cell's resolution.
      affine: whether BatchNorm has a scale and a bias.
    """

    features: int
    halve: bool
    affine: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``[B, H, W, C]`` to ``[B, H', W', features]``."""
        if self.halve:
            reduce = layers.FactorizedReduce(self.features, self.affine, name="reduce")
            return reduce(ReLU(name="relu")(x))
        # The published hooks also match its wrapper by name, so this ReLU counts twice.
        activated = ReLU(name="relu")(x, count=2.0)
        y = layers.Conv(self.features, 1, name="conv")(activated)
        return layers.batch_norm(self.affine, name="norm")(y)
