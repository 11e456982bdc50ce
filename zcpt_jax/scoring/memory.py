"""Memory that compiled programs need and devices have, in bytes."""

from typing import Any

import jax

_FRACTION = 0.92
"""Fraction of a device's memory that a program may need, as allocators lose some to
fragmentation."""


def needed(compiled: Any) -> int:
    """Return the bytes that a program needs for arguments, results and temporaries.

    Args:
      compiled: result of ``jax.jit(f).lower(...).compile()``.

    Returns:
      Number of bytes, 0 if the compiler does not report it.
    """
    found = compiled.memory_analysis()
    if found is None:
        return 0
    sizes = (
        found.argument_size_in_bytes,
        found.output_size_in_bytes,
        found.temp_size_in_bytes,
        -found.alias_size_in_bytes,
    )
    return int(sum(sizes))


def limit(device: Any) -> int | None:
    """Return the bytes that one program may need on a device.

    Args:
      device: a JAX device.

    Returns:
      Number of bytes, None if the device does not report it, as on CPU.
    """
    try:
        found = device.memory_stats()
    except (jax.errors.JaxRuntimeError, NotImplementedError):
        return None  # a described device that is not present
    most = (found or {}).get("bytes_limit")
    return None if most is None else int(_FRACTION * most)


def is_exhausted(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, in compiling or running."""
    text = str(error)
    return any(
        words in text
        for words in ("RESOURCE_EXHAUSTED", "Out of memory", "Ran out of memory")
    )
