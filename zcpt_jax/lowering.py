"""One record of how operations are lowered for the devices they run on.

A network takes different forms on a CPU, a GPU and a TPU, because what is fast on one
is slow on another or does not compile. The record is chosen once, from the platform of
the devices, and everything traced inside :func:`using` follows it. It is part of the
cache key of ``jax.jit``: under another record a function is traced again.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from zcpt_jax.types import InputError

PRECISIONS = ("highest", "high", "default")
"""Precisions of matrix products and convolutions, by JAX's names."""


@dataclass(frozen=True)
class Lowering:
    """The form of each operation, and the way masks are scored together.

    Attributes:
      pointwise: 1x1 convolutions as matrix products or as convolutions. XLA's Triton
        fusion of products whose operand is a slice of a stack aborts the process on
        GPUs with jax 0.10 and 0.11.
      depthwise: depthwise convolutions as shifted elementwise products or as grouped
        convolutions.
      pooling: max pooling by shifted windows and average pooling in two passes, or both
        by XLA's window reduction.
      stacks: operations that read the same node, unrolled or in a loop. A loop compiles
        in a third of the time but copies its inputs.
      patterns: activation patterns compared by the bits of words or by a matrix
        product.
      barriers: whether conditions keep XLA from fusing gradients across the nodes of a
        cell (:func:`zcpt_jax.nn.zero_weights.apart`).
      loops: whether a call scores its masks in a loop. Convolutions are slower inside
        loops on CPU, where a call scores one mask.
      groups: whether forward-only scores batch the images of masks with the same
        decisions together.
      skips: which scores skip zero-weight operations: none, those without a derivative,
        or all. Gradients of convolutions are many times slower inside a condition on
        CPU.
      inside: whether a call draws its initial weights and makes its minibatches from
        images on the device; otherwise both are its arguments.
      skip: whether the current trace skips zero-weight operations; set by a scorer.
      together: whether ``vmap`` over the current trace batches images together; set by
        a scorer. Such functions have no gradients.
      chunk: number of masks that a device scores together, None to determine it.
      precision: precision of matrix products and convolutions, one of
        :data:`PRECISIONS`.
    """

    pointwise: Literal["product", "convolution"] = "product"
    depthwise: Literal["shifted", "grouped"] = "shifted"
    pooling: Literal["shifted", "windows"] = "shifted"
    stacks: Literal["unrolled", "loop"] = "unrolled"
    patterns: Literal["bits", "product"] = "bits"
    barriers: bool = True
    loops: bool = False
    groups: bool = False
    skips: Literal["none", "forward", "all"] = "forward"
    inside: bool = False
    skip: bool = False
    together: bool = False
    chunk: int | None = None
    precision: str = "highest"

    def __post_init__(self) -> None:
        """Raise InputError for an unknown precision or a chunk below 1."""
        if self.precision not in PRECISIONS:
            raise InputError(
                f"unknown precision {self.precision!r}; known: {', '.join(PRECISIONS)}"
            )
        if self.chunk is not None and self.chunk < 1:
            raise InputError(f"chunk_size must be at least 1, got {self.chunk}")

    def replace(self, **changes: Any) -> "Lowering":
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)


CPU = Lowering()
GPU = Lowering(
    pointwise="convolution",
    depthwise="grouped",
    pooling="windows",
    patterns="product",
    barriers=False,
    loops=True,
    groups=True,
    skips="all",
    inside=True,
)
# On TPU a matrix product takes a third of the cycles of a 1x1 convolution, and each
# convolution takes seconds to compile.
TPU = GPU.replace(pointwise="product", stacks="loop")

FORMS = {"cpu": CPU, "gpu": GPU, "cuda": GPU, "rocm": GPU, "tpu": TPU}
"""Record of each platform, by JAX's name of the platform."""


def of_platform(name: str) -> Lowering:
    """Return the record of a platform.

    Args:
      name: JAX's name of the platform, such as ``gpu``.

    Raises:
      InputError: if the platform is unknown.
    """
    if name not in FORMS:
        raise InputError(f"unknown platform {name!r}; known: {', '.join(FORMS)}")
    return FORMS[name]


def of_devices(devices: Any) -> Lowering:
    """Return the record of devices.

    Args:
      devices: JAX devices of one platform, in an array of any shape.

    Raises:
      InputError: if they are of several platforms, or of an unknown one.
    """
    found = sorted({device.platform for device in np.ravel(devices)})
    if len(found) != 1:
        raise InputError(f"devices must be of one platform, got {', '.join(found)}")
    return of_platform(found[0])


def of_mesh(mesh: Mesh | None) -> Lowering:
    """Return the record of a mesh's devices, or of the default device for None."""
    return default() if mesh is None else of_devices(mesh.devices)


def default_device() -> Any:
    """Return JAX's default device."""
    device = jax.config.values["jax_default_device"]
    if isinstance(device, str):
        return jax.local_devices(backend=device)[0]
    return device or jax.local_devices()[0]


def default() -> Lowering:
    """Return the record of JAX's default device."""
    return of_platform(default_device().platform)


_context = jax.make_user_context(default_value=None)


def current() -> Lowering:
    """Return the record in effect at the caller."""
    found = _context.value
    return default() if found is None else found


@contextmanager
def using(lowering: Lowering) -> Iterator[None]:
    """Trace under a record, its precision included.

    Args:
      lowering: the record.
    """
    with _context(lowering), jax.default_matmul_precision(lowering.precision):
        yield
