"""$edgeHub's twin as people look at it, and routes from /twinChangeNotifications; clients are unmodified SDKs."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from azure.iot.device import Message
from azure.iot.hub import IoTHubRegistryManager  # type: ignore[import-untyped]
from azure.iot.hub.models import Twin, TwinProperties  # type: ignore[import-untyped]
from msrest.exceptions import HttpOperationError

from edgeclave.simulator import SimulatorThread
from edgeclave.simulator.identities import IdentityName

HUB = IdentityName("edge01", "$edgeHub")


def set_routes(simulator: SimulatorThread, **routes: str) -> None:
    desired = {"schemaVersion": "1.2", "routes": routes}
    simulator.call(lambda running: running.hub.twins.update(HUB, desired=desired, replace=True))


def upstream(simulator: SimulatorThread) -> list[Any]:
    log = simulator.call(lambda running: running.message_log)
    return simulator.call(lambda _: [entry for name in log.partitions for entry in log.read(name, -1, 100)])


async def reported(registry: IoTHubRegistryManager, ready: Any) -> dict[str, Any]:
    for _ in range(50):
        twin = await asyncio.to_thread(registry.get_module_twin, "edge01", "$edgeHub")
        if ready(twin.properties.reported):
            break
        await asyncio.sleep(0.1)
    report: dict[str, Any] = twin.properties.reported
    return report


async def test_clients_come_and_go_in_the_reported_properties(
    simulator: SimulatorThread, connect: Any, registry: IoTHubRegistryManager
) -> None:
    client = await connect(simulator.environment("a.module"))
    report = await reported(registry, lambda report: report["clients"])
    name = "edge01/a%2Emodule"
    assert set(report["clients"]) == {name}
    assert report["clients"][name]["status"] == "Connected"
    assert report["clients"][name]["lastConnectedTimeUtc"].startswith("20")
    await client.shutdown()
    report = await reported(registry, lambda report: report["clients"][name]["status"] == "Disconnected")
    assert set(report["clients"][name]) == {"status", "lastDisconnectedTimeUtc"}


async def test_the_version_of_the_desired_properties_it_works_with(
    simulator: SimulatorThread, registry: IoTHubRegistryManager
) -> None:
    twin = await asyncio.to_thread(registry.get_module_twin, "edge01", "$edgeHub")
    before = twin.properties.desired["$version"]
    assert twin.properties.reported["schemaVersion"] == "1.0"
    assert twin.properties.reported["lastDesiredVersion"] == before
    assert twin.properties.reported["lastDesiredStatus"] == {"code": 200, "description": ""}
    patch = Twin(properties=TwinProperties(desired={"routes": {"more": "FROM /messages/* INTO $upstream"}}))
    await asyncio.to_thread(registry.update_module_twin, "edge01", "$edgeHub", patch)
    report = await reported(registry, lambda report: report["lastDesiredVersion"] > before)
    assert report["lastDesiredVersion"] == before + 1
    patch = Twin(properties=TwinProperties(desired={"routes": {"bad": "FROM /* WHERE foo() INTO $upstream"}}))
    with pytest.raises(HttpOperationError) as refused:
        await asyncio.to_thread(registry.update_module_twin, "edge01", "$edgeHub", patch)
    answer = json.loads(refused.value.response.content)
    assert "there is no function foo" in answer["Message"]
    assert "routes.bad, column 15" in answer["Message"]
    assert (await reported(registry, lambda _: True))["lastDesiredVersion"] == before + 1


async def test_an_outage_holds_the_report_back_and_a_restart_forgets_old_clients(
    tmp_path: Path, connect: Any, monkeypatch: Any
) -> None:
    with SimulatorThread(tmp_path / "sim") as first:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", first.ca_file)
        registry = IoTHubRegistryManager.from_connection_string(first.connection_string("service"))
        first.call(lambda running: running.hub.upstream.set_online(False))
        client = await connect(first.environment("m"))
        seen = await reported(registry, lambda _: True)
        assert seen["clients"] == {}
        first.call(lambda running: running.hub.upstream.set_online(True))
        assert "edge01/m" in (await reported(registry, lambda report: report["clients"]))["clients"]
        await client.shutdown()
    with SimulatorThread(tmp_path / "sim") as second:
        registry = IoTHubRegistryManager.from_connection_string(second.connection_string("service"))
        assert (await reported(registry, lambda _: True))["clients"] == {}


async def test_reported_properties_come_to_who_has_a_route_from_them(
    simulator: SimulatorThread, connect: Any, arrivals: Any
) -> None:
    set_routes(
        simulator,
        changes="FROM /twinChangeNotifications WHERE $rpSenderModuleId = 'press' AND $connectionModuleId = '$edgeHub'"
        ' AND $messageType = $messageSchema INTO BrokeredEndpoint("/modules/watch/inputs/twins")',
        messages="FROM /messages/* INTO $upstream",
    )
    got = arrivals()
    watch = await connect(simulator.environment("watch"), on_message=got.put)
    await watch.patch_twin_reported_properties({"own": 1})
    press = await connect(simulator.environment("press"))
    await press.patch_twin_reported_properties({"speed": {"rpm": 60}, "gone": None})
    message = await got.next()
    assert message.input_name == "twins"
    assert json.loads(message.data) == {"speed": {"rpm": 60}, "gone": None}
    assert message.custom_properties == {"$.cdid": "edge01", "$.cmid": "press", "$.schema": "twinChangeNotification"}
    assert got.empty()
    assert upstream(simulator) == []  # /messages/* is not /*


async def test_everything_includes_twin_changes_and_they_are_told_from_messages(
    simulator: SimulatorThread, connect: Any
) -> None:
    set_routes(simulator, everything="FROM /* INTO $upstream")
    press = await connect(simulator.environment("press"))
    await press.patch_twin_reported_properties({"rpm": 60})
    await press.send_message_to_output(Message("hot"), "alerts")
    change, message = upstream(simulator)
    assert (change.body, message.body) == (b'{"rpm":60}', b"hot")
    assert change.system["iothub-message-schema"] == "twinChangeNotification"
    assert change.system["iothub-connection-module-id"] == "$edgeHub"
    assert message.system["iothub-connection-module-id"] == "press"
    assert "iothub-message-schema" not in message.system
