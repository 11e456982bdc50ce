"""Choice of where a dataset's images are kept during training."""

from jax.sharding import NamedSharding

from zcpt_jax.data import CropAndFlip, Splits
from zcpt_jax.training._device_data import DeviceData, bytes_of
from zcpt_jax.training._host_data import HostData
from zcpt_jax.training._input import Input, Placement

DEVICE_BYTES = 2 << 30
"""Largest size in bytes of a dataset that is kept on each device."""


def make_input(
    splits: Splits,
    *,
    cutout: int = 0,
    sharding: NamedSharding | None = None,
    workers: int | None = None,
    processes: bool = False,
    device_bytes: int = DEVICE_BYTES,
) -> Input:
    """Make the training input, on the devices if it fits and can be augmented there.

    Args:
      splits: training and test images.
      cutout: side of the cutout square in pixels; 16 in the published trainings on
        images of 32 pixels, 0 for none.
      sharding: sharding of batches over their first axis; None for one device.
      workers: number of workers that decode large datasets; by default one per core.
      processes: whether workers are processes rather than threads.
      device_bytes: largest size of a dataset in bytes that is kept on each device.

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
