"""SynFlow: total weight of all paths through the network, per parameter."""

from typing import Any

import jax
import jax.numpy as jnp

from zcpt_jax.nn import capture
from zcpt_jax.proxies._common import Kernels, positive_inputs
from zcpt_jax.types import ApplyFn, Batch, Proxy, Variables


def synflow(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> jax.Array:
    """Sum of |W * dR/dW|, with R the sum of the logits of the all-positive network.

    Tanaka et al. 2020, equation 2, summed over convolutions and linear layers: weights
    are replaced by their absolute values, BatchNorm is skipped, the input is one image
    of ones.

    Args:
      apply_fn: network as a function.
      variables: variables of the network.
      batch: minibatch; only the shape of its images is used.
      masks: architecture weights, one array per group.

    Returns:
      A scalar; ``inf`` beyond 3e38, where :func:`log_synflow` is still finite.
    """
    mantissa, exponent = _flow(apply_fn, variables, batch, masks)
    return jnp.ldexp(mantissa, exponent)


def log_synflow(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> jax.Array:
    """Natural logarithm of :func:`synflow`, finite where that overflows.

    Returns:
      A scalar; ``-inf`` for a network whose output does not depend on its input.
    """
    mantissa, exponent = _flow(apply_fn, variables, batch, masks)
    return jnp.log(mantissa) + exponent * jnp.log(2.0)


def _flow(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> tuple[jax.Array, jax.Array]:
    """Compute the score as ``mantissa * 2**exponent``.

    R is linear in each weight and every term is non-negative, so the sum of
    W * dR/dW is the derivative of R in the direction W: one forward-mode pass, no
    weight gradients. At cut points the states are divided by a power of two, which is
    exact and, because the network is homogeneous, factors out of R.
    """
    variables, images = positive_inputs(variables, batch)
    kernels = capture.kernels(variables)

    def total(kernels: Kernels) -> tuple[jax.Array, jax.Array]:
        exponents = [jnp.int32(0)]

        def rescale(states: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            largest = jnp.stack([state.max() for state in states]).max()
            exponent = jnp.frexp(jax.lax.stop_gradient(largest))[1]
            exponents.append(exponent)
            return tuple(state * jnp.ldexp(1.0, -exponent) for state in states)

        logits = capture.forward(
            apply_fn,
            capture.with_kernels(variables, kernels),
            images,
            masks,
            norm="identity",
            on_cut=rescale,
        )
        return logits.sum(), jnp.stack(exponents).sum()

    _, mantissa, exponent = jax.jvp(total, (kernels,), (kernels,), has_aux=True)
    return mantissa, exponent


SYNFLOW = Proxy(
    name="synflow",
    score=synflow,
    norm="identity",
    needs_labels=False,
    data_free=True,
    range="positive, grows exponentially with depth: 1e7 to beyond float32",
    reference="Tanaka et al., Pruning neural networks without any data, NeurIPS 2020",
)

LOG_SYNFLOW = Proxy(
    name="log_synflow",
    score=log_synflow,
    norm="identity",
    needs_labels=False,
    data_free=True,
    range="the natural logarithm of synflow: about 10 to 300",
    reference=SYNFLOW.reference,
)
