"""What the endpoint reads from: the hub's log of device-to-cloud messages, in partitions.

The endpoint only reads. Whoever stores messages implements `MessageLog`; an entry that `read` returned once must be
returned again, byte for byte, however often the process was killed in between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One message of one partition.

    `sequence` counts in the partition without holes and never goes back. `offset` is what a consumer stores and hands
    back; decimal, growing with `sequence`. `system` holds strings under IoT Hub's names: message-id, correlation-id,
    content-type, content-encoding, iothub-connection-device-id, iothub-connection-module-id, iothub-enqueuedtime (ms
    since 1970, decimal) and other iothub-* annotations. `properties` are the sender's own.
    """

    sequence: int
    offset: str
    enqueued_ms: int
    body: bytes
    properties: Mapping[str, str] = field(default_factory=dict)
    system: Mapping[str, str] = field(default_factory=dict)


class MessageLog(Protocol):
    """Device-to-cloud messages on disk."""

    @property
    def partitions(self) -> tuple[str, ...]:
        """Partition ids: "0", "1", ..."""

    def read(self, partition: str, after_sequence: int, limit: int) -> Sequence[LogEntry]:
        """Entries with a greater sequence, oldest first, at most `limit`; -1 means from the first one."""

    def bounds(self, partition: str) -> tuple[int, int, int]:
        """(first sequence, last sequence, last enqueued ms).

        While a partition is empty, last is the last number that was ever given out, -1 if none was, and first is one
        more: a reader that has seen everything must not take old messages that were dropped for another hub.
        """

    async def wait(self, partition: str, after_sequence: int) -> None:
        """Returns as soon as there is an entry with a greater sequence; at once if there is one already."""
