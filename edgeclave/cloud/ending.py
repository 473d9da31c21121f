"""Ending a task of the Event Hub SDK.

The SDK waits with `asyncio.wait_for`, which up to Python 3.11 may swallow a cancellation that comes together with what
is waited for (CPython issue 86296). The task then goes on as if nobody had asked it to end.
"""

from __future__ import annotations

import asyncio

AGAIN_SECONDS = 1.0  # longer than the SDK needs to close its links, which a second cancellation would interrupt


async def end(task: asyncio.Task[None]) -> None:
    """Cancels it until it has ended. What it raised stays with it."""
    while not task.done():
        task.cancel()
        await asyncio.wait((task,), timeout=AGAIN_SECONDS)
