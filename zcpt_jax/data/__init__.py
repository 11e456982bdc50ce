"""Datasets by name: TFDS, a folder of images, a NumPy archive, embedded digits."""

from zcpt_jax.data._augment import CropAndFlip, ResizedCropFlipJitter
from zcpt_jax.data._dataset import Augment, Crops, Dataset, Source
from zcpt_jax.data._load import (
    KNOWN,
    Splits,
    load_dataset,
    load_splits,
    load_test_images,
)
from zcpt_jax.data._tfds import TFDS

__all__ = [
    "KNOWN",
    "TFDS",
    "Augment",
    "CropAndFlip",
    "Crops",
    "Dataset",
    "ResizedCropFlipJitter",
    "Source",
    "Splits",
    "load_dataset",
    "load_splits",
    "load_test_images",
]
