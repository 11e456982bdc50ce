"""A network's forward pass while it is trained: batch statistics, dropped paths."""

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
    """Runs a network on batch statistics and updates the running ones.

    Our networks' BatchNorm uses the running statistics, whatever it is asked; here
    another takes its place. As in PyTorch, the running variance takes the unbiased one
    of the batch. Statistics are float32 whatever the images are.

    Args:
      apply_fn: the network.
      variables: its variables.
      images: ``[B, H, W, C]``.
      masks: operation weights.
      groups: parts of the batch with statistics of their own; their mean goes into the
        running ones. A divisor of B.
      drop_path: probability that :class:`zcpt_jax.nn.DropPath` drops an image's path
        (Larsson et al., FractalNet, ICLR 2017); what stays is scaled up. None for none.
      key: of the drawn paths.

    Returns:
      What the network returns, and the variables with new running statistics.
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
    """Normalises each group of ``x``, and updates the module's entries of ``stats``."""
    features = feature_axes(module, x.ndim)
    batch = min(set(range(x.ndim)) - features)
    shape = [size if a in features else 1 for a, size in enumerate(x.shape)]
    split = [*x.shape[:batch], groups, -1, *x.shape[batch + 1 :]]
    grouped = x.astype(jnp.float32).reshape(split)
    # The features' axes in ``grouped``, which has one axis more.
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
