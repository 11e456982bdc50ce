"""Eigenvalues of many small symmetric matrices."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def eigenvalues(matrices: Sequence[jax.Array]) -> list[jax.Array]:
    """Eigenvalues of symmetric matrices, those of one size by one batched call.

    Args:
      matrices: each ``[C, C]``, C may differ. The cost of each grows as C^3.

    Returns:
      for each matrix its eigenvalues ``[C]`` in ascending order.
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
    """The smaller of ``rows^T rows`` and ``rows rows^T``.

    They have the same eigenvalues but for zeros: the squares of the singular values.

    Args:
      rows: ``[N, C]``.

    Returns:
      ``[min(N, C), min(N, C)]``.
    """
    return rows.T @ rows if rows.shape[1] <= rows.shape[0] else rows @ rows.T
