"""l2_norm: norm of the weights."""

from typing import Any

import jax
import jax.numpy as jnp

from zcpt_jax.nn import capture
from zcpt_jax.proxies._reach import reach
from zcpt_jax.types import ApplyFn, Batch, Proxy, Variables


def l2_norm(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> jax.Array:
    """Sum ||W||_2 over the layers that are part of the network.

    Abdelfattah et al. 2021, section 3.2. Their code sums over every layer of the
    module, so removing an operation by its mask could not change the value; here a
    layer counts if a path of non-zero weight leads from it to the output. Without
    masks, or without zeros in them, the two are the same.

    Args:
      apply_fn: network as a function.
      variables: variables of the network.
      batch: minibatch; only the shape of its images is used.
      masks: architecture weights, one array per group.

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
