"""Counts of a network's parameters and multiply-adds."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from zcpt_jax.nn import capture
from zcpt_jax.types import NOISE


def count_params(module: nn.Module, image_shape: tuple[int, ...], *args: Any) -> int:
    """Count parameters, including BatchNorm's but not running statistics.

    Args:
      module: the network.
      image_shape: shape ``(H, W, C)`` of an image.
      *args: further arguments of the network, such as masks.
    """
    return sum(param_counts(module, image_shape, *args).values())


def count_flops(module: nn.Module, image_shape: tuple[int, ...], *args: Any) -> int:
    """Count the multiply-adds (MACs) of convolutions and linear layers for one image.

    This is the count of NAS-Bench-201 and DARTS; BatchNorm, pooling and additions are
    not included.

    Args:
      module: the network.
      image_shape: shape ``(H, W, C)`` of an image.
      *args: further arguments of the network, such as masks.
    """
    return sum(layer_flops(module, image_shape, *args).values())


def describe(params: int, flops: int, num_classes: int, image_size: int) -> str:
    """Describe the size of a network for summaries."""
    return (
        f"{params:,} parameters, {flops / 1e6:,.1f} M multiply-adds "
        f"({num_classes} classes, {image_size}x{image_size})"
    )


def param_counts(
    module: nn.Module, image_shape: tuple[int, ...], *args: Any
) -> dict[capture.Path, int]:
    """Count the values of each parameter, by its path."""
    shapes = traverse_util.flatten_dict(_shapes(module, image_shape, *args)["params"])
    return {path: math.prod(leaf.shape) for path, leaf in shapes.items()}


def layer_flops(
    module: nn.Module, image_shape: tuple[int, ...], *args: Any
) -> dict[capture.Path, int]:
    """Count each layer's multiply-adds for one image, by its path as in ``kernels``."""
    shapes = _shapes(module, image_shape, *args)
    found: dict[capture.Path, int] = {}

    kernels: dict[capture.Path, tuple[int, ...]] = {}

    def run(variables: Any, images: jax.Array) -> jax.Array:
        def note(path: capture.Path, kernel: jax.Array) -> None:
            kernels[path] = kernel.shape

        def add(path: capture.Path, out: jax.Array) -> jax.Array:
            flops = out.size * math.prod(kernels[path][:-1])
            found[path] = found.get(path, 0) + flops
            return out

        def apply(v: Any, x: Any, _: Any) -> Any:
            return module.apply(v, x, *args, rngs={NOISE: jax.random.key(0)})

        return capture.forward(
            apply,
            variables,
            images,
            None,
            norm="running",
            on_layer=add,
            on_kernel=note,
        )

    jax.eval_shape(run, shapes, _image(image_shape))
    return found


def _shapes(module: nn.Module, image_shape: tuple[int, ...], *args: Any) -> Any:
    return jax.eval_shape(
        lambda key, images: module.init(key, images, *args),
        jax.random.key(0),
        _image(image_shape),
    )


def _image(image_shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
