"""An enclave that can be told to misbehave at will, for what a real one does only by accident.

What a trusted application and its results look like is tested with real enclaves (tests/integration/ta_runner).
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from edgeclave.enclave.messages import (
    BeaconOutcome,
    CallOutcome,
    CallRequest,
    Failure,
    IdentityView,
    LimitsView,
    ManifestView,
    RecipientsReply,
    SealedResult,
    Started,
    StartRequest,
)
from edgeclave.errors import EdgeclaveError, EnclaveError
from edgeclave.platforms.base import Ended, Keeper, Probe


class StandInEnclave:
    """`emit` seals its payload and counts, `read` has no effect, `fail` fails, `hang` never answers, `die` ends it."""

    def __init__(self, request: StartRequest) -> None:
        self.count = int(request.state or b"0")
        self.calls: list[str] = []
        self.release = asyncio.Event()
        self.release.set()
        self.ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self.beacons: list[bytes] = []
        self.recipients = dict(request.recipients)
        self.started = Started(
            identity=IdentityView(b"u" * 32, b"s" * 32, 1, 1, False),
            manifest=ManifestView("small", "1.0.0", {"emit": "any"}, ("out",), LimitsView(16, 1000, 64)),
            instance_id=b"i" * 32,
            epoch=1,
            evidence=b"evidence",
            open_record=b"open",
            state=str(self.count).encode(),
            compiled=False,
        )

    async def call(self, request: CallRequest) -> CallOutcome:
        self.calls.append(request.id)
        await self.release.wait()
        match request.method:
            case "emit":
                self.count += 1
                sealed = SealedResult("out", self.count, request.payload.encode())
                return CallOutcome(reply=str(self.count), results=(sealed,), state=str(self.count).encode())
            case "put":
                self.count += 1
                return CallOutcome(reply="null", state=str(self.count).encode())
            case "read":
                return CallOutcome(reply=json.dumps(self.count))
            case "fail":
                return CallOutcome(failure=Failure(409, "not now"))
            case "large":
                return CallOutcome(reply="1", results=(SealedResult("out", 1, bytes(3 << 20)),), state=b"1")
            case "die":
                self.end("it died")
                raise EnclaveError("enclave-ended", "it died")
            case _:
                await asyncio.Event().wait()
                raise AssertionError

    async def evidence(self, nonce: bytes | None) -> bytes:
        return b"evidence for " + (nonce or b"nobody")

    async def set_recipients(self, output: str, message: bytes) -> RecipientsReply:
        if message == b"\0":
            raise EnclaveError("bad-recipient-set", "refused")
        self.recipients[output] = message
        return RecipientsReply(version=2, state=b"7")

    async def beacon(self, message: bytes) -> BeaconOutcome:
        self.beacons.append(message)
        return BeaconOutcome(results=(SealedResult("out", 99, b"heartbeat"),), state=b"8")

    async def stop(self) -> bytes | None:
        self.end("it was stopped")
        return b"close"

    async def kill(self) -> None:
        self.end("it was killed")

    def end(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_result(Ended(reason, 0, expected=True))


class StandInPlatform:
    """Starts StandInEnclaves. `refusals` and `flaws`, of starting and of compiling, by the package file's digest.

    `may_compile` holds up compiling while it is not set; `compiling` is what began to, `given_up` what was told to end.
    """

    name = "emulator"

    def __init__(self) -> None:
        self.enclaves: list[StandInEnclave] = []
        self.packages: list[str] = []
        self.refusals: dict[str, EnclaveError] = {}
        self.flaws: dict[str, EdgeclaveError] = {}
        self.compiling: list[str] = []
        self.given_up: list[str] = []
        self.may_compile = asyncio.Event()
        self.may_compile.set()

    def probe(self) -> Probe:
        return Probe(available=True, detail="a stand-in")

    async def compile(self, package: Path, slot: str) -> None:
        self.compiling.append(package.stem)
        try:
            await self.may_compile.wait()
        except asyncio.CancelledError:
            self.given_up.append(package.stem)
            raise
        if flaw := self.flaws.get(package.stem):
            raise flaw.with_traceback(None)

    async def start(self, package: Path, request: StartRequest, keeper: Keeper | None = None) -> StandInEnclave:
        if refusal := self.refusals.get(package.stem):
            raise refusal.with_traceback(None)
        self.packages.append(package.stem)
        self.enclaves.append(StandInEnclave(request))
        return self.enclaves[-1]
