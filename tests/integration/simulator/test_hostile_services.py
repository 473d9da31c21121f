"""The service side under fire: mutated captures, full disks, SIGKILL. Who is at fault is told; nobody else notices."""

import asyncio
import base64
import random
import signal
import ssl
import struct
from collections.abc import Callable
from typing import Any

import pytest
from azure.iot.hub import IoTHubConfigurationManager, IoTHubRegistryManager  # type: ignore[import-untyped]
from azure.iot.hub.protocol.models import (  # type: ignore[import-untyped]
    Configuration,
    ConfigurationContent,
    Twin,
)

from edgeclave.simulator import Simulator, SimulatorThread
from edgeclave.simulator.amqp import frames
from edgeclave.simulator.amqp.message import Message
from edgeclave.simulator.amqp.performatives import (
    RECEIVER,
    SENDER,
    Attach,
    Begin,
    Flow,
    Open,
    SaslInit,
    Source,
    Target,
    Transfer,
)
from edgeclave.simulator.identities import IdentityName
from edgeclave.simulator.mqtt.codec import Publish, encode_publish
from edgeclave.simulator.sas import make_token
from edgeclave.simulator.settings import ID_SCOPE, Settings

from .test_hostile_clients import connect_packet, frame, text
from .test_killed_simulator import Commands, commands, solution  # noqa: F401 - a fixture

KEY = "ZGV2aWNlIGtleSBvZiB0aGlydHktdHdvIGJ5dGVz"
MUTANTS = 150
LEAF = IdentityName("leaf")


@pytest.fixture
def settings(simulator: SimulatorThread) -> Settings:
    return simulator.call(lambda running: running.settings)


async def exchange(simulator: SimulatorThread, address: str, port: int, data: bytes, seconds: float) -> bytes:
    """Sends all at once; what comes back until the server closes or the time is over."""
    context = ssl.create_default_context(cafile=simulator.ca_file)
    reader, writer = await asyncio.open_connection(address, port, ssl=context)
    received = b""
    try:
        writer.write(data)
        async with asyncio.timeout(seconds):
            while part := await reader.read(65536):
                received += part
    except (TimeoutError, OSError):
        pass
    finally:
        writer.transport.abort()
    return received


