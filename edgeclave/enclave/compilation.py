"""Compiled code: made in a short-lived child with caps, cached outside, trusted only by its MAC (PROTOCOL section 4).

wasmtime compiles a Python trusted application in seconds and hundreds of MB, so the child that does it ends before the
instance runs. What it made is kept by the host as `MAC | serialized code`. Compiled code is native code: whoever can
change it owns the enclave, and wasmtime does not notice. So the bytes are first copied into a memfd that is sealed
against writing, then checked there, then loaded from there, and the host can change nothing in between.
"""

from __future__ import annotations

import fcntl
import hmac
import mmap
import os
import resource
import select
import signal
import time
from dataclasses import dataclass

from wasmtime import Engine, WasmtimeError
from wasmtime.component import Component

from edgeclave.cose import dcbor
from edgeclave.enclave.engine import fingerprint, make_engine
from edgeclave.enclave.lockdown import end_with_parent
from edgeclave.enclave.log import enclave_log
from edgeclave.errors import EnclaveError, PackageError

MAC_BYTES = 32
MAX_COMPILED_BYTES = 512 << 20
_COPY_BYTES = 8 << 20
_MAX_ERROR_BYTES = 2000
_F_ADD_SEALS = 1033  # fcntl.h; the fcntl module has the names from Python 3.12 on
_ALL_SEALS = 0x000F  # F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE
_REFUSED = 2  # exit code of a child whose Wasm the compiler refused; the text is in the output


@dataclass(frozen=True)
class CompileLimits:
    """What one compilation may use. A Python trusted application takes 12 s of one fast core and 700 MB."""

    seconds: int = 300
    processor_seconds: int = 300
    data_bytes: int = 2 << 30


DEFAULT_LIMITS = CompileLimits()


@dataclass(frozen=True)
class CachedCode:
    """A copy of a cache file that nobody can change: its MAC, not yet checked, and the code in a sealed memfd."""

    mac: bytes
    memory: int

    @classmethod
    def copy(cls, cached: int) -> CachedCode | None:
        """None when there is no file of a plausible size behind the descriptor."""
        size = os.fstat(cached).st_size - MAC_BYTES
        if not 0 < size <= MAX_COMPILED_BYTES:
            return None
        memory = _memory_file()
        mac = os.pread(cached, MAC_BYTES, 0)
        _copy(cached, memory, MAC_BYTES, size)
        _seal(memory)
        if os.fstat(memory).st_size == size:
            return cls(mac, memory)
        os.close(memory)  # the file shrank while it was copied
        return None


class CompiledCodeCache:
    """Compiled code of one Wasm module, under one MAC key."""

    def __init__(self, key: bytes, wasm_digest: bytes, *, debug: bool) -> None:
        """`key`: unique to this runtime on this device; `debug`: the effective debug state."""
        self._key = key
        self._bound_to = dcbor(["edgeclave/compiled-code/1", wasm_digest, fingerprint(), debug])

    def load(self, engine: Engine, cached: CachedCode) -> Component | None:
        """The component, and closes the memfd; None when the code is stale or was tampered with."""
        try:
            if not hmac.compare_digest(cached.mac, self._mac(cached.memory)):
                return None
            return _deserialize(engine, cached.memory)
        finally:
            os.close(cached.memory)

    def compile(self, engine: Engine, wasm: bytes, keep: int | None, limits: CompileLimits) -> Component:
        """Compiles, and writes what the host should keep to the descriptor `keep`.

        Raises:
            PackageError: `wasm-refused`, `compile-limit`.
        """
        memory = _memory_file()
        try:
            _compile_in_child(wasm, memory, limits)
            _seal(memory)
            if keep is not None:
                self._keep(memory, keep)
            return _deserialize(engine, memory)
        finally:
            os.close(memory)

    def _keep(self, sealed_memory: int, keep: int) -> None:
        """A full disk costs the next start its time, and is no reason to fail this one."""
        try:
            _write_all(keep, self._mac(sealed_memory))
            _copy(sealed_memory, keep, 0, os.fstat(sealed_memory).st_size)
        except OSError as error:
            enclave_log("warning", f"compiled code could not be kept for the next start: {error.strerror}")

    def _mac(self, sealed_memory: int) -> bytes:
        with mmap.mmap(sealed_memory, 0, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE) as code:
            mac = hmac.new(self._key, self._bound_to, "sha256")
            mac.update(code)
            return mac.digest()


def _compile_in_child(wasm: bytes, memory: int, limits: CompileLimits) -> None:
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _compile_and_exit(wasm, memory, limits, parent)
    status = _wait(child, limits.seconds)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
        return
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == _REFUSED:
        why = os.pread(memory, _MAX_ERROR_BYTES, 0).decode(errors="replace")
        raise PackageError("wasm-refused", f"this is not a component that can run: {why}", where="Wasm")
    raise PackageError(
        "compile-limit",
        f"compiling took more than {limits.processor_seconds} s or {limits.data_bytes >> 20} MiB",
        where="Wasm",
        advice="make the code smaller",
    )


def _compile_and_exit(wasm: bytes, memory: int, limits: CompileLimits, parent: int) -> None:
    """Runs in the child, which leaves only by os._exit."""
    code = 1
    try:
        end_with_parent()
        if os.getppid() != parent:
            os._exit(code)  # it ended before the line above
        resource.setrlimit(resource.RLIMIT_DATA, (limits.data_bytes, limits.data_bytes))
        resource.setrlimit(resource.RLIMIT_CPU, (limits.processor_seconds, limits.processor_seconds))
        try:
            compiled = Component(make_engine(parallel_compilation=True), wasm).serialize()
        except WasmtimeError as error:
            _write_all(memory, " ".join(str(error).split())[: _MAX_ERROR_BYTES // 4].encode())
            code = _REFUSED
        else:
            _write_all(memory, compiled)
            code = 0
    finally:
        os._exit(code)


def _wait(child: int, seconds: float) -> int:
    """Exit status of the child, which is killed when its time is over."""
    deadline = time.monotonic() + seconds
    handle = os.pidfd_open(child)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    finally:
        os.close(handle)
    return os.waitpid(child, 0)[1]


def _memory_file() -> int:
    return os.memfd_create("compiled-code", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def _seal(memory: int) -> None:
    fcntl.fcntl(memory, _F_ADD_SEALS, _ALL_SEALS)


def _deserialize(engine: Engine, sealed_memory: int) -> Component:
    try:
        return Component.deserialize_file(engine, f"/proc/self/fd/{sealed_memory}")
    except WasmtimeError as error:
        raise EnclaveError(
            "compiled-code-unusable", f"verified compiled code does not load: {str(error)[:300]}"
        ) from error


def _copy(source: int, destination: int, offset: int, size: int) -> None:
    while size > 0:
        copied = os.sendfile(destination, source, offset, min(size, _COPY_BYTES))
        if copied == 0:
            return  # a file that shrank
        offset += copied
        size -= copied


def _write_all(descriptor: int, data: bytes | bytearray) -> None:
    remaining = memoryview(data)
    while remaining:
        remaining = remaining[os.write(descriptor, remaining) :]
