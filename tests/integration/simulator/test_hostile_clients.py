"""Bytes that no SDK would send: the one who sends them is shown out, everybody else stays."""

import asyncio
import contextlib
import json
import ssl
import struct
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from edgeclave.simulator import SimulatorThread
from edgeclave.simulator.identities import IdentityName
from edgeclave.simulator.mqtt.codec import Publish, encode_publish
from edgeclave.simulator.sas import make_token
from edgeclave.simulator.settings import Settings


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack(">H", len(data)) + data


def frame(first: int, body: bytes) -> bytes:
    header, length = bytearray([first]), len(body)
    while True:
        header.append(length & 127 | (128 if length > 127 else 0))
        length >>= 7
        if not length:
            return bytes(header) + body


def connect_packet(client_id: str, username: str, password: str, flags: int = 0xC0) -> bytes:
    body = text("MQTT") + b"\x04" + bytes([flags]) + b"\0\x3c" + text(client_id) + text(username) + text(password)
    return frame(0x10, body)


class RawClient:
    """A TLS connection to the MQTT port."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def exchange(self, data: bytes) -> bytes:
        """Sends, and returns everything until the server closes, at most a second later."""
        self.writer.write(data)
        received = b""
        try:
            async with asyncio.timeout(1):
                while part := await self.reader.read(65536):
                    received += part
                received += b"<closed>"
        except TimeoutError:
            pass
        except ConnectionError:
            received += b"<closed>"
        return received


@pytest.fixture
def settings(simulator: SimulatorThread) -> Settings:
    return simulator.call(lambda running: running.settings)


@pytest.fixture
async def raw(simulator: SimulatorThread, settings: Settings) -> AsyncIterator[RawClient]:
    context = ssl.create_default_context(cafile=simulator.ca_file)
    reader, writer = await asyncio.open_connection(settings.address, settings.ports.mqtt, ssl=context)
    yield RawClient(reader, writer)
    writer.transport.abort()


@pytest.fixture
def good_connect(simulator: SimulatorThread, settings: Settings) -> bytes:
    simulator.environment("raw")
    key = simulator.call(lambda running: running.state.module("raw").primary_key)
    token = make_token(f"{settings.hub_host}/devices/edge01/modules/raw", key)
    return connect_packet("edge01/raw", f"{settings.hub_host}/edge01/raw/?api-version=2019-10-01", token)


ACCEPTED, REFUSED = b"\x20\x02\x00\x00", b"\x20\x02\x00\x05"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="HTTP"),
        pytest.param(b"\x00" * 100, id="zeros"),
        pytest.param(b"\x10\xff\xff\xff\x7f", id="a CONNECT of 256 MB"),
        pytest.param(frame(0x32, text("a") + b"\0\1x"), id="PUBLISH first"),
    ],
)
async def test_who_does_not_begin_with_connect_is_disconnected(raw: RawClient, data: bytes) -> None:
    assert await raw.exchange(data) == b"<closed>"


@pytest.mark.parametrize(
    ("client_id", "username", "token"),
    [
        pytest.param("edge01/nobody", "{hub}/edge01/nobody/?api-version=1", "x", id="unknown module"),
        pytest.param("edge01/raw", "{hub}/edge01/raw/?api-version=1", "x", id="no signature"),
        pytest.param("edge01/raw", "{hub}/edge01/other/?api-version=1", None, id="another user name"),
        pytest.param("edge01/raw", "{hub}/edge01/raw/?", None, id="no api-version"),
        pytest.param("edge01/other", "{hub}/edge01/other/?api-version=1", None, id="another module's signature"),
        pytest.param("edge01/raw", "{hub}/edge01/raw", None, id="a module without api-version"),
        pytest.param("edge01/raw", "{hub}/edge01/raw2/?api-version=1", None, id="a longer user name"),
    ],
)
async def test_wrong_credentials_get_a_refusal(
    simulator: SimulatorThread, settings: Settings, raw: RawClient, client_id: str, username: str, token: str | None
) -> None:
    simulator.environment("raw")
    simulator.environment("other")
    if token is None:
        key = simulator.call(lambda running: running.state.module("raw").primary_key)
        token = make_token(f"{settings.hub_host}/devices/edge01/modules/raw", key)
    packet = connect_packet(client_id, username.format(hub=settings.hub_host), token)
    assert await raw.exchange(packet) == REFUSED + b"<closed>"


@pytest.mark.parametrize("options", ["", "/", "/?api-version=2021-04-12", "/api-version=2016-11-14"])
async def test_a_device_is_known_by_each_form_of_its_user_name(
    simulator: SimulatorThread, settings: Settings, raw: RawClient, options: str
) -> None:
    key = simulator.call(lambda running: running.hub.identities.get(IdentityName("edge01")).primary_key)
    token = make_token(f"{settings.hub_host}/devices/edge01", key)
    assert await raw.exchange(connect_packet("edge01", f"{settings.hub_host}/edge01{options}", token)) == ACCEPTED


async def test_a_connection_ends_with_the_token_that_opened_it(
    simulator: SimulatorThread, settings: Settings, raw: RawClient
) -> None:
    key = simulator.call(lambda running: running.hub.identities.get(IdentityName("edge01")).primary_key)
    token = make_token(f"{settings.hub_host}/devices/edge01", key, ttl_seconds=6)
    username = f"{settings.hub_host}/edge01/?api-version=2021-04-12"
    assert await raw.exchange(connect_packet("edge01", username, token)) == ACCEPTED
    async with asyncio.timeout(30):
        with contextlib.suppress(ConnectionError):
            await raw.reader.read()  # to the end


@pytest.mark.parametrize("years", [1, 10**400])
async def test_a_token_may_last_as_long_as_it_likes(
    simulator: SimulatorThread, settings: Settings, raw: RawClient, years: int
) -> None:
    key = simulator.call(lambda running: running.hub.identities.get(IdentityName("edge01")).primary_key)
    token = make_token(f"{settings.hub_host}/devices/edge01", key, ttl_seconds=years * 365 * 24 * 3600)
    username = f"{settings.hub_host}/edge01/?api-version=2021-04-12"
    assert await raw.exchange(connect_packet("edge01", username, token)) == ACCEPTED


async def test_another_protocol_level_gets_its_own_refusal(raw: RawClient) -> None:
    assert await raw.exchange(frame(0x10, text("MQTT") + b"\x05\x02\0\0\0" + text("x"))) == b"\x20\x02\x00\x01<closed>"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(
            encode_publish(Publish("devices/edge01/modules/other/messages/events/", b"", 1, 1)), id="as another"
        ),
        pytest.param(encode_publish(Publish("$iothub/nothing", b"", 1, 1)), id="unknown topic"),
        pytest.param(encode_publish(Publish("$iothub/twin/GET/?$rid=", b"", 1, 1)), id="request without an id"),
        pytest.param(encode_publish(Publish("a/b", b"", 1, 1)), id="any topic"),
        pytest.param(frame(0x34, text("a") + b"\0\1"), id="QoS 2"),
        pytest.param(b"\x30\xff\xff\xff\x7f", id="a message of 256 MB"),
        pytest.param(connect_packet("edge01/raw", "u", "p"), id="a second CONNECT"),
    ],
)
async def test_a_connected_client_that_breaks_the_rules_is_disconnected_without_an_answer(
    raw: RawClient, good_connect: bytes, data: bytes
) -> None:
    assert await raw.exchange(good_connect + data) in (ACCEPTED + b"<closed>", b"<closed>")


async def test_foreign_topics_are_not_granted(raw: RawClient, good_connect: bytes) -> None:
    wanted = ("devices/edge01/modules/raw/inputs/#", "devices/edge01/modules/other/inputs/#", "#", "$iothub/#")
    packet = frame(0x82, b"\0\1" + b"".join(text(each) + b"\1" for each in wanted))
    assert await raw.exchange(good_connect + packet) == ACCEPTED + b"\x90\x06\0\1\x01\x80\x80\x80"


async def test_malformed_reported_properties_are_answered_with_400(raw: RawClient, good_connect: bytes) -> None:
    topic = "$iothub/twin/PATCH/properties/reported/?$rid=7"
    packet = encode_publish(Publish(topic, b"{", 1, 1))
    answer = await raw.exchange(good_connect + packet)
    assert b"$iothub/twin/res/400/?$rid=7" in answer
    assert answer.endswith(b"\x40\x02\x00\x01")


async def test_who_does_not_read_is_not_kept_in_memory(
    simulator: SimulatorThread, raw: RawClient, good_connect: bytes
) -> None:
    """It asks for its twin over and over and never reads an answer: the simulator stops reading from it."""
    ask = encode_publish(Publish("$iothub/twin/GET/?$rid=1", b"", 0)) * 5000
    raw.writer.write(good_connect)
    asked = 0
    for _ in range(200):
        raw.writer.write(ask)
        asked += len(ask)
        try:
            async with asyncio.timeout(0.5):
                await raw.writer.drain()
        except (TimeoutError, ConnectionError):
            break
    else:
        pytest.fail("the simulator read everything")
    simulator.environment("still_there")


async def test_the_proxy_leads_only_where_it_should(settings: Settings) -> None:
    async def ask(head: str) -> bytes:
        reader, writer = await asyncio.open_connection(settings.address, settings.ports.proxy)
        writer.write(head.encode())
        try:
            async with asyncio.timeout(20):
                return await reader.read(200)
        finally:
            writer.transport.abort()

    for target in ("example.org:443", "127.0.0.1:22", f"{settings.gateway}:22", "nobody:1", "x", "x:y", "[::1]:443"):
        assert b" 403 " in await ask(f"CONNECT {target} HTTP/1.1\r\n\r\n"), target
    assert b" 405 " in await ask("GET http://example.org/ HTTP/1.1\r\n\r\n")
    assert b" 400 " in await ask("x" * 20_000)
    assert b" 200 " in await ask(f"CONNECT {settings.gateway.upper()}:8883 HTTP/1.1\r\n\r\n")


@pytest.fixture
async def rest(simulator: SimulatorThread, settings: Settings) -> AsyncIterator[Any]:
    context = ssl.create_default_context(cafile=simulator.ca_file)
    base = f"https://{settings.address}:{settings.ports.https}"
    async with aiohttp.ClientSession(base, connector=aiohttp.TCPConnector(ssl=context)) as session:
        yield session


OWNER = "owner"
STRANGER = "stranger"
MODULE = "module"


@pytest.mark.parametrize(
    ("who", "method", "path", "body", "status"),
    [
        pytest.param(None, "GET", "/devices", b"", 401, id="no token"),
        pytest.param(STRANGER, "GET", "/devices", b"", 401, id="another key"),
        pytest.param(MODULE, "GET", "/devices", b"", 403, id="a module reads the registry"),
        pytest.param(MODULE, "POST", "/twins/edge02/methods", b"{}", 403, id="a module calls another device"),
        pytest.param(MODULE, "PATCH", "/twins/edge01/modules/raw", b"{}", 403, id="a module patches a twin"),
        pytest.param(OWNER, "PATCH", "/twins/edge01/modules/raw", b"{", 400, id="JSON cut short"),
        pytest.param(OWNER, "PATCH", "/twins/edge01/modules/raw", b"[]", 400, id="an array"),
        pytest.param(OWNER, "PATCH", "/twins/edge01/modules/raw", b'{"properties": 1}', 400, id="properties: 1"),
        pytest.param(OWNER, "PATCH", "/twins/edge01/modules/raw", b"[" * 100_000, 400, id="nested without end"),
        pytest.param(OWNER, "PATCH", "/twins/edge01/modules/raw", b" " * (3 << 20), 413, id="3 MB"),
        pytest.param(OWNER, "POST", "/twins/edge01/modules/raw/methods", b"{}", 400, id="method without a name"),
        pytest.param(
            OWNER, "POST", "/twins/edge01/modules/raw/methods", b'{"methodName": "x", "responseTimeoutInSeconds": 1}',
            400, id="response timeout of 1 s",
        ),
        pytest.param(
            OWNER, "POST", "/twins/edge01/modules/raw/methods",
            json.dumps({"methodName": "x", "payload": "y" * 140_000}).encode(), 413, id="payload over 128 KB",
        ),
        pytest.param(OWNER, "PUT", "/devices/a%20b", b"{}", 400, id="device id with a space"),
        pytest.param(OWNER, "PUT", "/devices/x", b'{"status": "on"}', 400, id="unknown status"),
        pytest.param(OWNER, "PUT", "/devices/x", b'{"authentication": {"type": "magic"}}', 400, id="unknown sign-in"),
        pytest.param(OWNER, "GET", "/twins/nobody", b"", 404, id="unknown device"),
        pytest.param(OWNER, "GET", "/nothing", b"", 404, id="unknown path"),
        pytest.param(OWNER, "PATCH", "/devices", b"", 405, id="unknown method"),
        pytest.param(OWNER, "POST", "/devices/query", b'{"query": "SELECT * FROM devices WHERE ("}', 400, id="query"),
    ],
)  # fmt: skip
async def test_bad_requests_get_a_status_and_a_message(
    simulator: SimulatorThread,
    settings: Settings,
    rest: Any,
    who: str | None,
    method: str,
    path: str,
    body: bytes,
    status: int,
) -> None:
    simulator.environment("raw")
    module_key = simulator.call(lambda running: running.state.module("raw").primary_key)
    tokens = {
        OWNER: make_token(settings.address, settings.owner_key, policy="iothubowner"),
        STRANGER: make_token(settings.address, module_key, policy="iothubowner"),
        MODULE: make_token(f"{settings.hub_host}/devices/edge01/modules/raw", module_key),
    }
    headers = {"Authorization": tokens[who]} if who else {}
    async with rest.request(method, path, data=body, headers=headers) as answer:
        assert answer.status == status
        assert "ErrorCode:" in (await answer.json())["Message"]
