"""What a reader remembers, in one SQLite file: heads, held messages, evidence, positions, findings to print.

Everything that one message changes is one transaction, together with the position of that message in the hub. So after
SIGKILL a message is either done, with its findings in the outbox, or was never seen. Findings leave the outbox only
when whoever prints them says that they are written: a line that was printed but not confirmed is printed again.

Evidence is kept as it was received, with the time of receipt, and appraised again under the policy of the day.
"""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import msgspec

from edgeclave.cloud.events import Event, Position
from edgeclave.edge.store import StoreError, open_database, transaction
from edgeclave.errors import ConfigurationError, ResultError

DATABASE_NAME, LOCK_NAME = "reader.sqlite", "reader.lock"
MAX_HELD_PER_DEVICE = (
    20_000  # messages; results wait for evidence while a device's outboxes catch up after days offline
)
MAX_HELD_BYTES_PER_DEVICE = 256 << 20
MAX_EVIDENCE_PER_DEVICE = 10_000  # of about 2 KB; one at each start of a trusted application, and daily
_BEYOND = b"\xff" * 33  # after a common beginning, no name goes on with so many of these
_MIGRATIONS = (
    """
    CREATE TABLE positions (partition TEXT PRIMARY KEY, sequence INTEGER NOT NULL, digest BLOB NOT NULL) STRICT;
    CREATE TABLE evidence (
        digest BLOB NOT NULL, instance_id BLOB NOT NULL, device TEXT NOT NULL, received_at INTEGER NOT NULL,
        body BLOB NOT NULL, UNIQUE (digest, device)) STRICT;
    CREATE INDEX evidence_of_instance ON evidence (instance_id);
    CREATE TABLE streams (key BLOB PRIMARY KEY, state BLOB NOT NULL) STRICT;
    CREATE TABLE held (
        id INTEGER PRIMARY KEY AUTOINCREMENT, waits_for BLOB NOT NULL, code TEXT NOT NULL, device TEXT NOT NULL,
        digest BLOB NOT NULL, event BLOB NOT NULL, UNIQUE (waits_for, digest)) STRICT;
    CREATE TABLE held_totals (device TEXT PRIMARY KEY, messages INTEGER NOT NULL, bytes INTEGER NOT NULL) STRICT;
    CREATE TRIGGER held_more AFTER INSERT ON held BEGIN
        INSERT INTO held_totals VALUES (new.device, 1, length(new.event))
        ON CONFLICT DO UPDATE SET messages = messages + 1, bytes = bytes + excluded.bytes;
    END;
    CREATE TRIGGER held_less AFTER DELETE ON held BEGIN
        UPDATE held_totals SET messages = messages - 1, bytes = bytes - length(old.event) WHERE device = old.device;
    END;
    CREATE TABLE outbox (id INTEGER PRIMARY KEY AUTOINCREMENT, finding BLOB NOT NULL) STRICT;
    """,
)


@dataclass(frozen=True)
class StoredEvidence:
    """Evidence that passed the verifier when it was received; `received_at` is in s since 1970."""

    device: str
    received_at: int
    body: bytes


