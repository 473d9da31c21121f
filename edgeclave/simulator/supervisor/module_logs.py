"""The modules' logs with the time at which each line came in, which the lines themselves need not say.

The files are looked at once a second: up to this size had come by then. What was there before counts as from when its
file was last written to.
"""

from __future__ import annotations

import asyncio
import bisect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

LOOK_SECONDS = 1.0
MAX_MARKS = 20_000  # of one file; beyond, every other one is forgotten


@dataclass(frozen=True)
class LogLine:
    """`at`: when it came in, in seconds since 1970, to the second."""

    text: str
    at: float


@dataclass
class _Arrivals:
    sizes: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def note(self, size: int, at: float) -> None:
        if self.sizes and size < self.sizes[-1]:  # the file was cut down
            self.sizes, self.times = [], []
        if self.sizes[-1:] != [size]:
            self.sizes.append(size)
            self.times.append(at)
        if len(self.sizes) > MAX_MARKS:
            self.sizes, self.times = self.sizes[1::2], self.times[1::2]

    def at(self, end: int) -> float:
        index = bisect.bisect_left(self.sizes, end)
        return self.times[index] if index < len(self.times) else time.time()


class ModuleLogs:
    """`files` tells where the logs are now, by module."""

    def __init__(self, files: Callable[[], Mapping[str, Path]]) -> None:
        self._files = files
        self._arrivals: dict[Path, _Arrivals] = {}

    async def follow(self) -> None:
        """Until it is cancelled."""
        while True:
            for path in self._files().values():
                self._look(path)
            await asyncio.sleep(LOOK_SECONDS)

    def modules(self) -> list[str]:
        return list(self._files())

    def lines(self, module_id: str) -> list[LogLine]:
        """All that the log holds; none for a module without one."""
        path = self._files()[module_id]
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return []
        arrivals = self._look(path)
        lines, end = [], 0
        for line in data.splitlines(keepends=True):
            end += len(line)
            lines.append(LogLine(line.decode("utf-8", "replace").rstrip("\r\n"), arrivals.at(end)))
        return lines

    def _look(self, path: Path) -> _Arrivals:
        arrivals = self._arrivals.get(path)
        try:
            status = path.stat()
        except FileNotFoundError:
            return arrivals or _Arrivals()
        if arrivals is None:
            arrivals = self._arrivals[path] = _Arrivals()
            arrivals.note(status.st_size, status.st_mtime)
        else:
            arrivals.note(status.st_size, time.time())
        return arrivals
