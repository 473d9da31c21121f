"""`edgeclave ta inspect`: who it is, what it may do, and what would stop it from running where."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeclave.cli.ta.common import HERE, Json, Keys, print_lines
from edgeclave.cose import sha256
from edgeclave.develop.obstacles import Obstacle, of_grants, of_manifest, of_wasm
from edgeclave.develop.project import Project, read_wasm
from edgeclave.keys import DEFAULT_FOLDER
from edgeclave.ta.binary import CORE_MODULE
from edgeclave.ta.imports import component_interface
from edgeclave.ta.manifest import Manifest
from edgeclave.ta.package import Package, read_package
from edgeclave.ta.signature import VerifiedPackage, identity_cbor, verify_package
from edgeclave.ta.source import load_source

WASM_SUFFIX = ".wasm"


def inspect(
    target: Annotated[
        Path, typer.Argument(metavar="FILE.ta|FILE.wasm|DIR", help="A package, its code, or a project.")
    ] = HERE,
    keys: Keys = DEFAULT_FOLDER,
    as_json: Json = False,
) -> None:
    """Show who a trusted application is, what it may do and imports, and what would stop it where.

    A package is verified as the enclave does it; code and projects are described as far as they go.

    Example: edgeclave ta inspect modules/sample_analytics/trusted_app/build/anomaly.ta --json
    """
    if target.is_dir():
        description = _of_project(target, keys)
    elif target.suffix == WASM_SUFFIX:
        description = {"file": str(target), **_of_wasm(read_wasm(target))}
    else:
        description = describe_package(target)
    if as_json:
        typer.echo(json.dumps(description, indent=2))
    else:
        show_description(description)


def describe_package(file: Path) -> dict[str, Any]:
    """What is known of a package whose signature verifies. Raises PackageError."""
    package = read_package(file)
    return _of_package(file, package, verify_package(package))


def show_description(description: dict[str, Any]) -> None:
    """For people."""
    print_lines(_lines(description))
    for obstacle in description["obstacles"]:
        typer.echo(f"{obstacle['where']}: {obstacle['effect']}: {obstacle['what']}; {obstacle['advice']}")


def _of_package(file: Path, package: Package, verified: VerifiedPackage) -> dict[str, Any]:
    identity, wasm = verified.identity, bytes(verified.wasm)
    return {
        "file": str(file),
        "digest": verified.digest,
        "size": file.stat().st_size,
        **_of_manifest(verified.manifest),
        **_of_wasm(wasm),
        "identity": {
            "unique_id": identity.unique_id.hex(),
            "signer_id": identity.signer_id.hex(),
            "product_id": identity.product_id,
            "security_version": identity.security_version,
            "debug": identity.debug,
        },
        "signer": [certificate.subject.rfc4514_string() for certificate in verified.chain],
        "annotations": dict(package.annotations),
        "obstacles": _described(*of_wasm(wasm), *of_grants(verified.manifest, wasm), *of_manifest(verified.manifest)),
    }


def _of_project(folder: Path, keys: Path) -> dict[str, Any]:
    """Not signed yet, so without a signer; the unique_id is that which signing will give it."""
    project = Project.at(folder)
    manifest = load_source(folder, keys)
    description = {"file": str(folder), **_of_manifest(manifest)}
    obstacles = _described(*of_manifest(manifest))
    if project.wasm.exists():
        wasm = read_wasm(project.wasm)
        code = _of_wasm(wasm)
        obstacles = code.pop("obstacles") + _described(*of_grants(manifest, wasm)) + obstacles
        description |= {**code, "unique_id": sha256(identity_cbor(manifest, wasm)).hex()}
    else:
        unbuilt = Obstacle("here", "does not load", "no-wasm", "it is not built", "run `edgeclave ta build`")
        obstacles = _described(unbuilt) + obstacles
    return {**description, "obstacles": obstacles}


def _of_manifest(manifest: Manifest) -> dict[str, Any]:
    return {
        "name": manifest.name,
        "version": manifest.version,
        "grants": list(manifest.services),
        "manifest": _readable(manifest.to_map()),
    }


def _of_wasm(wasm: bytes) -> dict[str, Any]:
    interface = component_interface(wasm)
    return {
        "wasm_size": len(wasm),
        "wasm_digest": f"sha256:{sha256(wasm).hex()}",
        "imports": list(interface.imports),
        "exports": list(interface.exports),
        "form": "core module" if wasm.startswith(CORE_MODULE) else "component",
        "obstacles": _described(*of_wasm(wasm)),
    }


def _described(*obstacles: Obstacle) -> list[dict[str, str]]:
    return [asdict(obstacle) for obstacle in obstacles]


def _readable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _readable(item) for key, item in value.items()}
    return value.hex() if isinstance(value, bytes) else value


def _lines(description: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The description as a person reads it: what `--json` adds is for programs."""
    yield "file", description["file"]
    if "reference" in description:
        yield "reference", description["reference"]
    if "identity" in description:
        yield from _identity_lines(description)
    if "unique_id" in description:
        yield "unique_id", f"{description['unique_id']} once it is signed"
    if "manifest" in description:
        yield from _manifest_lines(description)
    if "imports" in description:
        yield "code", f"{description['form']}, {description['wasm_digest']}, {description['wasm_size']:,} bytes"
        wasi = [name for name in description["imports"] if name.startswith("wasi:")]
        others = [name for name in description["imports"] if name not in wasi]
        yield "imports", ", ".join([*others, f"{len(wasi)} of WASI (served empty)"] if wasi else others) or "nothing"
    yield "obstacles", str(len(description["obstacles"])) if description["obstacles"] else "none"


def _identity_lines(description: dict[str, Any]) -> Iterator[tuple[str, str]]:
    identity = description["identity"]
    yield "package", f"{description['digest']}, {description['size']:,} bytes"
    for field in ("unique_id", "signer_id", "product_id", "security_version"):
        yield field, str(identity[field])
    yield "signed by", ", issued by ".join(description["signer"])


def _manifest_lines(description: dict[str, Any]) -> Iterator[tuple[str, str]]:
    manifest = description["manifest"]
    yield "trusted application", f"{description['name']} {description['version']}"
    yield "debug", "YES: production policies refuse it" if manifest["debug"] else "no"
    yield "accepts state from", f"security_version {manifest['accept_state_from_svn']}"
    yield "limits", ", ".join(f"{name} {value}" for name, value in manifest["limits"].items())
    yield "granted", ", ".join(description["grants"]) or "nothing"
    yield "methods", ", ".join(f"{name} ({method['channel']})" for name, method in manifest["methods"].items())
    for name, output in manifest["outputs"].items():
        yield f"output {name}", f"readers named by the key with SHA-256 {_digest(output['recipient_authority'])}"
    if "beacon_authority" in manifest:
        yield "beacons", f"by the key with SHA-256 {_digest(manifest['beacon_authority'])}"
    yield "storage protection", f"at least {manifest['storage_protection']}"


def _digest(spki_hex: str) -> str:
    return sha256(bytes.fromhex(spki_hex)).hex()
