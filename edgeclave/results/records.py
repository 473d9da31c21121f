"""Open and close records: how a stream goes on across restarts (PROTOCOL section 8).

The first message of an instance is its open record. It names the instance before it (or none: genesis) and, per output,
the sequence number and digest of that instance's last result. Outputs on which the predecessor emitted nothing are
absent. The first result of an instance on an output has the digest of the open record as its predecessor. A clean stop
ends with a close record.

Both are COSE_Sign1 by the instance's signing key, with its thumbprint as kid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Meta

from edgeclave import cose
from edgeclave.errors import PackageError, ResultError
from edgeclave.results.instance import verify_signer
from edgeclave.ta.identity import Identity
from edgeclave.wire import MAX_OUTPUTS, Count, Digest, Label, from_map, to_map

OPEN = cose.MessageKind("application/edgeclave-open+cose", "edgeclave/open/1")
CLOSE = cose.MessageKind("application/edgeclave-close+cose", "edgeclave/close/1")
MAX_RECORD_BYTES = 16 << 10

Sequence = Annotated[int, Meta(ge=1, le=(1 << 53) - 1)]
Heads = Annotated[dict[Label, tuple[Sequence, Digest]], Meta(max_length=MAX_OUTPUTS)]
"""Per output: sequence number and SHA-256 of an instance's last result."""

_Payload = TypeVar("_Payload", bound=msgspec.Struct)


@dataclass(frozen=True)
class OpenRecord:
    """`predecessor` is an instance_id, None at genesis; `heads` are the predecessor's last results."""

    epoch: int
    slot: str
    evidence_digest: bytes
    identity: Identity
    predecessor: bytes | None
    heads: dict[str, tuple[int, bytes]]


@dataclass(frozen=True)
class VerifiedOpen:
    """An open record with the instance that signed it. `digest` is the SHA-256 of the message."""

    record: OpenRecord
    instance_id: bytes
    digest: bytes


class CloseRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The last message of an instance that stopped cleanly; `heads` are its own last results."""

    epoch: Count
    slot: Label
    heads: Heads


@dataclass(frozen=True)
class VerifiedClose:
    record: CloseRecord
    instance_id: bytes
    digest: bytes


class _OpenPayload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    epoch: Count
    slot: Label
    evidence: Digest
    identity: dict[str, Any]
    predecessor: Digest | None
    heads: Heads


def sign_open(record: OpenRecord, signing_key: ec.EllipticCurvePrivateKey) -> bytes:
    """Raises ResultError `malformed-record`."""
    payload = _OpenPayload(
        record.epoch,
        record.slot,
        record.evidence_digest,
        record.identity.to_map(),
        record.predecessor,
        record.heads,
    )
    if record.predecessor is None and record.heads:
        raise _malformed("a genesis record has no heads to name")
    return _sign(OPEN, payload, signing_key)


def verify_open(message: bytes, instance_public_key: ec.EllipticCurvePublicKey) -> VerifiedOpen:
    """Raises ResultError `malformed-record`, `wrong-instance`, `wrong-message-kind`, `bad-signature`."""
    payload, instance_id = _verify(OPEN, message, instance_public_key, _OpenPayload)
    if payload.predecessor is None and payload.heads:
        raise _malformed("a genesis record has no heads to name")
    try:
        identity = Identity.from_map(payload.identity)
    except PackageError as error:
        raise _malformed(error.what) from error
    record = OpenRecord(payload.epoch, payload.slot, payload.evidence, identity, payload.predecessor, payload.heads)
    return VerifiedOpen(record, instance_id, cose.sha256(message))


def sign_close(record: CloseRecord, signing_key: ec.EllipticCurvePrivateKey) -> bytes:
    """Raises ResultError `malformed-record`."""
    return _sign(CLOSE, record, signing_key)


def verify_close(message: bytes, instance_public_key: ec.EllipticCurvePublicKey) -> VerifiedClose:
    """Raises ResultError `malformed-record`, `wrong-instance`, `wrong-message-kind`, `bad-signature`."""
    record, instance_id = _verify(CLOSE, message, instance_public_key, CloseRecord)
    return VerifiedClose(record, instance_id, cose.sha256(message))


def _sign(kind: cose.MessageKind, payload: msgspec.Struct, key: ec.EllipticCurvePrivateKey) -> bytes:
    try:
        fields = to_map(payload)
    except msgspec.ValidationError as error:
        raise _malformed(str(error)) from error
    return cose.sign(kind, cose.dcbor(fields), key, protected={cose.KID: cose.thumbprint(key.public_key())})


def _verify(
    kind: cose.MessageKind, message: bytes, key: ec.EllipticCurvePublicKey, payload: type[_Payload]
) -> tuple[_Payload, bytes]:
    if len(message) > MAX_RECORD_BYTES:
        raise _malformed(f"{len(message)} bytes is over the limit of {MAX_RECORD_BYTES}")
    signed, instance_id = verify_signer(kind, message, key)
    try:
        return from_map(cose.load_dcbor(signed.payload), payload), instance_id
    except (msgspec.ValidationError, cose.SignatureError) as error:
        raise _malformed(str(error)) from error


def _malformed(what: str) -> ResultError:
    return ResultError("malformed-record", f"not a usable open or close record: {what}")
