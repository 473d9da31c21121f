"""MQTT over WebSocket frame by frame (RFC 6455): any cut of a session works, any broken frame ends only its own."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeclave.simulator import SimulatorThread
from edgeclave.simulator.identities import IdentityName
from edgeclave.simulator.mqtt.codec import MAX_PACKET_BYTES, Publish, encode_publish
from edgeclave.simulator.sas import make_token

from .test_hostile_clients import connect_packet

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
CONNACKS, PUBACK = (b"\x20\x02\x00\x00", b"\x20\x02\x01\x00"), b"\x40\x02\x00\x07"
SECONDS = 30


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorThread]:
    with SimulatorThread(tmp_path_factory.mktemp("websocket") / "sim") as running:
        running.environment("web")
        yield running


def session(simulator: SimulatorThread) -> bytes:
    """Connects and publishes one message under packet id 7."""
    where = simulator.call(lambda running: running.settings)
    key = simulator.call(lambda running: running.state.module("web").primary_key)
    token = make_token(f"{where.hub_host}/devices/edge01/modules/web", key)
    connect = connect_packet("edge01/web", f"{where.hub_host}/edge01/web/?api-version=2019-10-01", token)
    return connect + encode_publish(Publish("devices/edge01/modules/web/messages/events/", b"over the web", 1, 7))


def frame(opcode: int, payload: bytes, *, final: bool = True, reserved: int = 0, mask: bytes | None = b"abcd") -> bytes:
    head = bytes([final << 7 | reserved << 4 | opcode])
    length, masked = len(payload), 0x80 if mask else 0
    if length < 126:
        head += bytes([masked | length])
    elif length < 1 << 16:
        head += bytes([masked | 126]) + struct.pack(">H", length)
    else:
        head += bytes([masked | 127]) + struct.pack(">Q", length)
    if mask:
        payload = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
    return head + (mask or b"") + payload


class Peer:
    """A WebSocket after its handshake; `received` is what came in binary frames, put together."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self._connection = connection
        self._unread = b""
        self.received = b""
        self.pongs: list[bytes] = []
        self.close_code = 0
        self.closed = False

    def send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self._connection.sendall(data)

    def read_until(self, wanted: bytes) -> bool:
        """Whether it came before the server closed."""
        while wanted not in self.received and not self.closed:
            self._read()
        return wanted in self.received

    def read_to_the_end(self) -> None:
        while not self.closed:
            self._read()

    def _read(self) -> None:
        data = b""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            data = self._connection.recv(65536)  # raises TimeoutError when the server neither answers nor closes
        self.closed = not data
        self._unread += data
        while len(self._unread) >= 2:
            opcode, length, start = self._unread[0] & 15, self._unread[1] & 127, 2
            if length == 126:
                length, start = int.from_bytes(self._unread[2:4], "big"), 4
            if len(self._unread) < start + length:
                return
            payload, self._unread = self._unread[start : start + length], self._unread[start + length :]
            if opcode == BINARY:
                self.received += payload
            elif opcode == PONG:
                self.pongs.append(payload)
            elif opcode == CLOSE:
                self.closed = True
                self.close_code = int.from_bytes(payload[:2], "big")


@contextlib.contextmanager
def joined(simulator: SimulatorThread) -> Iterator[Peer]:
    where = simulator.call(lambda running: running.settings)
    context = ssl.create_default_context(cafile=simulator.ca_file)
    with (
        socket.create_connection((where.address, where.ports.https), timeout=SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=where.gateway) as connection,
    ):
        connection.sendall(
            f"GET /$iothub/websocket HTTP/1.1\r\nHost: {where.gateway}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: mqtt\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(1)
        assert head.startswith(b"HTTP/1.1 101")
        assert b"Sec-WebSocket-Protocol: mqtt" in head
        yield Peer(connection)


CONTROL = st.lists(st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125)), max_size=2)


@st.composite
def cuts(draw: Any) -> list[tuple[float, bool, list[tuple[int, bytes]], bytes]]:
    """Where frames end, as parts of the whole; whether a message ends there, too; control frames after it; masks."""
    places = sorted(draw(st.lists(st.floats(0, 1), max_size=8)))
    return [
        (place, draw(st.booleans()), draw(CONTROL), draw(st.binary(min_size=4, max_size=4))) for place in [*places, 1.0]
    ]


