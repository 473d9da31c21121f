"""What the runner itself sends upstream: evidence, open and close records, and results nobody else delivers.

Evidence goes into the outbox in the same transaction that begins an instance, so before its first result; it is sent
again daily, unless the last one still waits because the device is offline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from edgeclave.edge.outbox import Outbox
from edgeclave.edge.store import StoreError
from edgeclave.enclave.messages import SealedResult
from edgeclave.evidence.collection import MEDIA_TYPE as EVIDENCE_MEDIA_TYPE
from edgeclave.results.records import CLOSE, OPEN
from edgeclave.results.sealed import RESULT
from ta_runner.store import RunnerStore

EVIDENCE_OUTPUT = "evidence"
EVIDENCE_INTERVAL_SECONDS = 24 * 3600

_log = structlog.get_logger(__name__)


class Delivery:
    """Puts messages into the outbox, inside the caller's transaction."""

    def __init__(self, store: RunnerStore, outbox: Outbox) -> None:
        self._store = store
        self._outbox = outbox

    def put_opening(self, slot: str, evidence: bytes, open_record: bytes) -> int:
        """Evidence and open record of a new instance; returns the evidence's message id."""
        message = self.put_evidence(slot, evidence)
        self._outbox.put(EVIDENCE_OUTPUT, open_record, OPEN.media_type, {"edgeclave-slot": slot})
        return message

    def put_evidence(self, slot: str, evidence: bytes) -> int:
        """Evidence; returns its message id."""
        return self._outbox.put(EVIDENCE_OUTPUT, evidence, EVIDENCE_MEDIA_TYPE, {"edgeclave-slot": slot})

    def put_close(self, slot: str, close_record: bytes) -> None:
        """The close record of an instance that ended cleanly."""
        self._outbox.put(EVIDENCE_OUTPUT, close_record, CLOSE.media_type, {"edgeclave-slot": slot})

    def put_results(self, slot: str, results: Iterable[SealedResult]) -> None:
        """Results that no caller delivers; the module output is the trusted application's output."""
        for result in results:
            properties = {"edgeclave-slot": slot, "edgeclave-output": result.output}
            self._outbox.put(result.output, result.sealed, RESULT.media_type, properties)

    async def repeat_evidence(self, running: Callable[[], Iterable[str]]) -> None:
        """Daily, for every running slot, for ever; cancel it to stop."""
        while True:
            await asyncio.sleep(EVIDENCE_INTERVAL_SECONDS)
            for slot in running():
                try:
                    self.repeat_evidence_of(slot)
                except StoreError as error:
                    _log.warning("evidence not repeated", slot=slot, code=error.code, reason=str(error))

    def repeat_evidence_of(self, name: str) -> bool:
        """Puts the evidence of the slot's instance again unless it still waits; says whether it did."""
        slot = self._store.slot(name)
        if slot is None or self._outbox.contains(slot.evidence_message):
            return False
        with self._store.transaction():
            self._store.set_evidence_message(name, self.put_evidence(name, slot.evidence))
        return True
