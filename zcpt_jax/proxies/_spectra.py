"""Eigenvalues of many small symmetric matrices."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def eigenvalues(matrices: Sequence[jax.Array]) -> list[jax.Array]:
    """Compute eigenvalues of symmetric matrices, with one batched call per size.

    Args:
      matrices: symmetric matrices ``[C, C]``; C may differ. Each costs O(C^3).

    Returns:
      Eigenvalues ``[C]`` of each matrix in ascending order.
    """
    by_size: dict[int, list[int]] = {}
    for index, matrix in enumerate(matrices):
        by_size.setdefault(matrix.shape[0], []).append(index)
    found: dict[int, jax.Array] = {}
    for indices in by_size.values():
        values = jnp.linalg.eigvalsh(jnp.stack([matrices[index] for index in indices]))
        found |= dict(zip(indices, values, strict=True))
    return [found[index] for index in range(len(matrices))]


def gram(rows: jax.Array) -> jax.Array:
    """Compute the smaller of ``rows^T rows`` and ``rows rows^T``.

    Both have the same non-zero eigenvalues: the squares of the singular values.

    Args:
      rows: matrix ``[N, C]``.

    Returns:
      Gram matrix ``[min(N, C), min(N, C)]``.
    """
    return rows.T @ rows if rows.shape[1] <= rows.shape[0] else rows @ rows.T
