"""`edgeclave verifier`: the verifier as a service."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import json
import signal
import socket
import ssl
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import structlog
import typer

from edgeclave.cli.verify_inputs import read_endorsements, read_time
from edgeclave.cloud.verifier_service.appraiser import Appraiser
from edgeclave.cloud.verifier_service.keyring import (
    DEFAULT_FOLDER,
    FOLDER_VARIABLE,
    Keyring,
    load_keyring,
    new_key,
    now_utc,
)
from edgeclave.cloud.verifier_service.limits import RateLimit
from edgeclave.cloud.verifier_service.server import VerifierServer
from edgeclave.edge.logs import configure_logging
from edgeclave.errors import ConfigurationError
from edgeclave.evidence.policy_file import load_policy

_log = structlog.get_logger(__name__)
app = typer.Typer(help="The verifier as a service, for relying parties that ask over HTTP.")

Keys = Annotated[Path, typer.Option("--keys", envvar=FOLDER_VARIABLE, help="The verifier's key folder.")]


@app.command()
def serve(
    policy: Annotated[Path, typer.Option(help="What to accept; see `edgeclave policy init`.")],
    keys: Keys = DEFAULT_FOLDER,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any free one.")] = 8446,
    issuer: Annotated[
        str | None, typer.Option(help="URL by which clients know the service. Default: where it listens.")
    ] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM chain.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM private key of it.")] = None,
    endorsements: Annotated[
        Path | None, typer.Option(metavar="DIR|FILE", help="Endorsements to use instead of the imported ones.")
    ] = None,
    requests_per_second: Annotated[float, typer.Option(min=0.001, help="Of one client, on average.")] = 50,
    burst: Annotated[int, typer.Option(min=1, help="Of one client, at once after a pause.")] = 100,
    forwarded: Annotated[
        bool, typer.Option(help="Behind a balancer: take the client's address from what it adds to X-Forwarded-For.")
    ] = False,
    drain_seconds: Annotated[
        float, typer.Option(min=0, help="At SIGTERM: go on for so long while /health/ready says no.")
    ] = 0,
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="For tests and archives: appraise as of then. Every token says so."),
    ] = None,
) -> None:
    """Serve: appraise evidence that clients send, answer signed attestation results (EAR, or as Azure's service does).

    Any number of replicas may run with the same keys, policy, endorsements and issuer. The first line of output is JSON
    with the URL; logs go to standard error as JSON. It ends at SIGTERM or SIGINT, after the requests in progress.

    Example: edgeclave verifier serve --policy policy.toml --tls-certificate tls.pem --tls-key tls.key.pem
    """
    context = _context(tls_certificate, tls_key)
    if context is None and not _is_loopback(host):
        raise ConfigurationError(
            "needs-tls",
            "without TLS the service only listens on this machine",
            where=f"--host {host}",
            advice="add --tls-certificate and --tls-key",
        )
    loaded = load_policy(policy)
    as_of = None if at is None else read_time(at)
    known = read_endorsements(endorsements)
    scheme = "http" if context is None else "https"
    keyring = load_keyring(keys, "")

    def appraiser(url: str) -> Appraiser:
        return Appraiser(loaded, policy.read_bytes(), known, _issued_by(keyring, issuer or url), as_of=as_of)

    configure_logging("verifier")
    limit = RateLimit(requests_per_second, burst)
    asyncio.run(_serve(appraiser, limit, scheme, host, port, forwarded, context, drain_seconds))


@app.command("new-key")
def new_key_(
    name: Annotated[str, typer.Argument(help="What to call it, for example the year.")],
    keys: Keys = DEFAULT_FOLDER,
    begin: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="When it begins to sign; it is published before. Default: now."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a signing key for the verifier, and the secret under its nonces where there is none.

    Example: edgeclave verifier new-key 2027 --from 2027-01-01
    """
    start = now_utc() if begin is None else datetime.fromtimestamp(read_time(begin, "--from"), UTC)
    path = new_key(keys, name, start)
    typer.echo(json.dumps({"key": str(path), "signs_from": start.isoformat()}) if as_json else str(path))


@app.command()
def jwks(
    keys: Keys = DEFAULT_FOLDER,
) -> None:
    """Print the key set (JWKS) that relying parties pin: public keys only.

    Example: edgeclave verifier jwks > verifier.jwks.json
    """
    typer.echo(json.dumps(load_keyring(keys, "").jwks()))


async def _serve(
    appraiser: Callable[[str], Appraiser],
    limit: RateLimit,
    scheme: str,
    host: str,
    port: int,
    forwarded: bool,
    context: ssl.SSLContext | None,
    drain_seconds: float,
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with _bound(host, port) as listener:
        shown = f"[{host}]" if ":" in host else host
        url = f"{scheme}://{shown}:{listener.getsockname()[1]}"
        server = VerifierServer(appraiser(url), limit, forwarded=forwarded, context=context)
        await server.start(listener)
        gc.freeze()  # what was imported lives as long as the process: no answer waits until it was looked through again
        _log.info("serving", url=url)
        typer.echo(json.dumps({"url": url}))
        sys.stdout.flush()
        await stop.wait()
        _log.info("ending")
        await server.stop(drain_seconds=drain_seconds)


def _bound(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigurationError(
            "cannot-listen", f"cannot listen: {error}", where=f"{host}:{port}", advice="use another --host or --port"
        ) from error


def _issued_by(keyring: Keyring, issuer: str) -> Keyring:
    if not issuer.startswith(("https://", "http://")) or issuer.endswith("/"):
        raise ConfigurationError(
            "bad-issuer",
            "an issuer is a URL without a slash at its end",
            where=f"--issuer {issuer}",
            advice="correct it",
        )
    return replace(keyring, signers=[replace(each, issuer=issuer) for each in keyring.signers])


def _context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ConfigurationError(
            "bad-tls",
            "TLS needs certificate and key",
            where="--tls-certificate, --tls-key",
            advice="add the one that is missing",
        )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            "bad-tls",
            f"cannot use certificate and key: {error}",
            where=f"{certificate}, {key}",
            advice="give a PEM chain, the service's own certificate first, and its unencrypted PEM key",
        ) from error
    return context


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
