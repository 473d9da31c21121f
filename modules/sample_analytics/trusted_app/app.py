"""Finds anomalies in telemetry, inside the TEE. How: `anomaly/detector.py`.

Each anomaly leaves as one sealed result on output `anomalies` when it has ended, and a summary of each 50 readings on
output `summary`. Readings themselves never leave.
"""

from __future__ import annotations

from typing import Any

from anomaly.readings import parse_batch
from anomaly.shelf import Shelf
from edgeclave_ta import TrustedApp, tee

app = TrustedApp()
_shelf = Shelf()


@app.method
def observe(payload: Any) -> dict[str, Any]:
    """Takes the next readings of a series; with `final` the series ends and its name is free again."""
    batch = parse_batch(payload)
    series = _shelf.take(batch.series)
    for time, value in batch.readings:
        series.add(time, value, tee.emit)
    if batch.final:
        series.finish(tee.emit)
        tee.log(tee.INFO, f"series ended with {series.total} readings and {series.anomalies} anomalies")
    total = series.total
    if batch.readings or batch.final:
        _shelf.put(series, finished=batch.final)
    return {"accepted": len(batch.readings), "total": total}


@app.method
def status(_payload: Any) -> dict[str, Any]:
    """Counts of each series."""
    return {"series": _shelf.overview()}
