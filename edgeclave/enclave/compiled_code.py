"""Compiled code: kept by the host, shared by all instances that run it, trusted only by its MAC (PROTOCOL section 4).

Compiled code is native code: whoever can change it owns the enclave, and wasmtime does not notice. So it comes in a
memory file, and these rules hold:

- a file that could still be changed is not looked at
- the MAC, under a key of this runtime on this device, is checked over the very bytes that are mapped and run
- what was made for another Wasm, compiler, configuration, processor or debug state is not used

The file is `code | SHA-256 of what it was made for | MAC`. Its pages are the same memory in every instance.
"""

from __future__ import annotations

import hashlib
import hmac
import mmap
import os

from wasmtime import Engine, WasmtimeError
from wasmtime.component import Component

from edgeclave.cose import dcbor, sha256
from edgeclave.enclave import memory_files
from edgeclave.enclave.compilation import CompileLimits, compile_to
from edgeclave.enclave.engine import fingerprint
from edgeclave.enclave.files import CodeFile
from edgeclave.enclave.log import enclave_log
from edgeclave.errors import EnclaveError


class CompiledCode:
    """Compiled code of one Wasm module, under one MAC key."""

    def __init__(self, key: bytes, unique_id: bytes, *, debug: bool) -> None:
        """`key`: unique to this runtime on this device; `unique_id`: of the package the Wasm is from, which it covers;
        `debug`: the effective debug state."""
        self._key = key
        self._made_for = sha256(dcbor(["edgeclave/compiled-code/2", unique_id, fingerprint(), debug]))

    def load(self, engine: Engine, file: CodeFile | None) -> Component | None:
        """None, with a line in the log, when the code is not to be used."""
        if file is None:
            enclave_log("warning", "compiled code is not used: it has no plausible size, or could still be changed")
        elif file.made_for != self._made_for:
            enclave_log(
                "warning",
                "compiled code is not used: it is not ours, or of another compiler, processor or debug state",
            )
        elif not hmac.compare_digest(file.mac, self._mac(file.code_digest)):
            enclave_log("warning", "compiled code is not used: it was altered, or made on another device or release")
        else:
            return _deserialize(engine, file.descriptor)
        return None

    def compile(self, engine: Engine, wasm: bytes, share: int | None, limits: CompileLimits) -> Component:
        """Compiles. `share`: an empty memory file of the host, which gets the code for the instances to come.

        Raises:
            PackageError: `wasm-refused`, `compile-limit`.
            EnclaveError: `compiler-failed`.
        """
        own = memory_files.create("compiled-code")
        try:
            compile_to(own, wasm, limits)
            self._finish(own)
            shared = None if share is None else self._share(engine, own, share)
            return shared or _deserialize(engine, own)
        finally:
            os.close(own)

    def _finish(self, own: int) -> None:
        """Nobody but this process holds the file any more, so what is in it is what the compiler wrote."""
        size = os.fstat(own).st_size
        with mmap.mmap(own, size, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE) as code:
            digest = hashlib.sha256(code).digest()
        os.lseek(own, 0, os.SEEK_END)
        memory_files.write_all(own, self._made_for + self._mac(digest))
        memory_files.make_unchangeable(own)

    def _share(self, engine: Engine, own: int, share: int) -> Component | None:
        """What the host's file holds is checked like any other. A host without memory for it costs only time."""
        try:
            memory_files.copy(own, share, os.fstat(own).st_size)
            memory_files.make_unchangeable(share)
        except OSError as error:
            enclave_log("warning", f"compiled code could not be kept for the next start: {error.strerror}")
            return None
        return self.load(engine, CodeFile.read(share))

    def _mac(self, code_digest: bytes) -> bytes:
        return hmac.digest(self._key, self._made_for + code_digest, "sha256")


def _deserialize(engine: Engine, unchangeable: int) -> Component:
    try:
        return Component.deserialize_file(engine, f"/proc/self/fd/{unchangeable}")
    except WasmtimeError as error:
        raise EnclaveError(
            "compiled-code-unusable", f"verified compiled code does not load: {str(error)[:300]}"
        ) from error
