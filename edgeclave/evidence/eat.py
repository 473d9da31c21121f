"""The EAT: what an instance says about itself, signed by its own key (PROTOCOL section 6, RFC 9711).

On its own it proves nothing: the platform's quote carries `report_data` of exactly these bytes, and a verifier
appraises the platform and its runtime before it reads one claim. There is no iat, nbf or exp, because evidence has no
trusted time; host_time is what the REE said.

>>> from edgeclave.cose import generate_key
>>> key, digest = generate_key(), bytes(32)
>>> claims = Claims(None, key.public_key(), generate_key().public_key(), Identity(digest, digest, 1, 1, False),
...     Epoch(1, "none", None), "consistent", {}, None)
>>> read_eat(make_eat(claims, key)) == claims
True
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Meta

from edgeclave import cose
from edgeclave.errors import EvidenceError, PackageError
from edgeclave.ta.identity import Identity
from edgeclave.wire import MAX_OUTPUTS, Count, Digest, Label, RecipientsVersion, from_map, to_map

EAT = cose.MessageKind("application/eat+cwt", "edgeclave/evidence/1")
PROFILE = "tag:edgeclave.example,2026:evidence/1"
REPORT_DATA_BYTES = 64
MAX_EAT_BYTES = 32 << 10

CNF, NONCE, DBGSTAT, EAT_PROFILE = 8, 10, 263, 265  # RFC 8747, RFC 9711
CHANNEL_KEY, TRUSTED_APP, EPOCH, STORAGE_LEVEL, RECIPIENTS, HOST_TIME = range(-65537, -65543, -1)
"""Claim keys of the private-use range (RFC 8392 section 9.1)."""
DEBUG_ENABLED, DEBUG_DISABLED = 0, 1  # RFC 9711 section 4.2.9
_REQUIRED = frozenset({EAT_PROFILE, CNF, DBGSTAT, CHANNEL_KEY, TRUSTED_APP, EPOCH, STORAGE_LEVEL, RECIPIENTS})
_KNOWN = _REQUIRED | {NONCE, HOST_TIME}
_HEADER = {cose.ALG, cose.TYP}
_COSE_KEY = 1  # the cnf member that holds a COSE_Key, RFC 8747 section 3.1

EpochSource = Literal["none", "emulated", "tpm-nv", "rpmb"]
StorageLevel = Literal["consistent", "rollback-protected"]
Recipients = Annotated[dict[Label, RecipientsVersion], Meta(max_length=MAX_OUTPUTS)]


class Epoch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`number` counts the instances of a slot; `source` is the counter that keeps it from going back, if any.

    `emulated` is a file that stands in for such a counter. predecessor is an instance_id.
    """

    number: Count
    source: EpochSource
    predecessor: Digest | None


@dataclass(frozen=True)
class Claims:
    """nonce: 8 to 64 bytes, the verifier's nonce or the last beacon's value, None without either; host_time in ms."""

    nonce: bytes | None
    signing_key: ec.EllipticCurvePublicKey
    channel_key: ec.EllipticCurvePublicKey
    identity: Identity
    epoch: Epoch
    storage_level: StorageLevel
    recipients: dict[str, tuple[int, bytes]]
    host_time: int | None


