"""A client that speaks frame by frame, also wrongly, over plaintext."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import random
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote_plus

import pytest

from edgeclave.simulator.amqp import connection, frames, performatives
from edgeclave.simulator.amqp.codec import Reader
from edgeclave.simulator.amqp.log import LogEntry
from edgeclave.simulator.amqp.message import Message, read_message
from edgeclave.simulator.amqp.performatives import (
    RECEIVER,
    SENDER,
    Attach,
    Begin,
    Close,
    Composite,
    Detach,
    End,
    Flow,
    Open,
    SaslInit,
    SaslMechanisms,
    SaslOutcome,
    Source,
    Target,
    Transfer,
)
from edgeclave.simulator.amqp.server import EventHubEndpoint

HUB, KEY = "sim-hub", "c2VjcmV0"
PARTITION = f"amqps://127.0.0.1/{HUB}/ConsumerGroups/$Default/Partitions/0"
TO_CLIENT: dict[int, type[Composite]] = {
    kind.code: kind for kind in (Open, Begin, Attach, Flow, Transfer, Detach, End, Close, SaslMechanisms, SaslOutcome)
}
TO_CLIENT[performatives.Disposition.code] = performatives.Disposition


class Entries:
    """A log in memory; what is tested here is the protocol."""

    partitions = ("0",)

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.changed = asyncio.Event()

    def append(self, body: bytes) -> None:
        self.bodies.append(body)
        self.changed.set()

    def read(self, partition: str, after_sequence: int, limit: int) -> list[LogEntry]:
        first = after_sequence + 1
        return [LogEntry(n, str(n), n, body) for n, body in enumerate(self.bodies)][first : first + limit]

    def bounds(self, partition: str) -> tuple[int, int, int]:
        return 0, len(self.bodies) - 1, 0

    async def wait(self, partition: str, after_sequence: int) -> None:
        while len(self.bodies) <= after_sequence + 1:
            self.changed.clear()
            await self.changed.wait()


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, performative: Composite, payload: bytes = b"", *, channel: int = 0, kind: int = 0) -> None:
        self.writer.write(frames.pack(performative, channel, payload, kind=kind))

    async def receive(self, *, skip_heartbeats: bool = True) -> tuple[Composite | None, bytes]:
        async with asyncio.timeout(20):
            size = int.from_bytes(await self.reader.readexactly(4), "big")
            body = (await self.reader.readexactly(size - 4))[4:]
            if not body:
                return (await self.receive()) if skip_heartbeats else (None, b"")
            reader = Reader(body)
            value = reader.value()
            return TO_CLIENT[value.descriptor].from_value(value), body[reader.position :]

    async def expect(self, kind: type[Any]) -> Any:
        performative, _ = await self.receive()
        assert isinstance(performative, kind), performative
        return performative

    async def header(self, header: bytes) -> bytes:
        self.writer.write(header)
        async with asyncio.timeout(20):
            return await self.reader.readexactly(8)

    async def sasl(self, mechanism: str = "ANONYMOUS", response: bytes | None = None) -> int:
        assert await self.header(frames.SASL_HEADER) == frames.SASL_HEADER
        await self.expect(SaslMechanisms)
        self.send(SaslInit(mechanism=mechanism, initial_response=response), kind=frames.SASL_FRAME)
        outcome: SaslOutcome = await self.expect(SaslOutcome)
        return outcome.outcome

    async def begin(self, *, window: int = 1000, sasl: bool = True, **opening: Any) -> None:
        if sasl:
            assert await self.sasl("PLAIN", b"\0iothubowner\0" + KEY.encode()) == 0
        assert await self.header(frames.AMQP_HEADER) == frames.AMQP_HEADER
        self.send(Open(container_id="test", **opening))
        await self.expect(Open)
        self.send(Begin(next_outgoing_id=0, incoming_window=window, outgoing_window=1000))
        await self.expect(Begin)

    def attach(self, handle: int, address: str, role: bool = RECEIVER) -> None:
        source = Source(address=address if role == RECEIVER else "here")
        target = Target(address="here" if role == RECEIVER else address)
        self.send(Attach(name=f"link{handle}", handle=handle, role=role, source=source, target=target))

    def credit(self, handle: int, credit: int, *, received: int = 0, window: int = 1000, **more: Any) -> None:
        self.send(
            Flow(
                next_incoming_id=received,
                incoming_window=window,
                next_outgoing_id=0,
                outgoing_window=1000,
                handle=handle,
                delivery_count=received,
                link_credit=credit,
                **more,
            )
        )

    async def bodies(self, count: int) -> list[bytes]:
        got: list[bytes] = []
        buffer = b""
        while len(got) < count:
            transfer, payload = await self.receive()
            assert isinstance(transfer, Transfer), transfer
            buffer += payload
            if not transfer.more:
                got.append(read_message(buffer).data or b"")
                buffer = b""
        return got

    async def silence(self) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await self.reader.readexactly(1)

    async def put_token(self, token: str, audience: str) -> int:
        self.attach(20, "$cbs", RECEIVER)
        await self.expect(Attach)
        self.attach(21, "$cbs", SENDER)
        await self.expect(Attach)
        await self.expect(Flow)
        self.credit(20, 10)
        request = Message(
            properties={"message_id": "1"},
            application_properties={
                "operation": "put-token",
                "type": "servicebus.windows.net:sastoken",
                "name": audience,
            },
            value=token,
        )
        self.send(Transfer(handle=21, delivery_id=0, delivery_tag=b"0", settled=True), request.to_bytes())
        _, payload = await self.receive()
        await self.expect(Flow)
        reply = read_message(payload)
        assert reply.properties["correlation_id"] == "1"
        return int(reply.application_properties["status-code"])


@pytest.fixture
def log() -> Entries:
    return Entries()


@pytest.fixture
async def client(log: Entries) -> AsyncIterator[Client]:
    endpoint = EventHubEndpoint(log, hub_name=HUB, shared_access_keys={"iothubowner": KEY})
    port = await endpoint.start("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    yield Client(reader, writer)
    writer.close()
    await endpoint.stop()


def signed(resource: str, expiry: int) -> str:
    quoted = quote_plus(resource)
    digest = hmac.new(KEY.encode(), f"{quoted}\n{expiry}".encode(), hashlib.sha256).digest()
    return f"SharedAccessSignature sr={quoted}&sig={quote_plus(base64.b64encode(digest))}&se={expiry}"


async def test_no_more_than_the_credit_is_sent(client: Client, log: Entries) -> None:
    for number in range(5):
        log.append(bytes([number]))
    await client.begin()
    client.attach(0, PARTITION)
    await client.expect(Attach)
    await client.silence()
    client.credit(0, 2)
    assert await client.bodies(2) == [b"\0", b"\1"]
    await client.silence()
    client.credit(0, 2, received=2)
    assert await client.bodies(2) == [b"\2", b"\3"]


async def test_no_more_than_the_session_window_is_sent(client: Client, log: Entries) -> None:
    for number in range(5):
        log.append(bytes([number]))
    await client.begin(window=3)
    client.attach(0, PARTITION)
    await client.expect(Attach)
    client.credit(0, 100, window=3)
    assert await client.bodies(3) == [b"\0", b"\1", b"\2"]
    await client.silence()
    client.credit(0, 100, received=3, window=3)
    assert await client.bodies(2) == [b"\3", b"\4"]


async def test_a_message_is_split_to_the_clients_frame_size(client: Client, log: Entries) -> None:
    log.append(b"x" * 5000)
    await client.begin(max_frame_size=512)
    client.attach(0, PARTITION)
    await client.expect(Attach)
    client.credit(0, 1)
    assert await client.bodies(1) == [b"x" * 5000]


async def test_drain_gives_the_unused_credit_back(client: Client, log: Entries) -> None:
    log.append(b"one")
    await client.begin()
    client.attach(0, PARTITION)
    await client.expect(Attach)
    client.credit(0, 10, drain=True)
    assert await client.bodies(1) == [b"one"]
    flow: Flow = await client.expect(Flow)
    assert (flow.delivery_count, flow.link_credit) == (10, 0)


async def test_two_links_and_a_detach(client: Client, log: Entries) -> None:
    await client.begin()
    for handle in (0, 1):
        client.attach(handle, PARTITION)
        await client.expect(Attach)
    client.credit(0, 5)
    client.credit(1, 5)
    client.send(Detach(handle=0, closed=True))
    detached: Detach = await client.expect(Detach)
    assert (detached.handle, detached.closed, detached.error) == (0, True, None)
    log.append(b"for the second")
    transfer, _ = await client.receive()
    assert isinstance(transfer, Transfer)
    assert transfer.handle == 1


async def test_end_and_close_are_answered(client: Client) -> None:
    await client.begin()
    client.send(End())
    await client.expect(End)
    client.send(Detach(handle=0, closed=True))
    client.send(Close())
    closed: Close = await client.expect(Close)
    assert closed.error is None
    assert await client.reader.read() == b""


async def test_heartbeats_are_sent_as_often_as_the_client_asks(client: Client) -> None:
    await client.begin(idle_time_out=300)
    for _ in range(3):
        async with asyncio.timeout(0.3):
            assert await client.receive(skip_heartbeats=False) == (None, b"")


async def test_a_silent_client_is_closed(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "WATCH_SECONDS", 0.05)
    monkeypatch.setattr(connection, "IDLE_SECONDS", 0.2)
    await client.begin()
    closed: Close = await client.expect(Close)
    assert closed.error is not None
    assert closed.error.condition == "amqp:resource-limit-exceeded"


async def test_a_client_that_never_opens_is_let_go(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HANDSHAKE_SECONDS", 0.1)
    reader, writer = await asyncio.open_connection(*client.writer.get_extra_info("peername"))
    assert await Client(reader, writer).sasl() == 0
    async with asyncio.timeout(20):
        assert await reader.read() == b""
    writer.close()


async def test_a_token_opens_until_it_expires(client: Client, log: Entries, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "WATCH_SECONDS", 0.05)
    assert await client.sasl("MSSBCBS") == 0
    await client.begin(sasl=False)
    resource = f"sb://127.0.0.1/{HUB}"
    assert await client.put_token(signed(resource, int(time.time()) + 2), resource) == 202
    client.attach(0, PARTITION)
    await client.expect(Attach)
    client.credit(0, 10)
    log.append(b"in time")
    assert await client.bodies(1) == [b"in time"]
    detached: Detach = await client.expect(Detach)
    assert detached.error is not None
    assert (detached.handle, detached.error.condition) == (0, "amqp:unauthorized-access")
    log.append(b"too late")
    await client.silence()


@pytest.mark.parametrize("expires_in", [pytest.param(-1, id="expired token"), pytest.param(60, id="other resource")])
async def test_a_refused_token_is_status_401_and_opens_nothing(client: Client, expires_in: int) -> None:
    assert await client.sasl() == 0
    await client.begin(sasl=False)
    resource = f"sb://127.0.0.1/{HUB}" if expires_in < 0 else "sb://127.0.0.1/other"
    assert await client.put_token(signed(resource, int(time.time()) + expires_in), f"sb://127.0.0.1/{HUB}") == 401
    for handle, address in ((0, PARTITION), (1, "$management")):
        client.attach(handle, address)
        refused: Attach = await client.expect(Attach)
        detached: Detach = await client.expect(Detach)
        assert refused.source is None
        assert detached.error is not None
        assert detached.error.condition == "amqp:unauthorized-access"


async def test_wrong_plain_credentials_are_refused(client: Client) -> None:
    assert await client.sasl("PLAIN", b"\0iothubowner\0wrong") == 1
    assert await client.reader.read() == b""


@pytest.mark.parametrize(
    "address",
    [
        pytest.param(f"{HUB}/ConsumerGroups/$Default/Partitions/9", id="no such partition"),
        pytest.param("other/ConsumerGroups/$Default/Partitions/0", id="another hub"),
        pytest.param(f"{HUB}/Partitions/0", id="no group"),
        pytest.param("", id="no address"),
        pytest.param("x" * 10_000, id="huge address"),
    ],
)
async def test_a_link_to_nowhere_is_detached_with_the_reason(client: Client, address: str) -> None:
    await client.begin()
    client.attach(0, address)
    await client.expect(Attach)
    detached: Detach = await client.expect(Detach)
    assert detached.error is not None
    assert detached.error.condition == "amqp:not-found"
    client.send(Detach(handle=0, closed=True))
    client.attach(0, PARTITION)
    attached: Attach = await client.expect(Attach)
    assert attached.source is not None


async def _send_to_unknown_handle(client: Client) -> None:
    client.send(Transfer(handle=5, delivery_id=0, delivery_tag=b"0"), b"x")


async def _attach_twice(client: Client) -> None:
    client.attach(0, PARTITION)
    await client.expect(Attach)
    client.attach(0, PARTITION)


async def _send_a_huge_request(client: Client) -> None:
    client.attach(0, "$management", SENDER)
    await client.expect(Attach)
    await client.expect(Flow)
    for _ in range(3):
        client.send(Transfer(handle=0, delivery_id=0, delivery_tag=b"0", more=True), b"x" * 30_000)


async def _send_a_malformed_request(client: Client) -> None:
    client.attach(0, "$management", SENDER)
    await client.expect(Attach)
    await client.expect(Flow)
    client.send(Transfer(handle=0, delivery_id=0, delivery_tag=b"0"), b"\x00\x53\x77")


async def _announce_a_huge_frame(client: Client) -> None:
    client.writer.write(b"\x7f\xff\xff\xff\x02\x00\x00\x00")


async def _send_on_an_unknown_channel(client: Client) -> None:
    client.send(Flow(incoming_window=1, next_outgoing_id=0, outgoing_window=1), channel=9)


async def _begin_beyond_channel_max(client: Client) -> None:
    client.send(Begin(next_outgoing_id=0, incoming_window=1, outgoing_window=1), channel=999)


async def _open_twice(client: Client) -> None:
    client.send(Open(container_id="again"))


@pytest.mark.parametrize(
    ("misbehave", "condition"),
    [
        (_send_to_unknown_handle, "amqp:session:unattached-handle"),
        (_attach_twice, "amqp:session:handle-in-use"),
        (_send_a_huge_request, "amqp:link:message-size-exceeded"),
        (_send_a_malformed_request, "amqp:decode-error"),
        (_announce_a_huge_frame, "amqp:connection:framing-error"),
        (_send_on_an_unknown_channel, "amqp:connection:framing-error"),
        (_begin_beyond_channel_max, "amqp:resource-limit-exceeded"),
        (_open_twice, "amqp:not-allowed"),
    ],
    ids=lambda value: value.__name__.strip("_").replace("_", " ") if callable(value) else "",
)
async def test_a_client_that_breaks_the_protocol_is_told_and_closed(
    client: Client, misbehave: Any, condition: str
) -> None:
    await client.begin()
    await misbehave(client)
    closed: Close = await client.expect(Close)
    assert closed.error is not None
    assert closed.error.condition == condition
    assert await client.reader.read() == b""


@pytest.mark.parametrize("header", [b"AMQP\x00\x00\x09\x01", b"GET / HT", b"\x16\x03\x01\x02\x00\x01\x00\x01"])
async def test_another_protocol_is_answered_with_ours_and_closed(client: Client, header: bytes) -> None:
    assert await client.header(header) == frames.AMQP_HEADER
    assert await client.reader.read() == b""


async def test_random_frames_never_hurt_the_endpoint(client: Client, log: Entries) -> None:
    chance = random.Random(7)
    host, port = client.writer.get_extra_info("peername")
    for _ in range(50):
        reader, writer = await asyncio.open_connection(host, port)
        body = chance.randbytes(chance.randrange(60))
        size = (len(body) + 8).to_bytes(4, "big")
        writer.write(frames.AMQP_HEADER + frames.pack(Open(container_id="x"), 0) + size + b"\x02\x00\x00\x00" + body)
        writer.write_eof()
        async with asyncio.timeout(20):
            await reader.read()
        writer.close()
    log.append(b"still there")
    await client.begin()
    client.attach(0, PARTITION)
    await client.expect(Attach)
    client.credit(0, 1)
    assert await client.bodies(1) == [b"still there"]
