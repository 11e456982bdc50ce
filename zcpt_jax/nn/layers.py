"""Building blocks of the spaces, with PyTorch's default initialisation and padding."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from zcpt_jax.lowering import current
from zcpt_jax.nn.capture import ReLU
from zcpt_jax.nn.torch_init import bias_init, kernel_init, stack_init
from zcpt_jax.nn.windows import DepthwiseConv
from zcpt_jax.nn.zero_weights import each_where_used, where_used
from zcpt_jax.types import AS_NETWORK, InputError, Masks


def mask_weights(
    masks: Masks | None, group: str, candidates: Sequence[Sequence[str]], rows: str
) -> Any:
    """Return the weights of a group's candidates as lists of scalars.

    Args:
      masks: map from group to ``[E, O]``, or None, which makes all weights one.
      group: name of the group.
      candidates: the network's candidates in each row; with masks, O per row.
      rows: name of a row, for the error message.

    Raises:
      InputError: if the mask has another shape.
    """
    if not masks:
        return [[1.0] * len(ops) for ops in candidates]
    weights = jnp.asarray(masks[group])
    expected = (len(candidates), max(len(ops) for ops in candidates))
    if weights.shape != expected:
        raise InputError(
            f"mask {group!r} must have shape [{rows}, O] = {list(expected)}, "
            f"got {list(weights.shape)}"
        )
    return scalars(weights)


def in_use(weights: Sequence[Sequence[Any]]) -> list[list[jax.Array]]:
    """Return 1 for each nonzero weight and 0 for each zero."""
    return [[jnp.float32(weight != 0) for weight in row] for row in weights]


def scalars(weights: jax.Array) -> list[Any]:
    """Split an array into lists of scalars, once rather than at each use."""
    rows = [
        jax.lax.index_in_dim(weights, i, keepdims=False) for i in range(len(weights))
    ]
    return [scalars(row) for row in rows] if weights.ndim > 1 else rows


def blocked(masks: Masks | None) -> Any:
    """Return 1 if masks leave zero-weight operations in the network, 0 if not.

    See :data:`zcpt_jax.types.AS_NETWORK`.
    """
    return 1.0 - (masks[AS_NETWORK] if masks and AS_NETWORK in masks else 0.0)


class Conv(nn.Module):
    """A square convolution without bias, zero-padded by ``size // 2`` on each side.

    Attributes:
      features: number of output channels.
      size: height and width of the kernel, odd.
      stride: stride in both directions.
    """

    features: int
    size: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, used: Any = None) -> jax.Array:
        """Map ``[B, H, W, C]`` to ``[B, H/stride, W/stride, features]``.

        Args:
          x: the input.
          used: zero if the result does not matter, see :func:`where_used`.
        """
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", kernel_init, shape)
        return where_used(used, _convolution(self.stride), x, kernel)


@functools.cache
def _convolution(stride: int) -> Callable[..., jax.Array]:
    """Make a convolution whose zero padding keeps the size, apart from the stride."""

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        padding = kernel.shape[0] // 2
        if padding == 0 and current().pointwise == "product":
            return x[:, ::stride, ::stride] @ kernel[0, 0]
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            [(padding, padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    return convolve


class PointwiseStack(nn.Module):
    """E 1x1 convolutions of one shape, each a separate layer for proxies.

    Attributes:
      features: number of output channels of each.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, used: Any = None) -> jax.Array:
        """Map ``[E, B, H, W, C]`` to ``[E, B, H, W, features]``.

        Args:
          x: the input of each convolution.
          used: ``[E]``, zero where the result does not matter; None if all matter.
        """
        shape = (x.shape[0], 1, 1, x.shape[-1], self.features)
        kernels = self.param("kernels", stack_init, shape)
        # Applied one by one, because XLA's batched product takes twice as long on CPU.
        return each_where_used(used, _convolution(1), x, kernels)


class FactorizedReduce(nn.Module):
    """Two 1x1 convolutions of stride 2, the second shifted by a pixel, then BatchNorm.

    The caller applies the ReLU before them. Height and width must be even.
    Liu et al., DARTS, ICLR 2019.

    Attributes:
      features: number of output channels, even.
      affine: whether the BatchNorm has a scale and a bias.
    """

    features: int
    affine: bool

    @nn.compact
    def __call__(self, activated: jax.Array) -> jax.Array:
        """Map ``[B, H, W, C]``, ReLU applied, to ``[B, H/2, W/2, features]``."""
        half = self.features // 2
        a = Conv(half, 1, 2, name="conv_1")(activated)
        b = Conv(self.features - half, 1, 2, name="conv_2")(activated[:, 1:, 1:])
        y = jnp.concatenate([a, b], axis=-1)
        return batch_norm(self.affine, name="norm")(y)


class InvertedResidual(nn.Module):
    """1x1, depthwise and 1x1 convolution, with a shortcut where shapes allow.

    Sandler et al., MobileNetV2, CVPR 2018, figure 3b.

    Attributes:
      features: number of output channels.
      expansion: inner channels as a multiple of the input's; with 1 there is no first
        layer.
      size: height and width of the depthwise kernel.
      stride: stride of the depthwise convolution.
      cap: upper limit of the ReLUs' outputs, 6 for a ReLU6; None for a ReLU.
    """

    features: int
    expansion: int
    size: int
    stride: int
    cap: float | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, count: Any = 1.0, zero_count: Any = 0.0, used: Any = None
    ) -> jax.Array:
        """Map ``[B, H, W, C]`` to ``[B, H/stride, W/stride, features]``.

        Args:
          x: the input.
          count: how often its ReLUs are counted.
          zero_count: how often they are counted as if all images were zero.
          used: zero if the result does not matter, see :func:`where_used`.
        """
        y = x
        if self.expansion > 1:
            y = Conv(self.expansion * x.shape[-1], 1, name="expand")(y, used)
            y = batch_norm(name="expand_norm")(y)
            y = ReLU(self.cap, name="expand_relu")(y, count, zero_count)
        y = DepthwiseConv(self.size, self.stride, name="depthwise")(y, used)
        y = batch_norm(name="depthwise_norm")(y)
        y = ReLU(self.cap, name="depthwise_relu")(y, count, zero_count)
        y = Conv(self.features, 1, name="project")(y, used)
        y = batch_norm(name="project_norm")(y)
        return x + y if self.stride == 1 and x.shape == y.shape else y


def batch_norm(
    affine: bool = True, name: str | None = None, stack: bool = False
) -> nn.BatchNorm:
    """Build a BatchNorm with PyTorch's momentum 0.1, which is 0.9 in Flax.

    Args:
      affine: whether it has a scale and a bias.
      name: name of the module.
      stack: whether the input is ``[E, B, H, W, C]``, each slice with separate
        statistics, scale and bias.
    """
    axis: Any = (0, -1) if stack else -1  # annotated as int, but accepts several
    return nn.BatchNorm(
        axis=axis,
        use_running_average=True,
        momentum=0.9,
        epsilon=1e-5,
        use_scale=affine,
        use_bias=affine,
        use_fast_variance=False,
        name=name,
    )


class Linear(nn.Module):
    """A linear layer with PyTorch's default initialisation."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``[B, D]`` to ``[B, features]``."""
        return nn.Dense(
            self.features,
            kernel_init=kernel_init,
            bias_init=bias_init(x.shape[-1]),
            name="linear",
        )(x)