@settings(max_examples=60, deadline=None)
@given(parts=cuts())
def test_any_cut_into_frames_with_control_frames_between_is_the_same_session(
    shared: SimulatorThread, parts: list[tuple[float, bool, list[tuple[int, bytes]], bytes]]
) -> None:
    said = session(shared)
    pings: list[bytes] = []
    with joined(shared) as peer:
        begin, goes_on = 0, False
        for place, ends, control, mask in parts:
            end = round(place * len(said))
            final = ends or place == 1.0
            peer.send(frame(CONTINUATION if goes_on else BINARY, said[begin:end], final=final, mask=mask))
            for opcode, payload in control:
                peer.send(frame(opcode, payload))
                pings += [payload] if opcode == PING else []
            begin, goes_on = end, not final
        assert peer.read_until(PUBACK)
        assert peer.received.startswith(CONNACKS)
        peer.send(frame(CLOSE, struct.pack(">H", 1000)))
        peer.read_to_the_end()
        assert peer.close_code == 1000
        assert peer.pongs == pings


BROKEN = {
    "text": lambda said: frame(TEXT, b"hello"),
    "text that is not UTF-8": lambda said: frame(TEXT, b"\xff\xfe"),
    "reserved bit": lambda said: frame(BINARY, said, reserved=4),
    "unknown opcode": lambda said: frame(3, said),
    "unknown control frame": lambda said: frame(11, b""),
    "a continuation of nothing": lambda said: frame(CONTINUATION, said),
    "a new message within one": lambda said: frame(BINARY, said[:9], final=False) + frame(BINARY, said[9:]),
    "a ping in pieces": lambda said: frame(PING, b"x", final=False),
    "a ping of 126 bytes": lambda said: frame(PING, b"x" * 126),
    "close with one byte": lambda said: frame(CLOSE, b"\x03"),
    "close with a code that is not for peers": lambda said: frame(CLOSE, struct.pack(">H", 1005)),
    "close with code 999": lambda said: frame(CLOSE, struct.pack(">H", 999)),
    "close with a reason that is not UTF-8": lambda said: frame(CLOSE, struct.pack(">H", 1000) + b"\xff"),
    "close in order": lambda said: frame(CLOSE, struct.pack(">H", 1001) + b"going"),
    "a frame of 2 to the 63 bytes": lambda said: bytes([0x82, 0xFF]) + b"\x7f" + b"\xff" * 7 + b"abcd",
    "a message over the limit": lambda said: frame(BINARY, b"\x30" + b"x" * (MAX_PACKET_BYTES + 1)),
    "pieces over the limit": lambda said: (
        frame(BINARY, b"\0" * 200_000, final=False) + frame(CONTINUATION, b"\0" * 200_000)
    ),
    "another protocol inside": lambda said: frame(BINARY, b"GET / HTTP/1.1\r\n\r\n"),
    "no frames at all": lambda said: b"\xff" * 64,
}


CODES = {"text": 1003, "reserved bit": 1002, "text that is not UTF-8": 1007, "a message over the limit": 1009}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_frame_ends_its_connection_and_no_other(shared: SimulatorThread, name: str) -> None:
    said = session(shared)
    with joined(shared) as witness:
        witness.send(frame(BINARY, said))
        assert witness.read_until(PUBACK)
        with joined(shared) as peer:
            peer.send(BROKEN[name](said))
            peer.read_to_the_end()
            assert PUBACK not in peer.received
            assert peer.close_code == CODES.get(name, peer.close_code)
        witness.send(frame(BINARY, b"\xc0\x00"))  # PINGREQ
        assert witness.read_until(b"\xd0\x00")


@settings(max_examples=80, deadline=None)
@given(data=st.lists(st.one_of(st.binary(min_size=1, max_size=60), st.just(frame(BINARY, b"\x10\x00"))), max_size=5))
def test_any_bytes_harm_nobody(shared: SimulatorThread, data: list[bytes]) -> None:
    with joined(shared) as peer:
        for part in data:
            peer.send(part)
    with joined(shared) as peer:
        peer.send(frame(BINARY, session(shared)))
        assert peer.read_until(PUBACK)


def test_the_messages_arrived(shared: SimulatorThread) -> None:
    name = IdentityName("edge01", "web")
    assert shared.call(lambda running: running.hub.events()) > 0
    assert shared.call(lambda running: running.hub.identities.find(name)) is not None
