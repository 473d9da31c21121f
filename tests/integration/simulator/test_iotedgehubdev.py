"""`iotedgehubdev setup` and `modulecred`, unmodified, with the simulator as their IoT Hub; then an SDK module with what
they print.

One thing of it cannot work: `EdgeModuleCACertificateFile` names the CA that iotedgehubdev makes for the edgeHub
container that it would start. The simulator's edgeHub has the simulator's CA, so that file is the one to name.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from azure.iot.device import Message
from azure.iot.device.exceptions import ClientError, ConnectionFailedError
from azure.iot.hub import IoTHubRegistryManager  # type: ignore[import-untyped]

from edgeclave.simulator import SimulatorThread
from edgeclave.simulator.connection_strings import device_connection_string
from edgeclave.simulator.identities import IdentityName
from edgeclave.simulator.join import connection_of
from edgeclave.simulator.sas import make_token
from edgeclave.simulator.settings import Settings
from tests.fixtures.peer_tools import IOTEDGEHUBDEV, environment_of, run

Connect = Callable[..., Awaitable[Any]]
HUB_CONNECTION, CA_FILE = "EdgeHubConnectionString", "EdgeModuleCACertificateFile"


@pytest.fixture
def settings(simulator: SimulatorThread) -> Settings:
    return simulator.call(lambda running: running.settings)


@pytest.fixture
def device_connection(simulator: SimulatorThread, settings: Settings) -> str:
    key = simulator.call(lambda running: running.hub.identities.get(IdentityName("edge01")).primary_key)
    return device_connection_string(settings, key)


class HubDev:
    """The tool with a home of its own."""

    def __init__(self, folder: Path, simulator: SimulatorThread, settings: Settings) -> None:
        self._program = environment_of(IOTEDGEHUBDEV) / "iotedgehubdev"
        self._folder = folder
        self._variables = {"https_proxy": settings.proxy_url, "REQUESTS_CA_BUNDLE": simulator.ca_file}

    def __call__(self, *arguments: str) -> str:
        done = run([self._program, *arguments], self._folder, self._variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def credentials(self, *arguments: str) -> dict[str, str]:
        lines = self("modulecred", *arguments).splitlines()
        return dict(line.split("=", 1) for line in lines if line.startswith(("EdgeHub", "EdgeModule")))


@pytest.fixture
def hubdev(tmp_path: Path, simulator: SimulatorThread, settings: Settings, device_connection: str) -> HubDev:
    tool = HubDev(tmp_path, simulator, settings)
    tool("setup", "-c", device_connection, "-g", settings.gateway)
    tool("validateconfig")
    return tool


async def test_the_command_line_gives_the_connection_string(
    tmp_path: Path, simulator: SimulatorThread, device_connection: str
) -> None:
    text, ca_file, device = await connection_of(tmp_path / "sim", "device")
    assert (text, ca_file, device) == (device_connection, simulator.ca_file, "edge01")


async def test_modules_get_credentials_with_which_the_sdk_connects(
    hubdev: HubDev,
    simulator: SimulatorThread,
    settings: Settings,
    registry: IoTHubRegistryManager,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One test, because each `setup` makes three RSA keys."""
    both = await asyncio.to_thread(hubdev.credentials, "-m", "mine|second")
    mine, second = both[HUB_CONNECTION].split("|")
    module = await asyncio.to_thread(registry.get_module, "edge01", "second")
    assert f"SharedAccessKey={module.authentication.symmetric_key.primary_key}" in second
    printed = await asyncio.to_thread(hubdev.credentials, "-m", "mine")
    assert printed[HUB_CONNECTION] == mine  # the module is there now and keeps its key
    assert "GatewayHostName=localhost;" in (await asyncio.to_thread(hubdev.credentials, "--local"))[HUB_CONNECTION]

    monkeypatch.setenv("mqtt_proxy", settings.proxy_url)
    with pytest.raises((ClientError, ConnectionFailedError)) as refused:
        await connect(printed)
    assert "CERTIFICATE_VERIFY_FAILED" in causes(refused.value)
    client = await connect({**printed, CA_FILE: simulator.ca_file})
    assert "$version" in (await client.get_twin())["desired"]
    await client.send_message_to_output(Message(json.dumps({"level": 1})), "alerts")
    await client.patch_twin_reported_properties({"started": True})
    reported = simulator.call(lambda running: running.hub.twins.get(IdentityName("edge01", "mine")).reported)
    assert reported["started"] is True


def causes(error: BaseException | None) -> str:
    return f"{error}; {causes(error.__cause__ or error.__context__)}" if error else ""


@pytest.mark.parametrize(
    ("device", "method", "path", "status"),
    [
        pytest.param("edge01", "GET", "/devices/edge01/modules", 200, id="an edge device lists its modules"),
        pytest.param("edge01", "PUT", "/devices/edge01/modules/new", 200, id="and makes one"),
        pytest.param("edge01", "DELETE", "/devices/edge01/modules/old", 204, id="and removes one"),
        pytest.param("edge01", "GET", "/devices/edge01", 403, id="not itself"),
        pytest.param("edge01", "GET", "/devices/edge01/modulesX", 403, id="not what begins alike"),
        pytest.param("edge01", "GET", "/devices/other/modules", 403, id="not those of another"),
        pytest.param("edge01", "GET", "/twins/edge01/modules/old", 403, id="not their twins"),
        pytest.param("edge01", "POST", "/devices/edge01/modules/old", 403, id="by no other method"),
        pytest.param("other", "GET", "/devices/other/modules", 403, id="a device without Edge manages none"),
    ],
)
async def test_what_a_devices_own_key_opens(
    simulator: SimulatorThread,
    registry: IoTHubRegistryManager,
    settings: Settings,
    device: str,
    method: str,
    path: str,
    status: int,
) -> None:
    await asyncio.to_thread(registry.create_module_with_sas, "edge01", "old", "", "", "")
    await asyncio.to_thread(registry.create_device_with_sas, "other", "", "", "enabled")
    key = simulator.call(lambda running: running.hub.identities.get(IdentityName(device)).primary_key)
    answer = await asyncio.to_thread(
        requests.request,
        method,
        f"https://{settings.address}:{settings.ports.https}{path}?api-version=2021-04-12",
        headers={"Authorization": make_token(f"{settings.hub_host}/devices/{device}", key)},
        json={} if method == "PUT" else None,
        verify=simulator.ca_file,
        timeout=10,
    )
    assert answer.status_code == status, answer.text
