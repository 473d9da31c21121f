"""The hub connection with the unmodified module client against the simulator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.iot.hub import IoTHubRegistryManager  # type: ignore[import-untyped]
from azure.iot.hub.models import CloudToDeviceMethod, Twin, TwinProperties  # type: ignore[import-untyped]

from edgeclave.edge.certificates import CertificateKeeper
from edgeclave.edge.hub import HubConnection, HubOffline, InputMessage
from edgeclave.edge.outbox import OUTBOX_SCHEMA, Outbox
from edgeclave.edge.store import open_database, transaction
from edgeclave.edge.workload import WorkloadClient
from edgeclave.errors import ConfigurationError
from edgeclave.simulator import Simulator
from tests.fixtures.waiting import eventually

Enter = Callable[[Simulator, str], None]


@pytest.fixture
def become(monkeypatch: pytest.MonkeyPatch) -> Enter:
    """Puts a module's environment into this process, as the SDK wants it."""

    def enter(simulator: Simulator, module_id: str) -> None:
        for name, value in simulator.environment(module_id).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", simulator.ca_file)
        monkeypatch.setenv("no_proxy", simulator.settings.address)

    return enter


@asynccontextmanager
async def connected(hub: HubConnection) -> AsyncIterator[HubConnection]:
    try:
        await asyncio.wait_for(hub.connect(), 20)
        yield hub
    finally:
        await hub.close()


async def patch_desired(simulator: Simulator, module_id: str, desired: dict[str, Any]) -> None:
    def patch() -> None:
        manager = IoTHubRegistryManager.from_connection_string(simulator.connection_string("service"))
        twin = Twin(properties=TwinProperties(desired=desired))
        manager.update_module_twin(simulator.device_id, module_id, twin)

    await asyncio.to_thread(patch)


def bodies(simulator: Simulator) -> list[bytes]:
    log = simulator.message_log
    return [entry.body for partition in log.partitions for entry in log.read(partition, -1, 10_000)]


async def test_twin_method_report_and_message(tmp_path: Path, become: Enter) -> None:
    async with Simulator.running(tmp_path / "sim") as simulator:
        become(simulator, "workload")
        await patch_desired(simulator, "workload", {"a": 1, "b": {"c": 1, "d": 1}})
        hub, seen, loop = HubConnection(), [], asyncio.get_running_loop()
        hub.on_desired(seen.append)

        async def echo(payload: Any) -> tuple[int, Any]:
            assert asyncio.get_running_loop() is loop
            return 201, {"echo": payload}

        async def refuse(payload: Any) -> tuple[int, Any]:
            raise ConfigurationError("not-this", "it is refused", advice="ask for something else")

        hub.on_method("echo", echo)
        hub.on_method("refuse", refuse)
        async with connected(hub):
            await eventually(lambda: seen)
            assert seen == [{"a": 1, "b": {"c": 1, "d": 1}}]
            await patch_desired(simulator, "workload", {"b": {"c": None}, "e": 5})
            await eventually(lambda: len(seen) == 2)
            assert seen[1] == await hub.twin() == {"a": 1, "b": {"d": 1}, "e": 5}

            def invoke(name: str, payload: Any) -> tuple[int, Any]:
                manager = IoTHubRegistryManager.from_connection_string(simulator.connection_string("service"))
                method = CloudToDeviceMethod(method_name=name, payload=payload, response_timeout_in_seconds=10)
                answer = manager.invoke_device_module_method(simulator.device_id, "workload", method)
                return answer.status, answer.payload

            assert await asyncio.to_thread(invoke, "echo", [1, 2]) == (201, {"echo": [1, 2]})
            status, payload = await asyncio.to_thread(invoke, "refuse", {})
            assert (status, payload["error"]["code"]) == (400, "not-this")
            status, payload = await asyncio.to_thread(invoke, "unknown", {})
            assert (status, payload["error"]["code"]) == (404, "no-such-method")

            await hub.report({"state": {"n": 1}})
            await hub.send("out", b"\x00\xff", "application/x", {"edgeclave-slot": "a b/c"})
            (entry,) = [e for p in simulator.message_log.partitions for e in simulator.message_log.read(p, -1, 10)]
            assert (entry.body, entry.system["content-type"]) == (b"\x00\xff", "application/x")
            assert dict(entry.properties) == {"edgeclave-slot": "a b/c"}
        with pytest.raises(HubOffline):
            await hub.send("out", b"late", "application/x", {})


