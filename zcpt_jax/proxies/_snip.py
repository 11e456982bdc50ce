"""SNIP: first-order change of the loss when each weight is removed."""

from typing import Any

import jax
import jax.numpy as jnp

from zcpt_jax.proxies._common import kernel_gradients
from zcpt_jax.types import ApplyFn, Batch, Proxy, Variables


def snip(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> jax.Array:
    """Sum of |W * dL/dW|.

    Lee et al. 2019, equation 6, without the normalisation over weights.

    Args:
      apply_fn: network as a function.
      variables: variables of the network.
      batch: images ``[B, H, W, C]`` and labels ``[B]``.
      masks: architecture weights, one array per group.

    Returns:
      A scalar.
    """
    kernels, grads = kernel_gradients(apply_fn, variables, batch, masks)
    return jnp.stack(
        [jnp.abs(kernels[path] * grads[path]).sum() for path in kernels]
    ).sum()


SNIP = Proxy(
    name="snip",
    score=snip,
    norm="batch",
    needs_labels=True,
    data_free=False,
    range="non-negative",
    reference="Lee et al., SNIP: single-shot network pruning, ICLR 2019",
)
