"""Real enclave processes, as ta_runner starts them."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edgeclave import keys
from edgeclave.platforms.base import CallOutcome, CallRequest, Released, StartRequest
from edgeclave.platforms.emulator import Emulator
from edgeclave.platforms.enclave_process import EnclaveProcess
from edgeclave.results.recipients import sign_recipient_set
from tests.fixtures.builds import TRUSTED_APPS, BuiltPackage, build_package
from tests.fixtures.wat.packages import HandmadePackage, minimal_package


def now() -> int:
    return time.time_ns() // 1_000_000


@dataclass
class Slot:
    """What a runner keeps of one slot; `record` does what it does with each outcome. Implements `Keeper`."""

    name: str = "slot"
    state: bytes | None = None
    pending: bytes | None = None
    recovered: list[Released] = field(default_factory=list)
    shown: dict[str, bytes] = field(default_factory=dict)
    shown_open: bytes | None = None

    def request(self, recipients: bytes | None) -> StartRequest:
        return StartRequest(
            slot=self.name,
            host_time=now(),
            state=self.state,
            pending=self.pending,
            shown=self.shown,
            shown_open=self.shown_open,
            recipients={} if recipients is None else {"out": recipients},
        )

    def keep(self, state: bytes) -> None:
        self.pending = state

    def take_up(self, released: Released) -> None:
        self.recovered.append(released)
        self.state, self.pending = self.pending, None
        self.shown_open = released.open_record or self.shown_open
        self.shown |= {result.output: result.sealed for result in released.results}

    def started(self, enclave: EnclaveProcess) -> None:
        self.state, self.pending = enclave.started.state, None
        self.shown_open = enclave.started.open_record

    def record(self, outcome: CallOutcome) -> None:
        if outcome.state is not None:
            self.state, self.pending = outcome.state, None
        self.shown |= {result.output: result.sealed for result in outcome.results}


def enclaves_of_this_process() -> list[bytes]:
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    commands = [Path(f"/proc/{child}/cmdline").read_bytes() for child in children]
    return [command for command in commands if b"edgeclave.enclave" in command]


async def call(enclave: EnclaveProcess, method: str, payload: object = None, **more: Any) -> CallOutcome:
    request = CallRequest(id="call", method=method, payload=json.dumps(payload), host_time=now(), **more)
    return await enclave.call(request)


def reply(outcome: CallOutcome) -> Any:
    assert outcome.reply is not None, outcome.failure
    return json.loads(outcome.reply)


def status(outcome: CallOutcome) -> int:
    assert outcome.failure is not None, outcome.reply
    return outcome.failure.status


@pytest.fixture
def minimal(tmp_path: Path) -> HandmadePackage:
    return minimal_package(tmp_path / "package")


@pytest.fixture(scope="session", params=["probe", "probe_c"], ids=["python", "c"])
def probe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BuiltPackage:
    """The probe application in each language; built once for all."""
    return build_package(TRUSTED_APPS / request.param, tmp_path_factory.mktemp("probe"))


@pytest.fixture(scope="session")
def probe_recipients(probe: BuiltPackage) -> bytes:
    authority = keys.load_private_key(probe.keys / "reader-authority.key.pem")
    return sign_recipient_set("out", 1, [keys.load_public_key(probe.keys / "reader.pub.pem")], authority)


@pytest.fixture(scope="session")
def shared_device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One emulator for all tests with the probe, so that it is compiled once."""
    return tmp_path_factory.mktemp("device")


@pytest.fixture
def emulator(tmp_path: Path) -> Emulator:
    return Emulator(tmp_path / "emulator", tmp_path / "cache")


@pytest.fixture
def shared_emulator(shared_device: Path) -> Emulator:
    return Emulator(shared_device / "emulator", shared_device / "cache")


Start = Callable[..., Awaitable[EnclaveProcess]]


@pytest.fixture
async def start(emulator: Emulator) -> AsyncIterator[Start]:
    """Starts enclaves that are gone when the test is over: `start(package, slot)` of a handmade package."""
    running: list[EnclaveProcess] = []

    async def start_one(
        package: HandmadePackage, slot: Slot | None = None, on: Emulator | None = None
    ) -> EnclaveProcess:
        slot = slot or Slot()
        enclave = await (on or emulator).start(package.path, slot.request(package.recipients), slot)
        slot.started(enclave)
        running.append(enclave)
        return enclave

    yield start_one
    for enclave in running:
        await enclave.kill()


@pytest.fixture
async def probed(
    shared_emulator: Emulator, probe: BuiltPackage, probe_recipients: bytes
) -> AsyncIterator[EnclaveProcess]:
    """A running probe."""
    enclave = await shared_emulator.start(probe.path, Slot("probe").request(probe_recipients))
    yield enclave
    await enclave.kill()


@pytest.fixture
def other_device(tmp_path: Path) -> Emulator:
    return Emulator(tmp_path / "other-emulator", tmp_path / "other-cache")


def copy_device(emulator: Emulator, to: Path) -> Emulator:
    """The same device with an empty cache."""
    shutil.copytree(emulator.directory, to)
    return Emulator(to, to / "cache")
