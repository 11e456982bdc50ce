"""What a training reads: batches on their way to the devices, and what is there."""

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
    """What crosses to the devices for one batch; for ``train_inputs`` to read.

    Attributes:
      data: row numbers int32 ``[B]`` where all images are on the devices, otherwise
        images uint8 ``[B, H, W, C]``.
      labels: int32 ``[B]``.
      weights: float32 ``[B]``, 1, and 0 for images that only fill up the last batch.
    """

    data: Array
    labels: Array
    weights: Array


class Inputs(NamedTuple):
    """One batch as a network takes it.

    Attributes:
      images: float32 ``[B, H, W, C]``, normalised.
      labels: int32 ``[B]``.
      weights: float32 ``[B]``, 0 for images that do not count in losses and accuracy.
    """

    images: jax.Array
    labels: Array
    weights: Array


class Input(Protocol):
    """A training's images; a context that ends what works in the background.

    ``train_batches`` and ``test_batches`` give small records of arrays on the devices.
    A jitted step turns them into images with the pure functions ``train_inputs`` and
    ``test_inputs``, which also take :attr:`resident`: an argument of the step, since
    arrays that a jitted function closes over would become constants in it.
    """

    @property
    def resident(self) -> Any:
        """Arrays that stay on the devices, a tree, possibly an empty one."""
        ...

    @property
    def num_images(self) -> int:
        """Training images."""
        ...

    @property
    def num_test_images(self) -> int:
        """Test images."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(H, W, C)``."""
        ...

    @property
    def num_classes(self) -> int:
        """Number of labels."""
        ...

    def steps_per_epoch(self, batch_size: int) -> int:
        """Batches of an epoch; the last one is filled up with images of weight 0."""
        ...

    def train_batches(
        self, seed: int, batch_size: int, start: int = 0
    ) -> Iterator[Feed]:
        """Shuffled batches without end, from step ``start`` on.

        Raises:
          InputError: if the batch cannot be dealt out, or an image is damaged.
        """
        ...

    def test_batches(self, batch_size: int) -> Iterator[Feed]:
        """All test images in order.

        Raises:
          InputError: if the batch cannot be dealt out, or an image is damaged.
        """
        ...

    def train_inputs(self, resident: Any, feed: Feed, key: jax.Array) -> Inputs:
        """Pure: a batch, augmented; ``key`` gives what is still to be drawn."""
        ...

    def test_inputs(self, resident: Any, feed: Feed) -> Inputs:
        """Pure: a batch of the test."""
        ...

    def __enter__(self) -> Self:
        """Returns itself."""
        ...

    def __exit__(self, *_: object) -> None:
        """Ends what works in the background."""
        ...


@dataclass(frozen=True)
class Placement:
    """Where arrays go.

    Attributes:
      sharding: of a batch over its first axis; its devices go process by process, as
        those of ``jax.make_mesh`` do. None for the default device.
    """

    sharding: NamedSharding | None = None

    def check(self, batch_size: int, processes: int = 1) -> None:
        """Raises InputError unless the batch can be dealt out evenly."""
        check_batch_size(batch_size, math.lcm(processes, self._parts()))

    def _parts(self) -> int:
        """How many pieces the sharding cuts a batch into."""
        if self.sharding is None or not self.sharding.spec:
            return 1
        names = self.sharding.spec[0] or ()
        names = (names,) if isinstance(names, str) else names
        return math.prod(self.sharding.mesh.shape[name] for name in names)

    def deal(self, feed: Feed, batch_size: int) -> Feed:
        """This process's share of a batch, to its devices.

        Args:
          feed: NumPy arrays ``[B / processes, ...]``.
          batch_size: B.
        """
        return Feed(*(self._put(np.asarray(array), batch_size) for array in feed))

    def everywhere(self, array: np.ndarray) -> jax.Array:
        """The whole array to each device."""
        if self.sharding is None:
            return jax.device_put(array)
        return put(array, NamedSharding(self.sharding.mesh, PartitionSpec()))

    def keep(self, images: jax.Array) -> jax.Array:
        """The same, within ``jit``, on the devices that the batch went to."""
        if self.sharding is None:
            return images
        return jax.lax.with_sharding_constraint(images, self.sharding)

    def _put(self, array: np.ndarray, batch_size: int) -> jax.Array:
        if self.sharding is None:
            return jax.device_put(array)
        shape = (batch_size, *array.shape[1:])
        return jax.make_array_from_process_local_data(self.sharding, array, shape)


class SplitsInput:
    """What every :class:`Input` made from splits says of them.

    Nothing works in the background until a subclass says so.
    """

    def __init__(self, splits: Splits, placement: Placement | None) -> None:
        """Takes the images, and where batches go; one device by default."""
        self._splits, self._placement = splits, placement or Placement()

    @property
    def num_images(self) -> int:
        """Training images."""
        return len(self._splits.train.source)

    @property
    def num_test_images(self) -> int:
        """Test images."""
        return len(self._splits.test.source)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(H, W, C)``."""
        return self._splits.train.image_shape

    @property
    def num_classes(self) -> int:
        """Number of labels."""
        return self._splits.train.num_classes

    def steps_per_epoch(self, batch_size: int) -> int:
        """Batches of an epoch; the last one is filled up with images of weight 0."""
        return steps_per_epoch(self.num_images, batch_size)

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends nothing."""


def one_ahead(feeds: Generator[Feed]) -> Generator[Feed]:
    """The same, each asked for before the one in front of it is used.

    Copies to devices are asynchronous, so that the next batch travels meanwhile.
    """
    with contextlib.closing(feeds):
        waiting = next(feeds, None)
        while waiting is not None:
            following = next(feeds, None)
            yield waiting
            waiting = following
