"""`edgeclave ta push` and `edgeclave ta pull`: packages through an OCI registry."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeclave.cli.ta.common import Json, print_lines, progress
from edgeclave.cli.ta.inspect import describe_package, show_description
from edgeclave.cli.ta.sign import set_variables
from edgeclave.develop.project import Project
from edgeclave.errors import ConfigurationError
from edgeclave.ta.package import read_package
from edgeclave.ta.signature import verify_package

if TYPE_CHECKING:
    from edgeclave.registry import Reference, RegistryAccess

Target = Annotated[str, typer.Argument(metavar="REFERENCE", help="As of an image: HOST:PORT/REPOSITORY:TAG@sha256:...")]
Authority = Annotated[
    Path | None,
    typer.Option("--ca", dir_okay=False, help="PEM certificates of the authority that the registry's is from."),
]
User = Annotated[str | None, typer.Option("--username", help="Who logs in. Without it: as docker's config.json says.")]
Password = Annotated[bool, typer.Option("--password-stdin", help="Read the password or token from standard input.")]
PlainHttp = Annotated[bool, typer.Option("--plain-http", help="Without TLS. Localhost needs no such leave.")]


def push(
    package: Annotated[Path, typer.Argument(metavar="FILE.ta|DIR", help="A signed package, or its project.")],
    reference: Target,
    authority: Authority = None,
    username: User = None,
    password_stdin: Password = False,
    plain_http: PlainHttp = False,
    env: Annotated[Path | None, typer.Option("--env", help="Set NAME_PACKAGE, _DIGEST and _SIGNER there.")] = None,
    as_json: Json = False,
) -> None:
    """Push a signed package to an OCI registry, and print the reference that goes into a deployment.

    Logs in as `docker login` and `az acr login` have left it in docker's config.json, or as --username says. A
    reference without a tag gets the version of the trusted application. Parts that the registry has already are not
    sent again.

    Example: edgeclave ta push modules/sample_analytics/trusted_app registry.example/plant/anomaly --env .env
    """
    from edgeclave.registry import push_package

    file = _package_of(package)
    content = read_package(file)
    verified = verify_package(content)  # nothing is pushed that the enclave would not verify
    with progress("pushing") as tell:
        parsed, access = _registry(reference, authority, username, password_stdin, plain_http)
        if parsed.tag is None and parsed.digest is None:
            parsed = parsed.tagged(verified.manifest.version)
        pushed = asyncio.run(push_package(content, parsed, access, tell))
    description: dict[str, Any] = {
        "package": str(pushed.reference),
        "digest": verified.digest,
        "signer_id": verified.identity.signer_id.hex(),
        "unique_id": verified.identity.unique_id.hex(),
    }
    if env is not None:
        set_variables(env, verified.manifest.name, description)
    sizes = {"bytes_sent": pushed.sent, "bytes_present": pushed.present}
    if as_json:
        typer.echo(json.dumps({**description, **sizes}, indent=2))
    else:
        print_lines(description.items())
        typer.echo(f"{pushed.sent:,} bytes sent, {pushed.present:,} were there")


def pull(
    reference: Target,
    out: Annotated[Path, typer.Option("--out", dir_okay=False, help="Package to write.")],
    authority: Authority = None,
    username: User = None,
    password_stdin: Password = False,
    plain_http: PlainHttp = False,
    as_json: Json = False,
) -> None:
    """Pull a package from an OCI registry, check it against its digest, and show who it is.

    The registry is not trusted: name the digest, and compare the signer. A pull that was interrupted goes on where it
    was. What `ta inspect` shows is shown; a package whose signature does not verify is not kept.

    Example: edgeclave ta pull registry.example/plant/anomaly:1.0.0 --out anomaly.ta
    """
    from edgeclave.registry import pull_package

    fresh = out.with_name(f".{out.name}.pulled")
    with progress("pulling") as tell:
        parsed, access = _registry(reference, authority, username, password_stdin, plain_http)
        digest = asyncio.run(pull_package(parsed, fresh, out.with_name(f".{out.name}.partial"), access, tell))
    try:
        description = describe_package(fresh)
        if out.exists() and not out.is_file():
            raise ConfigurationError("not-written", "it is not a file", where=str(out), advice="choose another place")
        fresh.chmod(0o644)
        fresh.replace(out)
    finally:
        fresh.unlink(missing_ok=True)
    described = {**description, "file": str(out), "reference": str(parsed.at(digest))}
    if as_json:
        typer.echo(json.dumps(described, indent=2))
    else:
        show_description(described)


def _package_of(target: Path) -> Path:
    if not target.is_dir():
        return target
    package = Project.at(target).package
    if not package.exists():
        raise ConfigurationError(
            "no-package", "it is not signed yet", where=str(package), advice=f"run `edgeclave ta sign {target}` first"
        )
    return package


def _registry(
    text: str, authority: Path | None, username: str | None, password_stdin: bool, plain_http: bool
) -> tuple[Reference, RegistryAccess]:
    from edgeclave.registry import Credentials, Reference, RegistryAccess, read_credentials
    from edgeclave.registry.credentials import MAX_SECRET_CHARACTERS, checked, docker_folder

    reference = Reference.parse(text)
    if (username is not None) != password_stdin:
        raise ConfigurationError(
            "bad-usage",
            "--username and --password-stdin belong together",
            advice="as in `edgeclave ta push ... --username NAME --password-stdin < FILE`",
        )
    if username is None:
        credentials = read_credentials(reference.host, docker_folder())
    else:
        secret = sys.stdin.read(MAX_SECRET_CHARACTERS + 2).rstrip("\r\n")
        credentials = checked(Credentials(username, secret), "standard input")
    return reference, RegistryAccess(credentials, authority, plain_http)
