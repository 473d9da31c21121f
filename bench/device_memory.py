"""Memory of a whole device: three modules as processes and one trusted application, after 1,000 calls through them.

The sample works on this machine's vitals meanwhile. PSS: a page that several processes share counts for each with its
part, so the sum is what the device really gives.
"""

from __future__ import annotations

import asyncio
import base64
import os
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from bench.call_path import once_it_answers
from bench.device import simulated
from bench.row import Row
from edgeclave.client import Client
from edgeclave.edge.certificates import CertificateKeeper
from edgeclave.edge.workload import WorkloadClient
from edgeclave.keys import load_private_key, load_public_key, private_key_path, public_key_path
from edgeclave.results.recipients import sign_recipient_set
from edgeclave.simulator.join import environment_of
from tests.fixtures.builds import REPOSITORY, BuiltPackage, build_package

CALLS = 1000
WORKLOAD = "bench"
TRUSTED_APP = "anomaly"
EXAMPLES = (
    ("a C TA", REPOSITORY / "examples" / "anomaly_c", 200.0),
    ("a Python TA", REPOSITORY / "modules" / "sample_analytics" / "trusted_app", 280.0),
)


def rows() -> list[Row]:
    return [_row(what, source, target) for what, source, target in EXAMPLES]


def _row(what: str, source: Path, target: float) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        used = asyncio.run(_measure(Path(folder), source))
    return Row(f"memory of three modules and {what} after 1,000 calls", "the limit", "MiB", used, target, 1.0)


async def _measure(folder: Path, source: Path) -> float:
    package = build_package(source, folder)
    # Twice, since the first start compiles: what that leaves behind is not what a device gives from day to day.
    await _after_calls(folder, package, 1)
    return await _after_calls(folder, package, CALLS)


async def _after_calls(folder: Path, package: BuiltPackage, calls: int) -> float:
    async with AsyncExitStack() as stack:
        state = await stack.enter_async_context(simulated(folder, desired_properties(package)))
        environment = await environment_of(state, WORKLOAD)
        os.environ |= {"https_proxy": environment["https_proxy"]}
        client = await stack.enter_async_context(
            Client(CertificateKeeper(WorkloadClient.from_environment(environment)))
        )

        async def call() -> object:
            return (await client.invoke(TRUSTED_APP, "status", {})).payload

        await once_it_answers(call)
        for _ in range(calls):
            await call()
        processes = _of_the_device()
        assert len(processes) == 4, "three modules and one enclave"
        used: int = sum(process.memory_full_info().pss for process in processes)
        return used / (1 << 20)


def _of_the_device() -> list[psutil.Process]:
    running = psutil.Process().children(recursive=True)
    return [process for process in running if _is_module(process) or "edgeclave.enclave" in process.cmdline()]


def _is_module(process: psutil.Process) -> bool:
    return any(Path(argument).name == "main.py" for argument in process.cmdline())


def desired_properties(package: BuiltPackage) -> dict[str, dict[str, Any]]:
    """Desired properties of a device whose sample works on the machine's vitals."""
    authority = load_private_key(private_key_path(package.keys, "reader-authority"))
    reader = load_public_key(public_key_path(package.keys, "reader"))
    trusted_app = {
        "package": str(package.path),
        "digest": package.digest,
        "signer": package.signer_id,
        "platform": "emulator",
        "recipients": {
            output: base64.urlsafe_b64encode(sign_recipient_set(output, 1, [reader], authority)).rstrip(b"=").decode()
            for output in package.manifest.outputs
        },
    }
    device = "{{iot:this_device_id}}"
    workloads = {
        "effect": "allow",
        "identities": [f"{device}/{WORKLOAD}", f"{device}/sample_analytics"],
        "operations": ["invoke:*", "acknowledge:*"],
    }
    return {
        "ta_runner": {"trustedApps": {TRUSTED_APP: trusted_app}},
        "enclave_broker": {"policy": {"statements": {"bench": workloads}}},
        "sample_analytics": {"trustedApp": TRUSTED_APP, "source": {"kind": "vitals"}},
    }
