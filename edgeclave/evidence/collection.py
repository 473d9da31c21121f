"""The evidence collection: a CMW collection (RFC 9999) of the EAT, the platform's quote and optional endorsements.

Its media type upstream is `application/edgeclave-evidence+cbor`. Each item is a CMW record [media type, value].

>>> collection = Collection(b"eat", Item("application/example", b"quote"))
>>> decode_collection(encode_collection(collection)) == collection
True
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeclave import cose
from edgeclave.errors import EvidenceError
from edgeclave.evidence.eat import EAT

MEDIA_TYPE = "application/edgeclave-evidence+cbor"
MAX_EVIDENCE_BYTES = 64 << 10
MAX_MEDIA_TYPE_CHARACTERS = 128
TA, PLATFORM, ENDORSEMENTS = "ta", "platform", "endorsements"


@dataclass(frozen=True)
class Item:
    """A CMW record."""

    media_type: str
    value: bytes


@dataclass(frozen=True)
class Collection:
    """`platform` is the raw quote or report of the TEE; its media type is a hint, never a class of platform."""

    eat: bytes
    platform: Item
    endorsements: Item | None = None


def encode_collection(collection: Collection) -> bytes:
    """Raises EvidenceError `malformed-evidence`, if nobody would accept it."""
    items = {TA: Item(EAT.media_type, collection.eat), PLATFORM: collection.platform}
    if collection.endorsements is not None:
        items[ENDORSEMENTS] = collection.endorsements
    evidence = cose.dcbor({name: [item.media_type, item.value] for name, item in items.items()})
    decode_collection(evidence)
    return evidence


def decode_collection(evidence: bytes) -> Collection:
    """Takes the items apart; verifies nothing.

    Raises:
        EvidenceError: `malformed-evidence`.
    """
    if len(evidence) > MAX_EVIDENCE_BYTES:
        raise _malformed(f"{len(evidence)} bytes is over the limit of {MAX_EVIDENCE_BYTES}")
    try:
        value = cose.load_dcbor(evidence)
    except cose.SignatureError as error:
        raise _malformed(error.what) from error
    if not isinstance(value, dict) or not {TA, PLATFORM} <= value.keys() <= {TA, PLATFORM, ENDORSEMENTS}:
        raise _malformed("it must hold `ta` and `platform`, and besides them only `endorsements`")
    items = {name: _item(record) for name, record in value.items()}
    if items[TA].media_type != EAT.media_type:
        raise _malformed(f"`ta` must be {EAT.media_type}")
    return Collection(items[TA].value, items[PLATFORM], items.get(ENDORSEMENTS))


def evidence_digest(evidence: bytes) -> bytes:
    """How results and open records name evidence: SHA-256 of the collection."""
    return cose.sha256(evidence)


def _item(record: Any) -> Item:
    if not isinstance(record, list) or len(record) != 2:
        raise _malformed("an item must be [media type, value]")
    media_type, value = record
    if not isinstance(media_type, str) or len(media_type) > MAX_MEDIA_TYPE_CHARACTERS or not isinstance(value, bytes):
        raise _malformed("an item must be [media type, value]")
    return Item(media_type, value)


def _malformed(what: str) -> EvidenceError:
    return EvidenceError(
        "malformed-evidence",
        f"not an evidence collection: {what}",
        advice="do not use it; it was altered or cut off, or is something else",
    )
