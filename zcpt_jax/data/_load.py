"""Loading of datasets by name, for searching and for training and testing."""

import dataclasses
from typing import NamedTuple

from zcpt_jax.data._arrays import load_digits
from zcpt_jax.data._augment import CropAndFlip
from zcpt_jax.data._dataset import Dataset
from zcpt_jax.data._folder import load_folder, load_folder_splits
from zcpt_jax.data._npz import load_npz, load_npz_splits
from zcpt_jax.data._tfds import TFDS, load_tfds
from zcpt_jax.types import InputError

_DEFAULT_SIZE = 32
_TRAIN_SHARE = 0.8
KNOWN = ("digits", *TFDS, "folder:PATH", "npz:FILE")
"""The forms that a dataset's name can take."""
_WITH_SPLITS = {"folder": load_folder_splits, "npz": load_npz_splits}


def load_dataset(
    name: str,
    data_dir: str | None = None,
    image_size: int | None = None,
    *,
    whole: bool = False,
) -> Dataset:
    """Load the dataset of that name.

    Folders and archives may be divided into splits, as :func:`load_splits` describes;
    of these the training images are loaded.

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

    TFDS datasets have both; the test images of ImageNet are its validation split.
    Folders and archives may have both: a folder ``train`` beside one of ``test``,
    ``testing``, ``valid``, ``val`` and ``validation``, in any case of letters and each
    with the classes; arrays ``train_images`` and ``test_images``, or ``x_train`` and
    ``x_test``, with their labels. All other datasets are shuffled, always in the same
    order, and one fifth of the images become test images. Characters (``digits``,
    ``svhn_cropped``) are not mirrored, although the published search mirrors SVHN.

    Args:
      name: one of the forms in :data:`KNOWN`.
      data_dir: folder of the TFDS datasets; ignored for other datasets.
      image_size: height and width in pixels; by default the dataset's own (32 for
        folders, archives and digits).

    Raises:
      InputError: if the name is unknown, or the dataset is missing, damaged, or lacks
        one of the two splits.
    """
    train, test = _parts(name, data_dir, image_size)
    return _fifths(train) if test is None else Splits(train, test)


def load_test_images(
    name: str, data_dir: str | None = None, image_size: int | None = None
) -> Dataset:
    """Load images to test a network on that was trained on others.

    Args:
      name: one of the forms in :data:`KNOWN`.
      data_dir: folder of the TFDS datasets; ignored for other datasets.
      image_size: height and width in pixels; by default the dataset's own.

    Returns:
      The test images of a dataset that has some, otherwise all of its images.

    Raises:
      InputError: as :func:`load_splits`.
    """
    train, test = _parts(name, data_dir, image_size)
    return train if test is None else test


def _parts(
    name: str, data_dir: str | None, image_size: int | None
) -> tuple[Dataset, Dataset | None]:
    """Load the training and test images, or all images and None."""
    _check_size(image_size)
    if name in TFDS:
        return _tfds_splits(name, data_dir, image_size)
    kind, _, path = name.partition(":")
    if kind not in _WITH_SPLITS or not path:
        return load_dataset(name, data_dir, image_size), None
    return _WITH_SPLITS[kind](path, image_size or _DEFAULT_SIZE)


def _check_size(image_size: int | None) -> None:
    if image_size is not None and image_size < 8:
        raise InputError(f"image_size must be at least 8, got {image_size}")


def _tfds_splits(name: str, data_dir: str | None, image_size: int | None) -> Splits:
    train = load_tfds(name, data_dir, image_size, "train")
    if not TFDS[name].mirrored:
        plain = CropAndFlip(train.image_size, flip=False)
        train = dataclasses.replace(train, augment=plain)
    return Splits(train, load_tfds(name, data_dir, image_size, "test"))


def _fifths(dataset: Dataset) -> Splits:
    count = len(dataset.source)
    if count < 2:
        raise InputError(f"{dataset.name} has too few images to set some aside")
    return Splits(*dataset.parts(min(round(count * _TRAIN_SHARE), count - 1)))
