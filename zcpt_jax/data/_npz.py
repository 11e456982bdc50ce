"""Datasets ``npz:FILE``: a NumPy archive of images and labels."""

import dataclasses
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from zcpt_jax.data._arrays import ArraySource, channel_statistics
from zcpt_jax.data._augment import CropAndFlip
from zcpt_jax.data._dataset import Dataset
from zcpt_jax.types import InputError

_Keys = tuple[str, str]
_WHOLE: _Keys = ("images", "labels")
_TRAIN: tuple[_Keys, ...] = (("train_images", "train_labels"), ("x_train", "y_train"))
_TEST: tuple[_Keys, ...] = (
    ("test_images", "test_labels"),
    ("x_test", "y_test"),
    ("val_images", "val_labels"),
    ("x_val", "y_val"),
    ("x_valid", "y_valid"),
)
"""Names of arrays as in MedMNIST's and Keras's archives, the preferred ones first."""
_DAMAGED = (
    OSError,
    ValueError,
    EOFError,
    AttributeError,
    TypeError,  # The file has a single array and is no archive.
    zipfile.BadZipFile,
    zlib.error,
)
_IGNORED = (-1, 255)
"""Labels that by custom mark what has no class."""


class _Arrays(NamedTuple):
    """Images ``[N, H, W, 3]`` uint8 and labels ``[N]``."""

    images: np.ndarray
    labels: np.ndarray


def load_npz(path: str, image_size: int) -> Dataset:
    """Load the training images of a NumPy archive.

    Args:
      path: archive with ``images`` and ``labels``, or with ``train_images`` and
        ``train_labels``, or with ``x_train`` and ``y_train``. Images are ``[N, H, W]``,
        ``[N, H, W, 1]`` or ``[N, H, W, 3]``, uint8 or floats in [0, 1]; labels are
        integers ``[N]`` or ``[N, 1]``, counted from 0 without gaps, or one-hot rows
        ``[N, C]``.
      image_size: height and width to which images are resized.

    Raises:
      InputError: if the file is missing, damaged or holds something else, or if all
        pixels are equal.
    """
    return _load(path, image_size, test=False)[0]


def load_npz_splits(path: str, image_size: int) -> tuple[Dataset, Dataset | None]:
    """Load the training and test images of an archive, normalised like the former.

    Args:
      path: archive, as for :func:`load_npz`. Test images are those of ``test_images``
        or ``x_test`` with their labels, otherwise of ``val_images`` or ``x_val``.
      image_size: height and width to which images are resized.

    Returns:
      The training images, and the test images or None without arrays of them.

    Raises:
      InputError: as :func:`load_npz`, or if a label of the test images is unknown.
    """
    return _load(path, image_size, test=True)


def _load(path: str, image_size: int, test: bool) -> tuple[Dataset, Dataset | None]:
    keys = _keys(path)
    wanted = keys if test else keys[:1]
    parts = [_check(path, pair, *_read(path, pair)) for pair in wanted]
    images, labels = parts[0]
    count = _count_classes(path, keys[0][1], labels)
    mean, std = channel_statistics(images, f"{path}, {keys[0][0]!r}")
    augment = CropAndFlip(image_size)
    source = ArraySource(images, labels)
    train = Dataset(f"npz:{path}", source, count, image_size, mean, std, augment)
    if len(parts) == 1:
        return train, None
    images, labels = parts[1]
    unknown = np.setdiff1d(labels, np.arange(count))
    if len(unknown):
        raise InputError(
            f"{path}: {keys[1][1]!r} has the labels {_some(unknown)}, which "
            f"{keys[0][1]!r} has not; leave out their images"
        )
    return train, dataclasses.replace(train, source=ArraySource(images, labels))


def _keys(path: str) -> list[_Keys]:
    """Return the names of the training arrays and, if there are any, the test arrays.

    Raises:
      InputError: if the archive cannot be read or has no training arrays.
    """
    if not Path(path).is_file():
        raise InputError(f"npz dataset {path} does not exist")
    there = _open(path, ())
    if {*_WHOLE} <= {*there}:
        return [_WHOLE]
    trains, tests = (
        [pair for pair in pairs if {*pair} <= {*there}] for pairs in (_TRAIN, _TEST)
    )
    if trains:
        return [trains[0], *tests[:1]]
    begun = [pair for pair in _TRAIN if {*pair} & {*there}]
    missing = sorted({*(begun[0] if begun else _WHOLE)} - {*there})
    raise InputError(
        f"{path} has no array {' and no array '.join(missing)}; it has "
        f"{sorted(there)}. Save it with np.savez(FILE, images=..., labels=...), or as "
        "train_images, train_labels, test_images and test_labels"
    )


