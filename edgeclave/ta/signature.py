"""The signature over a trusted application's identity, and the identity that follows from it (PROTOCOL section 2).

What is signed is the identity CBOR `["edgeclave-ta/1", manifest map, SHA-256(wasm)]`; its SHA-256 is the unique_id. The
certificate chain stands in the protected header (x5chain, RFC 9360), leaf first. The signer_id is the SHA-256 of the
root's public key (SPKI), so a signer renews leaves without becoming another signer.

A chain is accepted by these rules, and no others:

- one to four certificates; the last is self-signed; each other is signed by the next and names it as issuer;
- every key is P-256 and every signature ecdsa-with-SHA256;
- an issuer is a CA (basicConstraints, keyCertSign if keyUsage is there, pathLenConstraint obeyed);
- the leaf may sign (digitalSignature if keyUsage is there, codeSigning if extendedKeyUsage is there) and, unless it is
  the root itself, is no CA;
- no critical extension other than those three;
- notBefore and notAfter are **not** checked: a TEE has no trusted time. A signer revokes by raising the security
  version that relying parties require, or by a new root.

Whether a signer is acceptable is not decided here but by each relying party's policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import cbor2
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, SignatureAlgorithmOID

from edgeclave.cose import ALG, TYP, X5CHAIN, MessageKind, SignatureError, dcbor, parse, sha256, sign, spki, verify
from edgeclave.errors import PackageError
from edgeclave.ta.identity import Identity
from edgeclave.ta.manifest import Manifest
from edgeclave.ta.package import Package

PACKAGE_SIGNATURE = MessageKind("application/edgeclave-ta+cose", "edgeclave/ta/1")
IDENTITY_FORMAT = "edgeclave-ta/1"
MAX_CHAIN = 4
MAX_CERTIFICATE_BYTES = 8 << 10
_Extension = TypeVar("_Extension", bound=x509.ExtensionType)
_CRITICAL = {ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.EXTENDED_KEY_USAGE}


@dataclass(frozen=True)
class VerifiedPackage:
    """A package whose signature verifies. `identity.debug` is the manifest's; platform and runtime may add theirs."""

    identity: Identity
    manifest: Manifest
    wasm: memoryview
    digest: str
    chain: tuple[x509.Certificate, ...]


def identity_cbor(manifest: Manifest, wasm: bytes) -> bytes:
    """The signed bytes; their SHA-256 is the unique_id."""
    return dcbor([IDENTITY_FORMAT, manifest.to_map(), sha256(wasm)])


def sign_package(
    manifest: Manifest, wasm: bytes, key: ec.EllipticCurvePrivateKey, chain: Sequence[x509.Certificate]
) -> bytes:
    """Returns the COSE_Sign1 for `write_package`; `chain` is leaf first, and the leaf certifies `key`.

    Raises:
        PackageError: `bad-manifest`, `bad-signing-chain`.
    """
    manifest.check()
    header = signature_header(chain)
    if spki(chain[0].public_key()) != spki(key.public_key()):  # type: ignore[arg-type]  # the chain was checked
        raise _bad_chain("the first certificate is of another key than the one that signs")
    return sign(PACKAGE_SIGNATURE, identity_cbor(manifest, wasm), key, protected=header)


def signature_header(chain: Sequence[x509.Certificate]) -> dict[int, Any]:
    """The protected header parameters besides `alg` and `typ`, for a chain that was checked.

    Raises:
        PackageError: `bad-signing-chain`.
    """
    _check_chain(chain)
    encoded = [certificate.public_bytes(Encoding.DER) for certificate in chain]
    # RFC 9360: one certificate is a byte string, several are an array.
    return {X5CHAIN: encoded[0] if len(encoded) == 1 else encoded}


def verify_package(package: Package) -> VerifiedPackage:
    """Verifies the chain, the signature and that it is over this very Wasm.

    Raises:
        PackageError: `bad-signature`, `bad-signing-chain`, `malformed-signature`, `wrong-wasm`, `bad-manifest`.
    """
    try:
        chain = _read_chain(parse(package.signature).protected.get(X5CHAIN))
        leaf, root = _check_chain(chain)
        signed = verify(PACKAGE_SIGNATURE, package.signature, leaf)
    except SignatureError as error:
        code = "bad-signature" if error.code == "bad-signature" else "malformed-signature"
        raise PackageError(code, error.what, where="package signature", advice="fetch the package again") from error
    if set(signed.protected) != {ALG, TYP, X5CHAIN}:
        raise _malformed("its header must hold alg, typ and x5chain only")
    manifest = _read_identity(signed.payload, package.wasm_digest)
    identity = Identity(
        unique_id=sha256(signed.payload),
        signer_id=sha256(spki(root)),
        product_id=manifest.product_id,
        security_version=manifest.security_version,
        debug=manifest.debug,
    )
    return VerifiedPackage(identity, manifest, package.wasm, package.digest, tuple(chain))


