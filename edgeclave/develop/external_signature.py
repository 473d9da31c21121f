"""A package signature whose private key is elsewhere: in a PKCS#11 token, or in an HSM that is never online.

What is signed is the Sig_structure of COSE (RFC 9052 section 4.4) with ES256, so a signer needs its SHA-256 only. The
signature comes back as a token gives it (r | s, 64 bytes) or as OpenSSL does (DER), and is verified before it is used.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cbor2
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from edgeclave.cose import ALG, ES256, TYP, in_order
from edgeclave.errors import PackageError
from edgeclave.ta.manifest import Manifest
from edgeclave.ta.signature import PACKAGE_SIGNATURE, identity_cbor, signature_header

_SCALAR = 32
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256, FIPS 186-5
MAX_SIGNATURE_BYTES = 72
"""The longest ECDSA signature on P-256 in DER."""


@dataclass(frozen=True)
class ToBeSigned:
    """A package that lacks only its signature. `digest`, 32 bytes, is what the signer signs."""

    unique_id: bytes
    digest: bytes
    _protected: bytes
    _payload: bytes
    _signed: bytes
    _key: ec.EllipticCurvePublicKey

    @classmethod
    def of(cls, manifest: Manifest, wasm: bytes, chain: Sequence[x509.Certificate]) -> ToBeSigned:
        """Raises PackageError `bad-manifest`, `bad-signing-chain`."""
        manifest.check()
        header = {ALG: ES256, TYP: PACKAGE_SIGNATURE.media_type, **signature_header(chain)}
        protected = cbor2.dumps(in_order(header))
        payload = identity_cbor(manifest, wasm)
        signed = cbor2.dumps(["Signature1", protected, PACKAGE_SIGNATURE.context.encode(), payload])
        key = chain[0].public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)  # the chain was checked
        digest = hashlib.sha256(signed).digest()
        return cls(hashlib.sha256(payload).digest(), digest, protected, payload, signed, key)

    def finish(self, signature: bytes) -> bytes:
        """The COSE_Sign1 for `write_package`.

        Raises:
            PackageError: `signature-does-not-fit`: by another key, over another package, or no signature at all.
        """
        for r, s in _readings(signature):
            try:
                self._key.verify(encode_dss_signature(r, s), self._signed, ec.ECDSA(hashes.SHA256()))
            except InvalidSignature:
                continue
            raw = r.to_bytes(_SCALAR, "big") + min(s, _ORDER - s).to_bytes(_SCALAR, "big")  # the one accepted form
            return cbor2.dumps(cbor2.CBORTag(18, [self._protected, {}, self._payload, raw]))
        raise PackageError(
            "signature-does-not-fit",
            f"this is not a signature by the first certificate's key over digest {self.digest.hex()}, "
            f"of unique_id {self.unique_id.hex()}",
            where="signature",
            advice="sources, Wasm, keys of authorities and chain must be those of `--prepare`; compare its digest",
        )


def _readings(signature: bytes) -> Iterator[tuple[int, int]]:
    """What the bytes may mean; which of them is right shows when it verifies."""
    if len(signature) == 2 * _SCALAR:
        yield int.from_bytes(signature[:_SCALAR], "big"), int.from_bytes(signature[_SCALAR:], "big")
    with contextlib.suppress(ValueError):
        yield decode_dss_signature(signature)
