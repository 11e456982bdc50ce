"""Building blocks of the spaces, initialised and padded as PyTorch does by default."""

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
    """The weights of a group's candidates: lists of scalars, all one without masks.

    Args:
      masks: group to ``[E, O]``, or None.
      group: the group wanted.
      candidates: the network's candidates in each row; with masks, O in all of them.
      rows: what a row is called, for the message.

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
    """For each weight 1 if it is not zero, and 0 if it is."""
    return [[jnp.float32(weight != 0) for weight in row] for row in weights]


def scalars(weights: jax.Array) -> list[Any]:
    """An array as lists of scalars, cut up once rather than at each use."""
    rows = [
        jax.lax.index_in_dim(weights, i, keepdims=False) for i in range(len(weights))
    ]
    return [scalars(row) for row in rows] if weights.ndim > 1 else rows


def blocked(masks: Masks | None) -> Any:
    """1 if masks leave operations of weight zero in the network, 0 if not.

    See :data:`zcpt_jax.types.AS_NETWORK`.
    """
    return 1.0 - (masks[AS_NETWORK] if masks and AS_NETWORK in masks else 0.0)


class Conv(nn.Module):
    """A square convolution without bias, zero-padded by ``size // 2`` on each side.

    Attributes:
      features: output channels.
      size: height and width of the kernel, odd.
      stride: in both directions.
    """

    features: int
    size: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, used: Any = None) -> jax.Array:
        """Maps ``[B, H, W, C]`` to ``[B, H/stride, W/stride, features]``.

        Args:
          x: the input.
          used: zero if the result does not matter, see :func:`where_used`.
        """
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", kernel_init, shape)
        return where_used(used, _convolution(self.stride), x, kernel)


@functools.cache
def _convolution(stride: int) -> Callable[..., jax.Array]:
    """Zero-padded so that, but for the stride, the size is kept."""

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
    """E 1x1 convolutions of one shape, each a layer of its own to proxies.

    Attributes:
      features: output channels of each.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, used: Any = None) -> jax.Array:
        """Maps ``[E, B, H, W, C]`` to ``[E, B, H, W, features]``.

        Args:
          x: the input of each.
          used: ``[E]``, zero where the result does not matter; None if all of them do.
        """
        shape = (x.shape[0], 1, 1, x.shape[-1], self.features)
        kernels = self.param("kernels", stack_init, shape)
        # One by one: XLA's batched product takes twice as long on CPU.
        return each_where_used(used, _convolution(1), x, kernels)


class FactorizedReduce(nn.Module):
    """Two 1x1 convolutions of stride 2, the second one pixel off; BatchNorm.

    The ReLU before them is outside. Height and width must be even.
    Liu et al., DARTS, ICLR 2019.

    Attributes:
      features: output channels, even.
      affine: of the BatchNorm.
    """

    features: int
    affine: bool

    @nn.compact
    def __call__(self, activated: jax.Array) -> jax.Array:
        """Maps ``[B, H, W, C]``, ReLU applied, to ``[B, H/2, W/2, features]``."""
        half = self.features // 2
        a = Conv(half, 1, 2, name="conv_1")(activated)
        b = Conv(self.features - half, 1, 2, name="conv_2")(activated[:, 1:, 1:])
        y = jnp.concatenate([a, b], axis=-1)
        return batch_norm(self.affine, name="norm")(y)


class InvertedResidual(nn.Module):
    """1x1 convolution, depthwise, 1x1 convolution, and a shortcut where shapes allow.

    Sandler et al., MobileNetV2, CVPR 2018, figure 3b.

    Attributes:
      features: output channels.
      expansion: inner channels as a multiple of the input's; one has no first layer.
      size: of the depthwise kernel.
      stride: of the depthwise convolution.
      cap: of the ReLUs, 6 for a ReLU6.
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
        """Maps ``[B, H, W, C]`` to ``[B, H/stride, W/stride, features]``.

        Args:
          x: the input.
          count: how often its ReLUs count.
          zero_count: how often they count as if all images were zero.
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
    """BatchNorm with PyTorch's momentum 0.1 (Flax counts from the other end).

    Args:
      affine: whether it has a scale and a bias.
      name: of the module.
      stack: whether the input is ``[E, B, H, W, C]``, each slice with its own.
    """
    axis: Any = (0, -1) if stack else -1  # typed as one integer, works with several
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
        """Maps ``[B, D]`` to ``[B, features]``."""
        return nn.Dense(
            self.features,
            kernel_init=kernel_init,
            bias_init=bias_init(x.shape[-1]),
            name="linear",
        )(x)