def mutated(data: bytes, dice: random.Random) -> bytes:
    """A few bytes changed, cut out or put in."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        place = dice.randrange(len(changed))
        match dice.randrange(4):
            case 0:
                changed[place] ^= 1 << dice.randrange(8)
            case 1:
                changed[place] = dice.randrange(256)
            case 2:
                del changed[place : place + dice.randint(1, 8)]
            case _:
                changed[place:place] = dice.randbytes(dice.randint(1, 8))
    return bytes(changed)


def registration_capture() -> bytes:
    """What the ProvisioningDeviceClient sends, in one piece."""
    token = make_token(f"{ID_SCOPE}/registrations/reg", KEY, policy="registration")
    user = f"{ID_SCOPE}/registrations/reg/api-version=2019-03-31&ClientVersion=test"
    subscribe = frame(0x82, b"\0\1" + text("$dps/registrations/res/#") + b"\1")
    topic = "$dps/registrations/PUT/iotdps-register/?$rid=1"
    register = encode_publish(Publish(topic, b'{"registrationId": "reg"}', 1, 2))
    return connect_packet("reg", user, token) + subscribe + register


def command_capture(settings: Settings) -> bytes:
    """What azure-iot-hub sends for one message to a device, in one piece."""
    host = f"{settings.address}:{settings.ports.https}"
    token = make_token(host, settings.owner_key, policy="iothubowner")
    put_token = Message(
        properties={"message_id": "t", "reply_to": "cbs"},
        application_properties={
            "operation": "put-token",
            "type": "servicebus.windows.net:sastoken",
            "name": f"https://{host}",
        },
        value=token,
    ).to_bytes()
    command = Message(properties={"message_id": "m", "to": "/devices/leaf/messages/devicebound"}, data=b"on").to_bytes()
    node = f"amqps://{host}/messages/devicebound"
    steps = [
        (Open(container_id="c", hostname=settings.address), b""),
        (Begin(next_outgoing_id=0, incoming_window=100, outgoing_window=100), b""),
        (Attach(name="o", handle=0, role=SENDER, source=Source(address="cbs"), target=Target(address="$cbs"),
                initial_delivery_count=0), b""),
        (Attach(name="i", handle=1, role=RECEIVER, source=Source(address="$cbs"), target=Target(address="cbs")), b""),
        (Flow(next_incoming_id=0, incoming_window=100, next_outgoing_id=0, outgoing_window=100, handle=1,
              delivery_count=0, link_credit=10), b""),
        (Transfer(handle=0, delivery_id=0, delivery_tag=b"0", message_format=0), put_token),
        (Attach(name="s", handle=2, role=SENDER, source=Source(address="me"), target=Target(address=node),
                initial_delivery_count=0), b""),
        (Transfer(handle=2, delivery_id=1, delivery_tag=b"1", message_format=0), command),
    ]  # fmt: skip
    login = frames.pack(SaslInit(mechanism="MSSBCBS"), 0, kind=frames.SASL_FRAME)
    packed = b"".join(frames.pack(performative, 0, payload) for performative, payload in steps)
    return frames.SASL_HEADER + login + frames.AMQP_HEADER + packed


def enrol(simulator: SimulatorThread) -> None:
    attestation = {"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY}}
    simulator.call(lambda running: running.iot_hub.enrolments.put("reg", {"attestation": attestation}, is_group=False))


async def test_mutated_registrations_harm_nobody(simulator: SimulatorThread, settings: Settings) -> None:
    enrol(simulator)
    dice, capture = random.Random(5), registration_capture()
    where = (settings.address, settings.ports.mqtt)
    for _ in range(MUTANTS):
        await exchange(simulator, *where, mutated(capture, dice), 0.05)
    answer = await exchange(simulator, *where, registration_capture(), 1)
    assert b"$dps/registrations/res/202/?$rid=1&retry-after=1" in answer
    known = simulator.call(lambda running: [str(each.name) for each in running.hub.identities.devices()])
    assert known == ["edge01", "reg"]


async def test_mutated_commands_harm_nobody(simulator: SimulatorThread, settings: Settings) -> None:
    simulator.call(lambda running: running.hub.identities.create(LEAF))
    dice, capture = random.Random(6), command_capture(settings)

    def waiting() -> int:
        return simulator.call(lambda running: running.hub.inputs.count(LEAF))

    await exchange(simulator, settings.address, 5671, capture, 1)
    assert waiting() == 1
    for _ in range(MUTANTS):
        await exchange(simulator, settings.address, 5671, mutated(capture, dice), 0.05)
        simulator.call(lambda running: running.iot_hub.commands.purge("leaf"))
    await exchange(simulator, settings.address, 5671, capture, 1)
    assert waiting() == 1


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(encode_publish(Publish("devices/edge01/messages/events/", b"x", 1, 3)), id="telemetry"),
        pytest.param(encode_publish(Publish("$iothub/twin/GET/?$rid=1", b"", 0)), id="a twin"),
        pytest.param(encode_publish(Publish("$dps/registrations/DELETE/?$rid=1", b"", 0)), id="another verb"),
        pytest.param(frame(0x32, struct.pack(">H", 5) + b"$dps"), id="a packet cut short"),
    ],
)
async def test_a_registering_client_can_do_nothing_else(
    simulator: SimulatorThread, settings: Settings, packet: bytes
) -> None:
    enrol(simulator)
    answer = await exchange(simulator, settings.address, settings.ports.mqtt, registration_capture() + packet, 2)
    assert b"$iothub" not in answer
    assert simulator.call(lambda running: running.message_log.bounds("0")[1]) == -1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(b"{", 400, id="no JSON"),
        pytest.param(b"[1]", 400, id="an array"),
        pytest.param(b'{"registrationId": "other"}', 400, id="another id than was proven"),
        pytest.param(b'{"payload": "' + b"x" * 40_000 + b'"}', 413, id="too large"),
    ],
)
async def test_bad_registrations_get_a_status(
    simulator: SimulatorThread, settings: Settings, body: bytes, status: int
) -> None:
    enrol(simulator)
    register = encode_publish(Publish("$dps/registrations/PUT/iotdps-register/?$rid=9", body, 1, 3))
    answer = await exchange(simulator, settings.address, settings.ports.mqtt, registration_capture() + register, 1)
    assert f"$dps/registrations/res/{status}/?$rid=9".encode() in answer


async def test_a_full_disk_is_told_and_nothing_is_half_done(
    simulator: SimulatorThread,
    registry: IoTHubRegistryManager,
    configurations: IoTHubConfigurationManager,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", simulator.ca_file)
    await asyncio.to_thread(registry.create_device_with_sas, "leaf", KEY, KEY, "enabled")

    def limit(running: Simulator, pages: int | None = None) -> None:
        connection = running.state.store.connection
        pages = pages or connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages}")

    big = "x" * 60_000
    tags = {f"k{number}": "y" * 3900 for number in range(2)}
    content = ConfigurationContent(device_content={"properties.desired": {f"k{n}": "z" * 3900 for n in range(8)}})
    configuration = Configuration(id="c", content=content, target_condition="*", priority=1)
    attempts: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
        (registry.send_c2d_message, ("leaf", big)),
        (registry.update_twin, ("leaf", Twin(tags=tags), "*")),
        (configurations.create_configuration, (configuration,)),
    ]
    for function, arguments in attempts:
        simulator.call(limit)
        with pytest.raises(Exception, match=r"Service Unavailable|503|C2D message send failure"):
            await asyncio.to_thread(function, *arguments)
        simulator.call(lambda running: limit(running, 1_000_000))
    assert (await asyncio.to_thread(registry.get_twin, "leaf")).tags in (None, {})
    assert await asyncio.to_thread(configurations.get_configurations) == []
    assert simulator.call(lambda running: running.hub.inputs.count(LEAF)) == 0
    for function, arguments in attempts:
        await asyncio.to_thread(function, *arguments)
    assert simulator.call(lambda running: running.hub.inputs.count(LEAF)) == 1


async def test_what_the_service_was_told_is_there_after_a_kill(
    commands: Commands,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Devices, tags and messages to devices are written until SIGKILL; all that was answered is on disk."""
    solution(commands.folder, {})
    process, events = await commands.up()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", events[0]["caFile"])
    monkeypatch.setenv("SSL_CERT_FILE", events[0]["caFile"])
    string = (await commands.read("connection-string", "service"))["connectionString"]
    devices: list[str] = []
    messages: dict[str, int] = {}

    def write() -> None:
        registry = IoTHubRegistryManager.from_connection_string(string)
        number = 0
        while True:
            name = f"d{number}"
            registry.create_device_with_sas(name, KEY, KEY, "enabled")
            registry.update_twin(name, Twin(tags={"n": number}), "*")
            devices.append(name)
            for _ in range(3):
                registry.send_c2d_message(name, "x")
                messages[name] = messages.get(name, 0) + 1
            number += 1

    writing = asyncio.create_task(asyncio.to_thread(write))
    async with asyncio.timeout(30):
        while len(devices) < 8:
            await asyncio.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    with SimulatorThread(commands.state) as simulator:
        known = simulator.call(lambda running: {each.name.device_id for each in running.hub.identities.devices()})
        assert set(devices) <= known
        for number, name in enumerate(devices):
            found = simulator.call(lambda running, name=name: running.hub.twins.get(IdentityName(name)).tags)
            assert found == {"n": number}
            waiting = simulator.call(lambda running, name=name: running.hub.inputs.count(IdentityName(name)))
            assert messages.get(name, 0) <= waiting <= 3
    writing.cancel()


async def test_a_stranger_signs_nothing(simulator: SimulatorThread, settings: Settings) -> None:
    """Expired, foreign and rewritten tokens of policies."""
    address, stranger = settings.address, base64.b64encode(b"s" * 32).decode()
    good = make_token(address, settings.owner_key, policy="iothubowner")
    wrong = {
        "expired": make_token(address, settings.owner_key, policy="iothubowner", ttl_seconds=-5),
        "another key": make_token(address, stranger, policy="iothubowner"),
        "another hub": make_token("other.test", settings.owner_key, policy="iothubowner"),
        "another policy": good.replace("iothubowner", "service"),
        "no such policy": good.replace("iothubowner", "root"),
        "a later expiry": good.replace("&se=1", "&se=2"),
    }
    context = ssl.create_default_context(cafile=simulator.ca_file)
    for name, token in {**wrong, "good": good}.items():
        head = f"GET /devices HTTP/1.1\r\nHost: {address}\r\nAuthorization: {token}\r\nConnection: close\r\n\r\n"
        reader, writer = await asyncio.open_connection(address, settings.ports.https, ssl=context)
        writer.write(head.encode())
        status = (await reader.readline()).split()[1]
        writer.transport.abort()
        assert status == (b"200" if name == "good" else b"401"), name
