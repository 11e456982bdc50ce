"""Which images are in which batch: it follows from the seed and the step alone."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from zcpt_jax.types import InputError

# Streams of random numbers; those of searches and of supernets are below 13.
_ORDER_STREAM = 13


class Rows(NamedTuple):
    """One batch, as row numbers.

    Attributes:
      epoch: how often all images have been seen before.
      rows: int32 ``[B]``, rows of the dataset.
      weights: float32 ``[B]``, 0 for images that only fill up an epoch's last batch.
    """

    epoch: int
    rows: np.ndarray
    weights: np.ndarray


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """Batches that hold all images, the last one filled up."""
    return -(-num_images // batch_size)


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order in which an epoch goes through the images.

    Args:
      seed: of the training.
      epoch: from 0.
      count: N, the number of images.

    Returns:
      A permutation, int32 ``[N]``.
    """
    rng = np.random.default_rng([seed, _ORDER_STREAM, epoch])
    return rng.permutation(count).astype(np.int32)


def shuffled_rows(seed: int, start: int, count: int, size: int) -> Iterator[Rows]:
    """Shuffled batches without end.

    Args:
      seed: of the training.
      start: the first step, counted from 0 over all epochs.
      count: N, the number of images.
      size: B, images of a batch.
    """
    epoch, skipped = divmod(start, steps_per_epoch(count, size))
    while True:
        yield from _cut(epoch, epoch_order(seed, epoch, count), size, skipped)
        epoch, skipped = epoch + 1, 0


def ordered_rows(count: int, size: int) -> Iterator[Rows]:
    """All images once, in order.

    Args:
      count: N, the number of images.
      size: B, images of a batch.
    """
    return _cut(0, np.arange(count, dtype=np.int32), size, 0)


def share_of(rows: Rows, process: int, processes: int) -> Rows:
    """What one of several processes has to read of a batch.

    Args:
      rows: the global batch.
      process: from 0.
      processes: a divisor of the size of the batch.
    """
    size = len(rows.rows) // processes
    part = slice(process * size, (process + 1) * size)
    return Rows(rows.epoch, rows.rows[part], rows.weights[part])


def check_batch_size(size: int, parts: int) -> None:
    """Raises InputError unless a batch can be dealt out evenly.

    Args:
      size: of the global batch.
      parts: devices, or processes, that share it.
    """
    if size < 1 or size % parts:
        raise InputError(
            f"batch_size must be a positive multiple of {parts}, the number of devices "
            f"and processes that share a batch; got {size}"
        )


def _cut(epoch: int, order: np.ndarray, size: int, skipped: int) -> Iterator[Rows]:
    """Batches of an order, the last filled up with the images that come first in it.

    Published trainings keep the smaller last batch. Its size has to be the same under
    ``jit``, and real images keep the statistics of BatchNorm what they are.
    """
    steps = steps_per_epoch(len(order), size)
    filled = np.resize(order, steps * size)
    weights = (np.arange(steps * size) < len(order)).astype(np.float32)
    for step in range(skipped, steps):
        part = slice(step * size, (step + 1) * size)
        yield Rows(epoch, filled[part], weights[part])
