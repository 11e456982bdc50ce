"""Work spread over devices, of one process or of many."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from zcpt_jax.types import InputError


def make_mesh(count: int | None = None, axis: str = "masks") -> Mesh:
    """A row of devices.

    Args:
      count: how many; by default all, those of all processes.
      axis: what is split over them.

    Raises:
      InputError: if there are not that many, or several processes are to leave some
        out, so that one of them could have none.
    """
    there = jax.devices()
    count = len(there) if count is None else count
    if not 1 <= count <= len(there):
        raise InputError(
            f"devices must be from 1 to {len(there)}, those that JAX sees on "
            f"{there[0].platform}; got {count}"
        )
    if jax.process_count() > 1 and count != jax.device_count():
        raise InputError(
            f"{jax.process_count()} processes use all of their {jax.device_count()} "
            f"devices; got devices={count}"
        )
    return Mesh(np.array(there[:count]), (axis,), axis_types=(AxisType.Auto,))


class Places(NamedTuple):
    """Where this process stands in a row of devices.

    Attributes:
      total: devices of the row.
      devices: int, the positions of this process's devices in it.
      processes: that the row's devices belong to.
    """

    total: int
    devices: np.ndarray
    processes: int

    @property
    def here(self) -> int:
        """How many devices this process has."""
        return len(self.devices)


def places(mesh: Mesh | None) -> Places:
    """Where this process stands in a row; None is one device of its own."""
    if mesh is None:
        return Places(1, np.zeros(1, int), 1)
    owners = [device.process_index for device in mesh.devices.flat]
    devices = np.flatnonzero(np.array(owners) == jax.process_index())
    return Places(len(owners), devices, len(set(owners)))


def local(mesh: Mesh) -> Mesh:
    """The part of a row that this process has."""
    devices = mesh.devices.ravel()[places(mesh).devices]
    return Mesh(devices, mesh.axis_names, axis_types=mesh.axis_types)


def put(host: Any, where: NamedSharding) -> jax.Array:
    """An array on devices of this process and of others.

    Args:
      host: the whole array, the same in every process. Unlike ``device_put``, this does
        not compare it between them.
      where: how it is laid out.
    """
    array = np.asarray(host)
    return jax.make_array_from_callback(array.shape, where, lambda part: array[part])


def replicate(mesh: Mesh, tree: Any) -> Any:
    """Arrays of which every device has a copy.

    Args:
      mesh: the devices.
      tree: arrays, the same in every process.
    """
    return _replicator(mesh)(tree)


@functools.cache  # a function of its own for each call would compile at each call
def _replicator(mesh: Mesh) -> Callable[[Any], Any]:
    # device_put takes no device of another process.
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.jit(lambda leaves: leaves, out_shardings=everywhere)


def spread(mesh: Mesh, tree: Any, smallest: int = 4096) -> Any:
    """Where to keep each leaf of a state whose large arrays are split over devices.

    Each is split along its longest axis that divides evenly; small ones and those
    without such an axis are copied to every device.

    Args:
      mesh: the row of devices.
      tree: arrays or their shapes.
      smallest: values from which an array is split.

    Returns:
      A sharding for each leaf.
    """

    def place(leaf: Any) -> NamedSharding:
        even = [axis for axis, size in enumerate(leaf.shape) if size % mesh.size == 0]
        if not even or np.prod(leaf.shape) < smallest:
            return NamedSharding(mesh, PartitionSpec())
        longest = max(even, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, *mesh.axis_names))

    return jax.tree.map(place, tree)
