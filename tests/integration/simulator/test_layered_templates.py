"""The project's own base and layers, applied by the unmodified azure-iot-hub: what a device gets by its tags."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from azure.iot.hub import IoTHubConfigurationManager, IoTHubRegistryManager  # type: ignore[import-untyped]
from azure.iot.hub.protocol.models import Configuration, ConfigurationContent, Twin  # type: ignore[import-untyped]

from edgeclave.deployment import create_options, generate
from edgeclave.edge.identity import ModuleIdentity
from edgeclave.edge.twins.enclave_broker import read_settings
from edgeclave.edge.twins.trusted_apps import read_desired
from tests.fixtures.deployment_solution import copy_solution

BROKER = ModuleIdentity("hub.example", "edge01", "enclave_broker")
LAYERS = ("tee-sgx", "tee-tdx", "tee-sev-snp", "tee-optee", "tee-tpm", "simulated-sensor", "second-trusted-app")


class Fleet:
    """One device and every configuration of the project."""

    def __init__(self, registry: IoTHubRegistryManager, configurations: IoTHubConfigurationManager) -> None:
        self._registry = registry
        self._configurations = configurations

    def configure(self, name: str, content: dict[str, Any], condition: str, priority: int) -> None:
        configuration = Configuration(
            id=name,
            content=ConfigurationContent(modules_content=content),
            target_condition=condition,
            priority=priority,
        )
        self._configurations.create_configuration(configuration)

    async def tag(self, **tags: Any) -> None:
        await asyncio.to_thread(self._registry.update_twin, "edge01", Twin(tags=tags), "*")

    async def desired(self, module: str) -> dict[str, Any]:
        twin = await asyncio.to_thread(self._registry.get_module_twin, "edge01", module)
        return {name: value for name, value in twin.properties.desired.items() if not name.startswith("$")}

    async def modules(self) -> dict[str, Any]:
        modules: dict[str, Any] = (await self.desired("$edgeAgent"))["modules"]
        return modules

    async def devices(self) -> list[str]:
        settings = (await self.modules())["ta_runner"]["settings"]
        host = create_options.read(settings)["HostConfig"]
        return [device["PathOnHost"] for device in host.get("Devices", [])]


@pytest.fixture
async def fleet(tmp_path: Path, registry: IoTHubRegistryManager, configurations: IoTHubConfigurationManager) -> Fleet:
    made = Fleet(registry, configurations)
    solution = copy_solution(tmp_path / "solution")
    base = generate(solution / "deployment.template.json", {})
    await asyncio.to_thread(made.configure, "base", base.modules_content, "capabilities.iotEdge = true", 1)
    for name in LAYERS:
        layer = generate(solution / "deployments" / f"{name}.template.json", {})
        targeting = layer.manifest["targetCondition"], layer.manifest["priority"]
        await asyncio.to_thread(made.configure, layer.manifest["id"], layer.modules_content, *targeting)
    return made


@pytest.mark.parametrize(
    ("tee", "devices"),
    [
        ("sgx", ["/dev/sgx_enclave", "/dev/sgx_provision"]),
        ("tdx", ["/dev/tdx_guest"]),
        ("sev-snp", ["/dev/sev-guest"]),
        ("optee", ["/dev/tee0"]),
        ("tpm", ["/dev/tpmrm0"]),
    ],
)
async def test_a_device_gets_the_nodes_of_its_tee(fleet: Fleet, tee: str, devices: list[str]) -> None:
    before = await fleet.modules()
    assert await fleet.devices() == []
    await fleet.tag(tee=tee)
    assert await fleet.devices() == devices
    others = {name: module for name, module in (await fleet.modules()).items() if name != "ta_runner"}
    assert others == {name: module for name, module in before.items() if name != "ta_runner"}
    await fleet.tag(tee="none")
    assert await fleet.modules() == before


async def test_a_second_trusted_application_comes_by_tag(fleet: Fleet) -> None:
    await fleet.tag(trustedApps={"second": "yes"})
    desired = read_desired(await fleet.desired("ta_runner"))
    assert (set(desired.trusted_apps), desired.refused, desired.problem) == ({"anomaly", "second"}, {}, None)
    broker = await fleet.desired("enclave_broker")
    policy = read_settings(broker, BROKER).policy
    assert set(broker["policy"]["statements"]) == {"sample-observes", "operator-looks", "operator-calls-second"}
    assert policy.decide("iothub", "invoke:second/read", "second").allowed
    await fleet.tag(trustedApps={"second": "no"})
    assert set((await fleet.desired("ta_runner"))["trustedApps"]) == {"anomaly"}
    assert "operator-calls-second" not in (await fleet.desired("enclave_broker"))["policy"]["statements"]


async def test_the_simulated_sensor_feeds_the_sample(fleet: Fleet) -> None:
    await fleet.tag(sensor="simulated")
    assert "SimulatedTemperatureSensor" in await fleet.modules()
    assert set((await fleet.desired("$edgeHub"))["routes"]) == {"evidence", "results", "sensor"}
    sample = await fleet.desired("sample_analytics")
    assert (sample["source"], sample["trustedApp"]) == ({"kind": "input"}, "anomaly")
    assert await fleet.desired("SimulatedTemperatureSensor") == {"SendData": True, "SendInterval": 5}


async def test_layers_add_up(fleet: Fleet) -> None:
    await fleet.tag(tee="optee", sensor="simulated", trustedApps={"second": "yes"})
    assert await fleet.devices() == ["/dev/tee0"]
    assert "SimulatedTemperatureSensor" in await fleet.modules()
    assert set((await fleet.desired("ta_runner"))["trustedApps"]) == {"anomaly", "second"}
