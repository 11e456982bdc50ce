"""Input for small datasets: images stay on the devices, and only indices are copied."""

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
    """Training input with images decoded once; see :class:`~zcpt_jax.training.Input`.

    Crops, flips and cutout run on the devices with the key of ``train_inputs``.
    """

    def __init__(
        self, splits: Splits, *, cutout: int = 0, placement: Placement | None = None
    ) -> None:
        """Decode all images and copy them to each device.

        Args:
          splits: training images, augmented by ``CropAndFlip``, and test images.
          cutout: side of the cutout square in pixels, 0 for none.
          placement: placement of batches; one device by default.

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
        """Iterate over shuffled batches without end; ``data`` is row indices."""
        rows = shuffled_rows(seed, start, self.num_images, batch_size)
        return self._feeds(rows, self._labels, batch_size)

    def test_batches(self, batch_size: int) -> Iterator[Feed]:
        """Iterate over all test images in order; ``data`` is row indices."""
        rows = ordered_rows(self.num_test_images, batch_size)
        return self._feeds(rows, self._test_labels, batch_size)

    def train_inputs(
        self, resident: dict[str, jax.Array], feed: Feed, key: jax.Array
    ) -> Inputs:
        """Look up, crop, mirror, normalise and cut out images; a pure function."""
        images = augment(key, resident["train"][feed.data], self._augmentation)
        return Inputs(self._placement.keep(images), feed.labels, feed.weights)

    def test_inputs(self, resident: dict[str, jax.Array], feed: Feed) -> Inputs:
        """Look up and normalise images; a pure function."""
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
    """Return the size in bytes of the images of both splits on each device."""
    return sum(
        len(dataset.source) * int(np.prod(dataset.image_shape)) for dataset in splits
    )
