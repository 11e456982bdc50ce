"""How operations are written for the devices they run on, in one record.

The same network is written in other forms for a CPU, a GPU and a TPU: what is fast on
one is slow on another, or does not compile. The record is chosen once, from the
platform of the devices, and what is traced inside :func:`using` follows it. It is part
of what ``jax.jit`` caches by: under another record a function is traced anew.
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
"""Of products and convolutions, as JAX names them."""


@dataclass(frozen=True)
class Lowering:
    """Which form each operation takes, and how masks are scored together.

    Attributes:
      pointwise: 1x1 convolutions as matrix products or as convolutions. XLA's Triton
        fusion of products whose operand is a slice of a stack aborts the process on
        GPUs with jax 0.10 and 0.11.
      depthwise: depthwise convolutions as shifted elementwise products, or as grouped
        convolutions.
      pooling: max pooling by shifted windows and average pooling in two passes, or as
        windows are reduced by XLA.
      stacks: operations that read the same node, written out one by one or in a loop.
        A loop compiles in a third of the time and copies its inputs.
      patterns: ReLU patterns compared by the bits of words, or by a matrix product.
      barriers: whether conditions keep XLA from fusing gradients across the nodes of a
        cell (:func:`zcpt_jax.nn.zero_weights.apart`).
      loops: whether the masks of a call are scored in a loop inside it. On CPU
        convolutions are slower inside loops, so that a call scores one mask.
      groups: whether masks with the same decisions are put together, their images side
        by side in one batch, for scores without a derivative.
      skips: which scores skip operations of weight zero: none, those without a
        derivative, or all. On CPU gradients of convolutions are many times slower
        inside a condition.
      inside: whether a call draws its initial weights and makes its minibatches from
        the images on the device, or is given both.
      skip: whether what is traced now skips operations of weight zero; a scorer says.
      together: whether ``vmap`` over what is traced now puts images side by side; a
        scorer says. Such functions have no gradients.
      chunk: masks that a device scores together, None to work it out.
      precision: of products and convolutions, one of :data:`PRECISIONS`.
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
        """Refuses values that do not exist."""
        if self.precision not in PRECISIONS:
            raise InputError(
                f"unknown precision {self.precision!r}; known: {', '.join(PRECISIONS)}"
            )
        if self.chunk is not None and self.chunk < 1:
            raise InputError(f"chunk_size must be at least 1, got {self.chunk}")

    def replace(self, **changes: Any) -> "Lowering":
        """The record with some fields changed."""
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
# A product takes a third of the cycles of a 1x1 convolution there, and each convolution
# seconds to compile.
TPU = GPU.replace(pointwise="product", stacks="loop")

FORMS = {"cpu": CPU, "gpu": GPU, "cuda": GPU, "rocm": GPU, "tpu": TPU}
"""The record of each platform, as JAX names platforms."""


def of_platform(name: str) -> Lowering:
    """The record of a platform.

    Args:
      name: as JAX names it, such as ``gpu``.

    Raises:
      InputError: if there is none.
    """
    if name not in FORMS:
        raise InputError(f"unknown platform {name!r}; known: {', '.join(FORMS)}")
    return FORMS[name]


def of_devices(devices: Any) -> Lowering:
    """The record of devices.

    Args:
      devices: JAX devices of one platform, in any shape.

    Raises:
      InputError: if they are of several platforms, or of an unknown one.
    """
    found = sorted({device.platform for device in np.ravel(devices)})
    if len(found) != 1:
        raise InputError(f"devices must be of one platform, got {', '.join(found)}")
    return of_platform(found[0])


def of_mesh(mesh: Mesh | None) -> Lowering:
    """The record of a mesh's devices, or of the default device without one."""
    return default() if mesh is None else of_devices(mesh.devices)


def default_device() -> Any:
    """The device on which JAX puts what is not put elsewhere."""
    device = jax.config.values["jax_default_device"]
    if isinstance(device, str):
        return jax.local_devices(backend=device)[0]
    return device or jax.local_devices()[0]


def default() -> Lowering:
    """The record of JAX's default device."""
    return of_platform(default_device().platform)


_context = jax.make_user_context(default_value=None)


def current() -> Lowering:
    """The record that holds where this is called from."""
    found = _context.value
    return default() if found is None else found


@contextmanager
def using(lowering: Lowering) -> Iterator[None]:
    """What is traced inside follows a record, precision included.

    Args:
      lowering: the record.
    """
    with _context(lowering), jax.default_matmul_precision(lowering.precision):
        yield
