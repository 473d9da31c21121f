"""What the host passed as descriptors: read, and hashed, in a thread of its own.

Compiled code, package and the wasmtime library are 100 MB for a Python trusted application. Hashing them takes as long
as importing what runs them, needs no key and lets other threads run: so it begins before the imports, and this module
imports next to nothing. Nothing here is believed yet; `loading` decides.
"""

from __future__ import annotations

import hashlib
import importlib.util
import mmap
import os
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from edgeclave.enclave import memory_files

if TYPE_CHECKING:
    from edgeclave.ta.package import Package

MAX_COMPILED_BYTES = 512 << 20
_POLL_SECONDS = 0.001
DIGEST_BYTES = 32
TRAILER_BYTES = 2 * DIGEST_BYTES


@dataclass(frozen=True)
class CodeFile:
    """An unchangeable memory file of compiled code, read but not yet believed; see `compiled_code`."""

    descriptor: int
    code_digest: bytes
    made_for: bytes
    mac: bytes

    @classmethod
    def read(cls, descriptor: int) -> CodeFile | None:
        """None when it can still be changed or has no plausible size. Needs no key, only time: 50 MB for Python."""
        size = os.fstat(descriptor).st_size
        if not TRAILER_BYTES < size <= MAX_COMPILED_BYTES or not memory_files.is_unchangeable(descriptor):
            return None
        with (
            mmap.mmap(descriptor, size, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE) as content,
            memoryview(content) as view,
            view[:-TRAILER_BYTES] as code,
        ):
            trailer = bytes(view[-TRAILER_BYTES:])
            digest = hashlib.sha256(code).digest()
        return cls(descriptor, digest, trailer[:DIGEST_BYTES], trailer[DIGEST_BYTES:])


class Files:
    """Descriptors of the package, of compiled code, and of an empty memory file to make it anew."""

    def __init__(self, package: int, cached: int | None, fresh: int | None) -> None:
        self.cached = cached
        self.fresh = fresh
        self._package_descriptor = package
        self._code: CodeFile | None = None
        self._package: Package | None = None
        self._failure: BaseException | None = None
        self._asked_to_start = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def begin_reading(self) -> None:
        """Starts the thread, which ends by itself."""
        self._thread.start()

    def read(self) -> tuple[Package, CodeFile | None]:
        """Waits for the thread, or starts it. Call it once the host asked to start: code that could still be changed by
        then is not used.

        Raises:
            PackageError: from reading the package.
        """
        if self._thread.ident is None:
            self.begin_reading()
        self._asked_to_start.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        assert self._package is not None
        return self._package, self._code

    def close(self) -> None:
        """Once nothing reads any more."""
        self._thread.join()
        for descriptor in (self._package_descriptor, self.cached, self.fresh):
            if descriptor is not None:
                os.close(descriptor)

    def _read(self) -> None:
        try:
            library_digest()  # remembered
            self._package = _read_package(self._package_descriptor)
            if self.cached is not None:
                self._wait_for_code(self.cached)
                self._code = CodeFile.read(self.cached)
        except BaseException as error:
            self._failure = error

    def _wait_for_code(self, descriptor: int) -> None:
        """The host may still be writing it while this process imports."""
        while not memory_files.is_unchangeable(descriptor) and not self._asked_to_start.wait(_POLL_SECONDS):
            pass


@lru_cache(maxsize=1)
def library_digest() -> bytes:
    """SHA-256 of the wasmtime library, found without importing it."""
    found = importlib.util.find_spec("wasmtime")
    assert found is not None
    assert found.origin is not None
    (library,) = Path(found.origin).parent.glob("*/*wasmtime*.so")
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return hashlib.sha256(content).digest()


def _read_package(descriptor: int) -> Package:
    from edgeclave.errors import PackageError
    from edgeclave.ta.package import DEFAULT_LIMITS, read_package

    size = os.fstat(descriptor).st_size
    if size > DEFAULT_LIMITS.package:
        raise PackageError(
            "package-too-large", f"{size} bytes are over the limit of {DEFAULT_LIMITS.package}", where="package"
        )
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        return read_package(file.read(DEFAULT_LIMITS.package + 1))
