"""A disk that is really full: who asked is told, what was answered stays, and all goes on when there is space again."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from azure.iot.device import Message, exceptions
from azure.iot.hub import IoTHubRegistryManager  # type: ignore[import-untyped]

from edgeclave.edge.store import StoreError
from edgeclave.simulator import SimulatorThread
from edgeclave.simulator.identities import IdentityName
from edgeclave.simulator.message_log import PARTITIONS, StoredMessageLog
from edgeclave.simulator.mqtt.codec import Publish, encode_publish
from edgeclave.simulator.sas import make_token
from edgeclave.simulator.settings import ID_SCOPE
from tests.fixtures.small_disk import SmallDisk, small_disk
from tests.fixtures.waiting import eventually

from .test_hostile_clients import RawClient, connect_packet, frame, text
from .test_hostile_services import exchange

KEY = "ZGV2aWNlIGtleSBvZiB0aGlydHktdHdvIGJ5dGVz"
LEAF, RAW = IdentityName("leaf"), IdentityName("edge01", "raw")
REPORTED = "$iothub/twin/PATCH/properties/reported/?$rid="


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", megabytes=8) as mounted:
        yield mounted


@pytest.fixture
def device(disk: SmallDisk, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatorThread]:
    with SimulatorThread(disk.folder / "sim") as running:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", running.ca_file)
        monkeypatch.setenv("SSL_CERT_FILE", running.ca_file)
        running.environment("raw")
        running.call(lambda simulator: simulator.hub.identities.create(LEAF))
        yield running
        if (disk.folder / "ballast").exists():
            disk.free()


@asynccontextmanager
async def raw_module(device: SimulatorThread) -> AsyncIterator[RawClient]:
    where = device.call(lambda running: running.settings)
    key = device.call(lambda running: running.state.module("raw").primary_key)
    token = make_token(f"{where.hub_host}/devices/edge01/modules/raw", key)
    context = ssl.create_default_context(cafile=device.ca_file)
    reader, writer = await asyncio.open_connection(where.address, where.ports.mqtt, ssl=context)
    writer.write(connect_packet("edge01/raw", f"{where.hub_host}/edge01/raw/?api-version=2019-10-01", token, 0xC2))
    assert await asyncio.wait_for(reader.readexactly(4), 30) == b"\x20\x02\x00\x00"
    yield RawClient(reader, writer)
    writer.transport.abort()


async def report(client: RawClient, number: int) -> bytes:
    """The answer to a large patch, up to its acknowledgement."""
    body = json.dumps({f"k{index}": f"{number}" + "x" * 3900 for index in range(7)}).encode()
    client.writer.write(encode_publish(Publish(f"{REPORTED}{number}", body, 1, number)))
    return await asyncio.wait_for(client.reader.readuntil(b"\x40\x02\x00" + bytes([number])), 5)


async def test_reported_properties_are_refused_with_503_and_keep_what_was_there(
    device: SimulatorThread, disk: SmallDisk
) -> None:
    async with raw_module(device) as client:
        assert b"twin/res/204/?$rid=1&$version=2" in await report(client, 1)
        disk.fill()
        answers = {number: await report(client, number) for number in range(2, 40)}
        told = [number for number, answer in answers.items() if f"res/204/?$rid={number}&".encode() in answer]
        refused = [number for number, answer in answers.items() if f"res/503/?$rid={number}".encode() in answer]
        assert sorted(told + refused) == list(answers)
        assert len(refused) > 10
        assert b"the disk is full" in answers[refused[0]]
        twin = device.call(lambda running: running.hub.twins.get(RAW))
        assert twin.reported_version == 2 + len(told)
        assert twin.reported["k0"].startswith(str(max([1, *told])))
        disk.free()
        assert f"res/204/?$rid=40&$version={3 + len(told)}".encode() in await report(client, 40)


async def test_a_client_can_come_while_the_disk_is_full(device: SimulatorThread, disk: SmallDisk) -> None:
    disk.fill()
    async with raw_module(device) as client:
        client.writer.write(encode_publish(Publish("$iothub/twin/GET/?$rid=1", b"", 0)))
        assert b"res/200/?$rid=1" in await asyncio.wait_for(client.reader.readuntil(b"}}"), 5)


async def test_housekeeping_that_failed_is_done_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    forget_old, failures = StoredMessageLog.forget_old, [StoreError("disk-full", "the disk is full")]

    def fail_once(log: StoredMessageLog) -> None:
        if failures:
            raise failures.pop()
        forget_old(log)

    monkeypatch.setattr("edgeclave.simulator.simulator.HOUSEKEEPING_SECONDS", 0.1)
    monkeypatch.setattr("edgeclave.simulator.message_log.RETENTION_MS", -10_000)
    monkeypatch.setattr(StoredMessageLog, "forget_old", fail_once)
    with SimulatorThread(tmp_path / "sim") as running:
        running.call(lambda simulator: simulator.message_log.append("edge01", b"x", {}, {}))
        await eventually(
            lambda: running.call(lambda at: {at.message_log.bounds(each)[1] for each in PARTITIONS}) == {-1}
        )
    assert "cannot forget what is old" in caplog.text


async def test_a_registration_is_refused_with_503_and_goes_well_afterwards(
    device: SimulatorThread, disk: SmallDisk
) -> None:
    attestation = {"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY}}
    twin = {"tags": {f"k{index}": "x" * 1900 for index in range(4)}}
    for name in (f"reg{number}" for number in range(12)):
        document = {"attestation": attestation, "initialTwin": twin}
        device.call(
            lambda running, name=name, document=document: running.iot_hub.enrolments.put(name, document, is_group=False)
        )
    disk.fill()
    where = device.call(lambda running: running.settings)

    async def register(name: str) -> bytes:
        token = make_token(f"{ID_SCOPE}/registrations/{name}", KEY, policy="registration")
        user = f"{ID_SCOPE}/registrations/{name}/api-version=2019-03-31&ClientVersion=test"
        subscribe = frame(0x82, b"\0\1" + text("$dps/registrations/res/#") + b"\1")
        body = json.dumps({"registrationId": name}).encode()
        put = encode_publish(Publish("$dps/registrations/PUT/iotdps-register/?$rid=1", body, 1, 2))
        said = connect_packet(name, user, token) + subscribe + put
        return await exchange(device, where.address, where.ports.mqtt, said, 0.3)

    answers = {f"reg{number}": await register(f"reg{number}") for number in range(12)}
    refused = [name for name, answer in answers.items() if b"$dps/registrations/res/503/?$rid=1" in answer]
    assert refused
    assert all(b"res/202/" in answer for name, answer in answers.items() if name not in refused)
    assert b"disk" in answers[refused[0]]
    known = device.call(lambda running: {str(each.name) for each in running.hub.identities.devices()})
    assert known == {"edge01", "leaf"} | (set(answers) - set(refused))
    disk.free()
    assert b"$dps/registrations/res/202/?$rid=1" in await register(refused[0])
    tags = device.call(lambda running: running.hub.twins.get(IdentityName(refused[0])).tags)
    assert tags == twin["tags"]


async def test_messages_to_devices_and_from_modules_are_refused_and_those_that_were_not_stay(
    device: SimulatorThread, disk: SmallDisk, connect: Any
) -> None:
    registry = IoTHubRegistryManager.from_connection_string(device.connection_string("service"))
    module = await connect(device.environment("sensor"), connection_retry=False)
    disk.fill()
    accepted = 0
    for _ in range(40):
        try:
            await asyncio.to_thread(registry.send_c2d_message, "leaf", "x" * 60_000)
            accepted += 1
        except Exception as error:
            assert "C2D message send failure" in str(error)  # noqa: PT017 - both outcomes are right
    assert accepted < 40
    assert device.call(lambda running: running.hub.inputs.count(LEAF)) == accepted
    arrived = 0
    for _ in range(40):
        try:
            await asyncio.wait_for(module.send_message_to_output(Message(b"y" * 60_000), "out"), 5)
        except (exceptions.ConnectionDroppedError, exceptions.OperationCancelled):
            break
        arrived += 1
    else:
        pytest.fail("40 messages went onto a full disk")
    assert device.call(lambda running: running.message_log.count()) == arrived
    disk.free()
    again = await connect(device.environment("sensor"))
    await again.send_message_to_output(Message("there is space"), "out")
    await asyncio.to_thread(registry.send_c2d_message, "leaf", "there is space")
    assert device.call(lambda running: running.message_log.count()) == arrived + 1
    assert device.call(lambda running: running.hub.inputs.count(LEAF)) == accepted + 1
