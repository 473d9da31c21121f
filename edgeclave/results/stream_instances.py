"""Head rules for instances: which open record continues a slot, and what a close record settles."""

from __future__ import annotations

from edgeclave.results.stream_results import pass_on, place
from edgeclave.results.stream_state import (
    MAX_CHAIN,
    MAX_FORGOTTEN,
    MAX_SLOTS,
    MAX_WAITING,
    NOTHING,
    Admitted,
    CloseLink,
    NamedHeads,
    OpenLink,
    Position,
    Slot,
    StreamState,
    Unadmitted,
)
from edgeclave.results.verdicts import Kind, Verdict, kind_of, verdict

_WAITING = ("predecessor-missing", "too-many-instances", "stopped")


def offer_open(state: StreamState, opened: OpenLink) -> list[Verdict]:
    """Judges an open record. Admitting it may admit, close or report instances that waited for it."""
    known = _known(state, opened)
    if known:
        return [_about(opened, known)]
    code = _beginning(state, opened) if opened.predecessor is None else _succession(state, opened, opened.predecessor)
    if kind_of(code) is Kind.ACCEPTED:
        return _admit(state, opened, code)
    return [_about(opened, _set_aside(state, opened, code))]


def offer_close(state: StreamState, closed: CloseLink) -> Verdict:
    """Judges a close record."""
    found = state.find(closed.instance_id)
    if found is None:
        return _about(closed, _close_without_instance(state, closed))
    name, slot, index = found
    admitted = slot.chain[index]
    if (closed.slot, closed.epoch) != (name, admitted.opened.epoch):
        return _about(closed, "wrong-epoch")
    if admitted.closed is not None:
        code = "duplicate" if admitted.closed.digest == closed.digest else "equivocation"
    else:
        code = _compare_close(slot, index, closed)
    if code == "closed":
        admitted.closed = closed
        if index + 1 == len(slot.chain):
            for output in closed.heads:
                slot.head(output)
    elif code != "duplicate":
        slot.stopped = code
    return _about(closed, code)


def restart(state: StreamState, opened: OpenLink) -> list[Verdict]:
    """Goes on from an instance that the rules did not admit, because a person says so."""
    slot = state.slots.get(opened.slot)
    if slot is None:
        return _admit(state, opened, "opened")
    slot.chain.append(Admitted(opened, by_person=True))
    slot.outputs = {
        output: Position(opened.instance_id, 0, opened.digest, recent=head.recent)
        for output, head in slot.outputs.items()
    }
    slot.stopped = ""
    _forget(slot)
    return [_about(opened, "given-up"), *_after_admission(state, opened)]


def _known(state: StreamState, opened: OpenLink) -> str:
    found = state.find(opened.instance_id)
    if found is not None:
        _, slot, index = found
        if slot.chain[index].opened.digest == opened.digest:
            return "duplicate"
        slot.stopped = "equivocation"
        return "equivocation"
    if state.is_forgotten(opened.instance_id):
        return "duplicate-forgotten"
    aside = state.unadmitted.get(opened.instance_id)
    if aside is None:
        return ""
    if aside.opened.digest != opened.digest:
        return "equivocation"
    return "" if aside.code in _WAITING else "duplicate"


def _beginning(state: StreamState, opened: OpenLink) -> str:
    if opened.slot in state.slots:
        return "reset"
    if len(state.slots) >= MAX_SLOTS:
        return "too-many-instances"
    return "new-slot" if state.slots else "opened"


def _succession(state: StreamState, opened: OpenLink, predecessor: bytes) -> str:
    found = state.find(predecessor)
    if found is None:
        return "fork" if state.is_forgotten(predecessor) else "predecessor-missing"
    name, slot, index = found
    if name != opened.slot:
        return "wrong-slot"
    if index + 1 < len(slot.chain):
        return "fork"
    if slot.stopped:
        return "stopped"
    previous = slot.chain[index]
    if opened.counted and opened.epoch <= previous.opened.epoch:
        return "epoch-not-advanced"
    oldest = slot.chain[0].opened.instance_id
    if len(slot.chain) >= MAX_CHAIN and any(head.instance_id == oldest for head in slot.outputs.values()):
        return "too-many-instances"
    code = _compare_heads(slot, predecessor, opened.heads, "rollback")
    if not code and previous.closed is not None:
        code = _compare_ends(previous.closed.heads, opened.heads)
    if code == "equivocation":
        slot.stopped = code
    return code or "opened"


