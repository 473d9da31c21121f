"""The main job from start to end: simulator up, three modules, a burst of load, a reader, one summary."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from edgeclave.demo.device import Device
from edgeclave.demo.load import burst
from edgeclave.demo.prepare import Prepared
from edgeclave.demo.processes import follow, read_findings, start, start_reader, stop
from edgeclave.demo.tally import Tally
from edgeclave.errors import EdgeclaveError

LOAD_STARTS_AT = 0.55  # of the run; by then the detector knows averages, too
LOAD_LASTS = 0.2
SECONDS_TO_START = 300.0  # the first start compiles the trusted application: a minute on a small or busy machine
SECONDS_TO_DRAIN = 20.0
SECONDS_BETWEEN_LOOKS = 0.25
LOOKS_UNTIL_QUIET = 6
VITALS = {"kind": "vitals", "intervalSeconds": 0.1}
NO_READINGS = {"kind": "input"}  # no sensor module is deployed, so nothing arrives

Answer = TypeVar("Answer")
Show = Callable[[Tally, dict[str, int], str], None]


@dataclass(frozen=True)
class Summary:
    """What `summary.json` holds: `readings` and `sealed` are the device's counts, all others the reader's."""

    readings: int
    sealed: int
    verified: int
    opened: int
    refused: int
    duplicates: int
    gaps: int
    anomalies: int
    evidence_type: str
    seconds: float

    @property
    def complete(self) -> bool:
        return 0 < self.sealed == self.opened and self.refused == self.gaps == 0


async def run(prepared: Prepared, seconds: float, show: Show) -> Summary:
    """Runs the suite for `seconds` of readings, then waits until the reader has opened all that was sealed.

    Raises:
        EdgeclaveError: `demo-not-started` when the simulator or the trusted application does not come up.
    """
    started = time.monotonic()
    tally = Tally()
    device = Device(prepared.simulator_state)
    log = prepared.folder / "simulator.log"
    simulator = await start(
        ["sim", "up", str(prepared.template), "--state", str(prepared.simulator_state), "--json"],
        log=log,
        environment=prepared.environment(),
        capture=True,
    )
    applied, following = follow(simulator, log)
    reader: asyncio.subprocess.Process | None = None
    try:
        show(tally, {}, "Starting the simulator: IoT Hub, edgeHub, workload API")
        await _patiently(device.connect, simulator, "the simulator")
        earlier = await asyncio.to_thread(device.counters)
        show(tally, {}, "Starting the modules; ta_runner verifies, compiles and loads the trusted application")
        # Not before: applying the deployment of a second run would take the source back again.
        await _patiently(lambda: applied.is_set() or None, simulator, "the deployment")
        await _patiently(lambda: device.set_source(VITALS), simulator, "sample_analytics")
        reader = await start_reader(prepared, device)
        reading = asyncio.create_task(read_findings(reader, tally))
        before = await _patiently(lambda: device.counters_once_running(earlier), simulator, "the trusted application")
        opened_before = tally.opened
        await _measure(device, before, tally, seconds, show)
        await asyncio.to_thread(device.set_source, NO_READINGS)
        counters = await _drained(device, before, tally, opened_before, show)
        await stop(reader)
        await reading
    finally:
        await asyncio.gather(*(stop(process) for process in (reader, simulator) if process))
        await following
    # More than were sealed since are those that were on the way when counting began; what was lost instead is a gap.
    opened = min(tally.opened - opened_before, counters["sealed"])
    return Summary(
        readings=counters["readings"],
        sealed=counters["sealed"],
        verified=opened,
        opened=opened,
        refused=tally.kinds["refused"],
        duplicates=tally.kinds["duplicate"],
        gaps=tally.kinds["gap"],
        anomalies=tally.outputs["anomalies"],
        evidence_type=tally.evidence_type,
        seconds=round(time.monotonic() - started, 1),
    )


def write_summary(summary: Summary, path: Path) -> None:
    path.write_text(json.dumps(asdict(summary), indent=2) + "\n")


async def _measure(device: Device, before: dict[str, int], tally: Tally, seconds: float, show: Show) -> None:
    begin = time.monotonic()
    load: list[subprocess.Popen[bytes]] = []
    while (elapsed := time.monotonic() - begin) < seconds:
        phase = f"Reading this machine's vitals, {seconds - elapsed:.0f} s to go"
        if not load and elapsed >= seconds * LOAD_STARTS_AT:
            load = burst(seconds * LOAD_LASTS)
        if any(process.poll() is None for process in load):
            phase += " (a real burst of load is running)"
        show(tally, await _since(device, before), phase)
        await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
    for process in load:
        process.wait()


async def _drained(
    device: Device, before: dict[str, int], tally: Tally, opened_before: int, show: Show
) -> dict[str, int]:
    """Waits until nothing new is sealed and the reader has opened as many as the device has sealed."""
    deadline = time.monotonic() + SECONDS_TO_DRAIN
    counters = await _since(device, before)
    quiet = 0
    while time.monotonic() < deadline and quiet < LOOKS_UNTIL_QUIET:
        show(tally, counters, "Letting the last sealed results arrive")
        await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
        latest = await _since(device, before)
        arrived = tally.opened - opened_before >= latest["sealed"]
        quiet = quiet + 1 if arrived and latest == counters else 0
        counters = latest
    return counters


async def _since(device: Device, before: dict[str, int]) -> dict[str, int]:
    now = await asyncio.to_thread(device.counters)
    return {name: now.get(name, 0) - before.get(name, 0) for name in ("readings", "sealed")}


async def _patiently(ask: Callable[[], Answer | None], simulator: asyncio.subprocess.Process, what: str) -> Answer:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline and simulator.returncode is None:
        answer = await asyncio.to_thread(ask)
        if answer is not None:
            return answer
        await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
    raise EdgeclaveError(
        "demo-not-started",
        f"{what} did not start",
        advice="see the log files in the folder of the demo; remove it to begin anew",
    )
