"""A real sensor series at full speed through every part, to the reader."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.e2e.suite import suite

READINGS = 22_695
DAY = timedelta(days=1)


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_every_reading_counts_and_the_labelled_failures_are_found(
    tmp_path: Path, cache: Path, shared_data: Path, windows: list[tuple[str, str]]
) -> None:
    series = shared_data / "machine_temperature_system_failure.csv"
    with suite(tmp_path / "run", cache, source={"kind": "csv", "path": str(series), "speed": 0}) as running:
        running.until(lambda: running.source_state() == "finished", "the whole series to be read", 240)
        sealed = running.device.counters()["sealed"]
        reading = running.read(until_idle=5)

    assert reading.exit_code == 0, reading.errors
    assert reading.kinds["result"] == sealed
    assert not reading.kinds.keys() & {"refused", "gap", "held", "rollback", "fork", "reset", "equivocation"}
    assert sum(summary["count"] for summary in reading.payloads("summary")) == READINGS

    intervals = [
        (datetime.fromisoformat(anomaly["start"]), datetime.fromisoformat(anomaly["end"]))
        for anomaly in reading.payloads("anomalies")
    ]
    labelled = [(datetime.fromisoformat(start), datetime.fromisoformat(end)) for start, end in windows]
    hit = [w for w in labelled if any(start <= w[1] and end >= w[0] for start, end in intervals)]
    outside = [i for i in intervals if not any(i[0] <= end and i[1] >= start for start, end in labelled)]
    assert len(hit) >= 3, f"only {hit} were found"
    assert _groups(outside) <= 10, f"too many false alarms: {outside}"


def _groups(intervals: list[tuple[datetime, datetime]]) -> int:
    """Intervals less than a day apart count as one."""
    groups = 0
    last_end: datetime | None = None
    for start, end in sorted(intervals):
        if last_end is None or start - last_end >= DAY:
            groups += 1
        last_end = end if last_end is None else max(last_end, end)
    return groups
