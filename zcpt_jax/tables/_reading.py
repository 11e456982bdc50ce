"""Opening of table files, with progress and the limits on what is read."""

import codecs
import gzip
import io
import os
import stat
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
# The largest published table has 423,624 rows; a row has a few accuracies.
MOST_ROWS, MOST_COLUMNS = 2_000_000, 1_000
# Many times the size of the NumPy arrays of all 423,624 graphs.
MOST_ARRAY_BYTES = 1 << 30

_CHUNK, _HEAD = 1 << 20, 512
_GZIP = b"\x1f\x8b"
_KINDS = (
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def check_regular(path: str) -> None:
    """Check that there is a regular file, without opening it.

    Raises:
      InputError: if nothing is there, or a device, a pipe or a socket, which may have
        no end.
    """
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError as error:
        raise InputError(f"table {path} does not exist") from error
    except (OSError, ValueError) as error:
        raise InputError(f"table {path} cannot be read: {error}") from error
    if not stat.S_ISREG(mode):
        kind = next((kind for test, kind in _KINDS if test(mode)), "no file")
        raise InputError(
            f"table {path} is {kind}, not a regular file, and was not read; write the "
            "table to a file and name that"
        )


def read_head(path: str) -> tuple[bytes, bytes]:
    """Return the first 512 bytes of a file as they are, and unpacked if gzipped."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(_HEAD)
            if not head.startswith(_GZIP):
                return head, head
            file.seek(0)
            with gzip.GzipFile(fileobj=file) as unpacked:
                return head, unpacked.read(_HEAD)
    except PermissionError as error:
        raise InputError(f"table {path} cannot be read: {error.strerror}") from error
    except (EOFError, OSError, zlib.error):
        return head, b""  # Damaged; reading the whole file says how.


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
    """Read the text of a file, gzipped or not, without its byte-order mark.

    Raises:
      InputError: if the file is not text, is truncated, or is too long once unpacked,
        which is found while unpacking.
    """
    try:
        with Path(path).open("rb") as file:
            packed = file.read(2) == _GZIP
            file.seek(0)
            if packed:
                with gzip.GzipFile(fileobj=file) as unpacked:
                    data = _read(path, unpacked, os.fstat(file.fileno()).st_size)
            else:
                data = _read(path, file, None)
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(
            f"table {path} is not a whole gzip file ({error}); it may be cut off"
        ) from error
    encoding = next((e for mark, e in _BYTE_ORDER_MARKS if data.startswith(mark)), "")
    try:
        return data.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        line = 1 + data[: error.start].count(b"\n")
        raise InputError(
            f"table {path} is not text in UTF-8 ({error.reason} in line {line}); save "
            "it as a CSV file in UTF-8"
        ) from error


def _read(path: str, stream: object, packed: int | None) -> bytearray:
    """Read a stream to its end in pieces, whose sum is limited."""
    most = _MOST_TEXT
    if packed is not None:
        most = min(most, max(_MOST_RATIO * packed, _ALWAYS_ALLOWED))
    file, data = cast(BinaryIO, stream), bytearray()
    while piece := file.read(_CHUNK):
        data += piece
        if len(data) > most:
            what = "has" if packed is None else f"has {packed:,} bytes and unpacks to"
            raise InputError(
                f"table {path} {what} more than {most:,} bytes of text; that is not a "
                "table of accuracies, and the rest was not read"
            )
    return data
