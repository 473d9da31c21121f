"""A trusted application from its source to results that its readers opened, by the commands that the pages give.

An operator with a private registry (TLS of an authority of their own, a login) and a device whose modules run in their
images: build, sign, push, deploy, read; a restart while the registry is away; an upgrade that carries the state on.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from edgeclave.demo.prepare import Prepared
from tests.containers.device_containers import MODULES, READINGS, SERIES, Containers, trust_this_device
from tests.e2e.suite import ROOT, Suite
from tests.fixtures import needs
from tests.fixtures.certificates import Authority
from tests.fixtures.container_engine import docker
from tests.fixtures.docker_registry import PASSWORD, USER, DockerRegistry, with_password

MODULE_USER = 10001
BRIDGE = '{{index .Options "com.docker.network.bridge.name"}}'
DEPLOY_SECONDS = 180
REPOSITORY = "plant/anomaly"
READINGS_A_SECOND = 100  # so that there are some left for the newer version
TEMPLATE = "deployment.template.json"
ANSWER = 'ec_key(reply, "series");'  # where `status` begins to write it


@dataclass
class Operator:
    """A folder with a solution, in which commands are typed."""

    folder: Path
    registry: DockerRegistry
    authority: Path

    def edgeclave(self, *arguments: str, typed: str = "") -> str:
        done = subprocess.run(
            [sys.executable, "-m", "edgeclave", *arguments],
            cwd=self.folder,
            input=typed,
            capture_output=True,
            text=True,
            check=False,
            timeout=DEPLOY_SECONDS + 60,
        )
        assert done.returncode == 0, f"edgeclave {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def publish(self) -> dict[str, Any]:
        """Returns what `ta push --json` says."""
        self.edgeclave("ta", "build", "anomaly")
        self.edgeclave("ta", "sign", "anomaly", "--key", "developer", "--env", ".env")
        login = ["--ca", str(self.authority), "--username", USER, "--password-stdin"]
        target = f"{self.registry.host}/{REPOSITORY}"
        pushed: dict[str, Any] = json.loads(
            self.edgeclave("ta", "push", "anomaly", target, "--env", ".env", *login, "--json", typed=PASSWORD)
        )
        return pushed

    def name_readers(self) -> None:
        for output in ("anomalies", "summary"):
            readers = ["--recipient", "reader", "--authority", "reader-authority"]
            variable = ["--env", ".env", "--variable", f"ANOMALY_RECIPIENTS_{output.upper()}"]
            self.edgeclave("recipients", "sign", "--output", output, "--version", "1", *readers, *variable)

    def deploy(self) -> str:
        target = ["--hub", "@hub.txt", "--ca", ".edgeclave/sim/pki/root-ca.pem", "--device", "edge01"]
        return self.edgeclave("deploy", TEMPLATE, *target, "--yes", "--timeout", str(DEPLOY_SECONDS))

    def status(self) -> tuple[int, int]:
        """(edition, readings) as the trusted application has them; the first edition does not say its number."""
        asked = json.dumps({"trustedApp": "anomaly", "method": "status", "payload": {}})
        answer = json.loads(self.edgeclave("sim", "method", "enclave_broker", "invoke", asked))
        (series,) = answer["payload"]["series"].values()
        return int(answer["payload"].get("edition", 1)), int(series["total"])

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.folder / file
        before = path.read_text()
        assert old in before
        path.write_text(before.replace(old, new))


@pytest.fixture
def operator(tmp_path: Path, engine: None) -> Operator:
    if os.geteuid() != 0:
        needs.missing("only root can give the registry's login to the user of ta_runner's container")
    bridge = psutil.net_if_addrs()[docker("network", "inspect", "bridge", "--format", BRIDGE)]
    (address,) = [
        each.address for each in bridge if each.family is socket.AF_INET
    ]  # containers of all networks reach it
    authority, ca = Authority(tmp_path), tmp_path / "registry-ca.pem"
    ca.write_bytes(authority.root.public_bytes(Encoding.PEM))
    folder = tmp_path / "solution"
    shutil.copytree(ROOT / "examples" / "anomaly_c", folder / "anomaly")
    operator = Operator(folder, with_password(tmp_path / "registry", authority, address), ca)
    operator.edit("anomaly/ta.toml", 'name = "anomaly-c"', 'name = "anomaly"')  # as the template has it
    return operator


@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_from_source_to_opened_results_over_a_restart_and_an_upgrade(
    operator: Operator, module_images: dict[str, str]
) -> None:
    _write_template(operator, module_images)
    with _device(operator) as device:
        containers = Containers(device)
        assert not containers.found(), "the device has nothing to run yet"

        with operator.registry.running():
            for name in ("reader-authority", "reader"):
                operator.edgeclave("keys", "new", name)
            first = operator.publish()
            operator.name_readers()
            assert first["package"] == f"{operator.registry.host}/{REPOSITORY}:1.0.0@{first['digest']}"
            shown = operator.deploy()
        assert [module for module in MODULES if f"+ {module}" in shown] == list(MODULES)
        assert "ta_runner/anomaly  running, version 1.0.0" in shown
        assert "healthy: 1 of 1 devices run it" in shown
        assert len(containers.found()) == len(MODULES)
        trust_this_device(device, containers, product_id=2)
        _some_results(device)

        _restart_without_the_registry(device, containers)
        edition, before = operator.status()
        assert (edition, before < READINGS) == (1, True), "some are left for the newer version"

        operator.edit("anomaly/ta.toml", 'version = "1.0.0"', 'version = "1.1.0"')
        operator.edit(
            "anomaly/app.c", ANSWER, f'ec_key(reply, "edition");\n    ec_write_integer(reply, 2);\n    {ANSWER}'
        )
        operator.edit(TEMPLATE, f'"speed": {READINGS_A_SECOND}', '"speed": 0')
        with operator.registry.running():
            second = operator.publish()
            shown = operator.deploy()
        assert f"{first['digest'][:20]}" in shown
        assert f"twin.source.speed: {READINGS_A_SECOND} -> 0" in shown
        assert "ta_runner/anomaly  running, version 1.1.0" in shown

        device.until(lambda: device.source_state() == "finished", "the whole series to be read", 300)
        assert operator.status() == (2, READINGS), "the newer version has counted on"
        sealed = device.device.counters()["sealed"]
        reading = device.read(until_idle=5)

    assert reading.exit_code == 0, reading.errors
    assert reading.kinds["result"] == sealed
    assert not reading.kinds.keys() & {"refused", "gap", "held", "rollback", "fork", "reset", "equivocation"}
    assert sum(summary["count"] for summary in reading.payloads("summary")) == READINGS
    evidence = {each["uniqueId"]: each["instance"] for each in reading.findings if each["kind"] == "evidence"}
    assert set(evidence) == {first["unique_id"], second["unique_id"]}
    sealed_by = {each["instance"] for each in reading.findings if each["kind"] == "result"}
    assert set(evidence.values()) <= sealed_by, "both versions have sealed results"


def _some_results(device: Suite) -> None:
    before = device.device.counters().get("sealed", 0)
    device.until(lambda: device.device.counters().get("sealed", 0) > before, "a further result")


def _restart_without_the_registry(device: Suite, containers: Containers) -> None:
    def started() -> int:
        return int(device.device.reported("ta_runner")["trustedApps"]["anomaly"].get("epoch", 0))

    first = started()
    docker("kill", containers.name("ta_runner"))
    device.until(lambda: started() > first and device.running(), "the trusted application to run again")
    _some_results(device)


def _write_template(operator: Operator, images: dict[str, str]) -> None:
    """The project's own with the images as they are built here, the folder for the registry, and a series."""
    (operator.folder / ".env").write_text(f"CONTAINER_REGISTRY_SERVER={operator.registry.host}\n")
    template = json.loads((ROOT / TEMPLATE).read_text())
    modules = template["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"]
    for name, module in modules.items():
        module["settings"]["image"] = images[name]
    folders = {"ta_runner": (_registry_folder(operator), "/etc/edgeclave/registry")}
    folders["sample_analytics"] = (needs.shared("data"), "/data")
    for name, (outside, inside) in folders.items():
        modules[name]["settings"]["createOptions"]["HostConfig"]["Binds"] = [f"{outside}:{inside}:ro"]
    source = {"kind": "csv", "path": f"/data/{SERIES}", "speed": READINGS_A_SECOND}
    template["modulesContent"]["sample_analytics"]["properties.desired"]["source"] = source
    (operator.folder / TEMPLATE).write_text(json.dumps(template))


