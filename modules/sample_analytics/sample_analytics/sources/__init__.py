"""Where readings come from. A source can be asked again from any cursor that it gave.

A kind of source is one file here with a class that has the members of `Source`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

MAX_TIME_CHARACTERS = 64
MAX_MAGNITUDE = 1e300
"""The trusted application's own limits: what is beyond them is told here, where it can still be named."""

Reading = tuple[str, float]
"""Time as it came, value (finite)."""


@dataclass(frozen=True)
class Chunk:
    """Readings in order, and where to go on after them.

    Args:
        readings: may be empty.
        cursor: opaque to all but the source.
        final: the source has ended with these.
        broken: what could not be read between the last cursor and this one: place and reason.
        inbox: messages up to this number have been read from the inbox.
    """

    readings: list[Reading]
    cursor: str
    final: bool = False
    broken: list[str] = field(default_factory=list)
    inbox: int = 0


class Source(Protocol):
    """A series of readings."""

    @property
    def key(self) -> str:
        """The same as long as it is the same series: its cursor is kept under it."""

    @property
    def series(self) -> str:
        """Its name for the trusted application and for readers."""

    @property
    def live(self) -> bool:
        """Readings are taken when asked for; so it is opened only when they can be delivered."""

    async def open(self) -> None:
        """Called once, before all else.

        Raises:
            EdgeclaveError: why it cannot be read now.
        """

    async def read(self, cursor: str, most: int, seconds: float, enough: asyncio.Event) -> Chunk:
        """The next readings after `cursor` (empty: from the start). Returns with `most` readings, or `seconds` after
        the first of them, or when `enough` is set; waits for the first as long as it takes."""

    async def close(self) -> None:
        """Called once, after all else."""


async def happens(event: asyncio.Event, seconds: float) -> bool:
    """Whether `event` is set within `seconds`."""
    if seconds <= 0:
        await asyncio.sleep(0)
        return event.is_set()
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def either(one: asyncio.Event, other: asyncio.Event, seconds: float | None) -> None:
    """Returns when one of the two is set, or after `seconds`."""
    tasks = {asyncio.ensure_future(event.wait()) for event in (one, other)}
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
