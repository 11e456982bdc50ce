"""Reading of ``torch.save`` files without PyTorch."""

import zipfile
import zlib
from typing import Any

from zcpt_jax.tables._reading import Progress, bounded, open_counted
from zcpt_jax.tables._unpickle import unpickle
from zcpt_jax.types import InputError

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
# Pickle of the magic number in protocol 2; every old file starts with it.
LEGACY_HEAD = b"\x80\x02\x8a\x0a" + _MAGIC.to_bytes(10, "little") + b"."


def load_legacy(path: str, progress: Progress | None) -> Any:
    """Load the object in a file that ``torch.save`` wrote before PyTorch 1.6.

    The file is a sequence of pickles: a magic number, the protocol version, a
    description of the machine, the object, and data of its tensors, which is not read.

    Raises:
      InputError: if the file is truncated, damaged, or holds more than plain data.
    """
    with open_counted(path, progress) as file:
        magic, protocol = unpickle(path, file), unpickle(path, file)
        if magic != _MAGIC or protocol != _PROTOCOL:
            raise InputError(
                f"table {path} is a PyTorch file of version {protocol}; only "
                f"{_PROTOCOL} is known"
            )
        unpickle(path, file)
        return unpickle(path, file)


def pickle_member(names: list[str]) -> str | None:
    """Return the name of the object's pickle in the zip format of ``torch.save``."""
    return next((n for n in names if n.split("/")[1:] == ["data.pkl"]), None)


def load_zipped(path: str, progress: Progress | None) -> Any:
    """Load the object in a file that ``torch.save`` writes since PyTorch 1.6.

    Raises:
      InputError: if the file is truncated, damaged, or holds more than plain data.
    """
    try:
        with (
            open_counted(path, progress) as file,
            zipfile.ZipFile(file) as archive,
            archive.open(pickle_member(archive.namelist()) or "data.pkl") as member,
        ):
            return unpickle(path, bounded(path, member))
    except InputError:
        raise
    except (
        zipfile.BadZipFile,
        zlib.error,
        KeyError,
        OSError,
        NotImplementedError,  # Unknown compression.
        RuntimeError,  # Encrypted archive.
    ) as error:
        raise InputError(
            f"table {path} is a damaged PyTorch file ({error}); fetch it anew"
        ) from error
