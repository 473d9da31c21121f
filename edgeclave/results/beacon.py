"""Beacons: the relying party's clock tick (an epoch ID in the words of RFC 9334).

The manifest names the beacon authority. A trusted application answers each new beacon with a heartbeat result on every
output and carries it as the nonce of unasked evidence, so that silence and a lost suffix are bounded in time.

>>> authority = cose.generate_key()
>>> verify_beacon(sign_beacon(Beacon(7, bytes(16)), authority), authority.public_key()).number
7
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Meta

from edgeclave import cose
from edgeclave.errors import ResultError
from edgeclave.wire import Count, from_map, to_map

BEACON = cose.MessageKind("application/edgeclave-beacon+cose", "edgeclave/beacon/1")
MAX_BEACON_BYTES = 1 << 10


class Beacon(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`number` only goes up; `value` is unpredictable before the beacon is published (16 to 64 bytes)."""

    number: Count
    value: Annotated[bytes, Meta(min_length=16, max_length=64)]


def sign_beacon(beacon: Beacon, authority_key: ec.EllipticCurvePrivateKey) -> bytes:
    """Raises ResultError `bad-beacon`."""
    try:
        return cose.sign(BEACON, cose.dcbor(to_map(beacon)), authority_key)
    except msgspec.ValidationError as error:
        raise ResultError("bad-beacon", f"not a usable beacon: {error}") from error


def verify_beacon(message: bytes, authority_public_key: ec.EllipticCurvePublicKey) -> Beacon:
    """Raises ResultError `bad-beacon`, `wrong-beacon-authority`."""
    if len(message) > MAX_BEACON_BYTES:
        raise ResultError("bad-beacon", f"{len(message)} bytes is over the limit of {MAX_BEACON_BYTES}")
    try:
        signed = cose.verify(BEACON, message, authority_public_key)
    except cose.SignatureError as error:
        raise ResultError(
            "wrong-beacon-authority",
            "the beacon is not signed by the authority in the manifest",
            advice="sign beacons with the key that ta.toml names as beacon_authority",
        ) from error
    if set(signed.protected) != {cose.ALG, cose.TYP}:
        raise ResultError("bad-beacon", "not a usable beacon: unknown header parameters")
    try:
        return from_map(cose.load_dcbor(signed.payload), Beacon)
    except (msgspec.ValidationError, cose.SignatureError) as error:
        raise ResultError("bad-beacon", f"not a usable beacon: {error}") from error
