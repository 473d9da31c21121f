"""An emulated device for trying out: one trusted application in the real emulator, its state kept in a folder.

It starts the enclave as ta_runner does and keeps what ta_runner keeps: after each call the sealed state and the last
result of each output, stored before the answer is given, so that trusted storage and sequences go on in the next run.
A manifest that requires rollback-protected storage gets the emulator that has a counter.
And it reads as a relying party does: the evidence is verified against this emulator, and each result is opened.
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from edgeclave.develop.development_keys import RecipientSetUsed, development_reader, recipient_set
from edgeclave.develop.kept_state import KeptState, open_state
from edgeclave.errors import EnclaveError
from edgeclave.evidence.anchors import Anchor
from edgeclave.evidence.policy import Policy, TrustedApp
from edgeclave.evidence.reference import Reference
from edgeclave.evidence.runtime import runtime_digest
from edgeclave.evidence.verifier import AttestationResult, Verifier
from edgeclave.platforms.base import CallRequest, Enclave, StartRequest
from edgeclave.platforms.emulator import Emulator
from edgeclave.results.sealed import open_result, verify_result
from edgeclave.ta.package import read_package
from edgeclave.ta.signature import VerifiedPackage, verify_package

Tell = Callable[[str], None]
_KIND = "emulator"  # of evidence
_STATE_REFUSED = {
    "malformed-sealed-data",
    "malformed-state",
    "platform-key-changed",
    "sealed-by-another",
    "sealed-data-damaged",
    "sealed-in-another-debug-state",
    "sealer-too-old",
    "shown-result-refused",
}


@dataclass(frozen=True)
class Result:
    """A sealed result, opened as its reader does. `text` is its JSON; `sealed` the COSE bytes."""

    output: str
    sequence: int
    text: str
    sealed: bytes

    @property
    def payload(self) -> Any:
        """The decoded JSON."""
        return json.loads(self.text)


@dataclass(frozen=True)
class Answer:
    """What a call gave: the reply as JSON text, or a failure's status and message; and what it emitted."""

    reply: str | None
    status: int
    message: str
    results: tuple[Result, ...]


@dataclass(frozen=True)
class Device:
    """Where the emulated device lives.

    `folder` holds the emulator's keys and its compiled code, which several applications share; `state` what is kept of
    this application; `keys` is the key folder with recipient authorities and the development reader.
    """

    folder: Path
    state: Path
    keys: Path

    @contextlib.asynccontextmanager
    async def run(self, package: Path, tell: Tell) -> AsyncIterator[RunningApp]:
        """Starts the package and stops it in the end.

        Raises:
            EdgeclaveError: what the package, the enclave or the kept state is refused for; `state-in-use`.
        """
        verified = verify_package(read_package(package))
        slot = verified.manifest.name
        with open_state(self.state) as kept:
            recipients = self._recipients(verified, kept, tell)
            counter = verified.manifest.storage_protection == "rollback-protected"
            emulator = Emulator(self.folder / "emulator", self.folder / "compiled", counter=counter)
            request = StartRequest(
                slot=slot,
                host_time=_now(),
                state=kept.state,
                pending=kept.pending,
                shown=dict(kept.shown),
                shown_open=kept.shown_open,
                recipients={output: used.message for output, used in recipients.items()},
            )
            with _about_state(self.state):
                enclave = await emulator.start(package, request, kept)
            try:
                kept.begin(enclave.started, recipients)
                attested = _verify(emulator, enclave.started.evidence, verified)
                yield RunningApp(enclave, verified, attested, kept, development_reader(self.keys))
                await enclave.stop()
            finally:
                await enclave.kill()

    def _recipients(self, package: VerifiedPackage, kept: KeptState, tell: Tell) -> dict[str, RecipientSetUsed]:
        reader = development_reader(self.keys).public_key()
        used = {}
        for name, output in package.manifest.outputs.items():
            given = recipient_set(name, output, self.keys, reader, kept.recipients.get(name))
            if given is None:
                tell(
                    f"output {name} has no readers here: the private key of its recipient authority is not in "
                    f"{self.keys}, so emitting to it is refused"
                )
            else:
                used[name] = given
        return used


class RunningApp:
    """A trusted application that runs on the device. Made by `Device.run`."""

    def __init__(
        self,
        enclave: Enclave,
        package: VerifiedPackage,
        attested: AttestationResult,
        kept: KeptState,
        reader: ec.EllipticCurvePrivateKey,
    ) -> None:
        self.package = package
        self.attested = attested
        self.compiled = enclave.started.compiled
        self._enclave = enclave
        self._kept = kept
        self._reader = reader

    async def call(self, method: str, payload: str) -> Answer:
        """Calls a method with JSON text; its outcome is stored before it is returned.

        Raises:
            EnclaveError: `enclave-ended`.
        """
        outcome = await self._enclave.call(
            CallRequest(id=uuid.uuid4().hex, method=method, payload=payload, host_time=_now())
        )
        self._kept.record(outcome)
        if outcome.failure is not None:
            return Answer(None, outcome.failure.status, outcome.failure.message, ())
        return Answer(outcome.reply, 200, "", tuple(self._open(one.sealed) for one in outcome.results))

    def _open(self, sealed: bytes) -> Result:
        verified = verify_result(sealed, self.attested.signing_key)
        text = open_result(verified, self._reader).decode()
        return Result(verified.header.output, verified.header.sequence, text, sealed)


def _verify(emulator: Emulator, evidence: bytes, package: VerifiedPackage) -> AttestationResult:
    """What a relying party of this very emulator and package would do."""
    anchor = load_der_public_key(emulator.anchor())
    assert isinstance(anchor, ec.EllipticCurvePublicKey)
    policy = Policy(
        anchors=(Anchor(_KIND, "emulated", anchor),),
        runtime={_KIND: Reference({"digest": runtime_digest()})},
        classes=frozenset(["emulated"]),
        trusted_apps=(TrustedApp(unique_id=package.identity.unique_id),),
        debug=True,
        freshness="unknown",
    )
    return Verifier(policy).verify(evidence, nonce=None, now=int(time.time()))


@contextlib.contextmanager
def _about_state(state: Path) -> Iterator[None]:
    """State that is refused is never dropped by itself; here, unlike on a device, its owner may want just that."""
    try:
        yield
    except EnclaveError as error:
        if error.code not in _STATE_REFUSED:
            raise
        raise EnclaveError(
            error.code,
            f"the state of the last run is refused: {error.what}",
            where=str(state),
            advice=f"{error.advice}; or remove this file to begin anew" if error.advice else "remove it to begin anew",
        ) from error


def _now() -> int:
    return time.time_ns() // 1_000_000
