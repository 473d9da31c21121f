"""Wires the runner together: twin in, enclaves, link for the broker, evidence and reports out."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from typing import Any

from edgeclave.edge.certificates import CertificateKeeper
from edgeclave.edge.hub import HubConnection, HubOffline
from edgeclave.edge.identity import ModuleIdentity
from edgeclave.edge.link import LINK_PORT, LinkServer
from edgeclave.edge.outbox import Outbox
from edgeclave.edge.service import Service
from edgeclave.edge.store import listen_address
from edgeclave.edge.workload import WorkloadClient
from edgeclave.errors import ConfigurationError, EdgeclaveError
from edgeclave.platforms.emulator import Emulator
from ta_runner.delivery import Delivery
from ta_runner.instance import Host
from ta_runner.link_server import RequestHandler
from ta_runner.metrics import RunnerMetrics
from ta_runner.packages import PackageCache
from ta_runner.reconciler import Reconciler
from ta_runner.reporting import Reporter
from ta_runner.status import reported_reason
from ta_runner.store import RunnerStore

SERVER_NAME = "ta_runner"
BROKER_MODULE = "enclave_broker"
OBSERVE_SECONDS = 2
LAST_REPORT_SECONDS = 0.5
CLOSE_HUB_SECONDS = 1.0


async def main(service: Service) -> None:
    """Runs until the service stops."""
    runner = Runner(service)
    await runner.start()
    try:
        await runner.until_stopped()
    finally:
        await runner.stop()


class Runner:
    """The running module."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._store = RunnerStore(service.state / "runner.sqlite")
        self._outbox = Outbox(self._store.connection)
        self._delivery = Delivery(self._store, self._outbox)
        self._metrics = RunnerMetrics(service.registry)
        self._hub = HubConnection()
        self._reporter = Reporter(self._describe, self._hub.report)
        folders = service.state / "emulator", service.state / "compiled"
        self._platforms = {
            platform.name: platform for platform in (Emulator(*folders), Emulator(*folders, counter=True))
        }
        self._descriptions = {name: _describe_platform(platform) for name, platform in self._platforms.items()}
        self._reconciler = Reconciler(
            Host(
                platforms=self._platforms,
                packages=PackageCache(service.state / "packages"),
                store=self._store,
                delivery=self._delivery,
                metrics=self._metrics,
                changed=self._reporter.changed,
            )
        )
        self._link: LinkServer | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Opens the link and begins to follow the twin; does not wait for the hub.

        Raises:
            EdgeclaveError: the environment, the workload API or a port is not usable.
        """
        workload = WorkloadClient.from_environment()
        keeper = CertificateKeeper(workload)
        context = await keeper.server_context(SERVER_NAME)
        broker = ModuleIdentity(workload.hub_name.lower(), workload.device_id, BROKER_MODULE)
        self._link = LinkServer(RequestHandler(self._reconciler, self._store), context, broker)
        await self._listen(self._link)
        self._hub.on_desired(self._reconciler.apply)
        self._service.checks["hub"] = lambda: None if self._hub.connected else "not connected"
        self._service.checks["trusted_apps"] = self._unhealthy_apps
        for work in (
            self._follow_hub(),
            keeper.run(),
            self._delivery.repeat_evidence(self._reconciler.running),
            self._observe(),
        ):
            self._tasks.append(asyncio.create_task(work))

    async def until_stopped(self) -> None:
        """Returns when the service is to stop; raises when a part that must always run has failed."""
        stopping = asyncio.create_task(self._service.stopping.wait())
        try:
            done, _ = await asyncio.wait({stopping, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()
        finally:
            stopping.cancel()

    async def stop(self) -> None:
        """Ends enclaves with close records, says so, disconnects."""
        if self._link is not None:
            await asyncio.gather(self._link.stop(), self._reconciler.stop())
        with contextlib.suppress(HubOffline, TimeoutError):
            async with asyncio.timeout(LAST_REPORT_SECONDS):
                await self._reporter.report_now()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_HUB_SECONDS):
                await self._hub.close()
        self._store.close()

    async def _follow_hub(self) -> None:
        await self._hub.connect()
        self._reporter.resume(await self._hub.reported())
        await asyncio.gather(self._reporter.run(), self._outbox.drain(self._hub.send))

    async def _listen(self, link: LinkServer) -> None:
        address = listen_address()
        try:
            await link.start(address)
        except OSError as error:
            raise ConfigurationError(
                "port-in-use",
                f"the link's port cannot be opened: {error.strerror}",
                where=f"{address}:{LINK_PORT}",
                advice="run one process of this module at a time",
            ) from error

    async def _observe(self) -> None:
        while True:
            self._metrics.outbox_messages.set(len(self._outbox))
            self._metrics.outbox_bytes.set(self._outbox.size_bytes)
            self._reconciler.observe(lambda name, calls: self._metrics.queue.labels(name).set(calls))
            await asyncio.sleep(OBSERVE_SECONDS)

    def _describe(self) -> dict[str, Any]:
        statuses = self._reconciler.statuses()
        return {
            "trustedApps": {name: status.reported() for name, status in sorted(statuses.items())},
            "platforms": self._descriptions,
            "reason": reported_reason(self._reconciler.problem),
        }

    def _unhealthy_apps(self) -> str | None:
        wanted = self._reconciler.wanted().items()
        down = [f"{name} is {app.status.state}" for name, app in wanted if app.status.state in ("backoff", "failed")]
        return ", ".join(down) or None


def _describe_platform(emulator: Emulator) -> dict[str, Any]:
    probe = emulator.probe()
    try:
        anchor = base64.b64encode(emulator.anchor()).decode()
    except EdgeclaveError as error:
        return {"available": False, "anchor": None, "detail": str(error)[:200]}
    return {"available": probe.available, "anchor": anchor, "detail": probe.detail[:200]}
