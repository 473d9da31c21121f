"""The three links a client makes: requests in, replies out, events out."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from edgeclave.simulator.amqp.log import LogEntry, MessageLog
from edgeclave.simulator.amqp.message import Message, read_message
from edgeclave.simulator.amqp.performatives import Flow, Transfer
from edgeclave.simulator.amqp.types import MESSAGE_TOO_LARGE, RESOURCE_LIMIT, AmqpError, Long, Timestamp

MAX_REQUEST_BYTES = 65_536
MAX_WAITING_REPLIES = 64
REQUEST_CREDIT = 100
READ_BATCH = 64  # log entries read and sent before other links get their turn
_SERIAL = 1 << 32  # delivery counts and transfer ids wrap (RFC 1982)
_PROPERTY_OF = {
    "message-id": "message_id",
    "correlation-id": "correlation_id",
    "content-type": "content_type",
    "content-encoding": "content_encoding",
}


class Outlet(Protocol):
    """What a sending link needs of its session."""

    def transmit(self, handle: int, message: bytes) -> None: ...

    def send_flow(self, handle: int, *, delivery_count: int, link_credit: int) -> None: ...

    async def writable(self) -> None: ...


class RequestLink:
    """Client to `$cbs` or `$management`."""

    def __init__(
        self, address: str, on_request: Callable[[Message], None], *, limit_bytes: int = MAX_REQUEST_BYTES
    ) -> None:
        self.address = address
        self.limit_bytes = limit_bytes
        self._on_request = on_request
        self._buffer = bytearray()
        self.received = 0

    def on_transfer(self, transfer: Transfer, payload: bytes) -> bool:
        """True when a whole message was taken; raises AmqpError for malformed or large ones."""
        if transfer.aborted:
            self._buffer.clear()
            return False
        self._buffer += payload
        if len(self._buffer) > self.limit_bytes:
            raise AmqpError(MESSAGE_TOO_LARGE, f"a message is larger than {self.limit_bytes} bytes")
        if transfer.more:
            return False
        whole = bytes(self._buffer)
        self._buffer.clear()
        self.received += 1
        self._on_request(read_message(whole))
        return True


class CommandLink(RequestLink):
    """A service to `/messages/devicebound`. A delivery is settled when its message is on disk, not when it has come."""

    def __init__(self, on_message: Callable[[Message, int | None], None], limit_bytes: int) -> None:
        self._delivery: int | None = None
        super().__init__("", lambda message: on_message(message, self._delivery), limit_bytes=limit_bytes)

    def on_transfer(self, transfer: Transfer, payload: bytes) -> bool:
        if transfer.delivery_id is not None:  # on the first of several transfers only
            self._delivery = None if transfer.settled else transfer.delivery_id
        return super().on_transfer(transfer, payload)


class SendingLink:
    """The credit of a link on which this side sends (part 2, section 2.6.7)."""

    def __init__(self, handle: int, outlet: Outlet) -> None:
        self.handle = handle
        self.delivery_count = 0
        self.credit = 0
        self.drain = False
        self._outlet = outlet

    def on_flow(self, flow: Flow) -> None:
        if flow.link_credit is not None:
            granted = ((flow.delivery_count or 0) + flow.link_credit - self.delivery_count) % _SERIAL
            self.credit = granted if granted < _SERIAL // 2 else 0
        self.drain = flow.drain
        self.wake()

    def wake(self) -> None:
        """Called when credit or session window may have grown."""

    def _send(self, message: bytes) -> None:
        self.credit -= 1
        self.delivery_count = (self.delivery_count + 1) % _SERIAL
        self._outlet.transmit(self.handle, message)

    def _finish_drain(self) -> None:
        if self.drain:
            self.delivery_count = (self.delivery_count + self.credit) % _SERIAL
            self.credit, self.drain = 0, False
            self._outlet.send_flow(self.handle, delivery_count=self.delivery_count, link_credit=0)


class ReplyLink(SendingLink):
    """`$cbs` or `$management` to the client."""

    def __init__(self, address: str, handle: int, outlet: Outlet) -> None:
        super().__init__(handle, outlet)
        self.address = address
        self._waiting: deque[bytes] = deque()

    def send(self, message: Message) -> None:
        """Raises AmqpError `amqp:resource-limit-exceeded` when the client asks on and on and takes nothing."""
        if len(self._waiting) >= MAX_WAITING_REPLIES:
            raise AmqpError(RESOURCE_LIMIT, "too many replies wait for credit")
        self._waiting.append(message.to_bytes())
        self.wake()

    def wake(self) -> None:
        while self._waiting and self.credit > 0:
            self._send(self._waiting.popleft())
        self._finish_drain()


class EventLink(SendingLink):
    """One partition to the client, from a position on, for as long as the link is attached."""

    def __init__(self, log: MessageLog, partition: str, after_sequence: int, handle: int, outlet: Outlet) -> None:
        super().__init__(handle, outlet)
        self._log = log
        self._partition = partition
        self._after = after_sequence
        self._changed = asyncio.Event()

    def wake(self) -> None:
        self._changed.set()

    async def run(self) -> None:
        """Sends until cancelled."""
        while True:
            self._changed.clear()
            sent = await self._send_some()
            if sent:
                continue
            self._finish_drain()
            if self.credit > 0:
                await self._log_or_change()
            else:
                await self._changed.wait()

    async def _send_some(self) -> int:
        await self._outlet.writable()
        entries = self._log.read(self._partition, self._after, min(self.credit, READ_BATCH)) if self.credit > 0 else []
        for entry in entries:
            await self._outlet.writable()
            self._send(event(entry).to_bytes())
            self._after = entry.sequence
        return len(entries)

    async def _log_or_change(self) -> None:
        tasks = (
            asyncio.ensure_future(self._log.wait(self._partition, self._after)),
            asyncio.ensure_future(self._changed.wait()),
        )
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()


def event(entry: LogEntry) -> Message:
    """A log entry as IoT Hub's built-in endpoint shows it."""
    properties: dict[str, object] = {}
    annotations: dict[str, object] = {
        "x-opt-sequence-number": Long(entry.sequence),
        "x-opt-offset": entry.offset,
        "x-opt-enqueued-time": Timestamp(entry.enqueued_ms),
    }
    for name, text in entry.system.items():
        if name in _PROPERTY_OF:
            # Content type and encoding are ASCII symbols on this wire; a sender may have put anything there.
            properties[_PROPERTY_OF[name]] = text.encode("ascii", "replace").decode() if "content" in name else text
        else:
            annotations[name] = Timestamp(int(text)) if name == "iothub-enqueuedtime" and text.isdecimal() else text
    return Message(
        properties=properties,
        application_properties=dict(entry.properties),
        annotations=annotations,
        data=entry.body,
    )
