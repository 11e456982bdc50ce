"""Small datasets: all images stay on the devices, and only row numbers travel."""

from collections.abc import Generator, Iterator

import jax
import numpy as np

from zcpt_jax.data import Splits
from zcpt_jax.training._augment import augment, augmentation_of, normalise
from zcpt_jax.training._input import Feed, Inputs, Placement, SplitsInput
from zcpt_jax.training._order import (
    Rows,
    ordered_rows,
    share_of,
    shuffled_rows,
)


class DeviceData(SplitsInput):
    """A training's images, decoded once: see :class:`~zcpt_jax.training.Input`.

    Crops, flips and cutout happen on the devices, by the key of ``train_inputs``.
    """

    def __init__(
        self, splits: Splits, *, cutout: int = 0, placement: Placement | None = None
    ) -> None:
        """Decodes all images and puts them on each device.

        Args:
          splits: their training images are augmented by ``CropAndFlip``.
          cutout: side of the square that is blanked out, 0 for none.
          placement: of batches, by default on one device.

        Raises:
          InputError: if an image is damaged.
        """
        super().__init__(splits, placement)
        self._augmentation = augmentation_of(splits.train, cutout, cropped=False)
        train, self._labels = splits.train.decode()
        test, self._test_labels = splits.test.decode()
        everywhere = self._placement.everywhere
        self.resident = {"train": everywhere(train), "test": everywhere(test)}

    def train_batches(
        self, seed: int, batch_size: int, start: int = 0
    ) -> Iterator[Feed]:
        """Shuffled batches without end; ``data`` is row numbers."""
        rows = shuffled_rows(seed, start, self.num_images, batch_size)
        return self._feeds(rows, self._labels, batch_size)

    def test_batches(self, batch_size: int) -> Iterator[Feed]:
        """All test images in order; ``data`` is row numbers."""
        rows = ordered_rows(self.num_test_images, batch_size)
        return self._feeds(rows, self._test_labels, batch_size)

    def train_inputs(
        self, resident: dict[str, jax.Array], feed: Feed, key: jax.Array
    ) -> Inputs:
        """Pure: fetches, crops, mirrors, normalises and blanks out."""
        images = augment(key, resident["train"][feed.data], self._augmentation)
        return Inputs(self._placement.keep(images), feed.labels, feed.weights)

    def test_inputs(self, resident: dict[str, jax.Array], feed: Feed) -> Inputs:
        """Pure: fetches and normalises."""
        images = normalise(resident["test"][feed.data], self._augmentation)
        return Inputs(self._placement.keep(images), feed.labels, feed.weights)

    def _feeds(
        self, batches: Iterator[Rows], labels: np.ndarray, batch_size: int
    ) -> Iterator[Feed]:
        processes = jax.process_count()
        self._placement.check(batch_size, processes)

        def feeds() -> Generator[Feed]:
            for batch in batches:
                share = share_of(batch, jax.process_index(), processes)
                feed = Feed(share.rows, labels[share.rows], share.weights)
                yield self._placement.deal(feed, batch_size)

        return feeds()


def bytes_of(splits: Splits) -> int:
    """What the images of both splits take on each device."""
    return sum(
        len(dataset.source) * int(np.prod(dataset.image_shape)) for dataset in splits
    )
