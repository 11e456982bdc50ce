"""Leaving out what has weight zero, where that saves time."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

_skip = False


@contextlib.contextmanager
def skipping(use: bool) -> Iterator[None]:
    """Chooses whether what is traced inside skips operations of weight zero.

    For scores that need no gradient: XLA's gradients of convolutions are many times
    slower inside a condition on CPU, and the derivative by a weight of zero would be
    lost. Under vmap both sides of a condition are computed, so that it saves nothing.

    Args:
      use: whether to skip; by default nothing is.
    """
    global _skip
    before, _skip = _skip, use
    try:
        yield
    finally:
        _skip = before


def where_used(used: Any, fn: Callable[..., jax.Array], *operands: Any) -> jax.Array:
    """What an operation gives, or zeros where its weight is zero and that is skipped.

    After every decision of a search there is less to compute.

    Args:
      used: scalar, zero if the result does not matter; None if it always does.
      fn: the operation.
      *operands: its inputs.
    """
    if not _skip or not isinstance(used, jax.Array):
        return fn(*operands)
    result = jax.eval_shape(fn, *operands)

    def skip(*operands: Any) -> jax.Array:
        del operands
        return jnp.zeros(result.shape, result.dtype)

    return jax.lax.cond(used != 0, fn, skip, *operands)


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


def apart(x: jax.Array, weights: Sequence[Any]) -> jax.Array:
    """``x``; on CPU, XLA fuses nothing before it with what follows, nor gradients.

    It would otherwise compute the gradient of a node's sum anew for every term, and so
    on back to the input. A condition that depends on the masks, here whether they are
    numbers, is what it cannot see through. A score without a derivative has the
    conditions of :func:`where_used` for that.

    Args:
      x: any array.
      weights: the operation weights of each edge, ``[O]``.
    """
    total = sum(sum(row) for row in weights)
    if _skip or not isinstance(total, jax.Array) or jax.default_backend() != "cpu":
        return x
    return jax.lax.cond(total == total, lambda x: x, lambda x: x * jnp.nan, x)


def skips() -> bool:
    """Whether what is traced now skips operations of weight zero."""
    return _skip
