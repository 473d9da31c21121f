"""The runner on a simulated device: real SDK, real twin, real enclave, the broker's own identity on the link."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import Any

import pytest

from edgeclave.edge.link import Acknowledge, GetEvidence, LinkError, List
from tests.fixtures.waiting import eventually

CALLER = "azureiot://hub/devices/edge01/modules/workload"
OTHER = "sha256:" + "0" * 64


async def test_from_twin_to_answer_to_acknowledgement(device: Any, entry: Any, invoke: Any, probe: Any) -> None:
    await device.deploy({"probe": entry()})
    reported = await device.running()
    assert reported["uniqueId"] == probe.unique_id
    assert reported["signerId"] == probe.signer_id
    assert (reported["productId"], reported["securityVersion"], reported["debug"]) == (7, 2, False)
    assert (reported["version"], reported["digest"], reported["restarts"]) == ("1.0.0", probe.digest, 0)
    assert len(reported["instanceId"]) == 64
    assert "reason" not in reported
    platform = (await device.reported())["platforms"]["emulator"]
    assert platform["available"] is True
    assert platform["anchor"]

    async with device.link() as link:
        reply = await invoke(link, "emit", {"hello": 1}, call_id="first")
        assert (reply.status, json.loads(reply.payload)) == (200, {"sequence": 1})
        (result,) = reply.results
        assert (result.output, result.sequence) == ("out", 1)

        again = await invoke(link, "emit", {"hello": 1}, call_id="first")
        assert (again.payload, again.results) == (reply.payload, reply.results)
        other = await invoke(link, "emit", {"hello": 1}, call_id="first", caller=f"{CALLER}2")
        assert other.results[0].sequence == 2

        acknowledge = Acknowledge(trusted_app="probe", call_ids=("first", "never-heard-of"), caller=CALLER)
        assert (await link.request(acknowledge, timeout_seconds=30)).count == 1
        assert (await link.request(acknowledge, timeout_seconds=30)).count == 0
        with pytest.raises(LinkError) as refused:
            await invoke(link, "emit", {"hello": 1}, call_id="first")
        assert refused.value.code == "call-acknowledged"

        listed = await link.request(List(), timeout_seconds=30)
        assert listed.trusted_apps["probe"].state == "running"
        assert "emit" in listed.trusted_apps["probe"].methods
        fresh = await link.request(GetEvidence(trusted_app="probe", nonce=b"8 bytes."), timeout_seconds=30)
        latest = await link.request(GetEvidence(trusted_app="probe"), timeout_seconds=30)
        assert fresh.evidence != latest.evidence
    kinds = [content_type for content_type, _, _ in device.upstream()]
    assert kinds == ["application/edgeclave-evidence+cbor", "application/edgeclave-open+cose"]
    assert device.upstream()[0][2] == latest.evidence
    assert [properties for _, properties, _ in device.upstream()] == [{"edgeclave-slot": "probe"}] * 2

    assert await device.kill_runner(signal.SIGTERM) == 0
    stopped = await device.wait_for(lambda reported: reported["state"] == "stopped", seconds=5)
    assert "instanceId" not in stopped


async def test_another_modules_identity_is_refused(device: Any, entry: Any) -> None:
    await device.deploy({"probe": entry()})
    await device.running()
    async with device.link("sample_analytics") as link:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(link.wait_until_up(), 2)
        assert "403" in link.reason


@pytest.mark.parametrize(
    ("changes", "code"),
    # A digest of its own where the package is to be fetched: by the probe's it would come from the cache.
    [
        pytest.param({"signer": "0" * 64}, "wrong-signer", id="signed by someone else"),
        pytest.param({"digest": OTHER}, "wrong-digest", id="another package than the twin names"),
        pytest.param({"package": "/no/such.ta", "digest": OTHER}, "package-unavailable", id="package missing"),
        pytest.param({"package": "http://host/a.ta", "digest": OTHER}, "insecure-package-url", id="plain http"),
        pytest.param({"platform": "sgx2"}, "unknown-platform", id="unknown platform"),
        pytest.param({"colour": "red"}, "bad-trusted-app", id="unknown field"),
        pytest.param({"signer": None}, "bad-trusted-app", id="field missing"),
        pytest.param({"recipients": {"out": "$UNSET"}}, "bad-trusted-app", id="variable of the template not set"),
    ],
)
async def test_bad_entry_has_one_reason_and_leaves_the_others_alone(
    device: Any, entry: Any, changes: dict[str, Any], code: str
) -> None:
    await device.deploy({"bad": entry(**changes), "probe": entry()})
    await device.running()
    bad = await device.wait_for(lambda reported: reported["state"] in ("failed", "backoff"), name="bad")
    assert bad["reason"]["code"] == code
    assert bad["reason"]["what"]
    assert bad["reason"]["advice"]


async def test_tampered_package_is_refused(device: Any, entry: Any, probe: Any, tmp_path: Any) -> None:
    data = bytearray(probe.path.read_bytes())
    data[len(data) // 2] ^= 1
    tampered = tmp_path / "tampered.ta"
    tampered.write_bytes(data)
    await device.deploy({"probe": entry(package=f"file://{tampered}")})
    failed = await device.wait_for(lambda reported: reported["state"] == "failed")
    assert failed["reason"]["code"] == "wrong-digest"


async def test_broken_twin_keeps_what_runs(device: Any, entry: Any) -> None:
    await device.deploy({"probe": entry()})
    instance = (await device.running())["instanceId"]
    await device.deploy({"probe": entry(colour="red")})
    kept = await device.wait_for(lambda reported: "reason" in reported)
    assert (kept["state"], kept["instanceId"], kept["reason"]["code"]) == ("running", instance, "bad-trusted-app")
    await device.deploy("not an object", colour="red")
    for _ in range(100):
        if (await device.reported()).get("reason", {}).get("code") == "bad-twin":
            break
        await asyncio.sleep(0.1)
    else:
        pytest.fail("the broken twin was not reported")
    assert (await device.running())["instanceId"] == instance


async def test_killed_enclave_is_restarted_and_the_stream_goes_on(device: Any, entry: Any, invoke: Any) -> None:
    await device.deploy({"probe": entry()})
    first = await device.running()
    async with device.link() as link:
        await invoke(link, "put", {"key": "colour", "value": "red"})
        await invoke(link, "emit", {"n": 1})
        under_way = asyncio.create_task(invoke(link, "loop", call_id="looping"))
        await asyncio.sleep(0.3)
        os.kill(device.enclave_process(), signal.SIGKILL)
        with pytest.raises(LinkError) as ended:
            await under_way
        assert ended.value.code == "enclave-ended"
        assert ended.value.retry_after
        second = await device.wait_for(lambda r: r["state"] == "running" and r["instanceId"] != first["instanceId"])
        assert (second["epoch"], second["restarts"]) == (first["epoch"] + 1, 1)
        assert json.loads((await invoke(link, "get", {"key": "colour"})).payload) == {"value": "red"}
        assert (await invoke(link, "emit", {"n": 2})).results[0].sequence == 1
    kinds = [content_type.rpartition("-")[2] for content_type, _, _ in device.upstream()]
    assert kinds == ["evidence+cbor", "open+cose"] * 2


async def test_runner_killed_between_commit_and_answer(device: Any, entry: Any, invoke: Any) -> None:
    await device.deploy({"probe": entry()})
    await device.running()
    async with device.link() as link:
        await asyncio.wait_for(link.wait_until_up(), 20)
        asking = asyncio.create_task(invoke(link, "emit", {"count": 3}, call_id="only-once"))
        await eventually(lambda: _stored(device, "only-once"))
        await device.kill_runner()
        await asyncio.gather(asking, return_exceptions=True)
        before = _stored(device, "only-once")
        await device.start_runner()
        await device.wait_for(lambda reported: reported["state"] == "running" and reported["epoch"] == 2)
        reply = await invoke(link, "emit", {"count": 3}, call_id="only-once")
        assert [result.sequence for result in reply.results] == [1, 2, 3]
        assert _stored(device, "only-once") == before
        assert (await invoke(link, "emit", {"n": 4})).results[0].sequence == 1


async def test_removed_application_keeps_its_state(device: Any, entry: Any, invoke: Any) -> None:
    await device.deploy({"probe": entry()})
    await device.running()
    async with device.link() as link:
        await invoke(link, "put", {"key": "colour", "value": "red"})
        await device.deploy({})
        await device.wait_for(lambda reported: reported["state"] == "stopped")
        with pytest.raises(LinkError) as gone:
            await invoke(link, "get", {"key": "colour"})
        assert gone.value.code == "unknown-trusted-app"
        await device.deploy({"probe": entry()})
        await device.running()
        assert json.loads((await invoke(link, "get", {"key": "colour"})).payload) == {"value": "red"}
    kinds = [content_type.rpartition("-")[2] for content_type, _, _ in device.upstream()]
    assert kinds == ["evidence+cbor", "open+cose", "close+cose", "evidence+cbor", "open+cose"]


def _stored(device: Any, call_id: str) -> bytes | None:
    database = device.database()
    try:
        row = database.execute("SELECT answer FROM calls WHERE call_id = ?", (call_id,)).fetchone()
    finally:
        database.close()
    return None if row is None else bytes(row[0])
