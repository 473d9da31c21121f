"""Messages that must reach the hub, kept in the module's own database until the hub has acknowledged them.

Rules:

1. `put` belongs inside the caller's transaction: the message is there exactly when the rest of that transaction is.
2. `drain` hands messages over oldest first and removes only what was acknowledged.
3. A full outbox refuses (`outbox-full`); it never drops. So does a message that the hub could never take.

After a lost acknowledgement a message is sent again: receivers of sealed results know it by its digest.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import msgspec
import structlog

from edgeclave.edge.backoff import Backoff
from edgeclave.edge.store import StoreError, transaction
from edgeclave.errors import EdgeclaveError

OUTBOX_SCHEMA = """
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    output TEXT NOT NULL,
    body BLOB NOT NULL,
    content_type TEXT NOT NULL,
    properties BLOB NOT NULL
);
CREATE TABLE outbox_totals (messages INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT INTO outbox_totals VALUES (0, 0);
CREATE TRIGGER outbox_put AFTER INSERT ON outbox BEGIN
    UPDATE outbox_totals SET messages = messages + 1, bytes = bytes + length(NEW.body);
END;
CREATE TRIGGER outbox_taken AFTER DELETE ON outbox BEGIN
    UPDATE outbox_totals SET messages = messages - 1, bytes = bytes - length(OLD.body);
END;
"""
"""One of the `migrations` of the module that keeps an outbox."""

DEFAULT_MAX_MESSAGES = 200_000
DEFAULT_MAX_BYTES = 1 << 30
MAX_MESSAGE_BYTES = 250_000  # IoT Hub takes 262,144 bytes with all properties; the module client refuses more
DEFAULT_IN_FLIGHT = 16

Send = Callable[[str, bytes, str, Mapping[str, str]], Awaitable[None]]
"""`HubConnection.send`: output, body, content type, properties."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class OutboxMessage:
    """One message that waits; `id` grows in the order of `put`."""

    id: int
    output: str
    body: bytes
    content_type: str
    properties: dict[str, str]


class Outbox:
    """An outbox on a connection opened by `open_database` with OUTBOX_SCHEMA among its migrations."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        max_messages: int = DEFAULT_MAX_MESSAGES,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> None:
        self._connection = connection
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        """Messages that wait."""
        return self._totals()[0]

    @property
    def size_bytes(self) -> int:
        """Bytes of all waiting bodies."""
        return self._totals()[1]

    def put(self, output: str, body: bytes, content_type: str, properties: Mapping[str, str]) -> int:
        """Adds a message inside the caller's transaction and returns its id.

        Raises:
            StoreError: `outbox-full`, `message-too-large`.
        """
        if len(body) > MAX_MESSAGE_BYTES:
            raise StoreError(
                "message-too-large",
                f"a message of {len(body)} bytes does not fit IoT Hub's limit of 256 KiB",
                where=f"output {output}",
                advice="emit less in one result",
            )
        messages, size = self._totals()
        if messages >= self._max_messages or size + len(body) > self._max_bytes:
            raise StoreError(
                "outbox-full",
                f"{messages} messages ({size} bytes) wait to be sent",
                where=f"output {output}",
                advice="bring the device online; nothing was dropped",
            )
        cursor = self._connection.execute(
            "INSERT INTO outbox (output, body, content_type, properties) VALUES (?, ?, ?, ?)",
            (output, body, content_type, msgspec.json.encode(dict(properties))),
        )
        self._filled.set()
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def contains(self, message_id: int) -> bool:
        """Whether a message put earlier still waits."""
        row = self._connection.execute("SELECT 1 FROM outbox WHERE id = ?", (message_id,)).fetchone()
        return row is not None

    async def drain(self, send: Send, *, in_flight: int = DEFAULT_IN_FLIGHT) -> None:
        """Sends for ever; cancel it to stop. `send` returning means: the hub has the message."""
        backoff = Backoff(first_seconds=0.5, longest_seconds=30)
        while True:
            self._filled.clear()
            batch = self._oldest(in_flight)
            if not batch:
                await self._filled.wait()
                continue
            if await self._send_batch(batch, send):
                backoff.reset()
            else:
                await asyncio.sleep(backoff.next_seconds())

    async def _send_batch(self, batch: list[OutboxMessage], send: Send) -> bool:
        """Sends all of `batch` at once, issued in order, and removes those acknowledged."""
        outcomes = await asyncio.gather(
            *(send(message.output, message.body, message.content_type, message.properties) for message in batch),
            return_exceptions=True,
        )
        acknowledged = [message.id for message, outcome in zip(batch, outcomes, strict=True) if outcome is None]
        with transaction(self._connection):
            self._connection.executemany("DELETE FROM outbox WHERE id = ?", [(number,) for number in acknowledged])
        failure = next((outcome for outcome in outcomes if outcome is not None), None)
        if failure is None:
            return True
        if isinstance(failure, asyncio.CancelledError) or not isinstance(failure, Exception):
            raise failure
        code = failure.code if isinstance(failure, EdgeclaveError) else type(failure).__name__
        _log.info("outbox waits", code=code, reason=str(failure)[:200], messages=len(self))
        return False

    def _oldest(self, count: int) -> list[OutboxMessage]:
        rows = self._connection.execute(
            "SELECT id, output, body, content_type, properties FROM outbox ORDER BY id LIMIT ?", (count,)
        )
        return [
            OutboxMessage(
                row["id"],
                row["output"],
                row["body"],
                row["content_type"],
                msgspec.json.decode(row["properties"], type=dict[str, str]),
            )
            for row in rows
        ]

    def _totals(self) -> tuple[int, int]:
        row = self._connection.execute("SELECT messages, bytes FROM outbox_totals").fetchone()
        return row["messages"], row["bytes"]
