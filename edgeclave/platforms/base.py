"""What a platform offers to whoever runs trusted applications: `ta_runner`, `edgeclave ta run`, the tests."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgeclave.enclave.messages import (
    BeaconOutcome,
    Caller,
    CallOutcome,
    CallRequest,
    Failure,
    IdentityView,
    ManifestView,
    RecipientsReply,
    Released,
    SealedResult,
    Started,
    StartRequest,
)

__all__ = [
    "BeaconOutcome",
    "CallOutcome",
    "CallRequest",
    "Caller",
    "Enclave",
    "Ended",
    "Failure",
    "IdentityView",
    "Keeper",
    "ManifestView",
    "NothingKept",
    "Platform",
    "Probe",
    "RecipientsReply",
    "Released",
    "SealedResult",
    "StartRequest",
    "Started",
]


class Keeper(Protocol):
    """Stores what a slot needs to go on where there is a counter; durably, before it returns, or raises EdgeclaveError.

    `edgeclave.enclave.storage` says why.
    """

    def keep(self, state: bytes) -> None:
        """This is the `pending` of the next start, until the state in force is replaced by what a request returns."""

    def take_up(self, released: Released) -> None:
        """The `pending` state of the start under way is in force, and this is what was not stored with it."""


class NothingKept:
    """For whoever never starts a slot again."""

    def keep(self, state: bytes) -> None:
        pass

    def take_up(self, released: Released) -> None:
        pass


@dataclass(frozen=True)
class Probe:
    """Whether this machine has the TEE, and what of it, or why not."""

    available: bool
    detail: str


@dataclass(frozen=True)
class Ended:
    """Why an enclave is no more. `expected`: it was told to stop or was killed from here."""

    reason: str
    exit_code: int | None
    expected: bool


class Enclave(Protocol):
    """A running instance of one trusted application. Requests are answered one after the other.

    Each raises EnclaveError: a code of the enclave's own, or `enclave-ended` when it ended meanwhile. After
    `enclave-ended` nothing of the request was committed and the enclave must be started anew.
    """

    started: Started
    ended: asyncio.Future[Ended]
    """Done once the enclave is no more; never an exception."""

    async def call(self, request: CallRequest) -> CallOutcome:
        """Raises EnclaveError `enclave-ended`. What the trusted application does wrong is an outcome."""

    async def evidence(self, nonce: bytes | None) -> bytes:
        """An evidence collection, for a verifier's nonce of 8 to 64 bytes or with the last beacon."""

    async def set_recipients(self, output: str, message: bytes) -> RecipientsReply:
        """Obeys a recipient set from the next result on; the state in the reply must be stored."""

    async def beacon(self, message: bytes) -> BeaconOutcome:
        """Answers a beacon with heartbeats; the state in the outcome must be stored."""

    async def stop(self) -> bytes | None:
        """Ends it cleanly and returns its close record; None when it was no more."""

    async def kill(self) -> None:
        """Ends it at once, and returns when it has ended."""


class Platform(Protocol):
    """A TEE of this machine."""

    @property
    def name(self) -> str:
        """As in the twin of ta_runner: `emulator`, `sgx`, ..."""

    def probe(self) -> Probe:
        """Looks without changing anything."""

    async def compile(self, package: Path, slot: str) -> None:
        """Checks a package and compiles its code, so that it later starts at once; whatever runs in `slot` goes on.

        When cancelled, nothing is left running.

        Raises:
            EnclaveError, PackageError: what the enclave refused, with its code.
        """

    async def start(self, package: Path, request: StartRequest, keeper: Keeper | None = None) -> Enclave:
        """Starts an enclave. When cancelled, nothing is left running. `keeper` is asked only where there is a counter.

        Raises:
            EnclaveError, PackageError, ResultError: what the enclave refused, with its code.
        """
