"""grad_norm: norm of the loss gradient."""

from typing import Any

import jax
import jax.numpy as jnp

from zcpt_jax.proxies._common import layer_gradients
from zcpt_jax.types import ApplyFn, Batch, Proxy, Variables


def grad_norm(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> jax.Array:
    """Sum over layers of ||dL/dW||_2.

    Abdelfattah et al. 2021, section 3.2: the Euclidean norm of each layer, then the
    sum.

    Args:
      apply_fn: network as a function.
      variables: variables of the network.
      batch: images ``[B, H, W, C]`` and labels ``[B]``.
      masks: architecture weights, one array per group.

    Returns:
      A scalar.
    """
    grads = layer_gradients(apply_fn, variables, batch, masks)
    return jnp.stack([jnp.linalg.norm(grad) for grad in grads.values()]).sum()


GRAD_NORM = Proxy(
    name="grad_norm",
    score=grad_norm,
    norm="batch",
    needs_labels=True,
    data_free=False,
    range="non-negative",
    reference="Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS, ICLR 2021",
)
