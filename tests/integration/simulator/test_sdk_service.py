"""The registry, twins, methods and policies by the unmodified azure-iot-hub; a device by azure-iot-device."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from azure.iot.device import MethodResponse
from azure.iot.device.aio import IoTHubDeviceClient
from azure.iot.hub import IoTHubConfigurationManager, IoTHubRegistryManager  # type: ignore[import-untyped]
from azure.iot.hub.protocol.models import (  # type: ignore[import-untyped]
    AuthenticationMechanism,
    CloudToDeviceMethod,
    ConfigurationContent,
    ExportImportDevice,
    QuerySpecification,
    SymmetricKey,
    Twin,
    TwinProperties,
)
from msrest.exceptions import HttpOperationError

from edgeclave.simulator import SimulatorThread
from edgeclave.simulator.connection_strings import connection_string

KEY = "ZGV2aWNlIGtleSBvZiB0aGlydHktdHdvIGJ5dGVz"
PRINT = "A1" * 20
Call = Callable[..., Any]


async def refused(function: Call, *arguments: Any) -> int:
    """The status with which the hub refuses."""
    with pytest.raises(HttpOperationError) as error:
        await asyncio.to_thread(function, *arguments)
    return int(error.value.response.status_code)


@pytest.fixture
async def leaf(
    simulator: SimulatorThread, registry: IoTHubRegistryManager, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Any]:
    """A device without Edge, connected."""
    settings = simulator.call(lambda running: running.settings)
    monkeypatch.setenv("mqtt_proxy", settings.proxy_url)
    await asyncio.to_thread(registry.create_device_with_sas, "leaf", KEY, KEY, "enabled")
    client = IoTHubDeviceClient.create_from_symmetric_key(
        symmetric_key=KEY,
        hostname=settings.hub_host,
        device_id="leaf",
        server_verification_cert=Path(simulator.ca_file).read_text(),
    )
    await client.connect()  # type: ignore[no-untyped-call]
    yield client
    await client.shutdown()  # type: ignore[no-untyped-call]


async def test_devices_are_updated_by_etag(registry: IoTHubRegistryManager) -> None:
    made = await asyncio.to_thread(registry.create_device_with_sas, "d", KEY, KEY, "enabled")
    changed = await asyncio.to_thread(
        registry.update_device_with_sas, "d", made.etag, KEY, KEY, "disabled", False, "in repair"
    )
    assert (changed.status, changed.status_reason) == ("disabled", "in repair")
    stale = (registry.update_device_with_sas, "d", made.etag, KEY, KEY, "enabled")
    assert await refused(*stale) == 412
    assert await refused(registry.delete_device, "d", made.etag) == 412
    await asyncio.to_thread(registry.delete_device, "d", changed.etag)
    assert await refused(registry.get_device, "d") == 404


async def test_what_the_edge_device_needs_is_not_deleted(registry: IoTHubRegistryManager) -> None:
    assert await refused(registry.delete_module, "edge01", "$edgeAgent") == 400
    assert await refused(registry.delete_module, "edge01", "$edgeHub") == 400
    assert await refused(registry.delete_device, "edge01") == 400
    device = ExportImportDevice(id="edge01", import_mode="delete")
    assert not (await asyncio.to_thread(registry.bulk_create_or_update_devices, [device])).is_successful
    assert (await asyncio.to_thread(registry.get_module, "edge01", "$edgeHub")).module_id == "$edgeHub"


async def test_identities_with_certificates(registry: IoTHubRegistryManager) -> None:
    made = await asyncio.to_thread(registry.create_device_with_x509, "x", PRINT, PRINT, "enabled")
    assert made.authentication.type == "selfSigned"
    assert made.authentication.x509_thumbprint.primary_thumbprint == PRINT
    changed = await asyncio.to_thread(registry.update_device_with_x509, "x", made.etag, "B2" * 32, PRINT, "enabled")
    assert changed.authentication.x509_thumbprint.primary_thumbprint == "B2" * 32
    signed = await asyncio.to_thread(registry.create_device_with_certificate_authority, "ca", "enabled")
    assert signed.authentication.type == "certificateAuthority"
    module = await asyncio.to_thread(registry.create_module_with_x509, "x", "m", "", PRINT, PRINT)
    assert module.authentication.type == "selfSigned"
    assert await refused(registry.create_device_with_x509, "bad", "xyz", PRINT, "enabled") == 400


async def test_an_edge_device_has_its_agent_and_hub(registry: IoTHubRegistryManager) -> None:
    await asyncio.to_thread(registry.create_device_with_sas, "edge02", KEY, KEY, "enabled", True)
    modules = await asyncio.to_thread(registry.get_modules, "edge02")
    assert [module.module_id for module in modules] == ["$edgeAgent", "$edgeHub"]


async def test_a_device_becomes_an_edge_device_and_stays_one(registry: IoTHubRegistryManager) -> None:
    await asyncio.to_thread(registry.create_device_with_sas, "edge02", KEY, KEY, "enabled")
    for iot_edge in (True, False):
        changed = (registry.update_device_with_sas, "edge02", "*", KEY, KEY, "enabled", iot_edge)
        assert (await asyncio.to_thread(*changed)).capabilities.iot_edge
        modules = await asyncio.to_thread(registry.get_modules, "edge02")
        assert [module.module_id for module in modules] == ["$edgeAgent", "$edgeHub"]
    moved = (registry.update_module_with_sas, "edge02", "$edgeHub", "somebody", "*", KEY, KEY)
    assert (await asyncio.to_thread(*moved)).managed_by == "somebody"


async def test_many_devices_in_one_request(registry: IoTHubRegistryManager) -> None:
    keys = AuthenticationMechanism(type="sas", symmetric_key=SymmetricKey(primary_key=KEY, secondary_key=KEY))

    def entry(name: str, mode: str, **more: Any) -> ExportImportDevice:
        return ExportImportDevice(id=name, import_mode=mode, authentication=keys, status="enabled", **more)

    created = [entry(f"bulk-{number}", "create", tags={"n": number}) for number in range(3)]
    result = await asyncio.to_thread(registry.bulk_create_or_update_devices, created)
    assert result.is_successful
    assert (await asyncio.to_thread(registry.get_twin, "bulk-2")).tags == {"n": 2}
    mixed = [entry("bulk-0", "create"), entry("bulk-1", "delete"), entry("nobody", "update")]
    result = await asyncio.to_thread(registry.bulk_create_or_update_devices, mixed)
    assert not result.is_successful
    assert [(error.device_id, error.error_code) for error in result.errors] == [
        ("bulk-0", "DeviceAlreadyExists"),
        ("nobody", "DeviceNotFound"),
    ]
    left = await asyncio.to_thread(registry.get_devices)
    assert [device.device_id for device in left] == ["bulk-0", "bulk-2", "edge01"]
    assert len(await asyncio.to_thread(registry.get_devices, 2)) == 2


async def test_a_device_that_is_disabled_is_disconnected(
    simulator: SimulatorThread, registry: IoTHubRegistryManager, leaf: Any, arrivals: Any
) -> None:
    changes = arrivals()

    async def changed() -> None:
        await changes.put(leaf.connected)

    leaf.on_connection_state_change = changed
    await asyncio.to_thread(registry.update_device_with_sas, "leaf", "*", KEY, KEY, "disabled")
    assert await changes.next() is False
    assert (await asyncio.to_thread(registry.get_device, "leaf")).connection_state == "Disconnected"


async def test_only_an_edge_device_takes_a_deployment(
    configurations: IoTHubConfigurationManager, registry: IoTHubRegistryManager
) -> None:
    await asyncio.to_thread(registry.create_device_with_sas, "leaf", KEY, KEY, "enabled")
    content = ConfigurationContent(modules_content={"$edgeAgent": {}, "$edgeHub": {}})
    with pytest.raises(HttpOperationError) as error:
        await asyncio.to_thread(configurations.apply_configuration_on_edge_device, "leaf", content)
    assert "leaf is no IoT Edge device" in error.value.response.text


async def test_the_sample_of_twins(registry: IoTHubRegistryManager, leaf: Any, arrivals: Any) -> None:
    """As iothub_registry_manager_method and get_twin samples do it: patch, push, report, replace, stale etag."""
    patches = arrivals()
    leaf.on_twin_desired_properties_patch_received = patches.put
    await leaf.patch_twin_reported_properties({"battery": 90})
    twin = await asyncio.to_thread(registry.get_twin, "leaf")
    patch = Twin(tags={"owner": "lab"}, properties=TwinProperties(desired={"rate": 10}))
    patched = await asyncio.to_thread(registry.update_twin, "leaf", patch, twin.etag)
    assert await patches.next() == {"rate": 10, "$version": 2}
    assert patched.properties.reported["battery"] == 90
    assert await refused(registry.update_twin, "leaf", patch, twin.etag) == 412
    assert await refused(registry.replace_twin, "leaf", patch, twin.etag) == 412
    replacement = Twin(tags={"new": True}, properties=TwinProperties(desired={"speed": 1}))
    replaced = await asyncio.to_thread(registry.replace_twin, "leaf", replacement, patched.etag)
    assert replaced.tags == {"new": True}
    assert await patches.next() == {"rate": None, "speed": 1, "$version": 3}


def nested(depth: int) -> dict[str, Any]:
    return {"d": nested(depth - 1)} if depth else {}


@pytest.mark.parametrize(
    ("desired", "tags"),
    [
        pytest.param({f"k{number}": "x" * 4000 for number in range(9)}, None, id="desired over 32 KB"),
        pytest.param(None, {f"k{number}": "x" * 4000 for number in range(3)}, id="tags over 8 KB"),
        pytest.param(nested(11), None, id="deeper than 10"),
        pytest.param({"a.b": 1}, None, id="a dot in a name"),
        pytest.param({"n": 2**53}, None, id="an integer over 53 bits"),
    ],
)
async def test_twins_have_azures_limits(registry: IoTHubRegistryManager, desired: Any, tags: Any) -> None:
    twin = Twin(tags=tags, properties=TwinProperties(desired=desired))
    assert await refused(registry.update_twin, "edge01", twin, "*") == 400


async def test_a_method_of_a_device(registry: IoTHubRegistryManager, leaf: Any) -> None:
    def method(seconds: int = 10, name: str = "reboot") -> CloudToDeviceMethod:
        return CloudToDeviceMethod(method_name=name, payload={"in": 5}, response_timeout_in_seconds=seconds)

    assert await refused(registry.invoke_device_method, "leaf", method()) == 404  # takes no methods yet

    async def answer(request: Any) -> None:
        if request.name == "reboot":
            response = MethodResponse.create_from_method_request(request, 202, request.payload)
            await leaf.send_method_response(response)

    leaf.on_method_request_received = answer
    await leaf.get_twin()
    result = await asyncio.to_thread(registry.invoke_device_method, "leaf", method())
    assert (result.status, result.payload) == (202, {"in": 5})
    assert await refused(registry.invoke_device_method, "leaf", method(5, "silent")) == 504
    assert await refused(registry.invoke_device_method, "nobody", method()) == 404


async def test_queries_come_in_pages_and_in_columns(registry: IoTHubRegistryManager) -> None:
    for number in range(7):
        await asyncio.to_thread(registry.create_device_with_sas, f"page-{number}", KEY, KEY, "enabled")
    query = QuerySpecification(query="SELECT * FROM devices WHERE deviceId != 'edge01'")
    found: list[str] = []
    token = None
    for _ in range(3):
        page = await asyncio.to_thread(registry.query_iot_hub, query, token, 3)
        found += [twin.device_id for twin in page.items]
        token = page.continuation_token
    assert found == [f"page-{number}" for number in range(7)]
    assert token is None
    counting = QuerySpecification(query="SELECT status, COUNT() AS n FROM devices GROUP BY status")
    counted = await asyncio.to_thread(registry.query_iot_hub, counting, None, 10)
    assert (counted.type, counted.items[0].additional_properties["n"]) == ("Raw", 8)


READ = "read the registry"
WRITE = "create a device"
TWIN = "read a twin"
QUERY = "query"


@pytest.mark.parametrize(
    ("policy", "allowed"),
    [
        pytest.param("iothubowner", {READ, WRITE, TWIN, QUERY}, id="iothubowner"),
        pytest.param("service", {TWIN, QUERY}, id="service"),
        pytest.param("device", set(), id="device"),
        pytest.param("registryRead", {READ}, id="registryRead"),
        pytest.param("registryReadWrite", {READ, WRITE}, id="registryReadWrite"),
    ],
)
async def test_a_policy_gives_its_rights_and_no_others(
    simulator: SimulatorThread, policy: str, allowed: set[str]
) -> None:
    text = simulator.call(lambda running: connection_string(running.settings, "service", policy))
    manager = IoTHubRegistryManager.from_connection_string(text)
    calls: dict[str, tuple[Any, ...]] = {
        READ: (manager.get_device, "edge01"),
        WRITE: (manager.create_device_with_sas, "new", KEY, KEY, "enabled"),
        TWIN: (manager.get_twin, "edge01"),
        QUERY: (manager.query_iot_hub, QuerySpecification(query="SELECT * FROM devices")),
    }
    for name, call in calls.items():
        if name in allowed:
            await asyncio.to_thread(*call)
        else:
            assert await refused(*call) == 401, name
