"""jacob_cov: diversity of the network's responses to changes of each image."""

from typing import Any

import jax
import jax.numpy as jnp

from zcpt_jax.proxies._common import image_correlations
from zcpt_jax.types import ApplyFn, Batch, Proxy, Variables

_EPS = 1e-5


def jacob_cov(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> jax.Array:
    """Compute -sum (log(v + k) + 1 / (v + k)), v eigenvalues of a correlation matrix.

    The correlated rows are the gradients of the sum of all logits with respect to each
    image, with BatchNorm on the statistics of the batch; k = 1e-5 (Mellor et al. 2020,
    first version, equation 3). The published code uses the general eigenvalue solver;
    here it is the symmetric one.

    Args:
      apply_fn: network as a function.
      variables: variables of the network.
      batch: images ``[B, H, W, C]``; the labels are not used.
      masks: architecture weights, one array per group.

    Returns:
      A scalar, at most about ``-B``; NaN if an image has no influence at all.
    """
    correlations, _ = image_correlations(apply_fn, variables, batch, masks)
    values = jnp.linalg.eigvalsh(correlations) + _EPS
    return -(jnp.log(values) + 1 / values).sum()


JACOB_COV = Proxy(
    name="jacob_cov",
    score=jacob_cov,
    norm="batch",
    needs_labels=False,
    data_free=False,
    range="at most about -B; very low if two images have the same gradient",
    reference="Mellor et al., arXiv 2006.04647v1; Abdelfattah et al., ICLR 2021",
)
