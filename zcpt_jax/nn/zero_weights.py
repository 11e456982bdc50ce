"""Skipping of zero-weight operations, and batching of the images of several masks.

The record of :mod:`zcpt_jax.lowering` enables both. Zero-weight operations are skipped
by a condition, because weights are known when a score is computed but not when it is
compiled. Under ``jax.vmap`` over masks a condition would compute both of its branches.
Here it checks instead whether any of the masks uses the operation, and the images of
all masks go through it as one batch.
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
    """Apply an operation, or return zeros if its weight is zero and skipping is on.

    Each decision of a search thus reduces the computation. Only the derivative with
    respect to the zero weight is lost.

    Args:
      used: scalar, zero if the result does not matter; None if it always matters.
      fn: the operation; pass the same object each time, because equal functions are
        traced once where they skip or batch masks.
      x: input of the operation, images ``[B, ...]``.
      *weights: kernels of the operation, the same for all masks.
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
    """Apply :func:`where_used` to each slice of a stack of operations.

    Args:
      used: for each of E slices, zero if the result does not matter; None if all
        matter.
      fn: maps ``[B, H, W, C]`` and one kernel to a feature map; see
        :func:`where_used`.
      x: inputs ``[E, B, H, W, C]``, or one shared input ``[B, H, W, C]``.
      kernels: stack of kernels ``[E, ...]``.

    Returns:
      ``[E, B, H', W', C']``.
    """
    form = lowering.current()
    if not form.skip or used is None or not isinstance(used[0], jax.Array):
        used = None
    used = None if used is None else tuple(used)
    if form.together:
        return _stack_for_all_masks(fn)(used, x, kernels)
    run = _stack if used is None else _stack_once_traced
    return run(fn, used, x, kernels, None)


def on_images(fn: Callable[..., jax.Array], x: jax.Array, *weights: Any) -> jax.Array:
    """Compute ``fn(x, *weights)``, as one batch of all masks' images under ``vmap``.

    Args:
      fn: a function that treats each image by itself; see :func:`where_used`.
      x: images ``[B, ...]``.
      *weights: further arguments, the same for all masks.
    """
    return where_used(None, fn, x, *weights)


def weighted_sum(weights: Sequence[Any], terms: Sequence[jax.Array]) -> jax.Array:
    """Return the weighted sum of operations' outputs, added in order.

    Args:
      weights: scalars, at least one.
      terms: feature maps ``[B, ...]``, one for each weight.
    """
    form = lowering.current()
    if form.together:
        return _sum_of_masks(tuple(weights), tuple(terms))
    return (_sum_once_traced if form.skip else _sum)(tuple(weights), tuple(terms))


def apart(x: jax.Array, weights: Sequence[Any]) -> jax.Array:
    """Identity that acts as a fusion barrier in XLA:CPU, forward and backward.

    Without it XLA recomputes the gradient of a node's sum for every term, recursively
    back to the input. XLA cannot simplify a condition that depends on the masks; this
    one tests for NaN. A score that skips operations does not need it, because the
    conditions of :func:`where_used` act as barriers.

    Args:
      x: any array.
      weights: architecture weights ``[O]`` of each edge.
    """
    total = sum(sum(row) for row in weights)
    form = lowering.current()
    if form.skip or not form.barriers or not isinstance(total, jax.Array):
        return x
    return jax.lax.cond(total == total, lambda x: x, lambda x: x * jnp.nan, x)


# Jitted, because a supernet has many similar operations and a jitted function is traced
# once per shape.
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
    """Give an operation its batching rule for ``vmap`` over masks."""

    @custom_vmap
    def run(used: Any, x: jax.Array, *weights: Any) -> jax.Array:
        if used is None:
            return _always(fn, x, *weights)
        return _unless_zero(fn, used, x, *weights)

    @run.def_vmap
    def _(count: int, mapped: Any, used: Any, x: jax.Array, *weights: Any) -> Any:
        if any(mapped[2:]):  # masks with separate kernels cannot be batched
            axes = (0 if mapped[1] else None, *(0 if m else None for m in mapped[2:]))
            return jax.vmap(fn, axes)(x, *weights), True
        if used is not None and mapped[0]:
            used = jnp.float32(jnp.any(used != 0))
        if not mapped[1]:
            return run(used, x, *weights), False
        return _apart(run(used, _side_by_side(x), *weights), count), True

    return run


