"""What the link reads: its messages, and nothing else."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeclave.edge.link import (
    Acknowledge,
    AcknowledgeReply,
    Call,
    CallReply,
    EvidenceReply,
    GetEvidence,
    LinkError,
    List,
    ListReply,
    Problem,
    Reason,
    SealedResult,
    TrustedAppSummary,
)
from edgeclave.edge.link.messages import MAX_MESSAGE_BYTES, decode_reply, decode_request, encode

CALL: dict[str, Any] = {
    "kind": "call", "id": 7, "trusted_app": "anomaly", "method": "observe", "payload": "{}", "call_id": "batch-1",
    "caller": "azureiot://hub/devices/d/modules/m", "deadline_ms": 5000, "deliver": "caller",
}  # fmt: skip
REQUESTS = [
    msgspec.convert(CALL, Call),
    Acknowledge(id=1, trusted_app="anomaly", call_ids=("a", "b"), caller="iothub"),
    GetEvidence(id=2, trusted_app="anomaly", nonce=b"n" * 64),
    GetEvidence(id=3, trusted_app="anomaly"),
    List(id=2**63 - 1),
]
REPLIES = [
    CallReply(id=7, status=200, payload="1", results=(SealedResult(output="a", sequence=1, sealed=b"\x00\xff"),)),
    CallReply(id=7, status=500, message="no"),
    AcknowledgeReply(id=1, count=2),
    EvidenceReply(id=2, evidence=b"evidence"),
    ListReply(
        id=4,
        trusted_apps={
            "a": TrustedAppSummary(state="failed", reason=Reason(code="wrong-signer", what="it is")),
            "b": TrustedAppSummary(state="running", methods=("observe",), debug=False, security_version=1),
        },
    ),
    Problem(id=9, code="not-stored", what="the disk is full", retry_after=1.0),
]


@pytest.mark.parametrize("message", REQUESTS, ids=repr)
def test_requests_come_through(message: Call) -> None:
    assert decode_request(encode(message)) == message


@pytest.mark.parametrize("message", REPLIES, ids=repr)
def test_replies_come_through(message: CallReply) -> None:
    assert decode_reply(encode(message)) == message


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"kind": "shutdown"}, id="unknown kind"),
        pytest.param({"kind": "call-reply"}, id="a reply as request"),
        pytest.param({"extra": 1}, id="unknown field"),
        pytest.param({"id": -1}, id="negative id"),
        pytest.param({"id": 2**63}, id="id beyond 63 bits"),
        pytest.param({"id": "7"}, id="id as text"),
        pytest.param({"trusted_app": ""}, id="empty name"),
        pytest.param({"trusted_app": "../etc"}, id="a path as name"),
        pytest.param({"trusted_app": "a\n"}, id="a newline after the name"),
        pytest.param({"method": "x" * 129}, id="a long method"),
        pytest.param({"call_id": "a b"}, id="a space in the call id"),
        pytest.param({"caller": ""}, id="nobody calls"),
        pytest.param({"deadline_ms": 0}, id="no time"),
        pytest.param({"deadline_ms": 60_001}, id="too much time"),
        pytest.param({"deliver": "everywhere"}, id="unknown delivery"),
        pytest.param({"payload": {}}, id="a payload that is no text"),
    ],
)
def test_wrong_requests_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(LinkError) as caught:
        decode_request(msgspec.msgpack.encode({**CALL, **change}))
    assert caught.value.code == "malformed-message"
    assert "same release" in caught.value.advice


@pytest.mark.parametrize("missing", ["kind", "trusted_app", "method", "payload", "call_id", "caller", "deadline_ms"])
def test_incomplete_requests_are_refused(missing: str) -> None:
    with pytest.raises(LinkError):
        decode_request(msgspec.msgpack.encode({key: value for key, value in CALL.items() if key != missing}))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param("text", id="a text frame"),
        pytest.param(b"", id="an empty frame"),
        pytest.param(b"\x91" * 100_000, id="nested without end"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="a list of four billion"),
        pytest.param(b"\xdb\xff\xff\xff\xff", id="a text of four billion"),
        pytest.param(encode(REQUESTS[0])[:-1], id="cut off"),
        pytest.param(encode(REQUESTS[0]) + b"\x00", id="more behind"),
        pytest.param(encode(REQUESTS[0]).replace(b"observe", b"obser\xff\xfe"), id="not UTF-8"),
    ],
)
def test_garbage_is_refused(data: object) -> None:
    with pytest.raises(LinkError):
        decode_request(data)
    with pytest.raises(LinkError):
        decode_reply(data)


@given(st.binary(max_size=300))
def test_random_bytes_never_surprise(data: bytes) -> None:
    for decode in (decode_request, decode_reply):
        with pytest.raises(LinkError):
            decode(data)


@given(st.sampled_from(REQUESTS + REPLIES), st.data())
def test_damaged_messages_never_surprise(message: Any, data: st.DataObject) -> None:
    encoded = bytearray(encode(message))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    for decode in (decode_request, decode_reply):
        try:
            decode(bytes(encoded))
        except LinkError as error:
            assert error.code == "malformed-message"  # noqa: PT017 - either is right


def test_a_message_beyond_the_limit_is_not_sent() -> None:
    with pytest.raises(LinkError) as caught:
        encode(CallReply(status=200, payload="x" * MAX_MESSAGE_BYTES))
    assert caught.value.code == "message-too-large"
