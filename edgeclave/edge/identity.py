"""Who is at the other end of a TLS connection, read from its certificate.

- A caller is the module named in the certificate's subject alternative name,
  `azureiot://<hub>/devices/<d>/modules/<m>`, as a URI or, as aziot-edged writes it, as a DNS name
  `URI: azureiot://...`. Never the common name: a module chooses that.
- A caller's certificate must be for client authentication. A module gets *server* certificates for any name that it
  asks for, but identity certificates only for itself.
- A server is the module that its certificate names, and the certificate names nothing else: aziot-edged adds the
  asking module's own id to the name it asked for, so an impostor's certificate has one name too many.

>>> ModuleIdentity.parse("azureiot://Hub.Azure-Devices.net/devices/edge01/modules/enclave_broker")
ModuleIdentity(hub='hub.azure-devices.net', device='edge01', module='enclave_broker')
"""

from __future__ import annotations

import functools
import ssl
from dataclasses import dataclass
from typing import TypeVar

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from edgeclave.errors import EdgeclaveError

SCHEME = "azureiot://"
DNS_NAME_PREFIX = "URI: "
MAX_IDENTITY_CHARACTERS = 512
"""Hub name, device id and module id are at most 128 characters each in IoT Hub."""
MAX_CERTIFICATE_BYTES = 16 * 1024
_ADVICE = "use the identity certificate from the IoT Edge workload API (POST /modules/<id>/certificate/identity)"
_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


class IdentityError(EdgeclaveError):
    """A certificate or identity that does not say which module it is about."""


@dataclass(frozen=True, slots=True)
class ModuleIdentity:
    """One module of one device of one hub. Device and module ids are case-sensitive, the hub's name is not."""

    hub: str
    device: str
    module: str

    @classmethod
    def parse(cls, text: str) -> ModuleIdentity:
        """Read `azureiot://<hub>/devices/<d>/modules/<m>`; ids stand in it as they are, without percent-encoding."""
        parts = text.removeprefix(SCHEME).split("/")
        printable = text.isascii() and text.isprintable() and " " not in text
        if (
            not text.startswith(SCHEME)
            or len(text) > MAX_IDENTITY_CHARACTERS
            or not printable
            or len(parts) != 5
            or not all(parts)
            or (parts[1], parts[3]) != ("devices", "modules")
        ):
            raise IdentityError(
                "malformed-identity",
                "an identity is written azureiot://<hub>/devices/<device>/modules/<module>",
                where=repr(text[:MAX_IDENTITY_CHARACTERS]),
            )
        return cls(parts[0].lower(), parts[2], parts[4])

    def __str__(self) -> str:
        return f"{SCHEME}{self.hub}/devices/{self.device}/modules/{self.module}"


@dataclass(frozen=True, slots=True)
class Peer:
    """A caller: its identity, and until when its certificate says so (seconds since 1970)."""

    identity: ModuleIdentity
    not_after: float


@functools.lru_cache(maxsize=256)
def read_peer(certificate: bytes) -> Peer:
    """The module that a client certificate (DER, already verified by TLS against the trust bundle) belongs to.

    Raises:
        IdentityError: malformed-certificate, not-a-client-certificate, no-module-identity, ambiguous-identity,
            malformed-identity.
    """
    parsed, alternative_names = _parse(certificate)
    usage = _extension(parsed, x509.ExtendedKeyUsage)
    if usage is None or ExtendedKeyUsageOID.CLIENT_AUTH not in usage:
        raise IdentityError(
            "not-a-client-certificate", "the certificate is not for client authentication", advice=_ADVICE
        )
    identities = set()
    if alternative_names is not None:
        uris = alternative_names.get_values_for_type(x509.UniformResourceIdentifier)
        names = alternative_names.get_values_for_type(x509.DNSName)
        written = [uri for uri in uris if uri.startswith(SCHEME)]
        written += [name.removeprefix(DNS_NAME_PREFIX) for name in names if name.startswith(DNS_NAME_PREFIX + SCHEME)]
        identities = {ModuleIdentity.parse(text) for text in written}
    if not identities:
        raise IdentityError(
            "no-module-identity", "the certificate names no module; its common name does not count", advice=_ADVICE
        )
    if len(identities) > 1:
        raise IdentityError("ambiguous-identity", "the certificate names more than one module", advice=_ADVICE)
    return Peer(identities.pop(), parsed.not_valid_after_utc.timestamp())


def peer_of(connection: ssl.SSLObject | None) -> Peer:
    """The caller at the other end of a server's TLS connection. Raises IdentityError (also no-certificate)."""
    certificate = connection.getpeercert(binary_form=True) if connection is not None else None
    if not certificate:
        raise IdentityError("no-certificate", "the caller showed no certificate", advice=_ADVICE)
    return read_peer(certificate)


def peer_identity(connection: ssl.SSLObject | None) -> ModuleIdentity:
    """The module at the other end of a server's TLS connection. Raises IdentityError."""
    return peer_of(connection).identity


def check_server_certificate(certificate: bytes, module_id: str) -> None:
    """Raise `ssl.SSLCertVerificationError` unless the certificate (DER) names this module and nothing else."""
    try:
        _, alternative_names = _parse(certificate)
    except IdentityError as error:
        raise ssl.SSLCertVerificationError(str(error)) from error
    names = {str(name.value) for name in alternative_names or ()}
    if alternative_names is None or any(not isinstance(name, x509.DNSName) for name in alternative_names):
        raise ssl.SSLCertVerificationError(f"the server's certificate must name {module_id} as its only DNS name")
    if names != {module_id}:
        others = ", ".join(sorted(names - {module_id})) or "no name"
        raise ssl.SSLCertVerificationError(
            f"the server's certificate for {module_id} also names {others}: another module asked for it"
            if module_id in names
            else f"the server's certificate names {others}, not {module_id}"
        )


def expect_server(context: ssl.SSLContext, module_id: str) -> None:
    """Make a client context end every handshake with a server whose certificate is not `module_id`'s own.

    The check runs inside the handshake, before a byte is sent (`SSLContext.sslobject_class` exists for that).
    """

    class CheckedConnection(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            check_server_certificate(self.getpeercert(binary_form=True) or b"", module_id)

    context.sslobject_class = CheckedConnection


def _parse(certificate: bytes) -> tuple[x509.Certificate, x509.SubjectAlternativeName | None]:
    if len(certificate) > MAX_CERTIFICATE_BYTES:
        raise IdentityError("malformed-certificate", "the certificate is too long", advice=_ADVICE)
    try:
        parsed = x509.load_der_x509_certificate(certificate)
        return parsed, _extension(parsed, x509.SubjectAlternativeName)
    except (
        ValueError,
        TypeError,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
        x509.InvalidVersion,
    ) as error:
        raise IdentityError("malformed-certificate", "the certificate cannot be read", advice=_ADVICE) from error


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
