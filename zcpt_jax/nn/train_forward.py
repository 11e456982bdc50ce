"""Forward pass of a network in training, with batch statistics and drop path."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from zcpt_jax.nn.capture import DropPath, feature_axes
from zcpt_jax.types import ApplyFn, Array, Variables


def forward_in_training(
    apply_fn: ApplyFn,
    variables: Variables,
    images: Array,
    masks: Any = None,
    *,
    groups: int = 1,
    drop_path: Any = None,
    key: jax.Array | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Run a network on batch statistics and update the running statistics.

    Networks are built with ``use_running_average=True``; training intercepts BatchNorm
    and uses batch statistics. As in PyTorch, the running variance is updated with the
    unbiased variance of the batch. Statistics are float32 for images of any type.

    Args:
      apply_fn: the network.
      variables: variables of the network.
      images: images ``[B, H, W, C]``.
      masks: masks, passed through to the network.
      groups: number of parts of the batch with separate statistics, a divisor of B; the
        running statistics are updated with their mean.
      drop_path: probability that :class:`zcpt_jax.nn.DropPath` drops an image's path
        (Larsson et al., FractalNet, ICLR 2017); kept paths are scaled up. None drops
        none.
      key: PRNG key that decides the dropped paths.

    Returns:
      The network's output, and the variables with new running statistics.
    """
    stats = traverse_util.flatten_dict(dict(variables.get("batch_stats", {})))
    dropped = 0

    def intercept(
        next_fun: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        nonlocal dropped
        module = context.module
        if context.method_name == "__call__" and isinstance(module, nn.BatchNorm):
            return _batch_norm(module, args[0] if args else kwargs["x"], groups, stats)
        if drop_path is not None and isinstance(module, DropPath):
            assert key is not None
            dropped += 1
            return _drop(args[0], drop_path, jax.random.fold_in(key, dropped))
        return next_fun(*args, **kwargs)

    with nn.intercept_methods(intercept):
        output = apply_fn(variables, images, masks)
    if not stats:
        return output, dict(variables)
    return output, {**variables, "batch_stats": traverse_util.unflatten_dict(stats)}


def _drop(x: jax.Array, probability: Any, key: jax.Array) -> jax.Array:
    kept = jax.random.bernoulli(key, 1 - probability, (len(x), *[1] * (x.ndim - 1)))
    return x * (kept / (1 - probability)).astype(x.dtype)


def _batch_norm(
    module: nn.BatchNorm, x: jax.Array, groups: int, stats: dict[Any, Any]
) -> jax.Array:
    """Normalise each group of ``x`` and update the module's entries of ``stats``."""
    features = feature_axes(module, x.ndim)
    batch = min(set(range(x.ndim)) - features)
    shape = [size if a in features else 1 for a, size in enumerate(x.shape)]
    split = [*x.shape[:batch], groups, -1, *x.shape[batch + 1 :]]
    grouped = x.astype(jnp.float32).reshape(split)
    # The feature axes in ``grouped``, which has one more axis.
    apart = {a if a < batch else a + 1 for a in features}
    axes = tuple(a for a in range(grouped.ndim) if a not in {*apart, batch})
    centred = grouped - grouped.mean(axes, keepdims=True)
    variance = jnp.square(centred).mean(axes, keepdims=True)
    count = math.prod(grouped.shape[a] for a in axes)
    new = {
        "mean": grouped.mean((*axes, batch)),
        "var": variance.mean((*axes, batch)) * (count / max(count - 1, 1)),
    }
    for name, value in new.items():
        old = stats[*module.path, name]
        share = (1 - module.momentum) * value.reshape(old.shape)
        stats[*module.path, name] = module.momentum * old + share
    y = (centred / jnp.sqrt(variance + module.epsilon)).reshape(x.shape)
    if module.use_scale:
        y = y * _feature(module, "scale", shape)
    if module.use_bias:
        y = y + _feature(module, "bias", shape)
    return y.astype(x.dtype)


def _feature(module: nn.BatchNorm, name: str, shape: list[int]) -> jax.Array:
    return module.get_variable("params", name).astype(jnp.float32).reshape(shape)
