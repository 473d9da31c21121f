"""The broker as a module of the simulated device: identities, policy, certificates and hub are the real ones."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from typing import Any

import aiohttp
import pytest
from enclave_broker.audit import verify

from edgeclave.client import BrokerUnavailable, CallRefused
from edgeclave.edge.link import Acknowledge, Call
from edgeclave.simulator.pki import Issued, Pki
from tests.fixtures.edge_device import Device, Runner, serving
from tests.fixtures.waiting import eventually

OBSERVE = "/v1/trusted-apps/anomaly/methods/observe"


async def test_a_workload_calls_and_acknowledges(device: Device, runner: Runner) -> None:
    await device.start_broker()
    async with device.client("sample_analytics") as client:
        outcome = await client.invoke("anomaly", "observe", {"readings": [1.5]}, call_id="batch-1")
        assert (outcome.call_id, outcome.payload) == ("batch-1", {"readings": [1.5]})
        assert [(r.output, r.sequence, r.sealed) for r in outcome.results] == [("anomalies", 1, b"\x00\xff")]
        assert await client.acknowledge("anomaly", ["batch-1"]) == 1
    call, acknowledge = runner.seen
    assert isinstance(call, Call)
    assert isinstance(acknowledge, Acknowledge)
    assert call.caller == acknowledge.caller == str(device.identity("sample_analytics"))


async def test_a_caller_without_permission(device: Device, runner: Runner) -> None:
    broker = await device.start_broker()
    async with device.client("curious") as client:
        with pytest.raises(CallRefused) as caught:
            await client.invoke("anomaly", "observe", {}, call_id="c-1")
    assert (caught.value.status, caught.value.code) == (403, "denied")
    assert runner.seen == []
    last = broker.audited()[-1]
    assert (last["identity"], last["operation"], last["callId"], last["outcome"]) == (
        str(device.identity("curious")), "invoke:anomaly/observe", "c-1", "deny",
    )  # fmt: skip
    verify(broker.state / "audit")


async def test_the_twin_decides_and_a_wrong_twin_changes_nothing(device: Device, runner: Runner) -> None:
    broker = await device.start_broker({})
    async with device.client("sample_analytics") as client:
        with pytest.raises(CallRefused):
            await client.invoke("anomaly", "observe", {})
        await device.set_desired("enclave_broker", {"policy": {"statements": {"x": {"effect": "permit"}}}})
        await eventually(lambda: broker.logged("twin refused"))
        reported = (await device.reported("enclave_broker"))["policy"]
        assert reported["problem"]["code"] == "malformed-twin"
        assert "effect" in reported["problem"]["what"]
        with pytest.raises(CallRefused):
            await client.invoke("anomaly", "observe", {})
        statements = {"x": None, "sample": statement("sample_analytics", "invoke:anomaly/*")}
        await device.set_desired("enclave_broker", {"policy": {"statements": statements}})
        await eventually(lambda: len(broker.logged("policy in force")) == 2)
        assert (await client.invoke("anomaly", "observe", 7)).payload == 7
    reported = await device.reported("enclave_broker")
    assert reported["policy"] == {"statements": 1}
    assert reported["audit"]["sequence"] >= 4


def statement(module: str, *operations: str) -> dict[str, Any]:
    return {"effect": "allow", "identities": [f"{{{{iot:this_device_id}}}}/{module}"], "operations": list(operations)}


async def test_direct_methods(device: Device, runner: Runner) -> None:
    await device.start_broker()
    status, body = await device.method("listTrustedApps", None)
    assert (status, [app["name"] for app in body["trustedApps"]]) == (200, ["anomaly"])
    status, body = await device.method("invoke", {"trustedApp": "anomaly", "method": "status", "payload": [1]})
    assert (status, body["status"], body["payload"], body["results"]) == (200, 200, [1], [])
    assert (runner.seen[-1].caller, runner.seen[-1].deliver) == ("iothub", "upstream")
    status, body = await device.method("invoke", {"trustedApp": "anomaly", "method": "observe"})
    assert (status, body["error"]["code"]) == (403, "denied")
    status, body = await device.method("getEvidence", {"trustedApp": "anomaly", "nonce": "AAAAAAAAAAAAAAAA"})
    assert (status, body["mediaType"]) == (200, "application/edgeclave-evidence+cbor")
    status, body = await device.method("getEvidence", {"trustedApp": "anomaly", "nonce": "AAA"})
    assert (status, body["error"]["code"]) == (400, "malformed-nonce")
    status, body = await device.method("shutdown", {})
    assert (status, body["error"]["code"]) == (404, "no-such-method")


@pytest.mark.parametrize("kind", ["another authority", "expired", "a server certificate for any name it likes"])
async def test_wrong_client_certificates(device: Device, runner: Runner, kind: str) -> None:
    broker = await device.start_broker()
    context = await client_context(device, kind)
    async with aiohttp.ClientSession(trust_env=True) as session:
        with pytest.raises(aiohttp.ClientError):
            await session.post("https://enclave_broker:8443" + OBSERVE, data=b"1", ssl=context)
    assert runner.seen == []
    assert {line["event"] for line in broker.audited()} == {"started", "policy"}
    async with device.session("sample_analytics") as good, good.post(OBSERVE, data=b"1") as response:
        assert response.status == 200


async def client_context(device: Device, kind: str) -> ssl.SSLContext:
    """A client that has a certificate of this kind; it names sample_analytics, which may."""
    name = str(device.identity("sample_analytics"))
    day = datetime.timedelta(days=1)
    issued: Issued
    match kind:
        case "another authority":
            issued = Pki(device.folder / "other").identity_certificate("sample_analytics", name, day)
        case "expired":
            issued = device.simulator.state.pki.identity_certificate(
                "sample_analytics", name, -datetime.timedelta(minutes=1)
            )
        case _:
            issued = device.simulator.state.pki.server_certificate("sample_analytics", ["sample_analytics"], day)
    path = device.folder / "client.pem"
    path.write_text(issued.private_key + issued.chain)
    context = ssl.create_default_context(cafile=device.simulator.ca_file)
    context.load_cert_chain(path)
    return context


async def test_an_impostor_of_the_broker_gets_no_call(device: Device) -> None:
    """A hostile module asks the workload API for a certificate of the name enclave_broker, and gets one."""
    context = await device.keeper("hostile").server_context("enclave_broker")
    context.verify_mode = ssl.CERT_NONE
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1000))
        writer.close()

    address = device.simulator.environment("enclave_broker")["EDGECLAVE_LISTEN"]
    server = await asyncio.start_server(listen, address, 8443, ssl=context)
    async with device.client("sample_analytics") as client:
        with pytest.raises(BrokerUnavailable, match="also names hostile: another module asked for it"):
            await client.invoke("anomaly", "observe", {"secret": 1}, total_seconds=1)
    server.close()
    assert not any(heard)


async def test_an_impostor_of_the_runner_gets_no_call(device: Device) -> None:
    broker = await device.start_broker()
    impostor = Runner()
    impostor.gate.set()
    async with serving(device, impostor, module="hostile"), device.session("sample_analytics") as session:
        await eventually(lambda: any("also names hostile" in line["reason"] for line in broker.logged("link down")))
        async with session.post(OBSERVE, data=b"1") as response:
            assert response.status == 503
            assert "also names hostile" in (await response.json())["error"]["what"]
    assert impostor.seen == []


async def test_health_and_metrics_say_what_is_wrong(device: Device) -> None:
    await device.start_broker()
    address = device.simulator.environment("enclave_broker")["EDGECLAVE_LISTEN"]
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://{address}:9600/health") as response:
            assert response.status == 503
            checks = (await response.json())["checks"]
            assert checks["policy"] == "ok"
            assert checks["ta_runner"] != "ok"
        runner = Runner()
        async with serving(device, runner):
            async with asyncio.timeout(10):
                while True:
                    async with session.get(f"http://{address}:9600/health") as response:
                        if response.status == 200:
                            break
                    await asyncio.sleep(0.05)
            async with session.get(f"http://{address}:9600/metrics") as response:
                assert "edgeclave_broker_runner_link_up 1.0" in await response.text()
