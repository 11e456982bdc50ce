"""Inputs that proxies generate instead of using the images of the batch."""

import jax
import jax.numpy as jnp

from zcpt_jax.types import Batch

_SEED = 0


def noise_images(batch: Batch, count: int) -> jax.Array:
    """Draw images of standard normal noise.

    Args:
      batch: minibatch; only the shape of its images and its key are used. Without a key
        the noise is the same every time.
      count: number of images.

    Returns:
      Images, float32 ``[count, H, W, C]``.
    """
    key = jax.random.key(_SEED) if batch.key is None else batch.key
    return jax.random.normal(key, (count, *batch.images.shape[1:]), jnp.float32)
