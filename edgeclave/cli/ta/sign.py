"""`edgeclave ta sign`: by a key of the key folder, by a token, or in two steps by a signer that is never online."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeclave import keys as key_folder
from edgeclave.cli.ta.common import HERE, Folder, Json, Keys, print_lines
from edgeclave.develop.external_signature import MAX_SIGNATURE_BYTES, ToBeSigned
from edgeclave.develop.pkcs11_uri import SCHEME, parse_uri
from edgeclave.develop.project import DEVELOPMENT_KEY, Project, package_annotations, read_wasm
from edgeclave.errors import ConfigurationError, PackageError
from edgeclave.ta.binary import CORE_MODULE
from edgeclave.ta.build.output import write_package
from edgeclave.ta.core_module import check_core_module
from edgeclave.ta.imports import component_interface
from edgeclave.ta.manifest import Manifest
from edgeclave.ta.package import encode_package, read_package
from edgeclave.ta.signature import VerifiedPackage, sign_package, verify_package
from edgeclave.ta.signing import load_chain, signing_key
from edgeclave.ta.source import load_source


def sign(
    folder: Folder = HERE,
    key: Annotated[
        str | None,
        typer.Option(
            "--key", help=f"Name of the signing key \\[{DEVELOPMENT_KEY}], made on first use, or a pkcs11: URI."
        ),
    ] = None,
    chain: Annotated[
        Path | None, typer.Option("--chain", help="Certificates of a key that is not in the key folder, leaf first.")
    ] = None,
    prepare: Annotated[
        Path | None, typer.Option("--prepare", help="Write the digest to be signed elsewhere, and what it is of.")
    ] = None,
    finish: Annotated[
        Path | None, typer.Option("--finish", help="The signature over that digest: DER, or r | s of 64 bytes.")
    ] = None,
    wasm: Annotated[Path | None, typer.Option("--wasm", help="Wasm to sign [DIR/build/NAME.wasm].")] = None,
    keys: Keys = key_folder.DEFAULT_FOLDER,
    out: Annotated[Path | None, typer.Option("--out", help="Package to write [DIR/build/NAME.ta].")] = None,
    env: Annotated[Path | None, typer.Option("--env", help="Set NAME_PACKAGE, _DIGEST and _SIGNER there.")] = None,
    as_json: Json = False,
) -> None:
    """Sign a built trusted application with its manifest, into one package.

    With a token: --key 'pkcs11:token=release;object=ta?module-path=/path/library.so&pin-source=file:/path'.

    With an offline signer: --prepare OUT.tbs --chain CHAIN.pem, then sign the 32 bytes of OUT.tbs (ECDSA on P-256, as
    by `openssl pkeyutl -sign -inkey KEY -in OUT.tbs -out OUT.sig`), then --finish OUT.sig --chain CHAIN.pem.

    Example: edgeclave ta sign modules/sample_analytics/trusted_app --key developer --env .env
    """
    offline = prepare is not None or finish is not None
    if (prepare and finish) or (offline and key is not None):
        raise _usage("--prepare, --finish and --key exclude each other", "give one of them")
    if offline and chain is None:
        raise _usage("an offline signer's certificates are part of what it signs", "name them with --chain FILE.pem")
    project = Project.at(folder)
    manifest = load_source(folder, keys)
    component = read_wasm(wasm or project.wasm)
    component_interface(component)
    if component.startswith(CORE_MODULE):
        check_core_module(component)
    if prepare is not None and chain is not None:
        _prepare(prepare, manifest, component, chain, as_json=as_json)
        return
    if finish is not None and chain is not None:
        signature = ToBeSigned.of(manifest, component, load_chain(chain)).finish(_read_signature(finish))
    elif key is not None and key.startswith(SCHEME):
        signature = _sign_by_token(key, manifest, component, chain)
    elif chain is not None:
        raise _usage("a key of the key folder has its certificates there", "put them into NAME.cert.pem")
    else:
        signature = sign_package(manifest, component, *signing_key(keys, key or DEVELOPMENT_KEY))
    target = out or project.package
    verified = _write(target, manifest, component, signature)
    _report(target, manifest, verified, env, as_json=as_json)


def _prepare(out: Path, manifest: Manifest, component: bytes, chain: Path, *, as_json: bool) -> None:
    certificates = load_chain(chain)
    signed = ToBeSigned.of(manifest, component, certificates)
    description = {
        "digest": signed.digest.hex(),
        "name": manifest.name,
        "version": manifest.version,
        "product_id": manifest.product_id,
        "security_version": manifest.security_version,
        "debug": manifest.debug,
        "unique_id": signed.unique_id.hex(),
        "signer": [certificate.subject.rfc4514_string() for certificate in certificates],
    }
    described = out.with_name(f"{out.name}.json")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(signed.digest)
        described.write_text(json.dumps(description, indent=2) + "\n")
    except OSError as error:
        raise _not_written(out, error) from error
    if as_json:
        typer.echo(json.dumps({**description, "to_be_signed": str(out)}, indent=2))
    else:
        print_lines((name, str(value)) for name, value in {**description, "to be signed": out}.items())


def _sign_by_token(uri: str, manifest: Manifest, component: bytes, chain: Path | None) -> bytes:
    parsed = parse_uri(uri)
    try:
        from edgeclave.develop.pkcs11_signer import open_key
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "missing-extra", "python-pkcs11 is not installed", advice="install `edgeclave[pkcs11]`"
        ) from error
    with open_key(parsed) as token:
        certificates = token.chain() if chain is None else load_chain(chain)
        signed = ToBeSigned.of(manifest, component, certificates)
        return signed.finish(token.sign(signed.digest))


def _read_signature(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SIGNATURE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(
            "no-signature", f"the signature cannot be read: {error.strerror}", where=str(path), advice="check the path"
        ) from error
    if len(data) > MAX_SIGNATURE_BYTES:
        raise PackageError(
            "signature-does-not-fit",
            f"it has more than {MAX_SIGNATURE_BYTES} bytes",
            where=str(path),
            advice="give the signature as it is: DER, or r | s of 64 bytes, not as text",
        )
    return data


def _write(target: Path, manifest: Manifest, component: bytes, signature: bytes) -> VerifiedPackage:
    """Nothing is written that the enclave would not verify."""
    verified = verify_package(read_package(encode_package(component, signature, package_annotations(manifest))[0]))
    try:
        write_package(target, component, signature, package_annotations(manifest))
    except OSError as error:
        raise _not_written(target, error) from error
    return verified


def _report(target: Path, manifest: Manifest, verified: VerifiedPackage, env: Path | None, *, as_json: bool) -> None:
    signed: dict[str, Any] = {
        "package": str(target.resolve()),
        "digest": verified.digest,
        "signer_id": verified.identity.signer_id.hex(),
        "unique_id": verified.identity.unique_id.hex(),
    }
    if env is not None:
        set_variables(env, manifest.name, signed)
    if as_json:
        typer.echo(json.dumps(signed, indent=2))
    else:
        print_lines(signed.items())


def set_variables(env: Path, name: str, described: Mapping[str, str]) -> None:
    """Sets what a deployment says about a package: NAME_PACKAGE, NAME_DIGEST and NAME_SIGNER."""
    prefix = re.sub(r"[^A-Z0-9]", "_", name.upper())
    for suffix, field in (("PACKAGE", "package"), ("DIGEST", "digest"), ("SIGNER", "signer_id")):
        key_folder.set_env_variable(env, f"{prefix}_{suffix}", described[field])


def _usage(what: str, advice: str) -> ConfigurationError:
    return ConfigurationError("bad-usage", what, advice=advice)


def _not_written(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        "not-written", f"cannot write: {error.strerror}", where=str(path), advice="choose another place"
    )
