"""When to try again what failed, and when to give up."""

from __future__ import annotations

import asyncio
import random

from edgeclave.registry.errors import RegistryError
from edgeclave.registry.limits import RegistryLimits

_JITTER = 0.2


class Patience:
    """Counts failures in a row, and waits between them: doubling, or as long as the registry asks."""

    def __init__(self, limits: RegistryLimits) -> None:
        self._limits = limits
        self._failures = 0

    def progress(self) -> None:
        """Something new came: begin to count anew."""
        self._failures = 0

    async def rest(self, error: RegistryError) -> None:
        """Waits before the next attempt; raises `error` when there is to be none."""
        self._failures += 1
        wait = self._limits.first_wait_seconds * 2.0 ** (self._failures - 1)
        wait = min(wait, self._limits.longest_wait_seconds) * (1 - _JITTER * random.random())  # noqa: S311 - no secret
        if error.retry_after is not None:
            wait = max(wait, error.retry_after)
        if not error.again or self._failures >= self._limits.attempts or wait > self._limits.longest_wait_seconds:
            raise error
        await asyncio.sleep(wait)
