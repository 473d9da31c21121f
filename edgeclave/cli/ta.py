"""`edgeclave ta`: build, sign and inspect trusted applications."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from edgeclave import keys as key_folder
from edgeclave.errors import ConfigurationError
from edgeclave.ta.build import build_python
from edgeclave.ta.imports import component_interface
from edgeclave.ta.package import DEFAULT_LIMITS, Package, read_package, write_package
from edgeclave.ta.signature import VerifiedPackage, sign_package, verify_package
from edgeclave.ta.signing import signing_key
from edgeclave.ta.source import load_source, read_name

app = typer.Typer(help="Trusted applications: build, sign, inspect.")

_Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder with ta.toml and app.py.")]
_Keys = Annotated[Path, typer.Option("--keys", envvar="EDGECLAVE_KEYS", help="Key folder.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_DEFAULT_KEYS = Path(".edgeclave/keys")


@app.command()
def build(
    folder: _Folder,
    out: Annotated[Path | None, typer.Option("--out", help="Component to write [DIR/build/NAME.wasm].")] = None,
) -> None:
    """Build the WebAssembly component of a trusted application.

    Example: edgeclave ta build modules/sample_analytics/trusted_app
    """
    target = out or _built(folder, "wasm")
    with _progress("building") as tell:
        build_python(folder, target, tell)
    typer.echo(f"{target} ({target.stat().st_size:,} bytes)")


@app.command()
def sign(
    folder: _Folder,
    key: Annotated[str, typer.Option("--key", help="Name of the signing key; made on first use.")],
    wasm: Annotated[Path | None, typer.Option("--wasm", help="Component to sign [DIR/build/NAME.wasm].")] = None,
    keys: _Keys = _DEFAULT_KEYS,
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
    _print(signed, as_json=as_json)


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE.ta", help="A package.")],
    as_json: _Json = False,
) -> None:
    """Verify a package as the enclave does, and show who it is, what it may do and what it imports.

    Example: edgeclave ta inspect modules/sample_analytics/trusted_app/build/anomaly.ta --json
    """
    package = read_package(file)
    _print(_description(file, package, verify_package(package)), as_json=as_json)


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


def _print(fields: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(fields, indent=2))
        return
    table = Table.grid(padding=(0, 2))
    for path, value in _flat(fields, ""):
        table.add_row(path, value)
    Console(soft_wrap=True, highlight=False, markup=False).print(table)


def _flat(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        yield path, "\n".join(map(str, value)) or "none"
    else:
        yield path, "yes" if value is True else "no" if value is False else str(value or "none")


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
