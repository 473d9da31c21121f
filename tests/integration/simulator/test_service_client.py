"""The unmodified azure-iot-hub clients against the simulator."""

import asyncio
import copy
from typing import Any

import pytest
from azure.iot.hub import IoTHubConfigurationManager, IoTHubRegistryManager  # type: ignore[import-untyped]
from azure.iot.hub.protocol.models import (  # type: ignore[import-untyped]
    CloudToDeviceMethod,
    ConfigurationContent,
    QuerySpecification,
    Twin,
    TwinProperties,
)
from msrest.exceptions import HttpOperationError

from edgeclave.simulator import SimulatorThread
from edgeclave.simulator.identities import IdentityName

CONTENT: dict[str, Any] = {
    "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": {"a": {}, "b": {}}}},
    "$edgeHub": {"properties.desired": {"schemaVersion": "1.2", "routes": {"up": "FROM /* INTO $upstream"}}},
    "a": {"properties.desired": {"limit": 1}},
    "b": {"properties.desired.settings.level": 2},
}


async def apply(configurations: IoTHubConfigurationManager, content: dict[str, Any]) -> None:
    wanted = ConfigurationContent(modules_content=content)
    await asyncio.to_thread(configurations.apply_configuration_on_edge_device, "edge01", wanted)


async def test_a_deployment_creates_modules_and_sets_twins(
    simulator: SimulatorThread, registry: IoTHubRegistryManager, configurations: IoTHubConfigurationManager
) -> None:
    await apply(configurations, CONTENT)
    modules = await asyncio.to_thread(registry.get_modules, "edge01")
    assert [module.module_id for module in modules] == ["$edgeAgent", "$edgeHub", "a", "b"]
    twin = await asyncio.to_thread(registry.get_module_twin, "edge01", "b")
    assert twin.properties.desired["settings"] == {"level": 2}


async def test_the_same_deployment_again_changes_nothing(
    simulator: SimulatorThread, configurations: IoTHubConfigurationManager
) -> None:
    await apply(configurations, CONTENT)
    name = IdentityName("edge01", "a")

    def stored() -> object:
        return simulator.call(lambda running: (running.hub.twins.get(name), running.hub.identities.get(name)))

    simulator.call(lambda running: running.hub.twins.patch_reported(name, {"counted": 7}))
    before = stored()
    await apply(configurations, CONTENT)
    assert stored() == before


@pytest.mark.parametrize(
    ("section", "value", "reason"),
    [
        pytest.param(
            "$edgeHub", {"properties.desired": {"routes": {"up": "FROM / TO x"}}}, "routes.up", id="bad route"
        ),
        pytest.param("c", {"properties.desired": {}}, "c is in no deployed", id="module that is not deployed"),
        pytest.param("b", {"properties.reported": {}}, "properties.reported", id="reported properties"),
        pytest.param("b", {"properties.desired": {"x y": 1}}, "x y", id="bad property name"),
        pytest.param("$edgeAgent", {}, "properties.desired", id="empty agent"),
    ],
)
async def test_a_bad_deployment_is_refused_as_a_whole(
    simulator: SimulatorThread, configurations: IoTHubConfigurationManager, section: str, value: object, reason: str
) -> None:
    content = {**copy.deepcopy(CONTENT), section: value}
    with pytest.raises(HttpOperationError, match="Bad Request") as refused:
        await apply(configurations, content)
    assert reason in refused.value.response.text
    modules = simulator.call(lambda running: running.hub.identities.modules("edge01"))
    assert [module.name.module_id for module in modules] == ["$edgeAgent", "$edgeHub"]


async def test_a_stale_etag_is_refused_with_412(simulator: SimulatorThread, registry: IoTHubRegistryManager) -> None:
    simulator.environment("m")
    twin = Twin(properties=TwinProperties(desired={"a": 1}))
    first = await asyncio.to_thread(registry.update_module_twin, "edge01", "m", twin, "*")
    await asyncio.to_thread(
        registry.update_module_twin, "edge01", "m", Twin(properties=TwinProperties(desired={"a": 2})), first.etag
    )
    with pytest.raises(HttpOperationError) as refused:
        await asyncio.to_thread(
            registry.update_module_twin, "edge01", "m", Twin(properties=TwinProperties(desired={"a": 3})), first.etag
        )
    assert refused.value.response.status_code == 412


async def test_queries(simulator: SimulatorThread, registry: IoTHubRegistryManager) -> None:
    for module in ("a", "b", "c"):
        simulator.environment(module)
    name = IdentityName("edge01", "b")
    simulator.call(lambda running: running.hub.twins.patch_reported(name, {"state": {"level": 5}}))

    async def ids(query: str, size: int = 10) -> list[str]:
        result = await asyncio.to_thread(registry.query_iot_hub, QuerySpecification(query=query), None, size)
        return [twin.module_id or twin.device_id for twin in result.items]

    assert await ids("SELECT * FROM devices") == ["edge01"]
    assert await ids("SELECT * FROM devices.modules WHERE moduleId IN ['a', 'c']") == ["a", "c"]
    assert await ids("SELECT * FROM devices.modules WHERE properties.reported.state.level > 4") == ["b"]
    assert await ids("select * from devices.modules where deviceId = 'edge01'", 2) == ["$edgeAgent", "$edgeHub"]
    with pytest.raises(HttpOperationError) as refused:
        await ids("SELECT TOP 5 FROM devices")
    assert "TOP 5" in refused.value.response.text


async def test_devices_and_modules_come_and_go(simulator: SimulatorThread, registry: IoTHubRegistryManager) -> None:
    key = "a2V5" * 10
    device = await asyncio.to_thread(registry.create_device_with_sas, "edge02", key, key, "enabled", True)
    assert device.capabilities.iot_edge is True
    module = await asyncio.to_thread(registry.create_module_with_sas, "edge02", "m", "", key, key)
    assert module.authentication.symmetric_key.primary_key == key
    with pytest.raises(HttpOperationError) as refused:
        await asyncio.to_thread(registry.create_module_with_sas, "edge02", "m", "", key, key)
    assert refused.value.response.status_code == 409
    await asyncio.to_thread(registry.delete_device, "edge02", device.etag)
    with pytest.raises(HttpOperationError) as gone:
        await asyncio.to_thread(registry.get_module, "edge02", "m")
    assert gone.value.response.status_code == 404
    statistics = await asyncio.to_thread(registry.get_device_registry_statistics)
    assert statistics.total_device_count == 1


async def test_a_method_of_an_absent_module_is_404(simulator: SimulatorThread, registry: IoTHubRegistryManager) -> None:
    simulator.environment("m")
    with pytest.raises(HttpOperationError) as refused:
        await asyncio.to_thread(
            registry.invoke_device_module_method, "edge01", "m", CloudToDeviceMethod(method_name="x", payload=None)
        )
    assert refused.value.response.status_code == 404


async def test_another_key_is_refused(simulator: SimulatorThread) -> None:
    text = simulator.connection_string("service")
    host = text.partition(";")[0]
    stranger = IoTHubRegistryManager.from_connection_string(
        f"{host};SharedAccessKeyName=iothubowner;SharedAccessKey={'a2V5' * 10}"
    )
    with pytest.raises(HttpOperationError) as refused:
        await asyncio.to_thread(stranger.get_devices)
    assert refused.value.response.status_code == 401
