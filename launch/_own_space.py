"""Spaces that a file of the user's own defines: ``--space=FILE.py:CLASS``."""

import contextlib
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from zcpt_jax.spaces import build_space
from zcpt_jax.types import InputError, Space, digest

_NEEDED = (
    "name",
    "init_masks",
    "phases",
    "supernet",
    "network",
    "genotype",
    "parse",
)


def load_own_space(
    path: Path, attribute: str, options: dict[str, Any]
) -> tuple[Space, str]:
    """Execute a file and build the space that one of its classes defines.

    Args:
      path: Python file.
      attribute: name of the class.
      options: options that differ from the class's defaults.

    Returns:
      The space, and the digest of the file.

    Raises:
      InputError: if the file or the class fails, with the line that failed, or if the
        class is no space.
    """
    if not path.is_file():
        raise InputError(f"--space={path}:{attribute}: there is no file {path}")
    # A private name, so that a file called json.py does not replace another module.
    module = ModuleType(f"_space_of_{path.stem}")
    sys.modules[module.__name__] = module  # Dataclasses look up their module there.
    source = path.read_bytes()
    with _told(path):
        exec(compile(source, str(path), "exec"), module.__dict__)
    made = getattr(module, attribute, None)
    if made is None:
        raise InputError(f"--space={path}:{attribute}: {path} defines no {attribute}")
    missing = [name for name in _NEEDED if not hasattr(made, name)]
    if not isinstance(made, type) or missing:
        what = f"it has no {missing[0]}" if missing else "it is no class"
        raise InputError(f"--space={path}:{attribute}: no space, as {what}")
    with _told(path):
        return build_space(made, **options), digest(source)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn whatever the file raises, an exit included, into a message with its line."""
    try:
        yield
    except (InputError, KeyboardInterrupt):
        raise
    except BaseException as error:
        line = error.lineno if isinstance(error, SyntaxError) else None
        for frame in traceback.extract_tb(error.__traceback__):
            if frame.filename == str(path):
                line = frame.lineno
        where = f"{path}, line {line}" if line else str(path)
        said = f"{type(error).__name__}: {error}"
        raise InputError(f"{where}: {said}") from error
