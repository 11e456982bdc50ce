"""Order of images in batches, determined by the seed and the step alone."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from zcpt_jax.types import InputError

# Stream of random numbers; searches and supernets use streams below 13.
_ORDER_STREAM = 13


class Rows(NamedTuple):
    """One batch as row indices.

    Attributes:
      epoch: index of the epoch, from 0.
      rows: row indices in the dataset, int32 ``[B]``.
      weights: float32 ``[B]``: 1, or 0 for images that only pad an epoch's last batch.
    """

    epoch: int
    rows: np.ndarray
    weights: np.ndarray


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """Return the number of batches that hold all images, the last one padded."""
    return -(-num_images // batch_size)


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Compute the order of the images in an epoch.

    Args:
      seed: seed of the training.
      epoch: index of the epoch, from 0.
      count: number of images N.

    Returns:
      Permutation, int32 ``[N]``.
    """
    rng = np.random.default_rng([seed, _ORDER_STREAM, epoch])
    return rng.permutation(count).astype(np.int32)


def shuffled_rows(seed: int, start: int, count: int, size: int) -> Iterator[Rows]:
    """Iterate over shuffled batches without end.

    Args:
      seed: seed of the training.
      start: index of the first step, counted from 0 over all epochs.
      count: number of images N.
      size: number of images B in a batch.
    """
    epoch, skipped = divmod(start, steps_per_epoch(count, size))
    while True:
        yield from _cut(epoch, epoch_order(seed, epoch, count), size, skipped)
        epoch, skipped = epoch + 1, 0


def ordered_rows(count: int, size: int) -> Iterator[Rows]:
    """Iterate over all images once, in order.

    Args:
      count: number of images N.
      size: number of images B in a batch.
    """
    return _cut(0, np.arange(count, dtype=np.int32), size, 0)


def share_of(rows: Rows, process: int, processes: int) -> Rows:
    """Return the part of a batch that one of several processes reads.

    Args:
      rows: global batch.
      process: index of the process, from 0.
      processes: number of processes, a divisor of the batch size.
    """
    size = len(rows.rows) // processes
    part = slice(process * size, (process + 1) * size)
    return Rows(rows.epoch, rows.rows[part], rows.weights[part])


def check_batch_size(size: int, parts: int) -> None:
    """Raise InputError unless a batch can be split evenly.

    Args:
      size: number of images in the global batch.
      parts: number of devices or processes that share the batch.
    """
    if size < 1 or size % parts:
        raise InputError(
            f"batch_size must be a positive multiple of {parts}, the number of devices "
            f"and processes that share a batch; got {size}"
        )


def _cut(epoch: int, order: np.ndarray, size: int, skipped: int) -> Iterator[Rows]:
    """Batches of an order, the last padded with the first images of the order.

    The published trainings use a smaller last batch. Under ``jit`` all batches need the
    same size, and padding with real images leaves BatchNorm's statistics realistic.
    """
    steps = steps_per_epoch(len(order), size)
    filled = np.resize(order, steps * size)
    weights = (np.arange(steps * size) < len(order)).astype(np.float32)
    for step in range(skipped, steps):
        part = slice(step * size, (step + 1) * size)
        yield Rows(epoch, filled[part], weights[part])
