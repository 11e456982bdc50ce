"""Building blocks of the spaces, initialised and padded as PyTorch does by default.

The published supernets are scored with BatchNorm on fresh statistics, which does not
renormalise, so that the initialisation decides the scores: with Flax's default
(``lecun_normal``) NWOT picks skip connections where PyTorch's picks convolutions.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

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
    module: nn.Module, key: jax.Array, image_shape: tuple[int, ...]
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
    pool = np.asarray(jax.random.uniform(key, (1 << need.bit_length(),), minval=-1))
    leaves, used = {}, 0
    for path, leaf in flat.items():
        drawn = pool[used : used + leaf.size].reshape(leaf.shape)
        used += leaf.size
        leaves[path] = _torch_leaf(path, drawn, flat)
    return jax.device_put(traverse_util.unflatten_dict(leaves))


def _torch_leaf(path: tuple[str, ...], drawn: np.ndarray, flat: Any) -> np.ndarray:
    if path[-1] in ("scale", "var"):
        return np.ones_like(drawn)
    if path[-1] == "mean" or (*path[:-1], "scale") in flat:
        return np.zeros_like(drawn)
    kernel = flat.get((*path[:-1], "kernel"))
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
        if self.size == self.stride == 1:
            # The same as a matrix product, which XLA runs faster on CPU.
            return x @ kernel[0, 0]
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (self.stride, self.stride),
            [(self.size // 2, self.size // 2)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


def batch_norm(affine: bool = True, name: str | None = None) -> nn.BatchNorm:
    """BatchNorm with PyTorch's momentum 0.1 (Flax counts from the other end)."""
    return nn.BatchNorm(
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


def avg_pool_3x3(x: jax.Array) -> jax.Array:
    """3x3 average, stride 1, over the pixels that exist: padding is not counted."""
    total = jax.lax.reduce_window(
        x,
        0.0,
        jax.lax.add,
        (1, 3, 3, 1),
        (1, 1, 1, 1),
        ((0, 0), (1, 1), (1, 1), (0, 0)),
    )
    rows, columns = (_pixels_in_window(size) for size in x.shape[1:3])
    return total * (1 / (rows[:, None] * columns[None, :]))[None, :, :, None]


def _pixels_in_window(size: int) -> np.ndarray:
    """How many of a window's three positions lie inside, for each position."""
    return np.convolve(np.ones(size, np.float32), np.ones(3, np.float32), "same")
