"""How a device gets its trusted application: pushed to a registry, named in the deployment, pulled by the runner."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import Twin, TwinProperties

from edgeclave.demo.prepare import DEVICE, Prepared
from tests.e2e.suite import ROOT, Suite, edgeclave, suite
from tests.fixtures.docker_registry import DockerRegistry

SOURCE = ROOT / "modules" / "sample_analytics" / "trusted_app"
READINGS = 400


def command(*arguments: str) -> dict[str, Any]:
    done = edgeclave(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def push(registry: DockerRegistry, package: Path, variables: Path) -> dict[str, Any]:
    return command("ta", "push", str(package), f"{registry.host}/plant/anomaly", "--env", str(variables))


def next_version(prepared: Prepared, folder: Path) -> Path:
    """The same application as version 1.1.0."""
    project = shutil.copytree(SOURCE, folder, ignore=shutil.ignore_patterns("build"))
    manifest = folder / "ta.toml"
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join('version = "1.1.0"' if line.startswith("version ") else line for line in lines))
    out, wasm = folder / "next.ta", prepared.folder / "anomaly.wasm"
    keys = ["--key", "developer", "--keys", str(prepared.keys)]
    command("ta", "sign", str(project), "--wasm", str(wasm), *keys, "--out", str(out))
    return out


def reported(running: Suite) -> dict[str, Any]:
    apps = running.device.reported("ta_runner").get("trustedApps") or {}
    return apps.get("anomaly") or {}


def deploy(running: Suite, pushed: dict[str, Any]) -> None:
    """Only the package changes, as in the next deployment."""
    connection = running.device.connection("service")
    assert connection is not None
    entry = {"package": pushed["package"], "digest": pushed["digest"]}
    patch = Twin(properties=TwinProperties(desired={"trustedApps": {"anomaly": entry}}))
    manager = IoTHubRegistryManager.from_connection_string(connection["connectionString"])
    manager.update_module_twin(DEVICE, "ta_runner", patch, "*")


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_from_the_registry_to_an_opened_result_and_on_without_it(tmp_path: Path, cache: Path) -> None:
    registry = DockerRegistry(tmp_path / "registry")
    first: dict[str, Any] = {}
    series = tmp_path / "series.csv"
    series.write_text("timestamp,value\n" + "".join(f"{second},{second % 7}\n" for second in range(READINGS)))

    def publish(prepared: Prepared) -> None:
        with registry.running():
            first.update(push(registry, prepared.folder / "anomaly.ta", prepared.variables))
        assert f"ANOMALY_PACKAGE={first['package']}" in prepared.variables.read_text()

    source = {"kind": "csv", "path": str(series), "speed": 200}
    with suite(tmp_path / "run", cache, source=source, before=publish) as running:
        # Nobody answers at first: the reason is reported, and it comes as soon as the registry does.
        running.until(lambda: reported(running).get("state") == "backoff", "the runner to have tried")
        assert reported(running)["reason"]["code"] == "registry-unreachable"
        assert reported(running)["reason"]["advice"]
        with registry.running():
            running.until(running.running, "the trusted application")
        assert reported(running)["digest"] == first["digest"]
        running.until(lambda: running.device.counters().get("readings") == READINGS, "the sample to have read all")

        # The device is switched off and on, and there is no registry.
        running.kill_simulator()
        running.up()
        running.until(lambda: reported(running).get("epoch", 0) > 1 and running.running(), "it to run again")
        assert reported(running).get("reason") is None
        kept = running.data / "ta_runner" / "packages"
        assert [path.suffix for path in kept.iterdir()] == [".ta"]

        # An upgrade that cannot be pulled yet stops nothing.
        with registry.running():
            second = push(registry, next_version(running.prepared, tmp_path / "next"), tmp_path / "second.env")
        deploy(running, second)
        running.until(lambda: reported(running).get("reason"), "the reason why there is no upgrade")
        assert reported(running)["state"] == "running"
        assert reported(running)["digest"] == first["digest"]
        assert reported(running)["reason"]["code"] == "registry-unreachable"
        with registry.running():
            running.until(lambda: reported(running).get("digest") == second["digest"], "the upgrade")
            running.until(running.running, "the new version")
            assert reported(running)["version"] == "1.1.0"

            # What is damaged in the cache comes from the registry again.
            package = kept / f"{second['digest'].removeprefix('sha256:')}.ta"
            good = package.read_bytes()
            package.write_bytes(good[:5000] + bytes(5000) + good[10000:])
            running.kill("edgeclave.enclave")
            running.until(lambda: package.exists() and package.read_bytes() == good, "the package to be healed")
            running.until(lambda: reported(running).get("restarts") == 1 and running.running(), "it to run again")
        time.sleep(1)
        reading = running.read()
    assert reading.kinds["result"] > 0
    assert sum(payload["count"] for payload in reading.payloads("summary")) > 0
    assert not reading.kinds["gap"]
