"""Reading a hub until told to stop: batches in, lines out, a summary at the end.

A finding is confirmed when its line has been written. A reader that is killed between the two writes that line again at
its next start, with the same `number`: at least once for who reads the lines, exactly once for who keeps the number of
the last line that was used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from edgeclave.cloud.events import EventSource
from edgeclave.cloud.findings import Finding
from edgeclave.cloud.reader import Reader
from edgeclave.cloud.summary import Counts, Summary

LOOK_SECONDS = 0.2  # how soon a signal or the end of the time is noticed

Write = Callable[[Sequence[Finding]], None]
"""Writes findings to where their reader finds them, and returns when they are there."""


async def consume(
    reader: Reader,
    source: EventSource,
    write: Write,
    *,
    stop: asyncio.Event,
    for_seconds: float | None = None,
    until_idle_seconds: float | None = None,
) -> Summary:
    """Ends at `stop`, after `for_seconds`, or when the hub is read to its end and silent for `until_idle_seconds`."""
    counts = Counts()
    _hand_over(reader, reader.unconfirmed(), write, counts)
    loop = asyncio.get_running_loop()
    end = None if for_seconds is None else loop.time() + for_seconds
    async with source:
        silent_since = loop.time()
        while not stop.is_set() and (end is None or loop.time() < end):
            batch = await source.next_batch(LOOK_SECONDS)
            if batch:
                _hand_over(reader, reader.process_batch(batch), write, counts)
            if batch or not source.caught_up:
                silent_since = loop.time()
            elif until_idle_seconds is not None and loop.time() - silent_since >= until_idle_seconds:
                break
    return counts.summary(reader.pending(), reader.held(), reader.ignored)


def _hand_over(reader: Reader, findings: Sequence[Finding], write: Write, counts: Counts) -> None:
    if not findings:
        return
    write(findings)
    for finding in findings:
        counts.add(finding)
    reader.confirm(findings[-1])
