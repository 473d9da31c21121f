"""How long to wait before trying again."""

from __future__ import annotations

import random

_JITTER = 0.2


class Backoff:
    """Doubling waits, with up to a fifth taken off at random so that modules do not retry in step.

    >>> backoff = Backoff(first_seconds=1, longest_seconds=60, jitter=False)
    >>> [backoff.next_seconds() for _ in range(8)]
    [1, 2, 4, 8, 16, 32, 60, 60]
    """

    def __init__(self, *, first_seconds: float, longest_seconds: float, jitter: bool = True) -> None:
        self._first = first_seconds
        self._longest = longest_seconds
        self._jitter = _JITTER if jitter else 0
        self._next = first_seconds

    def next_seconds(self) -> float:
        """The wait before the next attempt."""
        wait = min(self._next, self._longest)
        self._next = min(self._next * 2, self._longest)
        return wait * (1 - self._jitter * random.random()) if self._jitter else wait  # noqa: S311 - not a secret

    def reset(self) -> None:
        """It worked: begin again with the first wait."""
        self._next = self._first
