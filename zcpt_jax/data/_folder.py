"""Datasets ``folder:PATH``: one sub-folder per class, images of any size."""

import dataclasses
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from zcpt_jax.data._arrays import channel_statistics
from zcpt_jax.data._augment import CropAndFlip, fit
from zcpt_jax.data._dataset import Dataset
from zcpt_jax.data._decode import Unreadable, check_header, decode, has_image_suffix
from zcpt_jax.types import InputError

_TRAIN = ("train", "training")
_TEST = ("test", "testing", "valid", "val", "validation")
"""Names of the folders of splits in lower case, the preferred ones first."""
_STATISTICS_IMAGES = 1000


class FolderSource:
    """Image files with labels, decoded when read."""

    def __init__(self, files: list[tuple[Path, int]]) -> None:
        """Store the (path, label) pairs."""
        self.files = files

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.files)

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Return one image, turned as its EXIF data says, and its label.

        Raises:
          InputError: if the file cannot be decoded.
        """
        path, label = self.files[index]
        try:
            return decode(path, upright=True), label
        except Unreadable as error:
            raise InputError(
                f"cannot read the image {path} ({error}); remove or replace it"
            ) from error


def load_folder(path: str, image_size: int) -> Dataset:
    """Load the training images of a folder.

    The classes are its sub-folders, sorted by name, or those of its ``train`` folder
    where it is divided into splits. Images are normalised with the statistics of up to
    1,000 of them.

    Args:
      path: folder with one sub-folder per class, or with folders of splits.
      image_size: height and width to which images are resized, short side first.

    Raises:
      InputError: if there are fewer than two classes, a class has no image, an image
        cannot be read, or all pixels are equal.
    """
    return _load(path, _find_splits(path).train, image_size)


def load_folder_splits(path: str, image_size: int) -> tuple[Dataset, Dataset | None]:
    """Load the training and test images of a folder, normalised like the former.

    Args:
      path: folder, as for :func:`load_folder`.
      image_size: height and width to which images are resized, short side first.

    Returns:
      The training images, and the test images or None without a folder of them.

    Raises:
      InputError: as :func:`load_folder`, or if the splits differ in their classes.
    """
    splits = _find_splits(path)
    train = _load(path, splits.train, image_size)
    if splits.test is None:
        return train, None
    found = _list_images(splits.test)
    differing = sorted({*found.classes} ^ {*train.classes})
    if differing:
        raise InputError(
            f"{splits.test} and {splits.train} must have images of the same classes; "
            f"only one of them has any of {', '.join(differing[:10])}"
        )
    return train, dataclasses.replace(train, source=FolderSource(found.files))


def _load(path: str, root: Path, image_size: int) -> Dataset:
    """Load the classes in ``root`` as the dataset ``folder:path``."""
    files, classes = _list_images(root)
    source = FolderSource(files)
    step = -(-len(files) // _STATISTICS_IMAGES)
    sample = [fit(source.read(i)[0], image_size) for i in range(0, len(files), step)]
    mean, std = channel_statistics(np.stack(sample), f"folder dataset {root}")
    return Dataset(
        f"folder:{path}",
        source,
        len(classes),
        image_size,
        mean,
        std,
        CropAndFlip(image_size),
        classes,
    )


class _Folders(NamedTuple):
    """Folders with the classes of the training images, and of the test images."""

    train: Path
    test: Path | None


def _find_splits(path: str) -> _Folders:
    """Find the folders of splits; without them, ``path`` itself has the classes."""
    root = Path(path)
    if not root.is_dir():
        raise InputError(f"folder dataset {path} is not a folder")
    folders = _folders(root)
    trains = [folder for folder in _named(folders, _TRAIN) if _folders(folder)]
    tests = _named(folders, _TEST)
    if not trains or not tests:
        return _Folders(root, None)
    classes = {folder.name for folder in _folders(trains[0])}
    labelled = {test: {f.name for f in _folders(test)} for test in tests}
    # Images that nobody labelled are often in one sub-folder, such as test/unknown.
    alike = [test for test, names in labelled.items() if names & classes]
    divided = [test for test, names in labelled.items() if names]
    return _Folders(trains[0], next(iter([*alike, *divided]), None))


def _named(folders: list[Path], names: tuple[str, ...]) -> list[Path]:
    """Return the folders with these names in any case, in the order of names."""
    return [f for name in names for f in folders if f.name.lower() == name]


def _is_hidden(name: str) -> bool:
    """Return whether a file or folder is a program's own, such as a checkpoint."""
    return name.startswith(".") or name == "__MACOSX"


def _folders(root: Path) -> list[Path]:
    """Return the sub-folders, sorted by name."""
    return sorted(f for f in root.iterdir() if f.is_dir() and not _is_hidden(f.name))


def _files(folder: Path) -> list[Path]:
    """Return all files below a folder, sorted by path."""
    found = []
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        found += [Path(where, name) for name in names if not _is_hidden(name)]
    return sorted(found)


class _Listing(NamedTuple):
    """Image files with labels, and the names of the classes in the order of labels."""

    files: list[tuple[Path, int]]
    classes: tuple[str, ...]


def _list_images(root: Path) -> _Listing:
    """List the images of all classes, and fail on damaged headers.

    A search of hours must not fail on them later. Files that are no images, and are
    not called images by their suffix, are left out.
    """
    folders = _folders(root)
    files: list[tuple[Path, int]] = []
    broken: list[tuple[Path, Unreadable]] = []
    for label, folder in enumerate(folders):
        for file in _files(folder):
            try:
                check_header(file)
            except Unreadable as error:
                if has_image_suffix(file):
                    broken.append((file, error))
            else:
                files.append((file, label))
    if broken:
        first, reason = broken[0]
        raise InputError(
            f"{len(broken)} of {len(files) + len(broken)} images cannot be read, the "
            f"first is {first} ({reason}); remove or replace them"
        )
    classes = tuple(folder.name for folder in folders)
    labels = {label for _, label in files}
    empty = [name for label, name in enumerate(classes) if label not in labels]
    if len(labels) < 2:
        found = [name for name in classes if name not in empty]
        raise InputError(
            f"folder dataset {root} needs a sub-folder with images for each of at "
            f"least two classes; found {found or 'none'}{_inner(folders)}"
        )
    if empty:
        raise InputError(
            f"folder dataset {root}: no image that Pillow reads is in "
            f"{', '.join(empty[:10])}; each sub-folder is a class, so remove the "
            "sub-folder or put images of the class into it"
        )
    return _Listing(files, classes)


def _inner(folders: list[Path]) -> str:
    """Return advice if the only folder has the classes, otherwise nothing."""
    if len(folders) != 1 or len(_folders(folders[0])) < 2:
        return ""
    return f". Its classes may be those of folder:{folders[0]}"
