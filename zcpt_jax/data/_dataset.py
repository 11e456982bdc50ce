"""A dataset as the search sees it: minibatches drawn by an explicit generator."""

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from zcpt_jax.data._augment import CropAndFlip
from zcpt_jax.types import Batch, InputError


class Augment(Protocol):
    """uint8 ``[H, W, 3]`` of any size to uint8 ``[size, size, 3]``.

    It can be pickled, so that other processes can take the work over.
    """

    def __call__(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        """The image as a training sees it, at random."""
        ...

    def plain(self, image: np.ndarray) -> np.ndarray:
        """The image as a test sees it."""
        ...


_HALVES_SEED = 0  # the halves are part of the dataset, not of a run


class Source(Protocol):
    """Images by index."""

    def __len__(self) -> int:
        """Number of images."""
        ...

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """One image, uint8 ``[H, W, 3]``, and its label."""
        ...


class Crops(NamedTuple):
    """Which images a minibatch has and how each is cropped; int32 ``[B]`` all.

    Attributes:
      rows: numbers of the images.
      top: first row of the crop in the padded image.
      left: first column of it.
      mirror: 1 if the crop is mirrored.
    """

    rows: np.ndarray
    top: np.ndarray
    left: np.ndarray
    mirror: np.ndarray


@dataclass(frozen=True)
class _Rows:
    """Some of the images of a source, by their row numbers there."""

    source: Source
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> tuple[np.ndarray, int]:
        return self.source.read(int(self.rows[index]))


@dataclass(frozen=True)
class Dataset:
    """Images, and how they become minibatches.

    Attributes:
      name: what flags call it.
      source: the images.
      num_classes: number of labels.
      image_size: height and width of a batch's images.
      mean: of each channel, images being in [0, 1].
      std: of each channel.
      augment: the random crop, flip, ... to ``image_size``.
    """

    name: str
    source: Source
    num_classes: int
    image_size: int
    mean: Sequence[float]
    std: Sequence[float]
    augment: Augment

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(H, W, C)`` of a batch's images."""
        return (self.image_size, self.image_size, 3)

    def check_batch_size(self, size: int) -> None:
        """Raises InputError unless a minibatch of that size can be drawn."""
        if not 1 <= size <= len(self.source):
            raise InputError(
                f"batch_size must be from 1 to {len(self.source)}, the number of "
                f"images of {self.name} that the search draws from; got {size}"
            )

    def halves(self) -> tuple["Dataset", "Dataset"]:
        """Two datasets without common images, to train weights and architecture on.

        Sources may be sorted by label, so the images are shuffled first, always alike.

        Returns:
          The first ``len(source) // 2`` images in shuffled order, and the others.
        """
        return self.parts(len(self.source) // 2)

    def parts(self, count: int) -> tuple["Dataset", "Dataset"]:
        """Two datasets without common images, always the same.

        Args:
          count: images of the first.

        Returns:
          The first ``count`` images in shuffled order, and the others.
        """
        order = np.random.default_rng(_HALVES_SEED).permutation(len(self.source))
        first, second = (
            dataclasses.replace(self, source=_Rows(self.source, rows))
            for rows in np.split(order, [count])
        )
        return first, second

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """Draws a minibatch of distinct images, augmented and normalised.

        Args:
          rng: the source of all randomness; consumed.
          size: B, at most the number of images.

        Returns:
          float32 ``[B, image_size, image_size, 3]`` and int32 ``[B]``.
        """
        images, labels = self.draw(rng, size)
        pixels = images.astype(np.float32)
        pixels /= 255
        pixels -= np.asarray(self.mean, np.float32)
        pixels /= np.asarray(self.std, np.float32)
        return Batch(pixels, labels)

    def draw(
        self, rng: np.random.Generator, size: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The images and labels of :meth:`batch`, not normalised yet.

        Args:
          rng: consumed, as by :meth:`batch`.
          size: B, at most the number of images.

        Returns:
          uint8 ``[B, image_size, image_size, 3]`` and int32 ``[B]``.
        """
        self.check_batch_size(size)
        images = np.empty((size, *self.image_shape), np.uint8)
        labels = np.empty(size, np.int32)
        chosen = rng.choice(len(self.source), size, replace=False)
        for row, index in enumerate(chosen):
            image, labels[row] = self.source.read(int(index))
            images[row] = self.augment(rng, image)
        return images, labels

    def draw_crops(self, rng: np.random.Generator, size: int) -> Crops:
        """What :meth:`draw` draws, without reading an image.

        Args:
          rng: consumed, as by :meth:`draw`.
          size: B, at most the number of images.

        Raises:
          TypeError: if the images are not augmented by ``CropAndFlip``.
        """
        if not isinstance(self.augment, CropAndFlip):
            raise TypeError(f"{self.augment} depends on the images; use draw")
        self.check_batch_size(size)
        rows = rng.choice(len(self.source), size, replace=False)
        top, left, mirror = self.augment.draw(rng, size).T
        return Crops(*(part.astype(np.int32) for part in (rows, top, left, mirror)))

    def decode(self) -> tuple[np.ndarray, np.ndarray]:
        """All images of the dataset, without chance in them, read by threads.

        Returns:
          uint8 ``[N, image_size, image_size, 3]`` and int32 ``[N]``.

        Raises:
          InputError: if an image is damaged.
        """
        count = len(self.source)
        images = np.empty((count, *self.image_shape), np.uint8)
        labels = np.empty(count, np.int32)

        def read(rows: np.ndarray) -> None:
            for row in rows:
                image, labels[row] = self.source.read(int(row))
                images[row] = self.augment.plain(image)

        parts = np.array_split(np.arange(count), max(1, count // 256))
        with ThreadPoolExecutor() as pool:
            list(pool.map(read, parts))  # raises what a thread raised
        return images, labels
