"""How operations are written: what suits the devices, but for what flags ask."""

from absl import flags
from jax.sharding import Mesh

from launch import _flags
from zcpt_jax import lowering
from zcpt_jax.lowering import PRECISIONS, Lowering

_CHUNK = _flags.integer("chunk_size")
_PRECISION = flags.DEFINE_enum(
    "precision",
    "highest",
    PRECISIONS,
    "of products and convolutions, on GPUs and TPUs; CPUs compute float32",
)


def choose(mesh: Mesh | None) -> Lowering:
    """The record for the devices of a command.

    Args:
      mesh: the devices, None for JAX's default one.

    Raises:
      InputError: if a flag is out of range.
    """
    _flags.check_counts(_CHUNK)
    return lowering.of_mesh(mesh).replace(
        chunk=_CHUNK.value, precision=_PRECISION.value
    )
