"""Puts the module together: hub, broker client, store, sources, reports, metrics."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edgeclave.client import Client
from edgeclave.edge.hub import HubConnection, HubOffline, InputMessage
from edgeclave.edge.service import Service
from edgeclave.edge.store import StoreError
from edgeclave.errors import ConfigurationError
from sample_analytics.pipeline import Pipeline
from sample_analytics.reporting import keep_reported
from sample_analytics.settings import Settings, read_settings
from sample_analytics.sources import Source
from sample_analytics.sources.csv import CsvSource
from sample_analytics.sources.input import INPUT_NAME, InputSource
from sample_analytics.sources.vitals import VitalsSource
from sample_analytics.status import Status
from sample_analytics.store import Store

LAST_REPORT_SECONDS = 0.5
STORE_RETRY_SECONDS = 10

_log = structlog.get_logger(__name__)


async def main(service: Service) -> None:
    """Runs until the service stops."""
    store = Store(service.state / "sample.sqlite")
    try:
        async with Client.from_edge_environment() as client:
            await _Sample(service, store, client).run()
    finally:
        store.close()


class _Sample:
    """The running module."""

    def __init__(self, service: Service, store: Store, client: Client) -> None:
        self._service = service
        self._store = store
        self._hub = HubConnection()
        self._status = Status(store)
        self._pipeline = Pipeline(store, client, self._status, self._make_source)
        self._settings: Settings | None = None
        self._changed = asyncio.Event()
        service.checks["hub"] = lambda: None if self._hub.connected else "not connected"
        service.checks["source"] = self._status.unhealthy
        _StoreCollector(store, service.registry)

    async def run(self) -> None:
        self._hub.on_desired(self._desired)
        self._hub.on_input(INPUT_NAME, self._arrived)
        stopping = asyncio.create_task(self._service.stopping.wait())
        work = [asyncio.create_task(one) for one in (self._follow_hub(), self._follow_settings())]
        try:
            done, _ = await asyncio.wait({stopping, *work}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()
        finally:
            stopping.cancel()
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            with contextlib.suppress(HubOffline, TimeoutError):
                async with asyncio.timeout(LAST_REPORT_SECONDS):
                    await self._hub.report(self._status.describe())
            await self._hub.close()

    async def _follow_hub(self) -> None:
        await self._hub.connect()
        await asyncio.gather(
            keep_reported(self._status.describe, self._hub.report), self._store.outbox.drain(self._hub.send)
        )

    async def _follow_settings(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            assert self._settings is not None
            try:
                await self._pipeline.run(self._settings, self._changed)
            except StoreError as error:
                self._status.failed(error)
                _log.error("nothing can be stored", code=error.code, reason=str(error))
                await asyncio.sleep(STORE_RETRY_SECONDS)
                self._changed.set()

    def _desired(self, desired: dict[str, Any]) -> None:
        try:
            settings = read_settings(desired)
        except ConfigurationError as error:
            self._status.twin_problem = error
            _log.error("twin refused", code=error.code, what=error.what)
            return
        self._status.twin_problem = None
        if settings != self._settings:
            self._settings = settings
            self._changed.set()

    def _arrived(self, message: InputMessage) -> None:
        if self._settings is not None and self._settings.source.kind != "input":
            _log.debug("message not used: the source is another")
            return
        try:
            kept = self._store.put_inbox(message.body, message.message_id)
        except StoreError as error:
            _log.error("message lost", code=error.code, reason=str(error))
            return
        if not kept:
            _log.warning("message not kept: seen before, or the inbox is full", message_id=message.message_id)

    def _make_source(self, settings: Settings) -> Source:
        source = settings.source
        match source.kind:
            case "vitals":
                return VitalsSource(source.metric, source.interval_seconds)
            case "input":
                return InputSource(source.sensor_field, self._store)
            case "csv":
                return CsvSource(source.path, source.speed)


class _StoreCollector(Collector):
    """The store's counters, for Prometheus."""

    def __init__(self, store: Store, registry: CollectorRegistry) -> None:
        self._store = store
        registry.register(self)

    def collect(self) -> list[Metric]:
        counted: list[Metric] = [
            CounterMetricFamily(f"sample_analytics_{name}", f"{name} since the store was made", value=value)
            for name, value in self._store.counters().items()
        ]
        outbox = self._store.outbox
        return [
            *counted,
            GaugeMetricFamily("sample_analytics_outbox_messages", "Messages that wait for the hub", value=len(outbox)),
            GaugeMetricFamily("sample_analytics_outbox_bytes", "Bytes that wait for the hub", value=outbox.size_bytes),
        ]
