"""One running enclave of a slot: how it begins, what may change while it runs, how it ends in good order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import structlog

from edgeclave.edge.twins.trusted_apps import TrustedAppSettings
from edgeclave.enclave.messages import StartRequest
from edgeclave.errors import ConfigurationError, EdgeclaveError
from edgeclave.platforms.base import Enclave, Platform
from ta_runner.calls import CallQueue
from ta_runner.commits import Commits
from ta_runner.delivery import Delivery
from ta_runner.metrics import RunnerMetrics
from ta_runner.packages import CachedPackage, PackageCache
from ta_runner.store import RunnerStore

LAST_CALL_SECONDS = 1.0
"""How long a call under way may take to end when its enclave is to stop."""
CLOSE_SECONDS = 1.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Host:
    """What all trusted applications of the runner share."""

    platforms: Mapping[str, Platform]
    packages: PackageCache
    store: RunnerStore
    delivery: Delivery
    metrics: RunnerMetrics
    changed: Callable[[], None]
    """Called after a change of any status."""

    def platform(self, settings: TrustedAppSettings) -> Platform:
        """Raises ConfigurationError `unknown-platform`."""
        platform = self.platforms.get(settings.platform)
        if platform is None:
            raise ConfigurationError(
                "unknown-platform",
                f"there is no platform {settings.platform!r}",
                where="platform",
                advice=f"use one of: {', '.join(sorted(self.platforms))}",
            )
        return platform


class Instance:
    """An enclave that runs, and under which settings."""

    def __init__(
        self,
        slot: str,
        host: Host,
        enclave: Enclave,
        settings: TrustedAppSettings,
        *,
        answers_beacons: bool,
        beacon: bytes | None,
    ) -> None:
        self.enclave = enclave
        self.settings = settings
        self.since = time.monotonic()
        self._slot = slot
        self._host = host
        self._answers_beacons = answers_beacons
        self._beacon = beacon

    @classmethod
    async def start(
        cls,
        slot: str,
        host: Host,
        package: CachedPackage,
        settings: TrustedAppSettings,
        beacon: bytes | None,
        commits: Commits,
    ) -> Instance:
        """Starts an enclave from the slot's stored state; its state, evidence and open record are then stored.

        Raises:
            EdgeclaveError: what cannot be verified, started or stored; nothing is left running.
        """
        platform = host.platform(settings)
        last, pending = host.store.slot(slot), host.store.pending(slot)
        answers_beacons = package.manifest.beacon_authority is not None
        request = StartRequest(
            slot=slot,
            state=last.state if last is not None else None,
            pending=pending.state if pending is not None else None,
            shown=host.store.last_results(slot),
            shown_open=last.open_record if last is not None else None,
            recipients=settings.recipient_sets(),
            beacon=beacon if answers_beacons else None,
            host_time=time.time_ns() // 1_000_000,
        )
        commits.settings = settings
        enclave = await platform.start(package.path, request, commits)
        try:
            with host.store.transaction():
                message = host.delivery.put_opening(slot, enclave.started.evidence, enclave.started.open_record)
                host.store.begin_instance(slot, settings, enclave.started, message)
        except BaseException:
            await enclave.kill()
            raise
        return cls(slot, host, enclave, settings, answers_beacons=answers_beacons, beacon=beacon)

    async def adjust(self, wish: TrustedAppSettings, calls: CallQueue) -> None:
        """Takes new recipient sets, between calls.

        Raises:
            EdgeclaveError: what the enclave refused; the old one stays in force.
        """
        for output, message in wish.recipient_sets().items():
            if wish.recipients[output] != self.settings.recipients.get(output):
                await calls.between_calls(partial(self._obey, output, message))
        if self.settings != wish:
            with self._host.store.transaction():
                self._host.store.set_settings(self._slot, wish)
            self.settings = wish

    async def answer(self, beacon: bytes | None, calls: CallQueue) -> None:
        """Answers a beacon that is new with heartbeats, between calls.

        Raises:
            EdgeclaveError: why the enclave does not.
        """
        if self._answers_beacons and beacon is not None and beacon != self._beacon:
            await calls.between_calls(partial(self._heartbeats, beacon))
            self._beacon = beacon

    async def end(self, worker: asyncio.Future[None]) -> None:
        """Waits for the call under way, then stops the enclave and stores its close record.

        A call that takes too long, or anything else in the way, costs the close record and nothing more.
        """
        await asyncio.wait({worker}, timeout=LAST_CALL_SECONDS)
        if not worker.done() or worker.exception() is not None:
            _log.warning("enclave ends without a close record: a call was under way", trusted_app=self._slot)
            return
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                close_record = await self.enclave.stop()
            if close_record is not None:
                with self._host.store.transaction():
                    self._host.delivery.put_close(self._slot, close_record)
            _log.info("trusted application stopped", trusted_app=self._slot)
        except (EdgeclaveError, TimeoutError) as error:
            _log.warning("enclave ended without a close record", trusted_app=self._slot, reason=str(error))

    async def _obey(self, output: str, message: bytes, enclave: Enclave) -> None:
        reply = await enclave.set_recipients(output, message)
        with self._host.store.transaction():
            self._host.store.advance(self._slot, reply.state, ())

    async def _heartbeats(self, beacon: bytes, enclave: Enclave) -> None:
        outcome = await enclave.beacon(beacon)
        with self._host.store.transaction():
            self._host.store.advance(self._slot, outcome.state, outcome.results)
            self._host.delivery.put_results(self._slot, outcome.results)
