"""How much each caller may ask for, and how much all of them together.

1. Requests per second: a token bucket for each identity (429).
2. Requests in flight, running or waiting, for each identity (429): so no caller can fill the queue for the others.
3. Requests running at once, and waiting for that, for all (503): a bounded queue, first come first served.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable

from edgeclave.edge.twins.enclave_broker import Quotas
from edgeclave.errors import EdgeclaveError

MAX_IDLE_IDENTITIES = 1024
"""More callers than this are remembered only while they have something to remember."""
QUEUE_RETRY_SECONDS = 1.0


class QuotaError(EdgeclaveError):
    """A request that is too much now. `status` is its HTTP status, `retry_after` in seconds."""

    def __init__(self, code: str, what: str, *, status: int, retry_after: float) -> None:
        super().__init__(code, what, advice="ask again after the time in Retry-After")
        self.status = status
        self.retry_after = retry_after


class _Caller:
    __slots__ = ("in_flight", "tokens", "updated")

    def __init__(self, tokens: float, updated: float) -> None:
        self.tokens = tokens
        self.updated = updated
        self.in_flight = 0


class Limiter:
    """Counts requests against quotas. For one event loop.

    Args:
        quotas: may be replaced at any time through `quotas`.
        clock: seconds, never going back.
    """

    def __init__(self, quotas: Quotas, clock: Callable[[], float] = time.monotonic) -> None:
        self.quotas = quotas
        self._clock = clock
        self._callers: dict[str, _Caller] = {}
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def running(self) -> int:
        """Requests that hold a slot."""
        return self._running

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return len(self._waiting)

    def admit(self, identity: str) -> None:
        """Take one request from the identity's bucket. Raises QuotaError(too-many-requests)."""
        now = self._clock()
        caller = self._caller(identity, now)
        rate, burst = self.quotas.requests_per_second, self.quotas.burst
        caller.tokens = min(caller.tokens + (now - caller.updated) * rate, float(burst))
        caller.updated = now
        if caller.tokens < 1:
            raise QuotaError(
                "too-many-requests",
                f"more than {rate:g} requests per second",
                status=429,
                retry_after=(1 - caller.tokens) / rate,
            )
        caller.tokens -= 1

    @contextlib.asynccontextmanager
    async def slot(self, identity: str, deadline: float) -> AsyncIterator[None]:
        """Hold one of the slots for running requests, waiting for it in the queue until `deadline` (the loop's time).

        Raises:
            QuotaError: too-many-in-flight (429), queue-full (503), queue-timeout (503).
        """
        caller = self._caller(identity, self._clock())
        if caller.in_flight >= self.quotas.in_flight:
            what = f"{self.quotas.in_flight} requests of this caller are in flight already"
            raise QuotaError("too-many-in-flight", what, status=429, retry_after=QUEUE_RETRY_SECONDS)
        caller.in_flight += 1
        try:
            if self._running >= self.quotas.total_in_flight or self._waiting:
                await self._wait(deadline)
            else:
                self._running += 1
            try:
                yield
            finally:
                self._running -= 1
                self._wake()
        finally:
            caller.in_flight -= 1

    async def _wait(self, deadline: float) -> None:
        """Return with a slot taken."""
        if len(self._waiting) >= self.quotas.queued:
            what = f"{self._running} requests run and {len(self._waiting)} wait already"
            raise QuotaError("queue-full", what, status=503, retry_after=QUEUE_RETRY_SECONDS)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout_at(deadline):
                await self._turn(turn)
        except TimeoutError as error:
            what = f"the request's deadline passed in the queue; {self._running} requests run"
            raise QuotaError("queue-timeout", what, status=503, retry_after=QUEUE_RETRY_SECONDS) from error

    async def _turn(self, turn: asyncio.Future[None]) -> None:
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # the slot came in the moment of giving up
                self._running -= 1
                self._wake()
            with contextlib.suppress(ValueError):
                self._waiting.remove(turn)
            raise

    def _wake(self) -> None:
        while self._waiting and self._running < self.quotas.total_in_flight:
            turn = self._waiting.popleft()
            if not turn.done():
                self._running += 1
                turn.set_result(None)

    def _caller(self, identity: str, now: float) -> _Caller:
        caller = self._callers.get(identity)
        if caller is None:
            if len(self._callers) >= MAX_IDLE_IDENTITIES:
                self._callers = {name: known for name, known in self._callers.items() if self._is_busy(known, now)}
            caller = self._callers[identity] = _Caller(float(self.quotas.burst), now)
        return caller

    def _is_busy(self, caller: _Caller, now: float) -> bool:
        refilled = caller.tokens + (now - caller.updated) * self.quotas.requests_per_second
        return caller.in_flight > 0 or refilled < self.quotas.burst
