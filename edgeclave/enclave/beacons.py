"""Which beacons an instance believes: signed by the authority in the manifest, and newer than the last."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from edgeclave.errors import EnclaveError
from edgeclave.results.beacon import Beacon, verify_beacon
from edgeclave.ta.manifest import Manifest


def newer_beacon(manifest: Manifest, message: bytes, last: Beacon | None) -> Beacon:
    """Checks a beacon.

    Raises:
        EnclaveError: `no-beacon-authority`, `beacon-too-old`.
        ResultError: see `verify_beacon`.
    """
    if manifest.beacon_authority is None:
        raise EnclaveError(
            "no-beacon-authority",
            "the manifest names no beacon authority",
            where="manifest: beacon_authority",
            advice="name one in ta.toml and sign again, or send no beacons",
        )
    authority = load_der_public_key(manifest.beacon_authority)
    assert isinstance(authority, ec.EllipticCurvePublicKey)  # the manifest was checked
    beacon = verify_beacon(message, authority)
    if last is not None and beacon.number <= last.number:
        raise EnclaveError(
            "beacon-too-old", f"beacon {beacon.number} is not newer than {last.number}", advice="send the newest"
        )
    return beacon