def _stack(
    fn: Callable[..., jax.Array],
    used: Any,
    x: jax.Array,
    kernels: jax.Array,
    count: int | None,
) -> jax.Array:
    """Compute :func:`each_where_used` on the images of ``count`` masks as one batch.

    The axis of masks comes first, in ``x`` and in the result.
    """
    first = 0 if count is None else 1  # the axis of images, or of the stack
    shared = x.ndim == 4 + first

    def one(number: Any, needed: Any) -> jax.Array:
        mine = x
        if not shared:
            mine = jax.lax.dynamic_index_in_dim(x, number, first, keepdims=False)
        mine = mine if count is None else _side_by_side(mine)
        kernel = jax.lax.dynamic_index_in_dim(kernels, number, 0, keepdims=False)
        if needed is None:
            return fn(mine, kernel)
        return _unless_zero(fn, needed, mine, kernel)

    # With several masks, the operation is needed if any of them uses it.
    needed = used and [jnp.float32(jnp.any(u != 0) if u.ndim else u) for u in used]
    size = kernels.shape[0]
    if lowering.current().stacks == "unrolled":
        outs = jnp.stack([one(e, needed and needed[e]) for e in range(size)])
    elif needed:
        outs = jax.lax.map(lambda a: one(*a), (jnp.arange(size), jnp.stack(needed)))
    else:
        outs = jax.lax.map(lambda number: one(number, None), jnp.arange(size))
    if count is None:
        return outs
    return jnp.moveaxis(jax.vmap(lambda out: _apart(out, count))(outs), 0, 1)


_stack_once_traced = jax.jit(_stack, static_argnums=(0, 4))


@functools.cache
def _stack_for_all_masks(fn: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Give a stack of operations its batching rule for ``vmap`` over masks."""

    @custom_vmap
    def run(used: Any, x: jax.Array, kernels: jax.Array) -> jax.Array:
        return _stack_once_traced(fn, used, x, kernels, None)

    @run.def_vmap
    def _(count: int, mapped: Any, used: Any, x: jax.Array, kernels: jax.Array) -> Any:
        if mapped[2]:  # masks with separate kernels cannot be batched
            axes = (0 if mapped[1] else None, 0)
            each = functools.partial(_stack, fn, None, count=None)
            return jax.vmap(each, axes)(x, kernels), True
        run = _stack_once_traced
        return run(fn, used, x, kernels, count if mapped[1] else None), mapped[1]

    return run


def _sum(weights: Sequence[Any], terms: Sequence[jax.Array]) -> jax.Array:
    products = [weight * x for weight, x in zip(weights, terms, strict=True)]
    return sum(products[1:], products[0])


_sum_once_traced = jax.jit(_sum)


@custom_vmap
def _sum_of_masks(weights: Any, terms: Any) -> jax.Array:
    return _sum_once_traced(weights, terms)


@_sum_of_masks.def_vmap
def _(count: int, mapped: Any, weights: Any, terms: Any) -> Any:
    if not any(jax.tree.leaves(mapped)):
        return _sum_once_traced(weights, terms), False
    weights = tuple(
        w if is_mapped else jnp.broadcast_to(w, count)
        for w, is_mapped in zip(weights, mapped[0], strict=True)
    )
    terms = tuple(
        x if is_mapped else jnp.broadcast_to(x, (count, *x.shape))
        for x, is_mapped in zip(terms, mapped[1], strict=True)
    )
    return _sum_side_by_side(weights, terms), True


@jax.jit
def _sum_side_by_side(weights: Any, terms: Any) -> jax.Array:
    count, images = terms[0].shape[:2]
    shape = (-1, *[1] * (terms[0].ndim - 2))
    each = [jnp.repeat(weight, images).reshape(shape) for weight in weights]
    return _apart(_sum(each, [_side_by_side(x) for x in terms]), count)


def _side_by_side(x: jax.Array) -> jax.Array:
    """Reshape ``[K, B, ...]`` to ``[K * B, ...]``."""
    return x.reshape(-1, *x.shape[2:])


def _apart(x: jax.Array, count: int) -> jax.Array:
    """Reshape ``[K * B, ...]`` to ``[K, B, ...]``."""
    return x.reshape(count, -1, *x.shape[1:])
