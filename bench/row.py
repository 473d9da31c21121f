"""One row of the table: ours, the bare reference, and their ratio."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """`ours` and `reference` are in `unit`; `target` bounds their ratio, from above unless `at_least`."""

    what: str
    against: str
    unit: str
    ours: float
    reference: float
    target: float
    at_least: bool = False

    @property
    def ratio(self) -> float:
        return self.ours / self.reference

    @property
    def met(self) -> bool:
        return self.ratio >= self.target if self.at_least else self.ratio <= self.target


def side_by_side(
    ours: Callable[[], object],
    reference: Callable[[], object],
    *,
    rounds: int,
    calls: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float]:
    """Median microseconds per call of both, measured in turns so that a drift in speed hits both alike.

    `clock`: time.process_time where nothing waits and no other process has a part, so that others do not count.
    """
    ours_times: list[float] = []
    reference_times: list[float] = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for call, times in ((ours, ours_times), (reference, reference_times)):
                begin = clock()
                for _ in range(calls):
                    call()
                times.append((clock() - begin) / calls * 1e6)
    finally:
        gc.enable()
    return statistics.median(ours_times), statistics.median(reference_times)
