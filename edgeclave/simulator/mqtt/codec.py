"""MQTT 3.1.1 packets (OASIS standard, section 2 and 3): those a client may send are parsed, those a server sends built.

Nothing is trusted: lengths, flags, text and packet ids are checked, and a packet over the limit is refused from its
header alone. QoS 2 is not offered, as in IoT Hub.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

MAX_PACKET_BYTES = 256 * 1024 + 32 * 1024  # the largest message and its topic with properties
MAX_CONNECT_BYTES = 16 * 1024  # before the client is known it may not make us keep more
MAX_FILTERS = 32  # in one SUBSCRIBE

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK = 1, 2, 3, 4, 8, 9
UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT = 10, 11, 12, 13, 14
ACCEPTED, BAD_PROTOCOL_VERSION, NOT_AUTHORIZED = 0, 1, 5  # CONNACK return codes
SUBSCRIPTION_REFUSED = 0x80
_PROTOCOL_LEVEL = 4
_REQUIRED_FLAGS = {SUBSCRIBE: 2, UNSUBSCRIBE: 2}


class MalformedPacketError(Exception):
    """The client broke the protocol; the connection ends (MQTT-4.8.0-1)."""


@dataclass(frozen=True, slots=True)
class Connect:
    client_id: str
    protocol_level: int
    clean_session: bool
    keep_alive_seconds: int
    username: str
    password: str


@dataclass(frozen=True, slots=True)
class Publish:
    """`packet_id` is 0 with QoS 0."""

    topic: str
    body: bytes
    qos: int = 0
    packet_id: int = 0
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class PublishAcknowledged:
    packet_id: int


@dataclass(frozen=True, slots=True)
class Subscribe:
    packet_id: int
    filters: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    packet_id: int
    filters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PingRequest:
    pass


@dataclass(frozen=True, slots=True)
class Disconnect:
    pass


Packet = Connect | Publish | PublishAcknowledged | Subscribe | Unsubscribe | PingRequest | Disconnect


class PacketReader:
    """Cuts a byte stream into packets. `limit_bytes` bounds one packet and so what is kept."""

    def __init__(self, limit_bytes: int = MAX_PACKET_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Packet]:
        """Yields the packets that are complete now.

        Raises:
            MalformedPacketError: at the first bad one; the reader is of no use afterwards.
        """
        self._buffer += data
        position = 0
        try:
            while (header := self._header(position)) is not None:
                start, end = header
                if end > len(self._buffer):
                    return
                first = self._buffer[position]
                body = bytes(memoryview(self._buffer)[start:end])
                position = end
                yield _parse(first >> 4, first & 0x0F, body)
        finally:
            del self._buffer[:position]

    def _header(self, position: int) -> tuple[int, int] | None:
        """(start of the body, its end), or None while the fixed header is incomplete."""
        if position < len(self._buffer):
            _check_first_byte(self._buffer[position])
        length = 0
        for index in range(4):
            at = position + 1 + index
            if at >= len(self._buffer):
                return None
            byte = self._buffer[at]
            length |= (byte & 0x7F) << (7 * index)
            if length > self.limit_bytes:
                raise MalformedPacketError(f"a packet of {length} bytes is over the limit of {self.limit_bytes}")
            if byte < 0x80:
                return at + 1, at + 1 + length
        raise MalformedPacketError("the remaining length has more than four bytes")


class _Body:
    """Reads the fields of one packet body."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    @property
    def exhausted(self) -> bool:
        return self._position >= len(self._data)

    def byte(self) -> int:
        return self._take(1)[0]

    def number(self) -> int:
        return int.from_bytes(self._take(2), "big")

    def packet_id(self) -> int:
        number = self.number()
        if number == 0:
            raise MalformedPacketError("packet id 0")
        return number

    def binary(self) -> bytes:
        return self._take(self.number())

    def text(self) -> str:
        try:
            text = self.binary().decode("utf-8")
        except UnicodeDecodeError as error:
            raise MalformedPacketError("text that is not UTF-8") from error
        if "\0" in text:
            raise MalformedPacketError("text with U+0000")
        return text

    def rest(self) -> bytes:
        rest = self._data[self._position :]
        self._position = len(self._data)
        return rest

    def end(self) -> None:
        if not self.exhausted:
            raise MalformedPacketError("bytes after the end of a packet")

    def _take(self, count: int) -> bytes:
        end = self._position + count
        if end > len(self._data):
            raise MalformedPacketError("a packet ends too early")
        taken = self._data[self._position : end]
        self._position = end
        return taken


