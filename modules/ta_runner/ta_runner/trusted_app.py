"""Supervision of one trusted application: start, watch, restart with back-off, upgrade, stop.

Rules:

1. A new instance takes calls only after its state, evidence and open record are stored.
2. An enclave that ended unasked is started again from the stored state: after 1 s, doubling to 60 s; five healthy
   minutes begin anew.
3. An upgrade stops the running version only when the new package is fetched and verified and its code compiled. If the
   new one does not start, the old one goes on with the reason reported, and the new one is not tried again until the
   twin changes.
4. So does a version that ran before the module was restarted, and one that ended unasked, until the new one is ready.
5. There is one enclave of a slot at a time: what gets a new version ready knows neither slot nor state.
6. A change of the twin ends a fetch that is under way. It goes on where it was, if it is still wished.
7. What goes wrong here stays here.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import structlog

from edgeclave.edge.backoff import Backoff
from edgeclave.edge.link import Call, CallReply
from edgeclave.edge.store import StoreError
from edgeclave.edge.twins.trusted_apps import TrustedAppSettings
from edgeclave.errors import EdgeclaveError, EnclaveError
from ta_runner.calls import CallQueue, CallRefused
from ta_runner.instance import Host, Instance
from ta_runner.packages import FetchError
from ta_runner.preparation import Preparation
from ta_runner.status import State, Status

FIRST_BACKOFF_SECONDS = 1
LONGEST_BACKOFF_SECONDS = 60
FETCH_AGAIN_SECONDS = 15
"""While an older version runs; doubling."""
LONGEST_FETCH_AGAIN_SECONDS = 600
HEALTHY_SECONDS = 300
"""After this long without an end the back-off begins anew."""
STOP_SECONDS = 2.5
"""The whole module has five seconds."""
_PASSING = {"enclave-ended", "internal-error", "counter-unavailable"}
"""Why an enclave may not run now and yet the next time; any other code is a refusal, which stays."""

_log = structlog.get_logger(__name__)


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
        self._refusal: EdgeclaveError | None = None
        self._beacon: bytes | None = None
        self._stopping = False
        self._wake = asyncio.Event()
        self._beacon_came = asyncio.Event()
        self._preparation = Preparation(name, host)
        self._fetch_backoff = Backoff(first_seconds=FETCH_AGAIN_SECONDS, longest_seconds=LONGEST_FETCH_AGAIN_SECONDS)
        self._backoff = Backoff(first_seconds=FIRST_BACKOFF_SECONDS, longest_seconds=LONGEST_BACKOFF_SECONDS)
        self._task = asyncio.get_running_loop().create_task(self._supervise(), name=f"trusted-app {name}")

    @property
    def wished_digest(self) -> str | None:
        """The package that it works towards."""
        return self._wish.digest if self._wish is not None else None

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
            self._fetch_backoff.reset()
            self._preparation.give_up()
            self._wake.set()

    def refuse(self, reason: EdgeclaveError) -> None:
        """The twin's entry is wrong: what ran goes on, and the reason is reported."""
        self._refusal = reason
        if self._wish is None:
            slot = self._host.store.slot(self.name)
            self._wish = slot.settings if slot is not None else None
        self._wake.set()

    def beacon(self, message: bytes | None) -> None:
        """A signed beacon to be answered with heartbeats, by those whose manifest names a beacon authority."""
        if message != self._beacon:
            self._beacon = message
            self._beacon_came.set()

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
        self._preparation.give_up()
        self._wake.set()
        if self.status.state != "starting":  # what has not begun needs no orderly end
            await asyncio.wait({self._task}, timeout=STOP_SECONDS)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._set("stopped", reason=None)

    async def _supervise(self) -> None:
        while not (self._stopping and self._wish is None):
            self._wake.clear()
            if self._wish is None:
                await self._idle()
                continue
            try:
                instance = await self._launch(self._wish)
                failure = await self._watch(instance) if instance is not None else None
            except EdgeclaveError as error:
                failure = error
            except Exception as error:
                _log.exception("supervision failed", trusted_app=self.name)
                failure = EnclaveError("internal-error", f"it could not be run: {type(error).__name__}")
            if failure is not None:
                await self._rest(failure)

    async def _idle(self) -> None:
        self._calls.close(self._not_running(self._refusal))
        self._set("failed" if self._refusal else "stopped", reason=self._refusal)
        await self._wake.wait()

    async def _rest(self, reason: EdgeclaveError) -> None:
        """Waits before the next attempt, or until the twin changes."""
        permanent = not isinstance(reason, (FetchError, StoreError)) and reason.code not in _PASSING
        wait = LONGEST_BACKOFF_SECONDS if permanent else max(self._backoff.next_seconds(), _asked_wait(reason))
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

    async def _launch(self, wish: TrustedAppSettings) -> Instance | None:
        """Starts what is wished, or what ran before when that is refused; None when the wish changes meanwhile."""
        self._set("starting", reason=self._problem() or self.status.reason)
        last = self._host.store.slot(self.name)
        former = last.settings if last is not None and last.settings != wish else None
        if former is None or not self._host.packages.cached(former.digest):
            return await self._start(wish)
        if not self._may_try(wish):
            return await self._start(former)
        first, second = (wish, former) if self._preparation.ready or wish.runs_same_code(former) else (former, wish)
        try:
            return await self._start(first)
        except StoreError:
            raise
        except EdgeclaveError as error:
            if first is wish:
                self._refuse_wish(wish, error)
            else:
                _log.error("former version does not run", trusted_app=self.name, code=error.code, reason=str(error))
            return await self._start(second)

    async def _start(self, settings: TrustedAppSettings) -> Instance | None:
        package = await self._preparation.fetch(settings)
        if package is None:
            return None
        return await Instance.start(self.name, self._host, package, settings, self._beacon, self._calls.commits)

    async def _watch(self, instance: Instance) -> EdgeclaveError | None:
        """Lets it take calls; returns when it has ended: None if asked to, else why."""
        self.status.started = instance.enclave.started
        self.status.digest = instance.settings.digest
        self._set("running", reason=self._problem())
        _log.info("trusted application runs", trusted_app=self.name, epoch=instance.enclave.started.epoch)
        self._calls.open()
        worker = asyncio.ensure_future(self._calls.serve(instance.enclave))
        steering = asyncio.ensure_future(self._steer(instance))
        answering = asyncio.ensure_future(self._answer_beacons(instance))
        parts: list[asyncio.Future[Any]] = [worker, steering, answering, instance.enclave.ended]
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            if steering.done() and steering.exception() is None:
                self._calls.finish(self._not_running(None, retry_after=FIRST_BACKOFF_SECONDS))
                await instance.end(worker)
                return None
            return self._crashed(instance, worker, steering, answering)
        finally:
            self._calls.close(self._not_running(None, retry_after=FIRST_BACKOFF_SECONDS))
            for task in (worker, steering, answering):
                task.cancel()
            await asyncio.gather(worker, steering, answering, return_exceptions=True)
            await instance.enclave.kill()
            self.status.started = None

    def _crashed(self, instance: Instance, *tasks: asyncio.Future[None]) -> EdgeclaveError:
        self.status.restarts += 1
        self._host.metrics.restarts.labels(self.name).inc()
        if time.monotonic() - instance.since >= HEALTHY_SECONDS:
            self._backoff.reset()
        failure = next((task.exception() for task in tasks if task.done()), None)
        if isinstance(failure, StoreError):
            return failure
        if instance.enclave.ended.done():
            why = instance.enclave.ended.result().reason
            return EnclaveError("enclave-ended", f"the enclave ended unasked: {why}", advice="it is started again")
        if isinstance(failure, EdgeclaveError):
            return EnclaveError("enclave-ended", f"the enclave was ended: {failure.what}", advice=failure.advice)
        _log.error("enclave abandoned", trusted_app=self.name, exc_info=failure)
        return EnclaveError("internal-error", f"the enclave was abandoned: {type(failure).__name__}")

    async def _steer(self, instance: Instance) -> None:
        """Follows the wish while the enclave runs; returns when this enclave is to stop."""
        if instance.settings != self._wish and self._upgrade_problem() is None:
            self._wake.set()  # it runs until what is wished is ready
        while True:
            problem = self._upgrade_problem()
            again = None
            if problem is not None and self._may_pass(problem):
                again = max(self._fetch_backoff.next_seconds(), _asked_wait(problem))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(again):
                    await self._wake.wait()
            self._wake.clear()
            wish = self._wish
            if wish is None:
                return
            problem = None
            try:
                if self._refusal is not None:
                    pass
                elif wish.runs_same_code(instance.settings):
                    await instance.adjust(wish, self._calls)
                elif self._may_try(wish) and await self._preparation.get_ready(wish) and wish == self._wish:
                    self._refused_wish = None
                    return
            except EdgeclaveError as error:
                _log.warning("setting refused", trusted_app=self.name, code=error.code, reason=str(error))
                problem = error
                if not wish.runs_same_code(instance.settings):
                    self._refuse_wish(wish, error)
            self._set("running", reason=self._problem() or problem)

    async def _answer_beacons(self, instance: Instance) -> None:
        """Whatever the wish is: while an upgrade is fetched or cannot be, readers still see that this one is alive."""
        while True:
            self._beacon_came.clear()
            try:
                await instance.answer(self._beacon, self._calls)
            except EdgeclaveError as error:
                _log.warning("beacon not answered", trusted_app=self.name, code=error.code, reason=str(error))
                self._set("running", reason=self._problem() or error)
            await self._beacon_came.wait()

    def _may_try(self, wish: TrustedAppSettings) -> bool:
        """A wish that was refused is not tried again; one that could not be fetched is."""
        problem = self._upgrade_problem()
        return wish == self._wish and (problem is None or self._may_pass(problem))

    def _may_pass(self, problem: EdgeclaveError) -> bool:
        """Whether a wish may yet become ready. One that was, and then did not start, is not tried again."""
        return isinstance(problem, FetchError) or (problem.code in _PASSING and not self._preparation.ready)

    def _problem(self) -> EdgeclaveError | None:
        return self._refusal or self._upgrade_problem()

    def _upgrade_problem(self) -> EdgeclaveError | None:
        """Why something else than the current wish runs."""
        if self._refused_wish is None or self._refused_wish[0] != self._wish:
            return None
        return self._refused_wish[1]

    def _refuse_wish(self, wish: TrustedAppSettings, reason: EdgeclaveError) -> None:
        self._refused_wish = (wish, reason)
        _log.error("upgrade refused", trusted_app=self.name, code=reason.code, reason=str(reason))

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


def _asked_wait(reason: EdgeclaveError) -> float:
    """Seconds that a registry asks to be left alone."""
    return (reason.retry_after or 0) if isinstance(reason, FetchError) else 0
