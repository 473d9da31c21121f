"""What must survive: sealed state per slot, answered calls, results nobody has acknowledged, the outbox.

Rules:

1. Everything one call changes is stored in one transaction, before its answer is given.
2. The same (slot, caller, call id) is the same call; another caller's id is another call.
3. A call's results are kept until the same caller acknowledges them. What was acknowledged leaves its id behind for a
   while, so that a late repetition is told so and not run again.
4. The last result per output of the current instance outlives its acknowledgement: the next enclave is shown it.
5. Where the platform has a counter, a slot may have a pending state beside its own, and the call that makes it. Which
   of the two is in force the next enclave knows. Whatever stores the outcome of a request removes it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from edgeclave.edge.outbox import OUTBOX_SCHEMA
from edgeclave.edge.store import open_database, transaction
from edgeclave.edge.twins.trusted_apps import TrustedAppSettings
from edgeclave.enclave.messages import SealedResult, Started

SETTLED_CALLS_KEPT = 10_000
"""Per slot: calls with no results left to acknowledge; the oldest are forgotten."""
_PRUNE_EVERY = 256  # settled calls

_SCHEMA = """
CREATE TABLE slots (
    slot TEXT PRIMARY KEY,
    settings BLOB,
    state BLOB NOT NULL,
    open_record BLOB NOT NULL,
    evidence BLOB NOT NULL,
    evidence_message INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE last_results (
    slot TEXT NOT NULL,
    output TEXT NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (slot, output)
) WITHOUT ROWID;
CREATE TABLE calls (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    slot TEXT NOT NULL,
    caller TEXT NOT NULL,
    call_id TEXT NOT NULL,
    answer BLOB,
    settled INTEGER NOT NULL,
    UNIQUE (slot, caller, call_id)
);
CREATE INDEX calls_settled ON calls (slot, id) WHERE settled;
CREATE TABLE unacknowledged (
    slot TEXT NOT NULL,
    caller TEXT NOT NULL,
    calls INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (slot, caller)
) WITHOUT ROWID;
CREATE TRIGGER call_answered AFTER INSERT ON calls WHEN NOT NEW.settled BEGIN
    INSERT INTO unacknowledged VALUES (NEW.slot, NEW.caller, 1, length(NEW.answer))
    ON CONFLICT DO UPDATE SET calls = calls + 1, bytes = bytes + length(NEW.answer);
END;
CREATE TRIGGER call_acknowledged AFTER UPDATE ON calls WHEN NEW.settled AND NOT OLD.settled BEGIN
    UPDATE unacknowledged SET calls = calls - 1, bytes = bytes - length(OLD.answer)
    WHERE slot = OLD.slot AND caller = OLD.caller;
END;
"""
_PENDING_SCHEMA = """
CREATE TABLE pending (
    slot TEXT PRIMARY KEY,
    state BLOB NOT NULL,
    caller TEXT,
    call_id TEXT,
    upstream INTEGER NOT NULL
) WITHOUT ROWID;
"""
_MIGRATIONS = (_SCHEMA + OUTBOX_SCHEMA, _PENDING_SCHEMA)


@dataclass(frozen=True)
class CallKey:
    """What makes a call the same call."""

    slot: str
    caller: str
    call_id: str


@dataclass(frozen=True)
class StoredAnswer:
    """An answered call. `answer` is None once its results have been acknowledged."""

    answer: bytes | None


@dataclass(frozen=True)
class Slot:
    """What the slot's last instance left: the settings it ran with, its sealed state, its first messages.

    `settings` are None once the slot was removed from the twin: its state is kept, but nothing starts it again unasked.
    """

    settings: TrustedAppSettings | None
    state: bytes
    open_record: bytes
    evidence: bytes
    evidence_message: int


@dataclass(frozen=True)
class PendingState:
    """A state that may be in force, and the call it is of, if of one; `upstream`: nobody else delivers its results."""

    state: bytes
    call: CallKey | None
    upstream: bool


class Opening(NamedTuple):
    """What is stored of an instance when it begins."""

    state: bytes
    open_record: bytes
    evidence: bytes


class RunnerStore:
    """The runner's database. What writes belongs inside `with store.transaction():`."""

    def __init__(self, path: Path) -> None:
        self.connection: sqlite3.Connection = open_database(path, _MIGRATIONS)
        self._settled_since_pruning = 0

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """All or nothing; see `edgeclave.edge.store.transaction`."""
        return transaction(self.connection)

    def close(self) -> None:
        """Closes the database."""
        self.connection.close()

    def slots(self) -> list[str]:
        """Names of all slots that ever ran, in order."""
        return [row["slot"] for row in self.connection.execute("SELECT slot FROM slots ORDER BY slot")]

    def slot(self, name: str) -> Slot | None:
        """What the slot's last instance left; None if it never ran."""
        row = self.connection.execute("SELECT * FROM slots WHERE slot = ?", (name,)).fetchone()
        if row is None:
            return None
        return Slot(
            None if row["settings"] is None else msgspec.json.decode(row["settings"], type=TrustedAppSettings),
            row["state"],
            row["open_record"],
            row["evidence"],
            row["evidence_message"],
        )

    def begin_instance(
        self, name: str, settings: TrustedAppSettings, opening: Started | Opening, evidence_message: int
    ) -> None:
        """A new instance runs: its state is now the slot's, and it has no results yet.

        `evidence_message` is the id of its evidence in the outbox.
        """
        self.connection.execute(
            "INSERT OR REPLACE INTO slots (slot, settings, state, open_record, evidence, evidence_message)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                name,
                msgspec.json.encode(settings),
                opening.state,
                opening.open_record,
                opening.evidence,
                evidence_message,
            ),
        )
        self.connection.execute("DELETE FROM last_results WHERE slot = ?", (name,))
        self._settle(name)

    def set_settings(self, name: str, settings: TrustedAppSettings | None) -> None:
        """The instance goes on under changed settings, or the slot was removed from the twin (None)."""
        encoded = None if settings is None else msgspec.json.encode(settings)
        self.connection.execute("UPDATE slots SET settings = ? WHERE slot = ?", (encoded, name))

    def set_evidence_message(self, name: str, message: int) -> None:
        """The instance's evidence was put into the outbox again, as this message."""
        self.connection.execute("UPDATE slots SET evidence_message = ? WHERE slot = ?", (message, name))

    def advance(self, name: str, state: bytes | None, results: Iterable[SealedResult]) -> None:
        """The instance's state after something it did, and what it sealed."""
        if state is not None:
            self.connection.execute("UPDATE slots SET state = ? WHERE slot = ?", (state, name))
            self._settle(name)
        self.connection.executemany(
            "INSERT OR REPLACE INTO last_results (slot, output, sealed) VALUES (?, ?, ?)",
            [(name, result.output, result.sealed) for result in results],
        )

    def put_pending(self, name: str, pending: PendingState) -> None:
        """The state that is in force once the slot's counter has moved."""
        key = pending.call
        self.connection.execute(
            "INSERT OR REPLACE INTO pending (slot, state, caller, call_id, upstream) VALUES (?, ?, ?, ?, ?)",
            (name, pending.state, key and key.caller, key and key.call_id, pending.upstream),
        )

    def pending(self, name: str) -> PendingState | None:
        """The slot's pending state, None when the outcome of every request was stored."""
        row = self.connection.execute("SELECT * FROM pending WHERE slot = ?", (name,)).fetchone()
        if row is None:
            return None
        call = None if row["call_id"] is None else CallKey(name, row["caller"], row["call_id"])
        return PendingState(row["state"], call, bool(row["upstream"]))

    def last_results(self, name: str) -> dict[str, bytes]:
        """Per output, the last result of the current instance."""
        rows = self.connection.execute("SELECT output, sealed FROM last_results WHERE slot = ?", (name,))
        return {row["output"]: row["sealed"] for row in rows}

    def answer(self, key: CallKey) -> StoredAnswer | None:
        """The answer given to this call before, if it had effects."""
        row = self.connection.execute(
            "SELECT answer FROM calls WHERE slot = ? AND caller = ? AND call_id = ?",
            (key.slot, key.caller, key.call_id),
        ).fetchone()
        return None if row is None else StoredAnswer(row["answer"])

    def put_answer(self, key: CallKey, answer: bytes, *, awaits_acknowledgement: bool) -> None:
        """Keeps an answer: until acknowledged if it carries results for the caller, else for a while."""
        self.connection.execute(
            "INSERT INTO calls (slot, caller, call_id, answer, settled) VALUES (?, ?, ?, ?, ?)",
            (key.slot, key.caller, key.call_id, answer, not awaits_acknowledgement),
        )
        if not awaits_acknowledgement:
            self._prune(key.slot, 1)

    def acknowledge(self, slot: str, caller: str, call_ids: Iterable[str]) -> int:
        """Forgets the results of these calls; returns how many were still kept. Unknown ids are fine."""
        forgotten = 0
        for call_id in call_ids:
            cursor = self.connection.execute(
                "UPDATE calls SET answer = NULL, settled = 1"
                " WHERE slot = ? AND caller = ? AND call_id = ? AND NOT settled",
                (slot, caller, call_id),
            )
            forgotten += cursor.rowcount
        self._prune(slot, forgotten)
        return forgotten

    def unacknowledged(self, slot: str, caller: str) -> tuple[int, int]:
        """Calls, and bytes of their answers, that wait for this caller's acknowledgement."""
        row = self.connection.execute(
            "SELECT calls, bytes FROM unacknowledged WHERE slot = ? AND caller = ?", (slot, caller)
        ).fetchone()
        return (0, 0) if row is None else (row["calls"], row["bytes"])

    def _settle(self, name: str) -> None:
        self.connection.execute("DELETE FROM pending WHERE slot = ?", (name,))

    def _prune(self, slot: str, settled: int) -> None:
        self._settled_since_pruning += settled
        if self._settled_since_pruning >= _PRUNE_EVERY:
            self._settled_since_pruning = 0
            self.connection.execute(
                "DELETE FROM calls WHERE settled AND slot = ? AND id <= "
                "(SELECT id FROM calls WHERE settled AND slot = ? ORDER BY id DESC LIMIT 1 OFFSET ?)",
                (slot, slot, SETTLED_CALLS_KEPT),
            )
