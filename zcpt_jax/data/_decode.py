"""Image decoding by Pillow, which is imported with the first image."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

_T = TypeVar("_T")
_NO_IMAGES = frozenset({"BUFR", "GRIB", "HDF5", "MPEG"})
"""Formats that Pillow identifies and cannot read."""
_OTHER_SUFFIXES = frozenset(
    ".arw .avif .cr2 .dng .heic .heif .jxl .nef .svg".split()  # noqa: SIM905
)
"""Suffixes of image formats that Pillow may not know."""
_TIFF_BITS, _TIFF_PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
_ORIENTATION = 274
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: image[::-1].swapaxes(0, 1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: image[:, ::-1].swapaxes(0, 1),
}
"""Map from the EXIF orientation to the function that turns an image upright."""


class Unreadable(ValueError):
    """Data that Pillow cannot decode as an image."""


def decode(source: Path | bytes, *, upright: bool = False) -> np.ndarray:
    """Decode an image file, or its bytes, to RGB, uint8 ``[H, W, 3]``.

    Images of 16 bits become those of 8 bits: 65535 becomes 255.

    Args:
      source: path of the file, or its content.
      upright: whether to apply the orientation in the EXIF data.

    Raises:
      Unreadable: if the data is not a complete image, or the range of its pixels is
        unknown.
    """

    def read(picture: "Image.Image") -> np.ndarray:
        pixels = _pixels(picture)
        turn = _TURNS.get(_orientation(picture)) if upright else None
        return np.ascontiguousarray(turn(pixels)) if turn else pixels

    return _open(source, read)


def check_header(path: Path) -> None:
    """Check the first bytes of an image file.

    Raises:
      Unreadable: if they are not those of an image, or the range of its pixels is
        unknown.
    """
    _open(path, _largest)


def has_image_suffix(path: Path) -> bool:
    """Return whether the suffix of a file's name is that of an image format."""
    from PIL import Image

    suffix = path.suffix.lower()
    known = Image.registered_extensions().get(suffix)
    readable = known in Image.OPEN and known not in _NO_IMAGES
    return readable or suffix in _OTHER_SUFFIXES


def _open(source: Path | bytes, read: "Callable[[Image.Image], _T]") -> _T:
    from PIL import Image

    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(file) as picture:
            if picture.format in _NO_IMAGES:
                raise Unreadable(f"Pillow does not read {picture.format} files")
            return read(picture)
    except (Unreadable, MemoryError):
        raise
    except Exception as error:  # The errors of Pillow's formats have no common base.
        raise Unreadable(str(error) or type(error).__name__) from error


def _pixels(picture: "Image.Image") -> np.ndarray:
    """Return the pixels as RGB, uint8 ``[H, W, 3]``."""
    largest = _largest(picture)
    if largest == 255:
        return np.asarray(picture.convert("RGB"))
    levels = np.rint(np.asarray(picture) / (largest / 255)).astype(np.uint8)
    if _tiff_tag(picture, _TIFF_PHOTOMETRIC, 1) == _WHITE_IS_ZERO:
        levels = 255 - levels
    return np.repeat(levels[..., None], 3, axis=-1)


def _largest(picture: "Image.Image") -> int:
    """Return the value of a white pixel.

    Raises:
      Unreadable: if it is unknown.
    """
    mode = picture.mode
    if mode.startswith("I;16"):
        bits: int = _tiff_tag(picture, _TIFF_BITS, 16)
        return 2**bits - 1
    if mode == "I" and picture.format in ("PNG", "PPM"):  # These have at most 16 bits.
        return 65535
    if mode in ("I", "F"):
        kind = "floats" if mode == "F" else "integers"
        raise Unreadable(
            f"its pixels are {kind} of unknown range, Pillow's mode {mode}; save it "
            "with 8 or 16 unsigned bits per channel"
        )
    return 255


def _tiff_tag(picture: "Image.Image", tag: int, default: int) -> int:
    """Return the number of a tag of a TIFF file, or the default in other formats."""
    value = getattr(picture, "tag_v2", {}).get(tag, default)
    return int(value[0] if isinstance(value, tuple) else value)


def _orientation(picture: "Image.Image") -> int:
    """Return the EXIF orientation of a picture that has been read, by default 1."""
    try:
        # TIFF's is applied by Pillow, and left out here, once the picture is read.
        return int(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # Damaged metadata leaves the picture as it is.
        return 1
