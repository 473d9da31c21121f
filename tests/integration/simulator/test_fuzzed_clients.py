"""Real sessions with a few bytes changed, and HTTP that nobody would write: everybody else stays connected."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from azure.iot.device import Message, MethodResponse
from azure.iot.hub import IoTHubRegistryManager  # type: ignore[import-untyped]
from azure.iot.hub.models import CloudToDeviceMethod  # type: ignore[import-untyped]
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgeclave.simulator import SimulatorThread
from edgeclave.simulator.identities import IdentityName
from edgeclave.simulator.sas import make_token

from .test_hostile_services import exchange, mutated

MUTANTS = 150
ANSWER_SECONDS = 0.3  # for a server that waits for the rest of a request


class Recorder:
    """A CONNECT proxy that reads along what a client sends inside its TLS."""

    def __init__(self, simulator: SimulatorThread) -> None:
        self._settings = simulator.call(lambda running: running.settings)
        self._ca_file = simulator.ca_file
        self._context = simulator.call(lambda running: running.state.pki.server_context([self._settings.gateway]))
        self.sessions: list[bytearray] = []

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1")
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await writer.start_tls(self._context)
        trusting = ssl.create_default_context(cafile=self._ca_file)
        where = (self._settings.address, self._settings.ports.mqtt)
        up_reader, up_writer = await asyncio.open_connection(
            *where, ssl=trusting, server_hostname=self._settings.gateway
        )
        said = bytearray()
        self.sessions.append(said)
        with contextlib.suppress(OSError):
            await asyncio.gather(_copy(reader, up_writer, said), _copy(up_reader, writer, bytearray()))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: bytearray) -> None:
    while data := await reader.read(65536):
        said += data
        writer.write(data)
    writer.close()


async def test_a_real_session_with_a_few_bytes_changed_harms_nobody(
    simulator: SimulatorThread, registry: IoTHubRegistryManager, connect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    witness = await connect(simulator.environment("witness"))
    recorder = Recorder(simulator)
    async with recorder as proxy:
        client = await connect({**simulator.environment("model"), "mqtt_proxy": proxy})
        await use(client, registry)
        await client.shutdown()
    capture = bytes(recorder.sessions[0])
    for part in (b"MQTT", b"%24.on=out", b"twin/GET", b"properties/reported", b"methods/res/200"):
        assert part in capture
    where = simulator.call(lambda running: running.settings)
    dice = random.Random(7)
    for _ in range(MUTANTS):
        await exchange(simulator, where.address, where.ports.mqtt, mutated(capture, dice), 0.05)
    assert witness.connected
    await witness.patch_twin_reported_properties({"still": "here"})
    assert (await witness.get_twin())["reported"]["still"] == "here"
    again = await connect(simulator.environment("model"))
    await use(again, registry)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def use(client: Any, registry: IoTHubRegistryManager) -> None:
    """Telemetry, twin, reported properties and a method."""

    async def answer(request: Any) -> None:
        await client.send_method_response(MethodResponse.create_from_method_request(request, 200, {"a": 1}))

    await asyncio.to_thread(setattr, client, "on_method_request_received", answer)  # the SDK waits for the SUBACK
    message = Message('{"t": 21}', content_type="application/json", content_encoding="utf-8")
    message.custom_properties["k"] = "v"
    await client.send_message_to_output(message, "out")
    await client.get_twin()
    await client.patch_twin_reported_properties({"rpm": 60, "nested": {"a": [1, 2]}})
    method = CloudToDeviceMethod(method_name="m", payload={}, connect_timeout_in_seconds=5)
    result = await asyncio.to_thread(registry.invoke_device_module_method, "edge01", "model", method)
    assert result.payload == {"a": 1}


# HTTP


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorThread]:
    with SimulatorThread(tmp_path_factory.mktemp("fuzzed") / "sim") as running:
        yield running


METHODS = st.one_of(
    st.sampled_from(["GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "get"]),
    st.text("ABC\x00 ", min_size=1, max_size=8),
)
NAMES = (
    "devices twins modules raw edge01 query methods configurations statistics x .. %00 %2f % enrollments"
    " enrollmentGroups registrations messages deviceBound feedback applyConfigurationContent genid 0 sign certificate"
    " server identity encrypt decrypt trust-bundle $iothub websocket"
)
PARTS = st.one_of(st.sampled_from([*NAMES.split(), "", "a" * 300]), st.text(max_size=10))
PATHS = st.one_of(
    st.lists(PARTS, max_size=6).map(lambda parts: "/" + "/".join(parts)),
    st.lists(PARTS, max_size=4).map(lambda parts: "/" + "/".join(parts) + "?api-version=2020-07-07&top=x&=&&"),
    st.sampled_from(["*", "http://other/", "//", "/?", "/" + "x" * 9000]),
)
HEADERS = st.lists(
    st.one_of(
        st.sampled_from(
            [
                ("If-Match", '"*"'), ("If-Match", "\x01"), ("Content-Type", "application/json"),
                ("Expect", "100-continue"), ("Content-Encoding", "gzip"), ("Upgrade", "websocket"),
                ("Sec-WebSocket-Key", "x"), ("Host", "a\x00b"), ("x-ms-max-item-count", "-1"),
                ("x-ms-continuation", "%%"), ("Authorization", "SharedAccessSignature sr="),
            ]
        ),
        st.tuples(st.text("aX-:", min_size=1, max_size=9), st.text(max_size=30)),
    ),
    max_size=5,
)  # fmt: skip
JSON_LIKE = st.one_of(
    st.binary(max_size=200),
    st.sampled_from([b"{", b"[[[", b"null", b'{"a": NaN}', b'{"query": "SELECT"}', b'{"properties": {"desired": 1}}']),
    st.sampled_from([b"[" * 5000, b'{"deviceId": 7}', b'{"keyId": 1, "data": "%%"}', b'"\\ud800"', b"x" * (3 << 20)]),
)
CHUNK_SIZES = st.sampled_from(["5", "0", "-1", "ffffffffffffffff", "zz", "3;ext=" + "e" * 100, ""])


@st.composite
def requests(draw: Any) -> bytes:
    """One request, more or less."""
    head = f"{draw(METHODS)} {draw(PATHS)} HTTP/{draw(st.sampled_from(['1.1', '1.1', '1.0', '9.9', 'x']))}\r\n"
    lines = [f"{name}: {value}\r\n" for name, value in draw(HEADERS)]
    if draw(st.integers(0, 4)):
        lines.append("Host: x\r\n")
    if draw(st.booleans()):
        lines.append("Authorization: TOKEN\r\n")
    body = draw(JSON_LIKE)
    if draw(st.booleans()):
        lines.append("Transfer-Encoding: chunked\r\n")
        pieces = [b"%s\r\n%s\r\n" % (draw(CHUNK_SIZES).encode(), body[:50]) for _ in range(draw(st.integers(0, 3)))]
        body = b"".join(pieces) + draw(st.sampled_from([b"0\r\n\r\n", b"", b"\r\n", b"0\r\nx: y\r\n\r\n"]))
    else:
        length = draw(st.sampled_from([str(len(body)), "-1", "99999999999999999999", "3", "x"]))
        lines.append(f"Content-Length: {length}\r\n")
    return (head + "".join(lines) + "Connection: close\r\n\r\n").encode("utf-8", "replace") + body


def answer_of(connection: socket.socket, data: bytes) -> bytes:
    """The beginning of what comes back, empty when the connection is cut."""
    received = b""
    connection.settimeout(ANSWER_SECONDS)
    with contextlib.suppress(OSError):
        connection.sendall(data)
    with contextlib.suppress(OSError):
        while len(received) < 4096 and (part := connection.recv(4096)):
            received += part
    return received


def check(answer: bytes) -> None:
    """Cut off, still waiting for the rest, or a status that is not the server's own fault."""
    if answer:
        assert answer.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")), answer[:80]
        assert answer[9:12] not in (b"500", b"502", b"503"), answer[:300]


