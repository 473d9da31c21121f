"""Memory of a whole device as containers: `bench/device_memory.py` with the modules' images on a Docker engine.

The calls come from IoT Hub as direct methods. The sum is of the processes in the three containers; the engine's own are
not in it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]
from azure.iot.hub import IoTHubRegistryManager  # type: ignore[import-untyped]
from azure.iot.hub.models import CloudToDeviceMethod  # type: ignore[import-untyped]
from msrest.exceptions import ClientException

from bench.device import simulated
from bench.device_memory import CALLS, EXAMPLES, TRUSTED_APP, desired_properties
from bench.row import Row
from edgeclave.simulator.connection_strings import connection_string
from edgeclave.simulator.runtime_file import read_runtime
from edgeclave.simulator.supervisor.containers.host import SIMULATOR_LABEL
from edgeclave.simulator.workload.sockets import runtime_folder
from tests.fixtures.builds import BuiltPackage, build_package
from tests.fixtures.container_engine import docker, engine_answers
from tests.fixtures.module_images import MODULES, module_images

LIMITS = (270.0, 340.0)
SECONDS_TO_START = 300.0
"""The first start compiles."""


def rows() -> list[Row]:
    missing = "no Docker engine answers" if not engine_answers() else ""
    missing = missing or ("only root sees what containers use" if os.geteuid() != 0 else "")
    if missing:
        print(f"memory as containers is left out: {missing}", file=sys.stderr)
        return []
    return [_row(what, source, limit) for (what, source, _), limit in zip(EXAMPLES, LIMITS, strict=True)]


def _row(what: str, source: Path, limit: float) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        used = asyncio.run(_measure(Path(folder), source))
    return Row(
        f"memory of three modules as containers and {what} after 1,000 calls", "the limit", "MiB", used, limit, 1.0
    )


async def _measure(folder: Path, source: Path) -> float:
    package = build_package(source, folder)
    try:
        await _after_calls(folder, package, 1)  # compiles
        return await _after_calls(folder, package, CALLS)
    finally:
        label = f"label={SIMULATOR_LABEL}={runtime_folder(folder / 'state').name}"
        for volume in docker("volume", "ls", "--quiet", "--filter", label).split():
            docker("volume", "rm", volume)


async def _after_calls(folder: Path, package: BuiltPackage, calls: int) -> float:
    modules = desired_properties(package)
    modules["enclave_broker"]["policy"]["statements"]["bench"]["identities"].append("iothub")
    async with simulated(folder, modules, images=module_images()) as state:
        await asyncio.to_thread(_call, state, calls)
        processes = _in_containers(state)
        assert len(processes) == 4, "three modules and one enclave"
        used: int = sum(process.memory_full_info().pss for process in processes)
        return used / (1 << 20)


def _call(state: Path, calls: int) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while (runtime := read_runtime(state)) is None:
        assert time.monotonic() < deadline, "the simulator does not start"
        time.sleep(0.2)
    os.environ["REQUESTS_CA_BUNDLE"] = runtime.ca_file
    hub = IoTHubRegistryManager.from_connection_string(connection_string(runtime.settings, "service"))
    asked = {"trustedApp": TRUSTED_APP, "method": "status", "payload": {}}
    method = CloudToDeviceMethod(method_name="invoke", payload=asked, connect_timeout_in_seconds=30)
    answered = 0
    while answered < calls:
        try:
            status = hub.invoke_device_module_method(runtime.settings.device_id, "enclave_broker", method).status
        except ClientException:  # the module is not there yet
            status = 404
        answered += status == 200
        if status != 200:
            assert answered == 0, f"a call was answered with {status}"
            assert time.monotonic() < deadline, f"the device does not start: {status}"
            time.sleep(0.3)


def _in_containers(state: Path) -> list[psutil.Process]:
    prefix = runtime_folder(state).name
    names = [f"{prefix}-{module}" for module in MODULES]
    main = [psutil.Process(int(pid)) for pid in docker("inspect", "--format", "{{.State.Pid}}", *names).split()]
    return [*main, *(child for process in main for child in process.children(recursive=True))]
