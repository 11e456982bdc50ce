"""Where a dataset's images are kept during a training."""

from jax.sharding import NamedSharding

from zcpt_jax.data import CropAndFlip, Splits
from zcpt_jax.training._device_data import DeviceData, bytes_of
from zcpt_jax.training._host_data import HostData
from zcpt_jax.training._input import Input, Placement

DEVICE_BYTES = 2 << 30
"""Datasets up to this size are kept on each device."""


def make_input(
    splits: Splits,
    *,
    cutout: int = 0,
    sharding: NamedSharding | None = None,
    workers: int | None = None,
    processes: bool = False,
    device_bytes: int = DEVICE_BYTES,
) -> Input:
    """A training's images, on the devices if they fit and can be augmented there.

    Args:
      splits: what to train and test on.
      cutout: side of the square that is blanked out, 16 in the published trainings on
        images of 32 pixels, 0 for none.
      sharding: of batches over their first axis; None for one device.
      workers: that decode large datasets, by default one a core.
      processes: makes them processes, not threads.
      device_bytes: what a dataset may take of each device.

    Raises:
      InputError: if an image of a small dataset is damaged.
    """
    placement = Placement(sharding)
    small = bytes_of(splits) <= device_bytes
    if small and isinstance(splits.train.augment, CropAndFlip):
        return DeviceData(splits, cutout=cutout, placement=placement)
    return HostData(
        splits,
        cutout=cutout,
        placement=placement,
        workers=workers,
        processes=processes,
    )
