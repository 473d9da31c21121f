"""COSE_Sign1 with the two separations every message of ours has: its media type (`typ`) and its context string.

A signature made for one kind of message is refused as any other kind, because the pair is required exactly: `typ`
stands in the protected header (RFC 9596) and the context is the external_aad (RFC 9052 section 4.3). All signing is
ES256 on P-256; encoding is deterministic CBOR (RFC 8949 section 4.2.1).

>>> key = generate_key()
>>> kind = MessageKind("application/example+cose", "edgeclave/example/1")
>>> message = sign(kind, b"payload", key)
>>> verify(kind, message, key.public_key()).payload
b'payload'
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from types import MappingProxyType
from typing import Any, NamedTuple

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cwt import COSE, COSEKey
from cwt.cose_key_interface import COSEKeyInterface

from edgeclave.errors import EdgeclaveError

ALG, KID, X5CHAIN, TYP = 1, 4, 33, 16  # COSE header parameters, RFC 9052 section 3.1, RFC 9360, RFC 9596
ES256 = -7
MAX_MESSAGE_BYTES = 16 << 20  # no signed message of ours is larger; checked before anything is parsed
_SIGN1_HEAD = b"\xd2\x84"  # tag 18 of an array of four, RFC 9052 section 4.2
_SIG_STRUCTURE_HEAD = b"\x84\x6aSignature1"  # an array of four, its first a text, RFC 9052 section 4.4
_ECDSA, _P256 = ec.ECDSA(hashes.SHA256()), ec.SECP256R1()
_UNCOMPRESSED = b"\x04"  # SEC 1 section 2.3.3
_SCALAR_BYTES = 32
_KNOWN_HEADER_BYTES = 128  # of results they are longer, and each is another
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256, FIPS 186-5
_HALF_ORDER = _ORDER // 2


class SignatureError(EdgeclaveError):
    """A COSE message that is not well formed, of the wrong kind, or not signed by the expected key."""


@dataclass(frozen=True)
class MessageKind:
    """What a signed message is: media type and context string, both required exactly."""

    media_type: str
    context: str


class Signed(NamedTuple):
    """A parsed COSE_Sign1. Untrusted until `verify` returned it with the key as `verified_by`."""

    protected: Mapping[Any, Any]
    payload: bytes
    protected_bytes: bytes
    signature: bytes
    verified_by: ec.EllipticCurvePublicKey | None = None

    @property
    def signer(self) -> bytes | None:
        """The thumbprint of the key that verified it."""
        return None if self.verified_by is None else thumbprint(self.verified_by)


def dcbor(value: object) -> bytes:
    """Deterministic CBOR, RFC 8949 section 4.2.1.

    cbor2 sorts map keys by length first (RFC 7049); both orders agree as long as the keys of one map are all text or
    all integers of one sign, or no one-byte negative key stands beside a longer positive one. Ours are.
    """
    try:
        encoded: bytes = _of_thread.encoder.encode_to_bytes(value)
    except BaseException:
        _of_thread.encoder = _encoder()  # what the failed one still holds is nobody's
        raise
    return encoded


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def generate_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def sign(
    kind: MessageKind,
    payload: bytes,
    key: ec.EllipticCurvePrivateKey,
    *,
    protected: Mapping[int, Any] | None = None,
) -> bytes:
    """Returns a tagged COSE_Sign1 with `typ`, `alg` and the given header parameters protected."""
    # cwt encodes maps in the order given, so hand it the deterministic one.
    header = in_order({ALG: ES256, TYP: kind.media_type, **(protected or {})})
    message = _signer().encode_and_sign(
        payload, _cose_private_key(key), protected=header, external_aad=kind.context.encode()
    )
    assert isinstance(message, bytes)
    s = int.from_bytes(message[-_SCALAR_BYTES:], "big")
    if s <= _HALF_ORDER:
        return message
    return message[:-_SCALAR_BYTES] + (_ORDER - s).to_bytes(_SCALAR_BYTES, "big")


def parse(message: bytes) -> Signed:
    """Takes a COSE_Sign1 apart without verifying it, to find the key it names.

    Raises:
        SignatureError: `malformed-message`.
    """
    if len(message) > MAX_MESSAGE_BYTES:
        raise SignatureError("malformed-message", f"a signed message of {len(message)} bytes is over the limit")
    try:
        protected_bytes, unprotected, payload, signature = cbor2.loads(message).value
        protected = (_known_header if len(protected_bytes) <= _KNOWN_HEADER_BYTES else _header)(protected_bytes)
        well_formed = (
            unprotected == {}
            and isinstance(payload, bytes)
            and isinstance(signature, bytes)
            # One message has one encoding: a copy with spare bytes, another encoding or the other root of the same
            # signature (s and order - s both verify) would have another digest without its signer having made it.
            and message == _SIGN1_HEAD + _bytes(protected_bytes) + b"\xa0" + _bytes(payload) + _bytes(signature)
            and len(signature) == 2 * _SCALAR_BYTES
            and int.from_bytes(signature[_SCALAR_BYTES:], "big") <= _HALF_ORDER
        )
    except Exception as error:
        raise SignatureError("malformed-message", "not a COSE_Sign1 message") from error
    if not well_formed:
        raise SignatureError("malformed-message", "not a COSE_Sign1 message in its one accepted form")
    return Signed(protected, payload, protected_bytes, signature)


def verify(kind: MessageKind, message: bytes | Signed, key: ec.EllipticCurvePublicKey) -> Signed:
    """Checks kind and signature of a message, as bytes or as `parse` returned it.

    Raises:
        SignatureError: `malformed-message`, `wrong-message-kind`, `bad-signature`.
    """
    signed = parse(message) if isinstance(message, bytes) else message
    algorithm = signed.protected.get(ALG)
    if signed.protected.get(TYP) != kind.media_type or type(algorithm) is not int or algorithm != ES256:
        raise SignatureError(
            "wrong-message-kind", f"expected {kind.media_type}, got {str(signed.protected.get(TYP))[:80]}"
        )
    # cwt would parse everything again and search its keys by kid.
    parts = (signed.protected_bytes, kind.context.encode(), signed.payload)
    to_be_signed = _SIG_STRUCTURE_HEAD + b"".join(map(_bytes, parts))
    try:
        key.verify(_der(signed.signature), to_be_signed, _ECDSA)
    except InvalidSignature as error:
        raise SignatureError("bad-signature", f"the signature of this {kind.media_type} does not verify") from error
    return Signed(signed.protected, signed.payload, signed.protected_bytes, signed.signature, key)


def in_order(value: Any) -> Any:
    """The same value with the keys of every map in deterministic order, for encoders that keep the order given."""
    if isinstance(value, dict):
        return {key: in_order(value[key]) for key in sorted(value, key=_key_order)}
    if isinstance(value, list | tuple):
        return [in_order(item) for item in value]
    return value


def load_dcbor(data: bytes) -> Any:
    """Decodes deterministic CBOR.

    Raises:
        SignatureError: `malformed-message` for anything but the one deterministic encoding of one value.
    """
    try:
        value = cbor2.loads(data)
        deterministic = dcbor(value) == data
    except Exception as error:
        raise SignatureError("malformed-message", "not CBOR") from error
    if not deterministic:
        raise SignatureError("malformed-message", "not CBOR in its one accepted form")
    return value


def cose_key(key: ec.EllipticCurvePublicKey) -> dict[int, Any]:
    """COSE_Key map of a P-256 public key with the required members only (RFC 9053 section 7.1.1)."""
    return _cose_key_at(_point(key))


def public_key_from_cose(value: object) -> ec.EllipticCurvePublicKey:
    """Raises SignatureError `bad-key` unless `value` is exactly a P-256 COSE_Key."""
    try:
        if not isinstance(value, dict) or value.keys() != {1, -1, -2, -3} or value[1] != 2 or value[-1] != 1:
            raise ValueError("not an EC2 P-256 key")  # noqa: TRY301
        if {type(number) for number in (*value, value[1], value[-1])} != {int}:
            raise ValueError("2.0 is 2 in Python, not in CBOR")  # noqa: TRY301
        x, y = value[-2], value[-3]
        if not (isinstance(x, bytes) and isinstance(y, bytes) and len(x) == len(y) == _SCALAR_BYTES):
            raise ValueError("coordinates must be 32 bytes")  # noqa: TRY301
        return ec.EllipticCurvePublicKey.from_encoded_point(_P256, _UNCOMPRESSED + x + y)
    except ValueError as error:
        raise SignatureError("bad-key", "not a P-256 public key in COSE_Key form") from error


def thumbprint(key: ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey) -> bytes:
    """COSE Key Thumbprint of the public key with SHA-256 (RFC 9679), 32 bytes."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return _own_thumbprint(key)
    return _thumbprint_at(_point(key))