class HeadStore:
    """One reader at a time: a second process on the same folder is refused.

    Raises:
        ConfigurationError: `reader-state-unusable`, `reader-already-running`.
        StoreError: `store-corrupt`, `disk-full` and the like, here and from every method.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                "reader-state-unusable",
                f"the reader's state folder cannot be made: {error.strerror}",
                where=str(folder),
                advice="name another one with --state",
            ) from error
        self._lock = _lock(folder / LOCK_NAME)
        try:
            self._database = open_database(folder / DATABASE_NAME, _MIGRATIONS)
        except StoreError:
            self._lock.close()
            raise

    def close(self) -> None:
        self._database.close()
        self._lock.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; inside another one it is part of that."""
        if self._database.in_transaction:
            yield
            return
        with transaction(self._database):
            yield

    def positions(self) -> dict[str, Position]:
        rows = self._database.execute("SELECT partition, sequence, digest FROM positions")
        return {row["partition"]: Position(row["sequence"], row["digest"]) for row in rows}

    def set_position(self, partition: str, position: Position) -> None:
        self._execute(
            "INSERT OR REPLACE INTO positions VALUES (?, ?, ?)", partition, position.sequence, position.digest
        )

    def add_evidence(self, digest: bytes, instance_id: bytes, stored: StoredEvidence) -> bool:
        """False when this device sent exactly this evidence before."""
        added = self._execute(
            "INSERT OR IGNORE INTO evidence VALUES (?, ?, ?, ?, ?)",
            digest,
            instance_id,
            stored.device,
            stored.received_at,
            stored.body,
        ).rowcount
        self._execute(
            "DELETE FROM evidence WHERE device = ? AND rowid NOT IN"
            " (SELECT rowid FROM evidence WHERE device = ? ORDER BY rowid DESC LIMIT ?)",
            stored.device,
            stored.device,
            MAX_EVIDENCE_PER_DEVICE,
        )
        return added == 1

    def evidence(self, digest: bytes, device: str) -> StoredEvidence | None:
        """Evidence by its digest, as this device sent it."""
        return self._evidence("digest", digest, device)

    def evidence_of_instance(self, instance_id: bytes, device: str) -> StoredEvidence | None:
        """The newest evidence of an instance, as this device sent it."""
        return self._evidence("instance_id", instance_id, device)

    def device_of_instance(self, instance_id: bytes) -> str:
        """Which device sent evidence of an instance; empty if none did."""
        row = self._execute("SELECT device FROM evidence WHERE instance_id = ? LIMIT 1", instance_id).fetchone()
        return row["device"] if row else ""

    def _evidence(self, column: str, value: bytes, device: str) -> StoredEvidence | None:
        query = f"SELECT * FROM evidence WHERE {column} = ? AND device = ? ORDER BY rowid DESC LIMIT 1"  # noqa: S608
        row = self._execute(query, value, device).fetchone()
        return StoredEvidence(row["device"], row["received_at"], row["body"]) if row else None

    def stream(self, key: bytes) -> bytes | None:
        row = self._execute("SELECT state FROM streams WHERE key = ?", key).fetchone()
        return row["state"] if row else None

    def streams(self) -> list[bytes]:
        return [row["state"] for row in self._execute("SELECT state FROM streams ORDER BY key")]

    def stream_keys(self) -> list[bytes]:
        return [row["key"] for row in self._execute("SELECT key FROM streams ORDER BY key")]

    def set_stream(self, key: bytes, state: bytes) -> None:
        self._execute("INSERT OR REPLACE INTO streams VALUES (?, ?)", key, state)

    def hold(self, event: Event, waits_for: bytes, code: str) -> bool:
        """Keeps a message until `take_held`; False if the same one waits there already.

        Raises:
            ResultError: `too-many-held`, when this device already has as many waiting as one device may.
        """
        totals = self._execute("SELECT messages, bytes FROM held_totals WHERE device = ?", event.device).fetchone()
        count, size = totals or (0, 0)
        if count >= MAX_HELD_PER_DEVICE or size >= MAX_HELD_BYTES_PER_DEVICE:
            raise ResultError(
                "too-many-held",
                f"{count} messages of this device already wait for evidence or for messages before them",
                where=event.device,
                advice="find out why its evidence does not arrive: is ta_runner's route upstream in the deployment?",
            )
        statement = "INSERT OR IGNORE INTO held (waits_for, code, device, digest, event) VALUES (?, ?, ?, ?, ?)"
        digest = Position.of(event).digest
        added = self._execute(statement, waits_for, code, event.device, digest, msgspec.msgpack.encode(event))
        return added.rowcount == 1

    def take_held(self, waits_for: bytes) -> list[Event]:
        """What waits for this, oldest first; it is held no longer."""
        rows = self._execute("SELECT event FROM held WHERE waits_for = ? ORDER BY id", waits_for).fetchall()
        if rows:
            self._execute("DELETE FROM held WHERE waits_for = ?", waits_for)
        return [msgspec.msgpack.decode(row["event"], type=Event) for row in rows]

    def take_held_from(self, beginning: bytes) -> list[Event]:
        """What waits for anything whose name begins so, in the order of the names; it is held no longer."""
        span = (beginning, beginning + _BEYOND)
        rows = self._execute(
            "SELECT event FROM held WHERE waits_for > ? AND waits_for < ? ORDER BY waits_for, id", *span
        ).fetchall()
        self._execute("DELETE FROM held WHERE waits_for > ? AND waits_for < ?", *span)
        return [msgspec.msgpack.decode(row["event"], type=Event) for row in rows]

    def is_held(self, beginning: bytes) -> bool:
        """Whether anything waits for something whose name begins so."""
        query = "SELECT 1 FROM held WHERE waits_for > ? AND waits_for < ? LIMIT 1"
        return self._execute(query, beginning, beginning + _BEYOND).fetchone() is not None

    def held_counts(self) -> dict[str, int]:
        """How many messages wait, by what they wait for."""
        return {row["code"]: row["n"] for row in self._execute("SELECT code, count(*) AS n FROM held GROUP BY code")}

    def add_finding(self, finding: bytes) -> int:
        number = self._execute("INSERT INTO outbox (finding) VALUES (?)", finding).lastrowid
        assert number is not None
        return number

    def findings(self) -> list[tuple[int, bytes]]:
        """What was found and never confirmed as written, oldest first."""
        return [(row["id"], row["finding"]) for row in self._execute("SELECT id, finding FROM outbox ORDER BY id")]

    def confirm(self, up_to: int) -> None:
        """Everything up to this number has been written where its reader finds it."""
        with self.transaction():
            self._execute("DELETE FROM outbox WHERE id <= ?", up_to)

    def _execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        return self._database.execute(statement, values)


def _lock(path: Path) -> TextIO:
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise ConfigurationError(
            "reader-already-running",
            "another reader works on this state folder",
            where=str(path.parent),
            advice="stop it, or give this one a folder of its own with --state",
        ) from error
    return file
