"""A thread with a loop of its own for the Azure IoT SDK.

The SDK hands each call to its loop's default executor. With one worker there, calls reach the SDK's pipeline in the
order they were made, and nothing the SDK blocks on stops the module's own loop. What goes to and fro between the loops
travels together when several calls are under way, because waking a thread costs more than the call.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class SdkThread:
    """Started with the first call; all calls come from one loop."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls = _Crossing()
        self._outcomes = _Crossing()

    async def run(self, work: Coroutine[Any, Any, T], *, timeout_seconds: float | None) -> T:
        """Runs an SDK coroutine there. After a timeout, or when the caller is cancelled, it goes on unattended:
        the SDK cannot take a call back.

        Raises:
            TimeoutError: it has not ended in time.
        """
        home, there = asyncio.get_running_loop(), self._running_loop()
        outcome: asyncio.Future[T] = home.create_future()

        def begin() -> None:
            there.create_task(work).add_done_callback(end)

        def end(task: asyncio.Task[T]) -> None:
            self._outcomes.send(home, lambda: _settle(outcome, task))

        self._calls.send(there, begin)
        if timeout_seconds is None:
            return await outcome
        try:
            async with asyncio.timeout(timeout_seconds):
                return await outcome
        except TimeoutError:
            if outcome.done() and not outcome.cancelled():
                raise  # the SDK's own
            raise TimeoutError(f"no answer within {timeout_seconds} s") from None

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


class _Crossing:
    """Work for another thread's loop, in order; one waking takes all that is there."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._woken = False

    def send(self, loop: asyncio.AbstractEventLoop, work: Callable[[], None]) -> None:
        self._waiting.append(work)
        if not self._woken:
            self._woken = True
            with contextlib.suppress(RuntimeError):  # that loop has ended, and with it whoever waited
                loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        self._woken = False  # first: what is sent from now on wakes again, or is taken below
        while self._waiting:
            self._waiting.popleft()()


def _settle(outcome: asyncio.Future[T], task: asyncio.Task[T]) -> None:
    """Takes what the SDK answered, also for a caller who has gone."""
    error = None if task.cancelled() else task.exception()  # asked for, so that asyncio does not complain of it
    if outcome.done():
        return
    if task.cancelled():
        outcome.cancel()
    elif error is not None:
        outcome.set_exception(error)
    else:
        outcome.set_result(task.result())


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
