"""A thread with a loop of its own for the Azure IoT SDK.

The SDK hands each call to its loop's default executor. With one worker there, calls reach the SDK's pipeline in the
order they were made, and nothing the SDK blocks on stops the module's own loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class SdkThread:
    """Started with the first call."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, work: Coroutine[Any, Any, T], *, timeout_seconds: float | None) -> T:
        """Runs an SDK coroutine there. After a timeout, or when the caller is cancelled, it goes on unattended:
        the SDK cannot take a call back.

        Raises:
            TimeoutError: it has not ended in time.
        """
        future = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._running_loop()))
        future.add_done_callback(_retrieve)
        done, _ = await asyncio.wait({future}, timeout=timeout_seconds)
        if not done:
            raise TimeoutError(f"no answer within {timeout_seconds} s")
        return future.result()

    async def call(self, function: Callable[[], T]) -> T:
        """Runs a blocking SDK function in the one worker."""

        async def in_worker() -> T:
            return await asyncio.get_running_loop().run_in_executor(None, function)

        return await self.run(in_worker(), timeout_seconds=None)

    def stop(self) -> None:
        """Ends the thread; does not wait for it."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop = None

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._loop.set_default_executor(ThreadPoolExecutor(max_workers=1, thread_name_prefix="iot-sdk"))
            threading.Thread(target=_run, args=(self._loop,), name="iot-sdk-loop", daemon=True).start()
        return self._loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Takes the outcome of a call nobody waits for any more, so that asyncio does not complain of it."""
    with contextlib.suppress(asyncio.CancelledError):
        future.exception()
