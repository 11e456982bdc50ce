"""jacob_cov: how differently the network responds to changes of each image."""

from typing import Any

import jax
import jax.numpy as jnp

from zcpt_jax import taps
from zcpt_jax.types import ApplyFn, Batch, Proxy, Variables

_EPS = 1e-5


def jacob_cov(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> jax.Array:
    """-sum (log(v + k) + 1 / (v + k)) of the eigenvalues v of a correlation matrix.

    The rows that are correlated are the gradients of the sum of all logits with
    respect to each image, with BatchNorm on the statistics of the batch; k = 1e-5
    (Mellor et al. 2020, first version, equation 3). The symmetric eigenvalue solver is
    used where the published code used the general one.

    Args:
      apply_fn: the network.
      variables: its variables.
      batch: images ``[B, H, W, C]``; the labels are not used.
      masks: operation weights.

    Returns:
      A scalar, at most about ``-B``; NaN if an image has no influence at all.
    """

    def total(images: Any) -> jax.Array:
        return taps.forward(apply_fn, variables, images, masks, norm="batch").sum()

    rows = jax.grad(total)(batch.images).reshape(batch.images.shape[0], -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    rows = rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
    values = jnp.linalg.eigvalsh(rows @ rows.T) + _EPS
    return -(jnp.log(values) + 1 / values).sum()


JACOB_COV = Proxy(
    name="jacob_cov",
    score=jacob_cov,
    norm="batch",
    needs_labels=False,
    data_free=False,
    weight_gradients=False,
    range="at most about -B; very low if two images have the same gradient",
    reference="Mellor et al., arXiv 2006.04647v1; Abdelfattah et al., ICLR 2021",
)
