"""Keeps the reported properties up to date: at most twice a second, and only when they changed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from edgeclave.edge.backoff import Backoff
from edgeclave.edge.hub import HubOffline

REPORT_SECONDS = 0.5

_log = structlog.get_logger(__name__)

Describe = Callable[[], dict[str, Any]]
Report = Callable[[dict[str, Any]], Awaitable[None]]


async def keep_reported(describe: Describe, report: Report) -> None:
    """Reports for ever; cancel it to stop."""
    backoff = Backoff(first_seconds=1, longest_seconds=30)
    reported: dict[str, Any] | None = None
    while True:
        current = describe()
        if current != reported:
            try:
                await report(current)
                reported = current
                backoff.reset()
            except HubOffline as error:
                _log.info("report waits", reason=error.what)
                await asyncio.sleep(backoff.next_seconds())
        await asyncio.sleep(REPORT_SECONDS)
