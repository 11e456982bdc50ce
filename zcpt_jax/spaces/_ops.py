"""Building blocks of the spaces, initialised and padded as PyTorch does by default.

The published supernets are scored with BatchNorm on fresh statistics, which does not
renormalise, so that the initialisation decides the scores: with Flax's default
(``lecun_normal``) NWOT picks skip connections where PyTorch's picks convolutions.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from zcpt_jax.taps import ReLU
from zcpt_jax.types import InputError, Variables

kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""Uniform in ``+-1/sqrt(fan_in)``, PyTorch's default for convolutions and linear."""


def bias_init(fan_in: int) -> Callable[..., jax.Array]:
    """Uniform in ``+-1/sqrt(fan_in)``, PyTorch's default for the bias of a linear."""
    bound = fan_in**-0.5

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def torch_init(
    module: nn.Module,
    key: jax.Array,
    image_shape: tuple[int, ...],
    *,
    normal: bool = False,
) -> Variables:
    """What ``module.init`` draws, drawn at once.

    The distribution of every leaf is that of :data:`kernel_init` and
    :func:`bias_init`, the numbers differ. ``module.init`` compiles one random number
    generator a parameter, which takes ten times as long as a whole NAS-Bench-201
    search step on CPU.

    Args:
      module: a network built from this file's blocks.
      key: consumed.
      image_shape: ``(H, W, C)``.
      normal: whether convolutions are normal with variance ``2 / (k * k * C_out)``
        rather than PyTorch's default (He et al. 2015, "fan out").

    Returns:
      Variables on the default device.

    Raises:
      InputError: if a parameter's name is not one of this file's blocks.
    """
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)
    flat = traverse_util.flatten_dict(shapes)
    need = sum(int(np.prod(leaf.shape)) for leaf in flat.values())
    # A power of two, so that networks of similar size share one compilation.
    size = (1 << need.bit_length(),)
    pool = np.asarray(jax.random.uniform(key, size, minval=-1))
    normals = np.asarray(jax.random.normal(key, size)) if normal else pool
    leaves, used = {}, 0
    for path, leaf in flat.items():
        place = slice(used, used + leaf.size)
        used += leaf.size
        if normal and path[-1] == "kernel" and leaf.ndim == 4:
            fan_out = leaf.shape[0] * leaf.shape[1] * leaf.shape[3]
            scale = np.float32((2 / fan_out) ** 0.5)
            leaves[path] = normals[place].reshape(leaf.shape) * scale
        else:
            leaves[path] = _torch_leaf(path, pool[place].reshape(leaf.shape), flat)
    return jax.device_put(traverse_util.unflatten_dict(leaves))


