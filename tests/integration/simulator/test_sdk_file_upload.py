"""File upload is not simulated, and azure-iot-device says so to its user."""

import asyncio
from pathlib import Path

import pytest
from azure.iot.device.aio import IoTHubDeviceClient
from azure.iot.device.exceptions import ClientError
from azure.iot.hub import IoTHubRegistryManager  # type: ignore[import-untyped]

from edgeclave.simulator import SimulatorThread

KEY = "ZGV2aWNlIGtleSBvZiB0aGlydHktdHdvIGJ5dGVz"


async def test_a_device_that_uploads_files_is_told_what_is_missing(
    simulator: SimulatorThread, registry: IoTHubRegistryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = simulator.call(lambda running: running.settings)
    await asyncio.to_thread(registry.create_device_with_sas, "leaf+1", KEY, KEY, "enabled")
    monkeypatch.setenv("mqtt_proxy", settings.proxy_url)
    monkeypatch.setenv("https_proxy", settings.proxy_url)
    client = IoTHubDeviceClient.create_from_symmetric_key(
        symmetric_key=KEY,
        hostname=settings.hub_host,
        device_id="leaf+1",
        server_verification_cert=Path(simulator.ca_file).read_text(),
    )
    for asking in (client.get_storage_info_for_blob("photo"), client.notify_blob_upload_status("1", True, 200, "ok")):
        with pytest.raises(ClientError) as refused:
            await asking
        assert "400 ArgumentError(Error: DefaultStorageEndpointNotConfigured" in str(refused.value.__cause__)
    await client.shutdown()  # type: ignore[no-untyped-call]
