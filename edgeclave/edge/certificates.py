"""TLS contexts of a module that stay valid: certificates come from the workload API and are renewed in place.

A renewed chain is loaded into the living SSLContext: listeners and sessions stay, new handshakes use it. The private
key reaches OpenSSL through an anonymous file in memory, never through a disk.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from cryptography import x509

from edgeclave.edge.backoff import Backoff
from edgeclave.edge.workload import Certificate, WorkloadClient, WorkloadError
from edgeclave.errors import EdgeclaveError

RENEW_AT = 2 / 3
"""Part of a certificate's lifetime after which it is renewed."""
LONGEST_SLEEP_SECONDS = 60
"""A clock that was set, as that of a gateway without a battery is after a start, is noticed within this time."""
SHORTEST_SLEEP_SECONDS = 1
"""Between renewals, whatever validity the workload API gives."""

_log = structlog.get_logger(__name__)


@dataclass
class _Kept:
    what: str
    context: ssl.SSLContext
    fetch: Callable[[], Awaitable[Certificate]]
    valid_from: datetime
    renew_at: datetime

    def is_due(self, now: datetime) -> bool:
        """Also before its time: then the clock was set back since it was made."""
        return not self.valid_from <= now < self.renew_at


class CertificateKeeper:
    """Gives SSL contexts and keeps their certificates fresh while `run` runs.

    Both contexts accept only peers that chain to this device's trust bundle and require TLS 1.2 or later.
    """

    def __init__(self, workload: WorkloadClient) -> None:
        self._workload = workload
        self._kept: list[_Kept] = []
        self._added = asyncio.Event()

    async def server_context(self, common_name: str) -> ssl.SSLContext:
        """A server that requires a client certificate (mTLS)."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        return await self._keep(
            f"server {common_name}", context, lambda: self._workload.server_certificate(common_name)
        )

    async def client_context(self) -> ssl.SSLContext:
        """A client that shows this module's identity and checks the server's name."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return await self._keep("identity", context, self._workload.identity_certificate)

    async def run(self) -> None:
        """Renews for ever; cancel it to stop. A failed renewal is logged and tried again; the old one stays."""
        backoff = Backoff(first_seconds=5, longest_seconds=300)
        while True:
            self._added.clear()
            due = min((kept.renew_at for kept in self._kept), default=None)
            wait = LONGEST_SLEEP_SECONDS if due is None else (due - datetime.now(UTC)).total_seconds()
            try:
                async with asyncio.timeout(min(max(wait, SHORTEST_SLEEP_SECONDS), LONGEST_SLEEP_SECONDS)):
                    await self._added.wait()
                continue
            except TimeoutError:
                pass
            try:
                await self.renew_due()
                backoff.reset()
            except EdgeclaveError as error:
                _log.warning("certificate not renewed", code=error.code, reason=str(error))
                await asyncio.sleep(backoff.next_seconds())

    async def renew_due(self, now: datetime | None = None) -> int:
        """Renews what at `now` is past two thirds of its lifetime or not valid yet; returns how many that were."""
        due = [kept for kept in self._kept if kept.is_due(now or datetime.now(UTC))]
        for kept in due:
            certificate = await kept.fetch()
            _trust(kept.context, await self._workload.trust_bundle())
            _load(kept.context, certificate)
            kept.valid_from, kept.renew_at = use_times(certificate)
            _log.info("certificate renewed", certificate=kept.what, next_renewal=kept.renew_at.isoformat())
        return len(due)

    async def _keep(
        self, what: str, context: ssl.SSLContext, fetch: Callable[[], Awaitable[Certificate]]
    ) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        _trust(context, await self._workload.trust_bundle())
        certificate = await fetch()
        _load(context, certificate)
        self._kept.append(_Kept(what, context, fetch, *use_times(certificate)))
        self._added.set()
        return context


def use_times(certificate: Certificate) -> tuple[datetime, datetime]:
    """From when it is valid, and when two thirds of the leaf's lifetime are over.

    Raises:
        WorkloadError: `workload-certificate` when it is not a certificate.
    """
    try:
        leaf = x509.load_pem_x509_certificate(certificate.chain_pem.encode())
    except ValueError as error:
        raise WorkloadError("workload-certificate", "the workload API gave no readable certificate") from error
    lifetime = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    return leaf.not_valid_before_utc, leaf.not_valid_before_utc + lifetime * RENEW_AT


def _trust(context: ssl.SSLContext, bundle_pem: str) -> None:
    try:
        context.load_verify_locations(cadata=bundle_pem)
    except ssl.SSLError as error:
        raise WorkloadError("workload-certificate", "the trust bundle cannot be read") from error


def _load(context: ssl.SSLContext, certificate: Certificate) -> None:
    """ssl takes chain and key from a file only: this one has no name and lies in memory."""
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(f"{certificate.private_key_pem}\n{certificate.chain_pem}\n".encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    except ssl.SSLError as error:
        raise WorkloadError("workload-certificate", "the workload API's certificate and key do not fit") from error
    finally:
        os.close(descriptor)
