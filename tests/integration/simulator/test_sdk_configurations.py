"""Configurations by the unmodified azure-iot-hub: who is targeted, what wins, and how far it has come."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from azure.iot.hub import IoTHubConfigurationManager, IoTHubRegistryManager  # type: ignore[import-untyped]
from azure.iot.hub.protocol.models import (  # type: ignore[import-untyped]
    Configuration,
    ConfigurationContent,
    ConfigurationMetrics,
    ConfigurationQueriesTestInput,
    Twin,
)
from msrest.exceptions import HttpOperationError

from edgeclave.simulator import SimulatorThread
from edgeclave.simulator.identities import IdentityName

BASE: dict[str, Any] = {
    "$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": {"worker": {"version": "1"}}}},
    "$edgeHub": {"properties.desired": {"schemaVersion": "1.2", "routes": {"up": "FROM /* INTO $upstream"}}},
    "worker": {"properties.desired": {"level": 1, "apps": {"first": {"v": 1}}}},
}
LAYER: dict[str, Any] = {
    "$edgeAgent": {"properties.desired.modules.extra": {"version": "2"}},
    "$edgeHub": {"properties.desired.routes.extra": "FROM /messages/modules/extra/* INTO $upstream"},
    "worker": {"properties.desired.apps.second": {"v": 2}},
}
Create = Callable[..., Any]


@pytest.fixture
def create(configurations: IoTHubConfigurationManager) -> Create:
    async def made(name: str, content: Any, condition: str, priority: int = 0, **more: Any) -> Any:
        kinds = ("device_content", "module_content")
        content = content if any(kind in content for kind in kinds) else {"modules_content": content}
        configuration = Configuration(
            id=name,
            content=ConfigurationContent(**content),
            target_condition=condition,
            priority=priority,
            **more,
        )
        return await asyncio.to_thread(configurations.create_configuration, configuration)

    return made


async def desired(registry: IoTHubRegistryManager, module: str, device: str = "edge01") -> dict[str, Any]:
    twin = await asyncio.to_thread(registry.get_module_twin, device, module)
    return {name: value for name, value in twin.properties.desired.items() if not name.startswith("$")}


async def tag(registry: IoTHubRegistryManager, **tags: Any) -> None:
    await asyncio.to_thread(registry.update_twin, "edge01", Twin(tags=tags), "*")


async def test_layers_come_and_go_with_tags(registry: IoTHubRegistryManager, create: Create) -> None:
    await create("base", BASE, "capabilities.iotEdge = true", 1)
    await create("layer", LAYER, "tags.role = 'press' AND tags.floor >= 2", 5)
    assert await desired(registry, "worker") == {"level": 1, "apps": {"first": {"v": 1}}}
    await tag(registry, role="press", floor=2)
    assert await desired(registry, "worker") == {"level": 1, "apps": {"first": {"v": 1}, "second": {"v": 2}}}
    assert set((await desired(registry, "$edgeAgent"))["modules"]) == {"worker", "extra"}
    assert set((await desired(registry, "$edgeHub"))["routes"]) == {"up", "extra"}
    await tag(registry, floor=1)
    assert await desired(registry, "worker") == {"level": 1, "apps": {"first": {"v": 1}}}
    assert set((await desired(registry, "$edgeAgent"))["modules"]) == {"worker"}


async def test_the_higher_priority_wins_and_the_next_takes_over_when_it_goes(
    registry: IoTHubRegistryManager, create: Create, configurations: IoTHubConfigurationManager
) -> None:
    await create("low", {**BASE, "worker": {"properties.desired": {"from": "low"}}}, "*", 1)
    await create("high", {**BASE, "worker": {"properties.desired": {"from": "high"}}}, "*", 2)
    assert await desired(registry, "worker") == {"from": "high"}
    twin = await asyncio.to_thread(registry.get_twin, "edge01")
    assert twin.additional_properties["configurations"] == {
        "high": {"status": "Applied"},
        "low": {"status": "Targeted"},
    }
    await asyncio.to_thread(configurations.delete_configuration, "high")
    assert await desired(registry, "worker") == {"from": "low"}
    await asyncio.to_thread(configurations.delete_configuration, "low")
    assert await desired(registry, "worker") == {"from": "low"}  # nothing targets it: it keeps what it has


async def test_metrics_count_targeted_applied_and_reported(
    simulator: SimulatorThread,
    registry: IoTHubRegistryManager,
    create: Create,
    configurations: IoTHubConfigurationManager,
) -> None:
    queries = {"warm": "SELECT deviceId FROM devices.modules WHERE properties.reported.t > 30"}
    await create("base", BASE, "tags.site = 'n'", 1, metrics=ConfigurationMetrics(queries=queries))
    await asyncio.to_thread(registry.create_device_with_sas, "leaf", "", "", "enabled")
    await tag(registry, site="n")
    agent = IdentityName("edge01", "$edgeAgent")

    async def results() -> tuple[dict[str, int], dict[str, int]]:
        found = await asyncio.to_thread(configurations.get_configuration, "base")
        return found.system_metrics.results, found.metrics.results

    system, custom = await results()
    assert system == {"targetedCount": 1, "appliedCount": 1, "reportedSuccessfulCount": 0, "reportedFailedCount": 0}
    assert custom == {"warm": 0}
    for code, expected in ((200, (1, 0)), (400, (0, 1))):
        version = simulator.call(lambda running: running.hub.twins.get(agent).desired_version)
        status = {"lastDesiredVersion": version, "lastDesiredStatus": {"code": code}}
        simulator.call(lambda running, patch=status: running.hub.twins.patch_reported(agent, patch))
        system, _custom = await results()
        assert (system["reportedSuccessfulCount"], system["reportedFailedCount"]) == expected
    name = IdentityName("edge01", "worker")
    simulator.call(lambda running: running.hub.twins.patch_reported(name, {"t": 31}))
    assert (await results())[1] == {"warm": 1}


async def test_configurations_of_devices_and_modules(registry: IoTHubRegistryManager, create: Create) -> None:
    await asyncio.to_thread(registry.create_device_with_sas, "leaf", "", "", "enabled")
    await asyncio.to_thread(registry.create_module_with_sas, "leaf", "reader", "", "", "")
    await create("d1", {"device_content": {"properties.desired.net.rate": 1}}, "deviceId = 'leaf'", 1)
    await create("d2", {"device_content": {"properties.desired.net.rate": 2}}, "deviceId IN ['leaf']", 2)
    await create(
        "m", {"module_content": {"properties.desired.on": True}}, "FROM devices.modules WHERE moduleId = 'reader'", 1
    )
    leaf = await asyncio.to_thread(registry.get_twin, "leaf")
    assert leaf.properties.desired["net"] == {"rate": 2}
    assert await desired(registry, "reader", "leaf") == {"on": True}


async def test_etags_lists_and_what_cannot_change(create: Create, configurations: IoTHubConfigurationManager) -> None:
    first = await create("base", BASE, "tags.a = 1", 1)
    with pytest.raises(HttpOperationError) as refused:
        await create("base", BASE, "tags.a = 1", 1)
    assert refused.value.response.status_code == 409
    first.priority = 7
    second = await asyncio.to_thread(configurations.update_configuration, first, first.etag)
    assert (second.priority, second.target_condition) == (7, "tags.a = 1")
    with pytest.raises(HttpOperationError) as refused:
        await asyncio.to_thread(configurations.update_configuration, first, first.etag)
    assert refused.value.response.status_code == 412
    second.content = ConfigurationContent(modules_content=LAYER)
    with pytest.raises(HttpOperationError) as refused:
        await asyncio.to_thread(configurations.update_configuration, second, second.etag)
    assert "cannot be changed" in refused.value.response.text
    await create("another", LAYER, "", 9)
    assert [each.id for each in await asyncio.to_thread(configurations.get_configurations)] == ["another", "base"]
    assert len(await asyncio.to_thread(configurations.get_configurations, 1)) == 1
    await asyncio.to_thread(configurations.delete_configuration, "base")
    with pytest.raises(HttpOperationError) as gone:
        await asyncio.to_thread(configurations.get_configuration, "base")
    assert gone.value.response.status_code == 404


@pytest.mark.parametrize(
    ("content", "condition", "reason"),
    [
        pytest.param(BASE, "tags.a =", "targetCondition", id="condition cut short"),
        pytest.param({"worker": {"properties.reported": {}}}, "*", "properties.reported", id="reported properties"),
        pytest.param({"device_content": {"desired.a": 1}}, "*", "desired.a", id="a path of nothing"),
        pytest.param({"worker": {"properties.desired": 1}}, "*", "must be an object", id="desired is a number"),
        pytest.param({"worker": {"properties.desired..a": 1}}, "*", "path below", id="an empty name"),
    ],
)
async def test_bad_configurations_are_refused(create: Create, content: Any, condition: str, reason: str) -> None:
    with pytest.raises(HttpOperationError) as refused:
        await create("bad", content, condition)
    assert refused.value.response.status_code == 400
    assert reason in refused.value.response.text


async def test_one_that_cannot_be_applied_leaves_the_device_alone(
    registry: IoTHubRegistryManager, create: Create
) -> None:
    """A bad route is seen only beside the device's other properties; the tags that target it are kept."""
    await create("bad", {**BASE, "$edgeHub": {"properties.desired": {"routes": {"x": "FROM /"}}}}, "tags.bad = true")
    await tag(registry, bad=True)
    assert (await asyncio.to_thread(registry.get_twin, "edge01")).tags == {"bad": True}
    assert list((await desired(registry, "$edgeHub"))["routes"]) == ["everything"]