class _Checked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Claims whose values msgspec can check."""

    nonce: Annotated[bytes, Meta(min_length=8, max_length=64)] | None
    epoch: Epoch
    storage_level: StorageLevel
    recipients: Recipients
    host_time: Count | None


def make_eat(claims: Claims, signing_key: ec.EllipticCurvePrivateKey) -> bytes:
    """Returns the COSE_Sign1.

    Raises:
        EvidenceError: `malformed-claims`.
    """
    try:
        checked = to_map(
            _Checked(claims.nonce, claims.epoch, claims.storage_level, claims.recipients, claims.host_time)
        )
    except msgspec.ValidationError as error:
        raise _malformed(str(error)) from error
    values: dict[int, Any] = {
        EAT_PROFILE: PROFILE,
        CNF: {_COSE_KEY: cose.cose_key(claims.signing_key)},
        DBGSTAT: DEBUG_ENABLED if claims.identity.debug else DEBUG_DISABLED,
        CHANNEL_KEY: cose.cose_key(claims.channel_key),
        TRUSTED_APP: claims.identity.to_map(),
        EPOCH: checked["epoch"],
        STORAGE_LEVEL: checked["storage_level"],
        RECIPIENTS: checked["recipients"],
    }
    if claims.nonce is not None:
        values[NONCE] = claims.nonce
    if claims.host_time is not None:
        values[HOST_TIME] = claims.host_time
    return cose.sign(EAT, cose.dcbor(values), signing_key)


def parse_eat(eat: bytes) -> cose.Signed:
    """Takes an EAT apart; verifies nothing.

    Raises:
        EvidenceError: `malformed-evidence`.
    """
    if len(eat) > MAX_EAT_BYTES:
        raise _altered(f"an EAT of {len(eat)} bytes is over the limit of {MAX_EAT_BYTES}")
    try:
        return cose.parse(eat)
    except cose.SignatureError as error:
        raise _altered(error.what) from error


def report_data(eat: bytes | cose.Signed) -> bytes:
    """The 64 bytes a platform's quote must carry: a digest of header and claims, then zeros. Reads no claim.

    Raises:
        EvidenceError: `malformed-evidence`.
    """
    parsed = parse_eat(eat) if isinstance(eat, bytes) else eat
    digest = cose.sha256(cose.dcbor(["edgeclave/report-data/1", parsed.protected_bytes, parsed.payload]))
    return digest.ljust(REPORT_DATA_BYTES, b"\0")


def read_eat(eat: bytes | cose.Signed) -> Claims:
    """Checks the signature by the key in cnf, then the claims. Only after the platform vouched for these bytes.

    Raises:
        EvidenceError: `malformed-evidence`, `wrong-message-kind`, `bad-evidence-signature`, `malformed-claims`.
    """
    parsed = parse_eat(eat) if isinstance(eat, bytes) else eat
    try:
        values = cose.load_dcbor(parsed.payload)
        signing_key = cose.public_key_from_cose(_confirmation_key(values))
    except cose.SignatureError as error:
        raise _altered(error.what) from error
    try:
        signed = cose.verify(EAT, parsed, signing_key)
    except cose.SignatureError as error:
        code = "bad-evidence-signature" if error.code == "bad-signature" else error.code
        raise EvidenceError(code, error.what, advice="do not use it; it was altered or is no evidence") from error
    if signed.protected.keys() != _HEADER:
        raise _malformed("unknown header parameters")
    try:
        return _read_claims(values, signing_key)
    except (msgspec.ValidationError, PackageError, cose.SignatureError) as error:
        raise _malformed(str(error)) from error


def _confirmation_key(values: object) -> object:
    confirmation = values.get(CNF) if isinstance(values, dict) else None
    if not isinstance(confirmation, dict) or list(confirmation) != [_COSE_KEY]:
        raise _malformed("cnf must hold exactly one COSE_Key")
    return confirmation[_COSE_KEY]


def _read_claims(values: dict[Any, Any], signing_key: ec.EllipticCurvePublicKey) -> Claims:
    if values.get(EAT_PROFILE) != PROFILE:
        raise _malformed(f"the profile is not {PROFILE}")
    if not _REQUIRED <= values.keys() <= _KNOWN or {type(key) for key in values} != {int}:
        raise _malformed("a claim is missing or unknown")
    if values.get(NONCE, b"") is None or values.get(HOST_TIME, 0) is None:
        raise _malformed("an absent claim must be absent, not null")
    identity = Identity.from_map(values[TRUSTED_APP])
    if type(values[DBGSTAT]) is not int or values[DBGSTAT] != (DEBUG_ENABLED if identity.debug else DEBUG_DISABLED):
        raise _malformed("dbgstat contradicts the identity")
    checked = from_map(
        {
            "nonce": values.get(NONCE),
            "epoch": values[EPOCH],
            "storage_level": values[STORAGE_LEVEL],
            "recipients": values[RECIPIENTS],
            "host_time": values.get(HOST_TIME),
        },
        _Checked,
    )
    return Claims(
        checked.nonce,
        signing_key,
        cose.public_key_from_cose(values[CHANNEL_KEY]),
        identity,
        checked.epoch,
        checked.storage_level,
        checked.recipients,
        checked.host_time,
    )


def _malformed(what: str) -> EvidenceError:
    return EvidenceError(
        "malformed-claims", f"not claims this release understands: {what}", advice="upgrade the verifier or the device"
    )


def _altered(what: str) -> EvidenceError:
    return EvidenceError(
        "malformed-evidence", what, advice="do not use it; it was altered or cut off, or is something else"
    )
