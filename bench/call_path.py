"""A call from a workload through broker and runner into the enclave and back, against the same hops bare.

Both ways lead through the simulator's CONNECT proxy, run in the same processes as on a device, and are taken in turns.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp

from bench.bare_hops import BROKER, BROKER_PORT, RUNNER
from bench.device import process, simulated
from bench.row import Row
from edgeclave.client import BrokerUnavailable, CallRefused, Client
from edgeclave.cose import sha256, spki
from edgeclave.edge.certificates import CertificateKeeper
from edgeclave.edge.workload import WorkloadClient
from edgeclave.simulator.join import environment_of
from tests.fixtures.wat.packages import HandmadePackage, minimal_package

PAYLOAD = {"data": "x" * 1013}
ROUNDS, CALLS = 40, 25
SECONDS_TO_START = 30.0
WORKLOAD = "bench"

Call = Callable[[], Awaitable[object]]


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        ours, bare = asyncio.run(_measure(Path(folder)))
    what = "workload -> broker -> runner -> enclave -> back, keep-alive, 1 KiB"
    middle = statistics.median(ours)
    return [
        Row(f"{what}: p50", "the same hops bare", "µs", middle, statistics.median(bare), 1.6),
        Row(f"{what}: p99", "its own p50", "µs", statistics.quantiles(ours, n=100)[98], middle, 4.0),
    ]


async def _measure(folder: Path) -> tuple[list[float], list[float]]:
    package = minimal_package(folder / "package")
    async with AsyncExitStack() as stack:
        state = await stack.enter_async_context(simulated(folder, _modules(package)))
        await _bare_hops(stack, state, package)
        environment = await environment_of(state, WORKLOAD)
        os.environ |= {"https_proxy": environment["https_proxy"]}
        workload = WorkloadClient.from_environment(environment)
        client = await stack.enter_async_context(Client(CertificateKeeper(workload)))
        context = await CertificateKeeper(workload).client_context()
        session = await stack.enter_async_context(
            aiohttp.ClientSession(trust_env=True, connector=aiohttp.TCPConnector(ssl=context))
        )
        url, body = f"https://{BROKER}:{BROKER_PORT}/call", json.dumps(PAYLOAD).encode()

        async def ours() -> object:
            return (await client.invoke("minimal", "echo", PAYLOAD)).payload

        async def bare() -> object:
            async with session.post(url, data=body) as response:
                return json.loads(await response.read())

        for call in (ours, bare):
            await once_it_answers(call)
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(ROUNDS):
            for call, taken in zip((ours, bare), times, strict=True):
                for _ in range(CALLS):
                    begin = time.perf_counter()
                    await call()
                    taken.append((time.perf_counter() - begin) * 1e6)
    return times


async def once_it_answers(call: Call) -> None:
    """Raises what the call raises if it still does after the time that a device may take to start."""
    deadline = time.monotonic() + SECONDS_TO_START
    while True:
        try:
            await call()
        except (aiohttp.ClientError, BrokerUnavailable, CallRefused):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)
        else:
            return


async def _bare_hops(stack: AsyncExitStack, state: Path, package: HandmadePackage) -> None:
    wasm = package.path.with_suffix(".wasm")
    wasm.write_bytes(package.wasm)
    for module, arguments in ((RUNNER, ("runner", str(wasm))), (BROKER, ("broker",))):
        environment = await environment_of(state, module)
        await stack.enter_async_context(process("bench.bare_hops", *arguments, environment=environment))


def _modules(package: HandmadePackage) -> dict[str, dict[str, Any]]:
    """Desired properties: one trusted application of 1 KB, which the workload may call."""
    trusted_app = {
        "package": str(package.path),
        "digest": package.digest,
        "signer": sha256(spki(package.signer.developer.public_key())).hex(),
        "platform": "emulator",
    }
    allowed = {"effect": "allow", "identities": [f"{{{{iot:this_device_id}}}}/{WORKLOAD}"], "operations": ["invoke:*"]}
    return {
        "ta_runner": {"trustedApps": {"minimal": trusted_app}},
        "enclave_broker": {"policy": {"statements": {"bench": allowed}}},
    }
