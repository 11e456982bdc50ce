"""Descriptions of accelerators, to compile for them where they are absent.

The numbers are public facts of the chips. ``jax[cuda12]`` and ``jax[tpu]`` must be
installed; ``JAX_PLATFORMS=cpu`` suffices to run.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

TPU_CLOCK_HZ = 1.5e9
"""Clock that XLA's cycle estimates are converted to seconds with."""

_GPU = """
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth} l2_cache_size: {cache} clock_rate_ghz: 1.98
  device_memory_size: {memory} shared_memory_per_block_optin: 232448
  cuda_compute_capability {{ major: 9 }}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 8 }}
runtime_version {{ major: {cuda[0]} minor: {cuda[1]} patch: 0 }}
device_description_str: "{model}"
"""
_H200_MEMORY, _H100_MEMORY = 150_000_000_000, 84_929_347_584
_PREALLOCATED = 0.75  # of a GPU's memory, by JAX's default allocator
_CUDA = {"jax_cuda12_plugin": (12, 9), "jax_cuda13_plugin": (13, 0)}


@dataclass(frozen=True)
class Chip:
    """One kind of accelerator.

    Attributes:
      name: the name on the command line.
      kind: ``gpu`` or ``tpu``.
      memory: bytes that JAX can allocate on one device (``bytes_limit``).
      options: what the chip's description is made from.
    """

    name: str
    kind: Literal["gpu", "tpu"]
    memory: int
    options: dict[str, Any] = field(default_factory=dict)

    def device(self) -> Any:
        """One described device, which compiles and cannot run.

        Raises:
          ImportError: if the packages for this kind of chip are not installed.
        """
        make = _describe_gpu if self.kind == "gpu" else _describe_tpu
        return make(self).devices[0]

    def mesh(self, axis: str = "masks") -> Mesh:
        """A mesh of one described device."""
        devices = np.array([self.device()])
        return Mesh(devices, (axis,), axis_types=(AxisType.Auto,))


def _gpu(name: str, **options: Any) -> Chip:
    return Chip(name, "gpu", int(_PREALLOCATED * options["memory"]), options)


def _tpu(name: str, gibibytes: float, topology: str, **options: Any) -> Chip:
    memory = int(gibibytes * 2**30)
    return Chip(name, "tpu", memory, {"topology_name": topology, **options})


CHIPS = {
    chip.name: chip
    for chip in (
        _gpu(
            "h200",
            model="NVIDIA H200",
            memory=_H200_MEMORY,
            bandwidth=4_800_000_000_000,
            cache=62_914_560,
        ),
        _gpu(
            "h100",
            model="NVIDIA H100 80GB HBM3",
            memory=_H100_MEMORY,
            bandwidth=3_352_320_000_000,
            cache=52_428_800,
        ),
        # A v5e has 16 GiB, of which programs can have 15.75.
        _tpu("v5e", 15.75, "v5e:1x1", chips_per_host_bounds=(1, 1, 1)),
        # The two cores of a v4 chip are one device with 32 GiB, less the reserve.
        _tpu("v4", 31.75, "v4:2x2x1", chip_config_name="megacore"),
    )
}
"""Every chip by its name."""


def _describe_gpu(chip: Chip) -> Any:
    text = _GPU.format(cuda=_cuda_version(), **chip.options)
    return topologies.get_topology_desc(
        chip.name, "cuda", target_config=text, topology="1x1x1"
    )


def _cuda_version() -> tuple[int, int]:
    """The CUDA release that the installed plugin of JAX is made for."""
    import importlib.util

    for plugin, version in _CUDA.items():
        if importlib.util.find_spec(plugin) is not None:
            return version
    raise ImportError("compiling for GPUs needs jax[cuda12] or jax[cuda13]")


def _describe_tpu(chip: Chip) -> Any:
    return topologies.get_topology_desc(platform="tpu", **chip.options)


def compile_fast() -> None:
    """Ask XLA:TPU for less optimisation, in all later compilations of this process.

    Full effort takes 5 to 20 times as long; the code is 2 to 5 times slower.
    """
    jax.config.update("jax_exec_time_optimization_effort", -1.0)
