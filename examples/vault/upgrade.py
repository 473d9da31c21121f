"""Runs the vault in the emulator with a counter, and upgrades it: what version 2 takes over, what version 1 cannot.

python examples/vault/upgrade.py
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeclave.errors import EdgeclaveError
from edgeclave.platforms.base import CallRequest, Released, StartRequest
from edgeclave.platforms.emulator import Emulator
from edgeclave.platforms.enclave_process import EnclaveProcess

HERE = Path(__file__).parent
PACKAGES = (HERE / "version-1" / "build" / "vault.ta", HERE / "version-2" / "build" / "vault.ta")


@dataclass
class Slot:
    """What a host stores of one slot. ta_runner does this in a database; none of it can be read or forged there."""

    name: str
    state: bytes | None = None
    pending: bytes | None = None
    open_record: bytes | None = None

    def keep(self, state: bytes) -> None:
        self.pending = state

    def take_up(self, released: Released) -> None:
        self.state, self.open_record = self.pending, released.open_record or self.open_record

    async def start(self, emulator: Emulator, package: Path) -> EnclaveProcess:
        request = StartRequest(
            slot=self.name, host_time=0, state=self.state, pending=self.pending, shown_open=self.open_record
        )
        enclave = await emulator.start(package, request, self)
        self.state, self.pending, self.open_record = enclave.started.state, None, enclave.started.open_record
        return enclave

    async def call(self, enclave: EnclaveProcess, method: str, payload: Any = None) -> Any:
        request = CallRequest(id=method, method=method, payload=json.dumps(payload), host_time=0)
        outcome = await enclave.call(request)
        if outcome.failure is not None:
            return outcome.failure.message
        if outcome.state is not None:
            self.state, self.pending = outcome.state, None
        return json.loads(outcome.reply or "null")


async def upgrade(folder: Path, version_1: Path, version_2: Path) -> None:
    emulator = Emulator(folder / "emulator", folder / "compiled", counter=True)
    vault, elsewhere = Slot("vault"), Slot("elsewhere")

    print("# version 1 stores two notes and exports them, sealed to the product")
    first = await vault.start(emulator, version_1)
    print(await vault.call(first, "add", {"note": "the spare key is under the mat"}))
    backup = vault.state
    print(await vault.call(first, "add", {"note": "the mat was stolen"}))
    print(await vault.call(first, "read"))
    export_1 = (await vault.call(first, "export"))["sealed"]
    await first.stop()

    print("# version 2 goes on with them, and opens the export of version 1")
    second = await vault.start(emulator, version_2)
    print(await vault.call(second, "find", {"text": "stolen"}))
    print(await vault.call(second, "open", {"sealed": export_1}))
    print(await vault.call(second, "add", {"note": "the lock was changed"}))
    export_2 = (await vault.call(second, "export"))["sealed"]
    await second.stop()

    print("# version 1 can neither take the state of version 2 back nor open its export")
    await refused(vault, emulator, version_1)
    first = await elsewhere.start(emulator, version_1)
    print(await elsewhere.call(first, "open", {"sealed": export_2}))
    await first.stop()

    print("# and no older state gets in, whichever version it is offered to")
    vault.state = backup
    await refused(vault, emulator, version_2)


async def refused(slot: Slot, emulator: Emulator, package: Path) -> None:
    try:
        await slot.start(emulator, package)
    except EdgeclaveError as error:
        print(f"{error.code}: {error.what}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        try:
            asyncio.run(upgrade(Path(folder), *PACKAGES))
        except EdgeclaveError as error:
            sys.exit(f"{error}\nbuild and sign both versions first: see {HERE / 'README.md'}")
