"""Training input: batches that are copied to devices, and arrays that stay there."""

import contextlib
import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from zcpt_jax.data import Splits
from zcpt_jax.sharding import put
from zcpt_jax.training._order import check_batch_size, steps_per_epoch
from zcpt_jax.types import Array


class Feed(NamedTuple):
    """Arrays that are copied to the devices for one batch, read by ``train_inputs``.

    Attributes:
      data: row indices int32 ``[B]`` if all images are on the devices, otherwise
        images uint8 ``[B, H, W, C]``.
      labels: int32 ``[B]``.
      weights: float32 ``[B]``: 1, or 0 for images that only pad the last batch.
    """

    data: Array
    labels: Array
    weights: Array


class Inputs(NamedTuple):
    """One batch of network inputs.

    Attributes:
      images: float32 ``[B, H, W, C]``, normalised.
      labels: int32 ``[B]``.
      weights: float32 ``[B]``, 0 for images that do not count in loss and accuracy.
    """

    images: jax.Array
    labels: Array
    weights: Array


class Input(Protocol):
    """Images of a training; a context manager that stops background workers.

    ``train_batches`` and ``test_batches`` yield small records of arrays on the devices.
    A jitted step converts them to images with the pure functions ``train_inputs`` and
    ``test_inputs``, which also take :attr:`resident`. That is an argument of the step
    because arrays that a jitted function closes over become constants in it.
    """

    @property
    def resident(self) -> Any:
        """Tree of arrays that stay on the devices, possibly empty."""
        ...

    @property
    def num_images(self) -> int:
        """Number of training images."""
        ...

    @property
    def num_test_images(self) -> int:
        """Number of test images."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape ``(H, W, C)`` of an image."""
        ...

    @property
    def num_classes(self) -> int:
        """Number of labels."""
        ...

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the batches per epoch, the last padded with images of weight 0."""
        ...

    def train_batches(
        self, seed: int, batch_size: int, start: int = 0
    ) -> Iterator[Feed]:
        """Iterate over shuffled batches without end, from step ``start`` on.

        Raises:
          InputError: if the batch cannot be split evenly, or an image is damaged.
        """
        ...

    def test_batches(self, batch_size: int) -> Iterator[Feed]:
        """Iterate over all test images in order.

        Raises:
          InputError: if the batch cannot be split evenly, or an image is damaged.
        """
        ...

    def train_inputs(self, resident: Any, feed: Feed, key: jax.Array) -> Inputs:
        """Return an augmented batch with the random numbers of ``key``; pure."""
        ...

    def test_inputs(self, resident: Any, feed: Feed) -> Inputs:
        """Return a test batch; pure."""
        ...

    def __enter__(self) -> Self:
        """Return this object."""
        ...

    def __exit__(self, *_: object) -> None:
        """Stop background workers."""
        ...


@dataclass(frozen=True)
class Placement:
    """Placement of arrays on devices.

    Attributes:
      sharding: sharding of a batch over its first axis, with devices ordered by
        process, as ``jax.make_mesh`` orders them. None for the default device.
    """

    sharding: NamedSharding | None = None

    def check(self, batch_size: int, processes: int = 1) -> None:
        """Raise InputError unless the batch can be split evenly."""
        check_batch_size(batch_size, math.lcm(processes, self._parts()))

    def _parts(self) -> int:
        """Number of parts that the sharding splits a batch into."""
        if self.sharding is None or not self.sharding.spec:
            return 1
        names = self.sharding.spec[0] or ()
        names = (names,) if isinstance(names, str) else names
        return math.prod(self.sharding.mesh.shape[name] for name in names)

    def deal(self, feed: Feed, batch_size: int) -> Feed:
        """Copy this process's part of a batch to its devices.

        Args:
          feed: NumPy arrays ``[B / processes, ...]``.
          batch_size: number of images B in the global batch.
        """
        return Feed(*(self._put(np.asarray(array), batch_size) for array in feed))

    def everywhere(self, array: np.ndarray) -> jax.Array:
        """Copy the whole array to each device."""
        if self.sharding is None:
            return jax.device_put(array)
        return put(array, NamedSharding(self.sharding.mesh, PartitionSpec()))

    def keep(self, images: jax.Array) -> jax.Array:
        """Constrain images, within ``jit``, to the sharding of the batch."""
        if self.sharding is None:
            return images
        return jax.lax.with_sharding_constraint(images, self.sharding)

    def _put(self, array: np.ndarray, batch_size: int) -> jax.Array:
        if self.sharding is None:
            return jax.device_put(array)
        shape = (batch_size, *array.shape[1:])
        return jax.make_array_from_process_local_data(self.sharding, array, shape)


class SplitsInput:
    """Base class of every :class:`Input` made from splits.

    It has no background workers; subclasses may add them.
    """

    def __init__(self, splits: Splits, placement: Placement | None) -> None:
        """Store the splits and the placement of batches; one device by default."""
        self._splits, self._placement = splits, placement or Placement()

    @property
    def num_images(self) -> int:
        """Number of training images."""
        return len(self._splits.train.source)

    @property
    def num_test_images(self) -> int:
        """Number of test images."""
        return len(self._splits.test.source)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape ``(H, W, C)`` of an image."""
        return self._splits.train.image_shape

    @property
    def num_classes(self) -> int:
        """Number of labels."""
        return self._splits.train.num_classes

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the batches per epoch, the last padded with images of weight 0."""
        return steps_per_epoch(self.num_images, batch_size)

    def __enter__(self) -> Self:
        """Return this object."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing, since there are no background workers."""


def one_ahead(feeds: Generator[Feed]) -> Generator[Feed]:
    """Request each feed before the previous one is used.

    Copies to devices are asynchronous, so the next batch is copied during the step.
    """
    with contextlib.closing(feeds):
        waiting = next(feeds, None)
        while waiting is not None:
            following = next(feeds, None)
            yield waiting
            waiting = following
