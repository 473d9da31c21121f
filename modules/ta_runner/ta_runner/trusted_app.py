"""Supervision of one trusted application: start, watch, restart with back-off, upgrade, stop.

Rules:

1. A new instance takes calls only after its state, evidence and open record are stored.
2. An enclave that ended unasked is started again from the stored state: after 1 s, doubling to 60 s; five healthy
   minutes begin anew.
3. An upgrade stops the running version only when the new package is fetched and verified. If the new one does not
   start, the old one goes on with the reason reported, and the new one is not tried again until the twin changes.
4. What goes wrong here stays here.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from edgeclave.edge.backoff import Backoff
from edgeclave.edge.link import Call, CallReply
from edgeclave.edge.store import StoreError
from edgeclave.enclave.messages import StartRequest
from edgeclave.errors import ConfigurationError, EdgeclaveError, EnclaveError
from edgeclave.platforms.base import Enclave, Platform
from ta_runner.calls import CallQueue, CallRefused
from ta_runner.delivery import Delivery
from ta_runner.desired import TrustedAppSettings
from ta_runner.metrics import RunnerMetrics
from ta_runner.packages import FetchError, PackageCache
from ta_runner.status import State, Status
from ta_runner.store import RunnerStore, Slot

FIRST_BACKOFF_SECONDS = 1
LONGEST_BACKOFF_SECONDS = 60
HEALTHY_SECONDS = 300
"""After this long without an end the back-off begins anew."""
START_TIMEOUT_SECONDS = 300
"""The first start compiles; on a small gateway that takes minutes."""
LAST_CALL_SECONDS = 1.0
"""How long a call under way may take to end when its enclave is to stop."""
CLOSE_SECONDS = 1.0
_PASSING = {"enclave-ended", "start-timeout", "internal-error"}
"""Why an enclave may not run now and yet the next time; any other code is a refusal, which stays."""
STOP_SECONDS = 2.5
"""The whole module has five seconds."""

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


@dataclass
class _Running:
    enclave: Enclave
    settings: TrustedAppSettings
    sends_beacon: bool
    beacon: bytes | None
    since: float


class TrustedApp:
    """One slot. `wish`, `refuse` and `beacon` tell it what to do; it works towards that by itself."""

    def __init__(self, name: str, host: Host) -> None:
        self.name = name
        self.status = Status()
        self._host = host
        self._calls = CallQueue(name, host.store, host.delivery, host.metrics)
        self._calls.close(self._not_running(None))
        self._wish: TrustedAppSettings | None = None
        self._refused_wish: tuple[TrustedAppSettings, EdgeclaveError] | None = None
        self._stopping = False
        self._refusal: EdgeclaveError | None = None
        self._beacon: bytes | None = None
        self._wake = asyncio.Event()
        self._backoff = Backoff(first_seconds=FIRST_BACKOFF_SECONDS, longest_seconds=LONGEST_BACKOFF_SECONDS)
        self._task = asyncio.get_running_loop().create_task(self._supervise(), name=f"trusted-app {name}")

    @property
    def queued_calls(self) -> int:
        """Calls that wait or run."""
        return len(self._calls)

    def wish(self, settings: TrustedAppSettings | None) -> None:
        """What the twin asks for; None to stop."""
        if settings != self._wish or self._refusal is not None:
            self._wish = settings
            self._refused_wish = None
            self._refusal = None
            self._wake.set()

    def refuse(self, reason: EdgeclaveError) -> None:
        """The twin's entry is wrong: what runs goes on, and the reason is reported."""
        self._refusal = reason
        if self._wish is None:
            slot = self._host.store.slot(self.name)
            self._wish = slot.settings if slot is not None else None
        self._wake.set()

    def beacon(self, message: bytes | None) -> None:
        """A signed beacon to be answered with heartbeats, by those whose manifest names a beacon authority."""
        if message != self._beacon:
            self._beacon = message
            self._wake.set()

    async def call(self, call: Call) -> CallReply:
        """See CallQueue.call."""
        return await self._calls.call(call)

    async def evidence(self, nonce: bytes | None) -> bytes:
        """Fresh evidence, for a verifier's nonce if there is one."""
        return await self._calls.between_calls(lambda enclave: enclave.evidence(nonce))

    async def stop(self) -> None:
        """Ends the enclave with a close record and the supervision, within STOP_SECONDS."""
        self._stopping = True
        self._wish = self._refused_wish = self._refusal = None
        self._wake.set()
        await asyncio.wait({self._task}, timeout=STOP_SECONDS)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _supervise(self) -> None:
        while not (self._stopping and self._wish is None):
            self._wake.clear()
            if self._wish is None:
                await self._idle()
                continue
            try:
                running = await self._launch(self._wish)
            except EdgeclaveError as error:
                await self._rest(error)
            except Exception as error:
                _log.exception("start failed", trusted_app=self.name)
                await self._rest(EnclaveError("internal-error", f"the start failed: {type(error).__name__}"))
            else:
                await self._watch(running)
        self._set("stopped", reason=None)

    async def _idle(self) -> None:
        self._calls.close(self._not_running(self._refusal))
        self._set("failed" if self._refusal else "stopped", reason=self._refusal)
        await self._wake.wait()

    async def _rest(self, reason: EdgeclaveError) -> None:
        """Waits before the next attempt, or until the twin changes."""
        permanent = not isinstance(reason, (FetchError, StoreError)) and reason.code not in _PASSING
        wait = LONGEST_BACKOFF_SECONDS if permanent else self._backoff.next_seconds()
        _log.error(
            "trusted application does not run",
            trusted_app=self.name,
            code=reason.code,
            what=reason.what,
            where=reason.where,
            advice=reason.advice,
            retry_seconds=round(wait, 1),
        )
        self._calls.close(self._not_running(reason, retry_after=wait))
        self._set("failed" if permanent else "backoff", reason=self._refusal or reason)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._wake.wait()

    async def _launch(self, wish: TrustedAppSettings) -> _Running:
        """Starts what is wished, or what ran before when that is refused."""
        self._set("starting", reason=self._refusal or self._upgrade_problem() or self.status.reason)
        last = self._host.store.slot(self.name)
        former = last.settings if last is not None and last.settings != wish else None
        if former is None or not self._host.packages.cached(former.digest):
            return await self._start(wish, last)
        if self._upgrade_problem() is None:
            try:
                return await self._start(wish, last)
            except StoreError:
                raise
            except EdgeclaveError as error:
                self._refuse_wish(wish, error)
        return await self._start(former, last)

    async def _start(self, settings: TrustedAppSettings, last: Slot | None) -> _Running:
        host = self._host
        platform = self._platform(settings)
        package = await host.packages.get(settings)
        sends_beacon = package.manifest.beacon_authority is not None
        request = StartRequest(
            slot=self.name,
            state=last.state if last is not None else None,
            shown=host.store.last_results(self.name),
            shown_open=last.open_record if last is not None else None,
            recipients=settings.recipient_sets(),
            beacon=self._beacon if sends_beacon else None,
            host_time=time.time_ns() // 1_000_000,
        )
        try:
            async with asyncio.timeout(START_TIMEOUT_SECONDS):
                enclave = await platform.start(package.path, request)
        except TimeoutError as error:
            raise EnclaveError("start-timeout", f"the enclave did not start in {START_TIMEOUT_SECONDS} s") from error
        try:
            with host.store.transaction():
                message = host.delivery.put_opening(self.name, enclave.started.evidence, enclave.started.open_record)
                host.store.begin_instance(self.name, settings, enclave.started, message)
        except BaseException:
            await enclave.kill()
            raise
        return _Running(enclave, settings, sends_beacon, self._beacon, time.monotonic())

    async def _watch(self, running: _Running) -> None:
        """Returns when the enclave has ended, asked or unasked."""
        self.status.started = running.enclave.started
        self.status.digest = running.settings.digest
        self._set("running", reason=self._refusal or self._upgrade_problem())
        _log.info("trusted application runs", trusted_app=self.name, epoch=running.enclave.started.epoch)
        self._calls.open()
        worker = asyncio.ensure_future(self._calls.serve(running.enclave))
        steering = asyncio.ensure_future(self._steer(running))
        parts: list[asyncio.Future[Any]] = [worker, running.enclave.ended, steering]
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            asked = steering.done() and steering.exception() is None
            if asked and not worker.done() and not running.enclave.ended.done():
                await self._end(running, worker)
            else:
                failed = next((part for part in (worker, steering) if part.done()), None)
                await self._crashed(running, failed.exception() if failed else None)
        finally:
            worker.cancel()
            steering.cancel()
            await asyncio.gather(worker, steering, return_exceptions=True)
            await running.enclave.kill()
            self._host.metrics.running.labels(self.name).set(0)
            self.status.started = None

    async def _steer(self, running: _Running) -> None:
        """Follows the wish while the enclave runs; returns when this enclave is to stop."""
        fetch_backoff = Backoff(first_seconds=5, longest_seconds=LONGEST_BACKOFF_SECONDS)
        retry_seconds: float | None = None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(retry_seconds):
                    await self._wake.wait()
            self._wake.clear()
            retry_seconds = None
            wish = self._wish
            if wish is None:
                return
            if self._refusal is not None:
                self._set("running", reason=self._refusal)
            elif wish.runs_same_code(running.settings):
                await self._adjust(running, wish)
            elif self._upgrade_problem() is None:
                try:
                    self._platform(wish)
                    await self._host.packages.get(wish)
                except FetchError as error:
                    retry_seconds = fetch_backoff.next_seconds()
                    self._set("running", reason=error)
                except EdgeclaveError as error:
                    self._refuse_wish(wish, error)
                    self._set("running", reason=error)
                else:
                    if wish == self._wish:
                        return

    async def _adjust(self, running: _Running, wish: TrustedAppSettings) -> None:
        """Recipient sets and beacons change without a new enclave."""
        reason: EdgeclaveError | None = None
        try:
            for output, message in wish.recipient_sets().items():
                if wish.recipients[output] != running.settings.recipients.get(output):
                    await self._set_recipients(output, message)
            if running.settings != wish:
                with self._host.store.transaction():
                    self._host.store.set_settings(self.name, wish)
            running.settings = wish
            if running.sends_beacon and self._beacon is not None and self._beacon != running.beacon:
                await self._send_beacon(self._beacon)
                running.beacon = self._beacon
        except EdgeclaveError as error:
            _log.warning("setting refused", trusted_app=self.name, code=error.code, reason=str(error))
            reason = error
        self._set("running", reason=reason)

    async def _set_recipients(self, output: str, message: bytes) -> None:
        async def apply(enclave: Enclave) -> None:
            reply = await enclave.set_recipients(output, message)
            with self._host.store.transaction():
                self._host.store.advance(self.name, reply.state, ())

        await self._calls.between_calls(apply)

    async def _send_beacon(self, message: bytes) -> None:
        async def apply(enclave: Enclave) -> None:
            outcome = await enclave.beacon(message)
            with self._host.store.transaction():
                self._host.store.advance(self.name, outcome.state, outcome.results)
                self._host.delivery.put_results(self.name, outcome.results)

        await self._calls.between_calls(apply)

    async def _end(self, running: _Running, worker: asyncio.Future[None]) -> None:
        """Lets the call under way end, then stops the enclave and stores its close record."""
        self._calls.finish(self._not_running(None, retry_after=FIRST_BACKOFF_SECONDS))
        await asyncio.wait({worker}, timeout=LAST_CALL_SECONDS)
        if not worker.done() or worker.exception() is not None:
            _log.warning("enclave ended without a close record: a call was under way", trusted_app=self.name)
            return
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                close_record = await running.enclave.stop()
            if close_record is not None:
                with self._host.store.transaction():
                    self._host.delivery.put_close(self.name, close_record)
            _log.info("trusted application stopped", trusted_app=self.name)
        except (EdgeclaveError, TimeoutError) as error:
            _log.warning("enclave ended without a close record", trusted_app=self.name, reason=str(error))

    async def _crashed(self, running: _Running, failure: BaseException | None) -> None:
        if running.enclave.ended.done():
            why = running.enclave.ended.result().reason
            reason = EnclaveError("enclave-ended", f"the enclave ended unasked: {why}", advice="it is started again")
        elif isinstance(failure, EdgeclaveError):
            reason = EnclaveError(failure.code, failure.what, where=failure.where, advice=failure.advice)
        else:
            _log.error("enclave abandoned", trusted_app=self.name, exc_info=failure)
            reason = EnclaveError("internal-error", f"the enclave was abandoned: {type(failure).__name__}")
        self._calls.close(self._not_running(reason, retry_after=FIRST_BACKOFF_SECONDS))
        await running.enclave.kill()
        self.status.started = None
        self.status.restarts += 1
        self._host.metrics.restarts.labels(self.name).inc()
        if time.monotonic() - running.since >= HEALTHY_SECONDS:
            self._backoff.reset()
        await self._rest(reason)

    def _platform(self, settings: TrustedAppSettings) -> Platform:
        platform = self._host.platforms.get(settings.platform)
        if platform is None:
            raise ConfigurationError(
                "unknown-platform",
                f"there is no platform {settings.platform!r}",
                where=f"desired.trustedApps.{self.name}.platform",
                advice=f"use one of: {', '.join(sorted(self._host.platforms))}",
            )
        return platform

    def _refuse_wish(self, wish: TrustedAppSettings, reason: EdgeclaveError) -> None:
        self._refused_wish = (wish, reason)
        _log.error("upgrade refused", trusted_app=self.name, code=reason.code, reason=str(reason))

    def _upgrade_problem(self) -> EdgeclaveError | None:
        """Why the current wish was refused and something else runs."""
        if self._refused_wish is None or self._refused_wish[0] != self._wish:
            return None
        return self._refused_wish[1]

    def _not_running(self, reason: EdgeclaveError | None, *, retry_after: float | None = None) -> CallRefused:
        why = f": {reason.what}" if reason else ""
        return CallRefused(
            "trusted-app-not-running",
            f"{self.name} is not running{why}",
            advice=(reason.advice if reason else "") or "see ta_runner's reported properties",
            retry_after=retry_after,
        )

    def _set(self, state: State, *, reason: EdgeclaveError | None) -> None:
        self.status.state = state
        self.status.reason = reason
        self._host.metrics.running.labels(self.name).set(state == "running")
        self._host.changed()
