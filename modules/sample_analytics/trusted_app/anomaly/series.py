"""One series: its detector, its summary window and its counts; what it has to say goes to `emit`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from anomaly.detector import Detector, Interval, Time
from anomaly.summary import Window

Emit = Callable[[str, dict[str, Any]], object]
"""Output and payload."""


class Series:
    """Feed it readings in order. All of it survives `to_state` and `from_state`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.total = 0
        self.anomalies = 0
        self._detector = Detector()
        self._window = Window()

    def add(self, time: Time, value: float, emit: Emit) -> None:
        self.total += 1
        self._report(self._detector.add(time, value), emit)
        self._window.add(time, value)
        if self._window.full:
            self._summarize(emit)

    def finish(self, emit: Emit) -> None:
        """The series has ended: what is still open is told."""
        self._report(self._detector.close(), emit)
        if len(self._window):
            self._summarize(emit)

    @property
    def in_anomaly(self) -> bool:
        return self._detector.in_anomaly

    def _report(self, interval: Interval | None, emit: Emit) -> None:
        if interval is not None:
            self.anomalies += 1
            emit("anomalies", {"series": self.name, **asdict(interval)})

    def _summarize(self, emit: Emit) -> None:
        counts = {"anomalies": self.anomalies, "total": self.total}
        emit("summary", {"series": self.name, **self._window.summary(), **counts})

    def to_state(self) -> dict[str, Any]:
        return {
            "total": self.total,
            "anomalies": self.anomalies,
            "detector": self._detector.to_state(),
            "window": self._window.to_state(),
        }

    @classmethod
    def from_state(cls, name: str, state: dict[str, Any]) -> Series:
        series = cls(name)
        series.total = state["total"]
        series.anomalies = state["anomalies"]
        series._detector = Detector.from_state(state["detector"])
        series._window = Window.from_state(state["window"])
        return series
