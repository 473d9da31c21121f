"""What would stop a trusted application, where, before it is deployed: the enclave's own checks, asked beforehand.

Grants are enforced when a service is asked for, not at load. A core module imports the functions that it uses, so a
missing grant shows beforehand; a component imports the whole `tee` interface, whatever it uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from edgeclave.enclave.imports import TEE_INTERFACE, check_imports
from edgeclave.errors import PackageError
from edgeclave.ta.binary import CORE_MODULE
from edgeclave.ta.core_module import check_core_module, read_core_module
from edgeclave.ta.imports import Interface, component_interface
from edgeclave.ta.manifest import Manifest, StorageProtection
from edgeclave.ta.package import DEFAULT_LIMITS

Effect = Literal[
    "does not load", "readers refuse it", "calls are refused", "emitting is refused", "the service is refused"
]
ENTRY = "invoke"
PLATFORMS: dict[str, StorageProtection] = {
    "emulator": "consistent",
    "emulator-with-counter": "rollback-protected",
}
"""Platforms of this machine, with the storage protection that each offers."""
EVERYWHERE = "everywhere"
_SERVICES = {"get": "storage", "put": "storage", "delete": "storage", "unseal": "seal", "increment": "counter"}
_FREE = ("storage-protection", "caller", "emulated")  # only tell about the call and the platform


@dataclass(frozen=True)
class Obstacle:
    """`where` is a platform, `everywhere`, or who refuses it; `code` is the one of the refusal, if it has one."""

    where: str
    effect: Effect
    code: str
    what: str
    advice: str


def of_wasm(wasm: bytes) -> Iterator[Obstacle]:
    """What stops the code, whatever its manifest says.

    Raises:
        PackageError: `not-a-component`, `core-module-refused`: it cannot even be read.
    """
    interface = component_interface(wasm)
    if wasm.startswith(CORE_MODULE):
        yield from _refusals(lambda: check_core_module(wasm))
    else:
        yield from _of_component(interface)
    if len(wasm) > DEFAULT_LIMITS.wasm:
        what = f"{len(wasm)} bytes are over the limit of {DEFAULT_LIMITS.wasm}"
        yield Obstacle(EVERYWHERE, "does not load", "package-too-large", what, "leave out what is not needed")


def _of_component(interface: Interface) -> Iterator[Obstacle]:
    older = [name for name in interface.imports if _is_other_version(name)]
    if older:
        yield Obstacle(
            EVERYWHERE,
            "does not load",
            "import-refused",
            f"it was built for {older[0]}; this release offers {TEE_INTERFACE}",
            "build it again with this release",
        )
    yield from _refusals(lambda: check_imports(name for name in interface.imports if name not in older))
    if ENTRY not in interface.exports:
        yield Obstacle(
            EVERYWHERE,
            "does not load",
            "no-invoke",
            f"it does not export {ENTRY}, by which methods are called",
            "build it against the WIT of this release",
        )


def _refusals(check: Callable[[], object]) -> Iterator[Obstacle]:
    try:
        check()
    except PackageError as error:
        yield Obstacle(EVERYWHERE, "does not load", error.code, error.what, error.advice)


def of_manifest(manifest: Manifest) -> Iterator[Obstacle]:
    """What the manifest asks for and a platform of this machine does not give, or contradicts itself."""
    for platform, offered in PLATFORMS.items():
        if manifest.storage_protection == "rollback-protected" and offered == "consistent":
            yield Obstacle(
                platform,
                "does not load",
                "storage-protection-unavailable",
                f"it requires {manifest.storage_protection} storage, the platform offers {offered}",
                "run it where there is a trusted counter, or require less",
            )
    if manifest.debug:
        yield Obstacle(
            "production policies",
            "readers refuse it",
            "debug-trusted-app",
            "it is signed with debug = true",
            "sign a release with debug = false",
        )
    for name, method in manifest.methods.items():
        if method.channel != "any":
            yield Obstacle(
                EVERYWHERE,
                "calls are refused",
                "403",
                f"method {name} takes {method.channel} calls only, and this release carries calls in the clear",
                'declare channel = "any", or wait for the confidential channel',
            )
    yield from _outputs(manifest)


def of_grants(manifest: Manifest, wasm: bytes) -> Iterator[Obstacle]:
    """Services that a core module asks for and the manifest does not grant."""
    if not wasm.startswith(CORE_MODULE):
        return
    for function in (one.name for one in read_core_module(wasm).imports):
        service = _SERVICES.get(function, function)
        if service not in (*manifest.services, *_FREE):
            yield Obstacle(
                EVERYWHERE,
                "the service is refused",
                "",
                f"it uses {function}, and the service {service} is not granted",
                f'add "{service}" to services in ta.toml',
            )


def _outputs(manifest: Manifest) -> Iterator[Obstacle]:
    may_emit = "emit" in manifest.services
    if may_emit != bool(manifest.outputs):
        what = "emit is granted, and no output is declared" if may_emit else "outputs are declared, emit is not granted"
        advice = "add [outputs.NAME]" if may_emit else 'add "emit" to services'
        yield Obstacle(EVERYWHERE, "emitting is refused", "", what, advice)
    for name in manifest.outputs if may_emit else ():
        yield Obstacle(
            "each device",
            "emitting is refused",
            "",
            f"output {name} has no recipients until a recipient set is deployed with it",
            f"make one with `edgeclave recipients sign --output {name} ...`",
        )


def _is_other_version(name: str) -> bool:
    return name != TEE_INTERFACE and name.startswith(TEE_INTERFACE.partition("@")[0] + "@")
