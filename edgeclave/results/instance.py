"""What results, open and close records share: they are signed by one instance and name it as kid.

The instance_id is the SHA-256 COSE Key Thumbprint (RFC 9679) of the instance's signing key, which evidence vouches for.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec

from edgeclave import cose
from edgeclave.errors import ResultError


def verify_signer(
    kind: cose.MessageKind, message: bytes, key: ec.EllipticCurvePublicKey, *labels: int
) -> tuple[cose.Signed, bytes]:
    """Checks kind, signature, kid and that the header has exactly `typ`, `alg`, `kid` and `labels`.

    Returns:
        The parsed message and its instance_id.

    Raises:
        ResultError: `malformed-message`, `wrong-message-kind`, `bad-signature`, `wrong-instance`.
    """
    try:
        signed = cose.verify(kind, message, key)
    except cose.SignatureError as error:
        raise ResultError(
            error.code, error.what, advice="it was altered on its way, or another instance signed it; do not use it"
        ) from error
    if signed.protected.keys() != {cose.ALG, cose.KID, cose.TYP, *labels}:
        raise ResultError("malformed-message", f"a {kind.media_type} with unknown or missing header parameters")
    assert signed.signer is not None
    if signed.protected[cose.KID] != signed.signer:
        raise ResultError("wrong-instance", "the message names another instance than the one that signed it")
    return signed, signed.signer


def peek_instance(message: bytes) -> bytes:
    """The instance_id that a result, open or close record names: untrusted, to find the key.

    Raises:
        ResultError: `malformed-message`.
    """
    try:
        return named_instance(cose.parse(message))
    except cose.SignatureError as error:
        raise ResultError("malformed-message", error.what) from error


def named_instance(signed: cose.Signed) -> bytes:
    """Raises ResultError `malformed-message`."""
    instance_id = signed.protected.get(cose.KID)
    if not isinstance(instance_id, bytes) or len(instance_id) != 32:
        raise ResultError("malformed-message", "the message does not name the instance that signed it")
    return instance_id
