"""Random crops, flips and cutout on devices, independent of the number of devices."""

from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from zcpt_jax.data import CropAndFlip, Dataset
from zcpt_jax.types import Array


class Augmentation(NamedTuple):
    """Hashable settings of the augmentation and normalisation of training images.

    Attributes:
      mean: mean of each channel, with images in [0, 1].
      std: standard deviation of each channel, with images in [0, 1].
      pad: width of the black border in pixels that is added before cropping.
      flip: whether to mirror each image with probability 1/2.
      cutout: side of the cutout square in pixels, 0 for none.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    pad: int = 0
    flip: bool = False
    cutout: int = 0


class Draws(NamedTuple):
    """Random numbers of each image, all int32 ``[B]``.

    Attributes:
      top: first row of the crop in the padded image.
      left: first column of the crop in the padded image.
      mirror: 1 if the crop is mirrored, otherwise 0.
      row: row of the centre of the cutout square.
      column: column of the centre of the cutout square.
    """

    top: jax.Array
    left: jax.Array
    mirror: jax.Array
    row: jax.Array
    column: jax.Array


def augmentation_of(dataset: Dataset, cutout: int, *, cropped: bool) -> Augmentation:
    """Return the augmentation for a dataset's images.

    Args:
      dataset: dataset with mean, standard deviation, crop and flip.
      cutout: side of the cutout square in pixels, 0 for none.
      cropped: whether images are augmented before they are copied to the device.

    Raises:
      TypeError: if they are not, and the dataset's augmentation is not ``CropAndFlip``.
    """
    mean, std = _floats(dataset.mean), _floats(dataset.std)
    augment = dataset.augment
    if cropped:
        return Augmentation(mean, std, cutout=cutout)
    if not isinstance(augment, CropAndFlip):
        raise TypeError(f"{augment} has no counterpart on devices; use HostData")
    return Augmentation(mean, std, augment.pad, augment.flip, cutout)


def draw(key: jax.Array, count: int, size: int, augmentation: Augmentation) -> Draws:
    """Draw independent numbers for each image, from its position in the batch alone.

    Args:
      key: typed PRNG key.
      count: number of images B in the global batch.
      size: height and width of images in pixels.
      augmentation: settings, of which ``pad`` bounds the crops.
    """
    ends = jnp.array(
        [2 * augmentation.pad + 1, 2 * augmentation.pad + 1, 2, size, size]
    )

    def one(position: jax.Array) -> jax.Array:
        return jax.random.randint(jax.random.fold_in(key, position), (5,), 0, ends)

    return Draws(*jax.vmap(one)(jnp.arange(count)).T)


def augment(key: jax.Array, images: Array, augmentation: Augmentation) -> jax.Array:
    """Crop, mirror, normalise and cut out each image with its own random numbers.

    The order is that of the published trainings: the border of a crop is black before
    normalisation, and the cutout square is 0 after it.

    Args:
      key: typed PRNG key.
      images: uint8 ``[B, H, H, C]``.
      augmentation: settings of the augmentation; static under ``jit``.

    Returns:
      Augmented images, float32 ``[B, H, H, C]``.
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
    """Pad, crop and mirror images with one gather.

    Args:
      images: images ``[B, H, H, C]``.
      draws: random numbers of each image.
      augmentation: settings, of which ``pad`` and ``flip`` are used.

    Returns:
      Images ``[B, H, H, C]``.
    """
    pad, along = augmentation.pad, jnp.arange(images.shape[1])[None]
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    mirrored = (draws.mirror[:, None] == 1) & augmentation.flip
    rows = draws.top[:, None] + along
    columns = draws.left[:, None] + jnp.where(mirrored, along[:, ::-1], along)
    # Under vmap, the gather stays on the device that holds the image.
    return jax.vmap(lambda image, y, x: image[y[:, None], x])(padded, rows, columns)


def normalise(images: Array, augmentation: Augmentation) -> jax.Array:
    """Scale uint8 images to [0, 1] and normalise each channel, in float32."""
    mean, std = (
        jnp.array(values, jnp.float32)[None, None, None]
        for values in (augmentation.mean, augmentation.std)
    )
    return (jnp.asarray(images, jnp.float32) / 255 - mean) / std


def cut_out(images: jax.Array, draws: Draws, side: int) -> jax.Array:
    """Set a square of each image to zero.

    The centre can be any pixel, so squares at the border are smaller (DeVries and
    Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, 2017).

    Args:
      images: images ``[B, H, H, C]``.
      draws: random numbers of each image.
      side: side of the square in pixels.
    """
    along = jnp.arange(images.shape[1])[None]

    def covered(centre: jax.Array) -> jax.Array:
        start = centre[:, None] - side // 2
        return (along >= start) & (along < start + side)

    square = covered(draws.row)[:, :, None] & covered(draws.column)[:, None, :]
    return jnp.where(square[..., None], 0.0, images)


def _floats(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
