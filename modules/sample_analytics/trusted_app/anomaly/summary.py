"""A summary of each WINDOW_READINGS readings, so that a reader can tell that a series is alive, and count it."""

from __future__ import annotations

from math import fsum
from statistics import median
from typing import Any

from anomaly.detector import Time
from anomaly.reference import median_deviation

WINDOW_READINGS = 50


class Window:
    """Readings since the last summary."""

    def __init__(self) -> None:
        self._first: Time = ""
        self._last: Time = ""
        self._values: list[float] = []

    @property
    def full(self) -> bool:
        return len(self._values) >= WINDOW_READINGS

    def __len__(self) -> int:
        return len(self._values)

    def add(self, time: Time, value: float) -> None:
        if not self._values:
            self._first = time
        self._last = time
        self._values.append(value)

    def summary(self) -> dict[str, Any]:
        """Statistics of the window, which begins anew. Raises ValueError when it is empty."""
        values = sorted(self._values)
        centre = median(values)
        summary = {
            "count": len(values),
            "first": self._first,
            "last": self._last,
            "min": values[0],
            "max": values[-1],
            "mean": fsum(values) / len(values),
            "median": centre,
            "mad": median_deviation(values, centre),
        }
        self._values = []
        return summary

    def to_state(self) -> list[Any]:
        return [self._first, self._last, self._values]

    @classmethod
    def from_state(cls, state: list[Any]) -> Window:
        window = cls()
        window._first, window._last, window._values = state
        return window
