"""Loading of datasets by name, for searching and for training and testing."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

from zcpt_jax.data._arrays import load_digits, load_npz
from zcpt_jax.data._augment import CropAndFlip
from zcpt_jax.data._dataset import Dataset
from zcpt_jax.data._folder import load_folder, load_folders
from zcpt_jax.data._tfds import TFDS, load_tfds
from zcpt_jax.types import InputError

_DEFAULT_SIZE = 32
_TRAIN_SHARE = 0.8
KNOWN = ("digits", *TFDS, "folder:PATH", "npz:FILE")
"""The forms that a dataset's name can take."""


def load_dataset(
    name: str,
    data_dir: str | None = None,
    image_size: int | None = None,
    *,
    whole: bool = False,
) -> Dataset:
    """Load the dataset of that name.

    Args:
      name: one of the forms in :data:`KNOWN`.
      data_dir: folder of the TFDS datasets; ignored for other datasets.
      image_size: height and width in pixels; by default the dataset's own (32 for
        folders, archives and digits).
      whole: whether to use all training images even of the TFDS datasets of which
        searches, as published, see only the first half.

    Raises:
      InputError: if the name is unknown, or the dataset is missing or damaged.
    """
    _check_size(image_size)
    if name in TFDS:
        return load_tfds(name, data_dir, image_size, "train" if whole else "search")
    size = image_size or _DEFAULT_SIZE
    if name == "digits":
        return load_digits(size)
    kind, _, path = name.partition(":")
    if kind == "folder" and path:
        return load_folder(path, size)
    if kind == "npz" and path:
        return load_npz(path, size)
    raise InputError(f"unknown dataset {name!r}; known: {', '.join(KNOWN)}")


class Splits(NamedTuple):
    """Training images, and disjoint test images."""

    train: Dataset
    test: Dataset


def load_splits(
    name: str, data_dir: str | None = None, image_size: int | None = None
) -> Splits:
    """Load the training and test images of a dataset.

    TFDS datasets have both; the test images of ImageNet are its validation split. A
    folder may have sub-folders ``train`` and ``test`` (or ``val``), each with the
    classes. All other datasets are shuffled, always in the same order, and one fifth of
    the images become test images. Characters (``digits``, ``svhn_cropped``) are not
    mirrored, although the published search mirrors SVHN.

    Args:
      name: one of the forms in :data:`KNOWN`.
      data_dir: folder of the TFDS datasets; ignored for other datasets.
      image_size: height and width in pixels; by default the dataset's own (32 for
        folders, archives and digits).

    Raises:
      InputError: if the name is unknown, or the dataset is missing, damaged, or lacks
        one of the two splits.
    """
    _check_size(image_size)
    if name in TFDS:
        return _tfds_splits(name, data_dir, image_size)
    folders = _train_and_test(name)
    if folders is None:
        return _fifths(load_dataset(name, data_dir, image_size))
    train, test = folders
    return Splits(*load_folders(str(train), str(test), image_size or _DEFAULT_SIZE))


def _check_size(image_size: int | None) -> None:
    if image_size is not None and image_size < 8:
        raise InputError(f"image_size must be at least 8, got {image_size}")


def _tfds_splits(name: str, data_dir: str | None, image_size: int | None) -> Splits:
    train = load_tfds(name, data_dir, image_size, "train")
    if not TFDS[name].mirrored:
        plain = CropAndFlip(train.image_size, flip=False)
        train = dataclasses.replace(train, augment=plain)
    return Splits(train, load_tfds(name, data_dir, image_size, "test"))


def _train_and_test(name: str) -> tuple[Path, Path] | None:
    """Training and test sub-folder of ``folder:PATH``, or None without such folders."""
    kind, _, path = name.partition(":")
    if kind != "folder" or not path:
        return None
    train = Path(path, "train")
    tests = [Path(path, test) for test in ("test", "val") if Path(path, test).is_dir()]
    if not tests or not train.is_dir():
        return None
    divided = any(entry.is_dir() for entry in train.iterdir())
    return (train, tests[0]) if divided else None


def _fifths(dataset: Dataset) -> Splits:
    count = len(dataset.source)
    if count < 2:
        raise InputError(f"{dataset.name} has too few images to set some aside")
    return Splits(*dataset.parts(min(round(count * _TRAIN_SHARE), count - 1)))
