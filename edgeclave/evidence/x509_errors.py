"""What certificates and revocation lists need beyond cryptography: all that it raises, and one accepted form."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

Signed = x509.Certificate | x509.CertificateRevocationList

UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
)
"""For what it cannot read; some of it only at a later look."""


def der_in_one_form(signed: Signed) -> bytes:
    """Its DER, whose signature must be whole bytes: nobody signs the count of unused bits in front of it.

    Raises:
        ValueError: a copy in another form than the one that was issued.
    """
    der = signed.public_bytes(serialization.Encoding.DER)
    if der[-len(signed.signature) - 1] != 0:
        raise ValueError("the signature is not whole bytes")
    return der
