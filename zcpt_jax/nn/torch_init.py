"""PyTorch's default initialisation.

The published supernets are scored with BatchNorm on initial running statistics, which
does not normalise, so the initialisation decides the scores: NWOT picks skip
connections with Flax's default (``lecun_normal``) but convolutions with PyTorch's.
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
"""PyTorch's default for convolutions and linear layers: uniform in
``+-1/sqrt(fan_in)``."""

stack_init = nn.initializers.variance_scaling(
    1 / 3, "fan_in", "uniform", batch_axis=(0,)
)
"""Initialiser with the same distribution for a stack of kernels ``[E, ...]``."""


def bias_init(fan_in: int) -> Callable[..., jax.Array]:
    """Return PyTorch's default for linear biases, uniform in ``+-1/sqrt(fan_in)``."""
    bound = fan_in**-0.5

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class TorchDefault(Space):
    """A space with PyTorch's default initialisation, as used for published scores."""

    def init_variables(
        self, module: nn.Module, key: jax.Array, image_shape: tuple[int, ...]
    ) -> Variables:
        """Initialise variables with :func:`torch_init`."""
        return torch_init(module, key, image_shape)


def torch_init(
    module: nn.Module,
    key: jax.Array,
    image_shape: tuple[int, ...],
    *,
    normal: bool = False,
) -> Variables:
    """Initialise variables like ``module.init``, with a single draw of all numbers.

    Every leaf has the distribution of :data:`kernel_init` or :func:`bias_init`, but
    other numbers. ``module.init`` compiles one random number generator per parameter,
    which takes ten times as long as a whole NAS-Bench-201 search step on CPU.

    Args:
      module: a network built from this package's blocks.
      key: PRNG key, consumed.
      image_shape: shape ``(H, W, C)`` of an image.
      normal: whether convolutions are normal with variance ``2 / (k * k * C_out)``
        rather than PyTorch's default (He et al. 2015, "fan out").

    Returns:
      Variables on the default device.

    Raises:
      InputError: if a parameter's name does not occur in this package's blocks.
    """
    flat = _shapes(module, tuple(image_shape))
    need = sum(int(np.prod(leaf.shape)) for leaf in flat.values())
    # Rounded up to a power of two so that networks of similar size share a compilation.
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
    """Move numbers to the host, where they are cut into hundreds of pieces.

    Inside a trace they are returned unchanged, because the compiler cuts them.
    """
    return numbers if isinstance(numbers, jax.core.Tracer) else np.asarray(numbers)


@functools.lru_cache(maxsize=32)
def _shapes(module: nn.Module, image_shape: tuple[int, ...]) -> Mapping[Any, Any]:
    """Return shapes, cached because tracing takes longer than drawing weights."""
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
