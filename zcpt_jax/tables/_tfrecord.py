"""Reading of TFRecord files without TensorFlow."""

import functools
import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

from zcpt_jax.types import InputError

_HEAD, _TAIL = 12, 4


def starts_like_tfrecord(head: bytes) -> bool:
    """Return whether the first twelve bytes are a length and its checksum."""
    return len(head) >= _HEAD and _length(head[:_HEAD]) is not None


def read_records(path: str, file: BinaryIO) -> Iterator[bytes]:
    """Iterate over the records of a TFRecord file.

    A record is its length, uint64, the masked CRC-32C of these eight bytes, the data,
    and the masked CRC-32C of the data (TensorFlow's ``tfrecord`` format). The checksum
    of the data is not verified: in Python that would take longer than everything else.

    Args:
      path: path of the file, for error messages.
      file: binary file, positioned at its start.

    Raises:
      InputError: if the file is truncated or a length does not match its checksum.
    """
    left = os.fstat(file.fileno()).st_size
    number = 0
    while left:
        head = file.read(_HEAD)
        length = _length(head) if len(head) == _HEAD else 0
        if length is None:
            raise InputError(
                f"table {path} is damaged: the length of record {number} does not fit "
                "its checksum; fetch the file anew"
            )
        left -= _HEAD + length + _TAIL
        # A wrong length must not cause a huge read, so compare it with the file's size.
        if left < 0:
            raise InputError(
                f"table {path} is cut off in record {number}: it lacks {-left:,} "
                "bytes; fetch the file anew"
            )
        yield file.read(length)
        file.read(_TAIL)
        number += 1


@functools.lru_cache(maxsize=1 << 16)
def _length(head: bytes) -> int | None:
    length, checksum = struct.unpack("<QI", head)
    return length if _masked_crc(head[:8]) == checksum else None


def _masked_crc(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _crc_of_byte(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC_TABLE = [_crc_of_byte(byte) for byte in range(256)]
