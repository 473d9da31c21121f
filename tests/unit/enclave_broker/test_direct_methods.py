"""Direct methods: the same gate, the identity `iothub`, the limits of IoT Hub."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from enclave_broker.direct_methods import DirectMethods

from edgeclave.edge.link import Call


async def ask(broker: Any, method: str, payload: Any) -> tuple[int, Any]:
    answer: tuple[int, Any] = await DirectMethods(broker.operations).handlers()[method](payload)
    return answer


async def test_invoke_answers_without_the_results_which_go_upstream(broker: Any) -> None:
    payload = {"trustedApp": "anomaly", "method": "observe", "payload": {"a": [1]}, "callId": "c"}
    assert await ask(broker, "invoke", payload) == (
        200,
        {"callId": "c", "status": 200, "payload": {"a": [1]}, "results": []},
    )
    (call,) = broker.runner.seen
    assert isinstance(call, Call)
    assert (call.caller, call.deliver, call.payload) == ("iothub", "upstream", '{"a":[1]}')


async def test_a_failure_is_an_answer(broker: Any) -> None:
    status, body = await ask(broker, "invoke", {"trustedApp": "anomaly", "method": "fail"})
    assert (status, body["status"], body["message"]) == (200, 422, "no such sensor")


async def test_list_and_evidence(broker: Any) -> None:
    status, body = await ask(broker, "listTrustedApps", None)
    assert (status, [app["name"] for app in body["trustedApps"]]) == (200, ["anomaly"])
    nonce = base64.urlsafe_b64encode(b"12345678").decode()
    status, body = await ask(broker, "getEvidence", {"trustedApp": "anomaly", "nonce": nonce})
    assert (status, base64.b64decode(body["evidence"])) == (200, b"evidence 12345678")


@pytest.mark.parametrize(
    ("method", "payload", "status", "code"),
    [
        pytest.param("invoke", None, 400, "malformed-payload", id="no payload"),
        pytest.param("invoke", {"trustedApp": "anomaly"}, 400, "malformed-payload", id="no method"),
        pytest.param("invoke", {"trustedApp": "a b", "method": "m"}, 400, "malformed-payload", id="malformed name"),
        pytest.param("invoke", {"trustedApp": "a", "method": "m", "x": 1}, 400, "malformed-payload", id="a field more"),
        pytest.param("invoke", {"trustedApp": "secret", "method": "m"}, 403, "denied", id="denied"),
        pytest.param("invoke", {"trustedApp": "missing", "method": "m"}, 404, "unknown-trusted-app", id="unknown"),
        pytest.param("invoke", {"trustedApp": "anomaly", "method": "busy"}, 503, "queue-full", id="busy"),
        pytest.param("invoke", {"trustedApp": "anomaly", "method": "large"}, 413, "answer-too-large", id="large"),
        pytest.param(
            "invoke", {"trustedApp": "anomaly", "method": "m", "payload": "x" * 140_000}, 413, "payload-too-large",
            id="large payload",
        ),
        pytest.param("getEvidence", {"trustedApp": "anomaly", "nonce": "x"}, 400, "malformed-nonce", id="short nonce"),
        pytest.param("getEvidence", ["anomaly"], 400, "malformed-payload", id="a list"),
    ],
)  # fmt: skip
async def test_refused(broker: Any, method: str, payload: Any, status: int, code: str) -> None:
    answered, body = await ask(broker, method, payload)
    assert (answered, body["error"]["code"]) == (status, code)
    assert set(body["error"]) == {"code", "what", "advice"}


async def test_denied_to_the_cloud_what_a_module_may(broker: Any) -> None:
    sample = "{{iot:this_device_id}}/sample_analytics"
    statement = {"effect": "allow", "identities": [sample], "operations": ["invoke:*", "list"]}
    broker.put_in_force({"policy": {"statements": {"a": statement}}})
    for method, payload in (
        ("listTrustedApps", None),
        ("invoke", {"trustedApp": "anomaly", "method": "observe"}),
        ("getEvidence", {"trustedApp": "anomaly"}),
    ):
        answered, body = await ask(broker, method, payload)
        assert (answered, body["error"]["code"]) == (403, "denied")
    assert [line["identity"] for line in broker.audited()] == ["iothub"] * 3
