"""How far a transfer is, told at most once a second."""

from __future__ import annotations

import time
from collections.abc import Callable

SECONDS_BETWEEN = 1.0
Tell = Callable[[str], None]


class Progress:
    """Of one part of `total` bytes."""

    def __init__(self, tell: Tell, what: str, total: int) -> None:
        self._tell, self._what, self._total = tell, what, total
        self._told = time.monotonic()

    def at(self, done: int) -> None:
        now = time.monotonic()
        if now - self._told >= SECONDS_BETWEEN:
            self._told = now
            self._tell(f"{self._what}: {done / 2**20:.1f} of {self._total / 2**20:.1f} MiB")