def _read(path: str, keys: _Keys) -> tuple[np.ndarray, np.ndarray]:
    found = _open(path, keys)
    return found[keys[0]], found[keys[1]]


def _open(path: str, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """Return arrays of an archive; without keys, all names with empty arrays."""
    try:
        with Path(path).open("rb") as file, np.load(file) as archive:
            if not keys:
                return dict.fromkeys(archive.files, np.empty(0))
            return {key: archive[key] for key in keys}
    except _DAMAGED as error:
        raise InputError(
            f"{path} is not a readable .npz archive ({error}); it may be cut off"
        ) from error


def _check(path: str, keys: _Keys, images: np.ndarray, labels: np.ndarray) -> _Arrays:
    """Bring images and labels to the form of :class:`_Arrays`.

    Raises:
      InputError: if they are something else.
    """
    name, shape = keys[0], list(images.shape)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or not images.size:
        raise InputError(
            f"{path}: {name!r} must be [N, H, W], [N, H, W, 1] or [N, H, W, 3], "
            f"got {shape}"
        )
    labels = _labels(path, keys[1], labels, len(images))
    if images.dtype != np.uint8:
        if images.dtype.kind != "f" or not (images.min() >= 0 and images.max() <= 1):
            raise InputError(
                f"{path}: {name!r} must be uint8, or floats in [0, 1]; got "
                f"{images.dtype} from {images.min()} to {images.max()}"
            )
        images = np.round(images * 255).astype(np.uint8)
    return _Arrays(np.broadcast_to(images, (*images.shape[:3], 3)), labels)


def _labels(path: str, name: str, labels: np.ndarray, count: int) -> np.ndarray:
    """Return labels ``[N]``, also from ``[N, 1]`` and one-hot ``[N, C]``."""
    given = labels
    if labels.shape == (count, 1):
        labels = labels[:, 0]
    elif labels.ndim == 2 and len(labels) == count and labels.dtype.kind in "biuf":
        ones = labels == 1
        if not ((ones | (labels == 0)).all() and (ones.sum(axis=1) == 1).all()):
            raise InputError(
                f"{path}: {name!r} is {list(labels.shape)}, but not one-hot, one 1 in "
                "each row and otherwise 0; images of several classes, or of none, are "
                "not supported"
            )
        labels = ones.argmax(axis=1)
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise InputError(
            f"{path}: {name!r} must be {count} integers, or one-hot rows; got "
            f"{given.dtype} {list(given.shape)}"
        )
    return labels


def _count_classes(path: str, name: str, labels: np.ndarray) -> int:
    """Count the classes.

    Raises:
      InputError: if there are fewer than two, or they are not numbered from 0 on.
    """
    classes = np.unique(labels)  # Not by the largest label, which may be an id.
    if len(classes) < 2:
        raise InputError(
            f"{path}: {name!r} must hold at least two classes, counted from 0; "
            f"got {classes.tolist()}"
        )
    if (classes != np.arange(len(classes))).any():
        raise InputError(
            f"{path}: {name!r} must number the classes from 0 without gaps; got "
            f"{len(classes)} different labels, {_some(classes)}. {_advice(classes)}"
        )
    return len(classes)


def _advice(classes: np.ndarray) -> str:
    """Return what to do about labels that are not numbered from 0 without gaps."""
    others = classes[~np.isin(classes, _IGNORED)]
    if np.array_equal(classes, np.arange(len(classes)) + 1):
        return "They count from 1: subtract 1 from each"
    if len(others) < len(classes) and np.array_equal(others, np.arange(len(others))):
        ignored = " and ".join(str(c) for c in classes.tolist() if c in _IGNORED)
        return f"Where {ignored} marks images without a class, leave out these images"
    return "Number them anew with np.unique(labels, return_inverse=True)[1]"


def _some(labels: np.ndarray) -> str:
    """Return the first labels, for messages."""
    shown = ", ".join(map(str, labels[:10].tolist()))
    return f"{shown}, ..." if len(labels) > 10 else shown
