"""Depthwise convolutions and pooling with PyTorch's padding."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from zcpt_jax.lowering import current
from zcpt_jax.nn.torch_init import kernel_init, stack_init
from zcpt_jax.nn.zero_weights import each_where_used, where_used


class DepthwiseConv(nn.Module):
    """A depthwise convolution without bias, zero-padded to keep the size.

    Attributes:
      size: height and width of the kernel, odd.
      stride: stride in both directions.
      dilation: distance between the kernel's taps, in pixels.
    """

    size: int
    stride: int = 1
    dilation: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, used: Any = None) -> jax.Array:
        """Map ``[B, H, W, C]`` to ``[B, H/stride, W/stride, C]``.

        Args:
          x: the input.
          used: zero if the result does not matter, see :func:`where_used`.
        """
        shape = (self.size, self.size, 1, x.shape[-1])
        kernel = self.param("kernel", kernel_init, shape)
        return where_used(used, _depthwise(self.stride, self.dilation), x, kernel)


class DepthwiseStack(nn.Module):
    """E depthwise convolutions of one shape, each a separate layer for proxies.

    Together they compile in a fraction of the time of E modules.

    Attributes:
      count: number E of convolutions.
      size: height and width of the kernels, odd.
      stride: stride in both directions.
      dilation: distance between the kernels' taps, in pixels.
    """

    count: int
    size: int
    stride: int = 1
    dilation: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, used: Any = None) -> jax.Array:
        """Map ``[B, H, W, C]`` or ``[E, B, H, W, C]`` to ``[E, B, H', W', C]``.

        Args:
          x: one input shared by all, or a separate one for each convolution.
          used: ``[E]``, zero where the result does not matter; None if all matter.
        """
        shape = (self.count, self.size, self.size, 1, x.shape[-1])
        kernels = self.param("kernels", stack_init, shape)
        one = _depthwise(self.stride, self.dilation)
        form = current()
        if form.skip or form.together:
            return each_where_used(used, one, x, kernels)
        if form.depthwise == "shifted":
            return _shifted_depthwise(x, kernels, self.stride, self.dilation)
        if form.loops and x.ndim == 4:
            # Each kernel gets its own input: on TPU, XLA rewrites kernels that share
            # one as a dense convolution with C times the work.
            x = jnp.broadcast_to(x, (self.count, *x.shape))
        return jax.vmap(one, (0 if x.ndim == 5 else None, 0))(x, kernels)


@functools.cache
def _depthwise(stride: int, dilation: int) -> Callable[..., jax.Array]:
    """Make a map from ``[B, H, W, C]`` and ``[k, k, 1, C]`` to ``[B, H', W', C]``."""

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        if current().depthwise == "grouped":
            return _grouped_depthwise(x, kernel, stride, dilation)
        return _shifted_depthwise(x, kernel[None], stride, dilation)[0]

    return convolve


# Rematerialised: storing the k*k shifted inputs doubles memory and adds 50 % time on a
# DARTS supernet.
@functools.partial(jax.checkpoint, static_argnums=(2, 3))
def _shifted_depthwise(
    x: jax.Array, kernels: jax.Array, stride: int, dilation: int
) -> jax.Array:
    """Convolve ``[B, H, W, C]`` or ``[E, B, H, W, C]`` with ``[E, k, k, 1, C]``."""
    x = x[None] if x.ndim == 4 else x
    count, size, _, _, channels = kernels.shape
    taps = jnp.reshape(kernels, (count, size * size, 1, 1, 1, channels))
    padding = size // 2 * dilation
    views = _windows(x, size, stride, padding, 0.0, dilation)
    terms = [view * taps[:, tap] for tap, view in enumerate(views)]
    return sum(terms[1:], terms[0])


def _grouped_depthwise(
    x: jax.Array, kernel: jax.Array, stride: int, dilation: int
) -> jax.Array:
    padding = kernel.shape[0] // 2 * dilation
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def avg_pool_3x3(x: jax.Array, stride: int = 1) -> jax.Array:
    """Average over 3x3 pixels, not counting padding."""
    # On CPU, rows and then columns take an eighth of the time of both at once.
    windows = ((3, 1), (1, 3)) if current().pooling == "shifted" else ((3, 3),)
    total = x
    for window in windows:
        total = _window_sums(total, window, stride)
    rows, columns = (_pixels_in_window(size)[::stride] for size in x.shape[1:3])
    share = 1 / (rows[:, None] * columns[None, :])
    return total * share[None, :, :, None].astype(x.dtype)


@functools.cache
def average_pool(stride: int = 1) -> Callable[[jax.Array], jax.Array]:
    """Return :func:`avg_pool_3x3` with a stride, the same object each time."""
    return functools.partial(avg_pool_3x3, stride=stride)


@functools.cache
def maximum_pool(size: int, stride: int = 1) -> Callable[[jax.Array], jax.Array]:
    """Return :func:`max_pool` with a size and stride, the same object each time."""
    return functools.partial(max_pool, size=size, stride=stride)


def _window_sums(x: jax.Array, window: tuple[int, int], stride: int) -> jax.Array:
    """Sum over windows of three pixels, or one, in each direction."""
    steps = tuple(stride if size > 1 else 1 for size in window)
    pads = tuple((size // 2, size // 2) for size in window)
    return jax.lax.reduce_window(
        x,
        0.0,
        jax.lax.add,
        (1, *window, 1),
        (1, *steps, 1),
        ((0, 0), *pads, (0, 0)),
    )


def _pixels_in_window(size: int) -> np.ndarray:
    """Count how many of a window's three positions are inside, for each position."""
    return np.convolve(np.ones(size, np.float32), np.ones(3, np.float32))[1:-1]


def max_pool(x: jax.Array, size: int, stride: int = 1) -> jax.Array:
    """Take the maximum over ``size x size`` pixels, padded by ``size // 2`` per side.

    The first of equal pixels receives the gradient, as in PyTorch.
    """
    if current().pooling == "windows":
        return nn.max_pool(x, (size, size), (stride, stride), [(size // 2,) * 2] * 2)
    views = _windows(x, size, stride, size // 2, -jnp.inf)
    largest = next(views)
    for view in views:
        largest = jnp.where(largest >= view, largest, view)
    return largest


def _windows(
    x: jax.Array,
    size: int,
    stride: int,
    padding: int,
    fill: float,
    dilation: int = 1,
) -> Iterator[jax.Array]:
    """Yield the input shifted to each of a window's ``size**2`` taps, row by row."""
    outer = x.shape[:-3]  # [B], or [E, B] for a stack
    none = [(0, 0, 0)] * len(outer)
    pad = (padding, padding, 0)
    padded = jax.lax.pad(x, jnp.asarray(fill, x.dtype), (*none, pad, pad, (0, 0, 0)))
    span = dilation * (size - 1)
    height, width, channels = padded.shape[-3:]
    rows, columns = ((n - span - 1) // stride for n in (height, width))
    for top in range(0, span + 1, dilation):
        for left in range(0, span + 1, dilation):
            yield jax.lax.slice(
                padded,
                (*(0 for _ in outer), top, left, 0),
                (
                    *outer,
                    top + rows * stride + 1,
                    left + columns * stride + 1,
                    channels,
                ),
                (*(1 for _ in outer), stride, stride, 1),
            )
