"""Random crops, flips and cutout on the device, the same on one device and on many."""

from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from zcpt_jax.data import CropAndFlip, Dataset
from zcpt_jax.types import Array


class Augmentation(NamedTuple):
    """How images become inputs of a network in training; hashable.

    Attributes:
      mean: of each channel, images being in [0, 1].
      std: of each channel.
      pad: pixels of black on each side, from which the crop is taken.
      flip: whether every other image is mirrored.
      cutout: side of the square that is blanked out, 0 for none.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    pad: int = 0
    flip: bool = False
    cutout: int = 0


class Draws(NamedTuple):
    """What is drawn for each image, int32 ``[B]`` all.

    Attributes:
      top: first row of the crop in the padded image.
      left: first column of the crop in the padded image.
      mirror: 1 if the crop is mirrored.
      row: of the centre of the square that is blanked out.
      column: of that centre.
    """

    top: jax.Array
    left: jax.Array
    mirror: jax.Array
    row: jax.Array
    column: jax.Array


def augmentation_of(dataset: Dataset, cutout: int, *, cropped: bool) -> Augmentation:
    """The augmentation for a dataset's images.

    Args:
      dataset: says mean and deviation, and crop and flip.
      cutout: side of the square that is blanked out, 0 for none.
      cropped: whether images have been augmented before they come to the device.

    Raises:
      TypeError: if they have not, and the dataset's is not ``CropAndFlip``.
    """
    mean, std = _floats(dataset.mean), _floats(dataset.std)
    augment = dataset.augment
    if cropped:
        return Augmentation(mean, std, cutout=cutout)
    if not isinstance(augment, CropAndFlip):
        raise TypeError(f"{augment} has no counterpart on devices; use HostData")
    return Augmentation(mean, std, augment.pad, augment.flip, cutout)


def draw(key: jax.Array, count: int, size: int, augmentation: Augmentation) -> Draws:
    """Independent numbers for each image, which follow from its position alone.

    Args:
      key: a typed PRNG key.
      count: B, images of the global batch.
      size: height and width of images.
      augmentation: how far crops may go.
    """
    ends = jnp.array(
        [2 * augmentation.pad + 1, 2 * augmentation.pad + 1, 2, size, size]
    )

    def one(position: jax.Array) -> jax.Array:
        return jax.random.randint(jax.random.fold_in(key, position), (5,), 0, ends)

    return Draws(*jax.vmap(one)(jnp.arange(count)).T)


def augment(key: jax.Array, images: Array, augmentation: Augmentation) -> jax.Array:
    """Crops, mirrors, normalises and blanks out, each image by numbers of its own.

    The order is that of the published trainings: the border of a crop is black before
    images are normalised, the square of cutout is 0 afterwards.

    Args:
      key: a typed PRNG key.
      images: uint8 ``[B, H, H, C]``.
      augmentation: what to do; static under ``jit``.

    Returns:
      float32 ``[B, H, H, C]``.
    """
    chex.assert_rank(images, 4, custom_message="images must be [B, H, H, C]")
    count, size = images.shape[:2]
    chex.assert_axis_dimension(
        images, 2, size, custom_message="images [B, H, H, C] must be square"
    )
    draws = draw(key, count, size, augmentation)
    if augmentation.pad or augmentation.flip:
        images = crop(images, draws, augmentation)
    floats = normalise(images, augmentation)
    side = augmentation.cutout
    return cut_out(floats, draws, side) if side else floats


def crop(images: Array, draws: Draws, augmentation: Augmentation) -> jax.Array:
    """Crops, and mirrored ones, of padded images, in one gather.

    Args:
      images: ``[B, H, H, C]``.
      draws: one an image.
      augmentation: ``pad`` and ``flip`` of it.

    Returns:
      ``[B, H, H, C]``.
    """
    pad, along = augmentation.pad, jnp.arange(images.shape[1])[None]
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    mirrored = (draws.mirror[:, None] == 1) & augmentation.flip
    rows = draws.top[:, None] + along
    columns = draws.left[:, None] + jnp.where(mirrored, along[:, ::-1], along)
    # Under vmap, the gather stays on the device that has the image.
    return jax.vmap(lambda image, y, x: image[y[:, None], x])(padded, rows, columns)


def normalise(images: Array, augmentation: Augmentation) -> jax.Array:
    """Float32 images with the mean taken off, by the deviation of each channel."""
    mean, std = (
        jnp.array(values, jnp.float32)[None, None, None]
        for values in (augmentation.mean, augmentation.std)
    )
    return (jnp.asarray(images, jnp.float32) / 255 - mean) / std


def cut_out(images: jax.Array, draws: Draws, side: int) -> jax.Array:
    """Sets a square to zero, as far as it lies within the image.

    Its centre is any pixel, so that squares at the border are smaller (DeVries and
    Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, 2017).

    Args:
      images: ``[B, H, H, C]``.
      draws: one an image.
      side: of the square.
    """
    along = jnp.arange(images.shape[1])[None]

    def covered(centre: jax.Array) -> jax.Array:
        start = centre[:, None] - side // 2
        return (along >= start) & (along < start + side)

    square = covered(draws.row)[:, :, None] & covered(draws.column)[:, None, :]
    return jnp.where(square[..., None], 0.0, images)


def _floats(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
