"""Sharding of work over the devices of one or several processes."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from zcpt_jax.types import InputError


def make_mesh(count: int | None = None, axis: str = "masks") -> Mesh:
    """Make a 1-D device mesh.

    Args:
      count: number of devices; by default all devices of all processes.
      axis: name of the mesh axis.

    Raises:
      InputError: if there are fewer devices, or if several processes would leave some
        out, since a process could then have none.
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
    """Position of this process in a 1-D device mesh.

    Attributes:
      total: number of devices of the mesh.
      devices: int, positions of this process's devices in the mesh.
      processes: number of processes that the mesh's devices belong to.
    """

    total: int
    devices: np.ndarray
    processes: int

    @property
    def here(self) -> int:
        """Number of devices of this process."""
        return len(self.devices)


def places(mesh: Mesh | None) -> Places:
    """Return the position of this process in a mesh; None means one local device."""
    if mesh is None:
        return Places(1, np.zeros(1, int), 1)
    owners = [device.process_index for device in mesh.devices.flat]
    devices = np.flatnonzero(np.array(owners) == jax.process_index())
    return Places(len(owners), devices, len(set(owners)))


def local(mesh: Mesh) -> Mesh:
    """Return the part of a mesh that belongs to this process."""
    devices = mesh.devices.ravel()[places(mesh).devices]
    return Mesh(devices, mesh.axis_names, axis_types=mesh.axis_types)


def put(host: Any, where: NamedSharding) -> jax.Array:
    """Put an array on devices of this and other processes.

    Args:
      host: the whole array, the same in every process. Unlike ``device_put``, this does
        not compare it between processes.
      where: sharding of the array.
    """
    array = np.asarray(host)
    return jax.make_array_from_callback(array.shape, where, lambda part: array[part])


def replicate(mesh: Mesh, tree: Any) -> Any:
    """Copy arrays to every device of a mesh.

    Args:
      mesh: the device mesh.
      tree: arrays, the same in every process.
    """
    return _replicator(mesh)(tree)


@functools.cache  # a new function for each call would compile at each call
def _replicator(mesh: Mesh) -> Callable[[Any], Any]:
    # device_put does not accept devices of other processes.
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.jit(lambda leaves: leaves, out_shardings=everywhere)


def spread(mesh: Mesh, tree: Any, smallest: int = 4096) -> Any:
    """Choose a sharding for each leaf of a state, with large arrays split over devices.

    A large array is split along its longest axis that divides evenly. Small arrays and
    those without such an axis are copied to every device.

    Args:
      mesh: the 1-D device mesh.
      tree: arrays or their shapes.
      smallest: number of values from which an array is split.

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
