"""l2_norm: the size of the weights."""

from typing import Any

import jax
import jax.numpy as jnp

from zcpt_jax import taps
from zcpt_jax.proxies._common import positive_inputs
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
    positive, images = positive_inputs(variables, batch)
    kernels = taps.kernels(variables)

    def total(gains: dict[taps.Path, jax.Array]) -> jax.Array:
        def gain(path: taps.Path, out: jax.Array) -> jax.Array:
            return out * gains[path]

        return taps.forward(
            apply_fn,
            positive,
            images,
            masks,
            norm="identity",
            on_layer=gain,
            on_cut=_rescale,
        ).sum()

    flow = jax.grad(total)({path: jnp.float32(1) for path in kernels})
    norms = [jnp.linalg.norm(kernels[p]) * (flow[p] != 0) for p in kernels]
    return jnp.stack(norms).sum()


def _rescale(states: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    largest = jax.lax.stop_gradient(jnp.stack([s.max() for s in states]).max())
    return tuple(state / jnp.where(largest > 0, largest, 1) for state in states)


L2_NORM = Proxy(
    name="l2_norm",
    score=l2_norm,
    norm="identity",
    needs_labels=False,
    data_free=True,
    weight_gradients=False,
    range="non-negative",
    reference="Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS, ICLR 2021",
)
