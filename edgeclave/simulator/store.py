"""The simulator's state on disk: one SQLite database (WAL, synchronous=FULL) with group commit.

Rules:

1. Acknowledged means on disk. Whoever answers a client does it in `after_commit` or after `await committed()`.
2. All writes of one turn of the event loop are committed together, so that many small messages cost one fsync.
3. A step (`with store.write()`) is all or nothing inside the group; a failing step does not take the others with it.
4. If the group cannot be committed, everyone who waits for it is told, and nobody gets an acknowledgement.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeclave.edge.store import StoreError, open_database, store_error
from edgeclave.simulator.log import logger

_log = logger("store")

Outcome = Callable[[StoreError | None], None]

MIGRATIONS = (
    """
    CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL);
    CREATE TABLE identities (
        device_id TEXT NOT NULL, module_id TEXT NOT NULL, primary_key TEXT NOT NULL, secondary_key TEXT NOT NULL,
        generation_id TEXT NOT NULL, version INTEGER NOT NULL, enabled INTEGER NOT NULL, iot_edge INTEGER NOT NULL,
        managed_by TEXT NOT NULL, address TEXT NOT NULL, PRIMARY KEY (device_id, module_id)
    );
    CREATE TABLE twins (
        device_id TEXT NOT NULL, module_id TEXT NOT NULL,
        desired TEXT NOT NULL, reported TEXT NOT NULL, tags TEXT NOT NULL,
        desired_version INTEGER NOT NULL, reported_version INTEGER NOT NULL,
        etag INTEGER NOT NULL, version INTEGER NOT NULL, desired_updated TEXT NOT NULL, reported_updated TEXT NOT NULL,
        PRIMARY KEY (device_id, module_id),
        FOREIGN KEY (device_id, module_id) REFERENCES identities ON DELETE CASCADE
    );
    CREATE TABLE subscriptions (
        device_id TEXT NOT NULL, module_id TEXT NOT NULL, topic_filter TEXT NOT NULL, qos INTEGER NOT NULL,
        PRIMARY KEY (device_id, module_id, topic_filter),
        FOREIGN KEY (device_id, module_id) REFERENCES identities ON DELETE CASCADE
    );
    CREATE TABLE inputs (
        id INTEGER PRIMARY KEY AUTOINCREMENT, device_id TEXT NOT NULL, module_id TEXT NOT NULL,
        priority INTEGER NOT NULL, topic TEXT NOT NULL, body BLOB NOT NULL, expires_ms INTEGER NOT NULL,
        FOREIGN KEY (device_id, module_id) REFERENCES identities ON DELETE CASCADE
    );
    CREATE INDEX inputs_in_order ON inputs (device_id, module_id, priority, id);
    CREATE TABLE partitions (partition TEXT PRIMARY KEY, next_sequence INTEGER NOT NULL);
    CREATE TABLE messages (
        partition TEXT NOT NULL, sequence INTEGER NOT NULL, enqueued_ms INTEGER NOT NULL, body BLOB NOT NULL,
        properties TEXT NOT NULL, system TEXT NOT NULL, PRIMARY KEY (partition, sequence)
    )
    """,
    """
    ALTER TABLE identities ADD COLUMN authentication TEXT NOT NULL DEFAULT 'sas';
    ALTER TABLE identities ADD COLUMN primary_thumbprint TEXT NOT NULL DEFAULT '';
    ALTER TABLE identities ADD COLUMN secondary_thumbprint TEXT NOT NULL DEFAULT '';
    ALTER TABLE identities ADD COLUMN status_reason TEXT NOT NULL DEFAULT '';
    CREATE TABLE configurations (
        id TEXT PRIMARY KEY, document TEXT NOT NULL, version INTEGER NOT NULL, created TEXT NOT NULL,
        updated TEXT NOT NULL
    );
    CREATE TABLE commands (
        input_id INTEGER PRIMARY KEY, device_id TEXT NOT NULL, message_id TEXT NOT NULL, ack TEXT NOT NULL,
        expires_ms INTEGER NOT NULL
    );
    CREATE TABLE feedback (
        id INTEGER PRIMARY KEY AUTOINCREMENT, device_id TEXT NOT NULL, generation_id TEXT NOT NULL,
        message_id TEXT NOT NULL, status TEXT NOT NULL, enqueued TEXT NOT NULL
    );
    CREATE TABLE enrolments (
        id TEXT NOT NULL, is_group INTEGER NOT NULL, document TEXT NOT NULL, version INTEGER NOT NULL,
        created TEXT NOT NULL, updated TEXT NOT NULL, PRIMARY KEY (id, is_group)
    );
    CREATE TABLE registrations (
        registration_id TEXT PRIMARY KEY, enrolment_id TEXT NOT NULL, is_group INTEGER NOT NULL,
        device_id TEXT NOT NULL, created TEXT NOT NULL, updated TEXT NOT NULL, version INTEGER NOT NULL
    )
    """,
    # what edgeHub keeps while IoT Hub cannot be reached: messages, and what each side last saw of the other's twin
    """
    CREATE TABLE upstream (
        id INTEGER PRIMARY KEY AUTOINCREMENT, priority INTEGER NOT NULL, body BLOB NOT NULL,
        properties TEXT NOT NULL, system TEXT NOT NULL, expires_ms INTEGER NOT NULL
    );
    CREATE INDEX upstream_in_order ON upstream (priority, id);
    CREATE TABLE outage_twins (
        device_id TEXT NOT NULL, module_id TEXT NOT NULL, section TEXT NOT NULL,
        properties TEXT NOT NULL, version INTEGER NOT NULL, updated TEXT NOT NULL,
        PRIMARY KEY (device_id, module_id, section),
        FOREIGN KEY (device_id, module_id) REFERENCES identities ON DELETE CASCADE
    )
    """,
    # how often a message to a device was sent and came back
    """
    ALTER TABLE commands ADD COLUMN deliveries INTEGER NOT NULL DEFAULT 0
    """,
    # when each property of a twin was changed
    """
    ALTER TABLE twins ADD COLUMN desired_metadata TEXT NOT NULL DEFAULT '{}';
    ALTER TABLE twins ADD COLUMN reported_metadata TEXT NOT NULL DEFAULT '{}';
    ALTER TABLE outage_twins ADD COLUMN metadata TEXT NOT NULL DEFAULT '{}'
    """,
)


class Store:
    """The one connection to the database; used on one thread only."""

    def __init__(self, path: Path) -> None:
        """Opens or makes the database.

        Raises:
            StoreError: what is wrong with the file, see `open_database`.
        """
        self.connection = open_database(path, MIGRATIONS)
        self._waiting: list[Outcome] = []
        self.closed = False
        self._scheduled = False

    def close(self) -> None:
        """Commits what is pending and closes."""
        self.commit()
        self.closed = True
        self.connection.close()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One step of the current group. Do not await inside.

        Raises:
            StoreError: what SQLite could not do; nothing of this step was stored.
        """
        registered = len(self._waiting)
        try:
            self._begin()
            self.connection.execute("SAVEPOINT step")
            try:
                yield self.connection
            except BaseException:
                del self._waiting[registered:]  # what this step wanted to tell never happened
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK TO step")
                    self.connection.execute("RELEASE step")
                raise
            self.connection.execute("RELEASE step")
        except sqlite3.Error as error:
            failure = store_error(error)
            if not self.connection.in_transaction:  # a full disk makes SQLite roll back the whole group
                self._tell(failure)
            raise failure from error

    def after_commit(self, outcome: Outcome) -> None:
        """Calls `outcome(None)` once the current group is on disk, or `outcome(error)` if it cannot be.

        The call comes in this turn of the loop when nothing is pending.
        """
        if self.connection.in_transaction:
            self._waiting.append(outcome)
            self._schedule()
        else:
            outcome(None)

    async def committed(self) -> None:
        """Returns when everything written so far is on disk.

        Raises:
            StoreError: it is not, and will not be.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def settle(error: StoreError | None) -> None:
            if done.done():
                return
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        self.after_commit(settle)
        await done

    def commit(self) -> None:
        """Commits the current group now."""
        self._scheduled = False
        if self.closed or not self.connection.in_transaction:
            return
        try:
            self.connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            self._tell(store_error(error))
        else:
            self._tell(None)

    def _begin(self) -> None:
        if self.connection.in_transaction:
            return
        self.connection.execute("BEGIN IMMEDIATE")
        self._schedule()

    def _schedule(self) -> None:
        if self._scheduled:
            return
        with contextlib.suppress(RuntimeError):  # no loop: a command that writes and calls commit itself
            asyncio.get_running_loop().call_soon(self.commit)
            self._scheduled = True

    def _tell(self, error: StoreError | None) -> None:
        waiting, self._waiting = self._waiting, []
        for outcome in waiting:
            try:
                outcome(error)
            except Exception:  # one listener's failure is not the others'
                _log.exception("a listener failed after a commit")
