"""The vitals of this very device, through psutil."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

import psutil  # type: ignore[import-untyped]

from edgeclave.errors import ConfigurationError
from sample_analytics.settings import Metric
from sample_analytics.sources import Chunk, Reading, either

MAX_WAITING = 10_000
"""Readings kept in memory while the trusted application is away; then the oldest go."""


class VitalsSource:
    """Takes a reading each interval, whether or not it is asked just then. What was not read yet dies with the process:
    a reading of now cannot be taken again."""

    live = True

    def __init__(self, metric: Metric, interval_seconds: float) -> None:
        self._metric = metric
        self._interval = interval_seconds
        self._take = _METRICS[metric]
        self._waiting: deque[Reading] = deque(maxlen=MAX_WAITING)
        self._arrived = asyncio.Event()
        self._sampling: asyncio.Task[None] | None = None

    @property
    def key(self) -> str:
        return f"vitals:{self._metric}"

    @property
    def series(self) -> str:
        return f"vitals/{self._metric}"

    async def open(self) -> None:
        """Raises ConfigurationError `no-such-sensor` when this device does not have the metric."""
        self._take()  # the first processor reading only sets the start of the next
        self._sampling = asyncio.create_task(self._sample())

    async def read(self, cursor: str, most: int, seconds: float, enough: asyncio.Event) -> Chunk:
        """As Source.read; the cursor counts."""
        loop = asyncio.get_running_loop()
        end: float | None = None
        while len(self._waiting) < most and not enough.is_set():
            if self._waiting and end is None:
                end = loop.time() + seconds
            self._arrived.clear()
            left = None if end is None else end - loop.time()
            if left is not None and left <= 0:
                break
            await either(self._arrived, enough, left)
        readings = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        return Chunk(readings, str(int(cursor or 0) + len(readings)))

    async def close(self) -> None:
        if self._sampling is not None:
            self._sampling.cancel()
            await asyncio.gather(self._sampling, return_exceptions=True)

    async def _sample(self) -> None:
        due = time.monotonic()
        while True:
            # A fixed grid, so that the time a reading takes does not stretch the interval; missed ticks are skipped.
            due = max(due + self._interval, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
            with contextlib.suppress(ConfigurationError):
                self._waiting.append((datetime.now(UTC).isoformat(timespec="milliseconds"), self._take()))
                self._arrived.set()


def _temperature() -> float:
    sensors = psutil.sensors_temperatures() if hasattr(psutil, "sensors_temperatures") else {}
    for entries in sensors.values():
        for entry in entries:
            return float(entry.current)
    raise ConfigurationError(
        "no-such-sensor",
        "this device shows no temperature",
        where="source.metric",
        advice="choose cpu-percent, memory-percent or load",
    )


_METRICS: dict[Metric, Callable[[], float]] = {
    "cpu-percent": lambda: float(psutil.cpu_percent(interval=None)),
    "memory-percent": lambda: float(psutil.virtual_memory().percent),
    "load": lambda: float(psutil.getloadavg()[0]),
    "temperature": _temperature,
}
