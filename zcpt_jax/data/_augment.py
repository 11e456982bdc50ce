"""Random crops, flips and colours, on uint8 images ``[H, W, 3]`` on the host."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class CropAndFlip:
    """Resize, pad by an eighth, crop at random, and mirror with probability 1/2.

    The padding is 4 pixels at size 32 (CIFAR, SVHN) and 2 at size 16 (ImageNet16), as
    in the published code.

    Attributes:
      size: height and width of the result in pixels.
      flip: whether to mirror; False for characters.
    """

    size: int
    flip: bool = True

    @property
    def pad(self) -> int:
        """Width of the black border on each side in pixels."""
        return self.size // 8

    def __call__(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        """Return a random crop, uint8 ``[size, size, 3]``, of an image of any size."""
        size, pad = self.size, self.pad
        image = np.pad(fit(image, size), ((pad, pad), (pad, pad), (0, 0)))
        top, left, mirror = self.draw(rng, 1)[0]
        image = image[top : top + size, left : left + size]
        return image[:, ::-1] if mirror else image

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Draw where crops begin in padded images, and whether they are mirrored.

        Args:
          rng: random generator; one call for two images consumes as much as two calls.
          count: number of images.

        Returns:
          Top row, left column and mirroring (0 or 1), int ``[count, 3]``.
        """
        ends = [2 * self.pad + 1, 2 * self.pad + 1, 2]
        drawn = rng.integers(np.tile(ends, (count, 1)))
        return drawn * [1, 1, int(self.flip)]

    def plain(self, image: np.ndarray) -> np.ndarray:
        """Return the image resized without randomness, as in a test."""
        return fit(image, self.size)


def fit(image: np.ndarray, size: int, short: int | None = None) -> np.ndarray:
    """Resize the short side and crop the centre.

    Args:
      image: uint8 ``[H, W, 3]``.
      size: height and width of the result in pixels.
      short: length in pixels that the short side is resized to, at least ``size``,
        which is the default.
    """
    short = short or size
    height, width = image.shape[:2]
    if (height, width) == (size, size) == (short, short):
        return image
    scale = short / min(height, width)
    shape = (max(short, round(width * scale)), max(short, round(height * scale)))
    from PIL import Image  # Imported here because scoring does not need it.

    resized = np.asarray(
        Image.fromarray(image).resize(shape, Image.Resampling.BILINEAR)
    )
    top, left = (shape[1] - size) // 2, (shape[0] - size) // 2
    return resized[top : top + size, left : left + size]


@dataclass(frozen=True)
class ResizedCropFlipJitter:
    """ImageNet recipe: RandomResizedCrop, flip, colour jitter (.4, .4, .4, .2).

    Attributes:
      size: height and width of the result in pixels.
    """

    size: int

    def __call__(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        """Return a random crop, uint8 ``[size, size, 3]``, of an image of any size."""
        from PIL import Image

        box = random_box(rng, image.shape[1], image.shape[0])
        picture = Image.fromarray(image).resize(
            (self.size, self.size), Image.Resampling.BILINEAR, box=box
        )
        if rng.integers(2):
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.asarray(jitter_colours(rng, picture))

    def plain(self, image: np.ndarray) -> np.ndarray:
        """Crop the centre as in a test: 224 of 256 pixels at size 224."""
        return fit(image, self.size, self.size * 256 // 224)


def random_box(
    rng: np.random.Generator, width: int, height: int
) -> tuple[float, float, float, float]:
    """Draw a box of 8 to 100 % of the area and ratio 3/4 to 4/3 (Szegedy et al. 2015).

    After ten boxes that do not fit, return the largest centred box of an allowed ratio.

    Returns:
      Box ``(left, top, right, bottom)`` in pixels.
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
    """Change brightness, contrast, saturation and hue in random order.

    Args:
      rng: random generator, consumed.
      picture: RGB image.
      strength: largest relative change of brightness, contrast and saturation, whose
        factors are in ``1 +- strength``.
      hue: largest rotation of the hue in either direction, as a fraction of the circle.
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