def _compare_heads(slot: Slot, instance_id: bytes, named: NamedHeads, beyond: str) -> str:
    """Compares where an instance is said to have ended with what we have of it; `beyond` if we have more."""
    for output, head in slot.outputs.items():
        sequence, digest = named.get(output, NOTHING)
        current = head.instance_id == instance_id
        reached = max(head.sequence if current else 0, head.ahead.get(instance_id, 0))
        if sequence < reached:
            return beyond
        if current and sequence and sequence == head.sequence and digest != head.digest:
            return "equivocation"
    return ""


def _compare_ends(closed: NamedHeads, taken_over: NamedHeads) -> str:
    """Compares where an instance closed with where the next one took over."""
    if closed == taken_over:
        return ""
    behind = any(taken_over.get(output, NOTHING)[0] < sequence for output, (sequence, _) in closed.items())
    return "rollback" if behind else "equivocation"


def _compare_close(slot: Slot, index: int, closed: CloseLink) -> str:
    code = _compare_heads(slot, closed.instance_id, closed.heads, "result-after-close")
    if not code and index + 1 < len(slot.chain) and not slot.chain[index + 1].by_person:
        code = _compare_ends(closed.heads, slot.chain[index + 1].opened.heads)
    return code or "closed"


def _admit(state: StreamState, opened: OpenLink, code: str) -> list[Verdict]:
    verdicts = [_about(opened, code)]
    slot = state.slots.get(opened.slot)
    if slot is None:
        state.slots[opened.slot] = Slot([Admitted(opened)])
    else:
        previous = slot.chain[-1].opened
        for output in opened.heads:
            slot.head(output)  # named for the first time: its head is at the predecessor, not at the new instance
        slot.chain.append(Admitted(opened))
        if opened.counted and previous.counted and opened.epoch > previous.epoch + 1:
            missing = f"{previous.epoch + 1} to {opened.epoch - 1}"
            verdicts.append(_about(opened, "missing-epochs", missing))
        for output in slot.outputs:
            pass_on(slot, output)
        _forget(slot)
    return verdicts + _after_admission(state, opened)


def _after_admission(state: StreamState, opened: OpenLink) -> list[Verdict]:
    state.unadmitted.pop(opened.instance_id, None)
    place(state, state.slots[opened.slot], opened.instance_id)
    verdicts = []
    closed = state.early_closes.pop(opened.instance_id, None)
    if closed is not None:
        verdicts.append(offer_close(state, closed))
    waiting = [
        aside.opened
        for aside in state.unadmitted.values()
        if aside.opened.predecessor == opened.instance_id and aside.code == "predecessor-missing"
    ]
    for successor in waiting:
        verdicts += offer_open(state, successor)
    return verdicts


def _forget(slot: Slot) -> None:
    while len(slot.chain) > MAX_CHAIN:
        slot.forgotten = [*slot.forgotten, slot.chain.pop(0).opened.instance_id][-MAX_FORGOTTEN:]


def _set_aside(state: StreamState, opened: OpenLink, code: str) -> str:
    """Remembers an instance that is not admitted; returns the code to report."""
    if len(state.unadmitted) >= MAX_WAITING and opened.instance_id not in state.unadmitted:
        reported = next((name for name, aside in state.unadmitted.items() if aside.code not in _WAITING), None)
        if reported is None:
            return "too-many-instances"
        del state.unadmitted[reported]
    state.unadmitted[opened.instance_id] = Unadmitted(opened, code)
    return code


def _close_without_instance(state: StreamState, closed: CloseLink) -> str:
    if state.is_forgotten(closed.instance_id):
        return "duplicate-forgotten"
    known = state.early_closes.get(closed.instance_id)
    if known is not None and known.digest != closed.digest:
        return "equivocation"
    if known is None and len(state.early_closes) >= MAX_WAITING:
        return "too-many-instances"
    state.early_closes[closed.instance_id] = closed
    return "instance-not-admitted" if closed.instance_id in state.unadmitted else "no-open-record"


def _about(link: OpenLink | CloseLink, code: str, detail: str = "") -> Verdict:
    return verdict(code, slot=link.slot, instance_id=link.instance_id, digest=link.digest, detail=detail)
