"""Datasets that draw minibatches with an explicit random generator."""

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from zcpt_jax.data._augment import CropAndFlip
from zcpt_jax.types import Batch, InputError


class Augment(Protocol):
    """Picklable map of uint8 ``[H, W, 3]`` of any size to uint8 ``[size, size, 3]``.

    It must be picklable so that worker processes can run it.
    """

    def __call__(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        """Return a random variant of the image, for training."""
        ...

    def plain(self, image: np.ndarray) -> np.ndarray:
        """Return the image without randomness, for testing."""
        ...


_HALVES_SEED = 0  # Fixed, since the halves belong to the dataset and not to a run.


class Source(Protocol):
    """Random-access source of labelled images."""

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Return one image, uint8 ``[H, W, 3]``, and its label."""
        ...


class Crops(NamedTuple):
    """Images of a minibatch and their crops, all int32 ``[B]``.

    Attributes:
      rows: indices of the images.
      top: first row of the crop in the padded image.
      left: first column of the crop in the padded image.
      mirror: 1 if the crop is mirrored, otherwise 0.
    """

    rows: np.ndarray
    top: np.ndarray
    left: np.ndarray
    mirror: np.ndarray


@dataclass(frozen=True)
class _Rows:
    """Subset of a source, given by row indices."""

    source: Source
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> tuple[np.ndarray, int]:
        return self.source.read(int(self.rows[index]))


@dataclass(frozen=True)
class _Relabelled:
    """Source with other labels: ``labels[old]`` is the new one."""

    source: Source
    labels: Sequence[int]

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int) -> tuple[np.ndarray, int]:
        image, label = self.source.read(index)
        return image, self.labels[label]


@dataclass(frozen=True)
class Dataset:
    """Labelled images with the augmentation and normalisation of minibatches.

    Attributes:
      name: name in flags.
      source: images and labels.
      num_classes: number of labels.
      image_size: height and width of a batch's images in pixels.
      mean: mean of each channel, with images in [0, 1].
      std: standard deviation of each channel, with images in [0, 1].
      augment: random crop, flip, ... to ``image_size``.
      classes: names of the classes in the order of labels, or empty where unknown.
    """

    name: str
    source: Source
    num_classes: int
    image_size: int
    mean: Sequence[float]
    std: Sequence[float]
    augment: Augment
    classes: tuple[str, ...] = ()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape ``(H, W, C)`` of a batch's images."""
        return (self.image_size, self.image_size, 3)

    def settings(self) -> dict[str, Any]:
        """Return what a dataset adds to the settings that determine a result."""
        named = {"classes": list(self.classes)} if self.classes else {}
        return {
            "dataset": self.name,
            "num_images": len(self.source),
            "num_classes": self.num_classes,
            "image_size": self.image_size,
            "mean": list(self.mean),
            "std": list(self.std),
            **named,
        }

    def check_batch_size(self, size: int) -> None:
        """Raise InputError unless a minibatch of that size can be drawn."""
        if not 1 <= size <= len(self.source):
            raise InputError(
                f"batch_size must be from 1 to {len(self.source)}, the number of "
                f"images of {self.name} that the search draws from; got {size}"
            )

    def halves(self) -> tuple["Dataset", "Dataset"]:
        """Split into disjoint halves, to train weights and architecture on.

        Sources may be sorted by label, so the images are shuffled first, always in the
        same order.

        Returns:
          The first ``len(source) // 2`` images in shuffled order, and the others.
        """
        return self.parts(len(self.source) // 2)

    def parts(self, count: int) -> tuple["Dataset", "Dataset"]:
        """Split into two disjoint datasets, always the same ones.

        Args:
          count: number of images of the first.

        Returns:
          The first ``count`` images in shuffled order, and the others.
        """
        order = np.random.default_rng(_HALVES_SEED).permutation(len(self.source))
        first, second = (
            dataclasses.replace(self, source=_Rows(self.source, rows))
            for rows in np.split(order, [count])
        )
        return first, second

    def with_classes(self, classes: Sequence[str]) -> "Dataset":
        """Number the classes as another dataset does, by their names.

        Args:
          classes: names of the classes in the order of the wanted labels.

        Raises:
          InputError: if this dataset has a class that is not among them.
        """
        unknown = [name for name in self.classes if name not in classes]
        if unknown:
            raise InputError(
                f"{self.name} has the class {unknown[0]!r}, which is none of "
                f"{', '.join(classes)}"
            )
        labels = [list(classes).index(name) for name in self.classes]
        return dataclasses.replace(
            self,
            source=_Relabelled(self.source, labels),
            num_classes=len(classes),
            classes=tuple(classes),
        )

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """Draw a minibatch of distinct images, augmented and normalised.

        Args:
          rng: random generator, consumed; the only source of randomness.
          size: number of images B, at most that of the dataset.

        Returns:
          Images, float32 ``[B, image_size, image_size, 3]``, and labels, int32 ``[B]``.
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
        """Draw the images and labels of :meth:`batch` before normalisation.

        Args:
          rng: random generator, consumed as by :meth:`batch`.
          size: number of images B, at most that of the dataset.

        Returns:
          Images, uint8 ``[B, image_size, image_size, 3]``, and labels, int32 ``[B]``.
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
        """Draw the images and crops of :meth:`draw` without reading an image.

        Args:
          rng: random generator, consumed as by :meth:`draw`.
          size: number of images B, at most that of the dataset.

        Raises:
          TypeError: if the augmentation is not ``CropAndFlip``.
        """
        if not isinstance(self.augment, CropAndFlip):
            raise TypeError(f"{self.augment} depends on the images; use draw")
        self.check_batch_size(size)
        rows = rng.choice(len(self.source), size, replace=False)
        top, left, mirror = self.augment.draw(rng, size).T
        return Crops(*(part.astype(np.int32) for part in (rows, top, left, mirror)))

    def decode(self) -> tuple[np.ndarray, np.ndarray]:
        """Read all images without random augmentation, in several threads.

        Returns:
          Images, uint8 ``[N, image_size, image_size, 3]``, and labels, int32 ``[N]``.

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
            list(pool.map(read, parts))  # list() raises errors of the threads.
        return images, labels
