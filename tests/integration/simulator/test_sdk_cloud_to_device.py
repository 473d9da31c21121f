"""Cloud-to-device messages: azure-iot-hub sends over AMQP, azure-iot-device receives over MQTT, feedback comes back."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from azure.iot.device.aio import IoTHubDeviceClient
from azure.iot.hub import IoTHubRegistryManager  # type: ignore[import-untyped]

from edgeclave.simulator import SimulatorThread
from edgeclave.simulator.connection_strings import connection_string
from edgeclave.simulator.policies import policy_key

KEY = "ZGV2aWNlIGtleSBvZiB0aGlydHktdHdvIGJ5dGVz"


@pytest.fixture
def service(simulator: SimulatorThread, monkeypatch: pytest.MonkeyPatch) -> Callable[..., IoTHubRegistryManager]:
    """Clients of the service side; AMQP trusts SSL_CERT_FILE, REST trusts REQUESTS_CA_BUNDLE."""
    monkeypatch.setenv("SSL_CERT_FILE", simulator.ca_file)

    def make(policy: str = "iothubowner") -> IoTHubRegistryManager:
        text = simulator.call(lambda running: connection_string(running.settings, "service", policy))
        return IoTHubRegistryManager.from_connection_string(text)

    return make


@pytest.fixture
async def device(
    simulator: SimulatorThread, registry: IoTHubRegistryManager, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[..., Any]]:
    """Makes the device and connects its client, as often as asked."""
    settings = simulator.call(lambda running: running.settings)
    monkeypatch.setenv("mqtt_proxy", settings.proxy_url)
    await asyncio.to_thread(registry.create_device_with_sas, "leaf", KEY, KEY, "enabled")
    clients: list[Any] = []

    async def connected(on_message: Any) -> Any:
        client = IoTHubDeviceClient.create_from_symmetric_key(
            symmetric_key=KEY,
            hostname=settings.hub_host,
            device_id="leaf",
            server_verification_cert=Path(simulator.ca_file).read_text(),
        )
        clients.append(client)
        client.on_message_received = on_message
        await client.connect()  # type: ignore[no-untyped-call]
        return client

    yield connected
    await asyncio.gather(*(client.shutdown() for client in clients), return_exceptions=True)


def feedback(manager: IoTHubRegistryManager) -> tuple[str, list[dict[str, Any]]]:
    """(lock token, records), empty when there are none."""
    raw = manager.protocol.cloud_to_device_messages.receive_feedback_notification(raw=True).response
    return (raw.headers["ETag"].strip('"'), raw.json()) if raw.status_code == 200 else ("", [])


async def feedback_within(manager: IoTHubRegistryManager, seconds: float = 5) -> tuple[str, list[dict[str, Any]]]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        token, records = await asyncio.to_thread(feedback, manager)
        if records:
            return token, records
        await asyncio.sleep(0.1)
    return "", []


async def test_a_message_reaches_a_device_and_its_feedback_the_service(
    service: Callable[..., IoTHubRegistryManager], device: Callable[..., Any], arrivals: Any
) -> None:
    got = arrivals()
    await device(got.put)
    manager = service("service")
    properties = {"messageId": "m-1", "correlationId": "c-1", "contentType": "application/json", "iothub-ack": "full"}
    expires = int(time.time() + 600) * 1000
    sent = {**properties, "contentEncoding": "utf-8", "colour": "blå & grün", "expiryTimeUtc": expires}
    await asyncio.to_thread(manager.send_c2d_message, "leaf", json.dumps({"on": True}), sent)
    message = await got.next()
    assert json.loads(message.data) == {"on": True}
    assert (message.message_id, message.correlation_id) == ("m-1", "c-1")
    assert (message.content_type, message.content_encoding) == ("application/json", "utf-8")
    assert message.custom_properties["colour"] == "blå & grün"
    assert message.ack == "full"
    assert datetime.fromisoformat(message.expiry_time_utc).timestamp() * 1000 == expires
    token, (record,) = await feedback_within(manager)
    assert (record["originalMessageId"], record["statusCode"], record["deviceId"]) == ("m-1", "Success", "leaf")
    assert await asyncio.to_thread(feedback, manager) == ("", [])  # locked
    await asyncio.to_thread(manager.protocol.cloud_to_device_messages.complete_feedback_notification, token)
    assert await asyncio.to_thread(feedback, manager) == ("", [])


async def test_messages_wait_for_an_absent_device_and_arrive_once_in_order(
    simulator: SimulatorThread, service: Callable[..., IoTHubRegistryManager], device: Callable[..., Any], arrivals: Any
) -> None:
    manager = service()
    for number in range(20):
        await asyncio.to_thread(manager.send_c2d_message, "leaf", str(number))
    waiting = await asyncio.to_thread(manager.get_device, "leaf")
    assert waiting.cloud_to_device_message_count == 20
    got = arrivals()
    await device(got.put)
    assert [(await got.next()).data for _ in range(20)] == [str(number).encode() for number in range(20)]
    async with asyncio.timeout(30):  # until the device's last acknowledgement is there
        while (await asyncio.to_thread(manager.get_device, "leaf")).cloud_to_device_message_count:
            await asyncio.sleep(0.05)


async def test_abandoned_feedback_comes_again(
    service: Callable[..., IoTHubRegistryManager], device: Callable[..., Any], arrivals: Any
) -> None:
    manager, got = service(), arrivals()
    await device(got.put)
    await asyncio.to_thread(manager.send_c2d_message, "leaf", "x", {"messageId": "m", "iothub-ack": "positive"})
    token, first = await feedback_within(manager)
    await asyncio.to_thread(manager.protocol.cloud_to_device_messages.abandon_feedback_notification, token)
    assert (await asyncio.to_thread(feedback, manager))[1] == first


async def test_expired_and_purged_messages_are_told_to_who_asked(
    simulator: SimulatorThread, service: Callable[..., IoTHubRegistryManager], device: Callable[..., Any]
) -> None:
    manager = service()
    soon = int(time.time() * 1000) + 1500
    asked = {"iothub-ack": "negative"}
    await asyncio.to_thread(
        manager.send_c2d_message, "leaf", "x", {**asked, "messageId": "late", "expiryTimeUtc": soon}
    )
    await asyncio.to_thread(manager.send_c2d_message, "leaf", "x", {"messageId": "silent", "expiryTimeUtc": soon})
    await asyncio.sleep(2)
    simulator.call(lambda running: running.iot_hub.commands.forget_expired())
    await asyncio.to_thread(manager.send_c2d_message, "leaf", "x", {**asked, "messageId": "purged"})
    result = await asyncio.to_thread(
        manager.protocol.cloud_to_device_messages.purge_cloud_to_device_message_queue, "leaf"
    )
    assert (result.device_id, result.total_messages_purged) == ("leaf", 1)
    _token, records = await feedback_within(manager)
    assert [(each["originalMessageId"], each["statusCode"]) for each in records] == [
        ("late", "Expired"),
        ("purged", "Purged"),
    ]


async def test_what_has_expired_when_it_is_sent_is_dead_lettered_at_once(
    service: Callable[..., IoTHubRegistryManager], device: Callable[..., Any], arrivals: Any
) -> None:
    manager, got = service(), arrivals()
    await device(got.put)
    past = {"messageId": "past", "iothub-ack": "full", "expiryTimeUtc": int(time.time() * 1000) - 1000}
    await asyncio.to_thread(manager.send_c2d_message, "leaf", "too late", past)
    await asyncio.to_thread(manager.send_c2d_message, "leaf", "in time")
    assert (await got.next()).data == b"in time"
    _token, (record,) = await feedback_within(manager)
    assert (record["originalMessageId"], record["statusCode"]) == ("past", "Expired")


@pytest.mark.parametrize(
    ("device_id", "body", "properties"),
    [
        pytest.param("nobody", "x", {}, id="unknown device"),
        pytest.param("leaf", "x" * 65_537, {}, id="over 64 KB"),
        pytest.param("leaf", "x", {"iothub-ack": "maybe"}, id="unknown kind of feedback"),
        pytest.param("leaf", {"on": True}, {}, id="neither text nor bytes"),
    ],
)
async def test_what_no_device_can_get_is_refused(
    simulator: SimulatorThread,
    service: Callable[..., IoTHubRegistryManager],
    device: Callable[..., Any],
    device_id: str,
    body: Any,
    properties: dict[str, Any],
) -> None:
    with pytest.raises(Exception, match="C2D message send failure"):
        await asyncio.to_thread(service().send_c2d_message, device_id, body, properties)
    await asyncio.to_thread(service().send_c2d_message, "leaf", "y" * 65_536)  # the largest still goes


async def test_fifty_messages_wait_and_the_next_is_refused(
    service: Callable[..., IoTHubRegistryManager], device: Callable[..., Any]
) -> None:
    manager = service()
    for number in range(50):
        await asyncio.to_thread(manager.send_c2d_message, "leaf", str(number))
    with pytest.raises(Exception, match="C2D message send failure"):
        await asyncio.to_thread(manager.send_c2d_message, "leaf", "one too many")


async def test_a_policy_without_the_right_may_not_send(
    simulator: SimulatorThread, service: Callable[..., IoTHubRegistryManager], device: Callable[..., Any]
) -> None:
    assert policy_key(KEY, "device") != policy_key(KEY, "service")
    with pytest.raises(Exception, match=r"(?i)auth|token"):
        await asyncio.to_thread(service("registryRead").send_c2d_message, "leaf", "x")


async def test_messages_and_feedback_survive_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / "again"
    with SimulatorThread(state) as first:
        monkeypatch.setenv("SSL_CERT_FILE", first.ca_file)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", first.ca_file)
        manager = IoTHubRegistryManager.from_connection_string(first.connection_string("service"))
        await asyncio.to_thread(manager.create_device_with_sas, "leaf", KEY, KEY, "enabled")
        await asyncio.to_thread(manager.send_c2d_message, "leaf", "x", {"messageId": "m", "iothub-ack": "full"})
        await asyncio.to_thread(manager.amqp_svc_client.disconnect_sync)
    with SimulatorThread(state) as second:
        manager = IoTHubRegistryManager.from_connection_string(second.connection_string("service"))
        assert (await asyncio.to_thread(manager.get_device, "leaf")).cloud_to_device_message_count == 1
        await asyncio.to_thread(manager.protocol.cloud_to_device_messages.purge_cloud_to_device_message_queue, "leaf")
    with SimulatorThread(state) as third:
        manager = IoTHubRegistryManager.from_connection_string(third.connection_string("service"))
        _token, records = await feedback_within(manager)
        assert [each["statusCode"] for each in records] == ["Purged"]
