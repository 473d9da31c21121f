"""The inside of a sealed result: COSE_Encrypt to a recipient set (RFC 9052 section 5.1, RFC 9053 section 6.4.1).

Content: A256GCM with a fresh key and IV. Recipients: ECDH-ES+A256KW on P-256, HKDF-SHA-256 over COSE_KDF_Context.
`binding` (X in PROTOCOL section 7) is the external_aad, and its hash with the recipient's thumbprint is
SuppPubInfo.other.
"""

from __future__ import annotations

import base64
import os
from functools import lru_cache
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cwt import COSE, COSEKey, Recipient
from cwt.cose_key_interface import COSEKeyInterface
from cwt.recipient_interface import RecipientInterface

from edgeclave import cose
from edgeclave.errors import ResultError
from edgeclave.results.recipients import ECDH_ES_A256KW, MAX_RECIPIENTS, RecipientSet

A256GCM, A256KW = 3, -5  # RFC 9053 sections 4.1, 6.2.1
IV, EPHEMERAL_KEY = 5, -1  # header parameters, RFC 9052 section 3.1 and RFC 9053 section 6.3.1
IV_BYTES = 12
KEY_BYTES = 32
KEY_WRAP_BYTES = 8  # RFC 3394 adds one block of integrity check
_ENCRYPT_TAG = 96
_CONTENT_HEADER = {cose.ALG: A256GCM}
_RECIPIENT_HEADER = {cose.ALG: ECDH_ES_A256KW}
_CONTENT_HEADER_BYTES = cose.dcbor(_CONTENT_HEADER)
_RECIPIENT_HEADER_BYTES = cose.dcbor(_RECIPIENT_HEADER)


def encrypt(plaintext: bytes, binding: bytes, recipients: RecipientSet) -> bytes:
    """Returns a tagged COSE_Encrypt."""
    encrypted: bytes = _cose().encode_and_encrypt(
        plaintext,
        COSEKey.from_symmetric_key(os.urandom(KEY_BYTES), alg="A256GCM"),
        protected=_CONTENT_HEADER,
        unprotected={IV: os.urandom(IV_BYTES)},
        recipients=[
            _recipient(key, thumbprint, binding)
            for key, thumbprint in zip(recipients.wrapping_keys, recipients.thumbprints, strict=True)
        ],
        external_aad=binding,
    )
    return encrypted


def decrypt(encrypted: bytes, binding: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Raises ResultError `malformed-result`, `not-a-recipient`, `cannot-open`."""
    thumbprint = cose.thumbprint(key)
    message = _parse(encrypted)
    # The key derivation differs per recipient, so cwt is shown only ours.
    message.value[3] = [recipient for recipient in message.value[3] if recipient[1][cose.KID] == thumbprint]
    if not message.value[3]:
        raise ResultError(
            "not-a-recipient",
            "this key is not among the recipients of the result",
            advice="open it with a key of the recipient set, or sign a set with this key for later results",
        )
    try:
        plaintext: bytes = _cose().decode(
            message, _private_key(key), context=_context(binding, thumbprint), external_aad=binding
        )
    except Exception as error:
        raise ResultError(
            "cannot-open",
            "the result does not decrypt under its own header and signature",
            advice="its ciphertext belongs to another result or was altered; do not use it",
        ) from error
    return plaintext


def _parse(encrypted: bytes) -> cbor2.CBORTag:
    """Takes the parts out and accepts only what encodes to the same bytes again."""
    try:
        _, unprotected, ciphertext, recipients = cbor2.loads(encrypted).value
        message = cbor2.CBORTag(
            _ENCRYPT_TAG,
            [
                _CONTENT_HEADER_BYTES,
                {IV: _sized(unprotected[IV], IV_BYTES)},
                ciphertext,
                [_parse_recipient(*recipient) for recipient in recipients],
            ],
        )
        thumbprints = [recipient[1][cose.KID] for recipient in message.value[3]]
        well_formed = (
            isinstance(ciphertext, bytes)
            and 1 <= len(recipients) <= MAX_RECIPIENTS
            and len(set(thumbprints)) == len(thumbprints)
            and cbor2.dumps(message) == encrypted  # every map above is written in deterministic order
        )
    except Exception as error:
        raise _malformed() from error
    if not well_formed:
        raise _malformed()
    return message


def _parse_recipient(_: object, unprotected: dict[int, Any], wrapped: object) -> list[Any]:
    ephemeral = unprotected[EPHEMERAL_KEY]
    coordinates = {-2: _sized(ephemeral[-2], 32), -3: _sized(ephemeral[-3], 32)}
    header = {cose.KID: _sized(unprotected[cose.KID], 32), EPHEMERAL_KEY: {1: 2, -1: 1, **coordinates}}
    return [_RECIPIENT_HEADER_BYTES, header, _sized(wrapped, KEY_BYTES + KEY_WRAP_BYTES)]


def _sized(value: object, size: int) -> bytes:
    if not isinstance(value, bytes) or len(value) != size:
        raise ValueError(f"expected {size} bytes")
    return value


def _recipient(key: COSEKeyInterface, thumbprint: bytes, binding: bytes) -> RecipientInterface:
    # A new one each time, with maps of its own: encoding writes the ephemeral key into them.
    return Recipient.new(
        protected=dict(_RECIPIENT_HEADER),
        unprotected={cose.KID: thumbprint},
        recipient_key=key,
        context=_context(binding, thumbprint),
    )


def _context(binding: bytes, thumbprint: bytes) -> list[Any]:
    """COSE_KDF_Context, RFC 9053 section 5.2."""
    other = b"edgeclave/result/1|" + base64.urlsafe_b64encode(cose.sha256(binding + thumbprint)).rstrip(b"=")
    nobody = [None, None, None]
    return [A256KW, nobody, nobody, [8 * KEY_BYTES, _RECIPIENT_HEADER_BYTES, other]]


@lru_cache(maxsize=1)
def _cose() -> COSE:
    cose_processor: COSE = COSE.new(alg_auto_inclusion=False, kid_auto_inclusion=False)
    return cose_processor


@lru_cache(maxsize=4)  # a reader opens with one key
def _private_key(key: ec.EllipticCurvePrivateKey) -> COSEKeyInterface:
    public = key.public_key()
    d = key.private_numbers().private_value.to_bytes(32, "big")
    return COSEKey.new({**cose.cose_key(public), 2: cose.thumbprint(public), 3: ECDH_ES_A256KW, -4: d})


def _malformed() -> ResultError:
    return ResultError("malformed-result", "the inside of the result is not a COSE_Encrypt in its one accepted form")
