"""Watches a temperature: counts readings, keeps the highest, and tells its readers of every new record.

Run it: edgeclave ta run . observe '{"celsius": 21.5}'
"""

from dataclasses import dataclass
from typing import Annotated

from edgeclave_ta import Failure, Range, TrustedApp, from_json, tee, to_json

app = TrustedApp()


@dataclass
class Reading:
    """What `observe` takes. Anything else is answered with status 400 and the path of what is wrong."""

    celsius: Annotated[float, Range(-273.15, 1000)]


@dataclass
class Summary:
    """What was seen so far."""

    count: int
    highest: float


@app.method
def observe(reading: Reading) -> Summary:
    """Takes one reading. Storage and results are committed together, when the call succeeds."""
    before = _stored()
    if before is None or reading.celsius > before.highest:
        tee.emit("records", reading)  # sealed: only the readers of `records` can open it
        tee.log(tee.INFO, "a new record")
    count, highest = (before.count, before.highest) if before else (0, reading.celsius)
    after = Summary(count + 1, max(highest, reading.celsius))
    tee.put("summary", to_json(after))
    return after


@app.method
def status() -> Summary:
    """The summary; fails while there is none."""
    summary = _stored()
    if summary is None:
        raise Failure(404, "nothing was observed yet")
    return summary


def _stored() -> Summary | None:
    text = tee.get("summary")
    return None if text is None else from_json(Summary, text)
