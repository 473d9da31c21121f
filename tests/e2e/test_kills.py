"""SIGKILL of every process in mid-stream: nothing is lost and nothing doubled at the reader."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from tests.e2e.suite import Suite, suite

READINGS = 3_000
SPEED = 300  # readings a second: ten seconds in which to kill things


def _kill_enclave(running: Suite) -> None:
    running.kill("edgeclave.enclave")


def _kill_module(name: str) -> Callable[[Suite], None]:
    def kill(running: Suite) -> None:
        running.kill(f"modules/{name}/main.py")

    return kill


def _kill_simulator(running: Suite) -> None:
    running.kill_simulator()
    running.up()


def _kill_each_in_turn(running: Suite) -> None:
    for kill in (_kill_enclave, *map(_kill_module, ("sample_analytics", "enclave_broker", "ta_runner"))):
        kill(running)
        time.sleep(1.5)
    _kill_simulator(running)


@pytest.mark.e2e
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "kill",
    [
        pytest.param(_kill_enclave, id="the enclave"),
        pytest.param(_kill_module("ta_runner"), id="ta_runner"),
        pytest.param(_kill_module("enclave_broker"), id="enclave_broker"),
        pytest.param(_kill_module("sample_analytics"), id="sample_analytics"),
        pytest.param(_kill_simulator, id="the simulator"),
        pytest.param(_kill_each_in_turn, id="each of them in turn"),
    ],
)
def test_a_kill_in_mid_stream_costs_nothing(kill: Callable[[Suite], None], tmp_path: Path, cache: Path) -> None:
    series = tmp_path / "series.csv"
    lines = [f"{number},{math.sin(number / 9):.6f}\n" for number in range(READINGS)]
    series.write_text("timestamp,value\n" + "".join(lines))
    source = {"kind": "csv", "path": str(series), "speed": SPEED}
    with suite(tmp_path / "run", cache, source=source) as running:
        running.until(lambda: running.device.counters().get("readings", 0) > READINGS // 5, "the stream to flow")
        kill(running)
        running.until(lambda: running.source_state() == "finished", "the rest of the series", 120)
        sealed = running.device.counters()["sealed"]
        reading = running.read(until_idle=5)

    assert reading.exit_code == 0, reading.errors
    summaries = [finding for finding in reading.findings if finding.get("output") == "summary"]
    assert sum(finding["payload"]["count"] for finding in summaries) == READINGS
    totals = [finding["payload"]["total"] for finding in summaries]
    assert all(before < after for before, after in pairwise(totals)), "summaries out of order or doubled"
    assert totals[-1] == READINGS
    assert reading.kinds["result"] == sealed
    assert not reading.kinds.keys() & {"refused", "gap", "held", "rollback", "fork", "reset", "equivocation"}
