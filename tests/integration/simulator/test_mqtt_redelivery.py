"""Inputs that come again say so: the duplicate flag of QoS 1 over reconnects and restarts, read off the wire."""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from edgeclave.simulator import SimulatorThread
from edgeclave.simulator.identities import IdentityName
from edgeclave.simulator.message import Message
from edgeclave.simulator.mqtt.codec import encode_puback
from edgeclave.simulator.sas import make_token
from tests.fixtures.waiting import eventually

from .test_hostile_clients import connect_packet, frame, text
from .test_killed_simulator import Commands, commands, solution  # noqa: F401 - a fixture

SINK = IdentityName("edge01", "sink")


class Wire:
    """One MQTT connection; what it is sent as (body, duplicate, packet id)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def acknowledge(self, packet_id: int) -> None:
        self._writer.write(encode_puback(packet_id))

    async def inputs(self, count: int) -> list[tuple[bytes, bool, int]]:
        found = []
        while len(found) < count:
            first, body = await asyncio.wait_for(self._packet(), 30)
            if first >> 4 == 3:
                end = 2 + int.from_bytes(body[:2], "big")
                found.append((body[end + 2 :], bool(first & 8), int.from_bytes(body[end : end + 2], "big")))
        return found

    async def silent(self) -> bool:
        """Whether no input comes for a moment."""
        try:
            await asyncio.wait_for(self.inputs(1), 0.3)
        except TimeoutError:
            return True
        return False

    async def _packet(self) -> tuple[int, bytes]:
        first, length, shift = (await self._reader.readexactly(1))[0], 0, 0
        while True:
            byte = (await self._reader.readexactly(1))[0]
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return first, await self._reader.readexactly(length)


@asynccontextmanager
async def connected(simulator: SimulatorThread, name: IdentityName = SINK) -> AsyncIterator[Wire]:
    if name.module_id:
        simulator.environment(name.module_id)
    settings = simulator.call(lambda running: running.settings)
    identity = simulator.call(lambda running: running.hub.identities.get(name))
    own = f"devices/{name.device_id}" + (f"/modules/{name.module_id}" if name.module_id else "")
    token = make_token(f"{settings.hub_host}/{own}", identity.primary_key)
    user = f"{settings.hub_host}/{name}/?api-version=2019-10-01"
    kind = "inputs" if name.module_id else "messages/devicebound"
    subscribe = frame(0x82, b"\0\1" + text(f"{own}/{kind}/#") + b"\1")
    context = ssl.create_default_context(cafile=simulator.ca_file)
    reader, writer = await asyncio.open_connection(settings.address, settings.ports.mqtt, ssl=context)
    writer.write(connect_packet(str(name), user, token) + subscribe)
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()
        await eventually(lambda: simulator.call(lambda running: running.hub.links.get(name) is None))


def put(simulator: SimulatorThread, *bodies: bytes) -> None:
    for body in bodies:
        simulator.call(lambda running, body=body: running.hub.send_to_input(SINK, "i", Message(body)))


async def test_a_reconnect_gets_what_was_sent_before_as_duplicates_and_the_rest_not(simulator: SimulatorThread) -> None:
    async with connected(simulator) as wire:
        await wire.silent()
        put(simulator, b"1", b"2", b"3")
        first = await wire.inputs(3)
        assert [(body, duplicate) for body, duplicate, _ in first] == [(b"1", False), (b"2", False), (b"3", False)]
        wire.acknowledge(first[1][2])
        await eventually(lambda: simulator.call(lambda running: running.hub.inputs.count(SINK)) == 2)
    put(simulator, b"4")
    async with connected(simulator) as wire:
        again = await wire.inputs(3)
        assert [(body, duplicate) for body, duplicate, _ in again] == [(b"1", True), (b"3", True), (b"4", False)]
        for _, _, packet_id in again:
            wire.acknowledge(packet_id)
        assert await wire.silent()
    async with connected(simulator) as wire:
        await wire.silent()
        put(simulator, b"5")
        assert [(body, duplicate) for body, duplicate, _ in await wire.inputs(1)] == [(b"5", False)]


async def test_after_a_kill_what_may_have_been_sent_says_so(commands: Commands) -> None:  # noqa: F811
    solution(commands.folder, {})
    with SimulatorThread(commands.state) as simulator:
        async with connected(simulator) as wire:
            await wire.silent()
    process, _events = await commands.up()
    for body in ("1", "2"):
        await (await commands.start("send", "sink", "i", f'"{body}"')).communicate()
    process.send_signal(signal.SIGKILL)
    await process.wait()
    with SimulatorThread(commands.state) as simulator:
        put(simulator, b"3")
        async with connected(simulator) as wire:
            inputs = await wire.inputs(3)
        assert [(body, duplicate) for body, duplicate, _ in inputs] == [(b'"1"', True), (b'"2"', True), (b"3", False)]


async def test_who_never_subscribed_gets_no_duplicates(commands: Commands) -> None:  # noqa: F811
    with SimulatorThread(commands.state) as simulator:
        simulator.environment("sink")
        put(simulator, b"1")
    with SimulatorThread(commands.state) as simulator:
        async with connected(simulator) as wire:
            assert [(body, duplicate) for body, duplicate, _ in await wire.inputs(1)] == [(b"1", False)]
