"""GraSP: change of the gradient flow when weights are removed."""

from typing import Any

import jax
import jax.numpy as jnp

from zcpt_jax.nn import capture
from zcpt_jax.proxies._common import loss_of_kernels
from zcpt_jax.types import ApplyFn, Batch, Proxy, Variables


def grasp(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> jax.Array:
    """Sum -W * (H g), with g = dL/dW and H the Hessian of the loss.

    Wang et al. 2020, equation 8, with temperature 1 and one batch. Because H is
    symmetric, sum W * (H g) = sum g * (H W), and H W is the derivative of the gradient
    in the direction W: forward over reverse mode, one pass each.

    Args:
      apply_fn: network as a function.
      variables: variables of the network.
      batch: images ``[B, H, W, C]`` and labels ``[B]``.
      masks: architecture weights, one array per group.

    Returns:
      A scalar.
    """
    kernels = capture.kernels(variables)
    gradient = jax.grad(loss_of_kernels(apply_fn, variables, batch, masks))
    grads, curved = jax.jvp(gradient, (kernels,), (kernels,))
    return -jnp.stack([(grads[path] * curved[path]).sum() for path in kernels]).sum()


GRASP = Proxy(
    name="grasp",
    score=grasp,
    norm="batch",
    needs_labels=True,
    data_free=False,
    range="any sign, close to zero",
    reference="Wang et al., Picking winning tickets before training, ICLR 2020",
)
