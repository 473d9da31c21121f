"""From a package file to a component that may run: verified, measured, checked against what it is granted, compiled."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from wasmtime import Engine, WasmtimeError
from wasmtime.component import Component
from wasmtime.component._types import ComponentExtern

from edgeclave.enclave.compilation import DEFAULT_LIMITS
from edgeclave.enclave.compiled_code import CodeFile, CompiledCode
from edgeclave.enclave.engine import fingerprint
from edgeclave.enclave.hardware import Hardware
from edgeclave.enclave.imports import check_imports
from edgeclave.enclave.key_derivation import unique_key
from edgeclave.enclave.storage import storage_level
from edgeclave.errors import PackageError
from edgeclave.evidence.eat import StorageLevel
from edgeclave.ta.identity import Identity
from edgeclave.ta.manifest import Manifest
from edgeclave.ta.package import DEFAULT_LIMITS as PACKAGE_LIMITS
from edgeclave.ta.package import read_package
from edgeclave.ta.signature import verify_package
from edgeclave.ta.wrapping import as_component


@dataclass(frozen=True)
class Files:
    """Descriptors that the host passed: the package, compiled code, and an empty memory file to make it anew."""

    package: int
    cached: int | None
    fresh: int | None


@dataclass(frozen=True)
class Loaded:
    """`identity.debug` is the effective debug state. `compiled`: the cache could not be used."""

    identity: Identity
    manifest: Manifest
    component: Component
    imports: Mapping[str, ComponentExtern]
    compiled: bool


def load(files: Files, hardware: Hardware, engine: Engine) -> Loaded:
    """Verifies and loads a package, and closes the descriptors.

    Raises:
        PackageError: from reading and verifying the package; `not-a-component`, `core-module-refused`,
            `no-invoke`, `wasm-refused`, `compile-limit`, `import-refused`, `storage-protection-unavailable`.
    """
    # Hashing 50 MB of compiled code and verifying 19 MB of package are half of a warm start: do them side by side.
    ahead = _Ahead(lambda: _read_cached(files.cached))
    try:
        verified = verify_package(read_package(_read(files.package)))
        cached = ahead.result()
        identity = replace(verified.identity, debug=verified.identity.debug or hardware.debug)
        _check_storage_protection(verified.manifest, storage_level(hardware))
        wasm = as_component(verified.wasm)
        # unique_id covers the Wasm, so that 19 MB need not be hashed once more.
        key = unique_key(hardware, identity, "compiled-code")
        code = CompiledCode(key, identity.unique_id, debug=identity.debug)
        component = None if files.cached is None or hardware.debug else code.load(engine, cached)
        compiled = component is None and not hardware.debug
        if hardware.debug:
            component = _compile_for_debugger(engine, wasm)
        elif component is None:
            component = code.compile(engine, wasm, files.fresh, DEFAULT_LIMITS)
    finally:
        ahead.join()
        for descriptor in (files.package, files.cached, files.fresh):
            if descriptor is not None:
                os.close(descriptor)
    imports = component.type.imports(engine)
    check_imports(imports)
    return Loaded(identity, verified.manifest, component, imports, compiled)


class _Ahead(threading.Thread):
    """Work in a thread of its own, which has ended when its result is there."""

    def __init__(self, work: Callable[[], CodeFile | None]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._result: CodeFile | None = None
        self.start()

    def run(self) -> None:
        self._result = self._work()

    def result(self) -> CodeFile | None:
        self.join()
        return self._result


def _read_cached(descriptor: int | None) -> CodeFile | None:
    fingerprint()  # reads the whole wasmtime library, and is remembered
    return None if descriptor is None else CodeFile.read(descriptor)


def _compile_for_debugger(engine: Engine, wasm: bytes) -> Component:
    """In this process and into no cache: a debugger need not follow a child, and the code serves one session."""
    try:
        return Component(engine, wasm)
    except WasmtimeError as error:
        raise PackageError(
            "wasm-refused", f"this is not a component that can run: {str(error)[:500]}", where="Wasm"
        ) from error


def _check_storage_protection(manifest: Manifest, offered: StorageLevel) -> None:
    if manifest.storage_protection == "rollback-protected" and offered == "consistent":
        raise PackageError(
            "storage-protection-unavailable",
            f"the manifest requires {manifest.storage_protection} storage, this platform offers {offered}",
            where="manifest: storage_protection",
            advice="run it on a platform with a counter (`emulator-with-counter` for development), or require less",
        )


def _read(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    if size > PACKAGE_LIMITS.package:
        raise PackageError(
            "package-too-large", f"{size} bytes are over the limit of {PACKAGE_LIMITS.package}", where="package"
        )
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        return file.read(PACKAGE_LIMITS.package + 1)
