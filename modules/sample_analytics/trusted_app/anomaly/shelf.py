"""All series in trusted storage: one small index, and the state of each series under a key of its own.

Storage is committed with the call. What an instance has in memory may be ahead of it after a call that failed late, so
memory is only a cache: each series' version stands in the index, and a series in memory counts only at that version.
"""

from __future__ import annotations

import json
from typing import Any

from edgeclave_ta import Failure, tee

from anomaly.series import Series

MAX_SERIES = 16
"""Series that are going on; each takes about 25 kB of trusted storage."""
MAX_FINISHED = 64
"""Finished series whose counts are still told."""
FORMAT = 1
_INDEX = "index"


class Shelf:
    """The series of one instance."""

    def __init__(self) -> None:
        self._cache: dict[str, tuple[int, Series]] = {}

    def take(self, name: str) -> Series:
        """The series as committed, or a new one. It leaves the cache until it is put back.

        Raises:
            Failure: 409 when there are too many.
        """
        entry = _index().get(name)
        version, series = self._cache.pop(name, (0, None))
        if entry is None or entry["finished"]:
            if sum(not other["finished"] for other in _index().values()) >= MAX_SERIES:
                raise Failure(409, f"{MAX_SERIES} series are going on; end one with final before another begins")
            return Series(name)
        if series is None or version != entry["version"]:
            stored = tee.get(_key(name))
            if stored is None:
                raise Failure(500, f"the state of series {name} is missing")
            series = Series.from_state(name, json.loads(stored))
        return series

    def put(self, series: Series, *, finished: bool) -> None:
        """Stores a series; of a finished one only its counts are kept."""
        index = _index()
        before = index.pop(series.name, {"version": 0})
        entry = {
            "version": before["version"] + 1,
            "total": series.total,
            "anomalies": series.anomalies,
            "inAnomaly": series.in_anomaly,
            "finished": finished,
        }
        index[series.name] = entry
        ended = [name for name, other in index.items() if other["finished"]]
        for name in ended[: max(0, len(ended) - MAX_FINISHED)]:
            del index[name]
        tee.put(_INDEX, _text({"format": FORMAT, "series": index}))
        if finished:
            tee.delete(_key(series.name))
        else:
            tee.put(_key(series.name), _text(series.to_state()))
            self._cache[series.name] = (entry["version"], series)

    def overview(self) -> dict[str, Any]:
        """Counts of each series, least recently fed first."""
        shown = ("total", "anomalies", "inAnomaly", "finished")
        return {name: {field: entry[field] for field in shown} for name, entry in _index().items()}


def _index() -> dict[str, dict[str, Any]]:
    stored = tee.get(_INDEX)
    if stored is None:
        return {}
    document = json.loads(stored)
    if document["format"] != FORMAT:
        raise Failure(500, f"trusted storage has form {document['format']}, this version knows {FORMAT}")
    series: dict[str, dict[str, Any]] = document["series"]
    return series


def _key(name: str) -> str:
    return f"series/{name}"


def _text(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))
