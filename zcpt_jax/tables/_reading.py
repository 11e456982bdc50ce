"""How files of tables are opened: counted, and bounded where they unpack."""

import gzip
import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

from zcpt_jax.types import InputError

Progress = Callable[[int, int], None]
"""Called with what was read so far and the total, in bytes or in files."""

# A few kilobytes can unpack to gigabytes, which no table of numbers does.
_MOST_TEXT = 1 << 28
_MOST_RATIO, _ALWAYS_ALLOWED = 200, 1 << 26


class _Counted(io.FileIO):
    """A file that tells how much of it was read."""

    def __init__(self, path: str, progress: Progress | None) -> None:
        """Opens ``path``; ``progress`` may be called with the same number twice."""
        super().__init__(path, "rb")
        self.progress = progress
        self.total = Path(path).stat().st_size
        self.done = 0

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        """Reads and tells."""
        count = super().readinto(buffer) or 0
        # Some readers go back, and nothing should be more than finished.
        self.done = min(self.done + count, self.total)
        if self.progress:
            self.progress(self.done, self.total)
        return count


def open_counted(path: str, progress: Progress | None) -> io.BufferedReader:
    """The file as a stream; ``progress`` gets bytes read and the file's size."""
    return io.BufferedReader(_Counted(path, progress), 1 << 20)


class _Bounded(io.RawIOBase):
    """Unpacked data that may not become absurdly long."""

    def __init__(self, path: str, unpacked: BinaryIO) -> None:
        """Allows ``unpacked`` a multiple of the size of ``path``."""
        self.path, self.unpacked = path, unpacked
        packed = Path(path).stat().st_size
        self.left = max(_MOST_RATIO * packed, _ALWAYS_ALLOWED)

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        """Reads, and refuses to go on for ever."""
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
    """A stream that raises InputError where ``path`` unpacks to absurdly much."""
    raw = _Bounded(path, cast(BinaryIO, unpacked))
    return cast(BinaryIO, io.BufferedReader(raw, 1 << 20))


def read_text(path: str) -> str:
    """The text of a file, gzipped or not.

    Raises:
      InputError: if it is no text, is cut off, or unpacks to an absurd length.
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
