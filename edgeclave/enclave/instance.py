"""One instance of a trusted application: what the host asks of it after the start.

A call is a transaction. Everything it changes - storage, counters, results - is prepared first and takes effect in one
step at its end. A call that does not succeed leaves only its trace in `calls` and `inputs`, because a trusted
application that ran on an input may remember it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import msgspec

from edgeclave.enclave import status
from edgeclave.enclave.attester import Attester, InstanceKeys
from edgeclave.enclave.beacons import newer_beacon
from edgeclave.enclave.guest import Guest, GuestEndedError, GuestFailure
from edgeclave.enclave.log import enclave_log
from edgeclave.enclave.messages import (
    Assurance,
    BeaconOutcome,
    CallOutcome,
    CallRequest,
    Failure,
    RecipientsReply,
    Released,
    SealedResult,
    is_json,
)
from edgeclave.enclave.services import Services
from edgeclave.enclave.state import Snapshot
from edgeclave.enclave.storage import TrustedStorage
from edgeclave.enclave.streams import Head, Streams
from edgeclave.enclave.transaction import MAX_RESULT_BYTES, Transaction
from edgeclave.evidence.eat import Epoch
from edgeclave.results.records import CloseRecord, sign_close
from edgeclave.results.sealed import NO_INPUTS, ResultHeader, extend_inputs
from edgeclave.ta.identity import Identity
from edgeclave.ta.manifest import Manifest


class Instance:
    """A started instance. Made by `edgeclave.enclave.starting`."""

    def __init__(
        self,
        *,
        identity: Identity,
        manifest: Manifest,
        slot: str,
        epoch: Epoch,
        keys: InstanceKeys,
        evidence_digest: bytes,
        attester: Attester,
        streams: Streams,
        storage: TrustedStorage,
        services: Services,
        guest: Guest,
    ) -> None:
        self._identity = identity
        self._manifest = manifest
        self._slot = slot
        self._epoch = epoch
        self._keys = keys
        self._evidence_digest = evidence_digest
        self._attester = attester
        self._streams = streams
        self._storage = storage
        self._services = services
        self._guest = guest
        self._calls = 0
        self._inputs = NO_INPUTS
        self._message_bytes = manifest.limits.message_kib << 10

    def call(self, request: CallRequest) -> CallOutcome:
        """Runs one method; see `edgeclave.enclave.status` for the failures that are not the trusted application's."""
        method = self._manifest.methods.get(request.method)
        if method is None:
            return _failed(status.UNKNOWN_METHOD, f"the manifest declares no method {request.method[:64]}")
        if method.channel != "any":
            return _failed(status.CHANNEL_TOO_WEAK, f"method {request.method} takes {method.channel} calls only")
        payload = request.payload.encode()
        if len(payload) > self._message_bytes:
            return _failed(
                status.PAYLOAD_TOO_LARGE, f"the payload has {len(payload)} bytes, the limit is {self._message_bytes}"
            )
        if not is_json(payload):
            return _failed(status.BAD_PAYLOAD, "the payload is not JSON")
        assurance = request.caller.assurance
        self._calls += 1
        self._inputs = extend_inputs(self._inputs, request.method, payload, assurance)
        self._streams.note_call(assurance)
        transaction = Transaction(
            self._storage.snapshot,
            request.caller,
            request.host_time,
            self._streams.next_sequence,
            min(self._message_bytes, MAX_RESULT_BYTES),
        )
        seconds = (
            min(request.deadline_ms or self._manifest.limits.deadline_ms, self._manifest.limits.deadline_ms) / 1000
        )
        self._services.transaction = transaction
        try:
            answer = self._guest.invoke(request.method, request.payload, seconds)
        except GuestEndedError as end:
            return _ended(request.method, end, seconds)
        finally:
            self._services.transaction = None
        if isinstance(answer, GuestFailure):
            if answer.status == status.SUCCESS:
                return _failed(status.BAD_REPLY, f"a failure with status 200, which means success: {answer.message}")
            return _failed(answer.status, answer.message)
        reply = answer.encode()
        if len(reply) > self._message_bytes:
            return _failed(status.BAD_REPLY, f"the reply has {len(reply)} bytes, the limit is {self._message_bytes}")
        if not is_json(reply):
            return _failed(status.BAD_REPLY, "the reply is not JSON")
        if not transaction.has_effects:
            return CallOutcome(reply=answer)
        emitted = [(output, result.encode()) for output, result in transaction.emitted]
        released = Released(call_id=request.id, reply=answer)
        results, state = self._commit(emitted, transaction.changed_snapshot(), released, request.host_time, assurance)
        return CallOutcome(reply=answer, results=results, state=state)

    def evidence(self, nonce: bytes | None, host_time: int) -> bytes:
        return self._attester.evidence(nonce, host_time)

    def set_recipients(self, output: str, message: bytes) -> RecipientsReply:
        """Raises EnclaveError and ResultError: see `Streams.set_recipients`."""
        recipients = self._streams.set_recipients(output, message)
        seen = self._streams.seen_recipients
        if seen == self._storage.snapshot.recipients:
            return RecipientsReply(version=recipients.version)
        changed = msgspec.structs.replace(self._storage.snapshot, recipients=seen)
        _, state = self._commit([], changed, Released(), 0, None)
        return RecipientsReply(version=recipients.version, state=state)

    def beacon(self, message: bytes, host_time: int) -> BeaconOutcome:
        """Answers a beacon with a heartbeat on every output that has recipients.

        Raises:
            EdgeclaveError: see `newer_beacon`.
        """
        beacon = newer_beacon(self._manifest, message, self._storage.snapshot.beacon)
        changed = msgspec.structs.replace(self._storage.snapshot, beacon=beacon)
        heartbeats = [(output, b"") for output in self._streams.recipients_in_force]
        results, state = self._commit(heartbeats, changed, Released(), host_time, None)
        self._attester.beacon = beacon
        return BeaconOutcome(results=results, state=state)

    def close(self) -> bytes:
        """The close record: after it this instance must not be called any more."""
        record = CloseRecord(self._epoch.number, self._slot, self._streams.last_results)
        return sign_close(record, self._keys.signing)

    def _commit(
        self,
        emitted: Iterable[tuple[str, bytes]],
        changed: Snapshot | None,
        released: Released,
        host_time: int,
        assurance: Assurance | None,
    ) -> tuple[tuple[SealedResult, ...], bytes | None]:
        """Prepares results and state, then makes both so; an error in between leaves everything as it was.

        `released` is what else the commit lets out.
        """
        make_header: Callable[..., ResultHeader] = partial(self._header, changed or self._storage.snapshot, host_time)
        results, heads = self._streams.seal(emitted, make_header, self._keys.signing, assurance)
        state = None
        if changed is not None:
            state = self._storage.commit(changed, msgspec.structs.replace(released, results=results))
        self._streams.advance(heads)
        return results, state

    def _header(
        self,
        snapshot: Snapshot,
        host_time: int,
        output: str,
        head: Head,
        recipients: tuple[int, bytes],
        lowest: Assurance,
    ) -> ResultHeader:
        beacon = snapshot.beacon
        return ResultHeader(
            unique_id=self._identity.unique_id,
            signer_id=self._identity.signer_id,
            product_id=self._identity.product_id,
            security_version=self._identity.security_version,
            output=output,
            epoch=self._epoch.number,
            sequence=head.sequence + 1,
            previous=head.digest,
            evidence_digest=self._evidence_digest,
            recipients=recipients,
            beacon=None if beacon is None else (beacon.number, beacon.value),
            calls=self._calls,
            inputs=self._inputs,
            assurance=lowest,
            host_time=host_time,
        )


def _failed(code: int, message: str) -> CallOutcome:
    return CallOutcome(failure=Failure(code, message))


def _ended(method: str, end: GuestEndedError, seconds: float) -> CallOutcome:
    if end.timed_out:
        failure = Failure(status.DEADLINE_EXCEEDED, f"method {method} took longer than {round(seconds * 1000)} ms")
    else:
        failure = Failure(status.TRAPPED, f"the trusted application ended in method {method}: {end}")
    enclave_log("warning", failure.message)
    return CallOutcome(failure=failure, poisoned=True)
