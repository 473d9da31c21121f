"""From a package file to a component that may run: verified, measured, checked against what it is granted, compiled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from wasmtime import Engine, WasmtimeError
from wasmtime.component import Component
from wasmtime.component._types import ComponentExtern

from edgeclave.enclave.compilation import DEFAULT_LIMITS
from edgeclave.enclave.compiled_code import CompiledCode
from edgeclave.enclave.engine import make_engine
from edgeclave.enclave.files import Files
from edgeclave.enclave.hardware import Hardware
from edgeclave.enclave.imports import check_imports
from edgeclave.enclave.key_derivation import unique_key
from edgeclave.enclave.messages import Compiled
from edgeclave.enclave.storage import storage_level
from edgeclave.errors import PackageError
from edgeclave.evidence.eat import StorageLevel
from edgeclave.evidence.runtime import require_measured
from edgeclave.ta.identity import Identity
from edgeclave.ta.manifest import Manifest
from edgeclave.ta.signature import VerifiedPackage, verify_package


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
    try:
        package, cached = files.read()
        verified = verify_package(package)
        identity = replace(verified.identity, debug=verified.identity.debug or hardware.debug)
        _check_storage_protection(verified.manifest, storage_level(hardware))
        # unique_id covers the Wasm, so that 19 MB need not be hashed once more.
        key = unique_key(hardware, identity, "compiled-code")
        code = CompiledCode(key, identity.unique_id, debug=identity.debug)
        component = None if files.cached is None or hardware.debug else code.load(engine, cached)
        compiled = component is None and not hardware.debug
        if hardware.debug:
            component = _compile_for_debugger(engine, _component(verified))
        elif component is None:
            component = code.compile(engine, _component(verified), files.fresh, DEFAULT_LIMITS)
    finally:
        files.close()
    imports = component.type.imports(engine)
    check_imports(imports)
    return Loaded(identity, verified.manifest, component, imports, compiled)


def compile_ahead(files: Files, hardware: Hardware) -> Compiled:
    """What `load` does, for the code that it leaves with the host: no other key is derived, and nothing of it runs.

    Raises:
        PackageError, EnclaveError: what `load` raises; `unmeasured-code`.
    """
    loaded = load(files, hardware, make_engine(debuggable=hardware.debug))
    hardware.close_derivation()
    require_measured()
    return Compiled(compiled=loaded.compiled)


def _component(package: VerifiedPackage) -> bytes:
    from edgeclave.ta.wrapping import as_component  # what was compiled once was accepted: most starts do not need it

    return as_component(bytes(package.wasm))


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
