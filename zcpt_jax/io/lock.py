"""One process at a time writes to a folder."""

import os
import re
import weakref
from pathlib import Path

from zcpt_jax.io.files import make_folder
from zcpt_jax.types import InputError

try:
    import fcntl
except ModuleNotFoundError:  # Windows has no such locks.
    fcntl = None  # type: ignore[assignment]

# Names that files.write_atomically gives before it renames.
_LEFTOVER = re.compile(r"\..+\.(json|jsonl|csv|html|damaged|msgpack)\.[a-z0-9_]{8}")


class FolderLock:
    """A folder that no other process writes to while this object lives."""

    def __init__(self, descriptor: int) -> None:
        """Take over the descriptor of the locked folder."""
        self._descriptor = descriptor

    def __del__(self) -> None:
        """Unlock the folder; the end of the process does so too."""
        os.close(self._descriptor)


_HELD: "weakref.WeakValueDictionary[Path, FolderLock]" = weakref.WeakValueDictionary()
"""Locks of this process, which all its objects that write to a folder share."""


def lock_folder(folder: Path) -> FolderLock | None:
    """Create a folder unless it exists, and lock it for this process.

    Temporary files that a killed process left there are removed.

    Args:
      folder: path of the folder; the lock adds no file to it.

    Returns:
      The lock, to be kept while the folder is written to; None where the file system
      has no locks.

    Raises:
      InputError: if the folder cannot be created, or another process has locked it.
    """
    make_folder(folder)
    folder = folder.resolve()
    if fcntl is None:
        return None
    held = _HELD.get(folder)
    if held is not None:
        return held
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise InputError(
            f"another process writes to {folder}; wait for its end, or choose another "
            "--output_dir"
        ) from error
    except OSError:  # Some network file systems have no locks.
        os.close(descriptor)
        return None
    for file in folder.iterdir():
        if _LEFTOVER.fullmatch(file.name) and file.is_file():
            file.unlink(missing_ok=True)
    _HELD[folder] = lock = FolderLock(descriptor)
    return lock
