"""Names for files of other formats, so that an error can say what to do with them."""

import bz2
import os
from itertools import islice
from pathlib import Path

from zcpt_jax.types import InputError

_AS_CSV = (
    "save it as CSV, with a column arch_str of genotypes and columns of accuracies"
)
_UNPACK = "unpack it, and name the table in it"
_PICKLE = (
    "a pickle, as NASLib writes them, which can run code when it is loaded and is not "
    "read; load it where you trust it, and write a CSV with a column arch_str of "
    "genotypes and columns of accuracies (NATS-Bench's own file is read packed, as "
    ".pickle.pbz2)"
)
_STARTS = (
    (b"\x89HDF", f"an HDF5 file; {_AS_CSV}"),
    (b"PAR1", f"a Parquet file; {_AS_CSV}"),
    (b"ARROW1", f"an Arrow file; {_AS_CSV}"),
    (b"SQLite format 3", f"an SQLite database; {_AS_CSV}"),
    (b"\xd0\xcf\x11\xe0", f"an Excel workbook; {_AS_CSV}"),
    (b"\x93NUMPY", f"a NumPy array without names; {_AS_CSV}"),
    (b"\xfd7zXZ", f"an .xz archive; {_UNPACK}"),
    (b"7z\xbc\xaf", f"a .7z archive; {_UNPACK}"),
    (b"Rar!", f"a .rar archive; {_UNPACK}"),
    (b"\x28\xb5\x2f\xfd", f"a .zst archive; {_UNPACK}"),
    (b"\x1f\x8b", "a gzip file within a gzip file; unpack it once"),
    (
        b"version https://git-lfs",
        "the pointer of a file in Git LFS, not the file; fetch it with git lfs pull",
    ),
)
_WEB = (b"<!doctype html", b"<html", b"<?xml")
# Names in a folder that are looked at for a table.
_MOST_NAMES = 1000


def check_known(path: str, head: bytes, unpacked: bytes) -> None:
    """Check that a file does not start like a format that is no table.

    Args:
      path: path of the file.
      head: first 512 bytes of the file.
      unpacked: first 512 bytes of what it holds, if it is gzipped, else ``head``.

    Raises:
      InputError: if it is of a known other format; the message names that and says
        what to do.
    """
    found = _name(path, unpacked)
    if head.startswith(b"BZh"):
        found = _name_of_bzip2(path)
    if found:
        gzipped = "gzipped, " if head != unpacked else ""
        raise InputError(f"table {path} is {gzipped}{found}")


def _name(path: str, head: bytes) -> str | None:
    if _is_tar(head) or (path.endswith(".tar") and head):
        return f"a .tar archive; {_UNPACK} (for NATS-Bench, the folder)"
    # Protocols 2 to 5; older pickles are text and known by the file's name only.
    pickled = head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    if pickled or (path.endswith((".pickle", ".pkl")) and head):
        return _PICKLE
    if head.lstrip().lower().startswith(_WEB):
        return "a web page; fetch the file itself, not the page about it"
    return next((name for start, name in _STARTS if head.startswith(start)), None)


def _name_of_bzip2(path: str) -> str | None:
    """Name what a .bz2 file holds, unless it may be a pickle of NATS-Bench."""
    try:
        with bz2.open(path) as file:
            head = file.read(512)
    except (EOFError, OSError):
        return None
    if _is_tar(head):
        return f"a .tar.bz2 archive; {_UNPACK} (for NATS-Bench, the folder)"
    line = head.split(b"\n")[0]
    if b"arch" in line and (b"," in line or b";" in line):
        return "a CSV file packed by bzip2; unpack it, or pack it by gzip"
    return None


def _is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar"


def check_zip(path: str, names: list[str]) -> None:
    """Check that a zip archive may hold NumPy arrays.

    Raises:
      InputError: if it is a workbook or an archive of other files.
    """
    if "[Content_Types].xml" in names:
        raise InputError(f"table {path} is an Excel workbook; {_AS_CSV}")
    if not any(name.endswith(".npy") for name in names):
        example = f", such as {names[0]}" if names else ""
        held = f"{len(names):,} files{example}"
        raise InputError(f"table {path} is a .zip archive of {held}; {_UNPACK}")


def advice_on_folder(path: str, meta: str) -> str:
    """Return what to name instead of a folder that is no table.

    Args:
      path: path of the folder.
      meta: name of the file that a folder that is a table has.
    """
    with os.scandir(path) as entries:
        names = sorted(entry.name for entry in islice(entries, _MOST_NAMES))
    for name in names:
        inner = Path(path) / name
        if inner.is_dir() and (inner / meta).is_file():
            return f"; name {inner}"
        if name.endswith((".csv", ".csv.gz")):
            return f"; name the table in it, such as {inner}"
    return ""
