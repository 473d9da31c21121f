"""The reader's head rules (PROTOCOL section 8): what may be accepted, and what a host did to the history.

A stream is (platform_instance, signer_id, product_id, slot, output). One `StreamHeads` follows all streams of one
product on one platform; the version of the trusted application is no part of it, so an upgrade goes on in its stream.

- Every instance is admitted by its open record: the first of a slot, or one that names the newest instance as its
  predecessor and names heads at which that instance really ended. Anything else is reported and not admitted: heads
  before ours (rollback), a second successor (fork), a second beginning (reset).
- On each output the head goes through the instances in that order. It passes to the next instance when it has reached
  exactly the sequence and digest which that one names; until then results of later instances are held.
- The next sequence whose `previous` is our head is accepted. Seen again: duplicate. The same place with another digest:
  equivocation, the stream stops. Further ahead: gap, held.
- Messages may arrive in any order, because open records and results travel through different outboxes. What is held is
  kept by the reader, not here: `wanted` says what to offer again, `drain` does it.
- What a person decides is a call of its own: `accept_loss` and `accept_restart`.

Nothing here does I/O; `export` and `restore` carry the state, which is bounded.

>>> heads = StreamHeads()
>>> me, opened = bytes([1]) * 32, bytes([2]) * 32
>>> heads.open(OpenLink(me, "anomaly", 1, False, None, {}, opened))[0].code
'opened'
>>> second = ResultLink(me, "anomalies", 2, bytes([3]) * 32, bytes([4]) * 32)
>>> first = ResultLink(me, "anomalies", 1, opened, bytes([3]) * 32)
>>> [heads.result(link)[0].code for link in (second, first, second, second)]
['gap', 'accepted', 'accepted', 'duplicate']
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from edgeclave.errors import ResultError
from edgeclave.results.records import VerifiedClose, VerifiedOpen
from edgeclave.results.sealed import VerifiedResult
from edgeclave.results.stream_instances import offer_close, offer_open, restart
from edgeclave.results.stream_results import give_up, offer_result
from edgeclave.results.stream_state import (
    NOTHING,
    CloseLink,
    OpenLink,
    Position,
    ResultLink,
    Slot,
    StreamState,
    decode_state,
    encode_state,
    position_at,
)
from edgeclave.results.verdicts import Kind, Verdict, verdict


@dataclass(frozen=True)
class Wanted:
    """The one result that would be accepted next on an output of a slot."""

    instance_id: bytes
    output: str
    sequence: int


@dataclass(frozen=True)
class Pending:
    """What is missing or waits for a person.

    Of an output: at least `first` is missing, at most `first` to `last`. Of an instance (output is None): its open
    record or its predecessor's is missing, or it was reported and not admitted; `code` says which.
    """

    code: str
    slot: str | None
    output: str | None
    instance_id: bytes
    first: int | None = None
    last: int | None = None


Find = Callable[[Wanted], Iterable[ResultLink]]
"""Looks held results up by (instance_id, output, sequence): all there are, without those already offered again."""


class StreamHeads:
    """The streams of one product (signer_id, product_id) on one platform (platform_instance)."""

    def __init__(self, state: StreamState | None = None) -> None:
        self._state = StreamState() if state is None else state

    @classmethod
    def restore(cls, data: bytes) -> StreamHeads:
        """Raises ResultError `bad-heads`."""
        return cls(decode_state(data))

    def export(self) -> bytes:
        """The whole state, to be stored together with what a verdict made the reader do."""
        return encode_state(self._state)

    def open(self, link: OpenLink) -> list[Verdict]:
        """Judges an open record; further verdicts are about instances that waited for it."""
        return offer_open(self._state, link)

    def close(self, link: CloseLink) -> list[Verdict]:
        """Judges a close record."""
        return [offer_close(self._state, link)]

    def result(self, link: ResultLink) -> list[Verdict]:
        """Judges a result. When one is accepted, held ones may be next: see `drain`."""
        return [offer_result(self._state, link)]

    def wanted(self) -> list[Wanted]:
        """What would be accepted next, one per output of each slot that is not stopped."""
        wanted = []
        for slot in self._state.slots.values():
            for output in self._state.outputs:
                head = slot.outputs.get(output) or position_at(slot.chain[-1].opened)
                if not slot.stopped and not head.stopped:
                    wanted.append(Wanted(head.instance_id, output, head.sequence + 1))
        return wanted

    def drain(self, find: Find) -> Iterator[Verdict]:
        """Offers held results again until none is next any more. Call it after every verdict that accepts."""
        progress = True
        while progress:
            progress = False
            for wanted in self.wanted():
                for link in find(wanted):
                    for judged in self.result(link):
                        progress = progress or judged.kind is Kind.ACCEPTED
                        yield judged

    def pending(self) -> list[Pending]:
        """All known gaps, stopped streams and instances that wait."""
        state = self._state
        pending = [
            Pending(aside.code, aside.opened.slot, None, instance_id) for instance_id, aside in state.unadmitted.items()
        ]
        pending += [
            Pending("no-open-record", None, None, instance_id)
            for instance_id in state.unplaced
            if instance_id not in state.unadmitted
        ]
        for name, slot in state.slots.items():
            for output, head in slot.outputs.items():
                stopped = slot.stopped or head.stopped
                if stopped:
                    pending.append(Pending(stopped, name, output, head.instance_id))
                last = _known_end(slot, output, head)
                if last > head.sequence:
                    pending.append(Pending("gap", name, output, head.instance_id, head.sequence + 1, last))
        return pending

    def accept_loss(self, link: ResultLink) -> list[Verdict]:
        """A person gives up what is missing before a held result. Then offer it again.

        Raises:
            ResultError: `nothing-lost`, `no-open-record`, `stopped`.
        """
        found = self._state.find(link.instance_id)
        if found is None:
            raise _cannot("no-open-record", "its instance is not admitted", "accept the restart first")
        name, slot, index = found
        head = slot.head(link.output)
        if slot.stopped or head.stopped:
            raise _cannot("stopped", "the stream is stopped, not waiting", "accept a restart instead")
        at = slot.index(head.instance_id) or 0
        if (index, link.sequence) <= (at, head.sequence + 1):
            raise _cannot("nothing-lost", "nothing is missing before this result", "see `pending`")
        give_up(slot, index, head, link)
        return [
            verdict(
                "given-up",
                slot=name,
                instance_id=link.instance_id,
                digest=link.digest,
                output=link.output,
                sequence=link.sequence,
            )
        ]

    def accept_restart(self, instance_id: bytes) -> list[Verdict]:
        """A person lets the slot go on from an instance that was reported or waits; older history is closed.

        Raises:
            ResultError: `no-such-instance`.
        """
        aside = self._state.unadmitted.get(instance_id)
        if aside is None or aside.code == "wrong-slot":
            raise _cannot("no-such-instance", "no reported or waiting instance has this id", "see `pending`")
        return restart(self._state, aside.opened)


def open_link(verified: VerifiedOpen, *, counted: bool) -> OpenLink:
    """`counted`: the evidence names a counter as the source of the epoch."""
    record = verified.record
    return OpenLink(
        verified.instance_id,
        record.slot,
        record.epoch,
        counted,
        record.predecessor,
        record.heads,
        verified.digest,
    )


def close_link(verified: VerifiedClose) -> CloseLink:
    record = verified.record
    return CloseLink(verified.instance_id, record.slot, record.epoch, record.heads, verified.digest)


def result_link(verified: VerifiedResult) -> ResultLink:
    header = verified.header
    return ResultLink(verified.instance_id, header.output, header.sequence, header.previous, verified.digest)


def _known_end(slot: Slot, output: str, head: Position) -> int:
    """The highest sequence that the head's instance is known to have reached, without having been seen there."""
    index = slot.index(head.instance_id)
    assert index is not None
    closed = slot.chain[index].closed
    ends = [head.ahead.get(head.instance_id, 0) - 1, (slot.ends(index, output) or NOTHING)[0]]
    if closed is not None:
        ends.append(closed.heads.get(output, NOTHING)[0])
    return max(ends)


def _cannot(code: str, what: str, advice: str) -> ResultError:
    return ResultError(code, what, advice=advice)
