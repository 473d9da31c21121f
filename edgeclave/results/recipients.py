"""Recipient sets: who may open the results of one output (PROTOCOL section 7).

The manifest names a recipient authority per output. Only sets signed by that key are obeyed, so the host cannot swap
readers, and readers rotate their keys without a new unique_id. The enclave keeps the highest version it has seen; each
result carries version and digest; readers refuse versions below their minimum.

>>> from edgeclave.cose import generate_key
>>> authority, reader = generate_key(), generate_key()
>>> message = sign_recipient_set("anomalies", 1, [reader.public_key()], authority)
>>> verify_recipient_set(message, authority.public_key()).version
1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cwt import COSEKey
from cwt.cose_key_interface import COSEKeyInterface
from msgspec import Meta

from edgeclave import cose
from edgeclave.errors import ResultError
from edgeclave.wire import Count, Label, from_map, to_map

RECIPIENTS = cose.MessageKind("application/edgeclave-recipients+cose", "edgeclave/recipients/1")
ECDH_ES_A256KW = -31  # RFC 9053 section 6.4.1
MAX_RECIPIENTS = 64
MAX_RECIPIENT_SET_BYTES = 16 << 10


@dataclass(frozen=True)
class RecipientSet:
    """Public keys that one output is sealed to, in ascending order of thumbprint.

    `digest` is the SHA-256 of the signed message.
    """

    output: str
    version: int
    keys: tuple[ec.EllipticCurvePublicKey, ...]
    digest: bytes

    @cached_property
    def thumbprints(self) -> tuple[bytes, ...]:
        """RFC 9679 thumbprint of each key, in the order of `keys`."""
        return tuple(cose.thumbprint(key) for key in self.keys)

    @cached_property
    def wrapping_keys(self) -> tuple[COSEKeyInterface, ...]:
        """The keys as cwt takes them; converting one costs as much as sealing to it."""
        return tuple(COSEKey.new({**cose.cose_key(key), 3: ECDH_ES_A256KW}) for key in self.keys)


class _Payload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    output: Label
    version: Count
    keys: Annotated[list[dict[int, Any]], Meta(min_length=1, max_length=MAX_RECIPIENTS)]


def sign_recipient_set(
    output: str, version: int, keys: Sequence[ec.EllipticCurvePublicKey], authority_key: ec.EllipticCurvePrivateKey
) -> bytes:
    """Returns the COSE_Sign1 that names `keys` as the recipients of `output` from `version` on.

    Raises:
        ResultError: `bad-recipient-set`.
    """
    ordered = sorted(keys, key=cose.thumbprint)
    try:
        fields = to_map(_Payload(output, version, [cose.cose_key(key) for key in ordered]))
    except msgspec.ValidationError as error:
        raise _bad_set(str(error)) from error
    _require_ascending([cose.thumbprint(key) for key in ordered])
    return cose.sign(RECIPIENTS, cose.dcbor(fields), authority_key)


def verify_recipient_set(message: bytes, authority_public_key: ec.EllipticCurvePublicKey) -> RecipientSet:
    """Checks the set against the authority that the manifest names.

    Raises:
        ResultError: `wrong-recipient-authority` (also for another kind of message), `bad-recipient-set`.
    """
    if len(message) > MAX_RECIPIENT_SET_BYTES:
        raise _bad_set(f"{len(message)} bytes is over the limit of {MAX_RECIPIENT_SET_BYTES}")
    try:
        signed = cose.verify(RECIPIENTS, message, authority_public_key)
    except cose.SignatureError as error:
        raise ResultError(
            "wrong-recipient-authority",
            "the recipient set is not signed by the authority of this output",
            advice="sign it with the key that ta.toml names as recipient_authority (`edgeclave recipients sign`)",
        ) from error
    try:
        if set(signed.protected) != {cose.ALG, cose.TYP}:
            raise _bad_set("unknown header parameters")
        payload = from_map(cose.load_dcbor(signed.payload), _Payload)
        keys = tuple(cose.public_key_from_cose(key) for key in payload.keys)
    except (msgspec.ValidationError, cose.SignatureError) as error:
        raise _bad_set(str(error)) from error
    recipients = RecipientSet(payload.output, payload.version, keys, cose.sha256(message))
    _require_ascending(recipients.thumbprints)
    return recipients


def _require_ascending(thumbprints: Sequence[bytes]) -> None:
    if list(thumbprints) != sorted(set(thumbprints)):
        raise _bad_set("keys must be distinct and in ascending order of thumbprint")


def _bad_set(what: str) -> ResultError:
    return ResultError(
        "bad-recipient-set", f"not a usable recipient set: {what}", advice="make it with `edgeclave recipients sign`"
    )
