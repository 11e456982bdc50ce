"""Datasets by name: TFDS, a folder of images, a NumPy archive, embedded digits."""

from zcpt_jax.data._arrays import load_digits, load_npz
from zcpt_jax.data._dataset import Dataset
from zcpt_jax.data._folder import load_folder
from zcpt_jax.data._tfds import TFDS, load_tfds
from zcpt_jax.types import InputError

_DEFAULT_SIZE = 32
KNOWN = ("digits", *TFDS, "folder:PATH", "npz:FILE")
"""The forms that a dataset's name can take."""


def load_dataset(
    name: str,
    data_dir: str | None = None,
    image_size: int | None = None,
    *,
    whole: bool = False,
) -> Dataset:
    """The dataset of that name.

    Args:
      name: one of :data:`KNOWN`.
      data_dir: where TFDS keeps its datasets; not used by the others.
      image_size: height and width; by default the dataset's own (32 for folders,
        archives and digits).
      whole: all training images, also of TFDS datasets of which searches, as
        published, see the first half.

    Raises:
      InputError: if the name is unknown, or the dataset is missing or damaged.
    """
    if image_size is not None and image_size < 8:
        raise InputError(f"image_size must be at least 8, got {image_size}")
    if name in TFDS:
        return load_tfds(name, data_dir, image_size, whole)
    size = image_size or _DEFAULT_SIZE
    if name == "digits":
        return load_digits(size)
    kind, _, path = name.partition(":")
    if kind == "folder" and path:
        return load_folder(path, size)
    if kind == "npz" and path:
        return load_npz(path, size)
    raise InputError(f"unknown dataset {name!r}; known: {', '.join(KNOWN)}")


__all__ = ["KNOWN", "TFDS", "Dataset", "load_dataset"]
