"""Inputs of a proxy's own making, in place of the images of the batch."""

import jax
import jax.numpy as jnp

from zcpt_jax.types import Batch

_SEED = 0


def noise_images(batch: Batch, count: int) -> jax.Array:
    """Images of standard normal noise.

    Args:
      batch: the shape of its images is used, and its key; without a key the noise is
        the same every time.
      count: how many images.

    Returns:
      float32 ``[count, H, W, C]``.
    """
    key = jax.random.key(_SEED) if batch.key is None else batch.key
    return jax.random.normal(key, (count, *batch.images.shape[1:]), jnp.float32)
