"""Minibatches by name: each is determined by the seed and its purpose.

They are made in two steps. The host draws which images to use and where to crop them.
The call that scores then processes the images: from the whole dataset on the device,
or, if that is too large or augmented on the host, from uint8 images that the host
sends, a third to a quarter of the size of normalised ones.
"""

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zcpt_jax.data import CropAndFlip, Dataset
from zcpt_jax.types import Batch

Name = tuple[int, ...]
"""Name of a minibatch; its first number is the stage that uses it."""

_RESIDENT_BYTES = 2**31
"""Maximum size in bytes of a dataset's images that are kept on the device."""

VALIDATION_BLOCK = 10
"""Number of validation minibatches in memory at once; 100 of ImageNet would be 4 GB."""


class Feed(NamedTuple):
    """M minibatches in the form the host sends.

    Attributes:
      keys: uint32 ``[M, 2]``, PRNG keys for networks that draw random numbers.
      images: uint8 ``[M, B, H, W, 3]``, or ``Crops`` of images on the device, int32
        ``[M, B]`` each; None if images are not used.
      labels: int32 ``[M, B]``, None if they are on the device or not used.
    """

    keys: Any
    images: Any = None
    labels: Any = None


class Minibatches:
    """The minibatches of a dataset and a seed."""

    def __init__(
        self,
        dataset: Dataset,
        seed: int,
        size: int,
        *,
        data_free: bool = False,
        inside: bool = False,
    ) -> None:
        """Prepare minibatches; no image is read yet.

        Args:
          dataset: source of images.
          seed: seed of all draws.
          size: number B of images in a minibatch.
          data_free: whether one image of zeros replaces the B images, for scores that
            use only their shape.
          inside: whether to keep images on the device.
        """
        self._dataset, self._seed, self._size = dataset, seed, size
        self._data_free = data_free
        count = len(dataset.source) * int(np.prod(dataset.image_shape))
        small = count <= _RESIDENT_BYTES and isinstance(dataset.augment, CropAndFlip)
        self._on_device = inside and small and not data_free
        self._decoded: tuple[np.ndarray, np.ndarray] | None = None
        self._lock = threading.Lock()

    def resident(self) -> dict[str, Any]:
        """Return the data kept on the devices for all calls; may read images.

        Raises:
          InputError: if an image is damaged.
        """
        found: dict[str, Any] = {
            "white": np.float32(255),
            "mean": np.asarray(self._dataset.mean, np.float32),
            "std": np.asarray(self._dataset.std, np.float32),
        }
        if self._on_device:
            with self._lock:
                if self._decoded is None:
                    self._decoded = self._dataset.decode()
            found["images"], found["labels"] = self._decoded
        return found

    def shapes(self) -> dict[str, Any]:
        """Return the shapes of :meth:`resident` without reading an image."""
        count = len(self._dataset.source)
        found: dict[str, Any] = {"white": ((), np.float32)}
        found |= {name: ((3,), np.float32) for name in ("mean", "std")}
        if self._on_device:
            found["images"] = ((count, *self._dataset.image_shape), np.uint8)
            found["labels"] = ((count,), np.int32)
        return {name: jax.ShapeDtypeStruct(*what) for name, what in found.items()}

    def feed(self, names: Sequence[Name], count: int) -> Feed:
        """Draw minibatches, each from the seed and its name.

        Args:
          names: names of the minibatches, at most ``count``.
          count: number M of minibatches in the feed, padded with copies of the first.
        """
        drawn = [self._draw(name) for name in names]
        drawn += drawn[:1] * (count - len(drawn))
        return jax.tree.map(lambda *parts: np.stack(parts), *drawn)

    def _draw(self, name: Name) -> Feed:
        rng = np.random.default_rng([self._seed, *name])
        images: Any = None
        labels: Any = None
        if self._on_device:
            images = self._dataset.draw_crops(rng, self._size)
        elif not self._data_free:
            images, labels = self._dataset.draw(rng, self._size)
        return Feed(rng.integers(2**32, size=2, dtype=np.uint32), images, labels)

    def batch(self, resident: dict[str, Any], feed: Feed, number: Any) -> Batch:
        """Make one minibatch of a feed; a pure function.

        Args:
          resident: result of :meth:`resident`, on the device.
          feed: result of :meth:`feed`, on the device.
          number: index of the minibatch, an int scalar below M.
        """
        keys, images, labels = jax.tree.map(lambda leaf: leaf[number], feed)
        key = jax.random.wrap_key_data(keys)
        if self._data_free:
            shape = (1, *self._dataset.image_shape)
            return Batch(jnp.zeros(shape), jnp.zeros(1, jnp.int32), key)
        if self._on_device:
            labels = resident["labels"][images.rows]
            images = _crop(resident["images"], images, self._dataset.augment)
        return Batch(_normalise(images, resident), labels, key)


def _normalise(images: jax.Array, resident: dict[str, Any]) -> jax.Array:
    """Normalise images bit for bit as NumPy does on the host.

    The barrier keeps XLA from replacing the division by a constant with a product with
    its reciprocal, which rounds twice.
    """
    shape = images.shape

    def whole(name: str) -> jax.Array:
        return jax.lax.optimization_barrier(jnp.broadcast_to(resident[name], shape))

    pixels = images.astype(jnp.float32) / whole("white")
    return (pixels - whole("mean")) / whole("std")


def _crop(images: jax.Array, crops: Any, augment: Any) -> jax.Array:
    """Crop images ``[N, H, W, 3]``, padded with black, in one gather."""
    size = augment.size
    along = jnp.arange(size)[None]
    y = crops.top[:, None] + along - augment.pad
    x = crops.left[:, None] - augment.pad
    x = x + jnp.where(crops.mirror[:, None] == 1, along[:, ::-1], along)
    inside = [(place >= 0) & (place < size) for place in (y, x)]
    y, x = (jnp.clip(place, 0, size - 1) for place in (y, x))
    pixels = images[crops.rows[:, None, None], y[:, :, None], x[:, None, :]]
    seen = inside[0][:, :, None] & inside[1][:, None, :]
    return jnp.where(seen[..., None], pixels, jnp.uint8(0))
