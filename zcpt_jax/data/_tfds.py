"""TensorFlow Datasets in array_record form, read without TensorFlow."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from zcpt_jax.data._augment import CropAndFlip, ResizedCropFlipJitter
from zcpt_jax.data._dataset import Augment, Dataset
from zcpt_jax.data._decode import Unreadable, decode
from zcpt_jax.types import InputError


@dataclass(frozen=True)
class TfdsSpec:
    """Specification of a TFDS dataset.

    Attributes:
      builder: name in TFDS, including the configuration.
      split: TFDS split that a search draws from. The published search uses the first
        half of the training images for searches on small images.
      num_classes: number of labels; images with larger labels are left out.
      image_size: default height and width in pixels.
      mean: mean of each channel, with images in [0, 1].
      std: standard deviation of each channel, with images in [0, 1].
      augment: function of the image size that returns the augmentation.
      test_split: TFDS split that trained networks are tested on.
      mirrored: whether training may mirror images. The published searches always do.
    """

    builder: str
    split: str
    num_classes: int
    image_size: int
    mean: Sequence[float]
    std: Sequence[float]
    augment: Callable[[int], Augment] = CropAndFlip
    test_split: str = "test"
    mirrored: bool = True


# Means and standard deviations are those of the published code.
TFDS: dict[str, TfdsSpec] = {
    "cifar10": TfdsSpec(
        "cifar10",
        "train[:50%]",
        10,
        32,
        (0.49139968, 0.48215827, 0.44653124),
        (0.24703233, 0.24348505, 0.26158768),
    ),
    "cifar100": TfdsSpec(
        "cifar100",
        "train[:50%]",
        100,
        32,
        (0.5071, 0.4865, 0.4409),
        (0.2673, 0.2564, 0.2762),
    ),
    "svhn_cropped": TfdsSpec(
        "svhn_cropped",
        "train[:50%]",
        10,
        32,
        (0.4377, 0.4438, 0.4728),
        (0.1980, 0.2010, 0.1970),
        mirrored=False,  # A mirrored digit is not that digit.
    ),
    "imagenet16_120": TfdsSpec(
        "imagenet_resized/16x16",
        "train[:50%]",
        120,
        16,
        (122.68 / 255, 116.66 / 255, 104.01 / 255),
        (63.22 / 255, 61.26 / 255, 65.09 / 255),
        test_split="validation",
    ),
    "imagenet2012": TfdsSpec(
        "imagenet2012",
        "train",
        1000,
        224,
        (0.485, 0.456, 0.406),
        (0.229, 0.224, 0.225),
        ResizedCropFlipJitter,
        test_split="validation",
    ),
}
"""The TFDS datasets that the search knows by name."""

Part = Literal["search", "train", "test"]
"""Images that a search draws from, all training images, or test images."""


class TfdsSource:
    """A random-access TFDS split, optionally restricted to some of its rows.

    Images are decoded with Pillow, so that they are the same on every machine,
    whether or not OpenCV is installed.
    """

    def __init__(self, name: str, source: Any, rows: np.ndarray | None = None) -> None:
        """Wrap a TFDS data source that skips image decoding."""
        self.name, self.source, self.rows = name, source, rows

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.source) if self.rows is None else len(self.rows)

    def label(self, row: int) -> int:
        """Return the label of a row of the split without decoding its image."""
        return int(self._record(row)["label"])

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Return one image and its label.

        Raises:
          InputError: if the record cannot be read or decoded.
        """
        row = index if self.rows is None else int(self.rows[index])
        record = self._record(row)
        try:
            return decode(record["image"]), int(record["label"])
        except Unreadable as error:
            raise self._damaged(row, error) from error

    def _record(self, row: int) -> Any:
        try:
            return self.source[row]
        except Exception as error:  # The C++ reader's errors have no common base class.
            raise self._damaged(row, error) from error

    def _damaged(self, row: int, error: Exception) -> InputError:
        return InputError(
            f"record {row} of {self.name} cannot be read "
            f"({type(error).__name__}: {error}); its files are damaged or cut off, "
            "prepare the dataset again"
        )


def load_tfds(
    name: str, data_dir: str | None, image_size: int | None, part: Part = "search"
) -> Dataset:
    """Load a dataset of :data:`TFDS`.

    Args:
      name: a key of :data:`TFDS`.
      data_dir: folder of the TFDS datasets; TFDS's default if None.
      image_size: height and width in pixels; the dataset's default if None.
      part: images to load.

    Raises:
      InputError: if the dataset is not prepared in that folder (the message gives the
        command that prepares it), or has no such split.
    """
    spec = dataclasses.replace(TFDS[name], split=split_of(TFDS[name], part))
    size = image_size or spec.image_size
    source = TfdsSource(name, _open(name, spec, data_dir))
    if spec.builder.startswith("imagenet_resized"):
        labels = np.array([source.label(row) for row in range(len(source))])
        source.rows = np.flatnonzero(labels < spec.num_classes)
    return Dataset(
        name, source, spec.num_classes, size, spec.mean, spec.std, spec.augment(size)
    )


def split_of(spec: TfdsSpec, part: Part) -> str:
    """Return the TFDS name of a part of a dataset."""
    if part == "test":
        return spec.test_split
    return spec.split if part == "search" else spec.split.partition("[")[0]


def _open(name: str, spec: TfdsSpec, data_dir: str | None) -> Any:
    try:
        import tensorflow_datasets as tfds
    except ModuleNotFoundError as error:
        raise InputError(
            f"dataset {name} needs tensorflow-datasets, which is not installed; "
            'run pip install "zcpt_jax[data]"'
        ) from error
    where = data_dir or str(Path(tfds.core.constants.DATA_DIR))
    prepare = (
        f"prepare it with: python launch/prepare_data.py --dataset={name} "
        f"--data_dir={where}"
    )
    try:
        builder = tfds.builder(spec.builder, data_dir=where)
        found = Path(builder.data_path, "dataset_info.json").is_file()
    except Exception as error:  # TFDS's errors have no common base class.
        raise InputError(
            f"dataset {name} cannot be opened in {where} "
            f"({type(error).__name__}: {error}); {prepare}"
        ) from error
    if not found:
        raise InputError(f"dataset {name} is not in {where}; {prepare}")
    split = spec.split.partition("[")[0]
    if split not in builder.info.splits:
        raise InputError(
            f"dataset {name} in {builder.data_path} has no split {split!r}, only "
            f"{', '.join(builder.info.splits) or 'none'}; delete that folder and "
            f"{prepare}"
        )
    try:
        skip = {"image": tfds.decode.SkipDecoding()}
        source = builder.as_data_source(split=spec.split, decoders=skip)
        for row in (0, len(source) - 1):  # Opens the first and the last file.
            source[row]
    except Exception as error:
        raise InputError(
            f"dataset {name} in {builder.data_path} is damaged or cut off, or not in "
            f"array_record form ({type(error).__name__}: {error}); delete that folder "
            f"and {prepare}"
        ) from error
    return source
