"""Finds the intervals in which a series does not behave as it did before.

Method, for series of any unit, scale and length, without tuning:

1. **Robust score.** A reading is compared with the median of the last 512 in robust standard deviations (MAD): the
   Hampel identifier (Hampel 1974; Davies & Gather 1993; Leys et al. 2013).
2. **Three spans.** So are the moving averages of 8 and of 64 readings, each with the last 512 such averages. A short
   spike shows in the first, a lasting small shift in the last (moving sums, Chu, Hornik & Kuan 1995). Because each span
   is measured by its own history, correlated readings need no model. Averages are taken of clamped readings, so that
   one spike does not reach them. `baseline` says what is too far.
3. **Hysteresis.** An interval opens when a span's score passes its limit and closes after CALM_READINGS readings with
   all spans below half of theirs. Meanwhile normal is what it was when the interval opened, unless the series had
   never changed before: then what its changes are like is learned at once.
4. **Learning.** Within an interval only each fourth value is remembered: an anomaly does not become normal by lasting,
   but what recurs does. An interval of LONGEST_INTERVAL readings is the new normal: it closes and all is learned anew.

The detector speaks after 32 readings, with limits that are wider while it knows little. Its memory is constant: three
references and the last 64 readings. Adding one reading takes some binary searches.

>>> detector = Detector()
>>> series = [0.5, 1.0, 0.0, 1.5] * 20 + [9.0, 9.5, 9.0] + [0.5, 1.0, 0.0, 1.5] * 8
>>> [(found.start, found.end, found.peak) for time, value in enumerate(series) if (found := detector.add(time, value))]
[(80, 82, 9.5)]
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from math import fsum
from typing import Any, NamedTuple

from anomaly.baseline import SPANS, Baseline, baseline, reconcile, written_step
from anomaly.reference import Reference

OPEN_RATIO = 1.0
STAY_RATIO = 0.5
CALM_READINGS = 16
LONGEST_INTERVAL = 1024
REMEMBER_EACH = 4
LONGEST_SPAN = max(span.readings for span in SPANS)
HIGHEST_SCORE = 1e6
"""Stands for `infinitely far`: the first change of a series that had never changed."""

Time = str | float


@dataclass
class Interval:
    """An anomaly. Times as they came with the readings.

    Args:
        start, end: of the first and last reading that belong to it.
        peak: the value farthest out.
        score: robust standard deviations of the span in which it stood out most; at most HIGHEST_SCORE.
        count: readings from start to end.
        direction: "up" or "down", of the peak.
        expected: the median when it began.
    """

    start: Time
    end: Time
    peak: float
    score: float
    count: int
    direction: str
    expected: float


@dataclass
class _Open:
    """An interval that has not ended; positions count the readings of the series from 0."""

    start: Time
    first: int
    end: Time
    last: int
    low: float
    high: float
    expected: float
    score: float
    upward: bool
    calm: int
    baselines: list[Baseline | None] | None


@dataclass(frozen=True)
class _Recent:
    time: Time
    value: float
    clamped: float


class _Outlier(NamedTuple):
    span: int
    score: float
    upward: bool
    centre: float


class Detector:
    """One series. Add its readings in the order they were taken; times are carried along, never compared."""

    def __init__(self) -> None:
        self._position = 0
        self._resolution = 0.0
        self._ratios = [0.0] * len(SPANS)
        self._recent: deque[_Recent] = deque(maxlen=LONGEST_SPAN)
        self._open: _Open | None = None
        self._free_from = 0
        self._learn_anew()

    @property
    def in_anomaly(self) -> bool:
        return self._open is not None

    def add(self, time: Time, value: float) -> Interval | None:
        """Takes a finite reading; returns the interval that ended with it."""
        frozen = self._open.baselines if self._open else None
        baselines = frozen or reconcile(self._views)
        single = baselines[0]
        varied = self._resolution > 0
        self._note_resolution(value)
        self._recent.append(_Recent(time, value, single.clamp(value) if single else value))
        averages = self._averages(value)
        outlier = self._score(averages, baselines)
        ended = None
        if self._open is not None:
            ended = self._continue(self._open, time, value, outlier, baselines)
        elif outlier is not None and self._ratios[outlier.span] >= OPEN_RATIO:
            self._begin(outlier, baselines if varied else None)
        self._learn(averages)
        self._position += 1
        return ended

    def close(self) -> Interval | None:
        """The interval that is open, when the series ends here."""
        ended, self._open = self._open, None
        return _interval(ended) if ended else None

    def _averages(self, value: float) -> list[float | None]:
        """Of each span whose turn it is."""
        taken = len(self._recent)
        averages: list[float | None] = [value]
        recent: list[_Recent] = []
        for span in SPANS[1:]:
            if taken < span.readings or (self._position + 1) % span.stride:
                averages.append(None)
                continue
            recent = recent or list(self._recent)
            averages.append(fsum(one.clamped / span.readings for one in recent[-span.readings :]))
        return averages

    def _score(self, averages: list[float | None], baselines: list[Baseline | None]) -> _Outlier | None:
        """What stands out most now; keeps each span's last ratio."""
        worst: _Outlier | None = None
        for index, (average, view) in enumerate(zip(averages, baselines, strict=True)):
            if average is None or view is None:
                continue
            ratio = self._ratios[index] = view.ratio(average)
            if worst is None or ratio > self._ratios[worst.span]:
                score = min(ratio * view.limit, HIGHEST_SCORE)
                worst = _Outlier(index, score, average > view.centre, view.centre)
        return worst

    def _begin(self, outlier: _Outlier, baselines: list[Baseline | None] | None) -> None:
        count = min(SPANS[outlier.span].readings, self._position + 1 - self._free_from)
        readings = list(self._recent)[-count:]
        values = [one.value for one in readings]
        self._open = _Open(
            start=readings[0].time,
            first=self._position + 1 - count,
            end=readings[-1].time,
            last=self._position,
            low=min(values),
            high=max(values),
            expected=outlier.centre,
            score=outlier.score,
            upward=outlier.upward,
            calm=0,
            baselines=baselines,
        )

    def _continue(
        self, now: _Open, time: Time, value: float, outlier: _Outlier | None, baselines: list[Baseline | None]
    ) -> Interval | None:
        now.calm += 1
        if max(self._ratios) >= STAY_RATIO:
            now.calm = 0
            now.low, now.high = min(now.low, value), max(now.high, value)
            self._extend(now, time, baselines)
        if outlier is not None and outlier.score > now.score:
            now.score, now.upward = outlier.score, outlier.upward
        outlasts = self._position - now.first >= LONGEST_INTERVAL
        if now.calm < CALM_READINGS and not outlasts:
            return None
        self._open = None
        self._free_from = now.last + 1
        if outlasts:
            self._learn_anew()
        return _interval(now)

    def _extend(self, now: _Open, time: Time, baselines: list[Baseline | None]) -> None:
        """Moves the end: to this reading when it stands out itself, else to the middle of the average that does.

        Readings before the end have had their say: the average must stand out by those after it alone.
        """
        if self._ratios[0] >= STAY_RATIO:
            now.end, now.last = time, self._position
            return
        shortest = next(index for index, ratio in enumerate(self._ratios) if ratio >= STAY_RATIO)
        view, readings = baselines[shortest], SPANS[shortest].readings
        after = min(self._position - now.last, readings)
        if view is None or after <= readings // 2:
            return
        alone = fsum(one.clamped / after for one in list(self._recent)[-after:])
        if view.ratio(alone) * after / readings >= STAY_RATIO:
            now.end, now.last = self._recent[-1 - readings // 2].time, self._position - readings // 2

    def _learn(self, averages: list[float | None]) -> None:
        resolution = self._resolution or written_step(self._recent[-1].value)
        for index, (span, average) in enumerate(zip(SPANS, averages, strict=True)):
            turn, off = divmod(self._position + 1, span.readings)
            if off or average is None or (self._open is not None and turn % REMEMBER_EACH):
                continue
            self._references[index].add(average)
            self._views[index] = baseline(span, self._references[index], resolution)

    def _learn_anew(self) -> None:
        self._references = [Reference() for _ in SPANS]
        self._views: list[Baseline | None] = [None] * len(SPANS)
        self._ratios = [0.0] * len(SPANS)
        self._recent.clear()

    def _note_resolution(self, value: float) -> None:
        if self._recent and (step := abs(value - self._recent[-1].value)):
            self._resolution = min(self._resolution, step) if self._resolution else step

    def to_state(self) -> dict[str, Any]:
        """All of it, as JSON can hold it; `from_state` gives an equal detector."""
        return {
            "position": self._position,
            "resolution": self._resolution,
            "ratios": [min(ratio, HIGHEST_SCORE) for ratio in self._ratios],
            "recent": [[one.time, one.value, one.clamped] for one in self._recent],
            "free_from": self._free_from,
            "references": [reference.to_text() for reference in self._references],
            "views": self._views,
            "open": asdict(self._open) if self._open else None,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Detector:
        detector = cls()
        detector._position = state["position"]
        detector._resolution = state["resolution"]
        detector._ratios = state["ratios"]
        detector._recent.extend(_Recent(*one) for one in state["recent"])
        detector._free_from = state["free_from"]
        detector._references = [Reference.from_text(text) for text in state["references"]]
        detector._views = _baselines(state["views"])
        if state["open"]:
            frozen = state["open"]["baselines"]
            detector._open = _Open(**{**state["open"], "baselines": _baselines(frozen) if frozen else None})
        return detector


def _baselines(state: list[Any]) -> list[Baseline | None]:
    return [Baseline(*view) if view else None for view in state]


def _interval(ended: _Open) -> Interval:
    return Interval(
        start=ended.start,
        end=ended.end,
        peak=ended.high if ended.upward else ended.low,
        score=ended.score,
        count=ended.last - ended.first + 1,
        direction="up" if ended.upward else "down",
        expected=ended.expected,
    )
