"""What the broker goes through without losing a call: renewals, restarts, a runner that is away, kills."""

from __future__ import annotations

import asyncio
import datetime
import signal
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from enclave_broker.audit import verify

from edgeclave.client import TrustedAppFailure
from edgeclave.edge.link import Call
from tests.fixtures.builds import probe_package
from tests.fixtures.edge_device import Device, Runner, serving
from tests.fixtures.waiting import eventually

OBSERVE = "/v1/trusted-apps/anomaly/methods/observe"
# The simulator backdates certificates by five minutes: two thirds of such a lifetime are over two seconds after issue.
RENEWED_EACH_TWO_SECONDS = datetime.timedelta(seconds=153)
PRELUDE = (
    "import datetime, edgeclave.edge.workload as workload; "
    "workload.CERTIFICATE_LIFETIME = datetime.timedelta(seconds=153)"
)


async def test_certificates_are_renewed_under_load_without_a_failed_request(
    device: Device, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeclave.edge.workload.CERTIFICATE_LIFETIME", RENEWED_EACH_TWO_SECONDS)
    broker = await device.start_broker(prelude=PRELUDE)
    serials: set[int] = set()
    done = asyncio.Event()
    answers: list[int] = []

    async def keep_alive() -> None:
        async with device.session("sample_analytics") as session:
            while not done.is_set():
                async with session.post(OBSERVE, data=b"1") as response:
                    answers.append(response.status)
                await asyncio.sleep(0.005)

    async def new_connections() -> None:
        while not done.is_set():
            async with device.session("sample_analytics") as session, session.post(OBSERVE, data=b"1") as response:
                answers.append(response.status)
            serials.add(await server_serial(device))

    async def renewing_client() -> None:
        async with device.client("sample_analytics") as client:
            while not done.is_set():
                answers.append(200 if (await client.invoke("anomaly", "observe", 1)).payload == 1 else 0)
                await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as tasks:
        for work in (keep_alive, keep_alive, new_connections, renewing_client):
            tasks.create_task(work())
        await eventually(lambda: len(broker.logged("certificate renewed")) >= 4, 30)
        await eventually(lambda: len(answers) > 100 and len(serials) >= 2, 30)
        done.set()
    assert set(answers) == {200}
    assert len(broker.logged("link up")) == 1


async def server_serial(device: Device) -> int:
    """Serial number of the certificate that the broker shows a new connection."""
    context = await device.keeper("sample_analytics").client_context()
    address = device.simulator.environment("enclave_broker")["EDGECLAVE_LISTEN"]
    _, writer = await asyncio.open_connection(address, 8443, ssl=context, server_hostname="enclave_broker")
    connection: ssl.SSLObject = writer.get_extra_info("ssl_object")
    der = connection.getpeercert(binary_form=True)
    writer.transport.abort()
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


async def test_a_runner_that_is_away_and_comes_back(device: Device) -> None:
    broker = await device.start_broker()
    first = Runner()
    async with device.session("sample_analytics") as session:
        async with session.post(OBSERVE, data=b"1") as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "1")
            assert (await response.json())["error"]["code"] == "link-down"
        async with serving(device, first), device.client("sample_analytics") as client:
            await eventually(lambda: broker.logged("link up"))
            asking = asyncio.create_task(client.invoke("anomaly", "observe", 1, call_id="c-1"))
            await eventually(lambda: first.seen)
            first.gate.set()
            assert (await asking).call_id == "c-1"
        async with device.client("sample_analytics") as client:
            asking = asyncio.create_task(client.invoke("anomaly", "observe", 2, call_id="c-2"))
            await asyncio.sleep(0.5)
            second = Runner()
            second.gate.set()
            async with serving(device, second):
                assert (await asking).payload == 2
    assert {request.call_id for request in second.seen if isinstance(request, Call)} == {"c-2"}