def _check_first_byte(byte: int) -> None:
    """Before the rest has come: who speaks another protocol is told at once."""
    kind, flags = byte >> 4, byte & 0x0F
    if kind != PUBLISH and flags != _REQUIRED_FLAGS.get(kind, 0):
        raise MalformedPacketError(f"reserved flags of packet type {kind}")


def _parse(kind: int, flags: int, data: bytes) -> Packet:
    body = _Body(data)
    if kind == PUBLISH:
        return _publish(flags, body)
    packet: Packet
    if kind == PUBACK:
        packet = PublishAcknowledged(body.packet_id())
    elif kind == PINGREQ:
        packet = PingRequest()
    elif kind == CONNECT:
        packet = _connect(body)
    elif kind == SUBSCRIBE:
        packet = _subscribe(body)
    elif kind == UNSUBSCRIBE:
        packet = _unsubscribe(body)
    elif kind == DISCONNECT:
        packet = Disconnect()
    else:
        raise MalformedPacketError(f"packet type {kind} is not for a client to send")
    body.end()
    return packet


def _publish(flags: int, body: _Body) -> Publish:
    qos = (flags >> 1) & 3
    if qos > 1:
        raise MalformedPacketError("QoS 2 is not supported" if qos == 2 else "QoS 3")
    topic = body.text()
    if not topic or "+" in topic or "#" in topic:
        raise MalformedPacketError("an empty topic, or one with wildcards")
    packet_id = body.packet_id() if qos else 0
    return Publish(topic, body.rest(), qos, packet_id, duplicate=bool(flags & 8))


def _connect(body: _Body) -> Connect:
    if body.text() != "MQTT":
        raise MalformedPacketError("not the MQTT protocol")
    level = body.byte()
    if level != _PROTOCOL_LEVEL:
        body.rest()
        return Connect("", level, clean_session=True, keep_alive_seconds=0, username="", password="")
    flags = body.byte()
    keep_alive = body.number()
    if flags & 1 or (not flags & 4 and flags & 0x38) or (flags & 0x40 and not flags & 0x80):
        raise MalformedPacketError("connect flags that contradict one another")
    client_id = body.text()
    if flags & 4:  # a will is read and ignored, as edgeHub does
        body.text()
        body.binary()
    username = body.text() if flags & 0x80 else ""
    password = body.text() if flags & 0x40 else ""
    return Connect(client_id, level, bool(flags & 2), keep_alive, username, password)


def _subscribe(body: _Body) -> Subscribe:
    packet_id = body.packet_id()
    filters: list[tuple[str, int]] = []
    while not body.exhausted:
        topic_filter, qos = body.text(), body.byte()
        if qos > 2 or not topic_filter:
            raise MalformedPacketError("a subscription without a filter or with an unknown QoS")
        filters.append((topic_filter, qos))
    _check_filters(len(filters))
    return Subscribe(packet_id, tuple(filters))


def _unsubscribe(body: _Body) -> Unsubscribe:
    packet_id = body.packet_id()
    filters: list[str] = []
    while not body.exhausted:
        filters.append(body.text())
    _check_filters(len(filters))
    return Unsubscribe(packet_id, tuple(filters))


def _check_filters(count: int) -> None:
    if not 0 < count <= MAX_FILTERS:
        raise MalformedPacketError(f"{count} topic filters in one packet; 1 to {MAX_FILTERS} are accepted")


def encode_publish(packet: Publish) -> bytes:
    topic = packet.topic.encode()
    head = struct.pack(">H", len(topic)) + topic
    if packet.qos:
        head += struct.pack(">H", packet.packet_id)
    return _encode(PUBLISH, packet.duplicate << 3 | packet.qos << 1, head + packet.body)


def encode_connack(return_code: int, *, session_present: bool = False) -> bytes:
    return bytes((CONNACK << 4, 2, session_present, return_code))


def encode_puback(packet_id: int) -> bytes:
    return _encode(PUBACK, 0, struct.pack(">H", packet_id))


def encode_suback(packet_id: int, return_codes: tuple[int, ...]) -> bytes:
    return _encode(SUBACK, 0, struct.pack(">H", packet_id) + bytes(return_codes))


def encode_unsuback(packet_id: int) -> bytes:
    return _encode(UNSUBACK, 0, struct.pack(">H", packet_id))


def encode_pingresp() -> bytes:
    return _encode(PINGRESP, 0, b"")


def _encode(kind: int, flags: int, body: bytes) -> bytes:
    header = bytearray((kind << 4 | flags,))
    left = len(body)
    while True:
        byte = left & 0x7F
        left >>= 7
        header.append(byte | 0x80 if left else byte)
        if not left:
            return bytes(header) + body
