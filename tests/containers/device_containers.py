"""The containers of a suite (tests/e2e/suite.py), as the engine and edgeAgent have them."""

from __future__ import annotations

import json
from typing import Any

from edgeclave.simulator.supervisor.containers.host import SIMULATOR_LABEL
from edgeclave.simulator.workload.sockets import runtime_folder
from tests.e2e.suite import Suite, edgeclave
from tests.fixtures.container_engine import docker

MODULES = ("ta_runner", "enclave_broker", "sample_analytics")
SERIES = "machine_temperature_system_failure.csv"
READINGS = 22_695
"""Of the series."""
SECONDS_TO_COMPILE = 300
"""The first start translates the trusted application, on a machine that runs other tests too."""


class Containers:
    """The three containers of a suite."""

    def __init__(self, running: Suite) -> None:
        self._suite = running
        self._prefix = runtime_folder(running.prepared.simulator_state).name

    def name(self, module: str) -> str:
        return f"{self._prefix}-{module}"

    def state(self, module: str) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(docker("inspect", "--format", "{{json .State}}", self.name(module)))
        return state

    def ids(self) -> dict[str, str]:
        return {module: docker("inspect", "--format", "{{.Id}}", self.name(module)) for module in MODULES}

    def found(self) -> set[str]:
        """Ids of all that the engine has of this simulator."""
        label = f"label={SIMULATOR_LABEL}={self._prefix}"
        return set(docker("ps", "--all", "--quiet", "--no-trunc", "--filter", label).split())

    def reported(self, module: str) -> dict[str, Any]:
        shown: dict[str, Any] = self._suite.device.reported("$edgeAgent").get("modules", {}).get(module, {})
        return shown

    def all_run(self) -> bool:
        return all(self.reported(module).get("runtimeStatus") == "running" for module in MODULES)

    def networks(self) -> str:
        return docker("network", "ls", "-q", "--filter", f"label={SIMULATOR_LABEL}={self._prefix}")

    def remove_volumes(self) -> None:
        for volume in docker("volume", "ls", "-q", "--filter", f"label={SIMULATOR_LABEL}={self._prefix}").split():
            docker("volume", "rm", volume)


def trust_this_device(running: Suite, containers: Containers, *, product_id: int = 1) -> None:
    """As docs/simulator.md says: the reader pins the anchor of the emulator in ta_runner's container."""
    prepared = running.prepared
    anchor = prepared.folder / "attestation.pub.pem"
    docker("cp", f"{containers.name('ta_runner')}:/var/lib/edgeclave/emulator/attestation.pub.pem", str(anchor))
    prepared.policy.unlink(missing_ok=True)
    signer = prepared.environment()["ANOMALY_SIGNER"]
    accept = ["--anchor", str(anchor), "--class", "emulated", "--device", "edge01", "--signer", signer]
    made = edgeclave("policy", "init", *accept, "--product-id", str(product_id), "--out", str(prepared.policy))
    assert made.returncode == 0, made.stderr
