"""plain: SNIP without the absolute values."""

from typing import Any

import jax
import jax.numpy as jnp

from zcpt_jax.proxies._common import kernel_gradients
from zcpt_jax.types import ApplyFn, Batch, Proxy, Variables


def plain(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> jax.Array:
    """Sum of W * dL/dW.

    Abdelfattah et al. 2021, section 3.2.

    Args:
      apply_fn: network as a function.
      variables: variables of the network.
      batch: images ``[B, H, W, C]`` and labels ``[B]``.
      masks: architecture weights, one array per group.

    Returns:
      A scalar.
    """
    kernels, grads = kernel_gradients(apply_fn, variables, batch, masks)
    return jnp.stack([(kernels[path] * grads[path]).sum() for path in kernels]).sum()


PLAIN = Proxy(
    name="plain",
    score=plain,
    norm="batch",
    needs_labels=True,
    data_free=False,
    range="any sign, close to zero",
    reference="Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS, ICLR 2021",
)