async def test_queries_can_be_tried(configurations: IoTHubConfigurationManager) -> None:
    wanted = ConfigurationQueriesTestInput(
        target_condition="tags.a = ", custom_metric_queries={"good": "SELECT * FROM devices", "bad": "SELECT"}
    )
    answer = await asyncio.to_thread(configurations.test_configuration_queries, wanted)
    assert "condition" in answer.target_condition_error
    assert list(answer.custom_metric_query_errors) == ["bad"]


@pytest.mark.parametrize("target", ["*", " * ", "FROM devices.modules WHERE moduleId = 'x'", "tags.a = 1"])
async def test_a_target_that_can_be_stored_passes_the_trial(
    configurations: IoTHubConfigurationManager, target: str
) -> None:
    wanted = ConfigurationQueriesTestInput(target_condition=target, custom_metric_queries={})
    answer = await asyncio.to_thread(configurations.test_configuration_queries, wanted)
    assert not answer.target_condition_error


async def test_a_list_of_more_than_the_hub_gives_is_cut_short(
    configurations: IoTHubConfigurationManager, create: Create
) -> None:
    await create("base", BASE, "")
    assert [each.id for each in await asyncio.to_thread(configurations.get_configurations, 50)] == ["base"]


async def test_configurations_survive_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / "again"
    with SimulatorThread(state) as first:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", first.ca_file)
        manager = IoTHubConfigurationManager.from_connection_string(first.connection_string("service"))
        configuration = Configuration(
            id="base", content=ConfigurationContent(modules_content=BASE), target_condition="tags.late = 1", priority=1
        )
        await asyncio.to_thread(manager.create_configuration, configuration)
    with SimulatorThread(state) as second:
        registry = IoTHubRegistryManager.from_connection_string(second.connection_string("service"))
        await tag(registry, late=1)
        assert (await desired(registry, "worker"))["level"] == 1
