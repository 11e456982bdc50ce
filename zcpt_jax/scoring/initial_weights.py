"""Initial weights by name: each draw follows from the seed and what it is for."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

SUPERNET, NETWORK = 0, 1
"""What weights are for: the first number of their name."""

Name = tuple[int, ...]
"""Of weights: :data:`SUPERNET` or :data:`NETWORK`, then up to three numbers."""

_NUMBERS = 3


class Names(NamedTuple):
    """W names as arrays.

    Attributes:
      kinds: int32 ``[W]``, their first numbers.
      numbers: uint32 ``[W, 3]``, the others.
      lengths: int32 ``[W]``, how many others there are.
    """

    kinds: Any
    numbers: Any
    lengths: Any


def as_arrays(names: Sequence[Name], count: int) -> Names:
    """Names as arrays of a fixed length.

    Args:
      names: at most ``count``.
      count: W; the rest are zeros.
    """
    kinds, lengths = np.zeros((2, count), np.int32)
    numbers = np.zeros((count, _NUMBERS), np.uint32)
    for row, (kind, *rest) in enumerate(names):
        kinds[row], lengths[row] = kind, len(rest)
        numbers[row, : len(rest)] = rest
    return Names(kinds, numbers, lengths)


def key_of(seed: Any, name: Names) -> jax.Array:
    """Pure: the key of one name.

    Args:
      seed: uint32 scalar.
      name: the arrays of one name, without the first axis.
    """
    key = jax.random.split(jax.random.key(seed))[name.kinds]
    for place in range(_NUMBERS):
        data = jax.random.key_data(key)
        folded = jax.random.key_data(jax.random.fold_in(key, name.numbers[place]))
        data = jnp.where(place < name.lengths, folded, data)
        key = jax.random.wrap_key_data(data)
    return key
