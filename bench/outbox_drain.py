"""Sealed results drained from an outbox, against azure-iot-device sending the same bytes with as many in flight.

`python -m bench.outbox_drain ours|bare`, in a module's environment, prints how many seconds that took.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from azure.iot.device import Message
from azure.iot.device.aio import IoTHubModuleClient

from bench.device import ROOT, simulated
from bench.row import Row
from edgeclave.edge.hub import HubConnection
from edgeclave.edge.outbox import DEFAULT_IN_FLIGHT, OUTBOX_SCHEMA, Outbox
from edgeclave.edge.store import open_database, transaction
from edgeclave.simulator.join import environment_of

MESSAGES = 5_000
BODY = os.urandom(1600)  # a sealed result of 1 KiB
ROUNDS = 3


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        ours, bare = asyncio.run(_measure(Path(folder)))
    against = f"azure-iot-device alone, the same bytes, {DEFAULT_IN_FLIGHT} in flight"
    return [Row(f"{MESSAGES:,} sealed results drained from the outbox", against, "/s", ours, bare, 0.8, at_least=True)]


async def _measure(folder: Path) -> tuple[float, float]:
    rates: tuple[list[float], list[float]] = ([], [])
    async with simulated(folder, {}) as state:
        environment = await environment_of(state, "bench")
        for _ in range(ROUNDS):
            for kind, taken in zip(("ours", "bare"), rates, strict=True):
                child = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "bench.outbox_drain", kind),
                    cwd=ROOT,
                    env={**os.environ, **environment},
                    stdout=asyncio.subprocess.PIPE,
                )
                output, _ = await child.communicate()
                taken.append(MESSAGES / float(output.split()[-1]))
    return statistics.median(rates[0]), statistics.median(rates[1])


async def _ours() -> float:
    with tempfile.TemporaryDirectory() as folder:
        database = open_database(Path(folder) / "outbox.sqlite", [OUTBOX_SCHEMA])
        outbox = Outbox(database)
        with transaction(database):
            for _ in range(MESSAGES):
                outbox.put("out", BODY, "application/octet-stream", {"edgeclave-slot": "bench"})
        hub = HubConnection()
        await hub.connect()
        begin = time.perf_counter()
        draining = asyncio.create_task(outbox.drain(hub.send))
        while len(outbox):
            await asyncio.sleep(0.05)
        seconds = time.perf_counter() - begin
        draining.cancel()
        await hub.close()
    return seconds


async def _bare() -> float:
    client = IoTHubModuleClient.create_from_edge_environment()
    await client.connect()
    begin = time.perf_counter()
    numbers = iter(range(MESSAGES))

    async def sender() -> None:
        for _ in numbers:
            message = Message(BODY, content_type="application/octet-stream")  # type: ignore[no-untyped-call]
            message.custom_properties["edgeclave-slot"] = "bench"
            await client.send_message_to_output(message, "out")

    await asyncio.gather(*(sender() for _ in range(DEFAULT_IN_FLIGHT)))
    seconds = time.perf_counter() - begin
    await client.shutdown()
    return seconds


if __name__ == "__main__":
    print(asyncio.run(_ours() if sys.argv[1] == "ours" else _bare()))
