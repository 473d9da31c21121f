"""What a client may send, broken in every way, and what the server sends, read back by the same rules."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclave.simulator.mqtt.codec import (
    Connect,
    Disconnect,
    MalformedPacketError,
    Packet,
    PacketReader,
    PingRequest,
    Publish,
    PublishAcknowledged,
    Subscribe,
    Unsubscribe,
    encode_connack,
    encode_pingresp,
    encode_puback,
    encode_publish,
    encode_suback,
    encode_unsuback,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0+#"), min_size=1, max_size=60)


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack(">H", len(data)) + data


def packet(first: int, body: bytes) -> bytes:
    length, header = len(body), bytearray([first])
    while True:
        header.append(length & 127 | (128 if length > 127 else 0))
        length >>= 7
        if not length:
            return bytes(header) + body


def read(data: bytes, limit: int = 300_000) -> list[Packet]:
    return list(PacketReader(limit).feed(data))


CONNECT = packet(0x10, text("MQTT") + b"\x04\xc0\x00\x3c" + text("edge01/m1") + text("user") + text("password"))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(CONNECT, Connect("edge01/m1", 4, False, 60, "user", "password"), id="connect as the SDK does"),
        pytest.param(
            packet(0x10, text("MQTT") + b"\x04\x06\x00\x00" + text("c") + text("will topic") + text("will")),
            Connect("c", 4, True, 0, "", ""),
            id="connect with a will and a clean session",
        ),
        pytest.param(packet(0x10, text("MQTT") + b"\x05"), Connect("", 5, True, 0, "", ""), id="connect of MQTT 5"),
        pytest.param(packet(0x32, text("a/b") + b"\0\x07x"), Publish("a/b", b"x", 1, 7), id="publish QoS 1"),
        pytest.param(packet(0x3A, text("a") + b"\0\x07"), Publish("a", b"", 1, 7, True), id="duplicate, empty"),
        pytest.param(packet(0x30, text("a") + b"x"), Publish("a", b"x"), id="publish QoS 0"),
        pytest.param(b"\x40\x02\x01\x00", PublishAcknowledged(256), id="puback"),
        pytest.param(
            packet(0x82, b"\0\x01" + text("a/#") + b"\x01" + text("b") + b"\0"),
            Subscribe(1, (("a/#", 1), ("b", 0))),
            id="subscribe to two",
        ),
        pytest.param(packet(0xA2, b"\0\x01" + text("a/#")), Unsubscribe(1, ("a/#",)), id="unsubscribe"),
        pytest.param(b"\xc0\x00", PingRequest(), id="ping"),
        pytest.param(b"\xe0\x00", Disconnect(), id="disconnect"),
    ],
)
def test_reads(data: bytes, expected: Packet) -> None:
    assert read(data) == [expected]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x30\xff\xff\xff\xff\x01", id="length of five bytes"),
        pytest.param(b"\x30\xff\xff\xff\x7f", id="length over the limit, before its body is there"),
        pytest.param(b"\x00\x00", id="reserved packet type 0"),
        pytest.param(b"\xf0\x00", id="reserved packet type 15"),
        pytest.param(b"\x20\x02\x00\x00", id="a server's packet"),
        pytest.param(b"\xc1\x00", id="reserved flags on ping"),
        pytest.param(packet(0x80, b"\0\x01" + text("a") + b"\0"), id="subscribe without its required flags"),
        pytest.param(packet(0x82, b"\0\x01"), id="subscribe to nothing"),
        pytest.param(packet(0x82, b"\0\x01" + text("a") + b"\x03"), id="subscribe with QoS 3"),
        pytest.param(packet(0x82, b"\0\x01" + text("") + b"\0"), id="subscribe with an empty filter"),
        pytest.param(packet(0x82, b"\0\x01" + (text("a") + b"\0") * 40), id="subscribe to forty at once"),
        pytest.param(packet(0x82, b"\0\x01" + text("a")), id="subscribe without a QoS"),
        pytest.param(packet(0xA2, b"\0\x01\0\xff"), id="unsubscribe that ends too early"),
        pytest.param(packet(0x34, text("a") + b"\0\x01"), id="publish QoS 2"),
        pytest.param(packet(0x36, text("a") + b"\0\x01"), id="publish QoS 3"),
        pytest.param(packet(0x32, text("a") + b"\0\0"), id="packet id 0"),
        pytest.param(packet(0x30, text("a/+/b")), id="publish to a wildcard"),
        pytest.param(packet(0x30, text("")), id="publish to an empty topic"),
        pytest.param(packet(0x30, b"\0\x02\xff\xfe"), id="topic that is not UTF-8"),
        pytest.param(packet(0x30, text("a\0b")), id="topic with U+0000"),
        pytest.param(packet(0x30, b"\0\x10ab"), id="topic longer than its packet"),
        pytest.param(b"\x40\x03\0\x01\0", id="puback with a byte too many"),
        pytest.param(b"\x40\x01\0", id="puback cut short"),
        pytest.param(packet(0x10, text("MQIsdp") + b"\x03\0\0\0"), id="another protocol"),
        pytest.param(packet(0x10, text("MQTT") + b"\x04\x01\0\0" + text("c")), id="connect with its reserved flag"),
        pytest.param(packet(0x10, text("MQTT") + b"\x04\x40\0\0" + text("c") + text("p")), id="password without user"),
        pytest.param(packet(0x10, text("MQTT") + b"\x04\x08\0\0" + text("c")), id="will QoS without a will"),
        pytest.param(CONNECT[:1] + bytes([CONNECT[1] + 1]) + CONNECT[2:] + b"!", id="connect with a byte too many"),
    ],
)
def test_refuses(data: bytes) -> None:
    with pytest.raises(MalformedPacketError):
        read(data)


@given(TEXT, st.binary(max_size=400), st.integers(0, 1), st.integers(1, 0xFFFF), st.booleans())
def test_publish_comes_back_as_it_was(topic: str, body: bytes, qos: int, packet_id: int, duplicate: bool) -> None:
    sent = Publish(topic, body, qos, packet_id if qos else 0, duplicate)
    assert read(encode_publish(sent)) == [sent]


@given(st.binary(max_size=600))
def test_random_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(MalformedPacketError):
        read(data)


@given(st.lists(st.integers(1, 40), max_size=20))
def test_packets_may_arrive_in_any_pieces(cuts: list[int]) -> None:
    stream = CONNECT + packet(0x32, text("a/b") + b"\0\x07" + b"x" * 300) + b"\xc0\x00"
    reader, found, position = PacketReader(), list[Packet](), 0
    for cut in cuts:
        found += reader.feed(stream[position : position + cut])
        position += cut
    found += reader.feed(stream[position:])
    assert [type(each) for each in found] == [Connect, Publish, PingRequest]


def test_what_is_kept_of_an_unfinished_packet_is_bounded() -> None:
    with pytest.raises(MalformedPacketError, match="over the limit"):
        read(packet(0x30, text("a") + b"x" * 500), limit=400)


def test_answers() -> None:
    assert encode_connack(0, session_present=True) == b"\x20\x02\x01\x00"
    assert encode_puback(258) == b"\x40\x02\x01\x02"
    assert encode_suback(1, (0, 1, 0x80)) == b"\x90\x05\x00\x01\x00\x01\x80"
    assert encode_unsuback(1) == b"\xb0\x02\x00\x01"
    assert encode_pingresp() == b"\xd0\x00"
