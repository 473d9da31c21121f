"""Compiled code between starts, and shared between instances. What is in it is not trusted: the enclave checks its MAC.

On disk it is a file per package and release of the compiler; the least recently used go when there are too many. While
instances run, all that run the same code get the same memory file, which nobody can change: so it is in memory once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

from edgeclave.enclave import memory_files
from edgeclave.enclave.files import MAX_COMPILED_BYTES

MAX_FILES = 16
_SUFFIX = ".compiled"
_INDEX_BYTES = 16 << 10  # the end of a package, which names its digest: enough to find code that is checked elsewhere


@dataclass(eq=False)
class _CodeInUse:
    """A memory file with compiled code, closed when its last user has let go. `source` is what it is yet to be read
    from; the lock is held meanwhile, so that of many who start at once only one reads."""

    path: Path
    descriptor: int
    source: int | None = None
    users: int = 0
    filling: threading.Lock = field(default_factory=threading.Lock)

    def fill(self) -> None:
        """Raises OSError; then the file stays one that could still be changed, and no enclave uses it."""
        with self.filling:
            if self.source is None:
                return
            source, self.source = self.source, None
            try:
                memory_files.copy(source, self.descriptor, MAX_COMPILED_BYTES)
                memory_files.make_unchangeable(self.descriptor)
            finally:
                os.close(source)

    def close(self) -> None:
        os.close(self.descriptor)
        if self.source is not None:
            os.close(self.source)


class CacheSlot:
    """What one start needs: `cached`, the code to run (None on a miss), and `fresh`, an empty memory file.

    The code is there once `fill` has returned, which takes long enough to let the enclave start meanwhile. Close the
    slot in any case. An instance that runs the code holds it beyond that: `hold` returns how to let go.
    """

    def __init__(self, cache: CompiledCodeCache, path: Path, code: _CodeInUse | None) -> None:
        self._cache = cache
        self._path = path
        self._code = code
        self.fresh = memory_files.create("compiled-code")

    @property
    def cached(self) -> int | None:
        return None if self._code is None else self._code.descriptor

    def fill(self) -> None:
        """Reads the code into memory, or waits for whoever does. Raises OSError."""
        if self._code is None:
            return
        try:
            self._code.fill()
        except OSError:
            self._cache.forget(self._code)
            raise

    def keep(self) -> None:
        """Takes what the enclave compiled as the code from now on, here and on disk."""
        if not memory_files.is_unchangeable(self.fresh):
            return  # the enclave had no memory for it, and said so
        code, self.fresh = self._cache.replace(self._path, self.fresh), -1
        self._release()
        self._code = code

    def hold(self) -> Callable[[], None]:
        """The code stays for others to share until the returned function is called."""
        if self._code is None:
            return lambda: None
        return partial(self._cache.release, self._cache.use(self._code))

    def close(self) -> None:
        self._release()
        if self.fresh >= 0:
            os.close(self.fresh)
            self.fresh = -1

    def _release(self) -> None:
        if self._code is not None:
            self._cache.release(self._code)
            self._code = None


class CompiledCodeCache:
    """A folder of compiled code, 0700, and the code in use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._in_use: dict[Path, _CodeInUse] = {}
        self._lock = threading.RLock()

    def open(self, package: Path) -> CacheSlot:
        """Raises OSError when package or folder cannot be used."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with package.open("rb") as file:
            file.seek(max(0, package.stat().st_size - _INDEX_BYTES))
            digest = hashlib.sha256(file.read(_INDEX_BYTES)).hexdigest()
        path = self._folder / f"{digest}-{version('wasmtime')}-{os.uname().machine}{_SUFFIX}"
        with self._lock:
            code = self._in_use.get(path) or self._find(path)
            return CacheSlot(self, path, None if code is None else self.use(code))

    def replace(self, path: Path, descriptor: int) -> _CodeInUse:
        """From now on this is what `path` stands for; a disk that is full costs the next first start its time."""
        with contextlib.suppress(OSError):
            self._write(path, descriptor)
        with self._lock:
            return self.use(self._put(path, descriptor))

    def use(self, code: _CodeInUse) -> _CodeInUse:
        with self._lock:
            code.users += 1
            return code

    def release(self, code: _CodeInUse) -> None:
        with self._lock:
            code.users -= 1
            if code.users == 0:
                code.close()
                self.forget(code)

    def forget(self, code: _CodeInUse) -> None:
        """Nobody else gets it."""
        with self._lock:
            if self._in_use.get(code.path) is code:
                del self._in_use[code.path]

    def _put(self, path: Path, descriptor: int, source: int | None = None) -> _CodeInUse:
        self._in_use[path] = code = _CodeInUse(path, descriptor, source)
        return code

    def _find(self, path: Path) -> _CodeInUse | None:
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            os.utime(file)
            return self._put(path, memory_files.create("compiled-code"), file)
        except BaseException:
            os.close(file)
            raise

    def _write(self, path: Path, code: int) -> None:
        self._make_room()
        file, name = tempfile.mkstemp(dir=self._folder, prefix=".", suffix=_SUFFIX)
        temporary = Path(name)
        try:
            memory_files.copy(code, file, MAX_COMPILED_BYTES)
            temporary.replace(path)
        finally:
            os.close(file)
            temporary.unlink(missing_ok=True)

    def _make_room(self) -> None:
        files = sorted(self._folder.glob(f"[!.]*{_SUFFIX}"), key=lambda path: path.stat().st_mtime)
        for path in files[: max(0, len(files) - MAX_FILES + 1)]:
            path.unlink(missing_ok=True)
