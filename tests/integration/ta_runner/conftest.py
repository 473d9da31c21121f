"""A simulated device with a real ta_runner process on it, driven as an operator and as the broker would."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
import sqlite3
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from azure.iot.hub import IoTHubRegistryManager  # type: ignore[import-untyped]
from azure.iot.hub.models import Twin, TwinProperties  # type: ignore[import-untyped]

from edgeclave import keys
from edgeclave.edge.certificates import CertificateKeeper
from edgeclave.edge.link import Call, CallReply, LinkClient
from edgeclave.edge.workload import WorkloadClient
from edgeclave.platforms.base import StartRequest
from edgeclave.platforms.emulator import Emulator
from edgeclave.results.recipients import sign_recipient_set
from edgeclave.simulator import Simulator
from tests.fixtures.builds import REPOSITORY, BuiltPackage, probe_package

RUNNING_SECONDS = 60


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> BuiltPackage:
    return probe_package(tmp_path_factory.mktemp("probe"))


@pytest.fixture(scope="session")
def warm_emulator(probe: BuiltPackage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of an emulator that has compiled the probe: compiling takes longer than all else here."""
    folder = tmp_path_factory.mktemp("warm")

    async def start_once() -> None:
        emulator = Emulator(folder / "emulator", folder / "compiled")
        enclave = await emulator.start(probe.path, StartRequest(slot="probe", host_time=0, recipients=_sets(probe)))
        await enclave.stop()

    asyncio.run(start_once())
    return folder


@pytest.fixture
async def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_emulator: Path) -> AsyncIterator[Device]:
    async with Simulator.running(tmp_path / "sim") as simulator:
        device = Device(simulator)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", simulator.ca_file)
        environment = simulator.environment("ta_runner")
        monkeypatch.setenv("https_proxy", environment["https_proxy"])
        monkeypatch.setenv("no_proxy", simulator.settings.address)  # the operator reaches the hub directly
        for name in ("emulator", "compiled"):
            shutil.copytree(warm_emulator / name, device.state / name)
        await device.start_runner()
        try:
            yield device
        finally:
            await device.kill_runner()


