"""Sealed results: signed inside the TEE, encrypted to named recipients, bound both ways (PROTOCOL section 7).

- The outside is a COSE_Sign1 by the instance, with the result header R in the protected header. R names what made the
  result, its place in the stream, and SHA-256(salt | payload).
- The inside is a COSE_Encrypt: A256GCM with a fresh key and IV, that key wrapped per recipient by ECDH-ES+A256KW.
- X = dCBOR ["edgeclave/result/1", instance_id, R] is the external_aad of the encryption, and SHA-256(X | recipient
  thumbprint) stands in each recipient's key derivation. So a ciphertext under another signature or header opens for
  nobody.

What a result proves is that this code in this class of TEE made these bytes **on some sequence of inputs chosen by the
host**; `calls`, `inputs` and `assurance` say which.
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass
from typing import Annotated, Literal

import cbor2
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Meta

from edgeclave import cose
from edgeclave.errors import ResultError
from edgeclave.results import encryption
from edgeclave.results.instance import named_instance, verify_signer
from edgeclave.results.recipients import RecipientSet
from edgeclave.wire import Count, Digest, Label, RecipientsVersion, Unsigned16, from_map, to_map

RESULT = cose.MessageKind("application/edgeclave-result+cose", "edgeclave/result/1")
RESULT_HEADER = -65537
"""COSE header parameter of R, from the private-use range (RFC 9052 section 11.1)."""
MAX_PAYLOAD_BYTES = 1 << 20
MAX_RESULT_BYTES = MAX_PAYLOAD_BYTES + (32 << 10)
"""Payload, header and 64 recipients of about 200 bytes each."""
SALT_BYTES = 32
NO_INPUTS = bytes(32)
"""`inputs` of an instance that was never called."""

Assurance = Literal["none", "confidential", "authenticated"]

_BEFORE_INSTANCE = cose.dcbor([RESULT.context, bytes(32), None])[:-33]
_BEFORE_RESULT_HEADER = (
    len(cose.dcbor({cose.ALG: cose.ES256, cose.KID: bytes(32), cose.TYP: RESULT.media_type, RESULT_HEADER: None})) - 1
)
"""Bytes before R in a protected header that has exactly these parameters: R comes last, the others have fixed sizes."""


class ResultHeader(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    rename={"sequence": "seq", "previous": "prev", "evidence_digest": "evidence"},
):
    """R without `content`, which sealing adds.

    sequence counts from 1 per instance and output; previous is the SHA-256 of the COSE_Sign1 before (of the open record
    for the first); recipients is version and digest of the recipient set; beacon is number and value of the last one;
    calls and inputs cover every call of the instance so far, this one included; assurance is the lowest since the
    previous result on this output; host_time is in ms since 1970 and never a basis for a decision.
    """

    unique_id: Digest
    signer_id: Digest
    product_id: Unsigned16
    security_version: Unsigned16
    output: Label
    epoch: Count
    sequence: Annotated[int, Meta(ge=1, le=(1 << 53) - 1)]
    previous: Digest
    evidence_digest: Digest
    recipients: RecipientsVersion
    beacon: tuple[Count, Annotated[bytes, Meta(min_length=16, max_length=64)]] | None
    calls: Count
    inputs: Digest
    assurance: Assurance
    host_time: Count


@dataclass(frozen=True)
class VerifiedResult:
    """A result whose signature was checked; still encrypted.

    digest is the SHA-256 of the message; content is SHA-256(salt | payload); binding is X.
    """

    header: ResultHeader
    content: bytes
    instance_id: bytes
    digest: bytes
    encrypted: bytes
    binding: bytes


@dataclass(frozen=True)
class PeekedResult:
    """What a result says about itself, unchecked: to find the key, never to act on."""

    instance_id: bytes
    header: ResultHeader


@dataclass(frozen=True)
class Opened:
    """Hand both to a third party with the sealed result, and `content_digest` proves the payload to them."""

    salt: bytes
    payload: bytes


def seal(
    header: ResultHeader, payload: bytes, signing_key: ec.EllipticCurvePrivateKey, recipients: RecipientSet
) -> bytes:
    """Returns the COSE_Sign1. A heartbeat has an empty payload.

    Raises:
        ResultError: `payload-too-large`, `wrong-recipients`, `malformed-result`.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ResultError("payload-too-large", f"{len(payload)} bytes is over the limit of {MAX_PAYLOAD_BYTES}")
    if header.output != recipients.output or header.recipients != (recipients.version, recipients.digest):
        raise ResultError("wrong-recipients", "the header names another recipient set than the one given")
    salt = os.urandom(SALT_BYTES)
    try:
        result_header = cose.in_order({**to_map(header), "content": content_digest(salt, payload)})
    except msgspec.ValidationError as error:
        raise _malformed(str(error)) from error
    instance_id = cose.thumbprint(signing_key)
    encrypted = encryption.encrypt(salt + payload, _binding(instance_id, cbor2.dumps(result_header)), recipients)
    return cose.sign(RESULT, encrypted, signing_key, protected={cose.KID: instance_id, RESULT_HEADER: result_header})


