"""Events of all partitions of a hub, from a stored position on, through the azure-eventhub client.

Rules:

1. A position is the sequence number and a digest of the last event that was processed. Reading starts *at* it, so that
   its event is seen again and compared: a hub that was made anew under the old name is noticed, and read from its
   beginning, instead of being skipped up to the old number.
2. Within one partition events come in order, each once, however often the connection is lost.
3. What cannot mend itself (a refused key, an untrusted certificate) ends the reading with an error; a hub that is away
   for a while does not.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from azure.eventhub import EventData
from azure.eventhub.aio import EventHubConsumerClient, PartitionContext
from azure.eventhub.amqp import AmqpMessageBodyType
from azure.eventhub.exceptions import AuthenticationError, EventHubError

from edgeclave.cloud.connection import EventHubConnection
from edgeclave.cloud.ending import end
from edgeclave.errors import ConfigurationError, EdgeclaveError

CONSUMER_GROUP = "$Default"
BATCH_EVENTS = 200  # at most, per partition, in one hand-over
WAITING_BATCHES = 4  # read ahead of the one that is being processed
CONNECT_SECONDS = 30.0  # until a hub that does not answer is given up
RETRY_SECONDS = 1.0

Notice = Callable[[str, str], None]
"""Called with a code and a sentence about something that mends itself."""


@dataclass(frozen=True, slots=True)
class Event:
    """One device-to-cloud message. `device` and `module` are what the hub authenticated; all else is the sender's."""

    partition: str
    sequence: int
    body: bytes = field(repr=False)
    content_type: str
    properties: Mapping[str, str]
    device: str
    module: str


@dataclass(frozen=True, slots=True)
class Position:
    """The last event that was processed in a partition."""

    sequence: int
    digest: bytes

    @classmethod
    def of(cls, event: Event) -> Position:
        return cls(event.sequence, hashlib.sha256(event.body).digest())


