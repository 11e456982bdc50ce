"""Datasets that fit into memory: ``npz:FILE`` and the embedded ``digits``."""

import zipfile
from pathlib import Path

import numpy as np

from zcpt_jax.data._augment import CropAndFlip, fit
from zcpt_jax.data._dataset import Dataset
from zcpt_jax.types import InputError


class ArraySource:
    """Images ``[N, H, W, 3]`` uint8 and labels ``[N]`` in memory."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Store the arrays without copying."""
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Return one image and its label."""
        return self.images[index], int(self.labels[index])


def channel_statistics(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Compute each channel's mean and standard deviation in [0, 1].

    Args:
      images: uint8 ``[N, H, W, 3]``.
    """
    levels = np.arange(256) / 255
    counts = np.zeros((3, 256))
    for image in images:  # Histograms avoid a float copy of all images.
        for channel in range(3):
            counts[channel] += np.bincount(image[..., channel].ravel(), minlength=256)
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ levels
    std = np.maximum(np.sqrt(np.maximum(share @ levels**2 - mean**2, 0)), 1e-3)
    return mean.tolist(), std.tolist()


def load_digits(image_size: int) -> Dataset:
    """Load scikit-learn's 1,797 handwritten digits of 8x8 pixels.

    They are enlarged to ``image_size``, repeated to three channels and not flipped.

    Args:
      image_size: height and width of the images.
    """
    from sklearn.datasets import load_digits as load

    digits = load()
    small = np.round(digits.images * (255 / 16)).astype(np.uint8)
    images = np.stack([fit(np.stack([d] * 3, axis=-1), image_size) for d in small])
    mean, std = channel_statistics(images)
    source = ArraySource(images, digits.target)
    augment = CropAndFlip(image_size, flip=False)
    return Dataset("digits", source, 10, image_size, mean, std, augment)


def load_npz(path: str, image_size: int) -> Dataset:
    """Load the dataset ``npz:FILE`` from arrays ``images`` and ``labels``.

    Args:
      path: NumPy archive with ``images`` ``[N, H, W]``, ``[N, H, W, 1]`` or
        ``[N, H, W, 3]``, uint8 (or floats in [0, 1]), and integer ``labels`` ``[N]``.
      image_size: height and width to which images are resized.

    Raises:
      InputError: if the file is missing, damaged or holds something else.
    """
    images, labels = _read_npz(path)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or not len(images):
        raise InputError(
            f"{path}: 'images' must be [N, H, W], [N, H, W, 1] or [N, H, W, 3], "
            f"got {list(images.shape)}"
        )
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise InputError(
            f"{path}: 'labels' must be {len(images)} integers, got {labels.dtype} "
            f"{list(labels.shape)}"
        )
    if images.dtype != np.uint8:
        if images.dtype.kind != "f" or not (images.min() >= 0 and images.max() <= 1):
            raise InputError(
                f"{path}: 'images' must be uint8, or floats in [0, 1]; got "
                f"{images.dtype} from {images.min()} to {images.max()}"
            )
        images = np.round(images * 255).astype(np.uint8)
    images = np.broadcast_to(images, (*images.shape[:3], 3))
    classes = np.unique(labels)
    if len(classes) < 2 or classes[0] < 0:
        raise InputError(
            f"{path}: 'labels' must hold at least two classes, counted from 0; "
            f"got {classes[:10].tolist()}"
        )
    mean, std = channel_statistics(images)
    return Dataset(
        f"npz:{path}",
        ArraySource(images, labels),
        int(classes[-1]) + 1,
        image_size,
        mean,
        std,
        CropAndFlip(image_size),
    )


def _read_npz(path: str) -> tuple[np.ndarray, np.ndarray]:
    if not Path(path).is_file():
        raise InputError(f"npz dataset {path} does not exist")
    try:
        with Path(path).open("rb") as file, np.load(file) as archive:
            missing = {"images", "labels"} - set(archive.files)
            if missing:
                raise InputError(
                    f"{path} has no array {' and no array '.join(sorted(missing))}; it "
                    f"has {sorted(archive.files)}. Save it with np.savez(FILE, "
                    "images=..., labels=...)"
                )
            return archive["images"], archive["labels"]
    except InputError:
        raise
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is not a readable .npz archive ({error}); it may be cut off"
        ) from error
