"""Files in memory that can be passed on and, once made unchangeable, be written by nobody any more (memfd_create(2)).

The kernel grants that only while no writable mapping exists, and for good: so what was checked in such a file stays
what was checked, whoever else holds a descriptor, and its pages can be shared without trust.
"""

from __future__ import annotations

import fcntl
import os

_F_ADD_SEALS, _F_GET_SEALS = 1033, 1034  # linux/fcntl.h; the fcntl module has the names from Python 3.12 on
_UNCHANGEABLE = 0x000E  # F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE
_NO_MORE_SEALS = 0x0001  # F_SEAL_SEAL
_COPY_BYTES = 8 << 20


def create(name: str) -> int:
    """An empty one; not inherited by programs unless passed to them."""
    return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def make_unchangeable(descriptor: int) -> None:
    """Raises OSError when it is no memory file or is mapped for writing."""
    fcntl.fcntl(descriptor, _F_ADD_SEALS, _UNCHANGEABLE | _NO_MORE_SEALS)


def is_unchangeable(descriptor: int) -> bool:
    try:
        return fcntl.fcntl(descriptor, _F_GET_SEALS) & _UNCHANGEABLE == _UNCHANGEABLE
    except OSError:
        return False  # any other kind of file


def copy(source: int, destination: int, size: int) -> int:
    """Copies the first `size` bytes to the end of `destination`; returns how many there were. Raises OSError."""
    offset = 0
    while offset < size:
        copied = os.sendfile(destination, source, offset, min(size - offset, _COPY_BYTES))
        if copied == 0:
            break
        offset += copied
    return offset


def write_all(descriptor: int, data: bytes | bytearray) -> None:
    """Raises OSError."""
    remaining = memoryview(data)
    while remaining:
        remaining = remaining[os.write(descriptor, remaining) :]
