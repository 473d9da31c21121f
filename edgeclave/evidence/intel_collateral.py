"""Intel's collateral on its own: every signature in it, up to a root the caller trusts, without a quote.

Rules, all of them always:

1. each of the three chains is one certificate under one root, the same in all, whose key an anchor pins;
2. the root signs the CA of PCK certificates, the signer of TCB information, and the list of certificates it revoked;
   that CA signs the list of PCK certificates it revoked;
3. the signer of TCB information is named so, is not revoked, and signs exactly the bytes of TCB information and QE
   identity;
4. all of it is valid at the time asked for.

Whether the CA was revoked is not asked: collateral that says so must reach whoever verifies, who refuses by it.

Source: Intel SGX and TDX Provisioning Certification Service v4; Intel SGX PCK Certificate and CRL Profile.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import NameOID

from edgeclave.errors import EvidenceError
from edgeclave.evidence.anchors import Anchor, key_fingerprint
from edgeclave.evidence.endorsements import Endorsement, Endorsements
from edgeclave.evidence.intel import COLLATERAL, from_hex, read_collateral
from edgeclave.evidence.x509_errors import UNREADABLE, der_in_one_form

TCB_SIGNER = "Intel SGX TCB Signing"
_SCALAR_BYTES = 32


def verify_collateral(data: bytes, anchors: Sequence[Anchor], now: int) -> Endorsement:
    """Args:
        data: JSON in the form of dcap-qvl.
        anchors: of which one must be the root.
        now: s since 1970.

    Raises:
        EvidenceError: `malformed-endorsement`, `untrusted-anchor`, `bad-endorsement-signature`, `endorsement-expired`,
            `endorsement-not-yet-valid`.
    """
    found = read_collateral(data)
    if len(found) != 1:
        raise _malformed("not TCB information, QE identity and both revocation lists of one platform")
    try:
        _verify(json.loads(data), anchors, now)
    except InvalidSignature as error:
        raise _bad_signature("a signature in it does not verify") from error
    except (*UNREADABLE, KeyError, IndexError) as error:
        raise _malformed(str(error)) from error
    return Endorsements(found).find(COLLATERAL, found[0].subject, now)


def _verify(values: dict[str, str], anchors: Sequence[Anchor], now: int) -> None:
    ca, root = _chain(values["pck_crl_issuer_chain"])
    fingerprint = key_fingerprint(_key(root))
    if all(anchor.fingerprint != fingerprint for anchor in anchors):
        raise EvidenceError(
            "untrusted-anchor",
            "the collateral is under a root that is not trusted",
            where=f"root {fingerprint.hex()}",
            advice="do not use it; where stand-in hardware is meant, name its root by `test_root` in a policy",
        )
    _check_issued_by(root, root, now)
    _check_issued_by(ca, root, now)
    if not _is_authority(ca):
        raise _malformed("the issuer of PCK certificates may issue none")
    revoked = _check_list(values["root_ca_crl"], root)
    _check_list(values["pck_crl"], ca)
    quoting_enclave = "TD_QE" if json.loads(values["tcb_info"])["id"] == "TDX" else "QE"
    if json.loads(values["qe_identity"]).get("id") != quoting_enclave:
        raise _malformed(f"the QE identity is not that of the {quoting_enclave}")
    for name in ("tcb_info", "qe_identity"):
        signer, above = _chain(values[f"{name}_issuer_chain"])
        if above != root:
            raise _bad_signature(f"the chain of {name} ends in another root")
        _check_issued_by(signer, root, now)
        if _name(signer) != TCB_SIGNER or revoked.get_revoked_certificate_by_serial_number(signer.serial_number):
            raise _bad_signature(f"{name} is signed by {_name(signer)!r}, or its certificate was revoked")
        raw = from_hex(values[f"{name}_signature"])
        if len(raw) != 2 * _SCALAR_BYTES:
            raise _malformed(f"the signature of {name} has {len(raw)} bytes")
        r, s = (int.from_bytes(half, "big") for half in (raw[:_SCALAR_BYTES], raw[_SCALAR_BYTES:]))
        _key(signer).verify(encode_dss_signature(r, s), values[name].encode(), ec.ECDSA(hashes.SHA256()))


def _chain(pem: str) -> tuple[x509.Certificate, x509.Certificate]:
    certificates = x509.load_pem_x509_certificates(pem.encode())
    if len(certificates) != 2:
        raise _malformed(f"a chain of {len(certificates)} certificates instead of 2")
    return certificates[0], certificates[1]


def _check_issued_by(certificate: x509.Certificate, issuer: x509.Certificate, now: int) -> None:
    certificate.verify_directly_issued_by(issuer)
    if not _is_authority(issuer):
        raise _malformed(f"{_name(issuer)!r} may not sign certificates")
    begin, end = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    if not begin <= now <= end:
        raise EvidenceError(
            "endorsement-expired" if now > end else "endorsement-not-yet-valid",
            f"the certificate of {_name(certificate)!r} is not valid now",
            advice="check the clock; otherwise the service sends what is out of date",
        )


def _is_authority(certificate: x509.Certificate) -> bool:
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    return constraints.ca and certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


def _check_list(text: str, issuer: x509.Certificate) -> x509.CertificateRevocationList:
    revoked = x509.load_der_x509_crl(from_hex(text))
    der_in_one_form(revoked)  # refuses
    if revoked.issuer != issuer.subject or not revoked.is_signature_valid(_key(issuer)):
        raise _bad_signature(f"a revocation list is not signed by {_name(issuer)!r}")
    return revoked


def _key(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise _malformed(f"the key of {_name(certificate)!r} is no EC key")
    return key


def _name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""


def _malformed(what: str) -> EvidenceError:
    return EvidenceError("malformed-endorsement", f"not collateral of Intel: {what}", advice="import it again")


def _bad_signature(what: str) -> EvidenceError:
    return EvidenceError("bad-endorsement-signature", what, advice="do not use it; it was altered or is not Intel's")
