"""Where a consumer starts: the selector that azure-eventhub puts on a link, and the log position it means.

>>> parse_selector("amqp.annotation.x-opt-sequence-number >= '42'")
StartPosition(key='sequence-number', value=42, inclusive=True)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from edgeclave.simulator.amqp.log import LogEntry, MessageLog
from edgeclave.simulator.amqp.types import INVALID_FIELD, AmqpError, Described

FILTER_NAME = "apache.org:selector-filter:string"
MAX_SELECTOR_CHARACTERS = 256
EARLIEST, LATEST = "-1", "@latest"
_SELECTOR = re.compile(
    r"amqp\.annotation\.x-opt-(offset|sequence-number|enqueued-time) (>=?) '(@latest|-?[0-9]{1,19})'", re.ASCII
)


@dataclass(frozen=True)
class StartPosition:
    """Everything whose `key` is greater than `value` (or equal, when inclusive); a value of None is the end."""

    key: str = "offset"
    value: int | None = -1
    inclusive: bool = False


def start_of(filters: dict[Any, Any] | None) -> StartPosition:
    """From a source's filter set; without a selector a link starts at the first message.

    Raises:
        AmqpError: `amqp:invalid-field` for any other filter, so that none is ignored in silence.
    """
    if not filters:
        return StartPosition()
    if set(filters) != {FILTER_NAME}:
        raise AmqpError(INVALID_FIELD, f"only the filter {FILTER_NAME} is known")
    described = filters[FILTER_NAME]
    text = described.value if isinstance(described, Described) else described
    return parse_selector(text.decode("utf-8", "replace") if isinstance(text, bytes) else text)


def parse_selector(text: object) -> StartPosition:
    """Raises AmqpError `amqp:invalid-field`."""
    match = _SELECTOR.fullmatch(text) if isinstance(text, str) and len(text) <= MAX_SELECTOR_CHARACTERS else None
    if match is None or (match[3] == LATEST and match[1] != "offset"):
        raise AmqpError(INVALID_FIELD, "the selector compares neither offset, sequence number nor enqueued time")
    return StartPosition(match[1], None if match[3] == LATEST else int(match[3]), match[2] == ">=")


def resolve(log: MessageLog, partition: str, start: StartPosition) -> int:
    """The sequence number after which to read. Offsets and times grow with it, so a search by halves finds them."""
    first, last, _ = log.bounds(partition)
    if start.value is None:
        return last
    if start.key == "sequence-number":
        return start.value - 1 if start.inclusive else start.value
    low, high = first, last + 1
    while low < high:
        middle = (low + high) // 2
        entries = log.read(partition, middle - 1, 1)
        if not entries or _is_after(entries[0], start):
            high = middle
        else:
            low = middle + 1
    return low - 1


def _is_after(entry: LogEntry, start: StartPosition) -> bool:
    position = int(entry.offset) if start.key == "offset" else entry.enqueued_ms
    value = start.value or 0
    return position >= value if start.inclusive else position > value
