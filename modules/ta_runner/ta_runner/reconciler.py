"""From the desired properties to what runs: only what changed is touched, one wrong entry never stops another.

A trusted application that is removed from the twin is stopped; its state stays on disk and the slot is reported as
stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from edgeclave.edge.store import StoreError
from edgeclave.edge.twins.trusted_apps import Desired, read_desired
from edgeclave.errors import EdgeclaveError
from ta_runner.instance import Host
from ta_runner.status import Status
from ta_runner.trusted_app import TrustedApp

_log = structlog.get_logger(__name__)


class Reconciler:
    """All trusted applications of the runner."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._apps: dict[str, TrustedApp] = {}
        self._desired = Desired(complete=False)  # nothing is known of the wish until the twin is read
        self._ending: set[asyncio.Future[None]] = set()

    @property
    def problem(self) -> EdgeclaveError | None:
        """What is wrong with the twin as a whole."""
        return self._desired.problem

    def apply(self, twin: dict[str, Any]) -> None:
        """Takes new desired properties and returns at once; the work is done by each TrustedApp."""
        desired = read_desired(twin)
        for name, error in desired.refused.items():
            _log.error("twin entry refused", trusted_app=name, code=error.code, reason=str(error))
        if desired.problem is not None:
            _log.error("twin refused in part", code=desired.problem.code, reason=str(desired.problem))
        self._desired = desired
        for name, settings in desired.trusted_apps.items():
            app = self._app(name)
            app.beacon(desired.beacon)
            app.wish(settings)
        for name, error in desired.refused.items():
            self._app(name).refuse(error)
        if desired.complete:
            for name in self._apps.keys() - desired.trusted_apps.keys() - desired.refused.keys():
                self._remove(name)
        self._forget_old_packages()
        self._host.changed()

    @property
    def complete(self) -> bool:
        """Whether the twin was read and names all that shall run."""
        return self._desired.complete

    def find(self, name: str) -> TrustedApp | None:
        """A trusted application that the twin names, by name."""
        wanted = name in self._desired.trusted_apps or name in self._desired.refused or not self._desired.complete
        return self._apps.get(name) if wanted else None

    def wanted(self) -> dict[str, TrustedApp]:
        """The trusted applications that the twin names."""
        return {name: app for name, app in sorted(self._apps.items()) if self.find(name) is not None}

    def running(self) -> list[str]:
        """Names of those that run."""
        return [name for name, app in self._apps.items() if app.status.state == "running"]

    def statuses(self) -> dict[str, Status]:
        """Every known slot's status, also of those whose state is kept from earlier."""
        kept = {name: Status() for name in self._host.store.slots() if name not in self._apps}
        return {**kept, **{name: app.status for name, app in self._apps.items()}}

    def observe(self, record: Callable[[str, int], None]) -> None:
        """Calls back with each trusted application's queued calls."""
        for name, app in self._apps.items():
            record(name, app.queued_calls)

    async def stop(self) -> None:
        """Ends all enclaves at the same time, with close records."""
        await asyncio.gather(*self._ending, *(app.stop() for app in self._apps.values()))

    def _app(self, name: str) -> TrustedApp:
        if name not in self._apps:
            self._apps[name] = TrustedApp(name, self._host)
        return self._apps[name]

    def _remove(self, name: str) -> None:
        """Stops it; one that never ran leaves nothing to report."""
        self._apps[name].wish(None)
        if self._host.store.slot(name) is not None:
            self._forget_settings(name)
        else:
            ending = asyncio.ensure_future(self._apps.pop(name).stop())
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    def _forget_settings(self, name: str) -> None:
        try:
            with self._host.store.transaction():
                self._host.store.set_settings(name, None)
        except StoreError as error:
            _log.error("removal not stored", trusted_app=name, code=error.code, reason=str(error))

    def _forget_old_packages(self) -> None:
        """Keeps the packages the twin names and those each slot ran last, to go back to."""
        if not self._desired.complete or self._desired.refused:
            return
        digests = {settings.digest for settings in self._desired.trusted_apps.values()}
        for name in self._host.store.slots():
            slot = self._host.store.slot(name)
            if slot is not None and slot.settings is not None:
                digests.add(slot.settings.digest)
        self._host.packages.keep_only(digests)
