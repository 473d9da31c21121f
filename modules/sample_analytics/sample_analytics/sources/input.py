"""Messages on input1 in the schema of the official simulated temperature sensor, by way of the durable inbox.

{"machine": {"temperature": 21.5, "pressure": 1.06}, "ambient": {"temperature": 20.8, "humidity": 24},
 "timeCreated": "2026-01-02T03:04:05Z"}
"""

from __future__ import annotations

import asyncio
import math
from typing import Annotated

import msgspec

from sample_analytics.settings import SensorField
from sample_analytics.sources import MAX_MAGNITUDE, MAX_TIME_CHARACTERS, Chunk, Reading, either
from sample_analytics.store import Store

INPUT_NAME = "input1"
MAX_BODY_BYTES = 16_384

_Value = Annotated[float, msgspec.Meta(ge=-MAX_MAGNITUDE, le=MAX_MAGNITUDE)]


class _Machine(msgspec.Struct):
    temperature: _Value
    pressure: _Value


class _Ambient(msgspec.Struct):
    temperature: _Value
    humidity: _Value


class _SensorMessage(msgspec.Struct, rename="camel"):
    """Further members are the sensor's business."""

    machine: _Machine
    ambient: _Ambient
    time_created: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TIME_CHARACTERS)]


_decoder = msgspec.json.Decoder(_SensorMessage)


def parse_message(body: bytes, sensor_field: SensorField) -> Reading:
    """The reading in a sensor's message.

    Raises:
        ValueError: what is wrong with it.
    """
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"it has {len(body)} bytes, the limit is {MAX_BODY_BYTES}")
    try:
        message = _decoder.decode(body)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)[:200]) from None
    if not message.time_created.isprintable():
        raise ValueError("timeCreated is not printable")
    part, _, name = sensor_field.partition(".")
    value = float(getattr(getattr(message, part), name))
    if not math.isfinite(value):
        raise ValueError(f"{sensor_field} is not finite")
    return message.time_created, value


class InputSource:
    """Reads the inbox in the order of arrival."""

    live = False

    def __init__(self, sensor_field: SensorField, store: Store) -> None:
        self._field: SensorField = sensor_field
        self._store = store

    @property
    def key(self) -> str:
        return f"input:{self._field}"

    @property
    def series(self) -> str:
        return f"{INPUT_NAME}/{self._field}"

    async def open(self) -> None:
        """Nothing to open."""

    async def read(self, cursor: str, most: int, seconds: float, enough: asyncio.Event) -> Chunk:
        """As Source.read; the cursor is the number of the newest message read."""
        position = int(cursor or 0)
        loop = asyncio.get_running_loop()
        end: float | None = None
        while not enough.is_set():
            waiting = self._store.inbox_size
            if waiting and end is None:
                end = loop.time() + seconds
            if waiting >= most or (end is not None and loop.time() >= end):
                break
            self._store.inbox_filled.clear()
            await either(self._store.inbox_filled, enough, None if end is None else end - loop.time())
        readings: list[Reading] = []
        broken: list[str] = []
        for number, body in self._store.inbox_after(position, most):
            position = number
            try:
                readings.append(parse_message(body, self._field))
            except ValueError as error:
                broken.append(f"message {number}: {error}")
        return Chunk(readings, str(position), False, broken, inbox=position)

    async def close(self) -> None:
        """Nothing to close."""
