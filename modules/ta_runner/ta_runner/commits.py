"""What a commit of the enclave leaves in the store, in one transaction, before anybody hears of it.

Where the platform has a counter, the enclave hands its new state over before the counter moves, and everything else
after. `keep` notes that state and whose call made it. If enclave or runner end in between, the next enclave finds out
whether the commit came through, and then hands out again what had not arrived: `take_up` stores it as if nothing had
happened.
"""

from __future__ import annotations

from edgeclave.edge.link import CallReply, SealedResult
from edgeclave.edge.link.messages import MAX_MESSAGE_BYTES, encode
from edgeclave.edge.twins.trusted_apps import TrustedAppSettings
from edgeclave.enclave.messages import CallOutcome, Released
from ta_runner.delivery import Delivery
from ta_runner.store import CallKey, Opening, PendingState, RunnerStore

MAX_ANSWER_BYTES = MAX_MESSAGE_BYTES - 4096  # the link adds the request's id
COMMITTED_BUT_TOO_LARGE = 507


class AnswerTooLargeError(Exception):
    """An answer that does not fit the link; nothing of it was stored. The message has the sizes."""


class Commits:
    """The commits of one slot, across restarts of its enclave. Implements `Keeper`."""

    def __init__(self, slot: str, store: RunnerStore, delivery: Delivery) -> None:
        self.settings: TrustedAppSettings | None = None
        """What the instance that starts or runs now was started with."""
        self.under_way: tuple[CallKey, bool] | None = None
        """The call that the enclave runs now, and whether its results go upstream from here."""
        self._slot = slot
        self._store = store
        self._delivery = delivery

    def keep(self, state: bytes) -> None:
        """Notes a state that is in force once the counter has moved.

        Raises:
            StoreError: it is not noted, and the counter must not move.
        """
        key, upstream = self.under_way or (None, True)
        with self._store.transaction():
            self._store.put_pending(self._slot, PendingState(state, key, upstream))

    def answer(self, key: CallKey, outcome: CallOutcome, *, upstream: bool) -> CallReply:
        """Stores the outcome of a call with effects and returns its answer.

        Raises:
            AnswerTooLargeError, StoreError: nothing was stored.
        """
        reply = call_reply(outcome, with_results=not upstream)
        size = _encoded_bytes(reply)
        if size > MAX_ANSWER_BYTES:
            raise AnswerTooLargeError(f"{size} bytes, the limit is {MAX_ANSWER_BYTES}")
        with self._store.transaction():
            self._store.advance(self._slot, outcome.state, outcome.results)
            self._put_answer(key, reply, outcome, upstream=upstream)
        return reply

    def take_up(self, released: Released) -> None:
        """The pending state is in force, and this is what its commit let out.

        Raises:
            StoreError: nothing was stored.
        """
        with self._store.transaction():
            pending = self._store.pending(self._slot)
            if pending is None:
                return
            if released.evidence is not None and released.open_record is not None and self.settings is not None:
                message = self._delivery.put_opening(self._slot, released.evidence, released.open_record)
                opening = Opening(pending.state, released.open_record, released.evidence)
                self._store.begin_instance(self._slot, self.settings, opening, message)
                return
            self._store.advance(self._slot, pending.state, released.results)
            if pending.call is None:
                self._delivery.put_results(self._slot, released.results)
            else:
                self._answer_late(pending.call, released, upstream=pending.upstream)

    def _answer_late(self, key: CallKey, released: Released, *, upstream: bool) -> None:
        outcome = CallOutcome(reply=released.reply, results=released.results)
        reply = call_reply(outcome, with_results=not upstream)
        if _encoded_bytes(reply) > MAX_ANSWER_BYTES:
            # It cannot be taken back any more, and its results must not be lost.
            what = "the call was carried out, but its answer is too large to be given; its results were sent upstream"
            reply, upstream = CallReply(status=COMMITTED_BUT_TOO_LARGE, message=what), True
        self._put_answer(key, reply, outcome, upstream=upstream)

    def _put_answer(self, key: CallKey, reply: CallReply, outcome: CallOutcome, *, upstream: bool) -> None:
        self._store.put_answer(key, encode(reply), awaits_acknowledgement=bool(reply.results))
        if upstream:
            self._delivery.put_results(self._slot, outcome.results)


def call_reply(outcome: CallOutcome, *, with_results: bool) -> CallReply:
    """The outcome as the caller gets it."""
    if outcome.failure is not None:
        return CallReply(status=outcome.failure.status, message=outcome.failure.message)
    results = tuple(SealedResult(output=r.output, sequence=r.sequence, sealed=r.sealed) for r in outcome.results)
    return CallReply(status=200, payload=outcome.reply, results=results if with_results else ())


def _encoded_bytes(reply: CallReply) -> int:
    """At most; names, numbers and lengths of one result take less than 256 bytes."""
    return len((reply.payload or "").encode()) + sum(len(result.sealed) + 256 for result in reply.results)
