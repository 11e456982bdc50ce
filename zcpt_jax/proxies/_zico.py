"""ZiCo: agreement of the gradients of two minibatches."""

from typing import Any

import jax
import jax.numpy as jnp

from zcpt_jax.proxies._common import layer_gradients
from zcpt_jax.types import ApplyFn, Batch, InputError, Proxy, Variables


def zico(
    apply_fn: ApplyFn, variables: Variables, batch: Batch, masks: Any
) -> jax.Array:
    """Sum over layers of log(sum over weights of mean|g| / std(g)).

    ``g`` is dL/dW of a minibatch; mean and standard deviation are over minibatches (Li
    et al. 2023). The two minibatches are the halves of the batch, as the authors of
    MeCo split it for ZiCo. Weights with the same gradient in both, and layers of only
    such weights, are left out, as in the published code. There the second gradient is
    added to the first, which is not cleared; here each minibatch has its own.

    Args:
      apply_fn: network as a function.
      variables: variables of the network.
      batch: images ``[B, H, W, C]`` and labels ``[B]``, B at least 2. The order of the
        images within a half does not matter.
      masks: architecture weights, one array per group.

    Returns:
      A scalar.

    Raises:
      InputError: if the batch has only one image.
    """
    size = batch.images.shape[0]
    if size < 2:
        raise InputError(
            "zico compares two halves of a batch; give it 2 or more images"
        )
    halves = [
        batch._replace(images=batch.images[half], labels=batch.labels[half])
        for half in (slice(size // 2), slice(size // 2, size))
    ]
    first, second = (
        layer_gradients(apply_fn, variables, half, masks) for half in halves
    )
    return jnp.stack([_agreement(first[path], second[path]) for path in first]).sum()


def _agreement(a: jax.Array, b: jax.Array) -> jax.Array:
    """One layer's term; two numbers have half their distance as standard deviation."""
    apart = jnp.abs(a - b)
    ratios = (jnp.abs(a) + jnp.abs(b)) / jnp.where(apart > 0, apart, 1)
    total = jnp.where(apart > 0, ratios, 0).sum()
    return jnp.where(total > 0, jnp.log(jnp.where(total > 0, total, 1)), 0)


ZICO = Proxy(
    name="zico",
    score=zico,
    norm="batch",
    needs_labels=True,
    data_free=False,
    range="about 5 to 15 a layer",
    reference="Li et al., ZiCo: Zero-shot NAS via inverse coefficient of variation on "
    "gradients, ICLR 2023",
)
