"""Lowering of operations: the best for the devices, unless flags say otherwise."""

from absl import flags
from jax.sharding import Mesh

from zcpt_jax import lowering
from zcpt_jax.lowering import PRECISIONS, Lowering
from zcpt_jax.types import Proxy, Space

from . import _flags

_CHUNK = _flags.integer("chunk_size")
_PRECISION = flags.DEFINE_enum(
    "precision",
    "highest",
    PRECISIONS,
    "precision of matrix products and convolutions on GPUs and TPUs; CPUs always "
    "compute in float32",
)


def describe(form: Lowering, proxy: Proxy, space: Space) -> str:
    """Describe how many masks a device scores together, as far as known beforehand.

    Args:
      form: lowering of operations.
      proxy: proxy that scores the masks.
      space: space of the masks.
    """
    most = form.chunk
    if most is None and form.loops and form.groups and proxy.forward_only:
        most = space.most_candidates()
        return f"as many masks put together as fit, at most {most}"
    return "one mask at a time" if most in (None, 1) else f"{most} masks put together"


def choose(mesh: Mesh | None) -> Lowering:
    """Choose the lowering for the devices of a command.

    Args:
      mesh: device mesh, None for JAX's default device.

    Raises:
      InputError: if a flag is out of range.
    """
    _flags.check_counts(_CHUNK)
    return lowering.of_mesh(mesh).replace(
        chunk=_CHUNK.value, precision=_PRECISION.value
    )
