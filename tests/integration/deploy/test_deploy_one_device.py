"""`edgeclave deploy --device` on a hub whose device runs real processes, by the unmodified azure-iot-hub."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from azure.iot.hub import IoTHubRegistryManager  # type: ignore[import-untyped]
from azure.iot.hub.protocol.models import Twin, TwinProperties  # type: ignore[import-untyped]

from edgeclave.simulator import SimulatorThread
from tests.integration.deploy.conftest import Deploy, Solution


def test_a_first_deployment_an_upgrade_and_the_way_back(
    device: SimulatorThread, solution: Solution, deploy: Deploy, registry: IoTHubRegistryManager
) -> None:
    first = deploy(solution.template(), "--device", "edge01", "--yes")
    assert first.code == 0, first.out + first.err
    assert "+ worker" in first.out
    assert "+ env.PASSWORD.value: (hidden)" in first.out
    assert "healthy: 1 of 1 devices run it" in first.out
    solution.version("2.0")
    second = deploy(solution.template(rate=5), "--device", "edge01", "--yes", "--json")
    assert (second.code, second.ended["healthy"]) == (0, True)
    (difference,) = [event for event in second.events if event["event"] == "difference"]
    (worker,) = difference["modules"]
    assert (worker["module"], worker["kind"]) == ("worker", "changed")
    assert [(each["field"], each["old"], each["new"]) for each in worker["fields"]] == [
        ("env.PASSWORD.value", "(hidden)", "(hidden)"),
        ("settings.image", "registry/worker:1.0-amd64", "registry/worker:2.0-amd64"),
        ("twin.rate", 1, 5),
    ]
    solution.version("1.0")
    back = deploy(solution.template(), "--device", "edge01", "--yes")
    assert (back.code, "registry/worker:2.0-amd64" in back.out) == (0, True)
    assert registry.get_module_twin("edge01", "worker").properties.desired["rate"] == 1


def test_nothing_to_change_is_watched_all_the_same(device: SimulatorThread, solution: Solution, deploy: Deploy) -> None:
    template = solution.template()
    assert deploy(template, "--device", "edge01", "--yes").code == 0
    again = deploy(template, "--device", "edge01")
    assert (again.code, "nothing changes" in again.out, "given to the hub" in again.out) == (0, True, False)


def test_nothing_is_applied_unasked(simulator: SimulatorThread, solution: Solution, deploy: Deploy) -> None:
    template = solution.template()
    shown = deploy(template, "--device", "edge01", "--dry-run")
    assert (shown.code, "+ worker" in shown.out) == (0, True)
    refused = deploy(template, "--device", "edge01")
    assert (refused.code, "not-confirmed" in refused.err, "+ worker" in refused.out) == (1, True, True)
    assert "+ worker" in deploy(template, "--device", "edge01", "--dry-run").out


@pytest.mark.parametrize(("answer", "applied"), [("n", False), ("y", True)])
def test_a_person_at_a_terminal_is_asked(
    simulator: SimulatorThread, solution: Solution, tmp_path: Path, answer: str, applied: bool
) -> None:
    (tmp_path / "hub.txt").write_text(simulator.connection_string("service"))
    terminal, its_end = os.openpty()
    options = ["--hub", f"@{tmp_path / 'hub.txt'}", "--ca", simulator.ca_file, "--device", "edge01", "--timeout", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "edgeclave", "deploy", str(solution.template()), *options],
        stdin=its_end,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.write(terminal, f"{answer}\n".encode())
    out, err = process.communicate(timeout=60)
    os.close(terminal)
    os.close(its_end)
    assert "Apply this?" in err
    assert ("given to the hub" in out, "nothing was applied" in err) == (applied, not applied)
    assert process.returncode == 1  # refused, or not healthy: nothing runs there


def test_a_module_without_an_image_on_the_device_is_named(
    device: SimulatorThread, solution: Solution, deploy: Deploy
) -> None:
    solution.version("3.0")
    done = deploy(solution.template(), "--device", "edge01", "--yes", "--json", "--timeout", "10")
    assert done.code == 1
    assert done.wrong == {
        "edge01 worker": "failed: not started: registry/worker:3.0-amd64 is not built from a module of "
        "this solution; --containers runs any image"
    }


def test_a_module_that_starts_and_ends_again_is_never_healthy(
    device: SimulatorThread, solution: Solution, deploy: Deploy
) -> None:
    template = solution.template(env={})
    done = deploy(template, "--device", "edge01", "--yes", "--json", "--timeout", "5")
    assert (done.code, done.ended["settled"]) == (1, False)
    assert "exit code 1" in done.wrong["edge01 worker"]
    assert "KeyError: 'GREETING'" in done.wrong["edge01 worker"]


def test_a_device_that_never_reports_is_named(simulator: SimulatorThread, solution: Solution, deploy: Deploy) -> None:
    done = deploy(solution.template(), "--device", "edge01", "--yes", "--timeout", "1")
    assert done.code == 1
    assert "not healthy: 0 of 1 devices run it, and the time is up" in done.out
    assert "edge01  edgeAgent  has never reported; the hub shows it as disconnected" in done.out
    assert "sudo iotedge check" in done.out


def test_a_device_that_went_offline_is_not_healthy_by_what_it_reported_before(
    device: SimulatorThread, solution: Solution, deploy: Deploy
) -> None:
    template = solution.template()
    assert deploy(template, "--device", "edge01", "--yes").code == 0
    device.call(lambda running: running.hub.upstream.set_online(False))
    done = deploy(template, "--device", "edge01", "--json", "--timeout", "1")
    assert (done.code, done.ended["healthy"]) == (1, False)
    assert done.wrong["edge01 edgeAgent"].startswith("does not answer now; the hub shows it as disconnected")


def test_who_stops_to_watch_is_told_that_the_deployment_stays(
    device: SimulatorThread, solution: Solution, deploy: Deploy, monkeypatch: Any
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgeclave.cli.deploy.watch", interrupted)
    done = deploy(solution.template(), "--device", "edge01", "--yes")
    assert done.code == 130
    assert "no longer watched; the deployment stays in the hub" in done.err


def test_a_package_that_is_a_file_of_this_machine_is_noted(
    simulator: SimulatorThread, solution: Solution, deploy: Deploy
) -> None:
    package = solution.folder / "anomaly.ta"
    package.touch()
    app = {"package": str(package), "digest": "sha256:" + "1" * 64, "signer": "2" * 64, "platform": "emulator"}
    layer = {"id": "more", "targetCondition": "*", "priority": 10, "schemaVersion": "1.0"}
    template = solution.write(
        "more.template.json", {"ta_runner": {"properties.desired.trustedApps.anomaly": app}}, layer=layer
    )
    assert f"{package} is a file of this machine" in deploy(template, "--dry-run").out
    package.unlink()
    assert "is a file of this machine" not in deploy(template, "--dry-run").out


def test_somebody_else_deploys_meanwhile(
    device: SimulatorThread,
    solution: Solution,
    deploy: Deploy,
    registry: IoTHubRegistryManager,
    monkeypatch: Any,
) -> None:
    assert deploy(solution.template(), "--device", "edge01", "--yes").code == 0
    solution.version("2.0")

    def while_it_asks() -> None:
        registry.update_module_twin("edge01", "worker", Twin(properties=TwinProperties(desired={"rate": 7})), "*")

    monkeypatch.setattr("edgeclave.cli.deploy._confirm", while_it_asks)
    done = deploy(solution.template(rate=5), "--device", "edge01")
    assert (done.code, "changed-meanwhile" in done.err) == (1, True)
    assert "twin.rate: 1 -> 5" in done.out
    assert "as it is now" in done.out
    assert "twin.rate: 7 -> 5" in done.out
    image = registry.get_module_twin("edge01", "$edgeAgent").properties.desired["modules"]["worker"]["settings"][
        "image"
    ]
    assert image == "registry/worker:1.0-amd64"


def test_a_device_under_an_automatic_deployment_is_said_to_be(
    device: SimulatorThread, solution: Solution, deploy: Deploy, tag: Callable[..., None]
) -> None:
    tag(role="press")
    assert deploy(solution.template(), "--config-id", "presses", "--target", "tags.role = 'press'", "--yes").code == 0
    shown = deploy(solution.template(rate=2), "--device", "edge01", "--dry-run")
    assert "the automatic deployment presses targets this device" in shown.out
