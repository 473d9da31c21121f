"""The operator's view of the device, through the unmodified azure-iot-hub client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgeclave.demo.prepare import DEVICE

MODULE = "sample_analytics"
TRUSTED_APP = "anomaly"


class Device:
    """Reads and writes module twins of the one simulated device."""

    def __init__(self, simulator_state: Path) -> None:
        self._state = simulator_state
        self._registry: Any = None

    def connection(self, service: str) -> dict[str, str] | None:
        """What `edgeclave sim connection-string` prints, or None while the simulator is not up."""
        arguments = ["sim", "connection-string", service, "--state", str(self._state), "--json"]
        asked = subprocess.run(
            [sys.executable, "-m", "edgeclave", *arguments], capture_output=True, text=True, check=False
        )
        return json.loads(asked.stdout) if asked.returncode == 0 else None

    def connect(self) -> bool | None:
        """True once the simulator answers."""
        connection = self.connection("service")
        if connection is None:
            return None
        # requests, which azure-iot-hub uses, takes its CA file from the environment of the process.
        os.environ["REQUESTS_CA_BUNDLE"] = connection["caFile"]
        from azure.iot.hub import IoTHubRegistryManager  # type: ignore[import-untyped]

        self._registry = IoTHubRegistryManager.from_connection_string(connection["connectionString"])
        return True

    def reported(self, module: str) -> dict[str, Any]:
        """Reported properties, empty while the module has not been there yet."""
        from msrest.exceptions import ClientException

        try:
            twin = self._registry.get_module_twin(DEVICE, module)
        except ClientException:
            return {}
        reported: dict[str, Any] = twin.properties.reported or {}
        return reported

    def set_source(self, source: dict[str, Any]) -> bool | None:
        """Patches the source of sample_analytics; None while its module identity is not there yet."""
        from azure.iot.hub.models import Twin  # type: ignore[import-untyped]
        from azure.iot.hub.protocol.models import TwinProperties  # type: ignore[import-untyped]
        from msrest.exceptions import ClientException

        patch = Twin(properties=TwinProperties(desired={"source": source}))
        try:
            self._registry.update_module_twin(DEVICE, MODULE, patch, "*")
        except ClientException:
            return None
        return True

    def counters(self) -> dict[str, int]:
        counters: dict[str, int] = self.reported(MODULE).get("counters") or {}
        return counters

    def counters_once_running(self, earlier: dict[str, int]) -> dict[str, int] | None:
        """The counters, as soon as the trusted application runs and has answered more than `earlier`: twins keep what
        the last run reported.
        """
        state = (self.reported("ta_runner").get("trustedApps") or {}).get(TRUSTED_APP) or {}
        counters = self.counters()
        answered = counters.get("readings", 0) > earlier.get("readings", 0)
        return counters if state.get("state") == "running" and answered else None
