"""`edgeclave ta`: build, sign and inspect trusted applications."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from edgeclave import keys as key_folder
from edgeclave.cli.ta_debug import debug
from edgeclave.cose import sha256
from edgeclave.errors import ConfigurationError
from edgeclave.ta.binary import CORE_MODULE
from edgeclave.ta.build import build_wasm
from edgeclave.ta.core_module import check_core_module
from edgeclave.ta.imports import component_interface
from edgeclave.ta.package import DEFAULT_LIMITS, Package, read_package, write_package
from edgeclave.ta.signature import VerifiedPackage, sign_package, verify_package
from edgeclave.ta.signing import signing_key
from edgeclave.ta.source import load_source, read_name

app = typer.Typer(help="Trusted applications: build, sign, inspect, debug.")
app.command()(debug)

_Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder with ta.toml and app.py or app.c.")]
_Keys = Annotated[Path, typer.Option("--keys", envvar=key_folder.FOLDER_VARIABLE, help="Key folder.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def build(
    folder: _Folder,
    out: Annotated[Path | None, typer.Option("--out", help="Wasm to write [DIR/build/NAME.wasm].")] = None,
) -> None:
    """Build the WebAssembly of a trusted application, from Python (app.py) or C (app.c).

    Example: edgeclave ta build modules/sample_analytics/trusted_app
    """
    target = out or _built(folder, "wasm")
    with _progress("building") as tell:
        build_wasm(folder, target, tell)
    typer.echo(f"{target} ({target.stat().st_size:,} bytes)")


@app.command()
def sign(
    folder: _Folder,
    key: Annotated[str, typer.Option("--key", help="Name of the signing key; made on first use.")],
    wasm: Annotated[Path | None, typer.Option("--wasm", help="Wasm to sign [DIR/build/NAME.wasm].")] = None,
    keys: _Keys = key_folder.DEFAULT_FOLDER,
    out: Annotated[Path | None, typer.Option("--out", help="Package to write [DIR/build/NAME.ta].")] = None,
    env: Annotated[Path | None, typer.Option("--env", help="Set NAME_PACKAGE, _DIGEST and _SIGNER there.")] = None,
    as_json: _Json = False,
) -> None:
    """Sign a built trusted application with its manifest, into one package.

    Example: edgeclave ta sign modules/sample_analytics/trusted_app --key developer --env .env
    """
    manifest = load_source(folder, keys)
    component = _read_wasm(wasm or _built(folder, "wasm"))
    component_interface(component)
    if component.startswith(CORE_MODULE):
        check_core_module(component)
    target = out or _built(folder, "ta")
    signer, chain = signing_key(keys, key)
    annotations = {
        "org.opencontainers.image.title": manifest.name,
        "org.opencontainers.image.version": manifest.version,
    }
    write_package(target, component, sign_package(manifest, component, signer, chain), annotations)
    package = read_package(target)
    verified = verify_package(package)
    signed = {
        "package": str(target.resolve()),
        "digest": verified.digest,
        "signer_id": verified.identity.signer_id.hex(),
        "unique_id": verified.identity.unique_id.hex(),
    }
    if env is not None:
        prefix = re.sub(r"[^A-Z0-9]", "_", manifest.name.upper())
        for suffix, field in (("PACKAGE", "package"), ("DIGEST", "digest"), ("SIGNER", "signer_id")):
            key_folder.set_env_variable(env, f"{prefix}_{suffix}", signed[field])
    if as_json:
        typer.echo(json.dumps(signed, indent=2))
    else:
        _print_lines(signed.items())


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE.ta", help="A package.")],
    as_json: _Json = False,
) -> None:
    """Verify a package as the enclave does, and show who it is, what it may do and what it imports.

    Example: edgeclave ta inspect modules/sample_analytics/trusted_app/build/anomaly.ta --json
    """
    package = read_package(file)
    description = _description(file, package, verify_package(package))
    if as_json:
        typer.echo(json.dumps(description, indent=2))
    else:
        _print_lines(_lines(description))


def _description(file: Path, package: Package, verified: VerifiedPackage) -> dict[str, Any]:
    identity, manifest = verified.identity, verified.manifest
    interface = component_interface(verified.wasm)
    return {
        "file": str(file),
        "digest": verified.digest,
        "size": file.stat().st_size,
        "wasm_size": len(verified.wasm),
        "name": manifest.name,
        "version": manifest.version,
        "identity": {
            "unique_id": identity.unique_id.hex(),
            "signer_id": identity.signer_id.hex(),
            "product_id": identity.product_id,
            "security_version": identity.security_version,
            "debug": identity.debug,
        },
        "signer": [certificate.subject.rfc4514_string() for certificate in verified.chain],
        "grants": list(manifest.services),
        "manifest": _readable(manifest.to_map()),
        "imports": list(interface.imports),
        "exports": list(interface.exports),
        "annotations": dict(package.annotations),
    }


def _readable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _readable(item) for key, item in value.items()}
    return value.hex() if isinstance(value, bytes) else value


def _lines(description: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The description as a person reads it: what `--json` adds is for programs."""
    identity, manifest = description["identity"], description["manifest"]
    yield "trusted application", f"{description['name']} {description['version']}"
    yield "package", f"{description['digest']}, {description['size']:,} bytes"
    for field in ("unique_id", "signer_id", "product_id", "security_version"):
        yield field, str(identity[field])
    yield "debug", "YES: production policies refuse it" if identity["debug"] else "no"
    yield "signed by", ", issued by ".join(description["signer"])
    yield "accepts state from", f"security_version {manifest['accept_state_from_svn']}"
    yield "limits", ", ".join(f"{name} {value}" for name, value in manifest["limits"].items())
    yield "granted", ", ".join(description["grants"]) or "nothing"
    yield "methods", ", ".join(f"{name} ({method['channel']})" for name, method in manifest["methods"].items())
    for name, output in manifest["outputs"].items():
        yield f"output {name}", f"readers named by the key with SHA-256 {_digest(output['recipient_authority'])}"
    if "beacon_authority" in manifest:
        yield "beacons", f"by the key with SHA-256 {_digest(manifest['beacon_authority'])}"
    yield "storage protection", f"at least {manifest['storage_protection']}"
    wasi = [name for name in description["imports"] if name.startswith("wasi:")]
    others = [name for name in description["imports"] if name not in wasi]
    yield "imports", ", ".join([*others, f"{len(wasi)} of WASI (served empty)"] if wasi else others) or "nothing"


def _digest(spki_hex: str) -> str:
    return sha256(bytes.fromhex(spki_hex)).hex()


def _print_lines(lines: Iterable[tuple[str, str]]) -> None:
    lines = list(lines)
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        typer.echo(f"{name:<{width}}  {value}")


def _built(folder: Path, ending: str) -> Path:
    return folder / "build" / f"{read_name(folder)}.{ending}"


def _read_wasm(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > DEFAULT_LIMITS.wasm:
            raise ConfigurationError(
                "wasm-too-large", f"{size} bytes are over the limit of {DEFAULT_LIMITS.wasm}", where=str(path)
            )
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            "no-wasm",
            f"the component cannot be read: {error.strerror}",
            where=str(path),
            advice="run `edgeclave ta build` first, or name it with --wasm",
        ) from error


@contextlib.contextmanager
def _progress(what: str) -> Iterator[Callable[[str], None]]:
    console = Console(stderr=True)
    with console.status(what) as status:

        def tell(step: str) -> None:
            if console.is_terminal:
                status.update(step)
            else:
                console.print(step, markup=False)

        yield tell
