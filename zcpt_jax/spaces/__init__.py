"""Search spaces, each a frozen dataclass that satisfies ``zcpt_jax.types.Space``.

To add one: write ``_name.py`` with the dataclass and its Flax modules, and add a line
to the table below. A space of your own needs no entry: hand the object to the search.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from zcpt_jax.spaces._nasbench201 import NasBench201
from zcpt_jax.types import InputError, Space

SPACES: dict[str, Callable[..., Space]] = {
    "nasbench201": NasBench201,
}
"""Every space by its name; calling an entry with sizes gives the space."""


def get_space(name: str, **sizes: Any) -> Space:
    """The space of that name.

    Args:
      name: a key of :data:`SPACES`.
      **sizes: positive integers that differ from the space's defaults, such as
        ``channels=8``.

    Raises:
      InputError: if there is no such space, no such size, or a size is not positive;
        the message lists what there is.
    """
    if name not in SPACES:
        raise InputError(f"unknown space {name!r}; known: {', '.join(SPACES)}")
    known = space_sizes(SPACES[name]())
    for key, value in sizes.items():
        if key not in known:
            raise InputError(
                f"space {name!r} has no size {key!r}; it has "
                + ", ".join(f"{k}={v}" for k, v in known.items())
            )
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{key} must be a positive integer, got {value!r}")
    return SPACES[name](**sizes)


def space_sizes(space: Space) -> dict[str, Any]:
    """The sizes of a space's supernet: its dataclass fields but for the name."""
    fields = dataclasses.fields(space)  # type: ignore[arg-type]
    return {f.name: getattr(space, f.name) for f in fields if f.name != "name"}


__all__ = ["SPACES", "NasBench201", "get_space", "space_sizes"]
