"""What a reader finds: one line of output each, as a value."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from edgeclave.errors import EdgeclaveError
from edgeclave.evidence.verifier import AttestationResult
from edgeclave.results.sealed import VerifiedResult
from edgeclave.results.verdicts import Kind, Verdict


class Finding(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """`kind` says which fields there are.

    - `result`: opened; `payload` is its JSON, or `text` what it holds if that is no JSON. `heartbeat`: an empty one.
    - `evidence`, `open`, `close`: accepted; the stream may go on.
    - `duplicate`: seen before, not used again. `held`: kept until what `code` names has come.
    - `gap`: the first of the results that are held because one before them is missing. `loss`: proven or accepted.
    - `rollback`, `fork`, `reset`, `equivocation`: the host did something to the history; `advice` says what to do.
    - `refused`: not used, never will be; `code` is the reason.

    `number` grows from finding to finding in one state folder and stays with a finding that is printed again.
    `instance` is an instance_id, `digest` the SHA-256 of the message, both in hex; `host_time` is what the REE said, in
    ms since 1970. `calls` and `assurance` are as in PROTOCOL section 1.
    """

    kind: str
    device: str
    number: int = 0
    slot: str | None = None
    output: str | None = None
    sequence: int | None = None
    instance: str | None = None
    epoch: int | None = None
    payload: Any = msgspec.UNSET
    text: str | None = None
    code: str | None = None
    what: str | None = None
    advice: str | None = None
    assurance: str | None = None
    calls: int | None = None
    host_time: int | None = None
    platform_class: str | None = None
    freshness: str | None = None
    unique_id: str | None = None
    security_version: int | None = None
    digest: str | None = None


class Trouble(StrEnum):
    """Kinds that a person must look at: they make `edgeclave consume` end with exit code 3."""

    REFUSED = "refused"
    LOSS = "loss"
    ROLLBACK = "rollback"
    FORK = "fork"
    RESET = "reset"
    EQUIVOCATION = "equivocation"


_KINDS = {"opened": "open", "new-slot": "open", "closed": "close"}


def of_result(device: str, slot: str | None, verified: VerifiedResult, payload: bytes) -> Finding:
    """An accepted and opened result."""
    header = verified.header
    value: Any = msgspec.UNSET
    text = None
    if payload:
        try:
            value = msgspec.json.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            text = payload.decode("utf-8", "backslashreplace")
    return Finding(
        kind="result" if payload else "heartbeat",
        device=device,
        slot=slot,
        output=header.output,
        sequence=header.sequence,
        instance=verified.instance_id.hex(),
        epoch=header.epoch,
        payload=value,
        text=text,
        assurance=header.assurance,
        calls=header.calls,
        host_time=header.host_time,
        security_version=header.security_version,
        digest=verified.digest.hex(),
    )


def of_evidence(device: str, attested: AttestationResult) -> Finding:
    return Finding(
        kind="evidence",
        device=device,
        instance=attested.instance_id.hex(),
        epoch=attested.epoch.number,
        host_time=attested.host_time,
        platform_class=attested.platform_class,
        freshness=attested.freshness,
        unique_id=attested.identity.unique_id.hex(),
        security_version=attested.identity.security_version,
        digest=attested.evidence_digest.hex(),
    )


def of_verdict(device: str, verdict: Verdict, *, kind: str = "") -> Finding:
    """Anything that the head rules say and that is no accepted result."""
    if not kind:
        kind = _KINDS.get(verdict.code, verdict.code) if verdict.kind is Kind.ACCEPTED else verdict.kind.value
    return Finding(
        kind=kind,
        device=device,
        slot=verdict.slot,
        output=verdict.output,
        sequence=verdict.sequence,
        instance=verdict.instance_id.hex(),
        code=verdict.code,
        what=verdict.what,
        advice=verdict.advice or None,
        digest=verdict.digest.hex(),
    )


def of_error(device: str, error: EdgeclaveError, *, digest: bytes, about: VerifiedResult | None = None) -> Finding:
    """A message that is refused; `about` is given for a result that was next in its stream and did not open."""
    return Finding(
        kind="refused",
        device=device,
        output=about.header.output if about else None,
        sequence=about.header.sequence if about else None,
        epoch=about.header.epoch if about else None,
        instance=about.instance_id.hex() if about else None,
        code=error.code,
        what=error.what,
        advice=error.advice or None,
        digest=digest.hex(),
    )


def held(device: str, code: str, what: str, *, digest: bytes) -> Finding:
    """A message that waits for evidence."""
    return Finding(
        kind="held",
        device=device,
        code=code,
        what=what,
        advice="wait: evidence goes upstream at each start and daily",
        digest=digest.hex(),
    )


def duplicate(device: str, what: str, *, digest: bytes) -> Finding:
    return Finding(kind="duplicate", device=device, code="duplicate", what=what, digest=digest.hex())