@dataclass
class Device:
    """The simulated device. `log` is what the runner wrote, one JSON object a line."""

    simulator: Simulator
    runner: asyncio.subprocess.Process | None = None
    log: list[dict[str, Any]] = field(default_factory=list)
    _reader: asyncio.Task[None] | None = None

    @property
    def state(self) -> Path:
        return Path(self.simulator.environment("ta_runner")["EDGECLAVE_STATE"])

    async def start_runner(self) -> None:
        self.runner = await asyncio.create_subprocess_exec(
            sys.executable,
            str(REPOSITORY / "modules" / "ta_runner" / "main.py"),
            env={"PATH": os.environ["PATH"], **self.simulator.environment("ta_runner")},
            stderr=asyncio.subprocess.PIPE,
            limit=1 << 20,
        )
        self._reader = asyncio.create_task(self._read_log(self.runner))

    async def kill_runner(self, number: int = signal.SIGKILL) -> int:
        """Sends the signal and returns the exit code."""
        assert self.runner is not None
        with contextlib.suppress(ProcessLookupError):
            self.runner.send_signal(number)
        code = await asyncio.wait_for(self.runner.wait(), 10)
        assert self._reader is not None
        await self._reader
        return code

    async def deploy(self, trusted_apps: Any, **members: Any) -> None:
        """Replaces the runner's desired properties, as an operator does with azure-iot-hub."""
        await asyncio.to_thread(self._deploy, {"trustedApps": trusted_apps, **members})

    async def reported(self) -> dict[str, Any]:
        return await asyncio.to_thread(self._reported)

    async def wait_for(
        self, condition: Callable[[dict[str, Any]], object], *, name: str = "probe", seconds: float = RUNNING_SECONDS
    ) -> dict[str, Any]:
        """The reported entry of a trusted application once the condition holds for it."""
        entry: dict[str, Any] = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    entry = (await self.reported()).get("trustedApps", {}).get(name, {})
                    if entry and condition(entry):
                        return entry
                    await asyncio.sleep(0.1)
        tail = "\n".join(json.dumps(line) for line in self.log[-15:])
        raise AssertionError(f"not within {seconds} s, last reported: {json.dumps(entry, indent=1)}\n{tail}")

    async def running(self, name: str = "probe") -> dict[str, Any]:
        return await self.wait_for(lambda entry: entry.get("state") == "running", name=name)

    @asynccontextmanager
    async def link(self, module_id: str = "enclave_broker") -> AsyncIterator[LinkClient]:
        """The link with a module's own identity, over the simulator's workload API."""
        workload = WorkloadClient.from_environment(self.simulator.environment(module_id))
        context = await CertificateKeeper(workload).client_context()
        async with LinkClient("https://ta_runner:8444/link", context, server_name="ta_runner") as link:
            yield link

    def enclave_process(self) -> int:
        """Process id of the runner's only enclave."""
        assert self.runner is not None
        children = Path(f"/proc/{self.runner.pid}/task/{self.runner.pid}/children").read_text().split()
        assert len(children) == 1, children
        return int(children[0])

    def upstream(self) -> list[tuple[str, dict[str, str], bytes]]:
        """What arrived at the hub from the runner: content type, application properties, body."""
        log = self.simulator.message_log
        return [
            (entry.system.get("content-type", ""), dict(entry.properties), entry.body)
            for partition in log.partitions
            for entry in log.read(partition, -1, 10_000)
            if entry.system.get("iothub-connection-module-id") == "ta_runner"
        ]

    def database(self) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{self.state / 'runner.sqlite'}?mode=ro", uri=True)

    def _deploy(self, desired: dict[str, Any]) -> None:
        manager = IoTHubRegistryManager.from_connection_string(self.simulator.connection_string("service"))
        twin = manager.get_module_twin(self.simulator.device_id, "ta_runner")
        current = twin.properties.desired or {}
        removed = {name: None for name in current if not name.startswith("$") and name not in desired}
        before = current.get("trustedApps")
        after = desired["trustedApps"]
        if isinstance(before, dict) and isinstance(after, dict):
            # A merge patch: an entry is replaced by removing what it no longer has.
            after = {**dict.fromkeys(before), **after}
            for name, entry in after.items():
                if isinstance(entry, dict) and isinstance(before.get(name), dict):
                    after[name] = {**dict.fromkeys(before[name]), **entry}
        patch = Twin(properties=TwinProperties(desired={**removed, **desired, "trustedApps": after}))
        manager.update_module_twin(self.simulator.device_id, "ta_runner", patch, twin.etag)

    def _reported(self) -> dict[str, Any]:
        manager = IoTHubRegistryManager.from_connection_string(self.simulator.connection_string("service"))
        reported = manager.get_module_twin(self.simulator.device_id, "ta_runner").properties.reported
        return reported or {}

    async def _read_log(self, runner: asyncio.subprocess.Process) -> None:
        assert runner.stderr is not None
        async for line in runner.stderr:
            try:
                self.log.append(json.loads(line))
            except ValueError:
                self.log.append({"not-json": line.decode(errors="replace")})


def settings(built: BuiltPackage, **changes: Any) -> dict[str, Any]:
    """A twin entry for a package."""
    entry = {
        "package": str(built.path),
        "digest": built.digest,
        "signer": built.signer_id,
        "recipients": {
            output: base64.urlsafe_b64encode(message).rstrip(b"=").decode() for output, message in _sets(built).items()
        },
    }
    return {name: value for name, value in {**entry, **changes}.items() if value is not None}


@pytest.fixture
def entry(probe: BuiltPackage) -> Callable[..., dict[str, Any]]:
    """Makes a twin entry, of the probe unless another package is given."""
    return lambda built=probe, **changes: settings(built, **changes)


Invoke = Callable[..., Awaitable[CallReply]]


@pytest.fixture
def invoke() -> Invoke:
    """Calls a method of the probe over a link and returns the reply."""

    async def call(link: LinkClient, method: str, payload: Any = None, **changes: Any) -> CallReply:
        message = Call(
            trusted_app="probe",
            method=method,
            payload=json.dumps(payload),
            call_id=str(uuid.uuid4()),
            caller="azureiot://hub/devices/edge01/modules/workload",
            deadline_ms=10_000,
        )
        await asyncio.wait_for(link.wait_until_up(), 20)
        return await link.request(msgspec.structs.replace(message, **changes), timeout_seconds=20)

    return call


def _sets(package: BuiltPackage, version: int = 1) -> dict[str, bytes]:
    authority = keys.load_private_key(package.keys / "reader-authority.key.pem")
    reader = keys.load_public_key(package.keys / "reader.pub.pem")
    return {output: sign_recipient_set(output, version, [reader], authority) for output in package.manifest.outputs}
