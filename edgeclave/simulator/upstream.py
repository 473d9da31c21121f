"""The edge device's connection to IoT Hub: up, or cut off as in an outage; and the messages that wait for it on disk.

Rules:

1. Nothing waits and the connection is up: a message goes to the hub's log in the step that accepts it.
2. Otherwise it waits: lower priority numbers first, then age; a new one never overtakes an older one of its priority.
3. A message moves to the log and leaves the queue in one step, so a kill loses none and doubles none.
4. What is older than its time to live is dropped, as edgeHub does.
5. Whether it is cut off is part of the state and survives a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Mapping

from edgeclave.edge.store import StoreError
from edgeclave.simulator.log import logger
from edgeclave.simulator.message_log import StoredMessageLog
from edgeclave.simulator.store import Store

BATCH_MESSAGES = 100  # forwarded in one turn of the loop, so that a backlog does not hold up the modules
RETRY_SECONDS = 1.0
_OFFLINE_KEY = "upstream-offline"
_log = logger("edge-hub")


class Upstream:
    """Forwards one device's messages to the hub's log, now or later."""

    def __init__(self, store: Store, log: StoredMessageLog, device_id: str) -> None:
        self._store = store
        self._message_log = log
        self._device_id = device_id
        self._draining = False
        self.on_change: list[Callable[[bool], None]] = []
        row = store.connection.execute("SELECT value FROM settings WHERE key = ?", (_OFFLINE_KEY,)).fetchone()
        self.online = row is None
        self.waiting: int = store.connection.execute("SELECT count(*) FROM upstream").fetchone()[0]

    def set_online(self, online: bool) -> None:
        """Cuts the device off or connects it again; listeners hear of it after the commit.

        Raises:
            StoreError: it stays as it was.
        """
        if online == self.online:
            return
        with self._store.write() as connection:
            if online:
                connection.execute("DELETE FROM settings WHERE key = ?", (_OFFLINE_KEY,))
            else:
                connection.execute("INSERT OR REPLACE INTO settings VALUES (?, '')", (_OFFLINE_KEY,))
            self._store.after_commit(lambda error: None if error else self._changed(online))

    def send(
        self,
        body: bytes,
        properties: Mapping[str, str],
        system: Mapping[str, str],
        *,
        priority: int,
        time_to_live_seconds: int,
    ) -> None:
        """Adds a message to the store's current group.

        Raises:
            StoreError: nothing was stored.
        """
        if self.online and not self.waiting:
            self._message_log.append(self._device_id, body, properties, system)
            return
        expires_ms = int((time.time() + time_to_live_seconds) * 1000)
        with self._store.write() as connection:
            connection.execute(
                "INSERT INTO upstream (priority, body, properties, system, expires_ms) VALUES (?, ?, ?, ?, ?)",
                (priority, body, json.dumps(dict(properties)), json.dumps(dict(system)), expires_ms),
            )
            self._store.after_commit(lambda _error: self._count())
        self.waiting += 1  # at once: what is sent in the same turn must not overtake it
        self.drain()

    def drain(self) -> None:
        """Goes on forwarding what waits, if it can; call at start."""
        if self.online and self.waiting and not self._draining:
            with contextlib.suppress(RuntimeError):  # no loop: a command that only writes
                asyncio.get_running_loop().call_soon(self._forward)
                self._draining = True

    def forget_expired(self) -> None:
        """Drops what nobody wants any more."""
        with self._store.write() as connection:
            dropped = connection.execute(
                "DELETE FROM upstream WHERE expires_ms <= ?", (int(time.time() * 1000),)
            ).rowcount
            self._store.after_commit(lambda _error: self._count())
        if dropped:
            _log.warning("messages for upstream were older than their time to live", dropped=dropped)

    def _forward(self) -> None:
        self._draining = False
        if not self.online or self._store.closed:
            return
        now = int(time.time() * 1000)
        try:
            with self._store.write() as connection:
                rows = connection.execute(
                    "SELECT * FROM upstream ORDER BY priority, id LIMIT ?", (BATCH_MESSAGES,)
                ).fetchall()
                for row in rows:
                    if row["expires_ms"] > now:
                        self._message_log.append(
                            self._device_id,
                            bytes(row["body"]),
                            json.loads(row["properties"]),
                            json.loads(row["system"]),
                        )
                    connection.execute("DELETE FROM upstream WHERE id = ?", (row["id"],))
                self._store.after_commit(self._forwarded)
        except StoreError as error:
            self._forwarded(error)

    def _forwarded(self, error: StoreError | None) -> None:
        self._count()
        if error is None:
            self.drain()
        elif not self._draining:
            _log.error("cannot forward what waits for upstream", error=str(error))
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self._forward)
            self._draining = True

    def _changed(self, online: bool) -> None:
        self.online = online
        _log.info("upstream is up" if online else "upstream is cut off")
        for listener in self.on_change:
            listener(online)
        self.drain()

    def _count(self) -> None:
        self.waiting = self._store.connection.execute("SELECT count(*) FROM upstream").fetchone()[0]
