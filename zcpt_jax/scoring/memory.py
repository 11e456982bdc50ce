"""What compiled programs need of a device's memory, and what it has."""

from typing import Any

import jax

_SHARE = 0.92
"""Of a device's memory that a program may need: allocators lose some to fragments."""


def needed(compiled: Any) -> int:
    """Bytes that a compiled program needs: arguments, results and temporaries.

    Args:
      compiled: of ``jax.jit(f).lower(...).compile()``.

    Returns:
      The bytes, 0 where the compiler does not say.
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
    """Bytes that one program may need on a device.

    Args:
      device: a JAX device.

    Returns:
      The bytes, None where the device does not say, as CPUs do not.
    """
    try:
        found = device.memory_stats()
    except (jax.errors.JaxRuntimeError, NotImplementedError):
        return None  # a device that is described but not there
    most = (found or {}).get("bytes_limit")
    return None if most is None else int(_SHARE * most)


def is_exhausted(error: BaseException) -> bool:
    """Whether an error says that memory ran out, when compiling or when running."""
    text = str(error)
    return any(
        words in text
        for words in ("RESOURCE_EXHAUSTED", "Out of memory", "Ran out of memory")
    )
