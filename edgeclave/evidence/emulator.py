"""Evidence of the emulator: what stands where a TEE has its quote.

A COSE_Sign1 by the emulator's attestation key. Root on the device can read that key, so it proves nothing against the
device's owner; a verifier knows the class `emulated` from the pinned key, never from anything said here.

>>> key = cose.generate_key()
>>> quote = make_quote(key, bytes(64), bytes(32), debug=False)
>>> verify_quote(quote, key.public_key()).runtime_digest == bytes(32)
True
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Meta

from edgeclave import cose
from edgeclave.errors import EvidenceError
from edgeclave.evidence.anchors import Anchor, PlatformEvidence, PublicKey
from edgeclave.evidence.collection import Item
from edgeclave.evidence.eat import REPORT_DATA_BYTES
from edgeclave.evidence.endorsements import Endorsements
from edgeclave.evidence.runtime import runtime_digest
from edgeclave.evidence.tee import Kind
from edgeclave.wire import Digest, from_map, to_map

QUOTE = cose.MessageKind("application/edgeclave-emulator-quote+cose", "edgeclave/emulator-quote/1")
_HEADER = {cose.ALG, cose.KID, cose.TYP}


class Quote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`runtime` is the digest of the enclave's own code; `debug` is the platform's, false for a normal emulator."""

    report_data: Annotated[bytes, Meta(min_length=REPORT_DATA_BYTES, max_length=REPORT_DATA_BYTES)]
    runtime_digest: Digest
    debug: bool


def make_quote(
    attestation_key: ec.EllipticCurvePrivateKey, report_data: bytes, runtime_digest: bytes, debug: bool
) -> bytes:
    """Returns the COSE_Sign1; kid is the thumbprint of the attestation key.

    Raises:
        EvidenceError: `malformed-quote`.
    """
    try:
        fields = to_map(Quote(report_data, runtime_digest, debug))
    except msgspec.ValidationError as error:
        raise _malformed(str(error)) from error
    kid = cose.thumbprint(attestation_key.public_key())
    return cose.sign(QUOTE, cose.dcbor(fields), attestation_key, protected={cose.KID: kid})


def quote_item(quote: bytes) -> Item:
    """The quote as the `platform` item of an evidence collection."""
    return Item(QUOTE.media_type, quote)


def platform_instance(attestation_key: ec.EllipticCurvePublicKey) -> bytes:
    """What tells one emulator from another: the thumbprint of its attestation key (32 bytes)."""
    return cose.thumbprint(attestation_key)


def parse_quote(quote: bytes) -> tuple[cose.Signed, bytes]:
    """Takes a quote apart, unverified; returns it with the thumbprint of the attestation key that it names.

    Raises:
        EvidenceError: `malformed-quote`.
    """
    try:
        parsed = cose.parse(quote)
    except cose.SignatureError as error:
        raise _malformed(error.what) from error
    named = parsed.protected.get(cose.KID)
    if not isinstance(named, bytes):
        raise _malformed("it does not name its attestation key")
    return parsed, named


def verify_quote(quote: bytes, attestation_key: ec.EllipticCurvePublicKey) -> Quote:
    """Checks the quote against one pinned key.

    Raises:
        EvidenceError: `malformed-quote`, `wrong-message-kind`, `bad-quote-signature`.
    """
    parsed, named = parse_quote(quote)
    said = _signed_by(parsed, attestation_key)
    if named != cose.thumbprint(attestation_key):
        raise _malformed("it names another key than the one that signed it")
    return said


def _signed_by(parsed: cose.Signed, key: ec.EllipticCurvePublicKey) -> Quote:
    """Whether it names this key, the caller knows."""
    try:
        signed = cose.verify(QUOTE, parsed, key)
    except cose.SignatureError as error:
        code = "bad-quote-signature" if error.code == "bad-signature" else error.code
        raise EvidenceError(code, error.what, advice="do not use it; it was altered or is no quote") from error
    if signed.protected.keys() != _HEADER:
        raise _malformed("unknown header parameters")
    try:
        return from_map(cose.load_dcbor(signed.payload), Quote)
    except (msgspec.ValidationError, cose.SignatureError) as error:
        raise _malformed(str(error)) from error


def _malformed(what: str) -> EvidenceError:
    return EvidenceError(
        "malformed-quote",
        f"not an emulator quote: {what}",
        advice="do not use it; it was altered or cut off, or is something else",
    )


def _verify(quote: bytes, _: Endorsements, anchors: Sequence[Anchor], __: int) -> PlatformEvidence:
    parsed, named = parse_quote(quote)
    anchor = next((anchor for anchor in anchors if anchor.thumbprint == named), None)
    if anchor is None:
        raise EvidenceError(
            "untrusted-anchor",
            "the quote is not by an emulator this policy knows",
            where=f"attestation key {named.hex()}",
            advice="pin the emulator's attestation key as an anchor, after making sure whose it is",
        )
    assert isinstance(anchor.key, ec.EllipticCurvePublicKey)
    said = _signed_by(parsed, anchor.key)
    runtime = {"digest": said.runtime_digest}
    return PlatformEvidence(anchor, anchor.thumbprint, runtime, said.report_data, said.debug)


def _looks_like(quote: bytes) -> bool:
    try:
        return parse_quote(quote)[0].protected.get(cose.TYP) == QUOTE.media_type
    except EvidenceError:
        return False


def _is_p256(key: PublicKey) -> bool:
    return isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)


KIND = Kind(
    name="emulator",
    title="software emulator",
    media_type=QUOTE.media_type,
    classes=frozenset({"emulated"}),
    verify=_verify,
    looks_like=_looks_like,
    registers={"digest": 32},
    identifying=(frozenset({"digest"}),),
    pins=_is_p256,
    this_release=lambda: {"digest": runtime_digest()},
)
