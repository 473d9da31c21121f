"""SIGKILL while what an outage held back is on its way to IoT Hub: nothing is lost, overtakes or doubles."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import ssl
from pathlib import Path

from edgeclave.simulator import SimulatorThread
from edgeclave.simulator.mqtt.codec import Publish, encode_publish
from edgeclave.simulator.sas import make_token

from .test_hostile_clients import connect_packet
from .test_killed_simulator import Commands, commands, solution  # noqa: F401 - a fixture

MESSAGES = 3000
KILLS = 2


async def send(simulator: SimulatorThread, count: int) -> None:
    """Numbered messages of the module `sensor`, every fifth to the output `urgent`; all are acknowledged."""
    where = simulator.call(lambda running: running.settings)
    key = simulator.call(lambda running: running.state.module("sensor").primary_key)
    token = make_token(f"{where.hub_host}/devices/edge01/modules/sensor", key)
    context = ssl.create_default_context(cafile=simulator.ca_file)
    reader, writer = await asyncio.open_connection(where.address, where.ports.mqtt, ssl=context)
    writer.write(connect_packet("edge01/sensor", f"{where.hub_host}/edge01/sensor/?api-version=2019-10-01", token))
    assert await reader.readexactly(4) == b"\x20\x02\x00\x00"
    for number in range(count):
        output = "urgent" if number % 5 == 0 else "rest"
        topic = f"devices/edge01/modules/sensor/messages/events/%24.on={output}&%24.mid=m{number}"
        writer.write(encode_publish(Publish(topic, str(number).encode(), 1, number % 60_000 + 1)))
        if number % 200 == 199:
            await writer.drain()
            await asyncio.wait_for(reader.readexactly(4 * 200), 30)
    writer.transport.abort()


class Watcher:
    """Reads the simulator's database beside it."""

    def __init__(self, state: Path) -> None:
        self._database = sqlite3.connect(f"file:{state / 'state.sqlite'}?mode=ro", uri=True)

    def waiting(self) -> int:
        return int(self._database.execute("SELECT count(*) FROM upstream").fetchone()[0])

    def close(self) -> None:
        self._database.close()


async def test_a_kill_in_the_middle_of_the_backlog(commands: Commands) -> None:  # noqa: F811
    solution(commands.folder, {})
    urgent, rest = "FROM /messages/modules/sensor/outputs/", " INTO $upstream"
    routes = {
        "urgent": {"route": f"{urgent}urgent{rest}", "priority": 0},
        "rest": {"route": f"{urgent}rest{rest}", "priority": 5},
    }
    with SimulatorThread(commands.state) as simulator:
        simulator.environment("sensor")
        simulator.call(
            lambda running: running.hub.twins.update(
                running.hub._name, desired={"schemaVersion": "1.2", "routes": routes}, replace=True
            )
        )
        simulator.call(lambda running: running.hub.upstream.set_online(False))
        await send(simulator, MESSAGES)
        assert simulator.call(lambda running: running.hub.upstream.waiting) == MESSAGES
        # connected again, but stopped before anything moved: the next start begins to forward
        simulator.call(lambda running: running.hub.upstream.set_online(True))
        left_before = simulator.call(lambda running: running.hub.upstream.waiting)
    watcher = Watcher(commands.state)
    left = [left_before]
    for _ in range(KILLS):
        process = await commands.start("up", "--json")
        before = watcher.waiting()
        async with asyncio.timeout(20):
            while watcher.waiting() == before and before:
                await asyncio.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        left.append(watcher.waiting())
    watcher.close()
    assert 0 < left[1] < MESSAGES  # at least the first kill came in the middle
    with SimulatorThread(commands.state) as simulator:
        log = simulator.call(lambda running: running.message_log)
        async with asyncio.timeout(20):
            while simulator.call(lambda running: running.hub.upstream.waiting):
                await asyncio.sleep(0.05)
        entries = simulator.call(lambda _: [entry for name in log.partitions for entry in log.read(name, -1, 100_000)])
    numbers = [int(entry.body) for entry in entries]
    assert [entry.system["message-id"] for entry in entries] == [f"m{number}" for number in numbers]
    assert sorted(numbers) == list(range(MESSAGES))  # each once
    assert [number for number in numbers if number % 5 == 0] == list(range(0, MESSAGES, 5))
    assert [number for number in numbers if number % 5] == [number for number in range(MESSAGES) if number % 5]
    assert [entry.sequence for entry in entries] == list(range(MESSAGES))
