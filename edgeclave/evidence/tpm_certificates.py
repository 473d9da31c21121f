"""Certificates for attestation keys of TPMs, issued by an authority that the policy pins.

The certificate says that the key is a restricted signing key of a real TPM, so it must be for that use (TCG EK
Credential Profile, tcg-kp-AIKCertificate): a certificate of the same authority for a TLS key proves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from edgeclave.errors import EvidenceError
from edgeclave.evidence.anchors import Anchor, PublicKey, key_fingerprint
from edgeclave.evidence.endorsements import MAX_ENDORSEMENT_BYTES, Endorsement, Endorsements, EndorsementType
from edgeclave.evidence.x509_errors import UNREADABLE, der_in_one_form
from edgeclave.evidence.x509_files import read_signed

ATTESTATION_KEY_CERTIFICATE = x509.ObjectIdentifier("2.23.133.8.3")
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


def certified_key(
    key_digest: bytes, endorsements: Endorsements, anchors: Sequence[Anchor], now: int
) -> tuple[PublicKey, Anchor]:
    """The attestation key with this fingerprint, and the authority that certified it.

    Raises:
        EvidenceError: `untrusted-anchor`, `no-endorsement`, `endorsement-expired`, `endorsement-not-yet-valid`.
    """
    found = endorsements.find(CERTIFICATE, key_digest.hex(), now)
    certificate = x509.load_der_x509_certificate(found.value)
    for anchor in anchors:
        if not isinstance(anchor.key, bytes) and _is_signed(certificate, anchor.key):
            key = certificate.public_key()
            assert isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
            return key, anchor
    raise EvidenceError(
        "untrusted-anchor",
        "the certificate of the attestation key is by no authority this policy knows",
        where=f"attestation key {key_digest.hex()}",
        advice="pin the authority's key as an anchor, after making sure that it certifies only keys of real TPMs",
    )


def _is_signed(certificate: x509.Certificate, key: PublicKey) -> bool:
    try:
        used, parameters = certificate.signature_hash_algorithm, certificate.signature_algorithm_parameters
        if not isinstance(used, _HASHES):
            return False
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(certificate.signature, certificate.tbs_certificate_bytes, parameters, used)  # type: ignore[arg-type]
        else:
            key.verify(certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(used))
    except (InvalidSignature, *UNREADABLE):
        return False
    return True


def _read(data: bytes) -> list[Endorsement]:
    if len(data) > MAX_ENDORSEMENT_BYTES:
        return []
    found = []
    for one in read_signed(data):
        try:
            if isinstance(one, x509.Certificate) and _is_for_attestation(one):
                found.append(_endorsement(one))
        except UNREADABLE:
            continue
    return found


def _is_for_attestation(certificate: x509.Certificate) -> bool:
    extensions = {type(one.value): one.value for one in certificate.extensions}
    constraints, usage = extensions.get(x509.BasicConstraints), extensions.get(x509.ExtendedKeyUsage)
    authority = isinstance(constraints, x509.BasicConstraints) and constraints.ca
    attests = isinstance(usage, x509.ExtendedKeyUsage) and ATTESTATION_KEY_CERTIFICATE in usage
    return (
        attests and not authority and isinstance(certificate.public_key(), ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
    )


def _endorsement(certificate: x509.Certificate) -> Endorsement:
    fingerprint = key_fingerprint(certificate.public_key())  # type: ignore[arg-type]  # see _is_for_attestation
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    der = der_in_one_form(certificate)
    return Endorsement(CERTIFICATE.name, fingerprint.hex(), der, int(begin.timestamp()), int(end.timestamp()))


CERTIFICATE = EndorsementType("tpm-attestation-key", "certificate of a TPM's attestation key", _read)
TYPES = (CERTIFICATE,)