def _torch_leaf(path: tuple[str, ...], drawn: np.ndarray, flat: Any) -> np.ndarray:
    if path[-1] in ("scale", "var"):
        return np.ones_like(drawn)
    if path[-1] == "mean" or (*path[:-1], "scale") in flat:
        return np.zeros_like(drawn)
    kernel = flat.get((*path[:-1], "kernel"))
    if path[-1] == "kernels":
        return drawn * np.float32(np.prod(drawn.shape[1:-1]) ** -0.5)
    if path[-1] not in ("kernel", "bias") or kernel is None:
        raise InputError(
            f"no PyTorch default is known for the parameter {'/'.join(path)}; "
            "initialise this network with its own module.init"
        )
    return drawn * np.float32(np.prod(kernel.shape[:-1]) ** -0.5)


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
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[B, H, W, C]`` to ``[B, H/stride, W/stride, features]``."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", kernel_init, shape)
        if self.size == 1:
            # The same as a matrix product, which XLA runs faster on CPU.
            return x[:, :: self.stride, :: self.stride] @ kernel[0, 0]
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (self.stride, self.stride),
            [(self.size // 2, self.size // 2)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


_use_shifts: bool | None = None  # None: on CPU only


@contextlib.contextmanager
def shifted(use: bool) -> Iterator[None]:
    """Chooses how sliding windows are written in what is traced inside.

    As shifted elementwise operations they run 5 to 100 times as fast as XLA's grouped
    convolution and pooling on CPU, and compile more slowly, gradients above all.
    By default that is done on CPU only.

    Args:
      use: whether to write depthwise convolutions and max pooling so.
    """
    global _use_shifts
    before, _use_shifts = _use_shifts, use
    try:
        yield
    finally:
        _use_shifts = before


def _shifted() -> bool:
    return jax.default_backend() == "cpu" if _use_shifts is None else _use_shifts


class DepthwiseConv(nn.Module):
    """A convolution of each channel by itself, without bias, zero-padded to keep size.

    Attributes:
      size: height and width of the kernel, odd.
      stride: in both directions.
      dilation: distance of the kernel's taps.
    """

    size: int
    stride: int = 1
    dilation: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[B, H, W, C]`` to ``[B, H/stride, W/stride, C]``."""
        shape = (self.size, self.size, 1, x.shape[-1])
        kernel = self.param("kernel", kernel_init, shape)
        if _shifted():
            return _shifted_depthwise(x, kernel[None], self.stride, self.dilation)[0]
        return _grouped_depthwise(x, kernel, self.stride, self.dilation)


class DepthwiseStack(nn.Module):
    """E depthwise convolutions of one shape, each a layer of its own to proxies.

    Side by side they take a fraction of the compilation that E modules take.

    Attributes:
      count: E.
      size: height and width of the kernels, odd.
      stride: in both directions.
      dilation: distance of the kernels' taps.
    """

    count: int
    size: int
    stride: int = 1
    dilation: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[B, H, W, C]`` or ``[E, B, H, W, C]`` to ``[E, B, H', W', C]``."""
        shape = (self.count, self.size, self.size, 1, x.shape[-1])
        kernels = self.param("kernels", _stack_init, shape)
        if _shifted():
            return _shifted_depthwise(x, kernels, self.stride, self.dilation)
        axes = (0 if x.ndim == 5 else None, 0)
        run = functools.partial(
            _grouped_depthwise, stride=self.stride, dilation=self.dilation
        )
        return jax.vmap(run, axes)(x, kernels)


class PointwiseStack(nn.Module):
    """E 1x1 convolutions of one shape, each a layer of its own to proxies.

    Attributes:
      features: output channels of each.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[E, B, H, W, C]`` to ``[E, B, H, W, features]``."""
        shape = (x.shape[0], 1, 1, x.shape[-1], self.features)
        kernels = self.param("kernels", _stack_init, shape)
        # One by one: XLA's batched product takes twice as long on CPU.
        return jnp.stack([x[e] @ kernels[e, 0, 0] for e in range(x.shape[0])])


_stack_init = nn.initializers.variance_scaling(
    1 / 3, "fan_in", "uniform", batch_axis=(0,)
)


def _shifted_depthwise(
    x: jax.Array, kernels: jax.Array, stride: int, dilation: int
) -> jax.Array:
    """``[B, H, W, C]`` or ``[E, B, H, W, C]`` and ``[E, k, k, 1, C]``."""
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


class FactorizedReduce(nn.Module):
    """ReLU, then two 1x1 convolutions of stride 2, the second one pixel off; BatchNorm.

    Liu et al., DARTS, ICLR 2019. Height and width must be even.

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
    def __call__(self, x: jax.Array, live: Any = 1.0, dead: Any = 0.0) -> jax.Array:
        """Maps ``[B, H, W, C]`` to ``[B, H/stride, W/stride, features]``.

        Args:
          x: the input.
          live: how often its ReLUs count.
          dead: how often they count as if all images were zero.
        """
        y = x
        if self.expansion > 1:
            y = Conv(self.expansion * x.shape[-1], 1, name="expand")(y)
            y = batch_norm(name="expand_norm")(y)
            y = ReLU(self.cap, name="expand_relu")(y, live, dead)
        y = DepthwiseConv(self.size, self.stride, name="depthwise")(y)
        y = batch_norm(name="depthwise_norm")(y)
        y = ReLU(self.cap, name="depthwise_relu")(y, live, dead)
        y = batch_norm(name="project_norm")(Conv(self.features, 1, name="project")(y))
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


def avg_pool_3x3(x: jax.Array, stride: int = 1) -> jax.Array:
    """3x3 average over the pixels that exist: padding is not counted."""
    total = jax.lax.reduce_window(
        x,
        0.0,
        jax.lax.add,
        (1, 3, 3, 1),
        (1, stride, stride, 1),
        ((0, 0), (1, 1), (1, 1), (0, 0)),
    )
    rows, columns = (_pixels_in_window(size)[::stride] for size in x.shape[1:3])
    return total * (1 / (rows[:, None] * columns[None, :]))[None, :, :, None]


def _pixels_in_window(size: int) -> np.ndarray:
    """How many of a window's three positions lie inside, for each position."""
    return np.convolve(np.ones(size, np.float32), np.ones(3, np.float32))[1:-1]


def max_pool(x: jax.Array, size: int, stride: int = 1) -> jax.Array:
    """Maximum over ``size x size`` pixels, ``size // 2`` of padding on each side.

    Of equal pixels the first has the gradient, as in PyTorch.
    """
    if not _shifted():
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
    """What each of the ``size**2`` positions of a sliding window sees, row by row."""
    outer = x.shape[:-3]  # [B], or [E, B] of a stack
    none = [(0, 0, 0)] * len(outer)
    pad = (padding, padding, 0)
    padded = jax.lax.pad(x, jnp.float32(fill), (*none, pad, pad, (0, 0, 0)))
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