def spki(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _header(data: bytes) -> Mapping[Any, Any]:
    """Raises ValueError unless it is the deterministic encoding of a map of integer labels."""
    header = cbor2.loads(data)
    if not isinstance(header, dict) or {type(label) for label in header} - {int} or dcbor(header) != data:
        raise ValueError("not a protected header")
    return MappingProxyType(header)


_known_header = lru_cache(maxsize=256)(_header)  # of evidence: the same in all that an instance or a platform makes


def _bytes(value: bytes) -> bytes:
    """A CBOR byte string; asking cbor2 for it would cost a tenth of verifying a signature."""
    size = len(value)
    if size < 24:
        return bytes((0x40 + size,)) + value
    if size < 1 << 8:
        return b"\x58" + size.to_bytes(1, "big") + value
    if size < 1 << 16:
        return b"\x59" + size.to_bytes(2, "big") + value
    return b"\x5a" + size.to_bytes(4, "big") + value


def _der(signature: bytes) -> bytes:
    r, s = signature[:_SCALAR_BYTES], signature[_SCALAR_BYTES:]
    return encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))


@lru_cache(maxsize=1024, typed=True)  # typed: 1 and 1.0 are equal in Python, not in CBOR
def _key_order(key: object) -> tuple[int, bytes]:
    encoded = cbor2.dumps(key)
    return len(encoded), encoded