def peek_result(message: bytes) -> PeekedResult:
    """Raises ResultError `malformed-message`, `malformed-result`."""
    _check_size(message)
    try:
        signed = cose.parse(message)
    except cose.SignatureError as error:
        raise ResultError("malformed-message", error.what) from error
    header, _ = _read_header(signed)
    return PeekedResult(named_instance(signed), header)


def verify_result(message: bytes, instance_public_key: ec.EllipticCurvePublicKey) -> VerifiedResult:
    """Checks the signature by an instance whose evidence was verified.

    Raises:
        ResultError: `malformed-message`, `wrong-message-kind`, `bad-signature`, `wrong-instance`, `malformed-result`.
    """
    _check_size(message)
    signed, instance_id = verify_signer(RESULT, message, instance_public_key, RESULT_HEADER)
    header, content = _read_header(signed)
    binding = _binding(instance_id, signed.protected_bytes[_BEFORE_RESULT_HEADER:])
    return VerifiedResult(header, content, instance_id, cose.sha256(message), signed.payload, binding)


def open_result(verified: VerifiedResult, recipient_key: ec.EllipticCurvePrivateKey) -> bytes:
    """The payload, b"" for a heartbeat.

    Raises:
        ResultError: `not-a-recipient`, `cannot-open`, `wrong-content`.
    """
    return open_with_salt(verified, recipient_key).payload


def open_with_salt(verified: VerifiedResult, recipient_key: ec.EllipticCurvePrivateKey) -> Opened:
    """Like `open_result`, with the salt that proves the payload to a third party."""
    plaintext = encryption.decrypt(verified.encrypted, verified.binding, recipient_key)
    salt, payload = plaintext[:SALT_BYTES], plaintext[SALT_BYTES:]
    if len(salt) != SALT_BYTES or not hmac.compare_digest(content_digest(salt, payload), verified.content):
        raise ResultError("wrong-content", "the decrypted bytes are not the ones the header vouches for")
    return Opened(salt, payload)


def content_digest(salt: bytes, payload: bytes) -> bytes:
    """`content` of a result: whoever is shown salt and payload compares it with `VerifiedResult.content`."""
    return cose.sha256(salt + payload)


def extend_inputs(inputs: bytes, method: str, payload: bytes, assurance: Assurance) -> bytes:
    """The hash chain over every call of an instance; it starts from `NO_INPUTS`. `payload` is the JSON as received."""
    return cose.sha256(cose.dcbor(["edgeclave/inputs/1", inputs, method, cose.sha256(payload), assurance]))


def _read_header(signed: cose.Signed) -> tuple[ResultHeader, bytes]:
    fields = signed.protected.get(RESULT_HEADER)
    if not isinstance(fields, dict):
        raise _malformed("it has no result header")
    content = fields.get("content")
    if not isinstance(content, bytes) or len(content) != 32:
        raise _malformed("content must be a SHA-256 digest")
    try:
        return from_map({name: value for name, value in fields.items() if name != "content"}, ResultHeader), content
    except msgspec.ValidationError as error:
        raise _malformed(str(error)) from error


def _binding(instance_id: bytes, result_header: bytes) -> bytes:
    """X = dCBOR [context, instance_id, R], put together from the encoding of R that is there already."""
    return _BEFORE_INSTANCE + instance_id + result_header


def _check_size(message: bytes) -> None:
    if len(message) > MAX_RESULT_BYTES:
        raise ResultError("malformed-message", f"{len(message)} bytes is over the limit of {MAX_RESULT_BYTES}")


def _malformed(what: str) -> ResultError:
    return ResultError("malformed-result", f"not a usable sealed result: {what}")
