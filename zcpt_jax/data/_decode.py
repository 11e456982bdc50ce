"""Image decoding by Pillow, which is imported with the first image."""

import io
from pathlib import Path

import numpy as np


class Unreadable(ValueError):
    """Data that Pillow cannot decode as an image."""


def decode(source: Path | bytes) -> np.ndarray:
    """Decode an image file, or its bytes, to RGB, uint8 ``[H, W, 3]``.

    Raises:
      Unreadable: if the data is not a complete image.
    """
    return _open(source, whole=True)


def check_header(path: Path) -> None:
    """Check the first bytes of an image file.

    Raises:
      Unreadable: if they are not those of an image.
    """
    _open(path, whole=False)


def _open(source: Path | bytes, whole: bool) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(file) as picture:
            if not whole:
                return np.empty((0, 0, 3), np.uint8)
            return np.asarray(picture.convert("RGB"))
    except (
        OSError,
        UnidentifiedImageError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:
        raise Unreadable(str(error)) from error
