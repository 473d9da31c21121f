"""The unmodified azure-iot-device module client against the simulator."""

import asyncio
import json
from typing import Any

import pytest
from azure.iot.device import Message, MethodResponse, exceptions
from azure.iot.hub import IoTHubRegistryManager  # type: ignore[import-untyped]
from azure.iot.hub.protocol.models import CloudToDeviceMethod, Twin, TwinProperties  # type: ignore[import-untyped]

from edgeclave.simulator import Simulator, SimulatorThread
from edgeclave.simulator.amqp.log import LogEntry
from edgeclave.simulator.identities import IdentityName
from tests.fixtures.waiting import eventually


def message_of(body: object, **members: Any) -> Any:
    return Message(body, **members)  # type: ignore[no-untyped-call]


def upstream(simulator: SimulatorThread) -> list[LogEntry]:
    def read(running: Simulator) -> list[LogEntry]:
        log = running.message_log
        return [entry for partition in log.partitions for entry in log.read(partition, -1, 10_000)]

    return simulator.call(read)


def route(simulator: SimulatorThread, **routes: object) -> None:
    name = IdentityName(simulator.device_id, "$edgeHub")
    desired = {"schemaVersion": "1.2", "routes": routes}
    simulator.call(lambda running: running.hub.twins.update(name, desired=desired, replace=True))


async def test_telemetry_is_in_the_log_when_it_is_acknowledged(simulator: SimulatorThread, connect: Any) -> None:
    client = await connect(simulator.environment("sender"))
    message = message_of(b'{"v":1}', message_id="m-1", content_type="application/json", content_encoding="utf-8")
    message.correlation_id = "c-1"
    message.custom_properties["k e/y&"] = "a b/c&d=é+%"
    await client.send_message_to_output(message, "out")
    (entry,) = upstream(simulator)
    assert entry.body == b'{"v":1}'
    assert entry.properties == {"k e/y&": "a b/c&d=é+%"}
    assert {name: entry.system[name] for name in sorted(entry.system) if "auth" not in name and "time" not in name} == {
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "correlation-id": "c-1",
        "iothub-connection-device-id": "edge01",
        "iothub-connection-module-id": "sender",
        "iothub-message-source": "Telemetry",
        "message-id": "m-1",
    }


async def test_the_largest_message_goes_through(simulator: SimulatorThread, connect: Any) -> None:
    client = await connect(simulator.environment("sender"))
    await client.send_message_to_output(message_of(b"x" * 261_000), "out")
    assert len(upstream(simulator)[0].body) == 261_000


async def test_twins(simulator: SimulatorThread, connect: Any, arrivals: Any, registry: IoTHubRegistryManager) -> None:
    client = await connect(simulator.environment("worker"))
    patches = arrivals()
    client.on_twin_desired_properties_patch_received = patches.put
    assert await client.get_twin() == {"desired": {"$version": 1}, "reported": {"$version": 1}}
    await client.patch_twin_reported_properties({"state": "ok", "n": {"x": 1}})
    await client.patch_twin_reported_properties({"n": {"x": None, "y": 2}})
    twin = Twin(properties=TwinProperties(desired={"mode": "a", "limits": {"low": 1}}))
    await asyncio.to_thread(registry.update_module_twin, "edge01", "worker", twin, "*")
    assert await patches.next() == {"mode": "a", "limits": {"low": 1}, "$version": 2}
    twin = Twin(properties=TwinProperties(desired={"limits": {"high": 9}}))
    await asyncio.to_thread(registry.replace_module_twin, "edge01", "worker", twin)
    assert await patches.next() == {"mode": None, "limits": {"low": None, "high": 9}, "$version": 3}
    assert await client.get_twin() == {
        "desired": {"limits": {"high": 9}, "$version": 3},
        "reported": {"state": "ok", "n": {"y": 2}, "$version": 3},
    }


