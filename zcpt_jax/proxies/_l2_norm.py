"""l2_norm: the size of the weights."""

from typing import Any

import jax
import jax.numpy as jnp

from zcpt_jax.nn import capture
from zcpt_jax.proxies._reach import reach
from zcpt_jax.types import ApplyFn, Batch, Proxy, Variables


def l2_norm(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> jax.Array:
    """Sum over layers of ||W||_2, of the layers that are part of the network.

    Abdelfattah et al. 2021, section 3.2. Their code sums over every layer of the
    module, so that removing an operation by its mask could not change the value; here
    a layer counts when a path of non-zero weight leads from it to the output. Without
    masks, and with none of its entries zero, the two are the same.

    Args:
      apply_fn: the network.
      variables: its variables.
      batch: only the shape of its images is used.
      masks: operation weights.

    Returns:
      A scalar, non-negative.
    """
    reached = reach(apply_fn, variables, batch, masks)
    kernels = capture.by_layer(
        capture.kernels(variables), reached, apply_fn, variables, batch.images, masks
    )
    norms = [jnp.linalg.norm(kernels[path]) * reached[path] for path in kernels]
    return jnp.stack(norms).sum()


L2_NORM = Proxy(
    name="l2_norm",
    score=l2_norm,
    norm="identity",
    needs_labels=False,
    data_free=True,
    range="non-negative",
    reference="Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS, ICLR 2021",
)
