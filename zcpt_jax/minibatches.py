"""Minibatches by name: each follows from the seed and what it is for."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from zcpt_jax.data import Dataset
from zcpt_jax.types import Batch


def draw(
    dataset: Dataset,
    seed: int,
    names: Sequence[tuple[int, ...]],
    size: int,
    data_free: bool = False,
) -> Batch:
    """Stacked minibatches, each from the seed and its name.

    Args:
      dataset: where images come from.
      seed: of everything random.
      names: M tuples of integers; the first says what the minibatch is for.
      size: B, images of a minibatch.
      data_free: gives one image of zeros in place of B, for scores that only use
        their shape.

    Returns:
      images ``[M, B, H, W, C]``, labels ``[M, B]``, and a key each.
    """
    rngs = [np.random.default_rng([seed, *name]) for name in names]
    if data_free:
        shape = (len(names), 1, *dataset.image_shape)
        images, labels = np.zeros(shape, np.float32), np.zeros(shape[:2], np.int32)
    else:
        drawn = [dataset.batch(rng, size) for rng in rngs]
        images = np.stack([batch.images for batch in drawn])
        labels = np.stack([batch.labels for batch in drawn])
    keys = np.stack([rng.integers(2**32, size=2, dtype=np.uint32) for rng in rngs])
    return Batch(images, labels, jax.random.wrap_key_data(jnp.asarray(keys)))
