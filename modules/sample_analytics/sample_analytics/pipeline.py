"""From a source to the outbox, batch after batch.

1. Read a chunk; fix it as a batch, with a call id, in the store.
2. Call the trusted application, with the same id until there is an answer.
3. In one transaction: results to the outbox, the source's cursor forward, counters, the batch done.
4. Acknowledge the results, so that ta_runner may forget them.

A process killed between any two of these goes on from the last one that was stored. A batch that the trusted
application will never take (its payload is at fault) is counted as refused; everything else is tried for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
import structlog

from edgeclave.client import BrokerUnavailable, CallRefused, Outcome, TrustedAppFailure
from edgeclave.edge.backoff import Backoff
from edgeclave.errors import EdgeclaveError
from sample_analytics.settings import Settings
from sample_analytics.sources import Chunk, Source, happens
from sample_analytics.status import Status
from sample_analytics.store import Batch, Store

METHOD = "observe"
INVOKE_SECONDS = 15.0
"""How long the client tries one call before it is asked whether the twin has changed; then it is tried again."""
ACKNOWLEDGE_SECONDS = 5.0
MAX_ACKNOWLEDGED_AT_ONCE = 100
PAYLOAD_AT_FAULT = frozenset({400, 413, 422})
"""Statuses, in the sense of HTTP, that the same payload would get again."""
MAX_LOGGED_LINES = 20

_log = structlog.get_logger(__name__)


class TrustedApplication(Protocol):
    """What of edgeclave.client.Client is used here."""

    async def invoke(
        self, trusted_app: str, method: str, payload: Any, *, call_id: str | None, total_seconds: float
    ) -> Outcome:
        """One call, repeated with its id while that may help."""

    async def acknowledge(self, trusted_app: str, call_ids: Sequence[str], *, total_seconds: float) -> int:
        """The results of these calls are stored."""


class Pipeline:
    """Runs one source after another. `changed` is set when the twin asks for something else."""

    def __init__(
        self,
        store: Store,
        client: TrustedApplication,
        status: Status,
        make_source: Callable[[Settings], Source],
    ) -> None:
        self._store = store
        self._client = client
        self._status = status
        self._make_source = make_source

    async def run(self, settings: Settings, changed: asyncio.Event) -> None:
        """Works on the source of `settings` until `changed` is set."""
        self._status.begins(settings.source.kind)
        await self._acknowledge()
        if not await self._deliver(settings, changed):
            return
        source = self._make_source(settings)
        try:
            if not await self._open(source, settings, changed):
                return
            self._status.reads(source)
            while not changed.is_set():
                progress = self._store.progress(source.key)
                self._status.progressed(progress)
                if progress.finished:
                    self._status.finished()
                    await changed.wait()
                    return
                chunk = await source.read(progress.cursor, settings.batch_readings, settings.batch_seconds, changed)
                self._keep(source, settings, chunk)
                if not await self._deliver(settings, changed):
                    return
        finally:
            await source.close()

    async def _open(self, source: Source, settings: Settings, changed: asyncio.Event) -> bool:
        """False when the twin changed before it could be opened."""
        backoff = Backoff(first_seconds=1, longest_seconds=30)
        while not changed.is_set():
            try:
                if source.live:
                    await self._reach(source, settings)
                await source.open()
            except EdgeclaveError as error:
                self._status.failed(error)
                _log.warning("source not open", code=error.code, reason=str(error))
                await happens(changed, backoff.next_seconds())
            else:
                return True
        return False

    async def _reach(self, source: Source, settings: Settings) -> None:
        """Returns when the trusted application answers, so that a live source's first readings are those of now."""
        nothing = {"series": source.series, "readings": []}
        await self._client.invoke(settings.trusted_app, METHOD, nothing, call_id=None, total_seconds=INVOKE_SECONDS)

    def _keep(self, source: Source, settings: Settings, chunk: Chunk) -> None:
        if chunk.broken:
            self._status.problem = chunk.broken[-1]
            for line in chunk.broken[:MAX_LOGGED_LINES]:
                _log.warning("not a reading", source=source.key, reason=line)
        if chunk.readings or chunk.final:
            payload = {"series": source.series, "readings": chunk.readings, "final": chunk.final}
            self._store.fix(source.key, settings.trusted_app, msgspec.json.encode(payload), chunk)
        elif chunk.broken:
            self._store.skip(source.key, chunk)

    async def _deliver(self, settings: Settings, changed: asyncio.Event) -> bool:
        """Brings the batch under way to its end, if there is one; False when the twin changed before that."""
        backoff = Backoff(first_seconds=0.5, longest_seconds=30)
        while (batch := self._store.batch()) is not None:
            if batch.trusted_app != settings.trusted_app:
                self._store.failed(batch, settings.trusted_app)
                continue
            try:
                await self._call(batch)
            except EdgeclaveError as error:
                self._status.failed(error)
                _log.warning("batch waits", call_id=batch.call_id, code=error.code, reason=str(error))
                if await happens(changed, backoff.next_seconds()):
                    return False
            else:
                self._status.well()
                await self._acknowledge()
        return True

    async def _call(self, batch: Batch) -> None:
        """Raises EdgeclaveError when the batch has to be tried again."""
        payload = msgspec.Raw(batch.payload)
        try:
            outcome = await self._client.invoke(
                batch.trusted_app, METHOD, payload, call_id=batch.call_id, total_seconds=INVOKE_SECONDS
            )
        except (CallRefused, TrustedAppFailure) as error:
            if error.status in PAYLOAD_AT_FAULT:
                _log.error("batch refused", call_id=batch.call_id, readings=batch.readings, reason=str(error))
                self._status.problem = str(error)
                self._store.refused(batch)
                return
            if isinstance(error, TrustedAppFailure):
                # ta_runner remembers this answer for this id.
                self._store.failed(batch, batch.trusted_app)
            raise
        self._store.answered(batch, outcome.results)

    async def _acknowledge(self) -> None:
        """As far as it goes now: what is left is acknowledged after the next batch."""
        for trusted_app, call_ids in self._store.unacknowledged(MAX_ACKNOWLEDGED_AT_ONCE).items():
            try:
                await self._client.acknowledge(trusted_app, call_ids, total_seconds=ACKNOWLEDGE_SECONDS)
            except BrokerUnavailable as error:
                _log.info("acknowledgement waits", reason=error.what)
            except CallRefused as error:
                _log.warning("acknowledgement refused", trusted_app=trusted_app, code=error.code, reason=error.what)
                if error.status == 404:  # with the application its results have gone
                    self._store.acknowledged(call_ids)
            else:
                self._store.acknowledged(call_ids)
