"""Who makes a request over HTTPS: read from the connection's certificate, checked for this device and this moment."""

from __future__ import annotations

import time
from collections.abc import Callable

from aiohttp import web

from edgeclave.edge.identity import IdentityError, ModuleIdentity, peer_of
from enclave_broker.gate import Gate
from enclave_broker.responses import RefusalError

UNIDENTIFIED = "unidentified"


class Callers:
    """Names callers, modules of the broker's own device only.

    Args:
        wall_clock: seconds since 1970; a connection may outlive the certificate it was opened with.
    """

    def __init__(self, broker: ModuleIdentity, gate: Gate, wall_clock: Callable[[], float] = time.time) -> None:
        self._broker = broker
        self._gate = gate
        self._wall_clock = wall_clock

    def identify(self, request: web.Request) -> str:
        """The caller's identity as the policy knows it. Raises RefusalError (403) or AuditError, after auditing it."""
        transport = request.transport
        try:
            peer = peer_of(transport.get_extra_info("ssl_object") if transport is not None else None)
        except IdentityError as error:
            raise self._refuse(UNIDENTIFIED, error.code, error.what, error.advice) from error
        caller = str(peer.identity)
        if (peer.identity.hub, peer.identity.device) != (self._broker.hub, self._broker.device):
            what = f"{caller} is no module of device {self._broker.device} of {self._broker.hub}"
            raise self._refuse(caller, "foreign-identity", what, "call the broker of your own device")
        if peer.not_after < self._wall_clock():
            what = "the certificate of this connection has expired"
            raise self._refuse(caller, "certificate-expired", what, "connect again with a renewed certificate")
        return caller

    def _refuse(self, caller: str, code: str, what: str, advice: str) -> RefusalError:
        refusal = RefusalError(403, code, what, advice=advice)
        self._gate.refused(caller, refusal)
        return refusal
