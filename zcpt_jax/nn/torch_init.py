"""PyTorch's default initialisation.

The published supernets are scored with BatchNorm on fresh statistics, which does not
renormalise, so that the initialisation decides the scores: with Flax's default
(``lecun_normal``) NWOT picks skip connections where PyTorch's picks convolutions.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from zcpt_jax.types import AUXILIARY, Array, InputError, Space, Variables

kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""Uniform in ``+-1/sqrt(fan_in)``, PyTorch's default for convolutions and linear."""

stack_init = nn.initializers.variance_scaling(
    1 / 3, "fan_in", "uniform", batch_axis=(0,)
)
"""The same for a stack of kernels ``[E, ...]``."""


def bias_init(fan_in: int) -> Callable[..., jax.Array]:
    """Uniform in ``+-1/sqrt(fan_in)``, PyTorch's default for the bias of a linear."""
    bound = fan_in**-0.5

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class TorchDefault(Space):
    """A space initialised by PyTorch's default, which the published scores rest on."""

    def init_variables(
        self, module: nn.Module, key: jax.Array, image_shape: tuple[int, ...]
    ) -> Variables:
        """Fresh variables by :func:`torch_init`."""
        return torch_init(module, key, image_shape)


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
    flat = _shapes(module, tuple(image_shape))
    need = sum(int(np.prod(leaf.shape)) for leaf in flat.values())
    # A power of two, so that networks of similar size share one compilation.
    size = (1 << need.bit_length(),)
    pool = _drawn(jax.random.uniform(key, size, minval=-1))
    normals = _drawn(jax.random.normal(key, size)) if normal else pool
    leaves: dict[Any, Array] = {}
    used = 0
    for path, leaf in flat.items():
        place = slice(used, used + leaf.size)
        used += leaf.size
        if normal and path[-1] == "kernel" and leaf.ndim == 4:
            fan_out = leaf.shape[0] * leaf.shape[1] * leaf.shape[3]
            scale = np.float32((2 / fan_out) ** 0.5)
            leaves[path] = normals[place].reshape(leaf.shape) * scale
        else:
            leaves[path] = _torch_leaf(path, pool[place].reshape(leaf.shape), flat)
    variables: Variables = traverse_util.unflatten_dict(leaves)
    return variables if isinstance(pool, jax.Array) else jax.device_put(variables)


def _drawn(numbers: jax.Array) -> Array:
    """Numbers on the host, where they are cut into hundreds of pieces; as they are
    inside a trace, which the compiler cuts.
    """
    return numbers if isinstance(numbers, jax.core.Tracer) else np.asarray(numbers)


@functools.lru_cache(maxsize=32)
def _shapes(module: nn.Module, image_shape: tuple[int, ...]) -> Mapping[Any, Any]:
    """Cached: tracing a network takes longer than drawing its weights."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)
    shapes = {name: tree for name, tree in shapes.items() if name != AUXILIARY}
    return traverse_util.flatten_dict(shapes)


def _torch_leaf(path: tuple[str, ...], drawn: Array, flat: Any) -> Array:
    if path[-1] in ("scale", "var"):
        return np.ones(drawn.shape, drawn.dtype)
    if path[-1] == "mean" or (*path[:-1], "scale") in flat:
        return np.zeros(drawn.shape, drawn.dtype)
    kernel = flat.get((*path[:-1], "kernel"))
    if path[-1] == "kernels":
        return drawn * np.float32(np.prod(drawn.shape[1:-1]) ** -0.5)
    if path[-1] not in ("kernel", "bias") or kernel is None:
        raise InputError(
            f"no PyTorch default is known for the parameter {'/'.join(path)}; "
            "initialise this network with its own module.init"
        )
    return drawn * np.float32(np.prod(kernel.shape[:-1]) ** -0.5)
