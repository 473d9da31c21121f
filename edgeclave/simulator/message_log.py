"""The hub's log of device-to-cloud messages on the store: what the Event Hub endpoint reads.

A message can be read only once it is on disk, so no sequence number is ever given out twice.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
import zlib
from collections.abc import Mapping, Sequence

from edgeclave.edge.store import StoreError
from edgeclave.simulator.amqp.log import LogEntry
from edgeclave.simulator.store import Store

PARTITIONS = ("0", "1")  # as many as IoT Hub's free tier has
RETENTION_MS = 7 * 24 * 3600 * 1000  # IoT Hub's longest


class StoredMessageLog:
    """Implements `edgeclave.simulator.amqp.log.MessageLog`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._durable = {partition: self._next_sequence(partition) for partition in PARTITIONS}  # below: on disk
        self._grown: asyncio.Event | None = None

    @property
    def partitions(self) -> tuple[str, ...]:
        return PARTITIONS

    def append(self, device_id: str, body: bytes, properties: Mapping[str, str], system: Mapping[str, str]) -> None:
        """Adds a message to the store's current group. Messages of one device stay in one partition, in order."""
        partition = PARTITIONS[zlib.crc32(device_id.encode()) % len(PARTITIONS)]
        now = int(time.time() * 1000)
        sequence = self._next_sequence(partition)
        complete = {**system, "iothub-enqueuedtime": str(now)}
        with self._store.write() as connection:
            connection.execute(
                "INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?)",
                (partition, sequence, now, body, json.dumps(dict(properties)), json.dumps(complete)),
            )
            connection.execute("INSERT OR REPLACE INTO partitions VALUES (?, ?)", (partition, sequence + 1))
        self._store.after_commit(lambda error: self._settled(partition, sequence, error))

    def read(self, partition: str, after_sequence: int, limit: int) -> Sequence[LogEntry]:
        rows = self._store.connection.execute(
            "SELECT * FROM messages WHERE partition = ? AND sequence > ? AND sequence < ? ORDER BY sequence LIMIT ?",
            (partition, after_sequence, self._durable.get(partition, 0), limit),
        )
        return [_entry(row) for row in rows]

    def bounds(self, partition: str) -> tuple[int, int, int]:
        row = self._store.connection.execute(
            "SELECT min(sequence) AS first, max(sequence) AS last, max(enqueued_ms) AS enqueued FROM messages"
            " WHERE partition = ? AND sequence < ?",
            (partition, self._durable.get(partition, 0)),
        ).fetchone()
        if row["first"] is None:
            return 0, -1, 0
        return row["first"], row["last"], row["enqueued"]

    async def wait(self, partition: str, after_sequence: int) -> None:
        while self.bounds(partition)[1] <= after_sequence:
            if self._grown is None:
                self._grown = asyncio.Event()
            await self._grown.wait()

    def count(self) -> int:
        """Messages on disk and those that were dropped for their age."""
        return sum(self._durable.values())

    def forget_old(self) -> None:
        """Drops what is past the retention time."""
        with self._store.write() as connection:
            connection.execute("DELETE FROM messages WHERE enqueued_ms < ?", (int(time.time() * 1000) - RETENTION_MS,))

    def _next_sequence(self, partition: str) -> int:
        row = self._store.connection.execute(
            "SELECT next_sequence FROM partitions WHERE partition = ?", (partition,)
        ).fetchone()
        return int(row["next_sequence"]) if row else 0

    def _settled(self, partition: str, sequence: int, error: StoreError | None) -> None:
        if error is not None:
            return
        self._durable[partition] = max(self._durable[partition], sequence + 1)
        if self._grown is not None:
            self._grown.set()
            self._grown = None


def _entry(row: sqlite3.Row) -> LogEntry:
    return LogEntry(
        row["sequence"],
        str(row["sequence"]),
        row["enqueued_ms"],
        bytes(row["body"]),
        json.loads(row["properties"]),
        json.loads(row["system"]),
    )
