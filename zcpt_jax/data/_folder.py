"""Datasets ``folder:PATH``: one sub-folder per class, images of any size."""

import dataclasses
from pathlib import Path

import numpy as np

from zcpt_jax.data._arrays import channel_statistics
from zcpt_jax.data._augment import CropAndFlip, fit
from zcpt_jax.data._dataset import Dataset
from zcpt_jax.data._decode import Unreadable, check_header, decode
from zcpt_jax.types import InputError

_SUFFIXES = frozenset(
    ".jpg .jpeg .png .bmp .gif .webp .ppm .pgm .tif .tiff".split()  # noqa: SIM905
)
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
        """Return one image and its label.

        Raises:
          InputError: if the file cannot be decoded.
        """
        path, label = self.files[index]
        try:
            return decode(path), label
        except Unreadable as error:
            raise InputError(
                f"cannot read the image {path} ({error}); remove or replace it"
            ) from error


def load_folder(path: str, image_size: int) -> Dataset:
    """Load the images of a folder, with its sub-folders, sorted by name, as classes.

    Images are normalised with the statistics of up to 1,000 of them.

    Args:
      path: folder with one sub-folder per class.
      image_size: height and width to which images are resized, short side first.

    Raises:
      InputError: if there are fewer than two classes, or an image cannot be read.
    """
    files, classes = _list_images(path)
    source = FolderSource(files)
    step = -(-len(files) // _STATISTICS_IMAGES)
    sample = [fit(source.read(i)[0], image_size) for i in range(0, len(files), step)]
    mean, std = channel_statistics(np.stack(sample))
    name, augment = f"folder:{path}", CropAndFlip(image_size)
    return Dataset(name, source, len(classes), image_size, mean, std, augment)


def load_folders(
    train_path: str, test_path: str, image_size: int
) -> tuple[Dataset, Dataset]:
    """Load two folders with the same classes, both normalised like the first.

    Args:
      train_path: folder with one sub-folder per class, as for :func:`load_folder`.
      test_path: another folder, with sub-folders of the same names.
      image_size: height and width to which images are resized, short side first.

    Raises:
      InputError: if the classes differ, or an image cannot be read.
    """
    train = load_folder(train_path, image_size)
    files, classes = _list_images(test_path)
    differing = sorted({*classes} ^ {name for name, _ in _classes(train_path)})
    if differing:
        raise InputError(
            f"{test_path} and {train_path} must have images of the same classes; only "
            f"one of them has any of {', '.join(differing[:10])}"
        )
    name, source = f"folder:{test_path}", FolderSource(files)
    return train, dataclasses.replace(train, name=name, source=source)


def _classes(path: str) -> list[tuple[str, list[Path]]]:
    """Names and images of the sub-folders that contain images."""
    root = Path(path)
    if not root.is_dir():
        raise InputError(f"folder dataset {path} is not a folder")
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir())
    found = [(folder.name, _images(folder)) for folder in folders]
    return [(name, images) for name, images in found if images]


def _images(folder: Path) -> list[Path]:
    return sorted(f for f in folder.rglob("*") if f.suffix.lower() in _SUFFIXES)


def _list_images(path: str) -> tuple[list[tuple[Path, int]], list[str]]:
    """List images with labels and the names of the classes, and check all headers."""
    found = _classes(path)
    classes = [name for name, _ in found]
    if len(classes) < 2:
        raise InputError(
            f"folder dataset {path} needs a sub-folder with images for each of at "
            f"least two classes; found {classes or 'none'}"
        )
    files = [
        (file, label) for label, (_, images) in enumerate(found) for file in images
    ]
    _check_headers([image for image, _ in files])
    return files, classes


def _check_headers(images: list[Path]) -> None:
    """Fail on files that are not images before a search of hours begins."""
    broken = []
    for image in images:
        try:
            check_header(image)
        except Unreadable:
            broken.append(image)
    if broken:
        raise InputError(
            f"{len(broken)} of {len(images)} images cannot be read, the first is "
            f"{broken[0]}; remove or replace them"
        )
