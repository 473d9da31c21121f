"""The broker over real TLS and HTTP: who gets in, what is refused, what comes back."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from enclave_broker.audit import verify
from enclave_broker.openapi import document
from enclave_broker.server import MAX_BODY_BYTES
from yarl import URL

from edgeclave.edge.link import Acknowledge, Call, GetEvidence
from tests.fixtures.certificates import SERVER, Authority, Leaf, identity
from tests.fixtures.waiting import eventually

APPS = "/v1/trusted-apps"
ANOMALY = f"{APPS}/anomaly"
OBSERVE = f"{ANOMALY}/methods/observe"
SAMPLE = identity("sample_analytics")


async def ask(session: aiohttp.ClientSession, method: str, path: str, **more: Any) -> tuple[int, Any, Any]:
    async with session.request(method, path, **more) as response:
        return response.status, await response.json(), response.headers


async def test_a_call_and_its_sealed_results(broker: Any) -> None:
    async with broker.session() as session:
        headers = {"Edgeclave-Call-Id": "batch-1", "Edgeclave-Deadline-Ms": "4000"}
        status, body, _ = await ask(session, "POST", OBSERVE, data=b' {"a": [1, 2.50]} ', headers=headers)
    assert (status, body) == (
        200,
        {
            "callId": "batch-1",
            "status": 200,
            "payload": {"a": [1, 2.5]},
            "results": [{"output": "anomalies", "sequence": 3, "sealed": "AP8="}],
        },
    )
    (call,) = broker.runner.seen
    assert isinstance(call, Call)
    assert (call.caller, call.call_id, call.deliver) == (SAMPLE, "batch-1", "caller")
    assert call.payload == ' {"a": [1, 2.50]} '
    assert 3000 < call.deadline_ms <= 4000


async def test_a_call_without_id_gets_one(broker: Any) -> None:
    async with broker.session() as session:
        first, second = [(await ask(session, "POST", OBSERVE, data=b"null"))[1] for _ in range(2)]
    assert len(first["callId"]) == 32
    assert first["callId"] != second["callId"]


async def test_a_failure_of_the_trusted_application_is_an_answer(broker: Any) -> None:
    async with broker.session() as session:
        status, body, _ = await ask(
            session, "POST", "/v1/trusted-apps/anomaly/methods/fail", data=b"1", headers={"Edgeclave-Call-Id": "c"}
        )
    assert (status, body) == (200, {"callId": "c", "status": 422, "message": "no such sensor", "results": []})


async def test_acknowledge_list_and_evidence(broker: Any) -> None:
    nonce = bytes(range(240, 256))
    text = base64.urlsafe_b64encode(nonce).decode().rstrip("=")
    async with broker.session() as session:
        path = "/v1/trusted-apps/anomaly/acknowledgements"
        assert (await ask(session, "POST", path, json={"callIds": ["a", "b"]}))[:2] == (200, {"acknowledged": 2})
        _, listed, _ = await ask(session, "GET", "/v1/trusted-apps")
        _, fresh, _ = await ask(session, "GET", f"/v1/trusted-apps/anomaly/evidence?nonce={text}")
        _, latest, _ = await ask(session, "GET", "/v1/trusted-apps/anomaly/evidence")
    assert base64.b64decode(fresh["evidence"]) == b"evidence " + nonce
    assert base64.b64decode(latest["evidence"]) == b"evidence of today"
    assert [app["name"] for app in listed["trustedApps"]] == ["anomaly"]
    assert listed["trustedApps"][0]["methods"] == ["observe"]
    acknowledge, _, evidence, _ = broker.runner.seen
    assert acknowledge == Acknowledge(id=1, trusted_app="anomaly", call_ids=("a", "b"), caller=SAMPLE)
    assert evidence == GetEvidence(id=3, trusted_app="anomaly", nonce=nonce)


async def test_denied_is_audited_and_goes_nowhere(broker: Any) -> None:
    async with broker.session(broker.authority.module("curious")) as session:
        status, body, _ = await ask(session, "POST", OBSERVE, data=b"1", headers={"Edgeclave-Call-Id": "c-1"})
    curious = identity("curious")
    assert status == 403
    assert body["error"]["code"] == "denied"
    assert body["error"]["what"] == f"{curious} may not invoke:anomaly/observe: no statement allows it"
    assert "module twin" in body["error"]["advice"]
    assert broker.runner.seen == []
    last = broker.audited()[-1]
    assert {key: last[key] for key in ("event", "identity", "operation", "resource", "callId", "outcome")} == {
        "event": "decision", "identity": curious, "operation": "invoke:anomaly/observe", "resource": "anomaly",
        "callId": "c-1", "outcome": "deny",
    }  # fmt: skip


async def test_a_deny_statement_is_named(broker: Any) -> None:
    async with broker.session() as session:
        _, body, _ = await ask(session, "POST", "/v1/trusted-apps/secret/methods/read", data=b"1")
    assert body["error"]["what"].endswith("statement 'secret' denies it (statement secret)")
    assert broker.audited()[-1]["statement"] == "secret"


async def test_allowed_is_audited_before_it_is_done_and_without_the_payload(broker: Any) -> None:
    broker.runner.gate.clear()
    async with broker.session() as session:
        asking = asyncio.create_task(ask(session, "POST", OBSERVE, data=b'"the payload"'))
        await eventually(lambda: broker.runner.seen)
        last = broker.audited()[-1]
        assert (last["identity"], last["outcome"], last["statement"]) == (SAMPLE, "allow", "sample")
        broker.runner.gate.set()
        assert (await asking)[0] == 200
    assert "the payload" not in (broker.audit_folder / "audit.jsonl").read_text()
    verify(broker.audit_folder)


async def test_without_a_policy_callers_are_to_come_back(broker: Any) -> None:
    broker.gate.policy = None
    async with broker.session() as session:
        status, body, headers = await ask(session, "POST", OBSERVE, data=b"1")
    assert (status, body["error"]["code"], headers["Retry-After"]) == (503, "no-policy-yet", "1")


BIG = b'"' + b"x" * MAX_BODY_BYTES + b'"'


@pytest.mark.parametrize(
    ("method", "path", "more", "status", "code"),
    [
        pytest.param("POST", OBSERVE, {"data": b"{"}, 400, "payload-not-json", id="half an object"),
        pytest.param("POST", OBSERVE, {"data": b""}, 400, "payload-not-json", id="no payload"),
        pytest.param("POST", OBSERVE, {"data": b"1 2"}, 400, "payload-not-json", id="two values"),
        pytest.param("POST", OBSERVE, {"data": b'"\xff"'}, 400, "payload-not-json", id="not UTF-8"),
        pytest.param("POST", OBSERVE, {"data": b"[" * 200_000}, 400, "payload-not-json", id="nested without end"),
        pytest.param("POST", OBSERVE, {"data": BIG}, 413, "payload-too-large", id="more than a mebibyte"),
        *(
            pytest.param(
                "POST", OBSERVE, {"data": b"1", "headers": {"Edgeclave-Deadline-Ms": text}}, 400, "malformed-deadline",
                id=f"deadline {text}",
            )
            for text in ("0", "-1", "60001", "soon", "1e3", "9" * 5000, "²")
        ),
        *(
            pytest.param(
                "POST", OBSERVE, {"data": b"1", "headers": {"Edgeclave-Call-Id": text}}, 400, "malformed-call-id",
                id=f"call id {text[:5]}",
            )
            for text in ("a b", "a/b", "x" * 129, "ä")
        ),
        pytest.param("POST", "/v1/trusted-apps/a%2Fb/methods/m", {"data": b"1"}, 400, "malformed-name", id="a path"),
        pytest.param("POST", "/v1/trusted-apps/a/methods/m%0A", {"data": b"1"}, 400, "malformed-name", id="a newline"),
        pytest.param("POST", f"{APPS}/missing/methods/m", {"data": b"1"}, 404, "unknown-trusted-app", id="unknown"),
        pytest.param("POST", f"{ANOMALY}/methods/busy", {"data": b"1"}, 503, "queue-full", id="runner busy"),
        *(
            pytest.param(
                "POST", f"{ANOMALY}/acknowledgements", {"data": body}, 400, "malformed-body", id=f"{body[:20]!r}"
            )
            for body in (
                b"", b"[]", b"{}", b'{"callIds": []}', b'{"callIds": [1]}', b'{"callIds": ["a b"]}',
                b'{"callIds": ["a"], "x": 1}',
                json.dumps({"callIds": ["a"] * 1001}).encode(),
            )
        ),
        *(
            pytest.param("GET", f"{ANOMALY}/evidence?nonce={nonce}", {}, 400, "malformed-nonce", id=nonce[:9])
            for nonce in ("short", "", "A" * 10, "A" * 1000, "%2B" * 16, "A" * 13)
        ),
        pytest.param("GET", "/", {}, 404, "no-such-path", id="another path"),
        pytest.param("GET", "/v1/trusted-apps/", {}, 404, "no-such-path", id="a slash too many"),
        pytest.param("DELETE", "/v1/trusted-apps", {}, 405, "method-not-allowed", id="another HTTP method"),
    ],
)  # fmt: skip
async def test_bad_requests(broker: Any, method: str, path: str, more: dict[str, Any], status: int, code: str) -> None:
    async with broker.session() as session:
        answered, body, headers = await ask(session, method, URL(path, encoded=True), **more)
        assert (answered, body["error"]["code"]) == (status, code)
        assert set(body["error"]) == {"code", "what", "advice"}
        assert ("Retry-After" in headers) == (status == 503)
        assert (await ask(session, "POST", OBSERVE, data=b"1"))[0] == 200


@pytest.mark.parametrize(
    ("make", "code"),
    [
        pytest.param(lambda a: a.issue("sample_analytics"), "no-module-identity", id="the common name only"),
        pytest.param(lambda a: a.module("sample_analytics", hub="hub2.example"), "foreign-identity", id="another hub"),
        pytest.param(lambda a: a.module("sample_analytics", device="edge02"), "foreign-identity", id="another device"),
        pytest.param(lambda a: a.issue("sample_analytics", usage=None), "not-a-client-certificate", id="no key usage"),
    ],
)
async def test_callers_without_an_identity_here(broker: Any, make: Callable[[Authority], Leaf], code: str) -> None:
    async with broker.session(make(broker.authority)) as session:
        for path in (OBSERVE, "/v1/trusted-apps/anomaly/acknowledgements"):
            status, body, _ = await ask(session, "POST", path, data=b"1")
            assert (status, body["error"]["code"]) == (403, code)
        for path in ("/v1/trusted-apps", "/v1/trusted-apps/anomaly/evidence", "/openapi.json"):
            status, body, _ = await ask(session, "GET", path)
            assert (status, body["error"]["code"]) == (403, code)
    refused = [line for line in broker.audited() if line["event"] == "refused"]
    assert [line["outcome"] for line in refused] == [code]
    assert broker.runner.seen == []


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda a: a.module("sample_analytics", days=-0.5), id="expired"),
        pytest.param(lambda a: Authority(a.folder).module("sample_analytics"), id="another authority"),
        pytest.param(lambda a: a.issue("sample_analytics", usage=[SERVER]), id="a server certificate"),
    ],
)
async def test_certificates_that_tls_refuses(broker: Any, make: Callable[[Authority], Leaf]) -> None:
    async with broker.session(make(broker.authority)) as session:
        with pytest.raises(aiohttp.ClientError):
            await ask(session, "POST", OBSERVE, data=b"1")
    assert broker.audited() == []


async def test_no_certificate_no_connection(broker: Any) -> None:
    context = broker.authority.client_context(None)
    async with aiohttp.ClientSession(trust_env=True) as session:
        with pytest.raises(aiohttp.ClientError):
            await ask(session, "GET", "https://enclave_broker:8443/openapi.json", ssl=context)


async def test_a_connection_does_not_outlive_its_certificate(broker: Any) -> None:
    async with broker.session() as session:
        assert (await ask(session, "POST", OBSERVE, data=b"1"))[0] == 200
        broker.wall_clock[0] = time.time() + 2 * 24 * 3600
        status, body, headers = await ask(session, "POST", OBSERVE, data=b"1")
    assert (status, body["error"]["code"], headers["Connection"]) == (403, "certificate-expired", "close")


async def test_too_many_requests(broker: Any) -> None:
    broker.put_in_force({"quotas": {"requestsPerSecond": 0.1, "burst": 2}})
    async with broker.session() as session:
        answers = [await ask(session, "POST", OBSERVE, data=b"1") for _ in range(5)]
    assert [status for status, _, _ in answers] == [403, 403, 429, 429, 429]
    assert answers[-1][1]["error"]["code"] == "too-many-requests"
    assert answers[-1][2]["Retry-After"] == "10"
    assert [line["event"] for line in broker.audited()] == ["decision", "decision", "refused"]


async def test_a_deadline_that_passes_at_the_runner(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enclave_broker.operations.ANSWER_SECONDS", 0.05)
    broker.runner.gate.clear()
    async with broker.session() as session:
        headers = {"Edgeclave-Deadline-Ms": "50"}
        status, body, _ = await ask(session, "POST", OBSERVE, data=b"1", headers=headers)
        assert (status, body["error"]["code"]) == (504, "link-timeout")
        broker.runner.gate.set()


async def test_runner_away_then_back(broker: Any) -> None:
    async with broker.session() as session:
        await broker.link_server.stop()
        await eventually(lambda: not broker.link.up)
        status, body, headers = await ask(session, "POST", OBSERVE, data=b"1")
        assert (status, body["error"]["code"], headers["Retry-After"]) == (503, "link-down", "1")
        assert broker.registry.get_sample_value("edgeclave_broker_runner_link_up") == 0


async def test_a_full_disk_stops_everything_with_one_clear_error(broker: Any) -> None:
    audit = broker.gate._audit
    descriptor, audit._descriptor = audit._descriptor, os.open("/dev/full", os.O_WRONLY)
    async with broker.session() as session:
        status, body, _ = await ask(session, "POST", OBSERVE, data=b"1")
    audit._descriptor = descriptor
    assert (status, body["error"]["code"]) == (503, "audit-unavailable")
    assert broker.runner.seen == []


async def test_metrics_count_outcomes(broker: Any) -> None:
    async with broker.session() as session:
        for path in (OBSERVE, OBSERVE, "/v1/trusted-apps/anomaly/methods/fail", "/v1/trusted-apps/secret/methods/x"):
            await ask(session, "POST", path, data=b"1")
    counted = {
        outcome: broker.registry.get_sample_value(
            "edgeclave_broker_requests_total", {"operation": "invoke", "outcome": outcome}
        )
        for outcome in ("ok", "failure", "denied")
    }
    assert counted == {"ok": 2, "failure": 1, "denied": 1}
    value = broker.registry.get_sample_value
    assert value("edgeclave_broker_policy_denials_total", {"operation": "invoke"}) == 1
    assert value("edgeclave_broker_request_seconds_count", {"operation": "invoke"}) == 4
    assert value("edgeclave_broker_requests_in_flight") == 0
    assert value("edgeclave_broker_runner_link_up") == 1


async def test_the_openapi_document_is_what_is_served(broker: Any) -> None:
    async with broker.session() as session:
        status, served, _ = await ask(session, "GET", "/openapi.json")
    assert status == 200
    assert served == json.loads(document())
    described = {(verb.upper(), path) for path, verbs in served["paths"].items() for verb in verbs}
    routes = {(route.method, route.resource.canonical) for route in broker.server._runner.app.router.routes()}
    assert described == routes
    references = {part.split('"')[0] for part in json.dumps(served).split("#/components/schemas/")[1:]}
    assert references <= set(served["components"]["schemas"])
