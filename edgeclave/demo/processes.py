"""The simulator and the reader as processes of the demo."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeclave.demo.device import Device
from edgeclave.demo.prepare import Prepared
from edgeclave.demo.tally import Tally
from edgeclave.errors import EdgeclaveError

SECONDS_TO_STOP = 15.0
MAX_LINE_BYTES = 4 << 20


async def start(
    arguments: Sequence[str], *, log: Path, environment: Mapping[str, str], capture: bool = False
) -> asyncio.subprocess.Process:
    """Starts one `edgeclave` command; what it does not print to us goes to `log`."""
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "edgeclave", *arguments),
            env=dict(environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if capture else output,
            stderr=output,
            limit=MAX_LINE_BYTES,
            start_new_session=True,  # a Ctrl-C reaches the demo, which stops them in order
        )


def follow(simulator: asyncio.subprocess.Process, log: Path) -> tuple[asyncio.Event, asyncio.Task[None]]:
    """Keeps what `sim up --json` prints in `log`; the event is set once the deployment is applied."""
    applied = asyncio.Event()

    async def read() -> None:
        assert simulator.stdout is not None
        with log.open("ab", buffering=0) as file:
            async for line in simulator.stdout:
                file.write(line)
                if json.loads(line)["event"] == "applied":
                    applied.set()

    return applied, asyncio.create_task(read())


async def start_reader(prepared: Prepared, device: Device) -> asyncio.subprocess.Process:
    """`edgeclave consume` with the connection string in its environment, never in argv."""
    connection = await asyncio.to_thread(device.connection, "eventhub")
    if connection is None:
        raise EdgeclaveError("demo-not-started", "the simulator has no Event Hub endpoint")
    files = ["--key", str(prepared.reader_key), "--policy", str(prepared.policy), "--ca", connection["caFile"]]
    return await start(
        ["consume", "--json", *files, "--state", str(prepared.reader_state)],
        log=prepared.folder / "reader.log",
        environment={**os.environ, "EDGECLAVE_EVENTHUB": connection["connectionString"]},
        capture=True,
    )


async def read_findings(reader: asyncio.subprocess.Process, tally: Tally) -> None:
    """Adds each line that the reader prints to the tally, until it ends."""
    assert reader.stdout is not None
    async for line in reader.stdout:
        tally.add(json.loads(line))


async def stop(process: asyncio.subprocess.Process) -> None:
    """Asks, waits, and only then kills."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(SECONDS_TO_STOP):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