class EventSource:
    """Reads while it is entered; `next_batch` hands over what came.

    Args:
        connection: the hub.
        positions: per partition, where to go on.
        earliest: where to begin in partitions without a position: at the first event, or after the last.
        ca_file: PEM certificates to trust instead of the public ones.
    """

    def __init__(
        self,
        connection: EventHubConnection,
        *,
        positions: Mapping[str, Position],
        earliest: bool,
        ca_file: Path | None = None,
        notice: Notice = lambda code, what: None,
    ) -> None:
        if ca_file is not None and not ca_file.is_file():
            raise ConfigurationError(
                "no-such-file",
                "there is no such certificate file",
                where=str(ca_file),
                advice="`edgeclave sim connection-string eventhub --json` names it as caFile",
            )
        self._connection = connection
        self._positions = dict(positions)
        self._earliest = earliest
        self._ca_file = ca_file
        self._notice = notice
        self._queue: asyncio.Queue[list[Event]] = asyncio.Queue(WAITING_BATCHES)
        self._unconfirmed: dict[str, Position] = {}
        self._restart = asyncio.Event()
        self._beginnings: dict[str, int] = {}
        self._ends: dict[str, int] = {}
        self._connected = False
        self._closing = False
        self._failure: EdgeclaveError | None = None
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._reading is not None
        self._closing = True
        self._reading.cancel()
        await asyncio.wait([self._reading])

    @property
    def caught_up(self) -> bool:
        """Whether everything has been handed over that was in the hub when the connection was made."""
        return self._connected and all(
            name in self._positions and self._positions[name].sequence >= last for name, last in self._ends.items()
        )

    async def next_batch(self, timeout_seconds: float) -> list[Event]:
        """Events of one partition in order; empty when none came in time.

        Raises:
            ConfigurationError: `event-hub-refused`, `event-hub-untrusted`, `event-hub-unreachable`.
        """
        assert self._reading is not None
        waiting = asyncio.ensure_future(self._queue.get())
        try:
            await asyncio.wait((waiting, self._reading), timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
            if self._reading.done():
                self._reading.result()
            return []
        finally:
            waiting.cancel()

    async def _read(self) -> None:
        while not self._closing:
            self._restart.clear()
            client = EventHubConsumerClient.from_connection_string(
                self._connection.text,
                CONSUMER_GROUP,
                connection_verify=str(self._ca_file) if self._ca_file else None,
                retry_total=0,  # whatever breaks, `_read` begins again, and checks that it is the same hub
            )
            async with client:
                starts = await self._starts(client)
                if self._closing:
                    return
                self._connected = True
                self._unconfirmed = {name: self._positions[name] for name, start in starts.items() if start[1]}
                receiving = asyncio.create_task(
                    client.receive_batch(
                        on_event_batch=self._on_batch,
                        on_error=self._on_error,
                        max_batch_size=BATCH_EVENTS,
                        starting_position={name: start[0] for name, start in starts.items()},
                        starting_position_inclusive={name: start[1] for name, start in starts.items()},
                    )
                )
                restarting = asyncio.create_task(self._restart.wait())
                try:
                    await asyncio.wait((receiving, restarting), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    restarting.cancel()
                    await end(receiving)
                if self._failure:
                    raise self._failure
            await asyncio.sleep(RETRY_SECONDS)

    async def _starts(self, client: EventHubConsumerClient) -> dict[str, tuple[int, bool]]:
        """Per partition the sequence number to start at, and whether its event is wanted too."""
        deadline = asyncio.get_running_loop().time() + CONNECT_SECONDS
        while not self._closing:  # the SDK may swallow the cancellation: see `ending`
            try:
                names = await client.get_partition_ids()
                found = await asyncio.gather(*map(client.get_partition_properties, names))
                return {name: self._start(name, properties) for name, properties in zip(names, found, strict=True)}
            except EventHubError as error:
                if hopeless := _hopeless(error, self._connection.host):
                    raise hopeless from error
                if not self._connected and asyncio.get_running_loop().time() > deadline:
                    raise ConfigurationError(
                        "event-hub-unreachable",
                        f"the Event Hub endpoint did not answer for {CONNECT_SECONDS:.0f} s",
                        where=self._connection.host,
                        advice="check that the hub or simulator is up, and its host name in the connection string",
                    ) from error
                await asyncio.sleep(RETRY_SECONDS)
        return {}

    def _start(self, name: str, properties: Mapping[str, Any]) -> tuple[int, bool]:
        last = int(properties["last_enqueued_sequence_number"])
        position = self._positions.get(name)
        if position and last >= position.sequence:
            self._ends[name] = last
            return position.sequence, True
        if position:
            self._forget(name)
        # Remembered, so that "after the last" stays where it was when the connection is made again.
        beginning = self._beginnings.setdefault(name, -1 if self._earliest else last)
        start = beginning if beginning <= last else -1
        if start < last and not properties["is_empty"]:
            self._ends[name] = last
        return start, False

    def _forget(self, partition: str) -> None:
        del self._positions[partition]
        self._beginnings[partition] = -1
        self._notice(
            "hub-made-anew",
            f"partition {partition} does not hold the event last read from it; reading it from its beginning",
        )

    async def _on_batch(self, context: PartitionContext, batch: Sequence[EventData]) -> None:
        partition = context.partition_id
        events = [_event(partition, data) for data in batch]
        if self._restart.is_set() or not events:
            return
        expected = self._unconfirmed.pop(partition, None)
        if expected and events[0].sequence == expected.sequence:
            if Position.of(events[0]) != expected:
                self._forget(partition)
                self._restart.set()
                return
            events = events[1:]
        if events:
            await self._queue.put(events)
            self._positions[partition] = Position.of(events[-1])

    async def _on_error(self, context: PartitionContext | None, error: Exception) -> None:
        if not self._restart.is_set():
            self._failure = _hopeless(error, self._connection.host)
            self._restart.set()
            if not self._failure:
                self._notice("event-hub-interrupted", f"lost the connection to {self._connection.host}; trying again")


def _event(partition: str, data: EventData) -> Event:
    system = data.system_properties
    # A body of another AMQP type than data is nothing that any module of ours sends: it is read as empty, and refused.
    is_data = data.body_type == AmqpMessageBodyType.DATA
    body: Any = data.body
    return Event(
        partition=partition,
        sequence=data.sequence_number or 0,
        body=b"".join(body) if is_data else b"",
        content_type=data.content_type or "",
        properties={_text(name): _text(value) for name, value in (data.properties or {}).items()},
        device=_text(system.get(b"iothub-connection-device-id", b"")),
        module=_text(system.get(b"iothub-connection-module-id", b"")),
    )


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _hopeless(error: Exception, host: str) -> EdgeclaveError | None:
    """What trying again cannot mend."""
    if isinstance(error, AuthenticationError):
        return ConfigurationError(
            "event-hub-refused",
            "the Event Hub endpoint refused the connection string's key",
            where=host,
            advice="copy the connection string again; the key or the hub's name in EntityPath is wrong",
        )
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return ConfigurationError(
            "event-hub-untrusted",
            "the certificate of the Event Hub endpoint is not trusted",
            where=host,
            advice="name its certificate authority with --ca",
        )
    return None
