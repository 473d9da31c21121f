"""Sealed results drained from an outbox, against azure-iot-device sending the same bytes with as many in flight.

Both are modules of one simulated device and send in turns of a fraction of a second, since the simulator and whatever
else the machine does take most of the time: what slows one turn slows its neighbour alike.

`python -m bench.outbox_drain ours|bare`, in a module's environment, prints a line when it is connected, and then for
each line it reads how many seconds a turn took.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import structlog
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
TURNS = 20


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        ours, bare = asyncio.run(_measure(Path(folder)))
    against = f"azure-iot-device alone, the same bytes, {DEFAULT_IN_FLIGHT} in flight"
    return [Row(f"{MESSAGES:,} sealed results drained from the outbox", against, "/s", ours, bare, 0.8, at_least=True)]


async def _measure(folder: Path) -> tuple[float, float]:
    seconds = {"ours": 0.0, "bare": 0.0}
    async with simulated(folder, {}) as state, AsyncExitStack() as stack:
        modules = {kind: await stack.enter_async_context(_module(state, kind)) for kind in seconds}
        for turn in range(TURNS):
            for kind in sorted(modules, reverse=turn % 2 == 0):  # neither is always the first
                seconds[kind] += await _turn(modules[kind])
    return MESSAGES / seconds["ours"], MESSAGES / seconds["bare"]


@asynccontextmanager
async def _module(state: Path, kind: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A connected module that waits for its turns."""
    module = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.outbox_drain", kind),
        cwd=ROOT,
        env={**os.environ, **await environment_of(state, f"bench-{kind}")},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert module.stdout is not None
        await module.stdout.readline()
        yield module
    finally:
        if module.returncode is None:
            module.terminate()
        await module.wait()


async def _turn(module: asyncio.subprocess.Process) -> float:
    assert module.stdin is not None
    assert module.stdout is not None
    module.stdin.write(b"\n")
    return float(await module.stdout.readline())


async def _ours(turns: AsyncIterator[None]) -> None:
    hub = HubConnection()
    await hub.connect()
    with tempfile.TemporaryDirectory() as folder:
        database = open_database(Path(folder) / "outbox.sqlite", [OUTBOX_SCHEMA])
        outbox = Outbox(database)
        async for _ in turns:
            with transaction(database):
                for _ in range(MESSAGES // TURNS):
                    outbox.put("out", BODY, "application/octet-stream", {"edgeclave-slot": "bench"})
            begin = time.perf_counter()
            draining = asyncio.create_task(outbox.drain(hub.send))
            while len(outbox):
                await asyncio.sleep(0.005)
            print(time.perf_counter() - begin, flush=True)
            draining.cancel()


async def _bare(turns: AsyncIterator[None]) -> None:
    socket = Path(os.environ["IOTEDGE_WORKLOADURI"].removeprefix("unix://"))
    while not await asyncio.to_thread(socket.exists):
        await asyncio.sleep(0.1)  # the simulator has just heard of this module
    client = IoTHubModuleClient.create_from_edge_environment()
    await client.connect()
    async for _ in turns:
        begin = time.perf_counter()
        numbers = iter(range(MESSAGES // TURNS))

        async def sender(numbers: Iterator[int] = numbers) -> None:
            for _ in numbers:
                message = Message(BODY, content_type="application/octet-stream")  # type: ignore[no-untyped-call]
                message.custom_properties["edgeclave-slot"] = "bench"
                await client.send_message_to_output(message, "out")

        await asyncio.gather(*(sender() for _ in range(DEFAULT_IN_FLIGHT)))
        print(time.perf_counter() - begin, flush=True)


async def _turns() -> AsyncIterator[None]:
    print("connected", flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        yield


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(_ours(_turns()) if sys.argv[1] == "ours" else _bare(_turns()))
