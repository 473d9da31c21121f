"""Messages that must reach the hub, kept in the module's own database until the hub has acknowledged them.

Rules:

1. `put` belongs inside the caller's transaction: the message is there exactly when the rest of that transaction is.
2. `drain` hands messages over oldest first and removes only what was acknowledged.
3. A full outbox refuses (`outbox-full`); it never drops. So does a message that the hub could never take.

After a lost acknowledgement a message is sent again: receivers of sealed results know it by its digest.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import deque
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
READ_TOGETHER = 64
REMOVE_TOGETHER = 64
"""Acknowledged messages that a crash may send again, at most and in_flight more."""

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
        self._changed = asyncio.Event()

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
        self._changed.set()
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def contains(self, message_id: int) -> bool:
        """Whether a message put earlier still waits."""
        row = self._connection.execute("SELECT 1 FROM outbox WHERE id = ?", (message_id,)).fetchone()
        return row is not None

    async def drain(self, send: Send, *, in_flight: int = DEFAULT_IN_FLIGHT) -> None:
        """Sends for ever; cancel it to stop. `send` returning means: the hub has the message.

        Messages are handed to `send` oldest first, `in_flight` of them at a time. After a failure those under way are
        waited for, and it begins again with the oldest that was not acknowledged.
        """
        backoff = Backoff(first_seconds=0.5, longest_seconds=30)
        window: dict[int, asyncio.Task[None]] = {}
        try:
            while True:
                try:
                    await self._drain_until_failure(send, in_flight, window, backoff)
                except StoreError as error:
                    # Nothing is lost: what was acknowledged and not removed is sent once more.
                    _log.error("outbox not kept up to date", code=error.code, reason=str(error))
                except Exception as error:
                    code = error.code if isinstance(error, EdgeclaveError) else type(error).__name__
                    _log.info("outbox waits", code=code, reason=str(error)[:200], messages=len(self))
                await asyncio.sleep(backoff.next_seconds())
        finally:
            for task in window.values():
                task.cancel()

    async def _drain_until_failure(
        self, send: Send, in_flight: int, window: dict[int, asyncio.Task[None]], backoff: Backoff
    ) -> None:
        waiting: deque[OutboxMessage] = deque()
        sent: deque[int] = deque()
        acknowledged: list[int] = []
        newest = 0
        failure: BaseException | None = None

        def note(number: int) -> None:
            sent.append(number)
            self._changed.set()

        try:
            while failure is None or window:
                self._changed.clear()
                if failure is None and not waiting:
                    waiting.extend(self._after(newest, READ_TOGETHER))
                while failure is None and waiting and len(window) < in_flight:
                    message = waiting.popleft()
                    newest = message.id
                    task = asyncio.ensure_future(
                        send(message.output, message.body, message.content_type, message.properties)
                    )
                    window[newest] = task
                    task.add_done_callback(lambda _, number=newest: note(number))  # type: ignore[misc]
                await self._changed.wait()
                while sent:
                    number = sent.popleft()
                    error = window.pop(number).exception()
                    failure = failure or error
                    if error is None:
                        acknowledged.append(number)
                        backoff.reset()
                # Together, because each removal is a write to the disk.
                if len(acknowledged) >= REMOVE_TOGETHER or not window:
                    self._remove(acknowledged)
        finally:
            with contextlib.suppress(StoreError):
                self._remove(acknowledged)
        raise failure

    def _remove(self, acknowledged: list[int]) -> None:
        if acknowledged:
            with transaction(self._connection):
                self._connection.executemany("DELETE FROM outbox WHERE id = ?", [(number,) for number in acknowledged])
            acknowledged.clear()

    def _after(self, newest: int, count: int) -> list[OutboxMessage]:
        rows = self._connection.execute(
            "SELECT id, output, body, content_type, properties FROM outbox WHERE id > ? ORDER BY id LIMIT ?",
            (newest, count),
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
