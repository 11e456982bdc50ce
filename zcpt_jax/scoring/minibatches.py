"""Minibatches by name: each follows from the seed and what it is for.

They are drawn in two halves. The host draws numbers: which images, where they are
cropped. What becomes of the images is done in the call that scores, from all images,
which lie on the device; or, where they are too many or are augmented on the host, from
those that the host hands over, three to four times smaller than normalised ones.
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
"""What a minibatch is for; the first number says for which stage."""

_RESIDENT_BYTES = 2**31
"""Images of a dataset lie on the device up to so many bytes."""

VALIDATION_BLOCK = 10
"""Validation minibatches in memory at once: 100 of ImageNet's size would be 4 GB."""


class Feed(NamedTuple):
    """M minibatches as they come from the host.

    Attributes:
      keys: uint32 ``[M, 2]``, of networks that draw random numbers.
      images: uint8 ``[M, B, H, W, 3]``, or ``Crops`` of resident images, int32
        ``[M, B]`` each; None where no image is looked at.
      labels: int32 ``[M, B]``, None where they are resident or not looked at.
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
        """Reads no image yet.

        Args:
          dataset: where images come from.
          seed: of everything random.
          size: B, images of a minibatch.
          data_free: gives one image of zeros in place of B, for scores that only use
            their shape.
          inside: whether images are to lie on the device.
        """
        self._dataset, self._seed, self._size = dataset, seed, size
        self._data_free = data_free
        count = len(dataset.source) * int(np.prod(dataset.image_shape))
        small = count <= _RESIDENT_BYTES and isinstance(dataset.augment, CropAndFlip)
        self._on_device = inside and small and not data_free
        self._decoded: tuple[np.ndarray, np.ndarray] | None = None
        self._lock = threading.Lock()

    def resident(self) -> dict[str, Any]:
        """What is to lie on the devices during all calls; reads images if need be.

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
        """The shapes of :meth:`resident`, without reading an image."""
        count = len(self._dataset.source)
        found: dict[str, Any] = {"white": ((), np.float32)}
        found |= {name: ((3,), np.float32) for name in ("mean", "std")}
        if self._on_device:
            found["images"] = ((count, *self._dataset.image_shape), np.uint8)
            found["labels"] = ((count,), np.int32)
        return {name: jax.ShapeDtypeStruct(*what) for name, what in found.items()}

    def feed(self, names: Sequence[Name], count: int) -> Feed:
        """Draws minibatches, each from the seed and its name.

        Args:
          names: of the minibatches.
          count: M, how many the feed has, at least as many: the first stands for those
            that are missing.
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
        """Pure: the minibatch of a number.

        Args:
          resident: of :meth:`resident`, on the device.
          feed: of :meth:`feed`, on the device.
          number: int scalar, below M.
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
    """As NumPy does it on the host, to the last bit.

    XLA would turn the division by one number for all pixels into a product with its
    reciprocal, which rounds twice; it does not see through the barrier.
    """
    shape = images.shape

    def whole(name: str) -> jax.Array:
        return jax.lax.optimization_barrier(jnp.broadcast_to(resident[name], shape))

    pixels = images.astype(jnp.float32) / whole("white")
    return (pixels - whole("mean")) / whole("std")


def _crop(images: jax.Array, crops: Any, augment: Any) -> jax.Array:
    """The crops of images ``[N, H, W, 3]`` padded with black, in one gather."""
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
