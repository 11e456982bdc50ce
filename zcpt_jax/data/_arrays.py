"""Datasets that fit into memory, of which the embedded ``digits`` is one."""

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


def channel_statistics(
    images: np.ndarray, what: str
) -> tuple[list[float], list[float]]:
    """Compute each channel's mean and standard deviation in [0, 1].

    Args:
      images: uint8 ``[N, H, W, 3]``.
      what: description of the dataset, for the message of an error.

    Raises:
      InputError: if all pixels of all images have the same colour.
    """
    levels = np.arange(256) / 255
    counts = np.zeros((3, 256))
    for image in images:  # Histograms avoid a float copy of all images.
        for channel in range(3):
            counts[channel] += np.bincount(image[..., channel].ravel(), minlength=256)
    if (counts > 0).sum() == 3:  # One level in each channel.
        raise InputError(
            f"{what}: all pixels of the {len(images)} images that were read have the "
            f"same colour, RGB {counts.argmax(axis=1).tolist()}; nothing can be learnt "
            "from them. Check how the images were written"
        )
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
    mean, std = channel_statistics(images, "digits")
    source = ArraySource(images, digits.target)
    augment = CropAndFlip(image_size, flip=False)
    return Dataset("digits", source, 10, image_size, mean, std, augment)