def _registry_folder(operator: Operator) -> Path:
    """On the device: who it is to the registry, and the registry's authority."""
    folder = operator.folder.parent / "etc-edgeclave-registry"
    folder.mkdir()
    login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {operator.registry.host: {"auth": login}}}))
    shutil.copy(operator.authority, folder / "ca.pem")
    for path in (folder, *folder.iterdir()):
        os.chown(path, MODULE_USER, MODULE_USER)
    (folder / "config.json").chmod(0o600)
    return folder


@contextmanager
def _device(operator: Operator) -> Iterator[Suite]:
    """A hub and a device with its edgeAgent, on which nothing runs yet."""
    state = operator.folder / ".edgeclave"
    state.mkdir(mode=0o700)
    prepared = Prepared(
        folder=state,
        template=operator.folder / TEMPLATE,
        keys=state / "keys",
        variables=operator.folder / ".env",
        simulator_state=state / "sim",
        policy=state / "policy.toml",
        reader_state=state / "reader",
    )
    device = Suite(prepared, prepared.template, ["--containers", "--no-deploy"])
    try:
        device.up()
        (operator.folder / "hub.txt").write_text(operator.edgeclave("sim", "connection-string", "service"))
        yield device
    finally:
        device.down()
        Containers(device).remove_volumes()
