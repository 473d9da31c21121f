"""The reader: sealed results, evidence and records in, findings out.

For each message, by its content type:

1. Evidence is appraised under the policy and must come from the device that its platform is enrolled for.
2. Open and close records and results must be signed by an instance of evidence that this device sent and that was
   accepted; a result or open record names that evidence by digest. Until it is there they are held, never dropped.
3. Then the head rules say whether a message is next, seen before, early, or a sign that history was changed.
4. Only a result that is next in its stream is opened. What was held and is next now follows at once.

All of it happens in one transaction with the message's position in the hub (`heads`).

```
reader = Reader(policy, recipient_key, HeadStore(folder))
for finding in reader.process(event):
    ...
    reader.confirm(finding)
```
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from edgeclave import cose
from edgeclave.cloud import findings
from edgeclave.cloud.archive import Archive
from edgeclave.cloud.events import Event, Position
from edgeclave.cloud.findings import Finding
from edgeclave.cloud.heads import HeadStore
from edgeclave.cloud.products import Products, product_key
from edgeclave.cloud.trust import TrustedInstances
from edgeclave.cloud.waiting import for_any_place, for_evidence, for_instance, for_output, for_place, for_room
from edgeclave.edge.store import StoreError
from edgeclave.errors import EdgeclaveError, ResultError
from edgeclave.evidence import collection
from edgeclave.evidence.endorsements import Endorsements
from edgeclave.evidence.policy import Policy
from edgeclave.evidence.verifier import AttestationResult
from edgeclave.results.instance import peek_instance
from edgeclave.results.matching import match_close, match_open, match_result
from edgeclave.results.records import CLOSE, OPEN, verify_close, verify_open
from edgeclave.results.sealed import RESULT, VerifiedResult, open_result, peek_result, verify_result
from edgeclave.results.stream import (
    Pending,
    Wanted,
    close_link,
    open_link,
    result_link,
)
from edgeclave.results.stream_state import ResultLink
from edgeclave.results.verdicts import Kind, Verdict

NO_ROOM = "too-many-instances"
"""The one code with which the head rules do not remember an open or close record themselves."""
OURS = "application/edgeclave-"
BAD_HEADS = "bad-heads"


class Reader:
    """One relying party: one policy, one recipient key, one memory.

    Args:
        policy: what is accepted.
        key: opens results.
        store: what was seen so far; one reader at a time.
        clock: seconds since 1970.
        endorsements: where to look for what vendors say about platforms, besides the evidence itself.
        archive: where accepted results are kept, durably before they count as read.
    """

    def __init__(
        self,
        policy: Policy,
        key: ec.EllipticCurvePrivateKey,
        store: HeadStore,
        *,
        clock: Callable[[], float] = time.time,
        endorsements: Endorsements | None = None,
        archive: Archive | None = None,
    ) -> None:
        self._archive = archive
        self._policy = policy
        self._key = key
        self._store = store
        self._clock = clock
        self._trust = TrustedInstances(policy, store, endorsements)
        self._products = Products(store)
        self._found: list[Finding] = []
        self._queue: deque[Event] = deque()
        self._offered: dict[bytes, tuple[Event, VerifiedResult]] = {}
        self.ignored = 0

    def process(self, event: Event) -> list[Finding]:
        """Everything that follows from one message; durable when this returns."""
        return self.process_batch([event])

    def process_batch(self, events: Sequence[Event]) -> list[Finding]:
        """The same for many, in one transaction: all of them are done, or none is.

        Raises:
            StoreError: nothing was stored; the same events may be offered again.
        """
        with self._work():
            for event in events:
                self._offer([event])
                self._store.set_position(event.partition, Position.of(event))
            return self._finish()

    def accept_restart(self, instance_id: bytes) -> list[Finding]:
        """A person lets a stream go on from an instance that was reported and not admitted.

        Raises:
            ResultError: `no-such-instance`.
        """
        with self._work():
            for key in self._store.stream_keys():
                heads = self._products.heads_of(key)
                if all(item.instance_id != instance_id or item.output for item in heads.pending()):
                    continue
                verdicts = heads.accept_restart(instance_id)
                device = self._store.device_of_instance(instance_id)
                self._found += [findings.of_verdict(device, verdict) for verdict in verdicts]
                self._offer(self._store.take_held_from(for_any_place(key)))
                return self._finish()
        raise ResultError(
            "no-such-instance",
            "no reported instance has this id",
            where=instance_id.hex(),
            advice="take `instance` from the line that reported the rollback, fork or reset",
        )

    def accept_loss(self, instance_id: bytes, output: str) -> list[Finding]:
        """A person gives up what is missing before the oldest result that is held on an output.

        Raises:
            ResultError: `nothing-lost`, or what stands in the way.
        """
        with self._work():
            for key in self._store.stream_keys():
                waiting = self._store.take_held_from(for_output(key, instance_id, output))
                oldest = self._verified(waiting[0]) if waiting else None
                if oldest is None:
                    continue
                verdicts = self._products.heads_of(key).accept_loss(result_link(oldest[1]))
                self._found += [findings.of_verdict(waiting[0].device, verdict) for verdict in verdicts]
                self._offer(waiting)
                return self._finish()
        raise ResultError(
            "nothing-lost",
            "no result of this instance is held on this output",
            where=f"{instance_id.hex()}/{output}",
            advice="take `instance` and `output` from the line that reported the gap",
        )

    def unconfirmed(self) -> list[Finding]:
        """Findings of earlier runs that nobody confirmed as written."""
        return [
            msgspec.structs.replace(msgspec.json.decode(finding, type=Finding), number=number)
            for number, finding in self._store.findings()
        ]

    def confirm(self, finding: Finding) -> None:
        """This finding and all before it are where their reader finds them."""
        self._store.confirm(finding.number)

    def pending(self) -> list[Pending]:
        """What is missing or waits for a person, in all streams."""
        return self._products.pending()

    def held(self) -> dict[str, int]:
        """How many messages are held, by the code of what they wait for."""
        return self._store.held_counts()

    @contextmanager
    def _work(self) -> Iterator[None]:
        try:
            with self._store.transaction():
                yield
        except BaseException:
            self._products.forget()
            self._found.clear()
            if self._archive is not None:
                self._archive.discard()
            raise
        finally:
            self._queue.clear()
            self._offered.clear()

    def _finish(self) -> list[Finding]:
        self._products.store()
        if self._archive is not None:
            self._archive.flush()
        numbered = [
            msgspec.structs.replace(finding, number=self._store.add_finding(msgspec.json.encode(finding)))
            for finding in self._found
        ]
        self._found.clear()
        return numbered

    def _offer(self, events: Iterable[Event]) -> None:
        """Judges messages, and whatever they let go on."""
        self._queue.extend(events)
        while self._queue:
            current = self._queue.popleft()
            try:
                self._judge(current)
            except StoreError:
                raise
            except EdgeclaveError as error:
                if error.code == BAD_HEADS:
                    raise
                self._found.append(findings.of_error(current.device, error, digest=cose.sha256(current.body)))

    def _judge(self, event: Event) -> None:
        match event.content_type:
            case collection.MEDIA_TYPE:
                self._evidence(event)
            case RESULT.media_type:
                self._result(event)
            case OPEN.media_type:
                self._open(event)
            case CLOSE.media_type:
                self._close(event)
            case other if other.startswith(OURS):
                raise ResultError(
                    "unknown-content-type",
                    f"a message of content type {other[:80]!r}",
                    where=event.module,
                    advice="upgrade the reader; the device may run a newer release",
                )
            case _:
                self.ignored += 1  # telemetry of other modules shares the hub

    def _evidence(self, event: Event) -> None:
        attested, is_new = self._trust.receive(event, int(self._clock()))
        if not is_new:
            self._found.append(
                findings.duplicate(event.device, "evidence seen before", digest=attested.evidence_digest)
            )
            return
        self._found.append(findings.of_evidence(event.device, attested))
        # Open records first: the results then find their instance admitted.
        for waits_for in (for_instance(attested.instance_id), for_evidence(attested.evidence_digest)):
            self._queue.extend(self._store.take_held(waits_for))

    def _open(self, event: Event) -> None:
        signer = self._signer(event)
        if signer is None:
            return
        verified = verify_open(event.body, signer.signing_key)
        attested = self._trust.by_evidence(verified.record.evidence_digest, event.device)
        if attested is None:
            self._hold_for_evidence(event, for_evidence(verified.record.evidence_digest))
            return
        match_open(verified, attested)
        link = open_link(verified, counted=attested.epoch.source != "none")
        key = product_key(attested)
        self._instances(event, key, self._products.heads_of(key).open(link))

    def _close(self, event: Event) -> None:
        signer = self._signer(event)
        if signer is None:
            return
        verified = verify_close(event.body, signer.signing_key)
        match_close(verified, signer)
        key = product_key(signer)
        self._instances(event, key, self._products.heads_of(key).close(close_link(verified)))

    def _signer(self, event: Event) -> AttestationResult | None:
        instance_id = peek_instance(event.body)
        attested = self._trust.by_instance(instance_id, event.device)
        if attested is None:
            self._hold_for_evidence(event, for_instance(instance_id))
        return attested

    def _instances(self, event: Event, key: bytes, verdicts: Iterable[Verdict]) -> None:
        goes_on = False
        for verdict in verdicts:
            self._found.append(findings.of_verdict(event.device, verdict))
            goes_on = goes_on or verdict.kind is Kind.ACCEPTED
            if verdict.code == NO_ROOM:
                self._store.hold(event, for_room(key), verdict.code)
        if goes_on:
            self._queue.extend(self._store.take_held(for_room(key)))
            self._drain(key)

    def _result(self, event: Event) -> None:
        found = self._verified(event)
        if found is None:
            return
        key, verified = found
        link = self._link(event, verified)
        verdicts = self._products.heads_of(key).result(link)
        for verdict in verdicts:
            self._result_verdict(key, verdict)
        if any(verdict.kind is Kind.ACCEPTED for verdict in verdicts):
            self._drain(key)

    def _verified(self, event: Event) -> tuple[bytes, VerifiedResult] | None:
        """The product and the result, or None if its evidence is not there and it is held."""
        digest = peek_result(event.body).header.evidence_digest
        attested = self._trust.by_evidence(digest, event.device)
        if attested is None:
            self._hold_for_evidence(event, for_evidence(digest))
            return None
        verified = verify_result(event.body, attested.signing_key)
        match_result(verified, attested, self._policy)
        return product_key(attested), verified

    def _link(self, event: Event, verified: VerifiedResult) -> ResultLink:
        self._offered[verified.digest] = (event, verified)
        return result_link(verified)

    def _drain(self, key: bytes) -> None:
        for verdict in self._products.heads_of(key).drain(lambda wanted: self._find(key, wanted)):
            self._result_verdict(key, verdict)

    def _find(self, key: bytes, wanted: Wanted) -> list[ResultLink]:
        """Held results for one place in a stream; they are held no longer."""
        links = []
        for event in self._store.take_held(for_place(key, wanted.instance_id, wanted.output, wanted.sequence)):
            found = self._verified(event)
            if found:
                links.append(self._link(event, found[1]))
        return links

    def _result_verdict(self, key: bytes, verdict: Verdict) -> None:
        event, verified = self._offered.pop(verdict.digest)
        if verdict.kind is Kind.ACCEPTED:
            self._found.append(self._opened(event, verdict.slot, verified))
            return
        if verdict.kind is not Kind.HELD:
            self._found.append(findings.of_verdict(event.device, verdict))
            return
        header = verified.header
        is_first = verdict.code == "gap" and not self._store.is_held(
            for_output(key, verified.instance_id, header.output)
        )
        self._hold(event, for_place(key, verified.instance_id, header.output, header.sequence), verdict, is_first)

    def _opened(self, event: Event, slot: str | None, verified: VerifiedResult) -> Finding:
        try:
            payload = open_result(verified, self._key)
        except ResultError as error:
            return findings.of_error(event.device, error, digest=verified.digest, about=verified)
        if self._archive is not None:
            stored = self._store.evidence(verified.header.evidence_digest, event.device)
            assert stored is not None  # or the result would be held
            self._archive.add(event.body, event.device, int(self._clock()), stored)
        return findings.of_result(event.device, slot, verified, payload)

    def _hold(self, event: Event, waits_for: bytes, verdict: Verdict, is_first: bool) -> None:
        if self._store.hold(event, waits_for, verdict.code):
            self._found.append(findings.of_verdict(event.device, verdict, kind="gap" if is_first else ""))
        else:
            self._found.append(findings.duplicate(event.device, "held already", digest=verdict.digest))

    def _hold_for_evidence(self, event: Event, waits_for: bytes) -> None:
        digest = cose.sha256(event.body)
        if self._store.hold(event, waits_for, "no-evidence"):
            what = "the evidence of its instance has not come from this device"
            self._found.append(findings.held(event.device, "no-evidence", what, digest=digest))
        else:
            self._found.append(findings.duplicate(event.device, "held already", digest=digest))
