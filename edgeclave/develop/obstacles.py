"""What would stop a trusted application, where, before it is deployed: the enclave's own checks, asked beforehand.

Grants are enforced when a service is asked for, not at load: a component imports the whole `tee` interface, whatever it
uses. So an unused or missing grant shows here only where the manifest contradicts itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from edgeclave.enclave.imports import TEE_INTERFACE, check_imports
from edgeclave.errors import PackageError
from edgeclave.ta.imports import Interface
from edgeclave.ta.manifest import Manifest, StorageProtection
from edgeclave.ta.package import DEFAULT_LIMITS

Effect = Literal["does not load", "readers refuse it", "calls are refused", "emitting is refused"]
ENTRY = "invoke"
PLATFORMS: dict[str, StorageProtection] = {"emulator": "consistent"}
"""Platforms of this machine, with the storage protection that each offers."""
EVERYWHERE = "everywhere"


@dataclass(frozen=True)
class Obstacle:
    """`where` is a platform, `everywhere`, or who refuses it; `code` is the one of the refusal, if it has one."""

    where: str
    effect: Effect
    code: str
    what: str
    advice: str


def of_wasm(interface: Interface, size: int) -> Iterator[Obstacle]:
    """What stops the code, whatever its manifest says. `size` in bytes."""
    older = [name for name in interface.imports if _is_other_version(name)]
    if older:
        yield Obstacle(
            EVERYWHERE,
            "does not load",
            "import-refused",
            f"it was built for {older[0]}; this release offers {TEE_INTERFACE}",
            "build it again with this release",
        )
    try:
        check_imports(name for name in interface.imports if name not in older)
    except PackageError as error:
        yield Obstacle(EVERYWHERE, "does not load", error.code, error.what, error.advice)
    if ENTRY not in interface.exports:
        yield Obstacle(
            EVERYWHERE,
            "does not load",
            "wasm-refused",
            f"it does not export {ENTRY}, by which methods are called",
            "build it against the WIT of this release",
        )
    if size > DEFAULT_LIMITS.wasm:
        what = f"{size} bytes are over the limit of {DEFAULT_LIMITS.wasm}"
        yield Obstacle(EVERYWHERE, "does not load", "package-too-large", what, "leave out what is not needed")


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
