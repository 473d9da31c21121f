"""Memory of an instance after 1,000 calls with a warm cache, and fifty instances at once.

PSS: a page that several processes share counts for each with its part, so one instance alone is the dearest.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from bench.row import Row
from edgeclave.platforms.base import CallRequest, StartRequest
from edgeclave.platforms.emulator import Emulator
from edgeclave.platforms.enclave_process import EnclaveProcess
from tests.fixtures.builds import TRUSTED_APPS, build_package, probe_package

CALLS = 1000
INSTANCES = 50
C_TARGET_MIB, PYTHON_TARGET_MIB = 60.0, 120.0
MANY_TARGET_SECONDS = 60.0
_PAYLOAD = '{"data":"' + "x" * 1013 + '"}'


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_measure(Path(folder)))


async def _measure(folder: Path) -> list[Row]:
    emulator = Emulator(folder / "emulator", folder / "cache")
    small, python = build_package(TRUSTED_APPS / "probe_c", folder).path, probe_package(folder / "python").path
    small_alone = await _one(emulator, small)
    python_alone = await _one(emulator, python)
    seconds, each = await _many(emulator, small)
    return [
        Row("memory of a C TA after 1,000 calls", "the limit", "MiB", small_alone, C_TARGET_MIB, 1.0),
        Row("memory of a Python TA after 1,000 calls", "the limit", "MiB", python_alone, PYTHON_TARGET_MIB, 1.0),
        Row(f"memory of each of {INSTANCES} C TAs at once", "the limit", "MiB", each, C_TARGET_MIB, 1.0),
        Row(
            f"start of {INSTANCES} C TAs at once and a call to each",
            "the limit",
            "s",
            seconds,
            MANY_TARGET_SECONDS,
            1.0,
        ),
    ]


async def _one(emulator: Emulator, package: Path) -> float:
    await (await _start(emulator, package)).kill()  # warms the cache
    enclave = await _start(emulator, package)
    for _ in range(CALLS):
        await _call(enclave)
    used = _pss_mib(enclave.process_id)
    await enclave.kill()
    return used


async def _many(emulator: Emulator, package: Path) -> tuple[float, float]:
    begin = time.perf_counter()
    enclaves = await asyncio.gather(*(_start(emulator, package) for _ in range(INSTANCES)))
    await asyncio.gather(*map(_call, enclaves))
    seconds = time.perf_counter() - begin
    used = [_pss_mib(enclave.process_id) for enclave in enclaves]
    await asyncio.gather(*(enclave.kill() for enclave in enclaves))
    return seconds, sum(used) / len(used)


async def _start(emulator: Emulator, package: Path) -> EnclaveProcess:
    return await emulator.start(package, StartRequest(slot="bench", host_time=0))


async def _call(enclave: EnclaveProcess) -> None:
    outcome = await enclave.call(CallRequest(id="1", method="echo", payload=_PAYLOAD, host_time=0))
    assert outcome.reply == _PAYLOAD


def _pss_mib(process_id: int) -> float:
    for line in Path(f"/proc/{process_id}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the kernel tells no PSS")