async def test_a_killed_broker_goes_on_and_callers_notice_nothing(device: Device, runner: Runner) -> None:
    broker = await device.start_broker()
    outcomes: list[Any] = []

    async def work() -> None:
        async with device.client("sample_analytics") as client:
            for number in range(60):
                outcomes.append(await client.invoke("anomaly", "observe", number, call_id=f"c-{number}"))

    working = asyncio.create_task(work())
    await eventually(lambda: len(outcomes) > 10)
    await broker.stop(signal.SIGKILL)
    path = broker.state / "audit" / "audit.jsonl"
    path.write_bytes(path.read_bytes() + b'{"sequence":')  # as a power cut would leave it
    restarted = await device.start("enclave_broker")
    await working
    assert [outcome.payload for outcome in outcomes] == list(range(60))
    lives = [line["event"] for line in restarted.audited() if line["event"] not in ("decision", "refused")]
    assert lives == ["started", "policy", "recovered", "started", "policy"]
    # Whoever calls before the policy is read again is denied by default, and repeats the call.
    refusals = {line["outcome"] for line in restarted.audited() if line["event"] == "refused"}
    assert refusals <= {"no-policy-yet"}
    verify(restarted.state / "audit")
    called = [request.call_id for request in runner.seen if isinstance(request, Call)]
    assert list(dict.fromkeys(called)) == [f"c-{number}" for number in range(60)]


async def test_it_stops_cleanly_with_a_call_in_progress(device: Device, runner: Runner) -> None:
    broker = await device.start_broker()
    runner.gate.clear()
    async with device.session("sample_analytics") as session:
        asking = asyncio.create_task(session.post(OBSERVE, data=b"1"))
        await eventually(lambda: runner.seen)
        started = asyncio.get_running_loop().time()
        stopping = asyncio.create_task(broker.stop())
        await asyncio.sleep(0.2)
        runner.gate.set()
        assert (await asking).status == 200
        assert await stopping == 0
        assert asyncio.get_running_loop().time() - started < 5
    assert broker.logged("module stopped")


@pytest.mark.slow
async def test_with_the_real_runner_and_a_trusted_application(device: Device, tmp_path: Path) -> None:
    probe = await asyncio.to_thread(probe_package, tmp_path)
    await device.set_desired(
        "ta_runner",
        {"trustedApps": {"probe": {
            "package": str(probe.path), "digest": probe.digest, "signer": probe.signer_id, "platform": "emulator",
        }}},
    )  # fmt: skip
    await device.start("ta_runner")
    statement = {
        "effect": "allow",
        "identities": ["{{iot:this_device_id}}/sample_analytics", "iothub"],
        "operations": ["invoke:probe/*", "acknowledge:probe", "list", "evidence:probe"],
    }
    await device.start_broker({"policy": {"statements": {"all": statement}}})
    async with device.client("sample_analytics") as client:
        payload = {"text": "ä", "numbers": [1, 2.5, None]}
        assert (await client.invoke("probe", "echo", payload, call_id="c-1", total_seconds=100)).payload == payload
        with pytest.raises(TrustedAppFailure) as caught:
            await client.invoke("probe", "fail", {"status": 418, "message": "short and stout"})
        assert (caught.value.status, caught.value.message) == (418, "short and stout")
        with pytest.raises(TrustedAppFailure) as caught:
            await client.invoke("probe", "missing", None)
        assert caught.value.status == 404
    status, body = await device.method("listTrustedApps", None)
    (listed,) = body["trustedApps"]
    assert (status, listed["state"], listed["uniqueId"]) == (200, "running", probe.unique_id)
    assert "echo" in listed["methods"]
    status, body = await device.method("invoke", {"trustedApp": "probe", "method": "echo", "payload": [1]})
    assert (status, body["payload"]) == (200, [1])
    status, body = await device.method("getEvidence", {"trustedApp": "probe", "nonce": "AAAAAAAAAAAAAAAAAAAAAA"})
    assert status == 200
    assert len(body["evidence"]) > 500
