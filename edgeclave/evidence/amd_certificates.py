"""AMD's chain: from a pinned root key (ARK) over a signing key (ASK, ASVK) to the key that signs reports.

Rules, all of them always:

1. the root's key is pinned by an anchor, as the SHA-256 of its SubjectPublicKeyInfo; no certificate is trusted because
   of its name. A test root is accepted only where an anchor names it;
2. every certificate is signed with RSA-PSS and SHA-384 by the one above (AMD document 57230), the root by itself, and
   valid at the time of verification;
3. a VCEK is issued by SEV-<product>, a VLEK by SEV-VLEK-<product>, under ARK-<product>, all of one product;
4. once a revocation list of the root is at hand, one must be valid at the time of verification, and the signing key
   must not be on it. AMD gives all VCEKs and VLEKs the serial number 0, so that none can be revoked alone: what retires
   them is a floor of the TCB in the policy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import get_args

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import SignatureAlgorithmOID

from edgeclave.errors import EvidenceError
from edgeclave.evidence import amd_extensions
from edgeclave.evidence.amd_endorsements import REVOCATION_LIST, ROOT, SIGNING_KEY, common_name
from edgeclave.evidence.anchors import Anchor, key_fingerprint
from edgeclave.evidence.endorsements import Endorsements, EndorsementType
from edgeclave.evidence.revocation import find_revocation
from edgeclave.evidence.sev_snp_report import PRODUCTS, Product, SigningKey
from edgeclave.evidence.x509_errors import UNREADABLE

ROOTS = {
    "amd-milan-root": bytes.fromhex("9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9"),
    "amd-genoa-root": bytes.fromhex("429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831"),
    "amd-turin-root": bytes.fromhex("4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08"),
}
"""The ARKs that AMD publishes (kdsintf.amd.com/vcek/v1/<product>/cert_chain)."""

MAX_REMEMBERED = 64  # certificates that stay parsed: roots, signing keys, and those of platforms seen lately
_load = lru_cache(maxsize=MAX_REMEMBERED)(x509.load_der_x509_certificate)
_PSS = padding.PSS(padding.MGF1(hashes.SHA384()), hashes.SHA384.digest_size)


@dataclass(frozen=True)
class EndorsementKey:
    """A VCEK or VLEK whose chain verified up to `anchor`; `said` is what AMD wrote into its certificate.

    `revocation_checked` says whether a revocation list of the root was at hand.
    """

    kind: SigningKey
    anchor: Anchor
    key: ec.EllipticCurvePublicKey
    said: amd_extensions.Extensions
    revocation_checked: bool


def verify_chain(certificate: bytes, endorsements: Endorsements, anchors: Sequence[Anchor], now: int) -> EndorsementKey:
    """Args:
        certificate: a VCEK or VLEK in DER, valid at `now`.
        endorsements: where the certificates above it and the revocation list are looked for.
        anchors: of which one must be its root.
        now: s since 1970.

    Raises:
        EvidenceError: `untrusted-anchor`, `no-endorsement`, `endorsement-expired`, `endorsement-not-yet-valid`,
            `malformed-endorsement`, `bad-endorsement-signature`, `wrong-product`, `platform-revoked`.
    """
    try:
        return _verify_chain(_load(certificate), endorsements, anchors, now)
    except UNREADABLE as error:
        raise amd_extensions.malformed(str(error)) from error


def verify_authority(
    product: Product, kind: SigningKey, endorsements: Endorsements, anchors: Sequence[Anchor], now: int
) -> None:
    """Verifies what stands above the VCEKs or VLEKs of a product: root, signing key, revocation list.

    Raises:
        EvidenceError: as `verify_chain`; `no-endorsement` also without a revocation list.
    """
    try:
        refusal: EvidenceError | None = None
        for anchor in _pinned(product, endorsements, anchors, now):
            try:
                signer, root = _authority(anchor, product, _signer_name(product, kind), endorsements, now)
                if not _check_revocation(signer, root, endorsements, now):
                    endorsements.find(REVOCATION_LIST, f"ARK-{product}", now)  # refuses, and says what is missing
            except EvidenceError as error:
                refusal = refusal or error
                continue
            return
    except UNREADABLE as error:
        raise amd_extensions.malformed(str(error)) from error
    assert refusal is not None
    raise refusal


def _verify_chain(
    leaf: x509.Certificate, endorsements: Endorsements, anchors: Sequence[Anchor], now: int
) -> EndorsementKey:
    kind, product = _kind(leaf)
    refusal: EvidenceError | None = None
    for anchor in _pinned(product, endorsements, anchors, now):
        try:
            revocation_checked = _verify_under(anchor, leaf, product, endorsements, now)
        except EvidenceError as error:
            refusal = refusal or error
            continue
        key, said = leaf.public_key(), amd_extensions.read(leaf)
        if said.product != product or (said.chip_id is None) != (kind == "VLEK"):
            raise _wrong_product(f"the {kind} of {product} says that it is for something else")
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
            raise amd_extensions.malformed(f"the key of the {kind} is not on P-384")
        return EndorsementKey(kind, anchor, key, said, revocation_checked)
    assert refusal is not None
    raise refusal


def _pinned(product: Product, endorsements: Endorsements, anchors: Sequence[Anchor], now: int) -> list[Anchor]:
    """The anchors that are roots of the product, at least one."""
    name = f"ARK-{product}"
    known = {_fingerprint(_load(each.value)) for each in endorsements.candidates(ROOT, name)}
    if not known:
        endorsements.find(ROOT, name, now)  # refuses, and says what to import
    pinned = [anchor for anchor in anchors if anchor.fingerprint in known]
    if not pinned:
        raise EvidenceError(
            "untrusted-anchor",
            f"the platform is endorsed under a root {name} that this policy does not know",
            where=f"SHA-256 of its key {', '.join(sorted(each.hex() for each in known))}",
            advice=f'name root = "amd-{product.lower()}-root" in the policy, if AMD {product} is to be accepted',
        )
    return pinned


def _kind(leaf: x509.Certificate) -> tuple[SigningKey, Product]:
    """As the names say; whether they are true is seen when the chain is verified."""
    names = common_name(leaf.subject), common_name(leaf.issuer)
    for product in PRODUCTS:
        for kind in get_args(SigningKey):
            if names == (f"SEV-{kind}", _signer_name(product, kind)):
                return kind, product
    raise _wrong_product(f"{names[0]!r} issued by {names[1]!r} signs no reports")


def _signer_name(product: Product, kind: SigningKey) -> str:
    return f"SEV-{product}" if kind == "VCEK" else f"SEV-VLEK-{product}"


def _verify_under(
    anchor: Anchor, leaf: x509.Certificate, product: Product, endorsements: Endorsements, now: int
) -> bool:
    """Returns whether a revocation list was at hand."""
    signer, root = _authority(anchor, product, common_name(leaf.issuer), endorsements, now)
    _check_issued_by(leaf, signer)
    return _check_revocation(signer, root, endorsements, now)


def _authority(
    anchor: Anchor, product: Product, signer_name: str, endorsements: Endorsements, now: int
) -> tuple[x509.Certificate, x509.Certificate]:
    """The signing key of that name and the root above it."""

    def is_pinned(certificate: x509.Certificate) -> bool:
        return _fingerprint(certificate) == anchor.fingerprint

    root = _find(ROOT, f"ARK-{product}", endorsements, now, is_pinned)
    _check_issued_by(root, root)
    key_id = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.key_identifier

    def is_of_root(certificate: x509.Certificate) -> bool:
        issuer = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        return issuer.key_identifier == key_id

    signer = _find(SIGNING_KEY, signer_name, endorsements, now, is_of_root)
    _check_issued_by(signer, root)
    return signer, root


def _find(
    kind: EndorsementType,
    name: str,
    endorsements: Endorsements,
    now: int,
    fits: Callable[[x509.Certificate], bool],
) -> x509.Certificate:
    """The one that fits: test roots bear the names of AMD's."""
    known = [each for each in endorsements.candidates(kind, name) if fits(_load(each.value))]
    return _load(Endorsements(known).find(kind, name, now).value)


