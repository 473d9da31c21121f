"""The simulator's certificates: root CA -> edge CA -> leaves. CA keys and certificates stay on disk across restarts.

Form follows RFC 5280 closely enough for OpenSSL's strict mode (Python 3.13's default): key identifiers everywhere,
critical basic constraints and key usage.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgeclave.errors import ConfigurationError

CA_LIFETIME = datetime.timedelta(days=3650)
MAX_LEAF_LIFETIME = datetime.timedelta(days=90)
MAX_COMMON_NAME = 64  # RFC 5280 ub-common-name
_BACKDATE = datetime.timedelta(minutes=5)
_DNS_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_CURVE = ec.SECP256R1


@dataclass(frozen=True)
class Issued:
    """PEM private key (PKCS8), PEM chain leaf first (without the root), and when the leaf expires."""

    private_key: str
    chain: str
    expires: datetime.datetime


class Pki:
    """Issues certificates for one simulator state.

    Args:
        directory: made if missing, mode 0700; holds `root-ca.pem`, `edge-ca.pem` and their keys (0600).

    Raises:
        ConfigurationError: `simulator-pki-unusable` when files are there but cannot be used.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        root_certificate, root_key = self._load_or_make("root-ca", "Edgeclave simulator root CA", None)
        self._edge_certificate, self._edge_key = self._load_or_make(
            "edge-ca", "Edgeclave simulator edge CA", (root_certificate, root_key)
        )
        self.root_pem = _pem(root_certificate)
        self.ca_file = directory / "root-ca.pem"

    def server_certificate(self, common_name: str, names: Sequence[str], lifetime: datetime.timedelta) -> Issued:
        """For serverAuth; `names` become DNS or IP SANs.

        Raises:
            ValueError: a name that cannot stand in a certificate.
        """
        return self._issue(common_name, [_host_name(name) for name in names], ExtendedKeyUsageOID.SERVER_AUTH, lifetime)

    def identity_certificate(self, common_name: str, uri: str, lifetime: datetime.timedelta) -> Issued:
        """For clientAuth, with the identity as URI SAN.

        Raises:
            ValueError: a name that cannot stand in a certificate.
        """
        names = [x509.UniformResourceIdentifier(uri)]
        return self._issue(common_name, names, ExtendedKeyUsageOID.CLIENT_AUTH, lifetime)

    def server_context(self, names: Sequence[str]) -> ssl.SSLContext:
        """A TLS context for the simulator's own servers, with a fresh certificate for these names."""
        issued = self.server_certificate(names[0], names, CA_LIFETIME)
        path = self._directory / "server.pem"
        _write_private(path, issued.private_key + issued.chain)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(path)
        return context

    def device_context(self, names: Sequence[str]) -> ssl.SSLContext:
        """A server context that also lets clients show a certificate; `trust` says which.

        A trusted certificate need not be an authority: a device's own may be trusted by itself.
        """
        context = self.server_context(names)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context

    def _issue(
        self,
        common_name: str,
        names: Sequence[x509.GeneralName],
        usage: x509.ObjectIdentifier,
        lifetime: datetime.timedelta,
    ) -> Issued:
        if not 0 < len(common_name) <= MAX_COMMON_NAME:
            raise ValueError(f"a common name has 1 to {MAX_COMMON_NAME} characters")
        key = ec.generate_private_key(_CURVE())
        expires = min(_now() + lifetime, self._edge_certificate.not_valid_after_utc)
        certificate = (
            _builder(common_name, self._edge_certificate.subject, key, self._edge_key, expires)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._edge_key, hashes.SHA256())
        )
        return Issued(_key_pem(key), _pem(certificate) + _pem(self._edge_certificate), certificate.not_valid_after_utc)

    def _load_or_make(
        self, name: str, subject: str, issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None
    ) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        certificate_file, key_file = self._directory / f"{name}.pem", self._directory / f"{name}.key.pem"
        if certificate_file.exists():
            return _load(certificate_file, key_file)
        key = ec.generate_private_key(_CURVE())
        issuer_name = issuer[0].subject if issuer else _name(subject)
        issuer_key = issuer[1] if issuer else key
        certificate = (
            _builder(subject, issuer_name, key, issuer_key, _now() + CA_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0 if issuer else None), critical=True)
            .add_extension(_key_usage(ca=True), critical=True)
            .sign(issuer_key, hashes.SHA256())
        )
        _write_private(key_file, _key_pem(key))
        _write_private(certificate_file, _pem(certificate))  # last: its presence means the pair is complete
        return certificate, key


def trust(context: ssl.SSLContext, certificate: x509.Certificate) -> None:
    """From now on clients may show this certificate or one that it signed."""
    context.load_verify_locations(cadata=certificate.public_bytes(serialization.Encoding.DER))


def _load(certificate_file: Path, key_file: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
    except (OSError, ValueError) as error:
        raise _unusable(f"cannot be read: {error}", certificate_file) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
        raise _unusable("is not the certificate of the key beside it", certificate_file)
    if certificate.not_valid_after_utc < _now():
        raise _unusable("has expired", certificate_file)
    return certificate, key


def _unusable(what: str, path: Path) -> ConfigurationError:
    return ConfigurationError(
        "simulator-pki-unusable",
        f"a certificate authority of the simulator {what}",
        where=str(path),
        advice="delete its pki folder to make new ones; programs then need the new CA file",
    )


def _builder(
    subject: str,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    expires: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - _BACKDATE)
        .not_valid_after(expires)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _host_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        if len(name) > 253 or not all(_DNS_LABEL.fullmatch(label) for label in name.split(".")):
            raise ValueError(f"{name[:80]!r} is not a host name") from None
        return x509.DNSName(name)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _write_private(path: Path, text: str) -> None:
    """Writes whole or not at all, mode 0600."""
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
