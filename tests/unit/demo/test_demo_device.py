"""What the demo reads of the device's twins, which keep what was reported before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeclave.demo.device import Device


class Reported(Device):
    """A device that has reported this."""

    def __init__(self, state: str, readings: int | None) -> None:
        super().__init__(Path("unused"))
        counters = {} if readings is None else {"counters": {"readings": readings}}
        self._reported = {"ta_runner": {"trustedApps": {"anomaly": {"state": state}}}, "sample_analytics": counters}

    def reported(self, module: str) -> dict[str, Any]:
        return self._reported[module]


@pytest.mark.parametrize(
    ("state", "readings", "earlier", "runs"),
    [
        pytest.param("running", 7, {}, True, id="the first run"),
        pytest.param("running", 7, {"readings": 5}, True, id="a second run"),
        pytest.param("running", 5, {"readings": 5}, False, id="what the first run reported"),
        pytest.param("starting", 7, {"readings": 5}, False, id="starts again"),
        pytest.param("running", 0, {}, False, id="nothing answered yet"),
        pytest.param("running", None, {}, False, id="nothing reported yet"),
    ],
)
def test_the_trusted_application_runs_when_it_answers(
    state: str, readings: int | None, earlier: dict[str, int], runs: bool
) -> None:
    assert (Reported(state, readings).counters_once_running(earlier) is not None) == runs