async def test_reported_properties_over_the_limit_are_refused_and_the_rest_goes_on(
    simulator: SimulatorThread, connect: Any
) -> None:
    client = await connect(simulator.environment("worker"))
    with pytest.raises(exceptions.ClientError) as refused:
        await client.patch_twin_reported_properties({f"k{n}": "x" * 4000 for n in range(9)})
    assert "400" in str(refused.value.__cause__)
    await client.patch_twin_reported_properties({"state": "ok"})
    assert (await client.get_twin())["reported"]["state"] == "ok"


async def test_methods_from_the_service_and_from_another_module(
    simulator: SimulatorThread, connect: Any, registry: IoTHubRegistryManager
) -> None:
    server = await connect(simulator.environment("server"))

    async def answer(request: Any) -> None:
        payload = {"name": request.name, "got": request.payload}
        await server.send_method_response(MethodResponse.create_from_method_request(request, 207, payload))

    server.on_method_request_received = answer
    caller = await connect(simulator.environment("caller"))
    await caller.get_twin()
    method = CloudToDeviceMethod(
        method_name="do it", payload=[1], response_timeout_in_seconds=10, connect_timeout_in_seconds=5
    )
    result = await asyncio.to_thread(registry.invoke_device_module_method, "edge01", "server", method)
    assert (result.status, result.payload) == (207, {"name": "do it", "got": [1]})
    parameters = {"methodName": "x", "payload": {"a": 1}, "responseTimeoutInSeconds": 5, "connectTimeoutInSeconds": 5}
    answered = await caller.invoke_method(parameters, "edge01", "server")
    assert answered == {"status": 207, "payload": {"name": "x", "got": {"a": 1}}}
    with pytest.raises(exceptions.ClientError) as refused:
        await caller.invoke_method({**parameters, "connectTimeoutInSeconds": 0}, "edge01", "nobody")
    assert "404" in str(refused.value.__cause__)


async def test_a_method_reaches_a_module_that_connects_a_little_later(
    simulator: SimulatorThread, connect: Any, registry: IoTHubRegistryManager
) -> None:
    environment = simulator.environment("late")
    method = CloudToDeviceMethod(
        method_name="m", payload=None, response_timeout_in_seconds=10, connect_timeout_in_seconds=10
    )
    waiting = asyncio.create_task(asyncio.to_thread(registry.invoke_device_module_method, "edge01", "late", method))
    await asyncio.sleep(0.3)
    server = await connect(environment)

    async def answer(request: Any) -> None:
        await server.send_method_response(MethodResponse.create_from_method_request(request, 200, "here"))

    server.on_method_request_received = answer
    assert (await waiting).payload == "here"


async def test_inputs_by_route_and_condition(simulator: SimulatorThread, connect: Any, arrivals: Any) -> None:
    route(
        simulator,
        hot='FROM /messages/modules/sensor/* WHERE $body.t > 20 INTO BrokeredEndpoint("/modules/sink/inputs/hot")',
        up="FROM /messages/modules/sink/* INTO $upstream",
    )
    sink = await connect(simulator.environment("sink"))
    got = arrivals()
    sink.on_message_received = got.put
    sensor = await connect(simulator.environment("sensor"))
    for value in (19, 21):
        message = message_of(json.dumps({"t": value}), content_type="application/json", content_encoding="utf-8")
        message.custom_properties["value"] = str(value)
        await sensor.send_message_to_output(message, "out")
    received = await got.next()
    assert (received.input_name, received.data) == ("hot", b'{"t": 21}')
    assert received.custom_properties == {"value": "21", "$.cdid": "edge01", "$.cmid": "sensor"}
    assert received.content_type == "application/json"
    assert upstream(simulator) == []
    assert got.empty()


