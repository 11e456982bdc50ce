"""Random crops, flips and colours, on uint8 images ``[H, W, 3]`` on the host."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class CropAndFlip:
    """Fits the image, pads it by an eighth, crops at random, mirrors every other one.

    The padding is 4 pixels at size 32 (CIFAR, SVHN) and 2 at size 16 (ImageNet16), as
    in the published code.

    Attributes:
      size: height and width of the result.
      flip: whether to mirror; not for characters.
    """

    size: int
    flip: bool = True

    @property
    def pad(self) -> int:
        """Pixels of black on each side."""
        return self.size // 8

    def __call__(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        """One random crop, uint8 ``[size, size, 3]``, of an image of any size."""
        size, pad = self.size, self.pad
        image = np.pad(fit(image, size), ((pad, pad), (pad, pad), (0, 0)))
        top, left, mirror = self.draw(rng, 1)[0]
        image = image[top : top + size, left : left + size]
        return image[:, ::-1] if mirror else image

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Where crops begin in padded images, and whether they are mirrored.

        Args:
          rng: consumed, the same by one call for two images as by two calls.
          count: of images.

        Returns:
          int ``[count, 3]``: top row, left column, 0 or 1.
        """
        ends = [2 * self.pad + 1, 2 * self.pad + 1, 2]
        drawn = rng.integers(np.tile(ends, (count, 1)))
        return drawn * [1, 1, int(self.flip)]

    def plain(self, image: np.ndarray) -> np.ndarray:
        """The same without chance, as in a test."""
        return fit(image, self.size)


def fit(image: np.ndarray, size: int, short: int | None = None) -> np.ndarray:
    """Resizes the short side and cuts out the centre.

    Args:
      image: uint8 ``[H, W, 3]``.
      size: height and width of the result.
      short: what the short side is resized to, at least ``size``, which it is by
        default.
    """
    short = short or size
    height, width = image.shape[:2]
    if (height, width) == (size, size) == (short, short):
        return image
    scale = short / min(height, width)
    shape = (max(short, round(width * scale)), max(short, round(height * scale)))
    from PIL import Image  # scoring does without it

    resized = np.asarray(
        Image.fromarray(image).resize(shape, Image.Resampling.BILINEAR)
    )
    top, left = (shape[1] - size) // 2, (shape[0] - size) // 2
    return resized[top : top + size, left : left + size]


@dataclass(frozen=True)
class ResizedCropFlipJitter:
    """The ImageNet recipe: RandomResizedCrop, flip, colour jitter (.4, .4, .4, .2).

    Attributes:
      size: height and width of the result.
    """

    size: int

    def __call__(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        """One random crop, uint8 ``[size, size, 3]``, of an image of any size."""
        from PIL import Image

        box = random_box(rng, image.shape[1], image.shape[0])
        picture = Image.fromarray(image).resize(
            (self.size, self.size), Image.Resampling.BILINEAR, box=box
        )
        if rng.integers(2):
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.asarray(jitter_colours(rng, picture))

    def plain(self, image: np.ndarray) -> np.ndarray:
        """The centre of the image, as in a test: 224 of 256 pixels at size 224."""
        return fit(image, self.size, self.size * 256 // 224)


def random_box(
    rng: np.random.Generator, width: int, height: int
) -> tuple[float, float, float, float]:
    """A box of 8 to 100 % of the area and of ratio 3/4 to 4/3 (Szegedy et al. 2015).

    After ten boxes that do not fit, the largest centred box of an allowed ratio.

    Returns:
      ``(left, top, right, bottom)`` in pixels.
    """
    for _ in range(10):
        area = width * height * rng.uniform(0.08, 1)
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            left = rng.integers(width - w + 1)
            top = rng.integers(height - h + 1)
            return (left, top, left + w, top + h)
    w = min(width, round(height * 4 / 3))
    h = min(height, round(width * 4 / 3))
    left, top = (width - w) / 2, (height - h) / 2
    return (left, top, left + w, top + h)


def jitter_colours(
    rng: np.random.Generator,
    picture: "Image.Image",
    strength: float = 0.4,
    hue: float = 0.2,
) -> "Image.Image":
    """Changes brightness, contrast, saturation and hue, in random order.

    Args:
      rng: consumed.
      picture: RGB.
      strength: the first three are scaled by a factor in ``1 +- strength``.
      hue: the hue is turned by up to this fraction of the circle either way.
    """
    from PIL import Image, ImageEnhance

    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    factors = rng.uniform(1 - strength, 1 + strength, len(enhancers))
    turn = round(rng.uniform(-hue, hue) * 255)
    for step in rng.permutation(4):
        if step == 3:
            h, s, v = picture.convert("HSV").split()
            h = Image.fromarray(
                np.asarray(h) + np.array(turn, np.int16).astype(np.uint8)
            )
            picture = Image.merge("HSV", (h, s, v)).convert("RGB")
        else:
            picture = enhancers[step](picture).enhance(float(factors[step]))
    return picture
