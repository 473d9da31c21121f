"""What the reader's head rules say about a message: a kind to count, a code to branch on, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """ACCEPTED may be used now; HELD must be kept, because what is missing may still come; all others are not used."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    HELD = "held"
    EQUIVOCATION = "equivocation"
    ROLLBACK = "rollback"
    FORK = "fork"
    RESET = "reset"
    LOSS = "loss"
    REFUSED = "refused"


@dataclass(frozen=True)
class Verdict:
    """About one message (`digest`), or for LOSS about what lies before it.

    slot is None as long as the open record of the instance is missing; output is None for open and close records,
    sequence for all but results.
    """

    kind: Kind
    code: str
    what: str
    advice: str
    slot: str | None
    output: str | None
    instance_id: bytes
    sequence: int | None
    digest: bytes

    @property
    def keep(self) -> bool:
        """Whether the reader must store the message for later."""
        return self.kind is Kind.HELD


_WAIT = "wait: it may still be in an outbox; if it is lost for good, accept the loss by name"
_LOOK = "find out who restored or copied the state of this device; then accept the restart by name"
_COMPROMISED = "treat the platform as compromised: take the device out of service and keep both messages"

_CODES: dict[str, tuple[Kind, str, str]] = {
    "accepted": (Kind.ACCEPTED, "next in its stream", ""),
    "opened": (Kind.ACCEPTED, "the stream goes on with this instance", ""),
    "closed": (Kind.ACCEPTED, "the instance stopped cleanly", ""),
    "new-slot": (
        Kind.ACCEPTED,
        "the same product began under another name on a known platform",
        "make sure that a second instance was deployed; the host chooses the name",
    ),
    "duplicate": (Kind.DUPLICATE, "seen before", ""),
    "duplicate-forgotten": (Kind.DUPLICATE, "before the head, and older than what is remembered", ""),
    "gap": (Kind.HELD, "results before it are missing", _WAIT),
    "predecessor-pending": (Kind.HELD, "results of the instance before it are missing", _WAIT),
    "no-open-record": (Kind.HELD, "the open record of its instance is missing", _WAIT),
    "predecessor-missing": (Kind.HELD, "the open record of the instance before it is missing", _WAIT),
    "too-many-instances": (Kind.HELD, "too many restarts wait for missing results", _WAIT),
    "instance-not-admitted": (Kind.HELD, "its instance was reported and not admitted", _LOOK),
    "stopped": (Kind.HELD, "its stream was stopped by an earlier report", _LOOK),
    "equivocation": (Kind.EQUIVOCATION, "one instance signed two messages for the same place", _COMPROMISED),
    "result-after-close": (Kind.EQUIVOCATION, "a result beyond the instance's own close record", _COMPROMISED),
    "rollback": (Kind.ROLLBACK, "the instance goes on from before the head of the stream", _LOOK),
    "abandoned-result": (Kind.ROLLBACK, "the next instance went on from before this result", _LOOK),
    "epoch-not-advanced": (Kind.ROLLBACK, "the counter of the platform did not advance with the restart", _LOOK),
    "fork": (Kind.FORK, "a second instance goes on from the same predecessor", _LOOK),
    "reset": (Kind.RESET, "the trusted application began anew on a known platform", _LOOK),
    "missing-epochs": (
        Kind.LOSS,
        "the platform's counter proves instances in between of which nothing arrived",
        "their results are lost; find out why the host withheld them",
    ),
    "given-up": (Kind.LOSS, "what was missing before it was accepted as lost", ""),
    "late": (Kind.REFUSED, "it was accepted as lost before", ""),
    "wrong-slot": (Kind.REFUSED, "it continues an instance of another slot", _COMPROMISED),
    "wrong-epoch": (Kind.REFUSED, "slot or epoch contradict the open record of its instance", _COMPROMISED),
    "too-many-outputs": (Kind.REFUSED, "more outputs than a trusted application may have", ""),
}


def verdict(
    code: str,
    *,
    slot: str | None,
    instance_id: bytes,
    digest: bytes,
    output: str | None = None,
    sequence: int | None = None,
    detail: str = "",
) -> Verdict:
    kind, what, advice = _CODES[code]
    return Verdict(
        kind, code, f"{what}: {detail}" if detail else what, advice, slot, output, instance_id, sequence, digest
    )


def kind_of(code: str) -> Kind:
    return _CODES[code][0]


def codes() -> dict[str, Kind]:
    """Every code there is, for documentation and tables."""
    return {code: kind for code, (kind, _, _) in _CODES.items()}
