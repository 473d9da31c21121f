"""All that must survive the process, in one SQLite file: cursors, the batch under way, the inbox, the outbox.

A batch is fixed here, with its call id and the cursor behind it, before the call is made: whatever happens then, the
same bytes are sent under the same id until there is an answer, and the answer's results, the cursor and the counters
are stored in one transaction. Results are acknowledged after that; until it is done the call's id waits here too.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeclave.client import SealedResult
from edgeclave.edge.outbox import OUTBOX_SCHEMA, Outbox
from edgeclave.edge.store import open_database, transaction
from sample_analytics.sources import Chunk

RESULT_TYPE = "application/edgeclave-result+cose"
MAX_INBOX_MESSAGES = 100_000
MAX_SEEN_MESSAGES = 10_000
"""Message ids remembered, because edgeHub delivers at least once."""

_SCHEMA = """
CREATE TABLE store (id TEXT NOT NULL);
CREATE TABLE source (
    key TEXT PRIMARY KEY,
    cursor TEXT NOT NULL DEFAULT '',
    readings INTEGER NOT NULL DEFAULT 0,
    broken INTEGER NOT NULL DEFAULT 0,
    finished INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE batch (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    attempt INTEGER NOT NULL DEFAULT 1,
    source TEXT NOT NULL,
    trusted_app TEXT NOT NULL,
    payload BLOB NOT NULL,
    readings INTEGER NOT NULL,
    broken INTEGER NOT NULL,
    cursor TEXT NOT NULL,
    final INTEGER NOT NULL
);
CREATE TABLE unacknowledged (call_id TEXT PRIMARY KEY, trusted_app TEXT NOT NULL);
CREATE TABLE inbox (number INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL);
CREATE TABLE seen (number INTEGER PRIMARY KEY AUTOINCREMENT, message_id TEXT NOT NULL UNIQUE);
CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Progress:
    """How far a source has come."""

    cursor: str
    readings: int
    broken: int
    finished: bool


@dataclass(frozen=True)
class Batch:
    """A call that is fixed but not answered. `payload` is JSON."""

    number: int
    call_id: str
    source: str
    trusted_app: str
    payload: bytes
    readings: int


class Store:
    """Opened once a process; used on the event loop's thread."""

    def __init__(self, path: Path) -> None:
        """Raises StoreError."""
        self._connection = open_database(path, [_SCHEMA, OUTBOX_SCHEMA])
        self.outbox = Outbox(self._connection)
        self.inbox_filled = asyncio.Event()
        row = self._connection.execute("SELECT id FROM store").fetchone()
        # Call ids of a device whose store was lost must not meet answers to its earlier calls.
        self._id: str = row["id"] if row else secrets.token_hex(8)
        if row is None:
            with transaction(self._connection):
                self._connection.execute("INSERT INTO store VALUES (?)", (self._id,))

    def close(self) -> None:
        self._connection.close()

    def progress(self, source: str) -> Progress:
        row = self._connection.execute("SELECT * FROM source WHERE key = ?", (source,)).fetchone()
        if row is None:
            return Progress("", 0, 0, False)
        return Progress(row["cursor"], row["readings"], row["broken"], bool(row["finished"]))

    def counters(self) -> dict[str, int]:
        """Totals since the store was made."""
        counted = {row["name"]: row["value"] for row in self._connection.execute("SELECT name, value FROM counter")}
        return {name: counted.get(name, 0) for name in COUNTERS}

    def batch(self) -> Batch | None:
        """The batch under way."""
        row = self._connection.execute("SELECT * FROM batch ORDER BY number LIMIT 1").fetchone()
        if row is None:
            return None
        call_id = f"{self._id}-{row['number']}-{row['attempt']}"
        return Batch(row["number"], call_id, row["source"], row["trusted_app"], row["payload"], row["readings"])

    def fix(self, source: str, trusted_app: str, payload: bytes, chunk: Chunk) -> None:
        """Makes a chunk the batch under way; what it took from the inbox is there no more."""
        with transaction(self._connection):
            self._take_from_inbox(chunk)
            self._connection.execute(
                "INSERT INTO batch (source, trusted_app, payload, readings, broken, cursor, final)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (source, trusted_app, payload, len(chunk.readings), len(chunk.broken), chunk.cursor, chunk.final),
            )

    def skip(self, source: str, chunk: Chunk) -> None:
        """Goes past a chunk that holds no readings."""
        with transaction(self._connection):
            self._take_from_inbox(chunk)
            self._advance(source, chunk.cursor, 0, len(chunk.broken), final=chunk.final)

    def answered(self, batch: Batch, results: Sequence[SealedResult]) -> None:
        """The batch's results lie in the outbox, and the source has moved on."""
        with transaction(self._connection):
            for result in results:
                properties = {"edgeclave-slot": batch.trusted_app, "edgeclave-output": result.output}
                self.outbox.put(result.output, result.sealed, RESULT_TYPE, properties)
            if results:
                self._connection.execute("INSERT INTO unacknowledged VALUES (?, ?)", (batch.call_id, batch.trusted_app))
            self._finish(batch, batch.readings)
            self._count("batches", 1)
            self._count("sealed", len(results))

    def refused(self, batch: Batch) -> None:
        """The trusted application will never take this batch: its readings are counted as refused."""
        with transaction(self._connection):
            self._finish(batch, 0)
            self._count("refused", batch.readings)

    def failed(self, batch: Batch, trusted_app: str) -> None:
        """Nothing of the call was committed: the next attempt is a call of its own, perhaps to another application."""
        with transaction(self._connection):
            self._connection.execute(
                "UPDATE batch SET attempt = attempt + 1, trusted_app = ? WHERE number = ?", (trusted_app, batch.number)
            )

    def unacknowledged(self, most: int) -> dict[str, list[str]]:
        """Ids of calls whose results are stored here, by trusted application."""
        calls: dict[str, list[str]] = {}
        for row in self._connection.execute("SELECT * FROM unacknowledged LIMIT ?", (most,)):
            calls.setdefault(row["trusted_app"], []).append(row["call_id"])
        return calls

    def acknowledged(self, call_ids: Sequence[str]) -> None:
        with transaction(self._connection):
            self._connection.executemany("DELETE FROM unacknowledged WHERE call_id = ?", [(one,) for one in call_ids])

    def put_inbox(self, body: bytes, message_id: str | None) -> bool:
        """Keeps a message; False when it was there already, or when the inbox is full (counted as dropped)."""
        with transaction(self._connection):
            if self.inbox_size >= MAX_INBOX_MESSAGES:
                self._count("dropped", 1)
                return False
            if message_id is not None and not self._first_time(message_id):
                return False
            self._connection.execute("INSERT INTO inbox (body) VALUES (?)", (body,))
        self.inbox_filled.set()
        return True

    def inbox_after(self, number: int, most: int) -> list[tuple[int, bytes]]:
        rows = self._connection.execute(
            "SELECT number, body FROM inbox WHERE number > ? ORDER BY number LIMIT ?", (number, most)
        )
        return [(row["number"], row["body"]) for row in rows]

    @property
    def inbox_size(self) -> int:
        size: int = self._connection.execute("SELECT COUNT(*) AS size FROM inbox").fetchone()["size"]
        return size

    def _take_from_inbox(self, chunk: Chunk) -> None:
        self._connection.execute("DELETE FROM inbox WHERE number <= ?", (chunk.inbox,))

    def _first_time(self, message_id: str) -> bool:
        cursor = self._connection.execute("INSERT OR IGNORE INTO seen (message_id) VALUES (?)", (message_id,))
        if not cursor.rowcount:
            return False
        self._connection.execute("DELETE FROM seen WHERE number <= ?", ((cursor.lastrowid or 0) - MAX_SEEN_MESSAGES,))
        return True

    def _finish(self, batch: Batch, readings: int) -> None:
        row = self._connection.execute("SELECT * FROM batch WHERE number = ?", (batch.number,)).fetchone()
        self._advance(batch.source, row["cursor"], readings, row["broken"], final=bool(row["final"]))
        self._connection.execute("DELETE FROM batch WHERE number = ?", (batch.number,))

    def _advance(self, source: str, cursor: str, readings: int, broken: int, *, final: bool) -> None:
        self._connection.execute("INSERT OR IGNORE INTO source (key) VALUES (?)", (source,))
        self._connection.execute(
            "UPDATE source SET cursor = ?, readings = readings + ?, broken = broken + ?, finished = ? WHERE key = ?",
            (cursor, readings, broken, final, source),
        )
        self._count("readings", readings)
        self._count("broken", broken)

    def _count(self, name: str, more: int) -> None:
        if more:
            self._connection.execute(
                "INSERT INTO counter VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
                (name, more),
            )


COUNTERS = ("readings", "batches", "sealed", "refused", "broken", "dropped")
"""Readings answered, calls answered, sealed results stored; readings refused, lines or messages that could not be read,
messages that did not fit the inbox."""
