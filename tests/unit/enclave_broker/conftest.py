"""Certificates, a network of module names, and a broker made of its real parts."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from enclave_broker.audit import AuditLog
from enclave_broker.callers import Callers
from enclave_broker.gate import Gate
from enclave_broker.metrics import Metrics
from enclave_broker.operations import Operations
from enclave_broker.quotas import Limiter
from enclave_broker.runner_link import runner_link
from enclave_broker.server import BrokerServer
from prometheus_client import CollectorRegistry

from edgeclave.edge.identity import ModuleIdentity
from edgeclave.edge.link import (
    Acknowledge,
    AcknowledgeReply,
    Call,
    CallReply,
    EvidenceReply,
    GetEvidence,
    LinkClient,
    LinkError,
    LinkServer,
    List,
    ListReply,
    Reply,
    Request,
    SealedResult,
    TrustedAppSummary,
)
from edgeclave.edge.twins.enclave_broker import Quotas, read_settings
from tests.fixtures.certificates import DEVICE, HUB, Authority, Leaf
from tests.fixtures.connect_proxy import Proxy


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
async def proxy(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proxy]:
    started = Proxy()
    server = await asyncio.start_server(started.serve, "127.0.0.1", 0)
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    monkeypatch.delenv("no_proxy", raising=False)
    yield started
    started.cut()
    server.close()


@dataclass
class Runner:
    """The far end of the broker's link: answers like ta_runner would, when `gate` is open."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    seen: list[Request] = field(default_factory=list)

    async def __call__(self, request: Request) -> Reply:
        self.seen.append(request)
        await self.gate.wait()
        match request:
            case Call(method="fail"):
                return CallReply(status=422, message="no such sensor")
            case Call(method="large"):
                return CallReply(status=200, payload='"' + "x" * 200_000 + '"')
            case Call(trusted_app="missing") | GetEvidence(trusted_app="missing"):
                raise LinkError("unknown-trusted-app", "there is no missing here")
            case Call(method="busy"):
                raise LinkError("queue-full", "too many calls wait", retry_after=7)
            case Call():
                results = (SealedResult(output="anomalies", sequence=3, sealed=b"\x00\xff"),)
                return CallReply(status=200, payload=request.payload, results=results)
            case Acknowledge():
                return AcknowledgeReply(count=len(request.call_ids))
            case GetEvidence():
                return EvidenceReply(evidence=b"evidence " + (request.nonce or b"of today"))
            case List():
                summary = TrustedAppSummary(state="running", version="1.0.0", methods=("observe",))
                return ListReply(trusted_apps={"secret": summary, "anomaly": summary})


@dataclass
class Broker:
    """A broker of real parts: TLS, HTTP, gate, audit, link."""

    authority: Authority
    proxy: Proxy
    runner: Runner
    gate: Gate
    limiter: Limiter
    link: LinkClient
    link_server: LinkServer
    server: BrokerServer
    operations: Operations
    server_context: ssl.SSLContext
    registry: CollectorRegistry
    audit_folder: Path
    wall_clock: list[float]

    def put_in_force(self, desired: dict[str, Any]) -> None:
        settings = read_settings(desired, BROKER_IDENTITY)
        self.gate.policy, self.limiter.quotas = settings.policy, settings.quotas

    def audited(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.audit_folder / "audit.jsonl").read_text().splitlines()]

    @asynccontextmanager
    async def session(self, leaf: Leaf | None = None) -> AsyncIterator[aiohttp.ClientSession]:
        context = self.authority.client_context(leaf or self.authority.module("sample_analytics"))
        async with aiohttp.ClientSession(
            "https://enclave_broker:8443", trust_env=True, connector=aiohttp.TCPConnector(ssl=context)
        ) as session:
            yield session


BROKER_IDENTITY = ModuleIdentity(HUB, DEVICE, "enclave_broker")
SAMPLE_MAY = {
    "policy": {
        "statements": {
            "sample": {
                "effect": "allow",
                "identities": ["{{iot:this_device_id}}/sample_analytics", "iothub"],
                "operations": ["invoke:*", "acknowledge:anomaly", "evidence:*", "list"],
            },
            "secret": {
                "effect": "deny",
                "identities": ["{{iot:this_device_id}}/sample_analytics", "iothub"],
                "operations": ["invoke:*", "list"],
                "resources": ["secret"],
            },
        }
    }
}


@pytest.fixture
async def broker(authority: Authority, proxy: Proxy, tmp_path: Path) -> AsyncIterator[Broker]:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    limiter = Limiter(Quotas())
    audit = AuditLog(tmp_path / "audit")
    gate = Gate(audit, limiter, metrics)
    runner = Runner()
    runner.gate.set()
    link_server = LinkServer(runner, authority.server_context(authority.server("ta_runner")), BROKER_IDENTITY)
    proxy.ports["ta_runner"] = await link_server.start("127.0.0.1", 0)
    wall_clock = [time.time()]
    async with runner_link(authority.client_context(authority.module("enclave_broker")), metrics) as link:
        operations = Operations(gate, limiter, link, metrics)
        context = authority.server_context(authority.server("enclave_broker"))
        server = BrokerServer(operations, Callers(BROKER_IDENTITY, gate, lambda: wall_clock[0]), context)
        proxy.ports["enclave_broker"] = await server.start("127.0.0.1", 0)
        await link.wait_until_up()
        made = Broker(
            authority, proxy, runner, gate, limiter, link, link_server, server, operations, context, registry,
            tmp_path / "audit", wall_clock,
        )  # fmt: skip
        made.put_in_force(SAMPLE_MAY)
        yield made
        await server.stop()
    await link_server.stop()
    audit.close()
