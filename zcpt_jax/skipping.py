"""Leaving out what has weight zero, and putting the images of masks together.

Both follow from the record of :mod:`zcpt_jax.lowering`. Where it says so, an operation
of weight zero is not computed: by a condition, as the weights are known when a score is
computed and not when it is compiled. Under ``jax.vmap`` over masks a condition would
compute both of its sides. Here it asks instead whether any of the masks uses the
operation, and the images of all of them go through it as one batch.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from zcpt_jax import lowering


def where_used(
    used: Any, fn: Callable[..., jax.Array], x: jax.Array, *weights: Any
) -> jax.Array:
    """What an operation gives, or zeros where its weight is zero and that is skipped.

    After every decision of a search there is less to compute. The derivative by a
    weight of zero is lost, that by everything else is not.

    Args:
      used: scalar, zero if the result does not matter; None if it always does.
      fn: the operation. Equal ones are traced once where they skip or are put together,
        so that it should be the same object each time.
      x: its input, images ``[B, ...]``.
      *weights: its kernels, the same for all masks.
    """
    form = lowering.current()
    if not (form.skip and isinstance(used, jax.Array)):
        used = None
    if form.together:
        return _for_all_masks(fn)(used, x, *weights)
    return fn(x, *weights) if used is None else _unless_zero(fn, used, x, *weights)


def each_where_used(
    used: Any, fn: Callable[..., jax.Array], x: jax.Array, kernels: jax.Array
) -> jax.Array:
    """The same for each slice of a stack of operations.

    Args:
      used: ``[E]``, zero where the result does not matter; None if all of them do.
      fn: maps ``[B, H, W, C]`` and one kernel to a feature map.
      x: ``[E, B, H, W, C]``, or ``[B, H, W, C]`` where all read the same.
      kernels: ``[E, ...]``.

    Returns:
      ``[E, B, H', W', C']``.
    """
    shared = x.ndim == 4
    return jnp.stack(
        [
            where_used(
                None if used is None else used[e],
                fn,
                x if shared else x[e],
                kernels[e],
            )
            for e in range(kernels.shape[0])
        ]
    )


def on_images(fn: Callable[..., jax.Array], x: jax.Array, *weights: Any) -> jax.Array:
    """``fn(x, *weights)``, of the images of all masks side by side under ``vmap``.

    Args:
      fn: a function of images that treats each by itself; see :func:`where_used`.
      x: images ``[B, ...]``.
      *weights: what it needs besides, the same for all masks.
    """
    return where_used(None, fn, x, *weights)


def weighted(weight: Any, x: jax.Array) -> jax.Array:
    """An operation's weight times what it gives.

    Args:
      weight: a scalar.
      x: feature maps ``[B, ...]``.
    """
    together = lowering.current().together and isinstance(weight, jax.Array)
    return _times(weight, x) if together else weight * x


def apart(x: jax.Array, weights: Sequence[Any]) -> jax.Array:
    """``x``; on CPU, XLA fuses nothing before it with what follows, nor gradients.

    It would otherwise compute the gradient of a node's sum anew for every term, and so
    on back to the input. A condition that depends on the masks, here whether they are
    numbers, is what it cannot see through. A score that skips operations has the
    conditions of :func:`where_used` for that.

    Args:
      x: any array.
      weights: the operation weights of each edge, ``[O]``.
    """
    total = sum(sum(row) for row in weights)
    form = lowering.current()
    if form.skip or not form.barriers or not isinstance(total, jax.Array):
        return x
    return jax.lax.cond(total == total, lambda x: x, lambda x: x * jnp.nan, x)


# Compiled functions are traced once for each shape: the operations of a supernet are
# many and alike.
@functools.partial(jax.jit, static_argnums=0)
def _unless_zero(
    fn: Callable[..., jax.Array], used: Any, x: jax.Array, *weights: Any
) -> jax.Array:
    result = jax.eval_shape(fn, x, *weights)

    def skip(x: jax.Array, *weights: Any) -> jax.Array:
        del x, weights
        return jnp.zeros(result.shape, result.dtype)

    return jax.lax.cond(used != 0, fn, skip, x, *weights)


@functools.partial(jax.jit, static_argnums=0)
def _always(fn: Callable[..., jax.Array], x: jax.Array, *weights: Any) -> jax.Array:
    return fn(x, *weights)


@functools.cache
def _for_all_masks(fn: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """An operation, with what it does under ``vmap`` over masks."""

    @custom_vmap
    def run(used: Any, x: jax.Array, *weights: Any) -> jax.Array:
        if used is None:
            return _always(fn, x, *weights)
        return _unless_zero(fn, used, x, *weights)

    @run.def_vmap
    def _(count: int, mapped: Any, used: Any, x: jax.Array, *weights: Any) -> Any:
        if any(mapped[2:]):  # kernels of their own: nothing to put together
            axes = (0 if mapped[1] else None, *(0 if m else None for m in mapped[2:]))
            return jax.vmap(fn, axes)(x, *weights), True
        if used is not None and mapped[0]:
            used = jnp.float32(jnp.any(used != 0))
        if not mapped[1]:
            return run(used, x, *weights), False
        return _apart(run(used, _side_by_side(x), *weights), count), True

    return run


@custom_vmap
def _times(weight: jax.Array, x: jax.Array) -> jax.Array:
    return weight * x


@_times.def_vmap
def _times_of_masks(count: int, mapped: Any, weight: jax.Array, x: jax.Array) -> Any:
    if not mapped[0]:
        return weight * x, mapped[1]
    x = x if mapped[1] else jnp.broadcast_to(x, (count, *x.shape))
    each = jnp.repeat(weight, x.shape[1]).reshape(-1, *[1] * (x.ndim - 2))
    return _apart(each * _side_by_side(x), count), True


def _side_by_side(x: jax.Array) -> jax.Array:
    """``[K, B, ...]`` to ``[K * B, ...]``."""
    return x.reshape(-1, *x.shape[2:])


def _apart(x: jax.Array, count: int) -> jax.Array:
    """``[K * B, ...]`` to ``[K, B, ...]``."""
    return x.reshape(count, -1, *x.shape[1:])
