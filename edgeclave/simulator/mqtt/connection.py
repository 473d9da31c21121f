"""One MQTT connection: protocol rules, limits and back-pressure. What the messages mean is `requests.py`'s concern.

Rules:

1. The first packet is CONNECT, within a few seconds; a second one ends the connection.
2. Whoever breaks the protocol is disconnected, with a log line; nobody else notices.
3. PUBACK and SUBACK go out after the commit of what they acknowledge.
4. A client that does not read is not read from either, and never holds more than a bounded buffer of ours.
5. A connection lasts no longer than the token that opened it.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from cryptography import x509

from edgeclave.edge.store import StoreError
from edgeclave.simulator.hub_errors import HubError
from edgeclave.simulator.identities import HubIdentity
from edgeclave.simulator.log import logger
from edgeclave.simulator.mqtt import codec
from edgeclave.simulator.mqtt.provisioning import Registering
from edgeclave.simulator.mqtt.session import Session
from edgeclave.simulator.mqtt.topics import may_subscribe
from edgeclave.simulator.provisioning.registration import peer_certificates

if TYPE_CHECKING:
    from edgeclave.simulator.mqtt.server import MqttServer

CONNECT_SECONDS = 10
MAX_TOKEN_SECONDS = 366 * 24 * 3600  # longer than a simulator runs; a token may name any time
MAX_UNSENT_BYTES = 8 << 20
_log = logger("mqtt")


class Connection(asyncio.Protocol):
    """Also the `Link` of its client once authenticated."""

    def __init__(self, server: MqttServer) -> None:
        self._server = server
        self._reader = codec.PacketReader(codec.MAX_CONNECT_BYTES)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._last_heard = 0.0
        self._keep_alive_seconds = 0
        self.identity: HubIdentity | None = None
        self.session: Session | None = None
        self._registering: Registering | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a stream transport is needed")
        self._transport = transport
        if not self._server.admit(self):
            transport.abort()
            return
        loop = asyncio.get_running_loop()
        self._last_heard = loop.time()
        self._timer = loop.call_later(CONNECT_SECONDS, self.disconnect, f"no CONNECT within {CONNECT_SECONDS} s")

    def data_received(self, data: bytes) -> None:
        self._last_heard = asyncio.get_running_loop().time()
        try:
            for packet in self._reader.feed(data):
                self._handle(packet)
                if self._transport is None:
                    return
        except codec.MalformedPacketError as error:
            self.disconnect(f"malformed packet: {error}")
        except HubError as error:
            self.disconnect(str(error))
        except StoreError as error:
            _log.error("cannot store", error=str(error))
            self.disconnect(str(error))

    def pause_writing(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone()

    # Link

    def subscribed(self, topic_filter: str) -> bool:
        return self.session is not None and topic_filter in self.session.subscriptions

    def send(self, topic: str, body: bytes) -> None:
        self._write(codec.encode_publish(codec.Publish(topic, body)))

    def disconnect(self, reason: str) -> None:
        if self._transport is not None:
            client = str(self.identity.name) if self.identity else ""
            _log.warning("disconnecting a client", client=client, reason=reason)
            self._transport.abort()
        self._gone()

    # packets

    def _handle(self, packet: codec.Packet) -> None:
        if self._registering is not None:
            self._handle_registering(self._registering, packet)
        elif self.identity is None or self.session is None:
            if not isinstance(packet, codec.Connect):
                raise codec.MalformedPacketError("the first packet is not CONNECT")
            self._connect(packet)
        elif isinstance(packet, codec.Publish):
            answered = self._server.requests.handle(self.identity, self, packet)
            if packet.qos:
                self._after_commit(codec.encode_puback(packet.packet_id), whatever=answered)
        elif isinstance(packet, codec.PublishAcknowledged):
            self.session.acknowledged(packet.packet_id)
        elif isinstance(packet, codec.PingRequest):
            self._write(codec.encode_pingresp())
        elif isinstance(packet, codec.Subscribe):
            self._subscribe(self.identity, self.session, packet)
        elif isinstance(packet, codec.Unsubscribe):
            for topic_filter in packet.filters:
                self.session.unsubscribe(topic_filter)
            self._after_commit(codec.encode_unsuback(packet.packet_id))
        elif isinstance(packet, codec.Disconnect):
            self._close()
        else:
            raise codec.MalformedPacketError("a second CONNECT")

    def _connect(self, packet: codec.Connect) -> None:
        if packet.protocol_level != 4:
            self._refuse(codec.BAD_PROTOCOL_VERSION, f"MQTT protocol level {packet.protocol_level}")
            return
        certificates = self._certificates()
        try:
            self._registering = self._server.registering(packet, certificates, self._write)
            if self._registering is not None:
                self._admitted(packet)
                self._write(codec.encode_connack(codec.ACCEPTED))
                return
            identity, token = self._server.authenticate(packet, certificates)
        except HubError as error:
            self._refuse(codec.NOT_AUTHORIZED, str(error), packet.client_id)
            return
        self._admitted(packet)
        if token is not None:
            left = min(token.expiry - int(time.time()), MAX_TOKEN_SECONDS)
            self._expiry = asyncio.get_running_loop().call_later(left, self.disconnect, "its token has expired")
        self.identity = identity
        self.session = self._server.session(identity.name)
        present = self.session.present and not packet.clean_session
        self._server.links.attach(identity.name, self)
        self.session.connected(self._write, clean=packet.clean_session)
        _log.info("client connected", client=str(identity.name))
        self._after_commit(codec.encode_connack(codec.ACCEPTED, session_present=present), then_deliver=True)

    def _admitted(self, packet: codec.Connect) -> None:
        self._reader.limit_bytes = codec.MAX_PACKET_BYTES
        self._keep_alive_seconds = packet.keep_alive_seconds
        self._watch()

    def _handle_registering(self, registering: Registering, packet: codec.Packet) -> None:
        if isinstance(packet, codec.Subscribe):
            self._write(codec.encode_suback(packet.packet_id, registering.granted(packet)))
        elif isinstance(packet, codec.Publish):
            registering.publish(packet)
            if packet.qos:
                self._after_commit(codec.encode_puback(packet.packet_id), whatever=True)  # its answer has a status
        elif isinstance(packet, codec.PingRequest):
            self._write(codec.encode_pingresp())
        elif isinstance(packet, codec.Unsubscribe):
            self._write(codec.encode_unsuback(packet.packet_id))
        elif isinstance(packet, codec.Disconnect):
            self._close()
        else:
            raise codec.MalformedPacketError("a packet that has no place in a registration")

    def _certificates(self) -> list[x509.Certificate]:
        """What the client showed in the TLS handshake."""
        tls = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
        return peer_certificates(tls) if tls is not None else []

    def _refuse(self, code: int, reason: str, client_id: str = "") -> None:
        _log.warning("refusing a client", client=client_id[:256], reason=reason)
        self._write(codec.encode_connack(code))
        self._close()

    def _subscribe(self, identity: HubIdentity, session: Session, packet: codec.Subscribe) -> None:
        granted = []
        for topic_filter, qos in packet.filters:
            accepted = may_subscribe(topic_filter, identity.name) and session.subscribe(topic_filter, min(qos, 1))
            granted.append(min(qos, 1) if accepted else codec.SUBSCRIPTION_REFUSED)
        self._after_commit(codec.encode_suback(packet.packet_id, tuple(granted)), then_deliver=True)
        self._server.links.changed()

    # transport

    def _after_commit(self, answer: bytes, *, then_deliver: bool = False, whatever: bool = False) -> None:
        """`whatever`: also when there was no commit, since something else tells the client so."""

        def settled(error: StoreError | None) -> None:
            if error is not None and not whatever:
                self.disconnect(f"could not store: {error}")
                return
            self._write(answer)
            if then_deliver and self.session is not None and self._transport is not None:
                self.session.deliver()

        self._server.store.after_commit(settled)

    def _write(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self.disconnect("the client does not read what it is sent")

    def _watch(self) -> None:
        """Ends the connection after one and a half keep-alive times of silence (MQTT-3.1.2-24)."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._keep_alive_seconds or self._transport is None:
            return
        loop = asyncio.get_running_loop()
        left = self._last_heard + 1.5 * self._keep_alive_seconds - loop.time()
        if left <= 0:
            self.disconnect("nothing heard for one and a half keep-alive times")
        else:
            self._timer = loop.call_later(left, self._watch)

    def _close(self) -> None:
        """Ends the connection after what was written is sent."""
        transport = self._transport
        self._gone()
        if transport is not None:
            transport.close()
            asyncio.get_running_loop().call_later(CONNECT_SECONDS, transport.abort)

    def _gone(self) -> None:
        for timer in (self._timer, self._expiry):
            if timer is not None:
                timer.cancel()
        self._timer = self._expiry = None
        if self._transport is None:
            return
        self._transport = None
        self._server.released(self)
        if self.identity is not None and self.session is not None:
            if self._server.links.get(self.identity.name) in (self, None):
                self.session.disconnected()
            self._server.links.detach(self.identity.name, self)
