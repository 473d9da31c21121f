"""Puts the module together: certificates, audit, link, HTTPS, hub."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from edgeclave.edge.certificates import CertificateKeeper
from edgeclave.edge.hub import HubConnection, HubOffline
from edgeclave.edge.identity import ModuleIdentity
from edgeclave.edge.service import Service
from edgeclave.edge.store import listen_address
from edgeclave.edge.twins.enclave_broker import Quotas, read_settings
from edgeclave.edge.workload import WorkloadClient
from edgeclave.errors import ConfigurationError
from enclave_broker.audit import AuditLog
from enclave_broker.callers import Callers
from enclave_broker.direct_methods import DirectMethods
from enclave_broker.gate import Gate
from enclave_broker.metrics import Metrics
from enclave_broker.operations import Operations
from enclave_broker.quotas import Limiter
from enclave_broker.runner_link import RUNNER, runner_link
from enclave_broker.server import BrokerServer

SERVER_NAME = "enclave_broker"
REPORT_AUDIT_SECONDS = 3600.0
"""How often the audit log's end is reported, so that the hub's copy pins the chain."""

_log = structlog.get_logger(__name__)


async def main(service: Service) -> None:
    """Run the broker until it is told to stop."""
    workload = WorkloadClient.from_environment()
    broker = ModuleIdentity(workload.hub_name.lower(), workload.device_id, workload.module_id)
    keeper = CertificateKeeper(workload)
    server_context = await keeper.server_context(SERVER_NAME)
    client_context = await keeper.client_context()
    metrics = Metrics(service.registry)
    limiter = Limiter(Quotas())
    metrics.waiting.set_function(lambda: limiter.waiting)
    audit = AuditLog(service.state / "audit")
    gate = Gate(audit, limiter, metrics)
    hub = HubConnection()
    async with runner_link(client_context, metrics) as link, asyncio.TaskGroup() as tasks:
        operations = Operations(gate, limiter, link, metrics)
        server = BrokerServer(operations, Callers(broker, gate), server_context)
        module = _Broker(broker, gate, limiter, audit, hub)
        hub.on_desired(module.desired)
        for name, handler in DirectMethods(operations).handlers().items():
            hub.on_method(name, handler)
        service.checks |= {"policy": module.policy_problem, RUNNER: lambda: None if link.up else link.reason}
        audit.record("started", identity=str(broker))
        await server.start(listen_address())
        background = [
            tasks.create_task(keeper.run()),
            tasks.create_task(hub.connect()),
            tasks.create_task(module.report_audit()),
        ]
        await service.stopping.wait()
        await server.stop()
        for task in background:
            task.cancel()
        await hub.close()
    audit.close()


class _Broker:
    """Takes the twin and reports what came of it. A twin that is wrong changes nothing."""

    def __init__(
        self, broker: ModuleIdentity, gate: Gate, limiter: Limiter, audit: AuditLog, hub: HubConnection
    ) -> None:
        self._broker = broker
        self._gate = gate
        self._limiter = limiter
        self._audit = audit
        self._hub = hub
        self._problem: ConfigurationError | None = None

    def policy_problem(self) -> str | None:
        """For /health."""
        if self._problem is not None:
            return str(self._problem)
        return None if self._gate.policy is not None else "the twin has not been read yet"

    async def desired(self, desired: dict[str, Any]) -> None:
        """Put the desired properties into force, all or none of them."""
        try:
            settings = read_settings(desired, self._broker)
        except ConfigurationError as error:
            self._problem = error
            self._audit.record("policy", outcome=error.code, detail=error.what)
            _log.error("twin refused", code=error.code, what=error.what, where=error.where)
        else:
            self._problem = None
            self._audit.record("policy", outcome="in-force", count=settings.policy.statement_count)
            self._gate.policy = settings.policy
            self._limiter.quotas = settings.quotas
            _log.info("policy in force", statements=settings.policy.statement_count)
        await self._report({"policy": self._policy_report(), "audit": self._audit_report()})

    async def report_audit(self) -> None:
        """Report the audit log's end from time to time, for ever."""
        while True:
            await asyncio.sleep(REPORT_AUDIT_SECONDS)
            await self._report({"audit": self._audit_report()})

    def _policy_report(self) -> dict[str, Any]:
        policy, problem = self._gate.policy, self._problem
        return {
            "statements": policy.statement_count if policy is not None else None,
            "problem": {"code": problem.code, "what": problem.what, "where": problem.where, "advice": problem.advice}
            if problem
            else None,
        }

    def _audit_report(self) -> dict[str, Any]:
        return {"sequence": self._audit.sequence, "digest": self._audit.digest}

    async def _report(self, properties: dict[str, Any]) -> None:
        try:
            await self._hub.report(properties)
        except HubOffline as error:
            _log.warning("not reported", reason=error.what)
