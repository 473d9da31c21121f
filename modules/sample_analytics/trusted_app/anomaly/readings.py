"""What a caller sends, checked before anything of it is used."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from edgeclave_ta import Failure

from anomaly.detector import Time

MAX_READINGS = 2_000
"""Readings in one call: the most that cannot give more sealed results than the enclave takes from one call (256)."""
MAX_NAME_CHARACTERS = 128
MAX_TIME_CHARACTERS = 64
MAX_MAGNITUDE = 1e300
"""So that no sum or multiple in here overflows."""
_FIELDS = {"series", "readings", "final"}


@dataclass(frozen=True)
class Batch:
    """Readings of one series in the order they were taken."""

    series: str
    readings: list[tuple[Time, float]]
    final: bool


def parse_batch(payload: Any) -> Batch:
    """Takes `{"series": name, "readings": [[time, value], ...], "final": false}`; `final` may be left out.

    Raises:
        Failure: 400 with the place and what is wrong there, 413 for too many readings. The whole batch is refused.
    """
    if not isinstance(payload, dict):
        raise Failure(400, "the payload must be an object with series and readings")
    if unknown := sorted(set(payload) - _FIELDS):
        raise Failure(400, f"unknown field {unknown[0][:MAX_NAME_CHARACTERS]!r}; known are final, readings, series")
    series, readings, final = payload.get("series"), payload.get("readings"), payload.get("final", False)
    if not isinstance(series, str) or not 0 < len(series) <= MAX_NAME_CHARACTERS or not series.isprintable():
        raise Failure(400, f"series must be a name of 1 to {MAX_NAME_CHARACTERS} printable characters")
    if not isinstance(final, bool):
        raise Failure(400, "final must be true or false")
    if not isinstance(readings, list):
        raise Failure(400, "readings must be a list of [time, value]")
    if len(readings) > MAX_READINGS:
        raise Failure(413, f"{len(readings)} readings are over the limit of {MAX_READINGS} in one call")
    return Batch(series, [_reading(index, reading) for index, reading in enumerate(readings)], final)


def _reading(index: int, reading: Any) -> tuple[Time, float]:
    if not isinstance(reading, list) or len(reading) != 2:
        raise Failure(400, f"readings[{index}] must be [time, value]")
    time, value = reading
    if isinstance(time, str):
        if not 0 < len(time) <= MAX_TIME_CHARACTERS or not time.isprintable():
            raise Failure(400, f"readings[{index}]: a time must have 1 to {MAX_TIME_CHARACTERS} printable characters")
    elif not _is_number(time):
        raise Failure(400, f"readings[{index}]: a time must be text or a finite number")
    if not _is_number(value):
        raise Failure(400, f"readings[{index}]: a value must be a finite number up to {MAX_MAGNITUDE:g}")
    return time, float(value)


def _is_number(value: Any) -> bool:
    if type(value) is int:
        return -MAX_MAGNITUDE <= value <= MAX_MAGNITUDE
    return type(value) is float and math.isfinite(value) and abs(value) <= MAX_MAGNITUDE
