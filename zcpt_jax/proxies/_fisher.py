"""Fisher: sensitivity of the loss to each channel."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from zcpt_jax.nn import capture
from zcpt_jax.proxies._common import cross_entropy
from zcpt_jax.types import ApplyFn, Batch, Proxy, Variables


def fisher(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> jax.Array:
    """Sum over output channels k of 0.5 * mean_n g_nk^2, once per weight of k.

    Let ``a`` be the output of a convolution or linear layer and ``d = dL/da``; ``g_nk``
    is the sum of ``a * d`` over the positions of channel ``k`` (Turner et al. 2020,
    equation 3; Abdelfattah et al. 2021 give each weight its channel's value).

    Args:
      apply_fn: network as a function.
      variables: variables of the network.
      batch: images ``[B, H, W, C]`` and labels ``[B]``.
      masks: architecture weights, one array per group.

    Returns:
      A scalar, non-negative.
    """
    kernels: dict[capture.Path, tuple[int, ...]] = {}
    layers: list[tuple[capture.Path, tuple[int, ...]]] = []

    def look(path: capture.Path, out: jax.Array) -> jax.Array:
        layers.append((path, out.shape))
        return out

    def note(path: capture.Path, kernel: jax.Array) -> None:
        kernels[path] = kernel.shape

    def run(on_layer: capture.LayerTap) -> jax.Array:
        return capture.forward(
            apply_fn,
            variables,
            batch.images,
            masks,
            norm="batch",
            on_layer=on_layer,
            on_kernel=note,
        )

    jax.eval_shape(lambda: run(look))

    def loss(shifts: list[jax.Array]) -> tuple[jax.Array, list[jax.Array]]:
        outputs: list[jax.Array] = []

        def shift(path: capture.Path, out: jax.Array) -> jax.Array:
            del path
            outputs.append(out)
            return out + shifts[len(outputs) - 1]

        return cross_entropy(run(shift), batch.labels), outputs

    shifts = [jnp.zeros(shape) for _, shape in layers]
    grads, outputs = jax.grad(loss, has_aux=True)(shifts)
    total = []
    for (path, shape), a, d in zip(layers, outputs, grads, strict=True):
        by_channel = (a * d).sum(axis=tuple(range(1, len(shape) - 1)))
        weights = math.prod(kernels[path][:-1])
        total.append(0.5 * jnp.square(by_channel).mean(axis=0).sum() * weights)
    return jnp.stack(total).sum()


FISHER = Proxy(
    name="fisher",
    score=fisher,
    norm="batch",
    needs_labels=True,
    data_free=False,
    range="non-negative",
    reference="Turner et al., BlockSwap, ICLR 2020; Abdelfattah et al., ICLR 2021",
)
