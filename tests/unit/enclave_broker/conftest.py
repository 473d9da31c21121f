"""A certificate authority of any certificate one can think of, and a CONNECT proxy that stands in for DNS."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
HUB, DEVICE = "hub.example", "edge01"


def identity(module: str, *, hub: str = HUB, device: str = DEVICE) -> str:
    return f"azureiot://{hub}/devices/{device}/modules/{module}"


@dataclass
class Leaf:
    certificate: x509.Certificate
    pem: bytes
    """Key and chain."""

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)


@dataclass
class Authority:
    """Issues leaves directly from its root."""

    folder: Path
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test root")])
        self.root = (
            self._builder("test root", self.key, days=30)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    def issue(
        self,
        common_name: str = "somebody",
        *,
        names: Sequence[x509.GeneralName] = (),
        usage: Sequence[x509.ObjectIdentifier] | None = (CLIENT,),
        days: float = 1,
    ) -> Leaf:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(common_name, key, days=days).add_extension(
            x509.BasicConstraints(ca=False, path_length=None), critical=True
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        key_pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Leaf(certificate, key_pem + certificate.public_bytes(serialization.Encoding.PEM))

    def module(self, module: str, *, hub: str = HUB, device: str = DEVICE, days: float = 1) -> Leaf:
        uri = x509.UniformResourceIdentifier(identity(module, hub=hub, device=device))
        return self.issue(module, names=[uri], days=days)

    def server(self, *names: str) -> Leaf:
        return self.issue(names[0], names=[x509.DNSName(name) for name in names], usage=(SERVER,))

    def server_context(self, leaf: Leaf) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        return self._prepare(context, leaf)

    def client_context(self, leaf: Leaf | None) -> ssl.SSLContext:
        return self._prepare(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), leaf)

    def _prepare(self, context: ssl.SSLContext, leaf: Leaf | None) -> ssl.SSLContext:
        context.load_verify_locations(cadata=self.root.public_bytes(serialization.Encoding.PEM).decode())
        if leaf is not None:
            path = self.folder / "leaf.pem"
            path.write_bytes(leaf.pem)
            context.load_cert_chain(path)
        return context

    def _builder(self, common_name: str, key: ec.EllipticCurvePrivateKey, *, days: float) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=2))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@dataclass
class Proxy:
    """CONNECT to a module's name leads to the loopback port that `ports` has for it."""

    ports: dict[str, int] = field(default_factory=dict)
    connections: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        host = head.split()[1].decode().partition(":")[0]
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.ports[host])
        except (OSError, KeyError):
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        self.connections += [writer, far_writer]
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))

    def cut(self) -> None:
        """Break every connection, as a cable would."""
        while self.connections:
            self.connections.pop().transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


@pytest.fixture
async def proxy(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proxy]:
    started = Proxy()
    server = await asyncio.start_server(started.serve, "127.0.0.1", 0)
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    monkeypatch.delenv("no_proxy", raising=False)
    yield started
    started.cut()
    server.close()
