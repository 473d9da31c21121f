"""Start of a Python TA with a warm cache, until it may be called, against a bare Python that loads the same code."""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from wasmtime.component import Component

from bench.row import Row
from edgeclave.enclave.engine import make_engine
from edgeclave.platforms.base import StartRequest
from edgeclave.platforms.emulator import Emulator
from tests.fixtures.builds import probe_package

ROUNDS = 9
_BARE = """
import sys
import cryptography.hazmat.primitives.asymmetric.ec, cwt, wasmtime
from edgeclave.enclave.engine import make_engine
from wasmtime.component import Component
Component.deserialize_file(make_engine(), sys.argv[1])
print("loaded", flush=True)
"""


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        ours, reference = asyncio.run(_measure(Path(folder)))
    against = "a bare Python that imports wasmtime, cryptography, cwt and deserializes the same bytes"
    return [Row("start of a Python TA, warm cache", against, "ms", ours, reference, 1.5)]


async def _measure(folder: Path) -> tuple[float, float]:
    package = probe_package(folder).path
    emulator = Emulator(folder / "emulator", folder / "cache")
    code = folder / "code"
    code.write_bytes(
        Component.from_file(make_engine(parallel_compilation=True), str(probe_package(folder).wasm)).serialize()
    )
    await _start(emulator, package)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        times[0].append(await _start(emulator, package))
        begin = time.perf_counter()
        bare = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-c", _BARE, str(code), stdout=asyncio.subprocess.DEVNULL
        )
        assert await bare.wait() == 0
        times[1].append((time.perf_counter() - begin) * 1000)
    return statistics.median(times[0]), statistics.median(times[1])


async def _start(emulator: Emulator, package: Path) -> float:
    begin = time.perf_counter()
    enclave = await emulator.start(package, StartRequest(slot="bench", host_time=0))
    took = (time.perf_counter() - begin) * 1000
    await enclave.kill()
    return took