def _read_identity(payload: bytes, wasm_digest: bytes) -> Manifest:
    try:
        value: Any = cbor2.loads(payload)
        canonical = dcbor(value) == payload
    except Exception as error:
        raise _malformed("what it signs is not CBOR") from error
    if not canonical or not isinstance(value, list) or len(value) != 3 or value[0] != IDENTITY_FORMAT:
        raise _malformed(f"what it signs is not an {IDENTITY_FORMAT} identity")
    if value[2] != wasm_digest:
        raise PackageError(
            "wrong-wasm",
            "the signature is over another Wasm than the one in the package",
            where="package signature",
            advice="sign the package again",
        )
    return Manifest.from_map(value[1])


def _read_chain(x5chain: object) -> list[x509.Certificate]:
    encoded = [x5chain] if isinstance(x5chain, bytes) else x5chain
    if not isinstance(encoded, list) or (isinstance(x5chain, list) and len(encoded) < 2) or len(encoded) > MAX_CHAIN:
        raise _bad_chain(f"x5chain must hold one to {MAX_CHAIN} certificates")
    chain = []
    for der in encoded:
        if not isinstance(der, bytes) or len(der) > MAX_CERTIFICATE_BYTES:
            raise _bad_chain(f"a certificate must be DER of at most {MAX_CERTIFICATE_BYTES} bytes")
        try:
            chain.append(x509.load_der_x509_certificate(der))
        except Exception as error:  # see _check_chain
            raise _bad_chain("a certificate is not DER of X.509") from error
    return chain


def _check_chain(chain: Sequence[x509.Certificate]) -> tuple[ec.EllipticCurvePublicKey, ec.EllipticCurvePublicKey]:
    """Returns the public keys of leaf and root."""
    if not 1 <= len(chain) <= MAX_CHAIN:
        raise _bad_chain(f"it must have one to {MAX_CHAIN} certificates")
    try:
        keys = [_check_certificate(certificate) for certificate in chain]
        for certificate, issuer in pairwise(chain):
            _check_not_self_issued(certificate)
            certificate.verify_directly_issued_by(issuer)
        chain[-1].verify_directly_issued_by(chain[-1])
        for depth, issuer in enumerate(chain[1:]):
            _check_issuer(issuer, depth)
        _check_leaf(chain[0], alone=len(chain) == 1)
    except PackageError:
        raise
    except InvalidSignature:
        raise _bad_chain("a certificate is not signed by the next one, or the last not by itself") from None
    except Exception as error:  # certificates are parsed lazily, and fail with many kinds of exception
        raise _bad_chain(f"a certificate cannot be used: {error}") from error
    return keys[0], keys[-1]


def _check_certificate(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _bad_chain("every key must be on P-256")
    if certificate.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA256:
        raise _bad_chain("every certificate must be signed with ecdsa-with-SHA256")
    if any(extension.critical and extension.oid not in _CRITICAL for extension in certificate.extensions):
        raise _bad_chain("a certificate has a critical extension that is not understood here")
    return key


def _check_not_self_issued(certificate: x509.Certificate) -> None:
    if certificate.subject == certificate.issuer:
        raise _bad_chain("only the last certificate may be self-signed")


def _check_issuer(issuer: x509.Certificate, certificates_between: int) -> None:
    constraints = _extension(issuer, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        raise _bad_chain("a certificate that issued another is not a CA")
    if constraints.path_length is not None and certificates_between > constraints.path_length:
        raise _bad_chain("the chain is longer than a CA in it allows")
    usage = _extension(issuer, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        raise _bad_chain("a certificate that issued another may not sign certificates")


def _check_leaf(leaf: x509.Certificate, *, alone: bool) -> None:
    constraints = _extension(leaf, x509.BasicConstraints)
    if not alone and constraints is not None and constraints.ca:
        raise _bad_chain("a CA other than the root signed the package itself")
    usage = _extension(leaf, x509.KeyUsage)
    if usage is not None and not usage.digital_signature:
        raise _bad_chain("the first certificate may not make signatures (keyUsage)")
    purposes: Iterable[x509.ObjectIdentifier] | None = _extension(leaf, x509.ExtendedKeyUsage)
    if purposes is not None and ExtendedKeyUsageOID.CODE_SIGNING not in purposes:
        raise _bad_chain("the first certificate is not for code signing (extendedKeyUsage)")


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _bad_chain(what: str) -> PackageError:
    return PackageError(
        "bad-signing-chain", what, where="signing certificates", advice="sign with a key and chain made for signing"
    )


def _malformed(what: str) -> PackageError:
    return PackageError("malformed-signature", what, where="package signature", advice="sign the package again")
