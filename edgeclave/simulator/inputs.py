"""Messages on their way to modules' inputs: on disk until the module acknowledges, or until their time to live ends."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from edgeclave.simulator.identities import IdentityName
from edgeclave.simulator.store import Store


@dataclass(frozen=True)
class QueuedInput:
    """`number` identifies it for `remove`."""

    number: int
    topic: str
    body: bytes


class InputQueue:
    """One queue per module: priority first, then age. Writes join the store's current group."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.on_arrival: list[Callable[[IdentityName], None]] = []
        self.on_taken: list[Callable[[int], None]] = []  # inside the step that removes it
        self.on_returned: list[Callable[[int], None]] = []

    def put(self, target: IdentityName, topic: str, body: bytes, *, priority: int, time_to_live_seconds: float) -> int:
        """Returns the number under which it is queued."""
        expires_ms = int((time.time() + time_to_live_seconds) * 1000)
        with self._store.write() as connection:
            cursor = connection.execute(
                "INSERT INTO inputs (device_id, module_id, priority, topic, body, expires_ms)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (*target, priority, topic, body, expires_ms),
            )
        self._store.after_commit(lambda error: None if error else self._arrived(target))
        return int(cursor.lastrowid or 0)

    def count(self, target: IdentityName) -> int:
        row = self._store.connection.execute(
            "SELECT count(*) AS waiting FROM inputs WHERE device_id = ? AND module_id = ?", target
        ).fetchone()
        return int(row["waiting"])

    def last(self) -> int:
        """The number of the newest that waits for anyone, 0 when none does."""
        return int(self._store.connection.execute("SELECT max(id) FROM inputs").fetchone()[0] or 0)

    def next(self, target: IdentityName, limit: int, *, except_numbers: Collection[int] = ()) -> list[QueuedInput]:
        """The next ones to deliver, without those under way."""
        rows = self._store.connection.execute(
            "SELECT id, topic, body FROM inputs WHERE device_id = ? AND module_id = ? AND expires_ms > ?"
            " AND id NOT IN (SELECT value FROM json_each(?)) ORDER BY priority, id LIMIT ?",
            (*target, int(time.time() * 1000), json.dumps(list(except_numbers)), limit),
        )
        return [QueuedInput(row["id"], row["topic"], bytes(row["body"])) for row in rows]

    def remove(self, number: int) -> None:
        """The module has it."""
        with self._store.write() as connection:
            connection.execute("DELETE FROM inputs WHERE id = ?", (number,))
            for listener in self.on_taken:
                listener(number)

    def returned(self, number: int) -> None:
        """It was sent, and the connection ended before it was acknowledged."""
        for listener in self.on_returned:
            listener(number)

    def counts(self, device_id: str) -> dict[str, int]:
        """How many wait, or are on their way, for each module that has any."""
        rows = self._store.connection.execute(
            "SELECT module_id, count(*) FROM inputs WHERE device_id = ? GROUP BY module_id", (device_id,)
        )
        return {row[0]: row[1] for row in rows}

    def forget_expired(self) -> None:
        with self._store.write() as connection:
            connection.execute("DELETE FROM inputs WHERE expires_ms <= ?", (int(time.time() * 1000),))

    def _arrived(self, target: IdentityName) -> None:
        for listener in self.on_arrival:
            listener(target)
