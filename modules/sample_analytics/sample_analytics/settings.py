"""The module twin: which source, which trusted application, how large a batch.

A twin patch merges (RFC 7396), so a switch from one kind of source to another leaves the first one's fields behind:
fields that belong to another kind are allowed and not used. Fields that belong to none are refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from edgeclave.errors import ConfigurationError

Metric = Literal["cpu-percent", "memory-percent", "load", "temperature"]
SensorField = Literal["machine.temperature", "machine.pressure", "ambient.temperature", "ambient.humidity"]


class SourceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Where readings come from.

    Args:
        kind: `vitals` of this device, `input` for messages on input1, `csv` for a recorded series.
        metric: of vitals.
        interval_seconds: of vitals, from reading to reading.
        sensor_field: of input: which member of the sensor's message is the value.
        path: of csv: a file of `timestamp,value` lines that the module can read.
        speed: of csv: readings a second, 0 for as fast as possible.
    """

    kind: Literal["vitals", "input", "csv"] = "vitals"
    metric: Metric = "cpu-percent"
    interval_seconds: Annotated[float, msgspec.Meta(ge=0.05, le=3600)] = 1.0
    sensor_field: SensorField = "machine.temperature"
    path: Annotated[str, msgspec.Meta(max_length=4096, pattern=r"^[^\0]*\Z")] = ""
    speed: Annotated[float, msgspec.Meta(ge=0, le=1e6)] = 0.0


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A twin that is right as a whole.

    Args:
        trusted_app: its slot in ta_runner's twin.
        batch_readings: at most so many in one call.
        batch_seconds: no reading waits longer than this for its batch to fill.
    """

    trusted_app: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}\Z")] = "anomaly"
    source: SourceSettings = SourceSettings()
    batch_readings: Annotated[int, msgspec.Meta(ge=1, le=2000)] = 250
    batch_seconds: Annotated[float, msgspec.Meta(ge=0.05, le=3600)] = 2.0


def read_settings(desired: dict[str, Any]) -> Settings:
    """Reads the desired properties, without `$` members.

    Raises:
        ConfigurationError: `malformed-twin`, naming the field.
    """
    try:
        settings = msgspec.convert(desired, Settings)
    except msgspec.ValidationError as error:
        raise _malformed(str(error)[:300]) from None
    if settings.source.kind == "csv" and not settings.source.path:
        raise _malformed("Object missing required field `path` - at `$.source`")
    return settings


def _malformed(what: str) -> ConfigurationError:
    return ConfigurationError(
        "malformed-twin",
        what,
        where="desired properties of sample_analytics",
        advice="correct that field; until then the module goes on as before",
    )