NO_GZIP = (
    b"POST /?api-version=1 HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"
)
FUZZ = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@example(request=NO_GZIP)
@given(request=requests())
def test_any_request_to_the_service_api_is_answered_or_cut_off(
    shared: SimulatorThread, caplog: pytest.LogCaptureFixture, request: bytes
) -> None:
    where = shared.call(lambda running: running.settings)
    token = make_token(where.address, where.owner_key, policy="iothubowner")
    context = ssl.create_default_context(cafile=shared.ca_file)
    with (
        socket.create_connection((where.address, where.ports.https)) as plain,
        context.wrap_socket(plain, server_hostname=where.address) as connection,
    ):
        check(answer_of(connection, request.replace(b"TOKEN", token.encode())))
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@FUZZ
@example(request=NO_GZIP)
@given(request=requests())
def test_any_request_to_the_workload_api_is_answered_or_cut_off(
    shared: SimulatorThread, caplog: pytest.LogCaptureFixture, request: bytes
) -> None:
    path = shared.environment("raw")["IOTEDGE_WORKLOADURI"].removeprefix("unix://")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        check(answer_of(connection, request))
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_after_all_that_both_serve(shared: SimulatorThread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", shared.ca_file)
    registry = IoTHubRegistryManager.from_connection_string(shared.connection_string("service"))
    assert registry.get_device("edge01").device_id == "edge01"
    path = shared.environment("raw")["IOTEDGE_WORKLOADURI"].removeprefix("unix://")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        head = b"GET /trust-bundle?api-version=2020-07-07 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert answer_of(connection, head).startswith(b"HTTP/1.1 200")
    assert shared.call(lambda running: running.hub.identities.find(IdentityName("edge01", "raw"))) is not None