@lru_cache(maxsize=MAX_REMEMBERED)
def _fingerprint(certificate: x509.Certificate) -> bytes:
    key = certificate.public_key()
    return key_fingerprint(key) if isinstance(key, rsa.RSAPublicKey) else b""


def _check_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    name, above = common_name(certificate.subject), common_name(issuer.subject)
    pss = certificate.signature_algorithm_oid == SignatureAlgorithmOID.RSASSA_PSS
    if not pss or not isinstance(certificate.signature_hash_algorithm, hashes.SHA384):
        raise amd_extensions.malformed(f"{name} is not signed with RSA-PSS and SHA-384")
    try:
        certificate.verify_directly_issued_by(issuer)
        authority = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        signs_certificates = issuer.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except (InvalidSignature, ValueError, TypeError) as error:
        raise _bad_signature(f"{name} is not signed by {above}") from error
    if not authority or not signs_certificates:
        raise amd_extensions.malformed(f"{above} may not sign certificates")


def _check_revocation(signer: x509.Certificate, root: x509.Certificate, endorsements: Endorsements, now: int) -> bool:
    name, key = common_name(root.subject), root.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    known = endorsements.candidates(REVOCATION_LIST, name)
    ours = [each for each in known if _is_signed(x509.load_der_x509_crl(each.value), key)]
    if not ours:
        if known:
            raise _bad_signature(f"the revocation list is not signed by {name}")
        return False
    current = x509.load_der_x509_crl(Endorsements(ours).find(REVOCATION_LIST, name, now).value)
    revocation = find_revocation(current, signer, f"{common_name(signer.subject)}, which vouches for the platform,")
    if revocation is not None:
        raise revocation
    return True


def _is_signed(revocation_list: x509.CertificateRevocationList, key: rsa.RSAPublicKey) -> bool:
    try:
        key.verify(revocation_list.signature, revocation_list.tbs_certlist_bytes, _PSS, hashes.SHA384())
    except InvalidSignature:
        return False
    return True


def _wrong_product(what: str) -> EvidenceError:
    return EvidenceError(
        "wrong-product", what, advice="do not use it; the chain was put together from certificates of several products"
    )


def _bad_signature(what: str) -> EvidenceError:
    return EvidenceError(
        "bad-endorsement-signature",
        what,
        advice="do not use it; the chain was altered, or put together from several",
    )
