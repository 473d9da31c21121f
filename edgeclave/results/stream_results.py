"""Head rules for results: where one stands against the head of its stream, and how the head moves."""

from __future__ import annotations

from edgeclave.results.stream_state import (
    MAX_LOST,
    MAX_RECENT,
    MAX_WAITING,
    NOTHING,
    Position,
    ResultLink,
    Slot,
    StreamState,
)
from edgeclave.results.verdicts import Verdict, verdict
from edgeclave.wire import MAX_OUTPUTS


def offer_result(state: StreamState, link: ResultLink) -> Verdict:
    """Judges one result and moves the head if it is accepted."""
    if link.output not in state.outputs:
        if len(state.outputs) >= MAX_OUTPUTS:
            return _about(link, None, "too-many-outputs")
        state.outputs.append(link.output)
    found = state.find(link.instance_id)
    if found is None:
        return _about(link, None, _without_instance(state, link))
    name, slot, index = found
    head = slot.head(link.output)
    code = _judge(slot, index, head, link)
    if code == "accepted":
        _accept(slot, head, link)
    elif code in ("gap", "predecessor-pending"):
        head.ahead[link.instance_id] = max(link.sequence, head.ahead.get(link.instance_id, 0))
    elif code in ("equivocation", "result-after-close"):
        head.stopped = code
    elif code == "abandoned-result":
        slot.stopped = code  # the state of the next instance is older than this, and so is all it emits
    detail = f"sequence {link.sequence}, the head is at {head.sequence}" if code == "gap" else ""
    return _about(link, name, code, detail)


def _judge(slot: Slot, index: int, head: Position, link: ResultLink) -> str:
    place = (link.instance_id, link.sequence)
    for instance_id, sequence, digest in head.recent:
        if (instance_id, sequence) == place:
            return "duplicate" if digest == link.digest else "equivocation"
    if any(instance == link.instance_id and first <= link.sequence <= last for instance, first, last in head.lost):
        return "late"
    at = slot.index(head.instance_id)
    assert at is not None  # instances are forgotten only when every head has passed them
    if index < at and slot.ends(index, link.output) is None:
        return "late"
    contradiction = _contradiction(slot, index, link)
    if contradiction:
        return contradiction
    if index < at or (index == at and link.sequence <= head.sequence):
        return "duplicate-forgotten"
    if slot.stopped or head.stopped:
        return "stopped"
    if index > at:
        return "predecessor-pending"
    if link.sequence > head.sequence + 1:
        return "gap"
    return "accepted" if link.previous == head.digest else "equivocation"


def _contradiction(slot: Slot, index: int, link: ResultLink) -> str:
    """Whether the result contradicts where its instance, or the one after it, says that it ended."""
    closed = slot.chain[index].closed
    ends = (
        (closed.heads.get(link.output, NOTHING) if closed else None, "result-after-close"),
        (slot.ends(index, link.output), "abandoned-result"),
    )
    for end, beyond in ends:
        if end is not None and link.sequence > end[0]:
            return beyond
        if end is not None and link.sequence == end[0] and link.digest != end[1]:
            return "equivocation"
    return ""


def _accept(slot: Slot, head: Position, link: ResultLink) -> None:
    head.sequence, head.digest = link.sequence, link.digest
    head.recent = [*head.recent, (link.instance_id, link.sequence, link.digest)][-MAX_RECENT:]
    if head.ahead.get(link.instance_id, 0) <= link.sequence:
        head.ahead.pop(link.instance_id, None)
    pass_on(slot, link.output)


def pass_on(slot: Slot, output: str) -> None:
    """Moves the head of an output to the next instance as long as it stands exactly where that one took over."""
    head = slot.outputs[output]
    index = slot.index(head.instance_id)
    while index is not None and not head.stopped:
        end = slot.ends(index, output)
        if end is None or end[0] != head.sequence:
            return
        if head.sequence and end[1] != head.digest:
            head.stopped = "equivocation"
            return
        head.ahead.pop(head.instance_id, None)
        index += 1
        opened = slot.chain[index].opened
        head.instance_id, head.sequence, head.digest = opened.instance_id, 0, opened.digest


def give_up(slot: Slot, index: int, head: Position, link: ResultLink) -> None:
    """Moves the head right before a held result, remembering what is skipped as lost."""
    at = slot.index(head.instance_id) or 0
    for skipped in range(at, index + 1):
        instance_id = slot.chain[skipped].opened.instance_id
        first = head.sequence + 1 if skipped == at else 1
        end = slot.ends(skipped, link.output) or NOTHING
        last = link.sequence - 1 if skipped == index else end[0]
        if first <= last:
            head.lost = [*head.lost, (instance_id, first, last)][-MAX_LOST:]
        if skipped < index:
            head.ahead.pop(instance_id, None)
    opened = slot.chain[index].opened
    head.instance_id, head.sequence = opened.instance_id, link.sequence - 1
    head.digest = opened.digest if link.sequence == 1 else link.previous


def _without_instance(state: StreamState, link: ResultLink) -> str:
    if state.is_forgotten(link.instance_id):
        return "duplicate-forgotten"
    if len(state.unplaced) >= MAX_WAITING and link.instance_id not in state.unplaced:
        del state.unplaced[next(iter(state.unplaced))]
    highest = state.unplaced.setdefault(link.instance_id, {})
    highest[link.output] = max(link.sequence, highest.get(link.output, 0))
    aside = state.unadmitted.get(link.instance_id)
    if aside is None:
        return "no-open-record"
    return "predecessor-missing" if aside.code == "predecessor-missing" else "instance-not-admitted"


def place(state: StreamState, slot: Slot, instance_id: bytes) -> None:
    """Tells the heads of an instance just admitted what was held of it before."""
    for output, sequence in state.unplaced.pop(instance_id, {}).items():
        slot.head(output).ahead[instance_id] = sequence


def _about(link: ResultLink, slot: str | None, code: str, detail: str = "") -> Verdict:
    return verdict(
        code,
        slot=slot,
        instance_id=link.instance_id,
        digest=link.digest,
        output=link.output,
        sequence=link.sequence,
        detail=detail,
    )
