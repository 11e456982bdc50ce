"""Opening of table files, with progress and limits on their unpacked size."""

import gzip
import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

from zcpt_jax.types import InputError

Progress = Callable[[int, int], None]
"""Callback with the amount read so far and the total, in bytes or in files."""

# A few kilobytes can unpack to gigabytes, which cannot be a table of numbers.
_MOST_TEXT = 1 << 28
_MOST_RATIO, _ALWAYS_ALLOWED = 200, 1 << 26


class _Counted(io.FileIO):
    """File that reports how much of it was read."""

    def __init__(self, path: str, progress: Progress | None) -> None:
        """Open ``path``; ``progress`` may be called with the same number twice."""
        super().__init__(path, "rb")
        self.progress = progress
        self.total = Path(path).stat().st_size
        self.done = 0

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        """Read and report progress."""
        count = super().readinto(buffer) or 0
        # Some readers seek back, and progress must not exceed 100 %.
        self.done = min(self.done + count, self.total)
        if self.progress:
            self.progress(self.done, self.total)
        return count


def open_counted(path: str, progress: Progress | None) -> io.BufferedReader:
    """Open a file; ``progress`` gets the bytes read and the file's size."""
    return io.BufferedReader(_Counted(path, progress), 1 << 20)


class _Bounded(io.RawIOBase):
    """Stream of unpacked data with a limit on its length."""

    def __init__(self, path: str, unpacked: BinaryIO) -> None:
        """Limit ``unpacked`` to a multiple of the size of ``path``."""
        self.path, self.unpacked = path, unpacked
        packed = Path(path).stat().st_size
        self.left = max(_MOST_RATIO * packed, _ALWAYS_ALLOWED)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        """Read, and raise InputError beyond the limit."""
        data = self.unpacked.read(len(buffer))
        self.left -= len(data)
        if self.left < 0:
            raise InputError(
                f"it unpacks to more than {_MOST_RATIO} times its size, which no table "
                "does; fetch the file from the benchmark's authors"
            )
        buffer[: len(data)] = data
        return len(data)


def bounded(path: str, unpacked: object) -> BinaryIO:
    """Return a stream that raises InputError if ``path`` unpacks to too much data."""
    raw = _Bounded(path, cast(BinaryIO, unpacked))
    return cast(BinaryIO, io.BufferedReader(raw, 1 << 20))


def read_text(path: str) -> str:
    """Read the text of a file, gzipped or not.

    Raises:
      InputError: if the file is not text, is truncated, or is too long once unpacked.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MOST_TEXT + 1)
        if data[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as unpacked:
                data = unpacked.read(_MOST_TEXT + 1)
        if len(data) > _MOST_TEXT:
            raise InputError(
                f"table {path} has more than {_MOST_TEXT >> 20} MiB of text and is in "
                "none of the known forms; it is not a table of accuracies"
            )
        return data.decode()
    except (EOFError, OSError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(
            f"table {path} is not a (gzipped) CSV file ({error}); it may be cut off"
        ) from error
