"""Signing keys on disk: `NAME.key.pem` and its certificates `NAME.cert.pem`, leaf first, in the key folder.

A key without certificates gets a self-signed root of its own: good for development, and for anyone who pins the
signer_id. A leaf issued by an offline root is used as it is, when its chain stands in `NAME.cert.pem`.
"""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from edgeclave.cose import spki
from edgeclave.errors import ConfigurationError
from edgeclave.keys import key_or_new, private_key_path, write_whole

MAX_CHAIN_FILE_BYTES = 64 << 10  # four certificates of at most 8 KiB, as text
_NOT_BEFORE = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)  # a device without a clock need not doubt it
_NOT_AFTER = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)  # RFC 5280 4.1.2.5: no expiry date


def signing_key(folder: Path, name: str) -> tuple[ec.EllipticCurvePrivateKey, list[x509.Certificate]]:
    """The named key and its chain, leaf first; what is missing is made, the key readable by its owner only.

    Raises:
        ConfigurationError: `bad-signing-certificate`, and what `edgeclave.keys` raises for a key that cannot be used.
    """
    key_file = private_key_path(folder, name)
    certificate_file = folder / f"{name}.cert.pem"
    if not key_file.exists() and certificate_file.exists():
        raise _bad_certificate(certificate_file, f"it belongs to a key that is gone: {key_file.name} is missing")
    key = key_or_new(folder, name)
    if not certificate_file.exists():
        write_whole(certificate_file, self_signed(key, name).public_bytes(Encoding.PEM))
    chain = load_chain(certificate_file)
    leaf = chain[0].public_key()
    if not isinstance(leaf, ec.EllipticCurvePublicKey) or spki(leaf) != spki(key.public_key()):
        raise _bad_certificate(certificate_file, f"its first certificate is of another key than {key_file.name}")
    return key, chain


def load_chain(path: Path) -> list[x509.Certificate]:
    """A PEM file of certificates, leaf first. Raises ConfigurationError `bad-signing-certificate`."""
    try:
        with path.open("rb") as file:
            return x509.load_pem_x509_certificates(file.read(MAX_CHAIN_FILE_BYTES))
    except OSError as error:
        raise _bad_certificate(path, f"it cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise _bad_certificate(path, "it is not a PEM file of certificates") from error


def self_signed(key: ec.EllipticCurvePrivateKey, name: str) -> x509.Certificate:
    """A root that may sign packages itself and may issue leaves that do (`edgeclave.ta.signature` has the rules)."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )


def _bad_certificate(path: Path, what: str) -> ConfigurationError:
    return ConfigurationError(
        "bad-signing-certificate",
        f"this signing certificate cannot be used: {what}",
        where=str(path),
        advice="put the chain of this key there, leaf first, or move the file away to get a self-signed one",
    )
