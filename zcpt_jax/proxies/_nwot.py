"""NWOT: diversity of the images' ReLU activation patterns."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zcpt_jax.lowering import current
from zcpt_jax.nn import capture
from zcpt_jax.types import ApplyFn, Batch, InputError, Norm, Proxy, Variables


def nwot(
    apply_fn: ApplyFn,
    variables: Variables,
    batch: Batch,
    masks: Any,
    *,
    norm: Norm = "running",
) -> jax.Array:
    """Compute log|det K| of the kernel K of activation patterns.

    With ``c`` the 0/1 pattern of a ReLU's input, ``K = sum c c^T + (1-c)(1-c)^T`` over
    all ReLUs of the network (Mellor et al. 2021, section 3; "hook_logdet" in their
    code, "jacob" in that of Zero-Cost-PT). Zero-Cost-PT scores with BatchNorm in
    evaluation mode on fresh statistics, which the authors of NWOT later called an
    oversight of theirs; ``norm='batch'`` gives their corrected version.

    Args:
      apply_fn: network as a function. Its :class:`zcpt_jax.nn.ReLU` modules are counted
        as often as they specify; if it has none, every ``max(z, 0)`` counts once,
        except in normalisation layers (:func:`zcpt_jax.nn.capture.read_relus`).
      variables: variables of the network.
      batch: images ``[B, H, W, C]``; the labels are not used.
      masks: architecture weights, one array per group.
      norm: mode of BatchNorm.

    Returns:
      A scalar; ``-inf`` if two images have the same patterns everywhere.

    Raises:
      InputError: if the network has no ReLU, or one that cannot be captured.
    """

    def read(z: jax.Array, count: Any, zero_count: Any) -> jax.Array:
        if jnp.ndim(count):  # a stack of ReLUs
            kernels = jax.vmap(pattern_kernel)(z)
            # A lower precision would round counts in the thousands.
            return jnp.tensordot(count, kernels, axes=1, precision="highest")
        return count * pattern_kernel(z) + zero_count * (z.size / z.shape[0])

    kernels = capture.read_relus(
        apply_fn, variables, batch.images, masks, norm=norm, read=read
    )
    if not kernels:
        raise InputError(
            "nwot found no ReLU in the network; it counts zcpt_jax.nn.ReLU modules, "
            "and max(z, 0) as nn.relu computes it"
        )
    return jnp.linalg.slogdet(sum(kernels))[1]


def pattern_kernel(z: jax.Array) -> jax.Array:
    """Count the units whose sign agrees (positive or not) for each pair of samples.

    The counts are exact integers for up to 2^24 units.

    Args:
      z: inputs of a ReLU, ``[B, ...]``.

    Returns:
      Counts, float32 ``[B, B]``.
    """
    active = (z > 0).reshape(z.shape[0], -1)
    bits = current().patterns == "bits"
    return _agreements_by_bits(active) if bits else _agreements_by_product(active)


def _agreements_by_product(active: jax.Array) -> jax.Array:
    """Count agreements with a matrix product, for tensor cores.

    bfloat16 represents +-1 exactly, and sums are float32. With ``s = +-1`` instead of
    0/1 one product suffices: ``c c^T + (1-c)(1-c)^T = (s s^T + n) / 2``.
    """
    signs = jnp.where(active, 1, -1).astype(jnp.bfloat16)
    product = jnp.matmul(signs, signs.T, preferred_element_type=jnp.float32)
    return (product + active.shape[1]) / 2


def _agreements_by_bits(active: jax.Array) -> jax.Array:
    """Count agreements by the differing bits of 32-unit words, for CPUs.

    This takes a third of the time of the matrix product, which is a skinny one.
    """
    samples, units = active.shape
    padded = jnp.pad(active, ((0, 0), (0, -units % 32))).reshape(samples, 32, -1)
    places = np.arange(32, dtype=np.uint32)[None, :, None]
    words = (padded.astype(jnp.uint32) << places).sum(axis=1, dtype=jnp.uint32)
    differing = jax.lax.population_count(words[:, None] ^ words[None])
    return units - differing.sum(axis=-1, dtype=jnp.uint32).astype(jnp.float32)


NWOT = Proxy(
    name="nwot",
    score=nwot,
    norm="running",
    needs_labels=False,
    data_free=False,
    forward_only=True,
    range="grows with batch size and units; -inf if two images look the same",
    reference="Mellor et al., Neural Architecture Search without Training, ICML 2021",
)
