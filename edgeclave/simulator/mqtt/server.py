"""The MQTT listener: authentication, sessions, and how many connections there may be."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Collection

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from edgeclave.simulator.credentials import SAS
from edgeclave.simulator.edge_hub import EdgeHub
from edgeclave.simulator.hub_errors import HubError
from edgeclave.simulator.identities import HubIdentity, IdentityName
from edgeclave.simulator.log import logger
from edgeclave.simulator.mqtt.codec import Connect
from edgeclave.simulator.mqtt.connection import Connection
from edgeclave.simulator.mqtt.provisioning import Registering, parse_user_name
from edgeclave.simulator.mqtt.requests import Requests
from edgeclave.simulator.mqtt.session import Session
from edgeclave.simulator.provisioning.registration import Registrations
from edgeclave.simulator.sas import SharedAccessSignature

MAX_CONNECTIONS = 200
TLS_HANDSHAKE_SECONDS = 10
_log = logger("mqtt")


class MqttServer:
    """MQTT 3.1.1 over TLS for one edge hub.

    Args:
        hub: where messages go.
        hub_host: the IoT Hub host name that clients name in user name and token.
        registrations: the provisioning service on the same port, if there is one.
    """

    def __init__(self, hub: EdgeHub, *, hub_host: str, registrations: Registrations | None = None) -> None:
        self.store = hub.store
        self.links = hub.links
        self.requests = Requests(hub)
        self._hub = hub
        self._registrations = registrations
        self._hosts: Collection[str] = (hub_host,)
        self._sessions: dict[IdentityName, Session] = {}
        self._last_of_earlier_run = hub.inputs.last()
        self._connections: set[Connection] = set()
        self._servers: list[asyncio.Server] = []
        hub.inputs.on_arrival.append(self._input_arrived)
        hub.identities.on_deleted.append(self._deleted)
        hub.upstream.on_change.append(self._upstream_changed)

    async def start(self, host: str, port: int, context: ssl.SSLContext) -> None:
        """Listens there; also beside where it listens already."""
        server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self), host, port, ssl=context, ssl_handshake_timeout=TLS_HANDSHAKE_SECONDS
        )
        self._servers.append(server)

    async def stop(self) -> None:
        for server in self._servers:
            server.close()
        for connection in tuple(self._connections):
            connection.disconnect("the simulator stops")
        for server in self._servers:
            await server.wait_closed()

    def admit(self, connection: Connection) -> bool:
        if len(self._connections) >= MAX_CONNECTIONS:
            _log.warning("too many connections", limit=MAX_CONNECTIONS)
            return False
        self._connections.add(connection)
        return True

    def released(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def session(self, name: IdentityName) -> Session:
        session = self._sessions.get(name)
        if session is None:
            session = self._sessions[name] = Session(
                name,
                self.store,
                self._hub.inputs,
                last_of_earlier_run=self._last_of_earlier_run,
                held_back=lambda: (
                    not name.module_id and self._hub.cut_off(name)
                ),  # modules' inputs come from beside them
            )
        return session

    def registering(
        self, packet: Connect, certificates: list[x509.Certificate], write: Callable[[bytes], None]
    ) -> Registering | None:
        """For a client of the provisioning service; None when it wants the hub.

        Raises:
            HubError: 401.
        """
        wanted = parse_user_name(packet.username)
        if wanted is None or self._registrations is None:
            return None
        scope, registration_id = wanted
        if packet.client_id != registration_id:
            raise HubError(401, "Unauthorized", "the user name does not fit the client id")
        admission = self._registrations.admit(scope, registration_id, packet.password, certificates)
        return Registering(admission, self._registrations, self.store, write)

    def authenticate(
        self, packet: Connect, certificates: list[x509.Certificate]
    ) -> tuple[HubIdentity, SharedAccessSignature | None]:
        """Checks user name and the token in the password, or the certificate; returns who it is, and the token.

        The user name is `{hub}/{client id}/?api-version=...`; older clients leave the question mark out, devices all
        after the client id.

        Raises:
            HubError: 401, 403, 404.
        """
        name = IdentityName.parse(packet.client_id)
        host, _, rest = packet.username.partition("/")
        options = rest.removeprefix(packet.client_id)
        fits = options != rest and (options in ("", "/") or options.startswith(("/?", "/api-version=")))
        if host.lower() not in self._hosts or not fits:
            raise HubError(401, "IotHubUnauthorizedAccess", "the user name does not fit the client id and this hub")
        if name.module_id and "api-version=" not in options:
            raise HubError(400, "InvalidProtocolVersion", "the user name has no api-version")
        identity = self._hub.identities.get(name)
        if not identity.enabled:
            raise HubError(403, "DeviceDisabled", f"{name} is disabled")
        if identity.authentication == SAS:
            token = SharedAccessSignature.parse(packet.password)
            token.check(identity.keys, hosts=self._hosts, path=identity.resource(""))
            return identity, token
        if not any(_fits(certificate, identity) for certificate in certificates[:1]):
            raise HubError(401, "IotHubUnauthorizedAccess", f"{name} showed no certificate that is registered for it")
        return identity, None

    def _deleted(self, identity: HubIdentity) -> None:
        self._sessions.pop(identity.name, None)

    def _upstream_changed(self, online: bool) -> None:
        if online:
            for session in self._sessions.values():
                session.deliver()

    def _input_arrived(self, name: IdentityName) -> None:
        session = self._sessions.get(name)
        if session is not None:
            session.deliver()


def _fits(certificate: x509.Certificate, identity: HubIdentity) -> bool:
    prints = {certificate.fingerprint(algorithm).hex().upper() for algorithm in (hashes.SHA1(), hashes.SHA256())}  # noqa: S303 - IoT Hub's names of certificates
    return not prints.isdisjoint(identity.thumbprints)
