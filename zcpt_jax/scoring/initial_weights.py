"""Initial weights by name: each draw is determined by the seed and its purpose."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from zcpt_jax.types import Space, Variables

SUPERNET, NETWORK = 0, 1
"""Purpose of weights: the first number of their name."""

Name = tuple[int, ...]
"""Name of weights: :data:`SUPERNET` or :data:`NETWORK`, then up to three numbers."""

_NUMBERS = 3


class Names(NamedTuple):
    """W names as arrays.

    Attributes:
      kinds: int32 ``[W]``, first number of each name.
      numbers: uint32 ``[W, 3]``, the other numbers.
      lengths: int32 ``[W]``, how many other numbers each name has.
    """

    kinds: Any
    numbers: Any
    lengths: Any


def as_arrays(names: Sequence[Name], count: int) -> Names:
    """Convert names to arrays of a fixed length.

    Args:
      names: at most ``count`` names.
      count: length W of the arrays, padded with zeros.
    """
    kinds, lengths = np.zeros((2, count), np.int32)
    numbers = np.zeros((count, _NUMBERS), np.uint32)
    for row, (kind, *rest) in enumerate(names):
        kinds[row], lengths[row] = kind, len(rest)
        numbers[row, : len(rest)] = rest
    return Names(kinds, numbers, lengths)


def key_of(seed: Any, name: Names) -> jax.Array:
    """Return the PRNG key of one name; a pure function.

    Args:
      seed: seed, a uint32 scalar.
      name: arrays of one name, without the first axis.
    """
    key = jax.random.split(jax.random.key(seed))[name.kinds]
    for place in range(_NUMBERS):
        data = jax.random.key_data(key)
        folded = jax.random.key_data(jax.random.fold_in(key, name.numbers[place]))
        data = jnp.where(place < name.lengths, folded, data)
        key = jax.random.wrap_key_data(data)
    return key


class InitialWeights:
    """Initial weights of a space's networks, drawn on devices or on the host."""

    def __init__(
        self, space: Space, image_shape: tuple[int, ...], seed: int, count: int
    ) -> None:
        """Prepare draws; nothing is drawn yet.

        Args:
          space: the search space.
          image_shape: shape ``(H, W, C)`` of an image.
          seed: seed of all draws.
          count: maximum number of draws in a call.
        """
        self._space, self._shape = space, image_shape
        self._seed, self._count = seed, count

    def named(self, names: Sequence[Name]) -> dict[str, Any]:
        """Return the inputs from which a call draws the weights of these names."""
        return {"seed": np.uint32(self._seed), "names": as_arrays(names, self._count)}

    def inside(self, module: nn.Module) -> Callable[[Any, Any], Variables]:
        """Return the function that draws inside a call.

        Args:
          module: module whose variables are drawn.

        Returns:
          A pure function of the result of :meth:`named` and the index of a name;
          variables given to a call take precedence.
        """

        def variables(resident: Any, number: Any) -> Variables:
            if "variables" in resident:
                given: Variables = resident["variables"]
                return given
            name = jax.tree.map(lambda leaf: leaf[number], resident["names"])
            return self._draw(module, resident["seed"], name)

        return variables

    def _draw(self, module: nn.Module, seed: Any, name: Names) -> Variables:
        key = key_of(seed, name)
        shape, space = self._shape, self._space
        if type(space).init_networks is Space.init_networks:
            return space.init_variables(module, key, shape)
        draws = [
            lambda key, init=init: init(module, key, shape)
            for init in (space.init_variables, space.init_networks)
        ]
        return jax.lax.switch(name.kinds, draws, key)

    def on_host(self, module: nn.Module, name: Name) -> Variables:
        """Draw the variables of one name."""
        row = jax.tree.map(lambda leaf: leaf[0], as_arrays([name], 1))
        key, space = key_of(np.uint32(self._seed), row), self._space
        init = space.init_networks if name[0] == NETWORK else space.init_variables
        return init(module, key, self._shape)
