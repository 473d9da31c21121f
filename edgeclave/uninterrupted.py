"""Work that goes on although who waits for it is cancelled: in a thread, an engine or a child that is being made."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from edgeclave.errors import EdgeclaveError

Made = TypeVar("Made")


async def to_its_end(work: Coroutine[Any, Any, Made], undo: Callable[[Made], Awaitable[None]] | None = None) -> Made:
    """What `work` makes. Who is cancelled meanwhile still waits for its end, and takes back what it made by `undo`."""
    working = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait({working})
        if working.exception() is None and undo is not None:
            with contextlib.suppress(EdgeclaveError):
                await undo(working.result())
        raise
