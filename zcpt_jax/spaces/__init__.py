"""Search spaces, each a frozen dataclass that satisfies ``zcpt_jax.types.Space``.

To add one: write ``_name.py`` with the dataclass and its Flax modules, and add a line
to the table below. A user's own space needs no entry: pass the object to the search.
"""

import dataclasses
import typing
from collections.abc import Callable
from typing import Any, Literal

from zcpt_jax.spaces._darts import Darts, DartsS1, DartsS2, DartsS3, DartsS4
from zcpt_jax.spaces._mobilenet import MobileNet
from zcpt_jax.spaces._nasbench1shot1 import (
    NasBench1Shot1Space1,
    NasBench1Shot1Space2,
    NasBench1Shot1Space3,
)
from zcpt_jax.spaces._nasbench201 import NasBench201
from zcpt_jax.spaces._nasbench_macro import NasBenchMacro
from zcpt_jax.types import InputError, Space

SPACES: dict[str, Callable[..., Space]] = {
    "nasbench201": NasBench201,
    "darts": Darts,
    "darts_s1": DartsS1,
    "darts_s2": DartsS2,
    "darts_s3": DartsS3,
    "darts_s4": DartsS4,
    "nasbench1shot1_1": NasBench1Shot1Space1,
    "nasbench1shot1_2": NasBench1Shot1Space2,
    "nasbench1shot1_3": NasBench1Shot1Space3,
    "nasbench_macro": NasBenchMacro,
    "mobilenet": MobileNet,
}
"""Every space class by its name; call an entry with options to build the space."""


def get_space(name: str, **options: Any) -> Space:
    """Build a space by its name.

    Args:
      name: a key of :data:`SPACES`.
      **options: options that differ from the space's defaults, such as ``channels=8``.

    Raises:
      InputError: if the space, an option or its value is unknown; the message lists
        the known ones.
    """
    if name not in SPACES:
        raise InputError(f"unknown space {name!r}; known: {', '.join(SPACES)}")
    return build_space(SPACES[name], **options)


def build_space(make: Callable[..., Space], **options: Any) -> Space:
    """Build a space after checking its options.

    Args:
      make: the space's class.
      **options: options that differ from the space's defaults.

    Raises:
      InputError: if an option or its value is unknown.
    """
    space = make()
    known = space_options(space)
    hints = typing.get_type_hints(type(space))
    for key, value in options.items():
        if key not in known:
            raise InputError(
                f"space {space.name!r} has no option {key!r}; it has "
                + ", ".join(f"{k}={v}" for k, v in known.items())
            )
        _check_option(key, value, hints[key])
    return make(**options)


def _check_option(key: str, value: Any, kind: Any) -> None:
    if typing.get_origin(kind) is Literal:
        if value not in typing.get_args(kind):
            allowed = ", ".join(map(str, typing.get_args(kind)))
            raise InputError(f"{key} must be one of {allowed}, got {value!r}")
    elif kind is int and (type(value) is not int or value < 1):
        raise InputError(f"{key} must be a positive integer, got {value!r}")
    elif kind is float and (type(value) not in (int, float) or not value > 0):
        raise InputError(f"{key} must be a positive number, got {value!r}")


def space_options(space: Space) -> dict[str, Any]:
    """Return the options of a space: its dataclass fields except the name."""
    fields = dataclasses.fields(space)  # type: ignore[arg-type]
    return {f.name: getattr(space, f.name) for f in fields if f.name != "name"}


__all__ = [
    "SPACES",
    "Darts",
    "DartsS1",
    "DartsS2",
    "DartsS3",
    "DartsS4",
    "MobileNet",
    "NasBench1Shot1Space1",
    "NasBench1Shot1Space2",
    "NasBench1Shot1Space3",
    "NasBench201",
    "NasBenchMacro",
    "build_space",
    "get_space",
    "space_options",
]