async def test_concurrent_sends_leave_in_order(tmp_path: Path, become: Enter) -> None:
    async with Simulator.running(tmp_path / "sim") as simulator:
        become(simulator, "workload")
        async with connected(HubConnection()) as hub:
            await asyncio.gather(*(hub.send("out", str(n).encode(), "text/plain", {}) for n in range(200)))
        assert bodies(simulator) == [str(n).encode() for n in range(200)]


async def test_inputs_arrive_in_order_on_the_modules_loop(tmp_path: Path, become: Enter) -> None:
    async with Simulator.running(tmp_path / "sim") as simulator:
        route = 'FROM /messages/modules/sensor/outputs/o INTO BrokeredEndpoint("/modules/workload/inputs/i")'
        become(simulator, "workload")
        await patch_desired(simulator, "$edgeHub", {"routes": {"loop": route}})
        hub, got = HubConnection(), []

        async def take(message: InputMessage) -> None:
            await asyncio.sleep(0)
            got.append((message.body, message.properties))

        hub.on_input("i", take)
        async with connected(hub):
            become(simulator, "sensor")
            async with connected(HubConnection()) as sensor:
                for number in range(20):
                    await sensor.send("o", str(number).encode(), "application/json", {"k": "v"})
            await eventually(lambda: len(got) == 20)
        assert [body for body, _ in got] == [str(number).encode() for number in range(20)]
        assert got[0][1]["k"] == "v"


async def test_hub_that_goes_away_and_comes_back(tmp_path: Path, become: Enter) -> None:
    database = open_database(tmp_path / "outbox.sqlite", [OUTBOX_SCHEMA])
    outbox = Outbox(database)
    hub, seen = HubConnection(), []
    hub.on_desired(seen.append)

    def put(first: int, last: int) -> None:
        with transaction(database):
            for number in range(first, last):
                outbox.put("out", str(number).encode(), "text/plain", {})

    async with Simulator.running(tmp_path / "sim") as simulator:
        become(simulator, "workload")
        await asyncio.wait_for(hub.connect(), 20)
        draining = asyncio.create_task(outbox.drain(hub.send))
        put(0, 50)
        await eventually(lambda: len(outbox) == 0)
    await eventually(lambda: not hub.connected)
    put(50, 100)
    await asyncio.sleep(1)
    with pytest.raises(HubOffline):
        await hub.report({"a": 1})
    async with Simulator.running(tmp_path / "sim") as simulator:
        await patch_desired(simulator, "workload", {"changed": "while away"})
        await eventually(lambda: len(outbox) == 0, seconds=40)
        await eventually(lambda: seen and seen[-1] == {"changed": "while away"}, seconds=20)
        await patch_desired(simulator, "workload", {"changed": "again"})
        await eventually(lambda: seen[-1] == {"changed": "again"})
        draining.cancel()
        await hub.close()
        assert list(dict.fromkeys(bodies(simulator))) == [str(number).encode() for number in range(100)]


async def test_connect_waits_for_the_hub(tmp_path: Path, become: Enter) -> None:
    async with Simulator.running(tmp_path / "sim") as simulator:
        become(simulator, "workload")
    hub = HubConnection()
    connecting = asyncio.create_task(hub.connect())
    await asyncio.sleep(1)
    assert not connecting.done()
    async with Simulator.running(tmp_path / "sim"):
        await asyncio.wait_for(connecting, 40)
        await hub.close()


async def test_certificates_are_renewed_in_the_living_contexts(tmp_path: Path) -> None:
    async with Simulator.running(tmp_path / "sim") as simulator:
        runner = CertificateKeeper(WorkloadClient.from_environment(simulator.environment("ta_runner")))
        broker = CertificateKeeper(WorkloadClient.from_environment(simulator.environment("enclave_broker")))
        server_context, client_context = await runner.server_context("ta_runner"), await broker.client_context()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(writer.get_extra_info("ssl_object").getpeercert(True))
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context)
        port = server.sockets[0].getsockname()[1]

        async def handshake() -> tuple[bytes, bytes]:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=client_context, server_hostname="ta_runner"
            )
            writer.write(b"\n")
            theirs = writer.get_extra_info("ssl_object").getpeercert(True)
            ours = await reader.read()
            writer.close()
            return theirs, ours

        first = await handshake()
        assert await runner.renew_due() == 0
        later = datetime.now(UTC) + timedelta(days=365)
        assert await runner.renew_due(later) == 1
        assert await broker.renew_due(later) == 1
        second = await handshake()
        assert first[0] != second[0]
        assert first[1] != second[1]
        before_they_were_made = datetime.now(UTC) - timedelta(days=365)  # by a clock that was set back since
        assert await runner.renew_due(before_they_were_made) == 1
        assert (await handshake())[0] != second[0]
        server.close()