async def test_inputs_wait_for_an_absent_module_and_arrive_in_order(
    simulator: SimulatorThread, connect: Any, arrivals: Any
) -> None:
    route(simulator, all='FROM /messages/modules/sensor/* INTO BrokeredEndpoint("/modules/sink/inputs/i")')
    sink = await connect(simulator.environment("sink"))
    sink.on_message_received = arrivals().put
    await sink.get_twin()
    await sink.shutdown()
    sensor = await connect(simulator.environment("sensor"))
    sent = [str(number).encode() for number in range(40)]  # more than are in flight at once
    for body in sent:
        await sensor.send_message_to_output(message_of(body), "out")
    got = arrivals()
    await connect(simulator.environment("sink"), on_message=got.put)
    assert [(await got.next()).data for _ in sent] == sent
    sink_name = IdentityName("edge01", "sink")
    await eventually(lambda: not simulator.call(lambda running: running.hub.inputs.next(sink_name, 10)))


async def test_wrong_credentials_are_refused(
    simulator: SimulatorThread, connect: Any, registry: IoTHubRegistryManager
) -> None:
    environment = simulator.environment("worker")
    with pytest.raises(exceptions.CredentialError):
        await connect({**environment, "IOTEDGE_IOTHUBHOSTNAME": "other.test"}, connection_retry=False)
    await asyncio.to_thread(registry.delete_module, "edge01", "worker")
    simulator.environment("other")
    stolen = {**environment, "IOTEDGE_WORKLOADURI": simulator.environment("other")["IOTEDGE_WORKLOADURI"]}
    with pytest.raises(ValueError, match="SasToken"):  # the other module's socket does not sign for this one
        await connect(stolen)


async def test_the_newest_client_of_a_module_wins(simulator: SimulatorThread, connect: Any) -> None:
    environment = simulator.environment("twice")
    first = await connect(environment, connection_retry=False, auto_connect=False)
    second = await connect(environment, connection_retry=False)
    await second.send_message_to_output(message_of("from the second"), "out")
    for _ in range(300):
        if not first.connected:
            break
        await asyncio.sleep(0.1)
    assert (first.connected, second.connected) == (False, True)


async def test_a_deleted_module_is_disconnected(
    simulator: SimulatorThread, connect: Any, registry: IoTHubRegistryManager
) -> None:
    client = await connect(simulator.environment("gone"), connection_retry=False, auto_connect=False)
    await asyncio.to_thread(registry.delete_module, "edge01", "gone")
    for _ in range(300):
        if not client.connected:
            break
        await asyncio.sleep(0.1)
    assert not client.connected


async def test_mqtt_over_websocket(simulator: SimulatorThread, connect: Any, arrivals: Any) -> None:
    route(
        simulator,
        up="FROM /messages/modules/web/* INTO $upstream",
        back='FROM /messages/modules/web/* INTO BrokeredEndpoint("/modules/web/inputs/i")',
    )
    got = arrivals()
    client = await connect(simulator.environment("web"), on_message=got.put, websockets=True)
    assert (await client.get_twin())["desired"] == {"$version": 1}
    for body in (b"small", b"x" * 200_000):
        await client.send_message_to_output(message_of(body), "out")
        assert (await got.next()).data == body
    assert [len(entry.body) for entry in upstream(simulator)] == [5, 200_000]


async def test_an_outage_reaches_neither_methods_between_modules_nor_twin_reads(
    simulator: SimulatorThread, connect: Any, registry: IoTHubRegistryManager
) -> None:
    server = await connect(simulator.environment("server"))

    async def answer(request: Any) -> None:
        await server.send_method_response(MethodResponse.create_from_method_request(request, 200, "here"))

    server.on_method_request_received = answer
    caller = await connect(simulator.environment("caller"))
    simulator.call(lambda running: running.hub.upstream.set_online(False))
    parameters = {"methodName": "x", "payload": None, "responseTimeoutInSeconds": 5, "connectTimeoutInSeconds": 5}
    assert (await caller.invoke_method(parameters, "edge01", "server"))["payload"] == "here"
    assert (await caller.get_twin())["reported"] == {"$version": 1}
    with pytest.raises(Exception, match="Not Found"):
        await asyncio.to_thread(
            registry.invoke_device_module_method, "edge01", "server", CloudToDeviceMethod(method_name="x", payload=None)
        )
    module = await asyncio.to_thread(registry.get_module, "edge01", "server")
    assert module.connection_state == "Disconnected"
