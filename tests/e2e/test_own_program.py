"""Anyone's own SDK program joins the simulated device by `edgeclave sim env`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.suite import Suite, edgeclave, suite

PROGRAM = """
import json
from azure.iot.device import IoTHubModuleClient, Message

client = IoTHubModuleClient.create_from_edge_environment()
client.connect()
client.patch_twin_reported_properties({"hello": client.get_twin()["desired"]["$version"]})
for second in range(60):
    reading = {
        "machine": {"temperature": 70 + second % 5, "pressure": 1.2},
        "ambient": {"temperature": 20.9, "humidity": 25},
        "timeCreated": f"2026-01-01T00:00:{second:02}Z",
    }
    message = Message(json.dumps(reading), content_type="application/json", content_encoding="utf-8")
    client.send_message_to_output(message, "temperatureOutput")
client.shutdown()
"""


@pytest.mark.e2e
@pytest.mark.timeout(240)
def test_a_program_of_ones_own_joins_and_feeds_the_sample(tmp_path: Path, cache: Path) -> None:
    program = tmp_path / "sensor.py"
    program.write_text(PROGRAM)
    with suite(tmp_path / "run", cache, source={"kind": "input"}) as running:
        running.until(running.running, "the trusted application")
        environment = _environment(running, "SimulatedTemperatureSensor")
        done = subprocess.run(
            [sys.executable, str(program)], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        running.until(lambda: running.device.counters().get("readings") == 60, "the sample to have read them", 30)
        running.until(lambda: running.device.counters().get("sealed", 0) >= 1, "a sealed summary", 30)
        reported = running.device.reported("SimulatedTemperatureSensor")
        reading = running.read()

    assert "hello" in reported
    assert reading.payloads("summary")[0]["count"] == 50


def _environment(running: Suite, module: str) -> dict[str, str]:
    state = ["--state", str(running.prepared.simulator_state)]
    as_json = json.loads(edgeclave("sim", "env", module, *state, "--json").stdout)
    lines = edgeclave("sim", "env", module, *state).stdout.splitlines()
    assert len(lines) == len(as_json)
    assert all(line.startswith("export ") for line in lines)
    assert {"IOTEDGE_WORKLOADURI", "IOTEDGE_MODULEGENERATIONID", "mqtt_proxy"} <= as_json.keys()
    return {str(name): str(value) for name, value in as_json.items()}