def _encoder() -> cbor2.CBOREncoder:
    return cbor2.CBOREncoder(BytesIO(), canonical=True)


class _OfThread(threading.local):
    """An encoder, which one thread at a time may use. Making one takes longer than most of our messages do."""

    def __init__(self) -> None:
        self.encoder = _encoder()


_of_thread = _OfThread()


@lru_cache(maxsize=1)
def _signer() -> COSE:
    signer: COSE = COSE.new(alg_auto_inclusion=False, kid_auto_inclusion=False)
    return signer


@lru_cache(maxsize=4)  # an enclave signs with one key; converting it costs more than signing
def _cose_private_key(key: ec.EllipticCurvePrivateKey) -> COSEKeyInterface:
    d = key.private_numbers().private_value.to_bytes(32, "big")
    return COSEKey.new({**cose_key(key.public_key()), 3: ES256, -4: d})


@lru_cache(maxsize=4)
def _own_thumbprint(key: ec.EllipticCurvePrivateKey) -> bytes:
    return _thumbprint_at(_point(key.public_key()))


@lru_cache(maxsize=256)
def _thumbprint_at(point: bytes) -> bytes:
    return sha256(dcbor(_cose_key_at(point)))


def _point(key: ec.EllipticCurvePublicKey) -> bytes:
    """x | y, 64 bytes."""
    point = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    return point[1:]


def _cose_key_at(point: bytes) -> dict[int, Any]:
    return {1: 2, -1: 1, -2: point[:32], -3: point[32:]}
