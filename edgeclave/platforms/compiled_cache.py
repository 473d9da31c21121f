"""Where the host keeps compiled code between starts. What is in it is not trusted: the enclave checks its MAC.

A file per package and release of the compiler; the least recently used go when there are too many.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

MAX_FILES = 16
_SUFFIX = ".compiled"
_INDEX_BYTES = 16 << 10  # the end of a package, which names its digest: enough to find code that is checked elsewhere


@dataclass
class CacheSlot:
    """Descriptors for one start: `cached` to read (None on a miss), `fresh` to write. Close it in any case."""

    path: Path
    temporary: Path
    cached: int | None
    fresh: int

    def close(self) -> None:
        """Lets go of the descriptors, once the enclave has its own."""
        for descriptor in (self.cached, self.fresh):
            if descriptor is not None and descriptor >= 0:
                os.close(descriptor)
        self.cached, self.fresh = None, -1

    def keep(self) -> None:
        """Takes what the enclave wrote as the cached code from now on; a folder that is gone costs only time."""
        with contextlib.suppress(OSError):
            self.temporary.replace(self.path)

    def discard(self) -> None:
        self.temporary.unlink(missing_ok=True)


class CompiledCodeCache:
    """A folder of compiled code, 0700."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, package: Path) -> CacheSlot:
        """Raises OSError when package or folder cannot be used."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with package.open("rb") as file:
            file.seek(max(0, package.stat().st_size - _INDEX_BYTES))
            digest = hashlib.sha256(file.read(_INDEX_BYTES)).hexdigest()
        path = self._folder / f"{digest}-{version('wasmtime')}-{os.uname().machine}{_SUFFIX}"
        cached: int | None = None
        try:
            cached = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            os.utime(cached)
        except FileNotFoundError:
            self._make_room()
        fresh, temporary = tempfile.mkstemp(dir=self._folder, prefix=".", suffix=_SUFFIX)
        return CacheSlot(path, Path(temporary), cached, fresh)

    def _make_room(self) -> None:
        files = sorted(self._folder.glob(f"[!.]*{_SUFFIX}"), key=lambda path: path.stat().st_mtime)
        for path in files[: max(0, len(files) - MAX_FILES + 1)]:
            path.unlink(missing_ok=True)
