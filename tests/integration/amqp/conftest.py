"""A message log on SQLite, a certificate authority and the endpoint, for the unmodified azure-eventhub client."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import random
import sqlite3
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edgeclave.simulator.amqp.log import LogEntry
from edgeclave.simulator.amqp.server import EventHubEndpoint

HUB, KEY_NAME, KEY = "sim-hub", "iothubowner", "c2VjcmV0IGtleSBvZiB0aGUgdGVzdA=="


class SqliteLog:
    """The `MessageLog` of these tests: one table, durable, offsets that are not sequence numbers."""

    def __init__(self, path: Path, partitions: int = 2) -> None:
        self.partitions = tuple(str(number) for number in range(partitions))
        self._database = sqlite3.connect(path)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS log (partition TEXT, sequence INTEGER, offset TEXT, enqueued INTEGER,"
            " body BLOB, properties TEXT, system TEXT, PRIMARY KEY (partition, sequence))"
        )
        self._changed = asyncio.Event()

    def append(
        self,
        partition: str,
        body: bytes,
        *,
        enqueued_ms: int = 1_700_000_000_000,
        properties: dict[str, str] | None = None,
        **system: str,
    ) -> int:
        sequence = self.bounds(partition)[1] + 1
        named = {name.replace("_", "-"): text for name, text in system.items()}
        row = (partition, sequence, str(sequence * 100), enqueued_ms, body, json.dumps(properties or {}))
        with self._database:
            self._database.execute("INSERT INTO log VALUES (?,?,?,?,?,?,?)", (*row, json.dumps(named)))
        self._changed.set()
        self._changed = asyncio.Event()
        return sequence

    def forget_before(self, partition: str, sequence: int) -> None:
        with self._database:
            self._database.execute("DELETE FROM log WHERE partition=? AND sequence<?", (partition, sequence))

    def read(self, partition: str, after_sequence: int, limit: int) -> list[LogEntry]:
        rows = self._database.execute(
            "SELECT sequence, offset, enqueued, body, properties, system FROM log"
            " WHERE partition=? AND sequence>? ORDER BY sequence LIMIT ?",
            (partition, after_sequence, limit),
        )
        return [
            LogEntry(number, offset, enqueued, body, json.loads(properties), json.loads(system))
            for number, offset, enqueued, body, properties, system in rows
        ]

    def bounds(self, partition: str) -> tuple[int, int, int]:
        row = self._database.execute(
            "SELECT min(sequence), max(sequence), max(enqueued) FROM log WHERE partition=?", (partition,)
        ).fetchone()
        return (0, -1, 0) if row[0] is None else (row[0], row[1], row[2])

    async def wait(self, partition: str, after_sequence: int) -> None:
        while self.bounds(partition)[1] <= after_sequence:
            await self._changed.wait()


@dataclass(frozen=True)
class Authority:
    """A certificate authority on disk with one server certificate for a loopback address of this test's own."""

    folder: Path
    host: str

    @property
    def certificate(self) -> str:
        return str(self.folder / "ca.pem")

    @classmethod
    def create(cls, folder: Path) -> Authority:
        host = f"127.{random.randint(10, 250)}.{random.randint(1, 250)}.{random.randint(2, 250)}"
        key, name = ec.generate_private_key(ec.SECP256R1()), _name("test CA")
        now = datetime.datetime.now(datetime.UTC)
        common = {"not_before": now - datetime.timedelta(days=1), "not_after": now + datetime.timedelta(days=2)}
        authority = (
            _builder(name, name, key, **common)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        server_key = ec.generate_private_key(ec.SECP256R1())
        server = (
            _builder(_name(host), name, server_key, **common)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
            .sign(key, hashes.SHA256())
        )
        (folder / "ca.pem").write_bytes(authority.public_bytes(serialization.Encoding.PEM))
        private = server_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / "server.pem").write_bytes(private + server.public_bytes(serialization.Encoding.PEM))
        return cls(folder, host)

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.pem")
        return context

    def connection_string(self, key: str = KEY, name: str = KEY_NAME, hub: str = HUB) -> str:
        return f"Endpoint=sb://{self.host}/;SharedAccessKeyName={name};SharedAccessKey={key};EntityPath={hub}"


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    not_before: datetime.datetime,
    not_after: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )


@asynccontextmanager
async def running(log: SqliteLog, authority: Authority) -> AsyncIterator[EventHubEndpoint]:
    """The endpoint on TLS at the port that azure-eventhub insists on."""
    endpoint = EventHubEndpoint(log, hub_name=HUB, shared_access_keys={KEY_NAME: KEY})
    await endpoint.start(authority.host, ssl_context=authority.server_context())
    try:
        yield endpoint
    finally:
        await endpoint.stop()


@pytest.fixture
def log(tmp_path: Path) -> SqliteLog:
    return SqliteLog(tmp_path / "log.sqlite")


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("pki"))
