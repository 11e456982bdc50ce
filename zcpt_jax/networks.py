"""Counting what a network holds and does."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from zcpt_jax import taps


def count_params(module: nn.Module, image_shape: tuple[int, ...], *args: Any) -> int:
    """Number of parameters, BatchNorm's included, running statistics not.

    Args:
      module: the network.
      image_shape: ``(H, W, C)``.
      *args: further arguments of the network, such as masks.
    """
    shapes = _shapes(module, image_shape, *args)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["params"]))


def count_flops(module: nn.Module, image_shape: tuple[int, ...], *args: Any) -> int:
    """Multiply-adds of convolutions and linear layers for one image.

    As NAS-Bench-201 and DARTS count them; BatchNorm, pooling and additions are left
    out.

    Args:
      module: the network.
      image_shape: ``(H, W, C)``.
      *args: further arguments of the network, such as masks.
    """
    shapes = _shapes(module, image_shape, *args)
    kernels = taps.kernels(shapes)
    total = 0

    def add(path: taps.Path, out: jax.Array) -> jax.Array:
        nonlocal total
        kernel = kernels[path]
        total += out.size * (math.prod(kernel.shape) // kernel.shape[-1])
        return out

    def run(variables: Any, images: jax.Array) -> jax.Array:
        def apply(v: Any, x: Any, _: Any) -> Any:
            return module.apply(v, x, *args)

        return taps.forward(
            apply, variables, images, None, norm="running", on_layer=add
        )

    jax.eval_shape(run, shapes, _image(image_shape))
    return total


def _shapes(module: nn.Module, image_shape: tuple[int, ...], *args: Any) -> Any:
    return jax.eval_shape(
        lambda key, images: module.init(key, images, *args),
        jax.random.key(0),
        _image(image_shape),
    )


def _image(image_shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
